"""From strokes and painted slices to masks."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from napari_medgs.data.volume import Volume
from napari_medgs.errors import LabelError, ParameterError
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentModel, SegmentParams, segment
from napari_medgs.segmentation.api import FIT_PARAMS, fit_for_segmentation

FIT = FitParams(gaussians=2500, iterations=40)
BACKGROUND = 9


def overlap(guess, truth):
    return 2 * (guess & truth).sum() / (guess.sum() + truth.sum())


@pytest.fixture(scope="module")
def scene():
    """Two bending tubes of different brightness in a noisy box, (24, 56, 60)."""
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[0:24, 0:56, 0:60].astype(np.float32)
    labels = np.zeros(z.shape, np.uint8)
    image = 50 + rng.normal(0, 4, z.shape)
    for value, (cy, cx, drift, radius, bright) in {
        1: (18, 17, 0.5, 8, 110),
        2: (38, 42, -0.4, 9, 150),
    }.items():
        inside = (y - cy - drift * (z - 12)) ** 2 + (x - cx) ** 2 < radius**2
        labels[inside] = value
        image[inside] += bright - 50
    volume = Volume.from_array(image.astype(np.float32))
    return volume, labels, fit_for_segmentation(volume, FIT)


def strokes(labels, slices):
    """Short horizontal strokes in the middle of each class, and along two borders."""
    drawn = np.zeros(labels.shape, np.uint8)
    for z in slices:
        for value in (1, 2):
            y, x = (int(k.mean()) for k in np.nonzero(labels[z] == value))
            drawn[z, y, x - 3 : x + 4] = value
        drawn[z, 2, 5:-5] = BACKGROUND
        drawn[z, -3, 5:-5] = BACKGROUND
        drawn[z, 26:30, 29] = BACKGROUND
    return drawn


def test_strokes_on_three_slices_become_a_mask(scene):
    volume, labels, field = scene
    prompts = Prompts(labels=strokes(labels, (4, 12, 20)), unlabeled=0, background=BACKGROUND)
    result = segment(volume, prompts, field=field)
    for value in (1, 2):
        assert overlap(result.labels == value, labels == value) > 0.9
    assert set(np.unique(result.labels)) == {0, 1, 2}
    assert result.voxels[1] == (result.labels == 1).sum()
    assert result.seconds_fit == 0


@pytest.mark.parametrize("points", [False, True])
def test_a_background_value_that_no_prompt_has_is_refused(scene, points):
    """What was meant as background would become a class that fills the image."""
    from napari_medgs.segmentation import Point

    volume, labels, field = scene
    drawn = strokes(labels, (12,))
    background = (Point((12.0, 2.0, 2.0), 7),) if points else ()
    prompts = Prompts(labels=drawn, background=7, points=background)
    if points:  # a point is a prompt, too
        assert segment(volume, prompts, field=field).labels[12, 2, 2] == 0
        return
    said = r"whose value is 7; the marked values are 1, 2, 9\. Mark"
    with pytest.raises(LabelError, match=said):
        segment(volume, prompts, field=field)


def test_without_background_the_flood_is_told(scene):
    volume, labels, field = scene
    drawn = strokes(labels, (4, 12, 20))
    drawn[drawn == BACKGROUND] = 0
    with pytest.warns(UserWarning, match="no background is marked"):
        flooded = segment(volume, Prompts(labels=drawn), field=field)
    assert (flooded.labels > 0).mean() > 0.9
    drawn[4, 2, 5:-5] = BACKGROUND
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segment(volume, Prompts(labels=drawn, background=BACKGROUND), field=field)


def test_the_same_prompts_give_the_same_mask(scene):
    volume, labels, field = scene
    prompts = Prompts(labels=strokes(labels, (12,)), background=BACKGROUND)
    first, second = (segment(volume, prompts, field=field).labels for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_one_more_stroke_updates_the_model(scene):
    volume, labels, field = scene
    model = SegmentModel(volume, field, SegmentParams())
    one = model.update(Prompts(labels=strokes(labels, (12,)), background=BACKGROUND))
    more = model.update(Prompts(labels=strokes(labels, (3, 12, 21)), background=BACKGROUND))
    fresh = segment(
        volume, Prompts(labels=strokes(labels, (3, 12, 21)), background=BACKGROUND), field=field
    )
    np.testing.assert_array_equal(more.labels, fresh.labels)  # no trace of the earlier prompts
    assert not np.array_equal(one.labels, more.labels)


def test_painted_slices_are_kept_and_joined(scene):
    volume, labels, field = scene
    painted = np.full(labels.shape, -1, np.int16)
    for z in (0, 6, 12, 18, 23):
        painted[z] = labels[z]
    result = segment(volume, Prompts(labels=painted, unlabeled=-1), field=field)
    for z in (0, 6, 12, 18, 23):
        assert (result.labels[z] == labels[z]).mean() > 0.995
    for value in (1, 2):
        assert overlap(result.labels == value, labels == value) > 0.95


def test_strokes_stay_what_they_are(scene):
    volume, labels, field = scene
    drawn = strokes(labels, (8, 16))
    result = segment(volume, Prompts(labels=drawn, background=BACKGROUND), field=field)
    for value in (1, 2):
        assert (result.labels[drawn == value] == value).all()
    assert (result.labels[drawn == BACKGROUND] == 0).all()


def test_the_fit_of_a_segmentation_takes_half_the_steps(scene):
    volume, _, _ = scene
    totals = set()

    def note(event):
        if event.stage == "fit":
            totals.add(event.total)

    fit_for_segmentation(Volume.from_array(volume.data[0, 8:16]), progress=note)
    assert totals == {FIT_PARAMS.iterations}
    assert FitParams().iterations == 2 * FIT_PARAMS.iterations


def test_one_class_alone_is_refused_before_any_work(scene):
    volume, labels, field = scene
    drawn = np.where(labels == 1, 1, 0)
    with pytest.raises(LabelError, match="Only one class is marked"):
        segment(volume, Prompts(labels=drawn), field=field)
    around = np.where(labels == 1, 9, 0)
    with pytest.raises(LabelError, match=r"Only one class is marked \(the background\)"):
        segment(volume, Prompts(labels=around, background=9), field=field)


def test_wrong_settings_are_refused():
    with pytest.raises(ParameterError, match="islands"):
        SegmentParams(islands="some")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="Unknown segmentation setting"):
        SegmentParams.from_dict({"magic": 1})


def test_the_command_does_the_same(scene, tmp_path):
    import json

    from typer.testing import CliRunner

    from napari_medgs.cli import app
    from napari_medgs.io import read_labels, read_volume, write_image, write_labels
    from napari_medgs.io.fields import save_field

    volume, labels, field = scene
    drawn = strokes(labels, (4, 12, 20))
    write_image(tmp_path / "scan.nii.gz", volume.data, volume.grid)
    write_labels(tmp_path / "strokes.nii.gz", drawn, volume.grid, {1: "vein", 2: "artery"})
    save_field(tmp_path / "f.medgs.safetensors", field)
    words = ["segment", "scan.nii.gz", "--prompts", "strokes.nii.gz", "-o", "mask.nii.gz"]
    words += ["--field", "f.medgs.safetensors", "--background-label", str(BACKGROUND)]
    words += ["--probability", "p.nii.gz", "--uncertainty", "u.nii.gz", "--json", "out.json"]
    paths = [str(tmp_path / w) if "." in w and not w.startswith("-") else w for w in words]
    done = CliRunner().invoke(app, paths)
    assert done.exit_code == 0, done.output
    assert "does not look like" not in done.stderr
    mask, _ = read_labels(tmp_path / "mask.nii.gz", volume.grid)
    expected = segment(volume, Prompts(labels=drawn, background=BACKGROUND), field=field)
    np.testing.assert_array_equal(mask, expected.labels)
    numbers = json.loads((tmp_path / "out.json").read_text())
    assert numbers["voxels"] == {"1": int((mask == 1).sum()), "2": int((mask == 2).sum())}
    probability = read_volume(tmp_path / "p.nii.gz").data
    np.testing.assert_allclose(probability.sum(axis=0), 1, atol=1e-4)
    error_estimate = read_volume(tmp_path / "u.nii.gz").data[0]
    assert error_estimate[mask != labels].mean() > error_estimate[mask == labels].mean()
    # A field of another image of the same grid is told from the image's own.
    write_image(tmp_path / "scan.nii.gz", volume.data[..., ::-1], volume.grid)
    warned = CliRunner().invoke(app, paths[: paths.index("--probability")])
    assert warned.exit_code == 0, warned.output
    assert "f.medgs.safetensors: this field does not look like" in warned.stderr
    # One class alone is explained in one line.
    write_labels(tmp_path / "one.nii.gz", np.where(labels == 1, 1, 0), volume.grid)
    paths[paths.index(str(tmp_path / "strokes.nii.gz"))] = str(tmp_path / "one.nii.gz")
    failed = CliRunner().invoke(app, paths[:6])
    assert failed.exit_code == 1
    assert "Only one class is marked" in failed.stderr
