"""One-click edits of a class, against scipy and scikit-image."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label as skimage_label
from skimage.morphology import ball, dilation, erosion, remove_small_objects

from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.segmentation.postprocess.class_edits import (
    ClassEdit,
    edit_class,
    intensity_mask,
)

ONE = (1.0, 1.0, 1.0)


def shapes(seed=0, shape=(14, 18, 20)):
    """A class of several pieces with a hole."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(shape) > 0.97).astype(np.uint8)
    labels[4:10, 4:12, 5:14] = 1
    labels[6:8, 7:9, 8:10] = 0
    return labels


@pytest.mark.parametrize("mm", [1, 2, 3])
def test_margins_are_those_of_a_ball(mm):
    labels = shapes()
    expected = dilation(labels, ball(mm)) > 0
    np.testing.assert_array_equal(edit_class(labels, 1, "grow", ONE, mm) > 0, expected)
    # scikit-image takes what lies beyond the border as part of the mask, too.
    expected = erosion(labels, ball(mm)) > 0
    if expected.any():
        np.testing.assert_array_equal(edit_class(labels, 1, "shrink", ONE, mm) > 0, expected)


def test_margins_are_millimeters_on_thick_slices():
    labels = np.zeros((9, 41, 41), np.uint8)
    labels[4, 20, 20] = 1
    grown = edit_class(labels, 1, "grow", (5.0, 0.5, 1.0), 5.0) == 1
    spans = [np.ptp(hits) for hits in np.nonzero(grown)]
    assert spans == [2, 20, 10]
    # Independent: SimpleITK's distance with spacing.
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing((1.0, 0.5, 5.0))
    distance = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    )
    np.testing.assert_array_equal(grown, distance <= 5.0)
    back = edit_class(grown.astype(int), 1, ClassEdit.SHRINK, (5.0, 0.5, 1.0), 3.0) == 1
    assert 0 < back.sum() < grown.sum()


def test_islands_and_holes_are_those_of_scikit_image():
    labels = shapes()
    pieces = skimage_label(labels, connectivity=1)
    largest = pieces == np.bincount(pieces[pieces > 0]).argmax()
    np.testing.assert_array_equal(edit_class(labels, 1, "keep largest", ONE) > 0, largest)
    expected = remove_small_objects(labels > 0, max_size=2, connectivity=1)
    np.testing.assert_array_equal(
        edit_class(labels, 1, "remove small", ONE, 3 / 1000) > 0, expected
    )
    filled = edit_class(labels, 1, "fill holes", ONE)
    assert filled[6:8, 7:9, 8:10].all()
    padded = skimage_label(np.pad(filled, 1) == 0, connectivity=1)
    assert padded.max() == 1


def test_smoothing_keeps_the_volume_and_removes_spikes():
    labels = np.zeros((12, 30, 30), np.uint8)
    labels[3:9, 8:22, 8:22] = 1
    labels[5, 15, 22:29] = 1
    smooth = edit_class(labels, 1, "smooth", (3.0, 1.0, 1.0), 2.0)
    assert not smooth[5, 15, 26:].any()
    assert (smooth == 1).sum() == pytest.approx((labels == 1).sum(), rel=0.02)
    # In mm: across the thick slices less happens than a Gaussian in voxels would do.
    assert smooth[3:9, 15, 15].all()
    assert not smooth[[1, 10], 15, 15].any()


def test_slices_between_lead_from_one_shape_to_the_next():
    labels = np.zeros((9, 30, 30), np.uint8)
    y, x = np.indices((30, 30))
    labels[1] = (y - 15) ** 2 + (x - 15) ** 2 <= 4**2
    labels[7] = (y - 15) ** 2 + (x - 15) ** 2 <= 10**2
    filled = edit_class(labels, 1, "fill between slices", (4, 1, 1), slices=[1, 7])
    areas = filled.sum(axis=(1, 2))
    assert (np.diff(areas[1:8]) > 0).all()
    assert areas[4] == pytest.approx(np.pi * 7**2, rel=0.08)
    np.testing.assert_array_equal(filled[[0, 1, 7, 8]], labels[[0, 1, 7, 8]])
    turned = edit_class(
        np.moveaxis(labels, 0, 2), 1, "fill between slices", (1, 1, 4), slices=[1, 7], axis=2
    )
    np.testing.assert_array_equal(np.moveaxis(turned, 2, 0), filled)
    for slices in ([1], [0, 8], []):
        with pytest.raises(ParameterError, match="at least two slices"):
            edit_class(labels, 1, "fill between slices", ONE, slices=slices)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([e for e in ClassEdit if e is not ClassEdit.BETWEEN]),
    st.integers(0, 99),
    st.floats(0.2, 4.0),
)
def test_edits_leave_other_classes_and_what_was_given_alone(edit, seed, amount):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (6, 7, 8)) * (rng.random((6, 7, 8)) > 0.5)
    labels[2:4, 2:5, 2:6] = 1
    within = rng.random(labels.shape) > 0.4
    before = labels.copy()
    try:
        after = edit_class(labels, 1, edit, (2.0, 1.0, 0.7), amount, within=within)
    except LabelError:
        return  # nothing would be left
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(after[labels > 1], labels[labels > 1])
    assert set(np.unique(after[labels == 0])) <= {0, 1}
    added = (after == 1) & (labels != 1)
    assert not (added & ~within).any()
    assert (after == 1).any()
    if edit in (ClassEdit.SHRINK, ClassEdit.LARGEST, ClassEdit.SMALL):
        assert not added.any()
    if edit in (ClassEdit.GROW, ClassEdit.HOLES):
        assert (after[labels == 1] == 1).all()


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((1, "melt", ONE), ParameterError, "there are grow, shrink"),
        ((5, "grow", ONE, 1), LabelError, "no voxels of class 5"),
        ((0, "grow", ONE, 1), LabelError, "no voxels of class 0"),
        ((1, "grow", ONE), ParameterError, "above 0 mm"),
        ((1, "grow", ONE, float("nan")), ParameterError, "above 0 mm"),
        ((1, "remove small", ONE, -1), ParameterError, "above 0 mL"),
        ((1, "grow", (1, 0, 1), 1), GeometryError, "three positive"),
        ((1, "shrink", ONE, 50), LabelError, "Nothing of class 1 would be left"),
        ((1, "remove small", ONE, 50), LabelError, "Nothing of class 1 would be left"),
    ],
)
def test_what_cannot_be_done_is_said(arguments, error, says):
    with pytest.raises(error, match=says):
        edit_class(shapes(), *arguments)


