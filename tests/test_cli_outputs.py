"""No output of a command overwrites an input or another output; links are followed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from napari_medgs.cli import app
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.data.grid import Grid
from napari_medgs.errors import Cancelled, FileError
from napari_medgs.fitting import FitParams
from napari_medgs.fitting import fit as fit_field
from napari_medgs.io import read_label_names, read_labels, read_volume, write_image, write_labels
from napari_medgs.io.fields import save_field
from napari_medgs.io.itk.segments import read_segments


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Files of every kind that commands read, by name."""
    place = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    affine = np.diag([-1.0, -1, 2, 1])
    data = rng.normal(100, 20, (16, 14, 6)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, affine), place / "image.nii.gz")
    volume = read_volume(place / "image.nii.gz")
    labels = np.zeros(volume.shape, np.uint8)
    labels[2:4, 3:9, 3:9] = 1
    strokes = np.where(labels == 1, 1, 0)
    strokes[0, :2] = 3
    write_labels(place / "mask.nii.gz", labels, volume.grid, {1: "liver"})
    write_labels(place / "strokes.nii.gz", strokes, volume.grid)
    write_labels(place / "strokes-named.nii.gz", strokes, volume.grid, {1: "a", 3: "b"})
    result = fit_field(volume, FitParams(gaussians=60, iterations=2), labels)
    save_field(place / "field.medgs.safetensors", result.field)
    (place / "model.safetensors").write_bytes(b"no model, only a file that must stay")
    (place / "session.json").write_text("{}")
    (place / "images").mkdir()
    (place / "prompts").mkdir()
    write_image(place / "images" / "a.nii.gz", volume.data, volume.grid)
    write_labels(place / "prompts" / "a.nii.gz", strokes, volume.grid)
    (place / "fields").mkdir()
    save_field(place / "fields" / "a.medgs.safetensors", result.field)
    (place / "nn" / "imagesTr").mkdir(parents=True)
    (place / "nn" / "labelsTr").mkdir()
    write_image(place / "nn" / "imagesTr" / "a_0000.nii.gz", volume.data, volume.grid)
    write_labels(place / "nn" / "labelsTr" / "a.nii.gz", labels, volume.grid)
    (place / "nn" / "dataset.json").write_text("{}")
    (place / "list.txt").write_text("images/a.nii.gz\n")
    (place / "table.csv").write_text("image,mask\nimages/a.nii.gz,prompts/a.nii.gz\n")
    (place / "link.nii.gz").symlink_to(place / "image.nii.gz")
    return place


def run(place, line: str):
    """Run a command line; words with a dot or a known folder are paths in the place."""
    words = [
        str(place / w) if "." in w or w in ("images", "prompts", "new", "fields", "nn") else w
        for w in line.split()
    ]
    return CliRunner().invoke(app, words)


