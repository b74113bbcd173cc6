"""Images with more voxels than are solved on: coarser voxels, full resolution at the end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import napari_medgs as mg
from napari_medgs.data.grid import Grid
from napari_medgs.errors import GeometryError
from napari_medgs.segmentation import (
    InteractiveSegmenter,
    Prompts,
    SegmentModel,
    SegmentParams,
    explain_contrasts,
    fit_for_segmentation,
    segment,
)
from napari_medgs.segmentation.api import FIT_PARAMS
from napari_medgs.segmentation.field_check import field_mismatch
from napari_medgs.segmentation.large_model import LargeSegmentModel
from napari_medgs.segmentation.postprocess.upsampling import upsample_labels
from napari_medgs.segmentation.prompts.prompts import Box, Point
from napari_medgs.segmentation.working_grid import WorkingGrid, working_grid

SHAPE = (14, 41, 44)
FEW = SegmentParams(working_voxels=8000)
FIT = mg.FitParams(iterations=10, gaussians=900)


@pytest.fixture(scope="module")
def scene():
    """A ball in noise: image, mask, strokes on two slices, field."""
    rng = np.random.default_rng(3)
    z, y, x = np.indices(SHAPE)
    truth = ((z - 7) / 5) ** 2 + ((y - 20) / 11) ** 2 + ((x - 21) / 13) ** 2 <= 1
    data = (100 * truth + rng.normal(0, 8, SHAPE)).astype(np.float32)
    volume = mg.Volume.from_array(data, spacing=(2.0, 1.0, 1.0))
    strokes = np.full(SHAPE, -1, np.int32)
    for k in (4, 9):
        strokes[k, 20, 15:28], strokes[k, 3, 3:40] = 4, 0
    return volume, truth, strokes, fit_for_segmentation(volume, FIT, working_voxels=8000)


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@given(
    st.tuples(*[st.integers(1, 400)] * 3),
    st.tuples(*[st.floats(0.2, 6)] * 3),
    st.integers(1000, 10**6),
)
def test_working_grids_have_few_voxels_at_the_same_place(shape, spacing, most):
    grid = Grid(shape, np.diag([*spacing, 1.0]))
    place = working_grid(grid, most)
    if place is None:
        assert np.prod(shape) <= most
        return
    assert np.prod(place.shape) <= most < np.prod(shape)
    corner = np.array([[-0.5, -0.5, -0.5]])
    np.testing.assert_allclose(place.grid.to_world(corner), grid.to_world(corner), atol=1e-6)
    np.testing.assert_allclose(place.grid.spacing, np.multiply(spacing, place.factors))
    middle = np.argwhere(np.ones(place.shape, bool))[-1:]
    np.testing.assert_array_equal(place.blocks(middle * place.factors), middle)


def test_images_are_averages_of_blocks(rng):
    volume = mg.Volume(rng.random((2, 5, 9, 10), np.float32), Grid((5, 9, 10)))
    place = WorkingGrid(volume.grid, (1, 2, 4))
    image = place.image(volume)
    assert image.shape == (5, 5, 3)
    np.testing.assert_allclose(
        image.data[1, 3, 2, 1], volume.data[1, 3, 4:6, 4:8].mean(), rtol=1e-5
    )
    np.testing.assert_allclose(image.data[0, 4, 4, 2], volume.data[0, 4, 8:, 8:].mean(), rtol=1e-5)
    linear = np.broadcast_to(np.arange(10, dtype=np.float32), (5, 9, 10))
    means = place.image(mg.Volume(linear[None], volume.grid)).data[0]
    inner = place.stretched(means)[:, :, 2:6]
    np.testing.assert_allclose(inner, linear[:, :, 2:6], atol=1e-5)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.sampled_from([1, 2, 3, 4])] * 3))
def test_upsampled_labels_are_labels_from_nearby(seed, factors):
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 3, (3, 4, 5)).astype(np.uint8)
    image = rng.random((1, *np.multiply(blocks.shape, factors)), np.float32)
    means = rng.random((1, *blocks.shape), np.float32)
    out = upsample_labels(blocks, means, image, factors)
    reach = tuple(3 if f > 1 else 1 for f in factors)
    near = np.zeros((3, *out.shape), bool)
    for k in range(3):
        seen = ndimage.binary_dilation(blocks == k, np.ones(reach, bool))
        for axis, f in enumerate(factors):
            seen = np.repeat(seen, f, axis=axis)
        near[k] = seen
    assert np.take_along_axis(near, out[None].astype(int), 0).all()
    one = np.full_like(blocks, 2)
    assert (upsample_labels(one, means, image, factors) == 2).all()


def test_the_result_is_like_that_on_all_voxels(scene):
    volume, truth, strokes, field = scene
    prompts = Prompts(labels=strokes, unlabeled=-1)
    large = SegmentModel(volume, field, FEW)
    assert field.info.grid.matches(volume.grid)
    result = large.update(prompts)
    small = SegmentModel(volume, field).update(prompts)
    assert result.labels.shape == SHAPE
    assert (result.labels != small.labels).any()
    assert result.values == (0, 4)
    assert dice(result.labels == 4, truth) > dice(small.labels == 4, truth) - 0.02 > 0.9
    assert result.voxels[4] == np.count_nonzero(result.labels == 4)
    drawn = strokes >= 0
    np.testing.assert_array_equal(result.labels[drawn], strokes[drawn])

    probability, error = result.probability(), result.uncertainty()
    assert probability.shape == (2, *SHAPE)
    np.testing.assert_allclose(probability.sum(axis=0), 1, atol=1e-4)
    assert dice(probability[1] > 0.5, truth) > 0.9
    assert error.shape == SHAPE
    assert error.min() >= 0
    assert error[drawn].max() == 0
    edge = ndimage.binary_dilation(truth) & ~ndimage.binary_erosion(truth)
    assert error[edge].mean() > 2 * error[~edge].mean()

    plane = large.preview_slice(0, 6, prompts)
    assert dice(plane == 4, truth[6]) > 0.8
    (suggestion,) = large.suggest(1)
    assert 0 <= suggestion.position[suggestion.axis] == suggestion.index < SHAPE[suggestion.axis]


def test_boxes_locks_and_the_range_hold_on_every_voxel(scene):
    volume, _, strokes, field = scene
    before = np.zeros(SHAPE, np.int32)
    before[7, 18:21, 19:22] = 4
    start, stop = (2, 11, 9), (13, 30, 33)
    prompts = Prompts(labels=strokes, unlabeled=-1, boxes=(Box(start, stop, 4),))
    params = replace(FEW, lowest=75.0)
    labels = SegmentModel(volume, field, params).update(prompts).labels
    outside = np.ones(SHAPE, bool)
    outside[tuple(slice(a, b) for a, b in zip(start, stop))] = False
    assert not (labels[outside] == 4).any()
    dark = (volume.data[0] < 75) & (strokes != 4)
    assert not (labels[dark] == 4).any()

    strokes_two = np.where(strokes == 4, 6, strokes)
    bare = Prompts(labels=strokes_two, unlabeled=-1, locked=frozenset({4}), result=before)
    labels = SegmentModel(volume, field, FEW).update(bare).labels  # it has no stroke
    np.testing.assert_array_equal(labels == 4, before == 4)
    strokes_two[7, 19, 20] = 4
    locked = Prompts(labels=strokes_two, unlabeled=-1, locked=frozenset({4}), result=before)
    labels = SegmentModel(volume, field, FEW).update(locked).labels
    np.testing.assert_array_equal(labels == 4, before == 4)


@pytest.mark.parametrize("kind", ["mask", "probabilities"])
def test_an_initial_mask_stays_voxel_by_voxel(scene, kind):
    volume, truth, _, field = scene
    mask = truth.copy()
    mask[7, 20, 21] = False  # one voxel: no block of its own
    if kind == "mask":
        given = {"initial": mask.astype(np.uint8)}
    else:
        given = {"prior": np.stack([~mask, mask]).astype(np.float32)}
    points = (Point((7.0, 5.0, 36.0), 1),)
    model = SegmentModel(volume, field, FEW)
    labels = model.update(Prompts(points=points, unlabeled=-1, **given)).labels
    assert labels[7, 5, 36] == 1
    far = np.ones(SHAPE, bool)
    far[:, :16, 26:] = False
    np.testing.assert_array_equal(labels[far] == 1, mask[far])


def test_a_prior_is_not_taken_for_one_that_is_gone(scene):
    """New arrays may lie where the old one lay, and then have its identity."""
    volume, truth, strokes, field = scene
    grid = working_grid(volume.grid, FEW.working_voxels)
    model = LargeSegmentModel(volume, field, grid, FEW)

    def prior():
        return np.stack([~truth, truth]).astype(np.float32)

    first = prior()
    place = id(first)
    model.snapshot(Prompts(prior=first))
    model.snapshot(Prompts(labels=strokes, unlabeled=-1))
    del first
    others = []
    while id(second := prior()) != place and len(others) < 100:
        others.append(second)
    second[:] = second[::-1].copy()
    found = model.snapshot(Prompts(prior=second)).initial
    np.testing.assert_array_equal(found, ~truth)


def test_one_call_and_the_interactive_object_agree(scene):
    volume, _, strokes, _ = scene
    by_call = segment(volume, Prompts(labels=strokes, unlabeled=-1), FEW, fit_params=FIT)
    segmenter = InteractiveSegmenter(FEW, fit_params=FIT)
    segmenter.set_image(volume)
    for label in (0, 4):
        segmenter.add_scribble(label, strokes == label)
    result = segmenter.result()
    np.testing.assert_array_equal(result.labels, by_call.labels)
    assert segmenter.field.info.grid.matches(volume.grid)
    segmenter.add_scribble(4, [(6, 20, 18), (6, 20, 24)])
    quick = segmenter.update(quick=True)
    assert quick.incremental
    assert (quick.labels[6, 20, 18:25] == 4).all()
    preview = segmenter.preview_slice(0, 6)
    assert (preview[20, 18:25] == 4).all()
    # More voxels: prepared anew, on all of them.
    assert segmenter.is_prepared
    segmenter.set_params(replace(FEW, working_voxels=10**6))
    assert not segmenter.is_prepared
    assert not np.array_equal(segmenter.result().labels, quick.labels)


def test_a_large_image_is_fitted_along_its_own_slices():
    """Blocks of 1 x 2 x 2 are coarser in plane, which does not make columns slices."""
    rng = np.random.default_rng(0)
    grid = Grid((24, 40, 40), np.diag([1.0, 0.8, 0.8, 1.0]))
    volume = mg.Volume(rng.random((1, 24, 40, 40)).astype(np.float32), grid)
    field = fit_for_segmentation(
        volume, mg.FitParams(gaussians=50, iterations=2), working_voxels=9800
    )
    assert field.info.slice_axis == 0
    assert field.info.grid.matches(grid)
    assert "through_plane_targets" not in field.info.metrics
    wanted = mg.FitParams(gaussians=50, iterations=2, slice_axis=2, interpolate=True)
    field = fit_for_segmentation(volume, wanted, working_voxels=9800)
    assert field.info.slice_axis == 2
    assert "through_plane_targets" in field.info.metrics


def test_default_steps_are_fewer_on_blocks():
    volume = mg.Volume.from_array(np.random.default_rng(0).random((8, 24, 24)).astype(np.float32))
    few = replace(FIT_PARAMS, gaussians=40, slice_axis=0)
    assert fit_for_segmentation(volume, few).info.metrics["iterations"] == 40
    assert fit_for_segmentation(volume, few, working_voxels=1000).info.metrics["iterations"] == 20


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
@settings(max_examples=25, deadline=None)
def test_upsampling_only_what_changed_gives_the_same(seed, changes):
    rng = np.random.default_rng(seed)
    factors = tuple(int(f) for f in rng.integers(1, 3, 3))
    blocks = (5, 7, 6)
    shape = tuple(n * f - int(rng.integers(f)) for n, f in zip(blocks, factors, strict=True))
    image = rng.normal(size=(1, *shape)).astype(np.float32)
    means = WorkingGrid(Grid(shape), factors).image(mg.Volume.from_array(image)).data
    before = rng.integers(0, 3, blocks).astype(np.uint8)
    done = upsample_labels(before, means, image, factors)
    now = before.copy()
    for place in rng.integers(0, blocks, (changes, 3)):
        now[tuple(place)] = rng.integers(3)
    again = upsample_labels(now, means, image, factors, known=(before, done))
    assert again is done  # changed in place
    np.testing.assert_array_equal(again, upsample_labels(now, means, image, factors))


def test_a_field_of_another_image_is_told_from_the_own_one(scene):
    volume, _, _, field = scene
    assert field_mismatch(volume, field, FEW.working_voxels) is None
    other = replace(volume, data=np.roll(volume.data, 20, axis=-1))
    found = field_mismatch(other, field, FEW.working_voxels)
    assert found is not None
    assert found.psnr < found.fitted - 7
    both = mg.Volume.from_array(np.concatenate([volume.data] * 2), spacing=(2.0, 1.0, 1.0))
    assert field_mismatch(both, field) is None, "of other contrasts nothing can be told"


def test_contrasts_of_large_images_are_weighed_and_explained_on_blocks(scene):
    volume, _, strokes, field = scene
    noise = np.random.default_rng(1).normal(0, 8, SHAPE).astype(np.float32)
    both = mg.Volume(np.concatenate([volume.data, noise[None]]), volume.grid)
    prompts = Prompts(labels=strokes, unlabeled=-1)
    model = SegmentModel(both, field, FEW)
    full = model.update(prompts).labels
    found = explain_contrasts(both, prompts, field, FEW, full=full)
    np.testing.assert_array_equal(model.contrast_weights(prompts)[:, 1:], found.weights)
    fine = explain_contrasts(both, prompts, field)
    assert (found.shapley != fine.shapley).any()
    np.testing.assert_allclose(found.shapley, fine.shapley, atol=0.1)
    assert found.shapley[0, 0] > found.shapley[1, 0] + 0.3
    with pytest.raises(GeometryError, match="shape"):
        explain_contrasts(both, Prompts(labels=strokes[1:], unlabeled=-1), field)
