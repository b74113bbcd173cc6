"""Commands on files of several volumes, on OME-Zarr and on cropped masks."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_medgs.batch import BatchParams
from napari_medgs.batch.task import read as read_case
from napari_medgs.cli.app import app
from napari_medgs.data.volume import Volume
from napari_medgs.errors import ParameterError
from napari_medgs.io import read_labels, read_volume, write_image, write_labels
from napari_medgs.io.cases import Case
from napari_medgs.io.fields import load_field
from napari_medgs.io.meshes import save_meshes
from tests.io.test_fourth_axis import nifti
from tests.io.test_ome_zarr import write

QUICK = ("--gaussians", 150, "--iterations", 4)


def run(*words, status=0):
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == status, result.output + str(result.exception)
    return " ".join(result.output.split())


@pytest.fixture
def series(tmp_path):
    z, y, x = np.mgrid[:8, :20, :24]
    ball = ((z - 4) ** 2 * 4 + (y - 10) ** 2 + (x - 12) ** 2 < 49).astype(np.float32)
    noise = np.random.default_rng(0).random((8, *ball.T.shape)) * 10
    data = np.stack([ball.T * (20 + 10 * k) + noise[k] for k in range(8)], -1).astype(np.float32)
    return nifti(tmp_path / "run.nii.gz", data, units="sec", step=2), data


def test_volumes_are_listed_and_converted(series, tmp_path):
    path, data = series
    assert "volumes in time; choose one with --volume" in run(
        "info", path, "--json", tmp_path / "i.json"
    )
    told = json.loads((tmp_path / "i.json").read_text())
    assert (told["volumes"], told["seconds_between_volumes"]) == (8, 2.0)
    assert "holds 8 volumes" in run("convert", path, tmp_path / "o.nrrd", status=1)
    run("convert", path, tmp_path / "o.nrrd", "--volume", 5)
    np.testing.assert_array_equal(read_volume(tmp_path / "o.nrrd").data[0], data[..., 4].T)
    assert "there is no volume 9" in run("info", path, "--volume", 9, status=1)


def test_every_command_takes_a_volume(series, tmp_path):
    path, _ = series
    field = tmp_path / "f.medgs.safetensors"
    assert "choose one from 1 to 8" in run("fit", path, "-o", field, status=1)
    run("fit", path, "-o", field, "--volume", 3, *QUICK)
    assert load_field(field).info.image_channels == ("run volume 3",)
    run("render", field, "-o", tmp_path / "r.nii.gz", "--like", path, "--volume", 1)
    grid = read_volume(path, volume=1).grid
    assert read_volume(tmp_path / "r.nii.gz").grid.matches(grid)
    run("mesh", path, "-o", tmp_path / "m.ply", "--level", 25, "--volume", 8)
    run("segment", path, "-o", tmp_path / "s.nii.gz", "--volume", 8, "--point", 1, 4, 10, 12,
        "--point", 0, 4, 1, 1, "--field", tmp_path / "f.medgs.safetensors")  # fmt: skip
    assert read_labels(tmp_path / "s.nii.gz", grid)[0].any()
    case = Case("run", (str(path),))
    assert read_case(case, BatchParams(volume=2)).channel_names == ("run volume 2",)
    with pytest.raises(ParameterError, match="from 1"):
        BatchParams(volume=0)


def test_ome_zarr(tmp_path):
    data = np.random.default_rng(0).integers(0, 900, (4, 16, 16)).astype(np.uint16)
    path = write(tmp_path / "a.zarr", data, levels=2)
    told = run("info", path)
    assert "4 x 16 x 16" in told
    assert "4 x 8 x 8" in told
    run("convert", path, tmp_path / "o.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "o.nii.gz").data[0], data)
    assert read_volume(tmp_path / "o.nii.gz").spacing == pytest.approx((3, 0.5, 0.7))


def test_masks_that_are_cropped(tmp_path):
    """What 3D Slicer writes: the extent of a segmentation is that of its segments."""
    labels = np.zeros((8, 20, 24), np.uint8)
    labels[2:6, 5:15, 6:18] = 1
    image = Volume.from_array(labels * 50.0 + np.arange(24), spacing=(3.0, 1.0, 1.0))
    scan = write_image(tmp_path / "scan.nii.gz", image.data, image.grid)
    truth = write_labels(tmp_path / "truth.nii.gz", labels, image.grid, {1: "liver"})
    affine = image.grid.affine.copy()
    affine[:3, 3] = image.grid.to_world([1, 4, 5])
    part = Volume.from_array(labels[1:7, 4:16, 5:19], affine=affine)
    for name in ("crop.seg.nrrd", "crop.nii.gz", "crop.mha"):
        crop = write_labels(tmp_path / name, part.data[0], part.grid, {1: "liver"})
        run("evaluate", crop, truth, "--json", tmp_path / "e.json")
        assert '"dice": 1.0' in (tmp_path / "e.json").read_text()
        run("convert", crop, tmp_path / "o.nii.gz", "--like", scan)
        np.testing.assert_array_equal(read_labels(tmp_path / "o.nii.gz")[0], labels)
        run("fit", scan, "--mask", crop, "-o", tmp_path / "f.medgs.safetensors", *QUICK)
    run("segment", scan, "--prompts", tmp_path / "crop.seg.nrrd", "--initial",
        tmp_path / "crop.nii.gz", "-o", tmp_path / "s.nii.gz", "--background-label", 0,
        "--unlabeled", 9, "--field", tmp_path / "f.medgs.safetensors")  # fmt: skip
    assert read_labels(tmp_path / "s.nii.gz", image.grid)[0].shape == labels.shape


def test_info_of_a_folder_of_meshes(tmp_path):
    import trimesh

    save_meshes(tmp_path / "organs", {1: trimesh.creation.box(), 2: trimesh.creation.box()})
    told = run("info", tmp_path / "organs")
    assert "label_001" in told
    assert "label_002" in told
