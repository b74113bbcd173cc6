"""The field's geometry: covariances, other grids, order, validation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medgs.data.field import FieldInfo, GaussianField, concatenate, morton_order
from napari_medgs.data.grid import Grid
from napari_medgs.errors import ParameterError
from napari_medgs.rendering import render, render_labels, render_points


def make_field(count=40, shape=(8, 20, 24), slice_axis=0, classes=0, seed=0, affine=None):
    rng = np.random.default_rng(seed)
    grid = Grid(shape) if affine is None else Grid(shape, affine)
    names = tuple(f"class {k}" for k in range(classes))
    info = FieldInfo(
        grid,
        slice_axis,
        degree=3,
        intensity_scale=(200.0,),
        intensity_offset=(-50.0,),
        class_names=names,
        label_values=tuple(range(0, 2 * classes, 2)),
    )
    depth, rows, columns = info.stack_shape
    return GaussianField(
        centers=rng.uniform(0, 1, (count, 3)) * [columns, rows, depth],
        log_precision=rng.normal(-0.6, 0.2, (count, 3)),
        shear=rng.normal(0, 0.4, count),
        fold=rng.normal(0, 1, (count, 3, 2)) * np.array([0.3, 0.02, 0.002])[:, None],
        log_weight=rng.normal(0, 0.3, count),
        values=rng.random((count, 1 + classes)),
        background=np.zeros(1 + classes),
        info=info,
    )


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_precision_matches_the_rendered_shape(slice_axis):
    """At its center a Gaussian falls off as its precision matrix says."""
    field = make_field(1, (21, 21, 21), slice_axis)
    field.centers[:] = 10
    field.fold[:, 1:] = 0
    field.log_weight[:] = 0
    field.values[:] = 1
    plain = field.with_info(
        blend="sum", cutoff=40.0, intensity_scale=(1.0,), intensity_offset=(0.0,)
    )
    rng = np.random.default_rng(1)
    offsets = rng.normal(0, 1.0, (50, 3))
    values = render_points(plain, offsets + 10)[:, 0]
    precision = plain.voxel_precisions()[0]
    expected = np.exp(-0.5 * np.einsum("pi,ij,pj->p", offsets, precision, offsets))
    np.testing.assert_allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_points_agree_with_the_grid(slice_axis):
    field = make_field(60, slice_axis=slice_axis, classes=3)
    grid_values = render(field, "image")
    points = np.stack(np.meshgrid(*[np.arange(n) for n in (8, 20, 24)], indexing="ij"), -1)
    values = render_points(field, points.reshape(-1, 3))
    difference = np.abs(values.T.reshape(grid_values.shape) - grid_values)
    assert np.quantile(difference, 0.999) < 1e-2  # of a range of 200
    probability = render(field, "probability")
    np.testing.assert_allclose(probability.sum(axis=0), 1, atol=1e-5)
    labels = render_labels(field)
    np.testing.assert_array_equal(labels, 2 * probability.argmax(axis=0))


def test_finer_grid_samples_the_same_field():
    affine = np.array([[0, 0, -0.7, 5], [0, -0.9, 0, 7], [3.0, 0, 0, 9], [0, 0, 0, 1]])
    field = make_field(60, affine=affine)
    finer = field.info.grid.with_spacing((1.5, 0.45, 0.35))
    picture = render(field, "image", grid=finer)
    index = np.argwhere(np.ones(finer.shape))[::97]
    points = field.info.grid.to_voxel(finer.to_world(index))
    expected = render_points(field, points)[:, 0]
    difference = np.abs(picture[0][tuple(index.T)] - expected)
    assert np.quantile(difference, 0.99) < 2e-2
    assert finer.shape == (16, 40, 48)


def test_oblique_grid_is_rendered_at_points():
    field = make_field(60)
    angle = 0.4
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    affine = field.info.grid.affine.copy()
    rotation = np.eye(3)
    rotation[:2] = turn
    affine[:3, :3] = rotation @ affine[:3, :3]
    grid = Grid((5, 9, 11), affine)
    picture = render(field, "image", grid=grid)
    index = np.argwhere(np.ones(grid.shape))
    expected = render_points(field, field.info.grid.to_voxel(grid.to_world(index)))[:, 0]
    np.testing.assert_allclose(picture[0].reshape(-1), expected, atol=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.sampled_from([0, 1, 2]))
def test_moving_to_a_grid_and_back_changes_nothing(seed, slice_axis):
    rng = np.random.default_rng(seed)
    field = make_field(20, slice_axis=slice_axis, seed=seed)
    affine = field.info.grid.affine.copy()
    affine[:3, :3] *= rng.uniform(0.5, 2, 3) * rng.choice([-1, 1], 3)
    affine[:3, 3] += rng.normal(0, 5, 3)
    other = field.on_grid(Grid((9, 10, 11), affine))
    back = other.on_grid(field.info.grid)
    for name in field.tensor_names():
        np.testing.assert_allclose(getattr(back, name), getattr(field, name), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(other.world_centers(), field.world_centers(), atol=1e-3)
    np.testing.assert_allclose(
        other.world_covariances(), field.world_covariances(), rtol=2e-3, atol=1e-3
    )


def test_oblique_target_of_on_grid_is_refused():
    field = make_field(3)
    affine = field.info.grid.affine.copy()
    affine[0, 0] = 0.3
    with pytest.raises(ParameterError, match="not parallel"):
        field.on_grid(Grid((4, 4, 4), affine))


def test_bad_arrays_are_refused():
    field = make_field(5)
    arrays = {name: getattr(field, name) for name in field.tensor_names()}
    with pytest.raises(ParameterError, match="shear have shape"):
        GaussianField(**{**arrays, "shear": np.zeros(4)}, info=field.info)
    broken = arrays["values"].copy()
    broken[2, 0] = np.nan
    with pytest.raises(ParameterError, match="values hold values that are not finite"):
        GaussianField(**{**arrays, "values": broken}, info=field.info)
    with pytest.raises(ParameterError, match="blend must be normalized, sum or alpha"):
        field.with_info(blend="multiply")


def test_subset_and_concatenate_are_inverse():
    field = make_field(30)
    parts = [field.subset(np.arange(10)), field.subset(np.arange(30) >= 10)]
    whole = concatenate(parts)
    for name in field.tensor_names():
        np.testing.assert_array_equal(getattr(whole, name), getattr(field, name))


def test_morton_order_keeps_neighbours_together():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100, (4000, 3))
    ordered = points[morton_order(points)]
    jumps = np.linalg.norm(np.diff(ordered, axis=0), axis=1)
    random_jumps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert jumps.mean() < 0.25 * random_jumps.mean()
    assert sorted(morton_order(points)) == list(range(4000))


def test_seg_head_is_asked_for_by_name():
    with pytest.raises(ParameterError, match="no seg head"):
        render(make_field(3), "seg")
