"""The commands: compress, decompress, and all others with a compressed field."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import napari_medgs as mg
from napari_medgs.cli.app import app
from tests.compression.test_compression import scene


def run(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("fields")
    volume, mask = scene()
    mg.write_image(place / "scan.nii.gz", volume.data, volume.grid)
    mg.write_labels(place / "mask.nii.gz", mask, volume.grid, {3: "blob"})
    params = mg.FitParams(gaussians=200, iterations=30, threads=1)
    field = mg.fit(volume, params, mask, class_names={3: "blob"}).field
    mg.save_field(place / "scan.medgs.safetensors", field)
    mg.compress(field, mg.CompressParams(iterations=10), volume, mask).save(place / "scan.medgs")
    return place


def test_compress_with_image_and_mask(folder, tmp_path):
    out, numbers = tmp_path / "a.medgs", tmp_path / "a.json"
    text = run(
        "compress", folder / "scan.medgs.safetensors", "-o", out, "--image",
        folder / "scan.nii.gz", "--mask", folder / "mask.nii.gz", "--iterations", 10,
        "--json", numbers, "--threads", 1,
    )  # fmt: skip
    record = json.loads(numbers.read_text())
    assert record["bytes"] == out.stat().st_size
    assert record["tuned_to"] == "image"
    assert {"psnr", "psnr_before", "dice_mean", "seconds", "loss", "ratio"} <= set(record)
    assert "x smaller" in text
    assert "positions" in text


def test_rates(folder, tmp_path):
    out = tmp_path / "a.medgs"
    source = folder / "scan.medgs.safetensors"
    run("compress", source, "-o", out, "--bytes", 2200, "--iterations", 5, "-q")
    assert out.stat().st_size <= 2200
    run("compress", source, "-o", out, "--profile", "exact", "-q")
    assert run("decompress", out, "-o", tmp_path / "b.medgs.safetensors")
    np.testing.assert_array_equal(
        mg.load_field(tmp_path / "b.medgs.safetensors").centers, mg.load_field(source).centers
    )
    text = run("compress", source, "-o", out, "--bytes", 2200, "--step", 2, code=1)
    assert "cannot hold at once" in text


def test_preview(folder, tmp_path):
    out, small = tmp_path / "a.medgs", tmp_path / "b.medgs.safetensors"
    run(
        "compress", folder / "scan.medgs.safetensors", "-o", out, "--preview", 0.3,
        "--iterations", 3, "-q",
    )  # fmt: skip
    run("decompress", out, "-o", small, "--preview")
    assert len(mg.load_field(small)) == 60
    assert "preview" in run("info", out)
    text = run("decompress", folder / "scan.medgs", "-o", small, "--preview", code=1)
    assert "scan.medgs" in text
    assert "holds no preview" in text


def test_refusals(folder, tmp_path):
    source = folder / "scan.medgs.safetensors"
    assert "must end in .medgs" in run("compress", source, "-o", tmp_path / "a.bin", code=1)
    assert "overwrite the input" in run(
        "compress", folder / "scan.medgs", "-o", folder / "scan.medgs", code=1
    )
    text = run(
        "compress", source, "-o", tmp_path / "a.medgs", "--image", folder / "mask.nii.gz",
        "--image", folder / "scan.nii.gz", code=1,
    )  # fmt: skip
    assert "2 contrasts, the field 1" in text


def test_fit_writes_compressed_fields(folder, tmp_path):
    out = tmp_path / "a.medgs"
    numbers = tmp_path / "a.json"
    run(
        "fit", folder / "scan.nii.gz", "-o", out, "--gaussians", 200, "--iterations", 20,
        "--json", numbers, "--threads", 1,
    )  # fmt: skip
    record = json.loads(numbers.read_text())
    assert record["output_bytes"] == out.stat().st_size < 200 * 14
    assert record["compression"]["profile"] == "faithful"
    assert len(mg.load_field(out)) > 100
    run("fit", folder / "scan.nii.gz", "--from", out, "-o", out, "--iterations", 3, "-q")


def test_other_commands_read_compressed_fields(folder, tmp_path):
    field = folder / "scan.medgs"
    assert "bytes of" in run("info", field)
    run("render", field, "-o", tmp_path / "a.nii.gz")
    run("render", field, "--head", "seg", "-o", tmp_path / "seg.nii.gz")
    labels, _ = mg.read_labels(tmp_path / "seg.nii.gz")
    np.testing.assert_array_equal(labels, mg.render_labels(mg.load_field(field)))
    run("mesh", field, "-o", tmp_path / "a.ply")
    run("parts", field, "-o", tmp_path / "parts.nii.gz", "--count", 4)
    run("parts", field, "-o", tmp_path / "parts.nii.gz", "--count", 4, "--store",
        tmp_path / "tree.medgs.safetensors")  # fmt: skip
    text = run(
        "parts", field, "-o", tmp_path / "p.nii.gz", "--count", 4, "--store", tmp_path / "t.medgs",
        code=1,
    )  # fmt: skip
    assert ".safetensors" in text
    text = run("compress", tmp_path / "tree.medgs.safetensors", "-o", tmp_path / "c.medgs",
               "--iterations", 1)  # fmt: skip
    assert "The tree of parts" in text
    run("evaluate", field, folder / "mask.nii.gz")
    box = ("--box", 1, 2, 4, 4, 8, 30, 30)
    run("segment", folder / "scan.nii.gz", "--field", field, *box, "-o", tmp_path / "s.nii.gz")
    assert (tmp_path / "s.nii.gz").is_file()


def test_render_of_a_region_is_that_of_the_whole(folder, tmp_path):
    whole = mg.render(mg.load_field(folder / "scan.medgs"))[0]
    volume = mg.read_volume(folder / "scan.nii.gz")
    start = np.array([2, 5, 6])
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.to_world(start[None].astype(float))[0]
    grid = mg.Grid((4, 12, 10), affine)
    mg.write_image(tmp_path / "region.nii.gz", np.zeros((1, 4, 12, 10), np.float32), grid)
    run("render", folder / "scan.medgs", "--like", tmp_path / "region.nii.gz", "-o",
        tmp_path / "a.nii.gz")  # fmt: skip
    found = mg.read_volume(tmp_path / "a.nii.gz").data[0]
    np.testing.assert_allclose(found, whole[2:6, 5:17, 6:16], rtol=1e-4, atol=1e-3)