SAME = [
    "segment image.nii.gz --prompts strokes.nii.gz -o image.nii.gz",
    "segment image.nii.gz --prompts strokes.nii.gz -o link.nii.gz",
    "segment link.nii.gz --prompts strokes.nii.gz -o image.nii.gz",
    "segment image.nii.gz --prompts strokes.nii.gz -o strokes.nii.gz",
    "segment image.nii.gz --prompts strokes-named.nii.gz -o strokes-named.nii",
    "segment image.nii.gz --prompts strokes.nii.gz --initial mask.nii.gz -o mask.nii.gz",
    "segment image.nii.gz --prompts strokes.nii.gz --probability image.nii.gz -o out.nii.gz",
    "segment image.nii.gz --prompts strokes.nii.gz --uncertainty strokes.nii.gz -o out.nii.gz",
    "segment image.nii.gz --prompts strokes.nii.gz --uncertainty out.nii.gz -o out.nii.gz",
    "segment image.nii.gz --prompts strokes.nii.gz --probability u.nii --uncertainty u.nii "
    "-o out.nii.gz",
    "segment image.nii.gz --prompts strokes.nii.gz -o out.nii.gz --json image.nii.gz",
    "segment image.nii.gz --prompts strokes.nii.gz -o out.nii.gz --json out.nii.gz",
    "segment image.nii.gz --session session.json -o out.nii.gz --json session.json",
    "segment image.nii.gz --session session.json -o session.nii.gz",
    "segment images --prompts prompts -o images",
    "segment images --prompts prompts -o prompts",
    "segment images --prompts prompts -o new --json images/a.nii.gz",
    "fit image.nii.gz -o out.medgs.safetensors --json image.nii.gz",
    "fit image.nii.gz -o out.medgs.safetensors --json out.medgs.safetensors",
    "fit image.nii.gz -o out.medgs.safetensors --mask mask.nii.gz --json mask.json",
    "fit image.nii.gz -o out.medgs.safetensors --from field.medgs.safetensors "
    "--json field.medgs.safetensors",
    "fit image.nii.gz -o out.medgs.safetensors --positions p.npz --json p.npz",
    "render field.medgs.safetensors -o out.nii.gz --json out.nii.gz",
    "render field.medgs.safetensors -o out.nii.gz --json field.medgs.safetensors",
    "render field.medgs.safetensors --like image.nii.gz -o image.nii.gz",
    "render field.medgs.safetensors --like image.nii.gz -o link.nii.gz",
    "mesh mask.nii.gz -o out.ply --json out.ply",
    "mesh mask.nii.gz -o out.ply --json mask.nii.gz",
    "mesh mask.nii.gz -o out.ply --json mask.json",
    "info image.nii.gz --json image.nii.gz",
    "info image.nii.gz --json link.nii.gz",
    "info mask.nii.gz --json mask.json",
    "evaluate mask.nii.gz strokes.nii.gz --json strokes.nii.gz",
    "evaluate mask.nii.gz strokes.nii.gz --json mask.json",
    "fit-many images -o images",
    "fit-many images -o new --json images/a.nii.gz",
    "fit-many list.txt -o new --json images/a.nii.gz",
    "fit-many table.csv -o new --json prompts/a.nii.gz",
    "train-tissues list.txt -o m.safetensors --json images/a.nii.gz",
    "train-codec fields -o fields/a.medgs.safetensors",
    "train-codec fields -o m.safetensors --json fields/a.medgs.safetensors",
    "compress fields -o new --json fields/a.medgs.safetensors",
    "train-segmenter nn -o m.safetensors --json nn/labelsTr/a.nii.gz",
    "train-segmenter nn -o m.safetensors --json nn/dataset.json",
    "train-segmenter table.csv -o m.safetensors --json prompts/a.nii.gz",
    "evaluate prompts prompts --json prompts/a.json",
    "train labels.npz -o out.medgs-classifier.safetensors --json labels.npz",
    "classify image.nii.gz -m model.safetensors --json model.safetensors",
    "classify image.nii.gz -m model.safetensors --json image.nii.gz",
    "evaluate-classifier labels.npz -m model.safetensors --json model.safetensors",
    "convert image.nii.gz image.nii.gz",
    "convert image.nii.gz link.nii.gz",
    "convert image.nii.gz out.mha --json image.nii.gz",
    "convert image.nii.gz out.mha --json out.mha",
]


def content(place) -> dict:
    return {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}


@pytest.mark.parametrize("line", SAME)
def test_refused_before_work_starts(made, line):
    before = content(made)
    result = run(made, line)
    assert result.exit_code == 1, result.output
    assert "choose another" in result.stderr or "suffix" in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert content(made) == before


def test_a_fit_may_go_on_in_its_own_file(made, tmp_path):
    field = tmp_path / "f.medgs.safetensors"
    field.write_bytes((made / "field.medgs.safetensors").read_bytes())
    words = ["fit", made / "image.nii.gz", "-o", field, "--from", field, "--iterations", "1"]
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == 0, result.output


def test_numbers_may_join_the_label_names(made, tmp_path):
    words = ["convert", made / "mask.nii.gz", tmp_path / "m.mha", "--json", tmp_path / "m.json"]
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "m.json").read_text())["kind"] == "mask"
    assert read_label_names(tmp_path / "m.mha") == {1: "liver"}


