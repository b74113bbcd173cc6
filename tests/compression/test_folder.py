"""A folder of fields is compressed: with images and masks, again, and with failures."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import napari_medgs as mg
from napari_medgs.cli.app import app
from napari_medgs.compression import CompressParams, compress_folder
from napari_medgs.errors import Cancelled, FileError
from tests.compression.test_compression import scene

QUICK = CompressParams(iterations=2, threads=1)


def run(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def folder(tmp_path):
    """images/{a,b}.nii.gz, their masks, and fields of both and of another one, c."""
    volume, mask = scene()
    for name in ("images", "labels", "fields"):
        (tmp_path / name).mkdir()
    params = mg.FitParams(gaussians=60, iterations=3, threads=1)
    field = mg.fit(volume, params, mask, class_names={3: "blob"}).field
    for name in "ab":
        mg.write_image(tmp_path / f"images/{name}.nii.gz", volume.data, volume.grid)
        mg.write_labels(tmp_path / f"labels/{name}_seg.nii.gz", mask, volume.grid, {3: "blob"})
        mg.save_field(tmp_path / f"fields/{name}.medgs.safetensors", field)
    mg.save_field(tmp_path / "fields/c.medgs", field)
    return tmp_path


def test_the_command_continues_where_it_ended(folder):
    words = (
        "compress", folder / "fields", "-o", folder / "small", "--image", folder / "images",
        "--mask", "../labels/{name}_seg.nii.gz", "--iterations", 2, "--json", folder / "n.json",
    )  # fmt: skip
    text = run(*words)
    numbers = json.loads((folder / "n.json").read_text())
    assert numbers["compressed"] == 3
    assert numbers["with_image"] == 2
    assert numbers["fields"]["a"]["dice_mean"] > 0
    assert numbers["bytes"] == sum(p.stat().st_size for p in (folder / "small").iterdir())
    assert "1, tuned to their own rendering" in text
    (folder / "small/b.medgs").unlink()
    assert "there already" in run(*words)
    assert json.loads((folder / "n.json").read_text())["compressed"] == 1


def test_one_bad_field_stops_nothing(folder):
    (folder / "fields/b.medgs.safetensors").write_bytes(b"no field")
    text = run("compress", folder / "fields", "-o", folder / "small", "--iterations", 1, code=1)
    assert "b.medgs.safetensors" in text
    assert "1 of 3 fields failed" in text
    assert sorted(p.name for p in (folder / "small").iterdir()) == ["a.medgs", "c.medgs"]


def test_refusals(folder):
    fields, out = folder / "fields", folder / "small"
    assert "overwrite the input" in run("compress", fields, "-o", fields, code=1)
    assert "must be the name of one" in run("compress", fields, "-o", folder / "a.medgs", code=1)
    text = run("compress", fields, "-o", out, "--mask", "{name}.nii.gz", code=1)
    assert "give --image" in text
    twice = ("--image", folder / "images", "--image", folder / "labels")
    assert "give --image once" in run("compress", fields, "-o", out, *twice, code=1)
    text = run("compress", fields, "-o", out, "--image", folder / "labels", code=1)
    assert "no image of the name of a field" in text
    text = run("compress", fields, "-o", out, "--model", folder / "codec.safetensors", code=1)
    assert "pack --model" in text
    with pytest.raises(FileError, match="choose another one"):
        compress_folder(fields, fields, QUICK)
    with pytest.raises(Cancelled, match="are kept"):
        compress_folder(fields, out, QUICK, should_stop=lambda: True)
