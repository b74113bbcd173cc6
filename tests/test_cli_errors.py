"""Everything that is refused comes as one line on stderr, with status 1, and leaves nothing."""

from __future__ import annotations

import gzip
import json
import os
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_medgs.cli import app
from napari_medgs.fitting import FitParams
from napari_medgs.fitting import fit as fit_field
from napari_medgs.io import read_labels, write_image, write_labels
from napari_medgs.io.fields import load_field, save_field


@pytest.fixture
def place(tmp_path, tiny_volume, tiny_labels):
    """A folder with a good image, mask and field, to be spoiled."""
    grid = tiny_volume.grid
    write_image(tmp_path / "good.nii.gz", tiny_volume.data, grid)
    write_labels(tmp_path / "mask.nii.gz", tiny_labels, grid)
    return tmp_path


def nifti(data, affine=None, path=None):
    affine = np.diag([1, 1, 3, 1]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return path


def refused(folder, *words, says: str, status: int = 1) -> None:
    """Run a command that must fail in one line that says something, and write nothing."""
    before = set(folder.rglob("*"))
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == status, result.output
    lines = [x for x in result.stderr.splitlines() if not x.startswith("napari-medgs: warning")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("napari-medgs: ")
    assert says.lower() in lines[0].lower()
    assert "Traceback" not in result.output
    assert set(folder.rglob("*")) == before


def test_missing(place):
    refused(place, "fit", place / "no.nii.gz", "-o", place / "o.medgs.safetensors", says="no such")


def test_failure_while_modules_are_loaded_ahead(place, monkeypatch):
    """A failure can end the program while a thread still imports: that adds no traceback."""

    def ending(module: str) -> None:
        raise RuntimeError("can't register atexit after shutdown")

    unhandled = []
    monkeypatch.setattr("napari_medgs.cli.segment_job.import_module", ending)
    monkeypatch.setattr("threading.excepthook", unhandled.append)
    mask = place / "nothing.nii.gz"
    labels, grid = read_labels(place / "mask.nii.gz")
    write_labels(mask, np.zeros_like(labels), grid)
    words = ("segment", place / "good.nii.gz", "--prompts", mask, "-o", place / "o.nii.gz")
    refused(place, *words, says="nothing is marked")
    assert not unhandled


def test_truncated(place):
    whole = (place / "good.nii.gz").read_bytes()
    (place / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    out = place / "o.medgs.safetensors"
    refused(place, "fit", place / "cut.nii.gz", "-o", out, says="truncated")
    refused(place, "info", place / "cut.nii.gz", says="truncated")


@pytest.mark.parametrize("name", ["text.nii.gz", "text.nii", "text.txt", "text.npz"])
def test_not_an_image(place, name):
    (place / name).write_text("These are words. " * 100)
    refused(place, "info", place / name, says=name)


def test_empty(place):
    (place / "empty.nii").touch()
    refused(place, "info", place / "empty.nii", says="empty")
    (place / "folder").mkdir()
    refused(place, "info", place / "folder", says="neither DICOM")


IMAGE = np.random.default_rng(0).normal(100, 20, (12, 11, 10)).astype(np.float32)
SPOILED = {
    "no finite value": lambda a: np.full_like(a, np.nan),
    "constant": lambda a: np.full_like(a, 7),
    "complex": lambda a: (a + 1j * a).astype(np.complex64),
    "single row": lambda a: a[:, :1, :1],
    "axes": lambda a: np.stack([a[..., None]] * 2, axis=-1).repeat(2, axis=3),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_image_that_cannot_be_fitted(place, kind):
    path = nifti(SPOILED[kind](IMAGE), path=place / "bad.nii")
    refused(place, "fit", path, "-o", place / "o.medgs.safetensors", says=kind)


def test_rgb(place):
    colors = np.zeros((6, 6, 6), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    path = nifti(colors, path=place / "rgb.nii")
    refused(place, "fit", path, "-o", place / "o.medgs.safetensors", says="color")


def test_unequal_grids(place, tiny_volume, tiny_labels):
    moved = tiny_volume.grid.affine.copy()
    moved[:3, 3] += 1.5
    grid = type(tiny_volume.grid)(tiny_volume.grid.shape, moved)
    write_image(place / "moved.nii.gz", tiny_volume.data, grid)
    write_labels(place / "moved_mask.nii.gz", tiny_labels, grid)
    out = place / "o.medgs.safetensors"
    refused(
        place, "fit", place / "good.nii.gz", place / "moved.nii.gz", "-o", out, says="mm apart"
    )
    refused(place, "fit", place / "good.nii.gz", "--mask", place / "moved_mask.nii.gz", "-o", out,
            says="mm apart")  # fmt: skip
    refused(place, "evaluate", place / "moved_mask.nii.gz", place / "mask.nii.gz", says="mm apart")


def test_no_usable_affine(place):
    path = place / "flat.nii"
    image = nibabel.Nifti1Image(IMAGE, None)
    image.header["pixdim"][1:4] = 0
    image.header.set_sform(np.zeros((4, 4)), code=1)
    nibabel.save(image, path)
    raw = bytearray(path.read_bytes())
    raw[76 + 4 : 76 + 16] = struct.pack("<3f", 0, 0, 0)
    path.write_bytes(raw)
    out = place / "o.medgs.safetensors"
    refused(place, "fit", path, "-o", out, says="affine")
    result = CliRunner().invoke(
        app, ["fit", str(path), "-o", str(out), "--assume-identity", "--iterations", "2"]
    )
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("napari-medgs: warning: ")
    assert len(result.stderr.splitlines()) == 1


def test_mask_of_probabilities(place, tiny_volume, tiny_labels):
    write_image(place / "p.nii.gz", tiny_labels[None] * np.float32(0.3), tiny_volume.grid)
    words = ["fit", place / "good.nii.gz", "--mask", place / "p.nii.gz"]
    refused(place, *words, "-o", place / "o.medgs.safetensors", says="not integers")
    words = ["segment", place / "good.nii.gz", "--prompts", place / "p.nii.gz"]
    says = f"napari-medgs: {place / 'p.nii.gz'}: the mask holds"  # not the image
    refused(place, *words, "-o", place / "m.nii.gz", says=says)


@pytest.mark.parametrize("option", ["--prompts", "--initial"])
def test_an_ordinary_image_is_no_mask(place, tiny_volume, rng, option):
    image = rng.integers(0, 60, tiny_volume.shape).astype(np.int16)
    image[:, :, :8] = 7  # air around a body
    write_image(place / "ct.nii.gz", image, tiny_volume.grid)
    words = ("segment", place / "good.nii.gz", option, place / "ct.nii.gz", "--point", "1 5 5 5")
    says = "ct.nii.gz: the mask holds 59 values that differ from voxel to voxel, as an ordinary"
    refused(place, *words, "-o", place / "o.nii.gz", says=says)


@pytest.mark.parametrize(("change", "says"), [(lambda m: m * 0, "empty"), (lambda m: m - 3, "-3")])
def test_labels_out_of_range(place, tiny_volume, tiny_labels, change, says):
    labels = change(tiny_labels.astype(np.int16))
    write_labels(place / "odd.nii.gz", labels, tiny_volume.grid)
    words = ["fit", place / "good.nii.gz", "--mask", place / "odd.nii.gz"]
    refused(place, *words, "-o", place / "o.medgs.safetensors", says=says)


@pytest.fixture
def field_file(place, tiny_volume):
    result = fit_field(tiny_volume, FitParams(gaussians=50, iterations=3))
    return save_field(place / "field.medgs.safetensors", result.field)


def test_field_of_another_version(place, field_file):
    raw = field_file.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header["__metadata__"]["format_version"] = "99"
    text = json.dumps(header).encode()
    (place / "new.medgs.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + raw[8 + size :]
    )
    for words in (["info"], ["render", "-o", place / "r.nii.gz"], ["mesh", "-o", place / "m.ply"]):
        refused(place, words[0], place / "new.medgs.safetensors", *words[1:], says="Update")


def test_damaged_field(place, field_file):
    raw = field_file.read_bytes()
    field_file.write_bytes(raw[: len(raw) // 2])
    refused(place, "render", field_file, "-o", place / "r.nii.gz", says="damaged")
    field_file.write_bytes(b"\xff" * 300)
    refused(place, "info", field_file, says="damaged")


def test_field_without_classes(place, field_file):
    out = place / "r.nii.gz"
    refused(place, "render", field_file, "-o", out, "--head", "seg", says="mask")
    refused(place, "mesh", field_file, "-o", place / "m.ply", says="level")


def test_too_little_memory(place, monkeypatch):
    import psutil

    free = psutil.virtual_memory()._replace(available=2_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    out = place / "o.medgs.safetensors"
    refused(place, "fit", place / "good.nii.gz", "-o", out, says="memory")


def test_header_that_claims_too_much(place):
    raw = bytearray(gzip.decompress((place / "good.nii.gz").read_bytes()))
    raw[42:48] = struct.pack("<3h", 30000, 30000, 30000)
    (place / "vast.nii").write_bytes(raw)
    refused(place, "info", place / "vast.nii", says="promises")


def test_outputs_are_checked_first(place, field_file):
    image = place / "good.nii.gz"
    nowhere = place / "nowhere"
    refused(place, "fit", image, "-o", nowhere / "o.medgs.safetensors", says="make it first")
    refused(place, "fit", image, "-o", place / "o.txt", says="must end in")
    refused(place, "render", field_file, "-o", nowhere / "r.nii.gz", says="make it first")
    refused(place, "mesh", place / "mask.nii.gz", "-o", place / "m.doc", says=".ply")
    refused(place, "info", image, "--json", nowhere / "x.json", says="make it first")
    words = ["segment", image, "--prompts", place / "mask.nii.gz", "-o", place / "m.doc"]
    refused(place, *words, says=".mha, .seg.nrrd, .dcm or .rtstruct.dcm")
    (place / "full").mkdir()
    (place / "full" / "something").touch()
    refused(place, "render", field_file, "-o", place / "full", says="not empty")


def test_label_that_is_not_there(place):
    words = ["mesh", place / "mask.nii.gz", "-o", place / "m.ply", "--labels", 9]
    refused(place, *words, says="9")


def test_backend_that_cannot_be_used(place, monkeypatch):
    from napari_medgs.errors import BackendError
    from napari_medgs.rendering import registry

    def refuse(name, blend):
        raise BackendError(f"The backend {name!r} cannot be used: no CUDA device.")

    monkeypatch.setattr(registry, "choose_engine", refuse)
    words = ["fit", place / "good.nii.gz", "-o", place / "o.medgs.safetensors"]
    refused(place, *words, "--backend", "cuda", says="no CUDA device")


def test_contradictions(place, field_file):
    out = place / "o.medgs.safetensors"
    words = ["fit", place / "good.nii.gz", "-o", out]
    refused(place, *words, "--lambda-img", 0, says="nothing would be fitted")
    refused(place, *words, "--from", field_file, "--freeze-geometry", says="only a mask")
    refused(place, *words, "--holdout", "every:9", says="too few")


def test_failure_keeps_the_older_output(place, field_file, monkeypatch):
    """A write that fails half-way leaves what was there, and no temporary file."""
    import safetensors.numpy

    before = field_file.read_bytes()

    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save", fail)
    words = ["fit", place / "good.nii.gz", "-o", field_file, "--iterations", 2]
    refused(place, *words, says="no space left")
    assert field_file.read_bytes() == before
    assert len(load_field(field_file)) == 50


def test_bugs_are_one_line_unless_debug(place, monkeypatch):
    def explode(*_args, **_kwargs):
        raise ZeroDivisionError("ouch")

    monkeypatch.setattr("napari_medgs.io.reading.read_all_volumes", explode)
    refused(place, "info", place / "good.nii.gz", says="--debug")
    result = CliRunner().invoke(app, ["info", str(place / "good.nii.gz"), "--debug"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_unwritable_folder(place, monkeypatch):
    # Not by chmod: root may write everywhere.
    monkeypatch.setattr(os, "access", lambda *_args, **_kwargs: False)
    out = place / "o.medgs.safetensors"
    refused(place, "fit", place / "good.nii.gz", "-o", out, says="not writable")


def test_damaged_dicom(place):
    pydicom_data = pytest.importorskip("pydicom.data")
    source = pydicom_data.get_testdata_file("CT_small.dcm", download=False)
    assert source is not None
    (place / "dicom").mkdir()
    raw = Path(source).read_bytes()
    (place / "dicom" / "a.dcm").write_bytes(raw[: len(raw) * 2 // 3])
    refused(place, "info", place / "dicom", says="truncated or damaged")


def test_a_mesh_of_an_integer_image_needs_a_level(place, rng):
    image = nifti(rng.integers(0, 900, (12, 11, 10)).astype(np.int16), path=place / "ct.nii.gz")
    refused(place, "mesh", image, "-o", place / "ct.ply", says="--level")
    fractions = nifti(rng.random((12, 11, 10), np.float32), path=place / "mr.nii.gz")
    refused(place, "mesh", fractions, "-o", place / "mr.ply", says="--level gives a surface")
    parcels = np.arange(60, dtype=np.int16).repeat(64).reshape(12, 16, 20)
    path = nifti(parcels, path=place / "parcels.nii.gz")
    done = CliRunner().invoke(app, ["mesh", str(path), "-o", str(place / "parcels.ply")])
    assert done.exit_code == 0, done.output


def test_advice_names_the_options(place):
    """A reader says "give the spacing"; the command says by which option, where it has one."""
    bare = nibabel.Nifti1Image(IMAGE, None)
    bare.set_sform(None, 0)
    bare.set_qform(None, 0)
    nibabel.save(bare, place / "bare.nii")
    out = place / "o.nii.gz"
    refused(place, "convert", place / "bare.nii", out, says="in mm by --spacing Z Y X")
    refused(place, "fit", place / "bare.nii", "-o", place / "o.medgs.safetensors",
            says="by --assume-identity")  # fmt: skip
    # the mesh's --spacing is that of the surface's grid
    refused(place, "mesh", place / "bare.nii", "-o", place / "o.ply",
            says="convert IN OUT --spacing Z Y X, or allow")  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("mesh", "mask.nii.gz", "-o", ""), "value of -o is empty"),
        (("mesh", "", "-o", "o.ply"), "value is empty"),
        (("info", "mask.nii.gz", "--json="), "value of --json is empty"),
    ],
)
def test_empty_words(place, monkeypatch, words, says):
    """A variable of the shell that is not set must not become the current folder."""
    monkeypatch.chdir(place)
    before = set(place.rglob("*"))
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.replace("│", "").split())
    assert set(place.rglob("*")) == before