def test_outputs_go_through_links(made, tmp_path):
    (tmp_path / "real.mha").write_text("old")
    (tmp_path / "link.mha").symlink_to(tmp_path / "real.mha")
    result = run(made, f"convert image.nii.gz {tmp_path}/link.mha")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "link.mha").is_symlink()
    assert read_volume(tmp_path / "real.mha").shape == read_volume(made / "image.nii.gz").shape


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_convert_image(made, tmp_path, suffix):
    out = tmp_path / f"out{suffix}"
    assert run(made, f"convert image.nii.gz {out}").exit_code == 0
    expected = sitk.ReadImage(str(made / "image.nii.gz"))
    found = sitk.ReadImage(str(out))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(found.GetOrigin(), expected.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(found.GetDirection(), expected.GetDirection(), atol=1e-6)


def test_convert_masks_through_every_format(made, tmp_path):
    names = ["a.seg.nrrd", "b.mha", "c.nrrd", "d.nii", "e.seg.nrrd", "f.nii.gz"]
    last = made / "mask.nii.gz"
    for name in names:
        result = run(made, f"convert {last} {tmp_path / name}")
        assert result.exit_code == 0, result.output
        assert ": mask, 6 x 14 x 16 voxels" in result.output
        last = tmp_path / name
        assert read_label_names(last) == {1: "liver"}
    first, grid = read_labels(made / "mask.nii.gz")
    labels, _ = read_labels(last, grid)
    np.testing.assert_array_equal(labels, first)
    assert nib.load(last).get_data_dtype() == np.uint8


def test_convert_keeps_colors_and_segments(tmp_path):
    source, out = tmp_path / "s.seg.nrrd", tmp_path / "t.seg.nrrd"
    labels = np.arange(24).reshape(2, 3, 4) % 3
    colors = {1: (1, 0, 0.5), 2: (0, 0.25, 0)}
    write_labels(source, labels, Grid((2, 3, 4)), {1: "left lung", 2: "heart"}, colors=colors)
    words = ["convert", source, out, "--segment", "heart"]
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    (kept,) = read_segments(out)
    assert (kept.name, kept.value, kept.color) == ("heart", 2, (0, 0.25, 0))
    np.testing.assert_array_equal(read_labels(out)[0], np.where(labels == 2, 2, 0))


def test_convert_as_image_and_as_labels(made, tmp_path):
    out = tmp_path / "out.mha"
    result = run(made, f"convert mask.nii.gz {out} --as-image")
    assert ": image, " in result.output
    result = run(made, f"convert image.nii.gz {tmp_path / 'out.nrrd'} --as-labels")
    assert result.exit_code == 1
    assert "not integers" in result.stderr
    result = run(made, f"convert image.nii.gz {tmp_path / 'out.seg.nrrd'}")
    assert result.exit_code == 1
    assert run(made, f"convert image.nii.gz {out} --as-image --segment a").exit_code == 2


def test_segment_to_a_segmentation_file(made, tmp_path):
    out = tmp_path / "out.seg.nrrd"
    result = run(
        made,
        f"segment image.nii.gz --prompts strokes-named.nii.gz --field field.medgs.safetensors "
        f"-o {out} --background-label 3",
    )
    assert result.exit_code == 0, result.output
    assert [s.name for s in read_segments(out)] == ["a"]
    labels, _ = read_labels(out, read_volume(made / "image.nii.gz").grid)
    assert set(np.unique(labels)) == {0, 1}


def test_converted_masks_share_their_label_names(made, tmp_path):
    source = tmp_path / "m.nii.gz"
    labels, grid = read_labels(made / "mask.nii.gz")
    write_labels(source, labels, grid, {1: "liver"})
    words = ["convert", source, tmp_path / "m.mha"]
    assert CliRunner().invoke(app, [str(w) for w in words]).exit_code == 0
    assert read_label_names(source) == read_label_names(tmp_path / "m.mha") == {1: "liver"}


def test_numbers_are_printed_instead_of_text(made):
    result = CliRunner().invoke(app, ["info", str(made / "mask.nii.gz"), "--json", "-"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["kind"] == "mask"


def test_info_lists_overlapping_segments(tmp_path):
    layers = np.zeros((3, 4, 5, 2), np.uint8)
    layers[0, ..., 0] = 1
    layers[:2, ..., 1] = 1
    image = sitk.GetImageFromArray(layers, isVector=True)
    for k, name in enumerate(("liver", "tumor")):
        image.SetMetaData(f"Segment{k}_Name", name)
        image.SetMetaData(f"Segment{k}_LabelValue", "1")
        image.SetMetaData(f"Segment{k}_Layer", str(k))
    path, numbers = tmp_path / "s.seg.nrrd", tmp_path / "n.json"
    sitk.WriteImage(image, str(path))
    result = CliRunner().invoke(app, ["info", str(path), "--json", str(numbers)])
    assert result.exit_code == 0, result.output
    assert json.loads(numbers.read_text())["segments"] == {
        "liver": {"value": 1, "layer": 0, "voxels": 20},
        "tumor": {"value": 1, "layer": 1, "voxels": 40},
    }


def test_a_link_that_leads_to_itself(made, tmp_path):
    (tmp_path / "loop.nii.gz").symlink_to("loop.nii.gz")
    for line, words in (
        (f"convert image.nii.gz {tmp_path}/loop.nii.gz", "leads to itself"),
        (f"info {tmp_path}/loop.nii.gz", "no such file"),
    ):
        result = run(made, line)
        assert result.exit_code == 1
        assert words in result.output


@pytest.mark.parametrize(
    "name", ["set.npz", "liver.safetensors", "a.medgs", "a.medgs.safetensors", "cases.csv"]
)
def test_numbers_and_masks_named_like_what_is_no_mask(tmp_path, name):
    """Label names are read beside masks alone; a second run finds those of the first."""
    source = tmp_path / name
    source.touch()
    stem = tmp_path / name.rpartition(".")[0]
    for _ in range(2):
        check_distinct([source], {"--json": Path(f"{stem}.json")})
        check_distinct([source], {"-o": Path(f"{stem}.nii.gz")}, masks=("-o",))
        Path(f"{stem}.json").write_text('{"labels": {"1": "liver"}}')


def test_numbers_named_like_a_folder_of_cases(tmp_path):
    cases = tmp_path / "cases"
    cases.mkdir()
    check_distinct([cases], {"--json": tmp_path / "cases.json"})
    (tmp_path / "cases.json").write_text('{"seconds": 3}')  # of the last run
    check_distinct([cases], {"--json": tmp_path / "cases.json"})
    (tmp_path / "cases.json").write_text('{"labels": {"1": "liver"}}')  # of frames of a mask
    with pytest.raises(FileError, match="label names of"):
        check_distinct([cases], {"--json": tmp_path / "cases.json"})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("render field.medgs.safetensors -o pictures.png", "no such file can be written"),
        ("render field.medgs.safetensors -o pictures.dcm", "no such file can be written"),
        ("render field.medgs.safetensors -o -", "not written to the standard output"),
        ("render field.medgs.safetensors -o images", "is not empty"),
        ("render field.medgs.safetensors -o /dev/null", "is a file"),
        ("render field.medgs.safetensors -o image.seg.nrrd", "holds masks"),
        ("mesh mask.nii.gz -o -", "not written to the standard output"),
        ("sample -o -", "not written to the standard output"),
        ("segment images --prompts nowhere -o new", "nowhere: no such file or folder"),
        ("segment nowhere --prompts strokes.nii.gz -o new", "nowhere: no such file or folder"),
    ],
)
def test_outputs_that_cannot_be_written(made, monkeypatch, line, says):
    """Before anything is rendered; no folder is made of the name of a file."""
    monkeypatch.chdir(made)
    monkeypatch.setattr("napari_medgs.rendering.render", None)
    before = content(made)
    result = run(made, line)
    assert result.exit_code == 1, result.output
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert content(made) == before


@pytest.fixture(scope="module")
def cohort(made):
    assert run(made, "pack fields -o all.medgsz --iterations 0").exit_code == 0
    return made


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    "line",
    [
        "convert mask.nii.gz {}/m.mha",
        "mesh two.nii.gz -o {}/there",
        "mesh two.nii.gz -o {}/absent",
        "measure mask.nii.gz --csv {}/t.csv --json {}/t.json",
        "render field.medgs.safetensors -o {}/frames --json {}/t.json",
        "tissues image.nii.gz --classes 2 -o {}/t.nii.gz --uncertainty {}/u.nii.gz",
        "unpack all.medgsz -o {}/fields --json {}/t.json",
    ],
)
def test_an_interrupt_says_what_was_written(cohort, tmp_path, monkeypatch, line, later):
    """Right before the first file gets its name, or right after it."""

    labels, grid = read_labels(cohort / "mask.nii.gz")
    labels[0, 0] = 2
    write_labels(cohort / "two.nii.gz", labels, grid)
    (tmp_path / "there").mkdir()
    replace = os.replace

    def interrupted(source, target):
        mine = tmp_path in Path(target).parents  # compiled code gets its name like this, too
        if later or not mine:
            replace(source, target)
        if mine:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    result = run(cohort, line.replace("{}", str(tmp_path)))
    assert result.exit_code == 130, result.output
    left = [p for p in tmp_path.rglob("*") if p.name not in ("there", "fields")]
    whole = [p for p in left if p.parent.name != "frames"]
    if whole:
        assert f"canceled; written before: {', '.join(map(str, whole))}." in result.stderr
    else:
        assert "canceled; nothing was written." in result.stderr
    assert bool(whole) == (later and "absent" not in line)


