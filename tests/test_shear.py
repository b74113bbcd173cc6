"""Sheared grids (tilted gantry): what is written so that ITK programs open it."""

from __future__ import annotations

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from nibabel.processing import resample_from_to
from typer.testing import CliRunner

import napari_medgs as mg
from napari_medgs import io
from napari_medgs.cli.app import app
from napari_medgs.data.grid import Grid
from napari_medgs.data.shear import deshear, deshear_labels, is_sheared, orthogonal_grid
from napari_medgs.data.volume import Volume

SHAPE = (20, 18, 9)  # x, y, z


def tilted(degrees: float = 14.0, flip: bool = False) -> np.ndarray:
    affine = np.diag([-0.8 if flip else 0.8, 0.8, 3.0, 1.0])
    affine[1, 2] = 3 * np.tan(np.radians(degrees))
    affine[:3, 3] = 10, -20, 30
    return affine


def head() -> np.ndarray:
    x, y, z = np.indices(SHAPE) - np.reshape(np.divide(SHAPE, 2), (3, 1, 1, 1))
    ball = np.exp(-(x**2 / 40 + y**2 / 30 + z**2 / 12))
    return (1000 * ball - 200 + 20 * np.sin(x + y)).astype(np.float32)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    image, mask = tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz"
    for path, data in ((image, head()), (mask, (head() > 300).astype(np.uint8) * 7)):
        stored = nib.Nifti1Image(data, None)
        stored.set_sform(tilted(), 1)
        nib.save(stored, path)
    return image, mask


def by_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the values (x, y, z) and the RAS affine as ITK has them."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    direction = np.reshape(image.GetDirection(), (3, 3))
    assert np.allclose(direction.T @ direction, np.eye(3), atol=1e-5)
    affine[:3, :3] = direction * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ affine


def itk_opens(path: Path) -> bool:
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        sitk.ReadImage(str(path))
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("degrees", [0, 1e-3, 3e-3, 0.03, 0.3, 14])
def test_the_warning_is_given_where_itk_refuses(tmp_path: Path, degrees: float) -> None:
    volume = Volume.from_axes(head()[None], tilted(degrees))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path = io.write_image(tmp_path / "a.nii.gz", volume.data, volume.grid)
    warned = [w for w in caught if "--deshear" in str(w.message)]
    assert len(warned) == (0 if itk_opens(path) else 1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_other_formats_are_opened(tmp_path: Path, suffix: str) -> None:
    volume = Volume.from_axes(head()[None], tilted())
    assert itk_opens(io.write_image(tmp_path / f"a{suffix}", volume.data, volume.grid))


def same_as_nibabel(path: Path, source: Path, order: int) -> float:
    """Compare a de-sheared file, read by ITK, with nibabel's resampling of its source."""
    values, affine = by_itk(path)
    expected = resample_from_to(
        nib.load(source), (values.shape, affine), order=order, mode="constant", cval=-9e9
    ).get_fdata()
    inside = expected > -1e8
    kept = nib.load(source)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in SHAPE])).reshape(3, -1)
    world = kept.affine @ np.vstack([corners, np.ones(8)])
    index = (np.linalg.inv(affine) @ world)[:3]
    assert (index >= -1e-3).all()
    assert (index <= np.reshape(values.shape, (3, 1)) - 1 + 1e-3).all()
    assert inside.mean() > 0.5
    if order:
        assert np.abs(values - expected)[inside].max() < 0.01
    return float((values == expected)[inside].mean())


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stderr


def test_convert(files: tuple[Path, Path], tmp_path: Path) -> None:
    image, mask = files
    out = tmp_path / "out.nii.gz"
    assert "--deshear" in run("convert", image, out)
    assert not itk_opens(out)
    assert "--deshear" not in run("convert", image, out, "--deshear")
    same_as_nibabel(out, image, 1)
    assert by_itk(out)[0].min() >= head().min()
    run("convert", mask, out, "--deshear")
    assert same_as_nibabel(out, mask, 0) > 0.995
    assert set(np.unique(by_itk(out)[0])) == {0, 7}
    volumes = [
        (np.asarray(nib.load(path).dataobj) == 7).sum() * abs(np.linalg.det(nib.load(path).affine))
        for path in (out, mask)
    ]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.02)


