"""Values that no command can use: refused by the option's name, before any work."""

from __future__ import annotations

import contextlib
import signal

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_medgs.cli import app
from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.errors import ParameterError
from napari_medgs.fitting import FitParams
from napari_medgs.fitting import fit as fit_field
from napari_medgs.io import read_labels, read_volume, write_image, write_labels
from napari_medgs.io.fields import load_field, save_field
from napari_medgs.rendering import render


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an image, its mask and a field of both."""

    folder = tmp_path_factory.mktemp("values")
    rng = np.random.default_rng(0)
    grid = Grid((6, 14, 12), np.diag([2.0, 1, 1, 1]))
    data = rng.normal(100, 20, (1, *grid.shape)).astype(np.float32)
    labels = np.zeros(grid.shape, np.uint8)
    labels[2:4, 3:9, 3:9] = 1
    write_image(folder / "image.nii.gz", data, grid)
    write_labels(folder / "mask.nii.gz", labels, grid)
    field = fit_field(Volume(data, grid), FitParams(gaussians=60, iterations=2), labels).field
    save_field(folder / "field.medgs.safetensors", field)
    (folder / "packed").mkdir()
    save_field(folder / "packed" / "a.medgs", field)
    return folder


def run(folder, line: str):
    """Run a command line; words with a dot after letters are paths in the folder."""
    words = [
        str(folder / w) if w.split(".")[0].isalpha() and "." in w else w for w in line.split()
    ]
    return CliRunner().invoke(app, words, env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("fit image.nii.gz -o o.medgs --lambda-img inf", "--lambda-img"),
        ("fit image.nii.gz --mask mask.nii.gz -o o.medgs --lambda-seg inf", "--lambda-seg"),
        ("fit image.nii.gz -o o.medgs --time-limit inf", "--time-limit must be 0.01 or more"),
        ("fit image.nii.gz -o o.medgs --percentiles 5 inf", "--percentiles must be"),
        ("parts image.nii.gz -o p.nii.gz --count 3 --noise inf", "--noise must be above 0"),
        ("tissues image.nii.gz -o t.nii.gz --seed 2147483648", "--seed"),
        ("demo --seed -1 -o demo", "--seed"),
        ("train-codec fields -o c.safetensors --learning-rate 0", "--learning-rate must be"),
    ],
)
def test_values_without_use(place, line, says):
    before = set(place.rglob("*"))
    result = run(place, line)
    assert result.exit_code == 2, result.output
    assert says in " ".join(result.stderr.split())
    assert set(place.rglob("*")) == before


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("blend", ["normalized", "alpha"])
def test_gaussians_that_are_no_numbers(place, wrong, blend):
    """Kernels turn their numbers into indices: this ended the program."""
    from dataclasses import replace

    field = load_field(place / "field.medgs.safetensors")
    field.info = replace(field.info, blend=blend)
    field.centers[3, 2] = wrong
    with pytest.raises(ParameterError, match="not finite"):
        render(field, "image", backend="cpu")


def test_suffixes_in_capitals(place):
    """What is accepted as a name before the work is accepted after it, too."""
    out = place / "UPPER.MEDGS.SAFETENSORS"
    result = run(place, "fit image.nii.gz -o UPPER.MEDGS.SAFETENSORS --iterations 1")
    assert result.exit_code == 0, result.output
    assert len(load_field(out))
    assert run(place, f"info {out}").exit_code == 0
    out.unlink()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("fit image.nii.gz -o o.medgs --positions-every 3", "--positions-every"),
        ("fit image.nii.gz -o o.medgs --lambda-seg 2 --empty-slices-unlabeled",
         "--lambda-seg and --empty-slices-unlabeled have no effect without --mask"),
        ("fit image.nii.gz --mask mask.nii.gz --from field.medgs.safetensors -o o.medgs "
         "--freeze-geometry --quality 30", "with --freeze-geometry"),
        ("compress field.medgs.safetensors -o c.medgs --volume 3", "without --image"),
        ("compress field.medgs.safetensors --model m.safetensors -o c.latents.safetensors "
         "--step 2 --backend cpu", "--step and --backend have no effect with --model"),
        ("pack packed -o c.medgsz --profile small --step 2",
         "--profile and --step have no effect on fields that are compressed already"),
        ("pack fields -o c.medgsz --model m.safetensors --iterations 3", "with --model"),
        ("unpack c.medgsz -o out --model m.safetensors --exact", "with --model"),
        ("parts field.medgs.safetensors -o p.nii.gz --count 3 --spacing 1 1 1", "on a field"),
        ("parts field.medgs.safetensors -o p.nii.gz --at 2 5 5 --min-size 0.1", "--min-size"),
        ("tissues field.medgs.safetensors -o t.nii.gz --series 2", "on a field"),
        ("tissues image.nii.gz -o t.nii.gz --bias-degree 3", "without --bias"),
        ("render field.medgs.safetensors -o r.nii.gz --volume 2", "without --like"),
        ("mesh field.medgs.safetensors -o m.ply --segment a", "on a field"),
        ("mesh image.nii.gz -o m.ply --level 90 --labels 1", "with --level"),
        ("mesh mask.nii.gz -o m.ply --fill-nan 2", "without --level"),
        ("info field.medgs.safetensors --volume 2", "on what is no image"),
        ("classify field.medgs.safetensors -m breastmnist --volume 2", "on a field"),
        ("measure mask.nii.gz --resample", "without --image"),
        ("train-codec fields -o c.safetensors --images 9", "on fields"),
        ("train-segmenter cases -o m.safetensors --logger csv", "without --log-dir"),
    ],
)  # fmt: skip
def test_options_without_effect(place, monkeypatch, line, says):
    """Whoever gives an option expects something of it."""
    monkeypatch.chdir(place)
    before = set(place.rglob("*"))
    result = run(place, line)
    assert result.exit_code == 2, result.output
    assert says in " ".join(result.stderr.replace("│", " ").split())
    assert set(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("mesh mask.nii.gz -o m.ply --spacing 0.0000001", "GiB"),
        ("mesh mask.nii.gz -o m.ply --spacing 1e-300", "voxels along an axis"),
        ("mesh mask.nii.gz -o m.ply --spacing 100", "spacing is 100 mm, and the image 14 mm long"),
        ("mesh mask.nii.gz -o m.ply --smooth 1000", "smooth_mm is 1000 mm"),
        ("mesh image.nii.gz -o m.ply --level 100 --smooth 1000", "smooth_mm is 1000 mm"),
        ("mesh field.medgs.safetensors -o m.ply --spacing 1e-320", "choose a larger one"),
        ("render field.medgs.safetensors -o r.nii.gz --spacing 1e-320 1 1", "choose a larger one"),
    ],
)
def test_grids_beyond_all_measure(place, line, says):
    """These did not end, or ended in words about 64-bit integers."""
    result = run(place, line)
    assert result.exit_code == 1, result.output
    assert len(result.stderr.splitlines()) == 1
    assert says in result.stderr


@pytest.mark.parametrize("line", ["mesh mask.nii.gz -o m.ply", "fit image.nii.gz -o o.medgs"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_a_library_swallows(place, monkeypatch, line, number):
    """trimesh, for one, catches everything while it looks for optional packages."""
    from napari_medgs.io import read_labels, read_volumes

    def swallowing(read):
        def wrapped(*arguments, **options):
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(number)
            return read(*arguments, **options)

        return wrapped

    monkeypatch.setattr("napari_medgs.io.read_labels", swallowing(read_labels))
    monkeypatch.setattr("napari_medgs.io.read_volumes", swallowing(read_volumes))
    before = set(place.rglob("*"))
    result = run(place, line)
    assert result.exit_code == 130, result.output
    assert "canceled; nothing was written" in result.stderr
    assert set(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("fit image.nii.gz -o o.medgs --series 2", "image.nii.gz: is no DICOM series"),
        ("info image.nii.gz --series 1.2.3", "image.nii.gz: is no DICOM series"),
        ("convert image.nii.gz c.nrrd --fill-nan nan", "not with 'nan'"),
        ("fit image.nii.gz --mask image.nii.gz -o o.medgs", "napari-medgs: {}/image.nii.gz: the"),
        ("evaluate negative.nii.gz mask.nii.gz", "segmentation holds the label -5"),
        ("evaluate mask.nii.gz negative.nii.gz", "truth holds the label -5"),
        ("measure negative.nii.gz", "the mask holds the label -5"),
        ("decompress field.medgs.safetensors -o o.medgs.safetensors", "is an exact field already"),
        ("decompress small.medgs -o o.medgs.safetensors --preview", "holds no preview; compress"),
    ],
)
def test_what_is_wrong_is_said(place, line, says):
    labels, grid = read_labels(place / "mask.nii.gz")
    write_labels(place / "negative.nii.gz", labels.astype(np.int16) * -5, grid)
    save_field(place / "small.medgs", load_field(place / "field.medgs.safetensors"))
    result = run(place, line)
    assert result.exit_code == 1, result.output
    assert len(result.stderr.splitlines()) == 1
    assert says.format(place) in result.stderr


@pytest.mark.parametrize(
    "line",
    [
        "parts other.nii.gz --field field.medgs.safetensors -o p.nii.gz --count 2",
        "tissues other.nii.gz --field field.medgs.safetensors -o p.nii.gz --no-padding",
        "compress field.medgs.safetensors --image other.nii.gz -o c.medgs --iterations 0",
    ],
)
def test_the_field_of_another_image(place, line):
    volume = read_volume(place / "image.nii.gz")
    z, y, x = np.indices(volume.shape)
    fitted = (100.0 * ((y - 7) ** 2 + (x - 6) ** 2 < 20))[None].astype(np.float32)
    other = (100.0 * ((x + z) % 6 < 3))[None].astype(np.float32)
    field = fit_field(Volume(fitted, volume.grid), FitParams(iterations=20)).field
    save_field(place / "disc.medgs.safetensors", field)
    write_image(place / "disc.nii.gz", fitted, volume.grid)
    write_image(place / "other.nii.gz", other, volume.grid)
    line = line.replace("field.medgs", "disc.medgs")
    result = run(place, line)
    assert result.exit_code == 0, result.output
    assert "does not look like" in result.stderr
    assert "does not look like" not in run(place, line.replace("other", "disc")).stderr