@pytest.mark.parametrize("late", [False, True])
def test_an_interrupt_of_a_folder_says_what_is_there(made, tmp_path, monkeypatch, late):
    """While the second of two images is segmented; or too late for the first to stop."""
    from napari_medgs.segmentation import model

    for folder in ("images", "prompts"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            source = made / ("image.nii.gz" if folder == "images" else "strokes.nii.gz")
            shutil.copy(source, tmp_path / folder / f"{name}.nii.gz")
    solve, calls = model.SegmentModel.update, []

    def update(self, *args, **options):
        calls.append(1)
        result = solve(self, *args, **options)
        if len(calls) == (1 if late else 2):
            signal.raise_signal(signal.SIGINT)
            if not late:
                raise Cancelled
        return result

    monkeypatch.setattr(model.SegmentModel, "update", update)
    words = f"--prompts {tmp_path}/prompts --background-label 3 -o {tmp_path}/masks"
    result = run(made, f"segment {tmp_path}/images {words}")
    assert "stopping; what is finished is kept" in result.stderr
    assert (tmp_path / "masks" / "a.nii.gz").exists()
    assert not (tmp_path / "masks" / "b.nii.gz").exists()
    assert result.exit_code == 130, result.output
    assert "Canceled; 1 of 2 masks were written." in result.stderr


def test_an_interrupt_that_comes_too_late_still_keeps_nothing(made, tmp_path, monkeypatch):
    from napari_medgs.segmentation import model

    solve = model.SegmentModel.update

    def update(self, *args, **options):
        result = solve(self, *args, **options)
        signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(model.SegmentModel, "update", update)
    words = f"--prompts strokes.nii.gz --background-label 3 -o {tmp_path}/m.nii.gz"
    result = run(made, f"segment image.nii.gz {words}")
    assert result.exit_code == 130, result.output
    assert "stopping; nothing is kept" in result.stderr
    assert "canceled; nothing was written." in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_interrupt_names_what_other_processes_wrote(made, tmp_path, monkeypatch):
    """A second Ctrl-C, right after the first field of several."""
    from napari_medgs.batch import run as running

    set_entry = running.Manifest.set

    def interrupted(self, case, entry):
        set_entry(self, case, entry)
        raise KeyboardInterrupt

    monkeypatch.setattr(running.Manifest, "set", interrupted)
    line = f"fit-many list.txt -o {tmp_path} --gaussians 20 --iterations 1 --workers 1"
    result = run(made, line)
    assert result.exit_code == 130, result.output
    assert f"written before: {tmp_path}/a.medgs.safetensors" in result.stderr
    assert f"{tmp_path}/manifest.json" in result.stderr


@pytest.mark.parametrize(
    "line",
    [
        "convert image.nii.gz {}/o.nrrd",
        "convert mask.nii.gz {}/m.nii.gz",
        "fit image.nii.gz -o {}/o.medgs",
        "mesh mask.nii.gz -o {}/o.ply",
        "measure mask.nii.gz --csv {}/o.csv",
        "info image.nii.gz --json {}/link.json",
        "render field.medgs.safetensors --head seg -o {}/m.nii.gz",
        "pack fields -o {}/o.medgsz",
        "unpack c.medgsz -o fields --json {}/o.json",
        "segment image.nii.gz --prompts strokes.nii.gz --background-label 3 -o {}/m.nii.gz",
    ],
)
def test_write_protected_files_stay(made, tmp_path, line):
    """A rename would replace them, and what a link of a DataLad data set leads to."""
    for name in ("o.nrrd", "o.medgs", "o.ply", "o.csv", "o.json", "o.medgsz", "m.json"):
        (tmp_path / name).write_text('{"labels": {"1": "mine"}}')
        (tmp_path / name).chmod(0o444)
    (tmp_path / "link.json").symlink_to(tmp_path / "o.json")
    before = content(tmp_path)
    result = run(made, line.replace("{}", str(tmp_path)))
    assert result.exit_code == 1, result.output
    assert "is write-protected; choose another output" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert content(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize(
    "line",
    [
        "info {}.png",
        "info {}.npz",
        "fit {}.tif -o o.medgs",
        "fit-many {}.csv -o new",
        "convert {}.dcm o.nrrd",
        "mesh {}.hdr -o o.ply",
        "segment image.nii.gz --session {}.json -o o.nii.gz",
        "segment image.nii.gz --prompts {}.png -o o.nii.gz",
        "info {}.safetensors",
        "decompress {}.medgs -o o.medgs.safetensors",
        "train {}.npz -o o.safetensors",
    ],
)
def test_pipes_are_no_inputs(made, tmp_path, line):
    """Who opens one waits for a writer, who may never come."""
    words = [word.replace("{}", str(tmp_path / "pipe")) for word in line.split()]
    pipe = next(word for word in words if "pipe" in word)
    os.mkfifo(pipe)
    result = run(made, " ".join(words))
    assert result.exit_code == 1, result.output
    assert f"{pipe}: is a pipe or a device, not a file" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_names_that_are_no_text(made, tmp_path, monkeypatch):
    """Linux allows names of any bytes; what holds them as text must be read again."""
    from napari_medgs.segmentation.session.replay import load_session, save_session
    from napari_medgs.segmentation.session.session import Session

    name = os.fsdecode(b"\xffa")
    monkeypatch.chdir(tmp_path)
    try:
        for kind in ("image", "mask"):
            target = tmp_path / f"{name}{kind}.nii.gz"
            target.write_bytes((made / f"{kind}.nii.gz").read_bytes())
    except OSError:
        pytest.skip("this file system allows no such names")
    image, mask = f"{name}image.nii.gz", f"{name}mask.nii.gz"
    for line in (
        f"fit {image} -o f.medgs.safetensors --gaussians 20 --iterations 1 --json f.json",
        f"fit {image} -o {name}f.medgs --gaussians 20 --iterations 1 --checkpoint-every 1",
        f"convert {image} {name}c.mha --json c.json",
        f"measure {mask} --image {image} --csv m.csv --json m.json",
        f"evaluate {mask} {mask} --csv e.csv --json e.json",
        "info f.medgs.safetensors",
        f"info {name}f.medgs",
        "info c.json",
        "info e.csv",
    ):
        result = CliRunner().invoke(app, line.split())
        assert result.exit_code == 0, f"{line!a}: {result.stderr!a}"
    session = Session(Grid((2, 3, 4)), images=[image], field=f"{name}f.medgs")
    assert load_session(save_session(session, "s.json"))[0].images == ("\ufffdaimage.nii.gz",)