def test_masks_of_intensities():
    image = np.array([-5.0, 0.0, 1.0, np.nan, 7.0])
    assert intensity_mask(image, 0, 1).tolist() == [False, True, True, False, False]
    assert intensity_mask(image, 1).tolist() == [False, False, True, False, True]
    assert intensity_mask(image, high=0).tolist() == [True, True, False, False, False]
    with pytest.raises(ParameterError, match="from 2 to 1 is empty"):
        intensity_mask(image, 2, 1)
    with pytest.raises(GeometryError, match="differ in shape"):
        edit_class(shapes(), 1, "grow", ONE, 1, within=np.ones((2, 2, 2), bool))


@pytest.fixture
def two_balls(tiny_volume):
    """A segmenter with strokes in both ellipsoids of the tiny volume and in the background."""
    from napari_medgs.segmentation import InteractiveSegmenter

    segmenter = InteractiveSegmenter()
    segmenter.set_image(tiny_volume)
    segmenter.add_scribble(1, [(5, 10, 6), (5, 10, 9)])
    segmenter.add_scribble(2, [(5, 9, 16), (5, 9, 19)])
    segmenter.add_scribble(0, [(5, 2, 2), (5, 2, 21)])
    segmenter.result()
    return segmenter


def test_edits_stay_through_later_solves_and_can_be_undone(two_balls, tmp_path):
    from napari_medgs.segmentation import InteractiveSegmenter

    segmenter = two_balls
    spacing = segmenter.volume.spacing
    before = segmenter.labels.copy()
    mm = 1.2 * max(spacing)
    assert segmenter.edit_class(1, "grow", mm)
    grown = segmenter.labels.copy()
    np.testing.assert_array_equal(grown, edit_class(before, 1, "grow", spacing, mm))
    assert (grown == 1).sum() > (before == 1).sum()
    np.testing.assert_array_equal(segmenter.result().labels, grown)
    # A stroke elsewhere leaves the edit alone; one in it corrects it there.
    far = np.argwhere(before == 2)[-1]
    segmenter.add_scribble(0, [tuple(far), tuple(far)])
    after = segmenter.result().labels
    np.testing.assert_array_equal(after == 1, grown == 1)
    assert after[tuple(far)] == 0
    path = segmenter.save(tmp_path / "log.json")
    again = InteractiveSegmenter.load(path, segmenter.volume, field=segmenter.field)
    np.testing.assert_array_equal(again.result().labels, after)
    segmenter.undo()
    segmenter.undo()
    np.testing.assert_array_equal(segmenter.labels, before)
    segmenter.redo()
    np.testing.assert_array_equal(segmenter.labels, grown)


def test_edits_of_nothing_or_of_locked_classes_are_no_steps(two_balls):
    segmenter = two_balls
    segmenter.edit_class(1, "keep largest")
    done = len(segmenter.session.history.done)
    assert not segmenter.edit_class(1, "keep largest")
    segmenter.lock([2])
    with pytest.raises(LabelError, match="locked"):
        segmenter.edit_class(2, "grow", 3)
    assert len(segmenter.session.history.done) == done + 1
    with pytest.raises(GeometryError, match="share a grid"):
        segmenter.set_mask(np.ones((2, 2, 2), int))


def test_a_range_of_intensities_is_a_first_mask(tiny_volume):
    from napari_medgs.segmentation import InteractiveSegmenter

    segmenter = InteractiveSegmenter()
    segmenter.set_image(tiny_volume)
    image = tiny_volume.channel(0)
    bright = intensity_mask(image, float(np.percentile(image, 90)))
    assert segmenter.set_mask(bright.astype(np.uint8))
    np.testing.assert_array_equal(segmenter.labels == 1, bright)
    np.testing.assert_array_equal(segmenter.result().labels == 1, bright)


def test_a_range_of_intensities_limits_the_result_but_not_marked_voxels(two_balls):
    from dataclasses import replace

    from napari_medgs.segmentation import SegmentParams

    segmenter = two_balls
    image = segmenter.volume.channel(0)
    free = segmenter.result().labels.copy()
    high = float(np.percentile(image[free == 1], 60))
    segmenter.set_params(replace(SegmentParams(), highest=high))
    marked = segmenter.session.strokes == 1
    limited = segmenter.result().labels
    assert (free == 1)[image > high].any()
    assert not (limited > 0)[(image > high) & (segmenter.session.strokes <= 0) & ~marked].any()
    assert (limited == 1)[marked].all()
    for axis in range(3):
        shown = segmenter.preview_slice(axis, 5)
        assert not (shown > 0)[
            np.take((image > high) & (segmenter.session.strokes <= 0), 5, axis=axis)
        ].any()
    segmenter.undo()
    np.testing.assert_array_equal(segmenter.result().labels, free)
    with pytest.raises(ParameterError, match="lowest must not be above highest"):
        SegmentParams(lowest=2.0, highest=1.0)
