"""Masks, prompts and contrasts of another grid: refused, or brought onto the image's."""

from __future__ import annotations

import json
import warnings

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from napari_medgs.batch import BatchParams, find_cases, fit_many
from napari_medgs.cli.app import app
from napari_medgs.data.grid import Grid
from napari_medgs.data.resampling import resample_labels, resample_volume
from napari_medgs.data.volume import Volume
from napari_medgs.errors import GeometryError, ImageError
from napari_medgs.fitting import FitParams
from napari_medgs.io import read_labels, read_volumes, write_image, write_labels
from napari_medgs.io.fields import load_field
from tests.strategies import affines


def as_sitk(array, grid):
    """The array as an ITK image, whose world is LPS."""
    image = sitk.GetImageFromArray(array)
    axes = np.diag([-1.0, -1, 1]) @ grid.affine[:3, 2::-1]
    sizes = np.linalg.norm(axes, axis=0)
    image.SetSpacing(sizes.tolist())
    image.SetDirection((axes / sizes).reshape(-1).tolist())
    image.SetOrigin((np.diag([-1.0, -1, 1]) @ grid.affine[:3, 3]).tolist())
    return image


@settings(deadline=None, max_examples=40)
@given(affines(), affines(), st.integers(0, 10**6), st.sampled_from([0, -1, 7]))
def test_simpleitk_resamples_to_the_same_labels(one, other, seed, outside):
    rng = np.random.default_rng(seed)
    # About the same place, and axes that differ by any turn, flip and size.
    shape, target = (9, 10, 11), (8, 7, 12)
    other[:3, 3] = 0
    middle = other[:3, :3] @ (np.array(target) / 2)
    other[:3, 3] = one[:3, :3] @ rng.uniform(3, 6, 3) + one[:3, 3] - middle
    grid, like = Grid(shape, one), Grid(target, other)
    labels = rng.integers(-2, 6, shape).astype(np.int16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = resample_labels(labels, grid, like, outside=outside)
    reference = sitk.GetArrayFromImage(
        sitk.Resample(
            as_sitk(labels, grid),
            as_sitk(np.zeros(target, np.int16), like),
            sitk.Transform(),
            sitk.sitkNearestNeighbor,
            outside,
        )
    )
    # Halfway between two voxels either is nearest.
    where = np.moveaxis(np.indices(target), 0, -1)
    place = grid.to_voxel(like.to_world(where))
    tie = (np.abs(place - np.floor(place) - 0.5) < 1e-4).any(axis=-1)
    np.testing.assert_array_equal(found[~tie], reference[~tie])


@settings(deadline=None, max_examples=40)
@given(affines(), affines(), st.integers(0, 10**6), st.sampled_from([None, 0.0, -7.5]))
def test_simpleitk_resamples_to_the_same_intensities(one, other, seed, outside):
    rng = np.random.default_rng(seed)
    shape, target = (9, 10, 11), (8, 7, 12)
    other[:3, 3] = 0
    middle = other[:3, :3] @ [4, 3, 6]
    other[:3, 3] = one[:3, :3] @ rng.uniform(3, 6, 3) + one[:3, 3] - middle
    grid, like = Grid(shape, one), Grid(target, other)
    image = Volume(rng.integers(-500, 3000, (2, *shape)).astype(np.int16), grid, ("a", "b"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = resample_volume(image, like, outside=outside)
    assert (found.grid, found.channel_names, found.data.dtype) == (like, ("a", "b"), np.float32)
    place = grid.to_voxel(like.to_world(np.moveaxis(np.indices(target), 0, -1)))
    # On the border of the outermost voxels either answer is right.
    border = np.minimum(np.abs(place + 0.5), np.abs(place + 0.5 - shape)).min(axis=-1) < 1e-4
    for mine, channel in zip(found.data, image.data, strict=True):
        reference = sitk.GetArrayFromImage(
            sitk.Resample(
                as_sitk(channel.astype(np.float64), grid),
                as_sitk(np.zeros(target), like),
                sitk.Transform(),
                sitk.sitkLinear,
                np.nan if outside is None else outside,
            )
        )
        np.testing.assert_allclose(mine[~border], reference[~border], atol=0.02)


def test_what_a_contrast_does_not_reach_has_no_value():
    grid = Grid((4, 8, 8))
    low = grid.affine.copy()
    low[:3, 3] = grid.to_world(np.array([2, 0, 0]))
    part = Grid((2, 8, 8), low)
    rng = np.random.default_rng(0)
    ct = Volume(rng.integers(-900, 50, (1, 2, 8, 8)).astype(np.int16), part)
    mr = Volume(rng.random((1, 2, 8, 8)) + 100, part)
    for image in (ct, mr):
        with pytest.warns(UserWarning, match=r"does not reach 128 voxels \(50 %\) of the first"):
            moved = resample_volume(image, grid)
        assert np.isnan(moved.data[:, :2]).all()
        np.testing.assert_allclose(moved.data[:, 2:], image.data)
    holes = mr.data.copy()
    holes[0, 0, 0, 0] = np.nan
    finer = part.with_spacing((1, 1, 0.5))
    moved = resample_volume(Volume(holes, part), finer)
    # All that would be interpolated from it: 1 and 3 of its own places, 0 is beyond its center.
    assert np.argwhere(np.isnan(moved.data[0, 0])).tolist() == [[0, 0], [0, 1], [0, 2]]
    with pytest.warns(UserWarning, match="NaN in 1 voxel"):
        moved = resample_volume(Volume(holes, part), finer, outside=0)
    assert np.isfinite(moved.data).all()
    filled = Volume(np.concatenate([mr.data, holes]), part)
    with pytest.warns(UserWarning, match="goes by the other contrasts"):
        filled = filled.prepared()
    moved = resample_volume(filled, finer)
    assert np.isnan(moved.data).sum(axis=(1, 2, 3)).tolist() == [0, 3]
    holes[:] = np.nan
    with pytest.raises(ImageError, match="no finite value"):
        resample_volume(Volume(holes, part), finer)
    assert resample_volume(mr, Grid((2, 8, 8), low)) is mr


def test_contrasts_that_cannot_be_resampled():
    grid = Grid((4, 8, 8))
    far = grid.affine.copy()
    far[:3, 3] = 500
    image = Volume(np.ones((1, 4, 8, 9)), Grid((4, 8, 9), far))
    with pytest.raises(GeometryError, match="'flair' lies outside 't1': they do not overlap"):
        resample_volume(image, grid, name="'flair'", like_name="'t1'")
    with pytest.raises(GeometryError, match="The first does not state how it lies"):
        resample_volume(image, Grid((4, 8, 8), source={"kind": "frames"}))
    with pytest.raises(ImageError, match="complex"):
        resample_volume(Volume(1j * image.data, Grid((4, 8, 9))), grid)


def test_labels_of_all_types_stay_as_they_are():
    grid = Grid((1, 2, 2))
    fine = grid.with_spacing((1.0, 0.5, 0.5))
    for dtype, value in [(np.uint8, 255), (np.int64, 2**60 + 1), (np.uint64, 2**62 + 1)]:
        labels = np.array([[[0, value], [3, 0]]], dtype)
        found = resample_labels(labels, grid, fine)
        assert found.dtype == dtype
        assert found[0, 0].tolist() == [0, 0, value, value]
        assert found[0, 3].tolist() == [3, 3, 0, 0]
        assert resample_labels(labels, grid, Grid((1, 2, 2))) is labels
    wider = Grid((1, 3, 2))
    assert resample_labels(
        np.full((1, 2, 2), 200, np.uint8), grid, wider, outside=-1
    ).tolist() == [[[200, 200], [200, 200], [-1, -1]]]


def test_what_is_lost_is_said():
    grid = Grid((4, 8, 8))
    labels = np.zeros(grid.shape, np.uint8)
    labels[1:3, 2:6, 2:6], labels[3, 7, 7] = 1, 4
    with pytest.warns(UserWarning, match="of label 4 nothing is left"):
        resample_labels(labels, grid, Grid((4, 8, 7)))
    far = grid.affine.copy()
    far[:3, 3] = 500
    with pytest.raises(GeometryError, match="do not overlap anywhere"):
        resample_labels(labels, grid, Grid((4, 8, 8), far))
    frames = Grid((4, 8, 9), source={"kind": "frames"})
    with pytest.raises(GeometryError, match="does not state how it lies"):
        resample_labels(labels, grid, frames)


@pytest.fixture
def case(tmp_path, tiny_volume, tiny_labels):
    """An image, its mask in another order at half the voxel size, and strokes a quarter off."""
    image = tmp_path / "image.nii.gz"
    write_image(image, tiny_volume.data, tiny_volume.grid)
    fine = tiny_volume.grid.with_spacing((3.0, 0.5, 0.5))
    labels = np.repeat(np.repeat(tiny_labels, 2, 1), 2, 2)
    affine = fine.affine @ np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    stored = nib.Nifti1Image(labels.transpose(2, 1, 0)[::-1], flipped(affine, labels.shape[2]))
    stored.header.set_xyzt_units("mm")
    mask = tmp_path / "mask.nii.gz"
    nib.save(stored, mask)
    strokes = np.full(tiny_labels.shape, 9, np.uint8)
    strokes[6, 10, 5:9], strokes[6, 10, 15:19], strokes[6, 1:3] = 1, 2, 3
    prompts = tmp_path / "strokes.nii.gz"
    cropped = tiny_volume.grid.affine.copy()
    cropped[:3, 3] = tiny_volume.grid.to_world(np.array([4, 0, 0.25]))
    write_labels(prompts, strokes[4:9], Grid((5, 20, 24), cropped))
    return image, mask, prompts


def flipped(affine, count):
    """The affine of the array whose first axis runs the other way."""
    change = np.eye(4)
    change[0, 0], change[0, 3] = -1, count - 1
    return affine @ change


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_mask_of_another_grid_is_refused_and_resampled(case, tiny_volume, tiny_labels):
    _, mask, _ = case
    with pytest.raises(GeometryError, match=r"resample=True \(--resample\)"):
        read_labels(mask, tiny_volume.grid)
    labels, grid = read_labels(mask, tiny_volume.grid, resample=True)
    assert grid is tiny_volume.grid
    np.testing.assert_array_equal(labels, tiny_labels)


def test_strokes_of_another_extent_are_padded_as_unlabeled(case, tmp_path, tiny_volume):
    strokes = np.full((5, 20, 24), 200, np.uint8)
    strokes[2, 3, 4:8] = 1
    affine = tiny_volume.grid.affine.copy()
    affine[:3, 3] = tiny_volume.grid.to_world(np.array([4, 0, 0]))
    path = write_labels(tmp_path / "part.nii.gz", strokes, Grid((5, 20, 24), affine))
    for outside in (200, -1):
        for resample in (False, True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                labels, _ = read_labels(path, tiny_volume.grid, outside=outside, resample=resample)
            assert (labels[:4] == outside).all()
            assert (labels[9:] == outside).all()
            np.testing.assert_array_equal(labels[4:9], strokes)


def test_units_of_the_file_count(case, tiny_volume, tiny_labels):
    _, mask, _ = case
    in_mm = nib.load(mask)
    affine = in_mm.affine.copy()
    affine[:3] /= 1000
    in_m = nib.Nifti1Image(np.asarray(in_mm.dataobj), affine)
    in_m.header.set_xyzt_units("meter")
    nib.save(in_m, mask)
    labels, _ = read_labels(mask, tiny_volume.grid, resample=True)
    np.testing.assert_array_equal(labels, tiny_labels)


def test_commands_refuse_and_resample(case, tmp_path, tiny_volume, tiny_labels):
    image, mask, prompts = case
    out, field = tmp_path / "seg.nii.gz", tmp_path / "f.medgs.safetensors"
    few = ("--gaussians", 150, "--iterations", 2, "--backend", "cpu")
    for arguments in [
        ("fit", image, "--mask", mask, "-o", field, *few),
        ("segment", image, "--prompts", prompts, "--unlabeled", 9, "--background-label", 3,
         "-o", out),
        ("evaluate", mask, image.with_name("truth.nii.gz")),
    ]:  # fmt: skip
        write_labels(image.with_name("truth.nii.gz"), tiny_labels, tiny_volume.grid)
        refused = run(*arguments)
        assert refused.exit_code == 1
        assert "--resample" in " ".join(refused.output.split())
        done = run(*arguments, "--resample", "--json", tmp_path / "n.json")
        assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "n.json").read_text())["mean"]["dice"] == 1.0
    result = read_labels(out, tiny_volume.grid)[0]
    assert set(np.unique(result)) == {0, 1, 2}
    assert (result[5:8] == tiny_labels[5:8]).mean() > 0.9


def test_batches_resample_masks(case, tmp_path):
    image, mask, _ = case
    table = tmp_path / "cases.csv"
    table.write_text(f"image,mask\n{image},{mask}\n")
    few = FitParams(gaussians=100, iterations=1, backend="cpu", threads=1)
    alone = BatchParams(workers=1)
    refused = fit_many(find_cases(table), tmp_path / "out", few, alone)
    assert "--resample" in refused.failed["image"]
    done = fit_many(
        find_cases(table), tmp_path / "out", few, BatchParams(workers=1, resample=True)
    )
    assert done.done == ["image"]
    assert done.entries["image"]["metrics"]["dice"]


@pytest.fixture
def contrasts(tmp_path, tiny_volume, tiny_labels, rng):
    """Two contrasts, the second one of finer voxels, in another axis order and cut at one end."""
    grid = tiny_volume.grid.with_spacing((3.0, 0.8, 0.8))
    place = tiny_volume.grid.to_voxel(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)))
    nearest = np.clip(np.rint(place).astype(int), 0, np.array(tiny_volume.shape) - 1)
    labels = tiny_labels[tuple(np.moveaxis(nearest, -1, 0))]
    data = 200.0 * labels + rng.normal(100, 5, grid.shape)
    affine = grid.affine @ np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    second = tmp_path / "second.nii.gz"
    nib.save(nib.Nifti1Image(data.transpose(2, 1, 0)[:-6].astype(np.float32), affine), second)
    first = write_image(tmp_path / "first.nii.gz", tiny_volume.data, tiny_volume.grid)
    return first, second


