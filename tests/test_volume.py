"""Canonical axes, layer transforms and what may be fitted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from nibabel.affines import voxel_sizes

from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import SPL, canonical_axes, source_axes
from napari_medgs.data.volume import (
    Volume,
    check_same_grid,
    from_source,
    spacing_affine,
    stack_contrasts,
    to_source,
)
from napari_medgs.errors import GeometryError, ImageError
from tests.strategies import affines

shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5)


@settings(max_examples=80, deadline=None)
@given(affine=affines(), shape=shapes)
def test_canonical_axes_keep_every_voxel_where_it_is(affine, shape):
    data = np.arange(np.prod(shape)).reshape(1, *shape)
    volume = Volume.from_axes(data, affine)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    found = np.rint(volume.grid.to_voxel(world)).astype(int)
    np.testing.assert_allclose(volume.grid.to_world(found), world, atol=1e-8)
    np.testing.assert_array_equal(volume.data[0][tuple(found.T)], data[0][tuple(index.T)])
    # and there and back again, also through JSON
    grid = Grid.from_dict(volume.grid.to_dict())
    np.testing.assert_array_equal(to_source(volume.data, grid), data)
    np.testing.assert_array_equal(from_source(data, grid), volume.data)


@settings(max_examples=60, deadline=None)
@given(affine=affines())
def test_canonical_axes_point_to_superior_posterior_left(affine):
    axes = Volume.from_axes(np.zeros((1, 2, 3, 4)), affine).affine[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    towards = np.linalg.inv(SPL[:3, :3]) @ axes
    assert np.trace(towards) > 1
    assert np.linalg.svd(axes)[1].min() > 0.1


def test_known_orientation():
    # File axes: anterior, right, inferior.
    affine = np.array([[0, 2, 0, 5], [3, 0, 0, 6], [0, 0, -4, 7], [0, 0, 0, 1]], float)
    assert canonical_axes(affine) == ((2, 0, 1), (True, True, True))
    data = np.arange(24).reshape(1, 2, 3, 4)
    volume = Volume.from_axes(data, affine)
    assert volume.shape == (4, 2, 3)
    assert volume.spacing == (4, 3, 2)
    assert volume.data[0, 0, 0, 0] == data[0, 1, 2, 3]
    np.testing.assert_array_equal(volume.affine @ [0, 0, 0, 1], affine @ [1, 2, 3, 1])
    np.testing.assert_array_equal(volume.affine[:3, :3], [[0, 0, -2], [0, -3, 0], [4, 0, 0]])


def test_a_very_coarse_axis_does_not_change_the_choice_of_axes():
    turn = np.array([[1, 0, 0.3], [0, 1, 0.2], [-0.3, -0.2, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn / np.linalg.norm(turn, axis=0) * [0.1, 0.1, 50]
    assert canonical_axes(affine)[0] == (2, 1, 0)


@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 6), (2, 4, 5, 6)])
def test_from_array(shape):
    volume = Volume.from_array(np.zeros(shape), spacing=(3, 2, 1))
    assert volume.data.shape == (1, 1, 5, 6)[: 4 - len(shape)] + shape
    assert volume.spacing == (3, 2, 1)
    np.testing.assert_array_equal(volume.affine, spacing_affine((3, 2, 1)))
    assert len(volume.channel_names) == volume.channels


def test_spacings_may_be_arrays():
    volume = Volume.from_array(np.zeros((3, 4, 5)), np.array([3.0, 2.0, 1.0]))
    assert volume.spacing == (3, 2, 1)
    both = stack_contrasts(np.array([volume, volume], dtype=object))
    assert both.channels == 2


def test_from_array_keeps_axes_with_an_affine():
    affine = np.diag([1.0, 2, 3, 1])
    data = np.arange(24).reshape(2, 3, 4)
    volume = Volume.from_array(data, affine=affine)
    np.testing.assert_array_equal(volume.data[0], data)
    np.testing.assert_array_equal(volume.affine, affine)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (np.zeros(5), ImageError, "1 axes"),
        (np.zeros((1, 1, 2, 2, 2)), ImageError, "5 axes"),
        (np.zeros((0, 4, 4)), ImageError, "empty"),
        (np.array([["a", "b"]]), ImageError, "plain gray values"),
        (np.ma.masked_less(np.arange(16.0).reshape(4, 4), 3), ImageError, "masked"),
        (np.zeros((3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")]), ImageError, "colors"),
    ],
)
def test_from_array_refuses(data, error, words):
    with pytest.raises(error, match=words):
        Volume.from_array(data)


@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (1, -1, 1), (1, np.nan, 1), "abc", ()])
def test_bad_spacing(spacing):
    with pytest.raises(GeometryError, match="three positive numbers"):
        Volume.from_array(np.zeros((3, 3, 3)), spacing=spacing)


def test_spacing_and_affine_together():
    with pytest.raises(GeometryError, match="not both"):
        Volume.from_array(np.zeros((3, 3, 3)), spacing=(1, 1, 1), affine=np.eye(4))


def test_singular_affine():
    with pytest.raises(GeometryError, match="singular"):
        Volume.from_axes(np.zeros((1, 3, 3, 3)), np.diag([1.0, 0, 1, 1]))


def noisy(**change):
    data = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    for where, value in change.get("set", []):
        data[where] = value
    return data.astype(change.get("dtype", float))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (noisy(set=[((1, 0, 0, 0), np.nan), ((1, 0, 0, 1), np.inf)]), "'channel 1' holds 2 value"),
        (noisy(set=[(0, 7.0)]), r"'channel 0' is constant \(7\)"),
        (noisy(dtype=complex), "complex"),
        (np.arange(6.0).reshape(1, 1, 1, 6), "single row"),
    ],
)
def test_check_image_refuses(data, words):
    with pytest.raises(ImageError, match=words):
        Volume.from_array(data).check_image()


def test_check_image_accepts():
    Volume.from_array(noisy()).check_image()
    Volume.from_array(np.eye(4, dtype=bool)).check_image()


def test_data_and_grid_must_agree(tiny_grid):
    with pytest.raises(GeometryError, match="its grid"):
        Volume(np.zeros((1, 2, 2, 2)), tiny_grid)
    with pytest.raises(ImageError, match="2 names"):
        Volume(np.zeros((1, *tiny_grid.shape)), tiny_grid, ("a", "b"))


def test_stack_contrasts(tiny_volume):
    other = Volume(tiny_volume.data.astype(np.int16), tiny_volume.grid, ("image",))
    both = stack_contrasts([tiny_volume, other, other])
    assert both.data.shape == (3, *tiny_volume.shape)
    assert both.data.dtype == np.float32
    assert both.channel_names == ("image", "image (2)", "image (3)")
    assert stack_contrasts([other, other]).data.dtype == np.int16
    np.testing.assert_array_equal(both.channel(1), other.data[0].astype(np.float32))


def test_unequal_contrasts(tiny_volume):
    cropped = Volume.from_array(tiny_volume.data[:, 1:], affine=tiny_volume.affine)
    with pytest.raises(GeometryError, match=r"\(12, 20, 24\).*\(11, 20, 24\)"):
        stack_contrasts([tiny_volume, cropped])
    moved = tiny_volume.affine.copy()
    moved[0, 3] += 2.5
    with pytest.raises(GeometryError, match=r"2.5 mm apart"):
        stack_contrasts([tiny_volume, Volume.from_array(tiny_volume.data, affine=moved)])
    check_same_grid(tiny_volume.grid, tiny_volume.grid, "a", "b")


def test_a_source_that_no_longer_fits_is_not_used():
    volume = Volume.from_axes(np.arange(24.0).reshape(1, 2, 3, 4), np.diag([2.0, 2, 2, 1]))
    grid = volume.grid
    assert source_axes(grid) == ((2, 1, 0), (False, True, True))
    moved = grid.affine.copy()
    moved[2, 3] += 1
    for other in (
        Grid(grid.shape, moved, grid.source),
        Grid((2, 3, 4), grid.affine, grid.source),
        Grid(grid.shape, grid.affine, {**grid.source, "order": [0, 0, 1]}),
        Grid(grid.shape, grid.affine, {**grid.source, "shape": "abc"}),
    ):
        assert source_axes(other) is None
        array = np.zeros(other.shape)
        assert to_source(array, other) is array
    with pytest.raises(GeometryError, match="its grid"):
        to_source(np.zeros((2, 2, 2)), grid)
    with pytest.raises(GeometryError, match="does not fit"):
        from_source(np.zeros((2, 2, 2)), grid)


@given(affines())
def test_relative_spacing_counts_in_finest_voxels(affine: np.ndarray) -> None:
    sizes = voxel_sizes(affine)
    relative = Grid((2, 3, 4), affine).relative_spacing
    assert relative.min() == 1
    np.testing.assert_allclose(relative * sizes.min(), sizes)
