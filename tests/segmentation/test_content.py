"""What an image holds decides its mask: not its padding, copies of contrasts, or its units."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import napari_medgs as mg
from napari_medgs.segmentation import (
    Box,
    InteractiveSegmenter,
    Point,
    Prompts,
    SegmentModel,
    SegmentParams,
    explain_contrasts,
    fit_for_segmentation,
    segment,
)
from napari_medgs.segmentation.content import find_content
from napari_medgs.segmentation.field_check import field_mismatch
from tests.segmentation.conftest import BACKGROUND, overlap

SHAPE = (12, 40, 44)
FIT = mg.FitParams(gaussians=1500, iterations=20)
LOW, HIGH = (3, 0, 6), (0, 5, 8)  # voxels of padding


def padded(array, value=0):
    sides = list(zip(LOW, HIGH, strict=True))
    return np.pad(array, [(0, 0)] * (array.ndim - 3) + sides, constant_values=value)


def inner(array):
    box = tuple(
        slice(a, array.shape[k] - b) for k, (a, b) in enumerate(zip(LOW, HIGH, strict=True))
    )
    return array[box]


@pytest.fixture(scope="module")
def scene():
    """A vessel through all slices in noise: image, mask, strokes on one slice."""
    rng = np.random.default_rng(5)
    z, y, x = np.indices(SHAPE)
    truth = np.hypot(y - 20 - np.sin(z / 4), x - 21) < 8
    image = (60 + 50 * truth + rng.normal(0, 6, SHAPE)).astype(np.float32)
    strokes = np.zeros(SHAPE, np.int32)
    strokes[6, 20, 17:26] = 1
    strokes[6, 4, 3:40] = strokes[6, 36, 5:40] = BACKGROUND
    return image, truth, strokes


@pytest.fixture(scope="module")
def plain(scene):
    image, truth, strokes = scene
    found = segment(volume_of(image), prompts_of(strokes), fit_params=FIT)
    assert overlap(found.labels == 1, truth) > 0.9
    return found


def volume_of(image):
    return mg.Volume.from_array(image, spacing=(2.0, 1.0, 1.0))


def prompts_of(strokes, **more):
    return Prompts(labels=strokes, background=BACKGROUND, **more)


@pytest.mark.parametrize("value", ["lowest", "highest", -1024.0, 0.0])
def test_padding_with_a_constant_changes_no_mask(scene, plain, value):
    image, _, strokes = scene
    fill = {"lowest": image.min(), "highest": image.max()}.get(value, value)
    found = segment(volume_of(padded(image, fill)), prompts_of(padded(strokes)), fit_params=FIT)
    # Positions of Gaussians on another grid are rounded.
    assert (inner(found.labels) != plain.labels).mean() < 1e-3
    assert found.voxels[1] == np.count_nonzero(inner(found.labels) == 1)  # none outside
    assert len(found.field) == len(plain.field)


def test_every_side_may_have_its_own_constant(scene, plain):
    image, _, strokes = scene
    wide = padded(image, -5)
    wide[:3], wide[:, -5:] = 2000, 7
    found = segment(volume_of(wide), prompts_of(padded(strokes)), fit_params=FIT)
    assert (inner(found.labels) != plain.labels).mean() < 1e-3


def test_a_result_of_a_padded_image_is_certain_in_the_padding(scene):
    image, _, strokes = scene
    found = segment(volume_of(padded(image)), prompts_of(padded(strokes)), fit_params=FIT)
    probability, error = found.probability(), found.error_estimate().error_probability
    outside = padded(np.ones(SHAPE, bool), False) == 0
    stack_axis = found.slice_axis
    assert (probability[0][outside] == 1).all()
    assert (np.moveaxis(error, 0, stack_axis)[outside] == 0).all()
    np.testing.assert_allclose(probability.sum(axis=0), 1, atol=1e-5)
    assert np.moveaxis(error, 0, stack_axis)[~outside].max() > 0.1


def test_what_surrounds_an_object_stays_apart_from_it():
    rng = np.random.default_rng(2)
    z, y, x = np.indices(SHAPE)
    ball = ((z - 6) / 5) ** 2 + ((y - 20) / 15) ** 2 + ((x - 22) / 16) ** 2 < 1
    image = np.where(ball, rng.normal(500, 5, SHAPE), 0).astype(np.float32)
    strokes = np.zeros(SHAPE, np.int32)
    strokes[6, 20, 14:30], strokes[6, 1, 2:42] = 1, BACKGROUND
    found = segment(volume_of(image), prompts_of(strokes), fit_params=FIT)
    assert overlap(found.labels == 1, ball) > 0.95


@pytest.mark.parametrize("copy", [(1, 0), (-3, 1000), (1e-4, 0)])
def test_a_contrast_that_is_given_twice_counts_once(scene, copy):
    image, _, strokes = scene
    volume = volume_of(np.stack([image, (copy[0] * image + copy[1]).astype(np.float32)]))
    field = fit_for_segmentation(volume, FIT)
    once = segment(volume_of(image), prompts_of(strokes), field=field)
    twice = segment(volume, prompts_of(strokes), field=field)
    np.testing.assert_array_equal(twice.labels, once.labels)
    other = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    assert find_content(volume_of(np.stack([image, other]))) is None


def test_a_copy_of_a_contrast_has_no_weight(scene):
    image, _, strokes = scene
    noise = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)
    volume = volume_of(np.stack([image, noise, 5 - 2 * image]))
    model = SegmentModel(volume, fit_for_segmentation(volume, FIT))
    weights = model.contrast_weights(prompts_of(strokes))
    assert weights.shape == (3, 2)
    assert (weights[2] == 0).all()
    assert (weights[0] > 0).all()


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0), (1e6, 0), (1, 1000), (-2, 7)])
def test_units_change_no_mask(scene, plain, scale, offset):
    image, _, strokes = scene
    changed = (image.astype(np.float64) * scale + offset).astype(np.float32)
    found = segment(volume_of(changed), prompts_of(strokes), fit_params=FIT)
    # Rounding sends a fit another way, as another seed does.
    assert overlap(found.labels == 1, plain.labels == 1) > 0.98


@pytest.mark.parametrize("quick", [False, True])
def test_strokes_in_the_padding_are_kept(scene, quick):
    image, _, strokes = scene
    volume, wide = volume_of(padded(image)), padded(strokes)
    model = SegmentModel(volume, fit_for_segmentation(volume, FIT))
    before = model.update(prompts_of(wide)).labels
    wide[9, 42, 10:30] = BACKGROUND
    wide[9, 25, 25:31] = 1
    wide[1, 5, 5:8] = 1  # in the padding
    prompts = prompts_of(wide)
    found = model.update(prompts, quick=quick)
    drawn = wide > 0
    np.testing.assert_array_equal(found.labels[drawn], np.where(wide == 1, 1, 0)[drawn])
    assert (found.labels != before).mean() < 0.05
    np.testing.assert_array_equal(model.preview_slice(0, 1, prompts)[5, 5:8], 1)
    assert all(0 <= p < n for s in model.suggest(3) for p, n in zip(s.position, volume.shape))
    assert all(s.index >= LOW[0] for s in model.suggest(3, axis=0))


def test_snapshots_of_both_grids_live_side_by_side(scene):
    image, _, strokes = scene
    volume, wide = volume_of(padded(image)), padded(strokes)
    model = SegmentModel(volume, fit_for_segmentation(volume, FIT))
    alone = model.update(prompts_of(wide)).labels
    other = wide.copy()
    other[9, 42, 5:50] = 2
    first, second = model.snapshot(prompts_of(wide)), model.snapshot(prompts_of(other))
    assert (model.update(second, quick=True).labels == 2).any()
    again = model.update(first, quick=True)
    assert not again.incremental
    np.testing.assert_array_equal(again.labels, alone)


def test_what_other_prompts_needed_does_not_stay_in_memory(scene):
    image, _, strokes = scene
    volume, wide = volume_of(padded(image, -500)), padded(strokes)
    field = fit_for_segmentation(volume, FIT)
    margin = wide.copy()
    margin[9, 42, 5:50] = 2

    def updated(*drawn):
        model = SegmentModel(volume, field)
        for strokes in drawn:
            model.update(prompts_of(strokes))
        return model

    def kept(*drawn):
        gc.collect()
        tracemalloc.start()
        _model = updated(*drawn)
        gc.collect()
        found = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return found

    updated(wide, margin)  # compiles and imports
    assert kept(wide, margin, wide) < 1.1 * kept(wide)
    assert kept(wide, margin) < 1.1 * kept(margin, margin)


def test_a_class_that_is_drawn_in_the_padding_is_found_there(scene):
    image, _, strokes = scene
    volume, wide = volume_of(padded(image, -500)), padded(strokes)
    wide[9, 42, 5:50] = 2
    found = segment(volume, prompts_of(wide), fit_params=FIT)
    assert (found.labels[3:, 42:44, 8:48] == 2).mean() > 0.9
    assert overlap(inner(found.labels) == 2, np.zeros(SHAPE, bool)) < 0.05


def test_background_that_is_drawn_in_the_margin_alone_bounds_an_object():
    image = np.zeros((8, 40, 40), np.float32)
    noise = np.random.default_rng(0).normal(100, 5, (8, 20, 20))
    image[:, 10:30, 10:30] = noise
    strokes = np.zeros(image.shape, np.int32)
    strokes[4, 20, 12:28], strokes[4, 4, 4:36], strokes[4, 35, 4:36] = 1, BACKGROUND, BACKGROUND
    found = segment(volume_of(image), prompts_of(strokes), fit_params=FIT)
    assert overlap(found.labels == 1, image > 50) > 0.95


def test_masks_to_refine_points_and_boxes_follow_into_the_box(scene):
    image, truth, _ = scene
    volume = volume_of(padded(image))
    mask = padded(truth.astype(np.uint8))
    field = fit_for_segmentation(volume, FIT)
    model = SegmentModel(volume, field)
    click = Point((9.0, 20.0, 27.0), 1, radius=1.5)
    kept = model.update(Prompts(initial=mask, points=(click,))).labels
    assert overlap(kept == 1, mask == 1) > 0.98
    full = mask.copy()
    full[:, 42:, :5] = 1  # a part in the padding
    assert (model.update(Prompts(initial=full, points=(click,))).labels[:, 43:, :4] == 1).all()
    box = Box((0, 8, 10), (15, 33, 58), 1)
    boxed = model.update(Prompts(boxes=(box,), points=(click,))).labels
    assert overlap(boxed == 1, mask == 1) > 0.8
    locked = model.update(prompts_of(padded(scene[2]), locked=frozenset({1}), result=mask)).labels
    np.testing.assert_array_equal(locked == 1, mask == 1)


def test_a_field_of_a_padded_image_fits_it(scene):
    image, _, _ = scene
    for value in (-1024, 0, 300):
        volume = volume_of(padded(image, value))
        field = fit_for_segmentation(volume, FIT)
        assert field.info.grid.matches(volume.grid)
        assert field_mismatch(volume, field) is None


def test_contrasts_are_explained_without_padding(scene):
    image, _, strokes = scene
    other = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)
    both = np.stack([image, other])
    found = []
    for fill in (None, 0, -1024):
        wide, marks = (both, strokes) if fill is None else (padded(both, fill), padded(strokes))
        field = fit_for_segmentation(volume_of(wide), FIT)
        found.append(explain_contrasts(volume_of(wide), prompts_of(marks), field))
    for one in found[1:]:
        np.testing.assert_allclose(one.shapley, found[0].shapley, atol=0.01)
        np.testing.assert_allclose(one.alone, found[0].alone, atol=0.01)
        np.testing.assert_allclose(one.without_image, found[0].without_image, atol=1e-6)


def test_padded_large_images_are_solved_on_blocks(scene):
    image, _, strokes = scene
    params = SegmentParams(working_voxels=8000)
    alone = segment(volume_of(image), prompts_of(strokes), params, fit_params=FIT)
    found = segment(volume_of(padded(image)), prompts_of(padded(strokes)), params, fit_params=FIT)
    assert (inner(found.labels) != alone.labels).mean() < 5e-3


def test_interactive_segmenters_know_padding(scene, plain):
    image, _, strokes = scene
    segmenter = InteractiveSegmenter(fit_params=FIT)
    segmenter.set_image(volume_of(padded(image)))
    for value, name in ((1, 1), (BACKGROUND, 0)):
        segmenter.add_scribble(name, padded(strokes) == value)
    found = segmenter.result().labels
    assert overlap(inner(found) == 1, plain.labels == 1) > 0.999


@settings(deadline=None)
@given(
    st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 3),
    st.sampled_from([np.int16, np.uint8, np.float32, np.float64]),
    st.integers(0, 200),
)
def test_the_box_of_a_padded_image_is_the_image(sides, dtype, value):
    image = np.random.default_rng(0).integers(0, 250, (3, 5, 6)).astype(dtype)
    wide = np.pad(image, sides, constant_values=value)
    content = find_content(mg.Volume.from_array(wide))
    if content is None:
        assert wide.shape == image.shape
        return
    assert [(s.start, s.stop) for s in content.box] == [
        (low, low + n) for (low, _), n in zip(sides, image.shape, strict=True)
    ]
    np.testing.assert_array_equal(content.volume(mg.Volume.from_array(wide)).data[0], image)


def test_rounding_of_resampled_padding_is_padding():
    image = np.random.default_rng(0).normal(100, 20, (6, 10, 10))
    wide = np.pad(image, 4, constant_values=-1024.0)
    wide[:4] += 1e-6 * np.random.default_rng(1).normal(size=wide[:4].shape)
    assert find_content(mg.Volume.from_array(wide)).grid.shape == image.shape


def test_an_even_object_in_even_background_is_not_cropped():
    image = np.zeros((4, 12, 12), np.float32)
    image[:, 3:9, 3:9] = 100
    assert find_content(mg.Volume.from_array(image)) is None


def with_constant(image, value):
    """Return an image with a constant outside of a cylinder, as of a round field of view."""
    _, y, x = np.indices(SHAPE)
    outside = np.hypot((y - 19.5) / 20, (x - 21.5) / 22) > 1
    return np.where(outside, image.dtype.type(value), image), outside


@pytest.mark.parametrize("value", [-3024.0, -30000.0, 30000.0])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_a_constant_far_from_all_else_changes_no_mask(scene, plain, value, dtype):
    image, truth, strokes = scene
    other, _ = with_constant(image.astype(dtype), value)
    found = segment(volume_of(other), prompts_of(strokes), fit_params=FIT)
    assert overlap(found.labels == 1, truth) > overlap(plain.labels == 1, truth) - 0.01
    assert overlap(found.labels == 1, plain.labels == 1) > 0.98


def test_a_constant_at_the_end_of_the_other_intensities_stays(scene):
    image, _, _ = scene
    for value in (image.min(), image.min() - 5):
        other, _ = with_constant(image, value)
        assert find_content(volume_of(other)) is None
    noise = np.random.default_rng(0).normal(100, 5, SHAPE)  # nothing in it that could be lost
    assert find_content(volume_of(with_constant(noise, -3024)[0])) is None


def blanked(image, value):
    """Return an image with a face set to one value, and where that is."""
    z, y, x = np.indices(SHAPE)
    face = ((z - 6) / 8) ** 2 + (y / 14) ** 2 + (x / 16) ** 2 < 1
    return np.where(face, image.dtype.type(value), image), face


@pytest.mark.parametrize("value", [60, 85, 110])
@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8])
def test_what_was_set_to_one_value_of_the_image_is_told_from_tissue(scene, value, dtype):
    other, face = blanked(scene[0].clip(0, 255).astype(dtype), value)
    volume = volume_of(other)
    held = find_content(volume).volume(volume).data[0]
    assert held[face].max() == held[face].min() < np.percentile(other[~face], 1)
    changed = (held != other) & ~face  # voxels of its value that touch it
    assert (other[changed] == value).all()
    assert changed.sum() < 30


def test_marks_in_what_was_set_to_one_value_mean_it(scene):
    image, _, strokes = scene
    other, face = blanked(image, 110)
    volume = volume_of(other)
    model = SegmentModel(volume, fit_for_segmentation(volume, FIT))
    drawn = np.where(strokes == 1, 1, 0)
    drawn[6, 3, 1:9] = 2
    drawn[6, 36, 5:40] = BACKGROUND
    found = model.update(prompts_of(drawn)).labels
    assert overlap(found == 2, face) > 0.85
    model.params = SegmentParams(highest=90)
    drawn = strokes.copy()
    drawn[6, 36, 5:40] = 2
    found = model.update(prompts_of(drawn)).labels
    assert not found[face & (drawn == 0)].any()


def test_few_gray_levels_are_not_constants_that_mean_nothing(scene):
    _, truth, _ = scene
    noise = np.random.default_rng(1).normal(0, 6, SHAPE)
    _, y, x = np.indices(SHAPE)
    drawing = 40 * (x // 11) + 5 * (y > 20)
    labels = np.where(truth, 3, (x > 20) + 1 + 3 * (x < 3) * (y > 20))
    most = np.where(truth, 0, np.where(y > 16, 50, 100 + noise))  # of it at one value
    steps = 20 * np.round((60 + 50 * truth + noise) / 20)
    for image in (drawing, labels, most, steps):
        content = find_content(volume_of(image.astype(np.uint8)))
        assert content is None or not content.is_changed


def test_a_field_of_a_blanked_image_is_one_of_it(scene):
    volume = volume_of(blanked(scene[0], 110)[0])
    for field in (fit_for_segmentation(volume, FIT), mg.fit(volume, FIT).field):
        assert field_mismatch(volume, field) is None


def test_a_far_constant_that_is_background_alone_bounds_an_object():
    z, y, x = np.indices(SHAPE)
    ball = ((z - 6) / 5) ** 2 + ((y - 20) / 15) ** 2 + ((x - 22) / 16) ** 2 < 1
    image = np.random.default_rng(2).normal(500, 5, SHAPE)
    image[(x < 22) & ball] += 60  # an object of two tissues
    image = np.where(ball, image, -2000).astype(np.float32)
    strokes = np.zeros(SHAPE, np.int32)
    strokes[6, 20, 10:36], strokes[6, 1, 2:42] = 1, BACKGROUND
    volume = volume_of(image)
    assert find_content(volume).is_changed
    field = fit_for_segmentation(volume, FIT)
    model = SegmentModel(volume, field)
    assert overlap(model.update(prompts_of(strokes)).labels == 1, ball) > 0.95
    boxed = Prompts(boxes=(Box((1, 5, 6), (12, 36, 39), 1),))
    assert overlap(model.update(boxed).labels == 1, ball) > 0.95
    mask = (image == -2000).astype(np.uint8)
    click = Prompts(initial=mask, points=(Point((6.0, 20.0, 22.0), 0, radius=1.5),))
    assert overlap(model.update(click).labels == 1, ~ball) > 0.95


def test_limits_of_intensity_hold_for_far_constants(scene):
    image, _, strokes = scene
    other, outside = with_constant(image, -3024)
    around = np.where(strokes == 1, BACKGROUND, np.where(strokes == BACKGROUND, 1, 0))
    around[:, outside[0]] = 0
    around[9, 0, 0:3] = 1
    volume, prompts = volume_of(other), prompts_of(around)
    model = SegmentModel(volume, fit_for_segmentation(volume, FIT))
    assert (model.update(prompts).labels[outside] == 1).mean() > 0.5
    model.params = SegmentParams(lowest=-2000)
    found = model.update(prompts).labels
    assert (found[outside] == (around[outside] == 1)).all()
    np.testing.assert_array_equal(
        model.preview_slice(0, 9, prompts)[outside[9]] == 1, found[9][outside[9]] == 1
    )


def test_a_field_of_an_image_with_a_far_constant_fits_it(scene):
    volume = volume_of(with_constant(scene[0], -3024)[0])
    assert field_mismatch(volume, fit_for_segmentation(volume, FIT)) is None
    assert field_mismatch(volume, mg.fit(volume, FIT).field) is None