def test_further_contrasts_are_refused_and_resampled(contrasts, tiny_volume):
    first, second = contrasts
    with pytest.raises(GeometryError, match=r"resample=True \(--resample\)"):
        read_volumes(contrasts)
    with pytest.warns(UserWarning, match="'second' does not reach"):
        both = read_volumes(contrasts, resample=True)
    assert both.grid.matches(tiny_volume.grid)
    np.testing.assert_allclose(both.data[0], read_volumes([first]).data[0])
    moved = sitk.Resample(
        sitk.ReadImage(str(second)), sitk.ReadImage(str(first)), sitk.Transform(), sitk.sitkLinear
    )
    expected = sitk.GetArrayFromImage(moved)
    written = write_image(first.with_name("moved.nii.gz"), both.data[1], both.grid)
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(written)))
    assert (expected == 0).any()
    np.testing.assert_allclose(found, expected, atol=0.01)
    with pytest.warns(UserWarning, match="taken as 77 "):
        filled = read_volumes(contrasts, resample=True, fill_nan=77)
    np.testing.assert_array_equal(filled.data[1] == 77, np.isnan(both.data[1]))


def test_commands_resample_further_contrasts(contrasts, case, tmp_path, tiny_labels):
    prompts = case[2]
    out, field = tmp_path / "seg.nii.gz", tmp_path / "f.medgs.safetensors"
    few = ("--gaussians", 150, "--iterations", 2, "--backend", "cpu")
    for arguments in [
        ("segment", *contrasts, "--prompts", prompts, "--unlabeled", 9, "--background-label", 3,
         "-o", out),
        ("fit", *contrasts, "-o", field, *few),
        ("compress", field, "--image", contrasts[0], "--image", contrasts[1], "--iterations", 1,
         "-o", tmp_path / "f.medgs"),
        ("tissues", *contrasts, "-o", tmp_path / "tissues.nii.gz"),
        ("parts", *contrasts, "--count", 5, "-o", tmp_path / "parts.nii.gz"),
    ]:  # fmt: skip
        refused = run(*arguments)
        assert refused.exit_code == 1
        told = " ".join(refused.output.split())
        assert "'second.nii.gz' (" in told
        assert "--resample does that" in told
        done = run(*arguments, "--resample")
        assert done.exit_code == 0, done.output
        assert "'second' does not reach" in " ".join(done.output.split())
    assert load_field(field).info.image_channels == ("first", "second")
    result = read_labels(out)[0]
    assert (result[5:8] == tiny_labels[5:8]).mean() > 0.9


def test_batches_resample_contrasts(contrasts, tmp_path):
    table = tmp_path / "cases.csv"
    table.write_text("image,name\n" + ";".join(map(str, contrasts)) + ",first\n")
    few = FitParams(gaussians=100, iterations=1, backend="cpu", threads=1)
    refused = fit_many(find_cases(table), tmp_path / "out", few, BatchParams(workers=1))
    assert "--resample" in refused.failed["first"]
    done = fit_many(
        find_cases(table), tmp_path / "out", few, BatchParams(workers=1, resample=True)
    )
    assert done.done == ["first"]