def test_segment_and_its_maps(files: tuple[Path, Path], tmp_path: Path) -> None:
    image, _ = files
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[8:12, 9, 4], strokes[1:19, 1, 4], strokes[1:19, 16, 4] = 1, 2, 2
    prompts, out = tmp_path / "prompts.nii.gz", tmp_path / "out.nii.gz"
    nib.save(nib.Nifti1Image(strokes, tilted()), prompts)
    chance, doubt = tmp_path / "p.nii.gz", tmp_path / "u.nii.gz"
    run(
        "segment", image, "--prompts", prompts, "--background-label", 2, "-o", out, "--deshear",
        "--probability", chance, "--uncertainty", doubt,
    )  # fmt: skip
    mask, affine = by_itk(out)
    assert set(np.unique(mask)) == {0, 1}
    for path in (chance, doubt):
        opened = nib.load(path)
        assert itk_opens(path)
        assert np.allclose(opened.affine, affine, atol=1e-4)
    total = nib.load(chance).get_fdata().sum(axis=-1)
    assert np.allclose(total, 1, atol=1e-5)


def test_fit_and_render(files: tuple[Path, Path], tmp_path: Path) -> None:
    image, mask = files
    field, out = tmp_path / "f.medgs.safetensors", tmp_path / "out.nii.gz"
    options = ["--gaussians", 150, "--iterations", 10]
    run("fit", image, "--mask", mask, "-o", field, *options)
    assert "--deshear" in run("render", field, "-o", out)
    assert "--deshear" not in run("render", field, "-o", out, "--deshear")
    assert itk_opens(out)
    run("fit", image, "--mask", mask, "-o", field, "--deshear", *options)
    grid = mg.load_field(field).info.grid
    assert not is_sheared(grid.affine)
    run("render", field, "--head", "seg", "-o", out)
    assert set(np.unique(by_itk(out)[0])) == {0, 7}


def test_integers_stay_integers(rng: np.random.Generator) -> None:
    volume = Volume.from_axes(rng.integers(-1000, 3000, (2, *SHAPE)).astype(np.int16), tilted())
    straight = deshear(volume)
    assert straight.data.dtype == np.int16
    assert straight.channels == 2
    assert straight.data.min() >= volume.data.min()


def test_perpendicular_grids_are_left_alone(tiny_volume: Volume) -> None:
    assert orthogonal_grid(tiny_volume.grid) is tiny_volume.grid
    assert deshear(tiny_volume) is tiny_volume
    labels = tiny_volume.data[0].astype(np.uint8)
    assert deshear_labels(labels, tiny_volume.grid)[0] is labels


def test_slices_stay_where_they_are() -> None:
    volume = Volume.from_axes(head()[None], tilted())
    grid = orthogonal_grid(volume.grid)
    assert grid.shape[0] == volume.shape[0]
    # Columns are not moved by a tilt about the x axis, and every slice holds its own values only.
    straight = deshear(volume)
    for z in range(volume.shape[0]):
        assert straight.data[0, z].max() <= volume.data[0, z].max() + 1e-3
    assert grid.spacing[1:] == pytest.approx(volume.spacing[1:])
    assert np.allclose(
        np.cross(grid.affine[:3, 1], grid.affine[:3, 2]),
        np.cross(volume.affine[:3, 1], volume.affine[:3, 2]),
    )


def test_the_space_is_kept(tmp_path: Path) -> None:
    stored = nib.Nifti1Image(head(), None)
    stored.set_sform(tilted(), 4)  # MNI
    nib.save(stored, tmp_path / "a.nii")
    straight = deshear(io.read_volume(tmp_path / "a.nii"))
    path = io.write_image(tmp_path / "b.nii", straight.data, straight.grid)
    assert int(nib.load(path).header["sform_code"]) == 4


@given(
    st.tuples(*[st.floats(-0.6, 0.6)] * 3),
    st.tuples(*[st.floats(0.3, 6)] * 3),
    st.tuples(*[st.integers(1, 7)] * 3),
)
def test_any_sheared_grid_is_covered(
    shear: tuple[float, ...], sizes: tuple[float, ...], shape: tuple[int, int, int]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = [[1, shear[0], shear[1]], [0, 1, shear[2]], [0, 0, 1]]
    affine[:3, :3] *= sizes
    grid = Grid(shape, affine)
    straight = orthogonal_grid(grid)
    assert not is_sheared(straight.affine)
    assert np.prod(straight.spacing) == pytest.approx(grid.voxel_volume)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1).T
    index = straight.to_voxel(grid.to_world(corners))
    assert index.min() >= -1e-6
    assert (index.max(axis=0) <= np.asarray(straight.shape) - 1 + 1e-6).all()
    assert (index.min(axis=0) < 1 + 1e-6).all()
