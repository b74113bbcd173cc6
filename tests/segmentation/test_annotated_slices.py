"""Components on annotated slices without a marker of their class."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentModel, fit_for_segmentation
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.terms.annotated_slices import AnnotatedSlices
from napari_medgs.segmentation.terms.shape_prior import shape_prior
from tests.segmentation.conftest import overlap

UNITS = np.ones(3)


def markers_of(marks):
    """Return marks {(z, y, x): class}."""
    empty = np.zeros(0, np.int32)
    return Markers(
        (0, 1, 2),
        np.array(list(marks), np.int32),
        np.array(list(marks.values()), np.int32),
        empty.reshape(0, 3),
        empty,
        user_marked=np.ones(len(marks), bool),
    )


def strokes(z, k, row, columns):
    return {(z, row, x): k for x in columns}


def two_parts(indices):
    """Return slices with two parts of class 1, six pixels wide each."""
    labels = np.zeros((len(indices), 12, 26), np.uint8)
    labels[:, 3:9, 2:8] = 1
    labels[:, 3:9, 16:22] = 1
    return AnnotatedSlices(0, np.asarray(indices), labels)


def test_a_part_that_no_stroke_touches_becomes_background():
    slices = two_parts([4])
    marks = strokes(4, 1, 5, range(3, 7)) | strokes(4, 0, 0, range(12))
    voxels = slices.drop_unseeded_components(markers_of(marks), UNITS)
    assert (slices.labels[0, 3:9, 2:8] == 1).all()
    assert (slices.labels[0, :, 10:] == 0).all()
    # All but its rim is turned into background markers.
    assert sorted(map(tuple, voxels)) == [(4, y, x) for y in range(4, 8) for x in range(17, 21)]


def test_touched_parts_stay():
    slices = two_parts([4])
    marks = strokes(4, 1, 5, (4, 18)) | strokes(4, 0, 0, range(12))
    assert len(slices.drop_unseeded_components(markers_of(marks), UNITS)) == 0
    assert np.array_equal(slices.labels, two_parts([4]).labels)


def test_another_class_stroke_does_not_keep_a_part():
    slices = two_parts([4])
    marks = strokes(4, 1, 5, (4,)) | strokes(4, 2, 5, (18,)) | strokes(4, 0, 0, range(12))
    assert len(slices.drop_unseeded_components(markers_of(marks), UNITS)) == 16


def test_slices_with_few_marks_are_corrections_and_stay():
    slices = two_parts([4, 9])
    marks = strokes(4, 1, 5, (4, 18)) | strokes(4, 0, 0, range(18))
    marks |= strokes(9, 1, 5, (4,)) | strokes(9, 0, 0, range(3))
    assert len(slices.drop_unseeded_components(markers_of(marks), UNITS)) == 0
    marks |= strokes(9, 0, 1, range(10))
    voxels = slices.drop_unseeded_components(markers_of(marks), UNITS)
    assert len(voxels) == 16
    assert (voxels[:, 0] == 9).all()


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize(("columns", "lost"), [(19, True), (8, False)])
def test_what_is_much_larger_than_all_marked_parts_is_a_leak_however_near(few, columns, lost):
    labels = np.zeros((2, 12, 26), np.uint8)
    labels[:, 3:9, 1:5] = 1
    labels[1, 3:9, 6 : 6 + columns] = 1  # within reach of the stroke, no marker in it
    slices = AnnotatedSlices(0, np.array([4, 9]), labels)
    marks = strokes(4, 1, 5, range(1, 5)) | strokes(4, 0, 0, range(26))
    marks |= strokes(9, 1, 5, range(3, 5)) | strokes(9, 0, 0, range(3 if few else 26))
    voxels = slices.drop_unseeded_components(markers_of(marks), UNITS)
    assert (slices.labels[1, 3:9, 6:].max() == 0) == lost
    assert len(voxels) == (4 * (columns - 2) if lost else 0)
    assert (slices.labels[:, 3:9, 1:5] == 1).all()


def test_with_one_slice_or_a_large_part_in_another_nothing_tells_a_leak():
    labels = np.zeros((2, 12, 26), np.uint8)
    labels[:, 3:9, 1:5] = 1
    labels[:, 3:9, 6:25] = 1
    both = strokes(4, 1, 5, (4, 10)) | strokes(4, 0, 0, range(26))
    few = strokes(9, 1, 5, (4,)) | strokes(9, 0, 0, range(3))
    for indices, marks in (
        ([4], strokes(4, 1, 5, (4,)) | strokes(4, 0, 0, (0,))),
        ([4, 9], both | few),
    ):
        slices = AnnotatedSlices(0, np.array(indices), labels[: len(indices)].copy())
        assert len(slices.drop_unseeded_components(markers_of(marks), UNITS)) == 0
        assert np.array_equal(slices.labels, labels[: len(indices)])


def test_without_background_strokes_nothing_becomes_background():
    slices = two_parts([4])
    assert (
        len(slices.drop_unseeded_components(markers_of({(4, 5, 4): 1, (4, 5, 5): 2}), UNITS)) == 0
    )


def test_a_prior_needs_two_slices():
    relative_spacing = np.ones(3)
    assert two_parts([4]).prior(relative_spacing, 2) is None
    prior = two_parts([4, 9]).prior(relative_spacing, 2)
    assert prior is not None
    assert prior.positions.tolist() == [4, 9]


def test_parts_near_a_stroke_stay():
    slices = two_parts([4])
    marks = strokes(4, 1, 5, range(3, 7)) | strokes(4, 0, 0, range(12))
    fine = np.array([1.0, 1.0, 0.5])  # the second part is five finest voxels away
    assert len(slices.drop_unseeded_components(markers_of(marks), fine)) == 0


def test_slices_of_one_row_are_interpolated_as_those_of_equal_rows():
    one, equal = (np.zeros((2, rows, 12), np.uint8) for rows in (1, 3))
    for labels in (one, equal):
        labels[0, :, 3:8], labels[1, :, 4:10] = 1, 1
    points = np.argwhere(np.ones((5, 1, 12)))
    costs = []
    for labels in (one, equal):
        cost = np.zeros((len(points), 2), np.float32)
        prior = shape_prior(labels, np.array([0, 4]), 0, np.ones(3), 2)
        prior.add_cost(points + 0.25, cost, 1.0)
        costs.append(cost)
    assert np.ptp(costs[0]) > 1
    assert np.allclose(*costs, atol=1e-6)


def two_classes(indices):
    """Return slices with one part of class 1 and one of class 2."""
    slices = two_parts(indices)
    slices.labels[:, 3:9, 16:22] *= 2
    return slices


LINE = range(3, 7)
OTHER = range(17, 21)


def test_classes_on_slices_of_their_own_stay_on_the_others():
    slices = two_classes([2, 4, 6])
    marks = {}
    for z, k, columns in ((2, 1, LINE), (4, 2, OTHER), (6, 1, LINE)):
        marks |= strokes(z, k, 5, columns) | strokes(z, 0, 0, range(12))
    assert len(slices.drop_unseeded_components(markers_of(marks), UNITS)) == 0
    assert np.array_equal(slices.labels, two_classes([2, 4, 6]).labels)


def test_a_class_that_is_marked_as_a_rule_is_not_there_without_a_mark():
    slices = two_classes([2, 4, 6])
    marks = strokes(6, 1, 5, LINE) | strokes(6, 0, 0, range(12))
    for z in (2, 4):
        marks |= strokes(z, 1, 5, LINE) | strokes(z, 2, 5, OTHER) | strokes(z, 0, 0, range(12))
    voxels = slices.drop_unseeded_components(markers_of(marks), UNITS)
    assert set(voxels[:, 0]) == {6}
    assert (slices.labels[:2, 3:9, 16:22] == 2).all()
    assert (slices.labels[2, :, 10:] == 0).all()


def test_no_class_is_in_a_slice_of_background_strokes():
    slices = two_classes([2, 4])
    slices.empty = np.array([4])
    marks = strokes(2, 1, 5, LINE) | strokes(2, 0, 0, range(12)) | strokes(4, 0, 0, range(12))
    slices.drop_unseeded_components(markers_of(marks), UNITS)
    assert not slices.labels[1].any()


def wide_parts(size):
    """Return a slice with two parts of class 1, the second of so many columns."""
    labels = np.zeros((1, 16, 64), np.uint8)
    labels[:, 3:13, 2:22] = 1
    labels[:, 3:13, 32 : 32 + size] = 1
    return AnnotatedSlices(0, np.array([4]), labels)


BESIDE = {(4, 0, x): 0 for x in range(40)}


@pytest.mark.parametrize(
    ("size", "stroke", "lead", "stays"),
    [
        (20, range(3, 8), 3.0, True),
        (20, range(3, 8), 1.2, False),  # another class is about as near
        (6, range(3, 8), 3.0, False),  # a small part is a leak
    ],
)
def test_a_part_as_large_as_the_marked_one_stays_where_its_class_leads(size, stroke, lead, stays):
    slices = wide_parts(size)
    slices.drop_unseeded_components(
        markers_of(strokes(4, 1, 6, stroke) | BESIDE), UNITS, lambda k, voxels: lead
    )
    assert slices.labels[0, 3:13, 32 : 32 + size].any() == stays
    assert (slices.labels[0, 3:13, 2:22] == 1).all()


def test_a_painted_part_leaves_no_other_out():
    slices = wide_parts(20)
    painted = {(4, y, x): 1 for y in range(4, 12) for x in range(3, 21)}
    slices.drop_unseeded_components(markers_of(painted | BESIDE), UNITS, lambda k, voxels: 3.0)
    assert not slices.labels[0, :, 32:].any()


def test_who_marks_two_parts_marks_all_of_them():
    slices = wide_parts(8)
    slices.labels[:, 3:13, 46:62] = 1  # large enough to stay beside a single marked part
    marks = strokes(4, 1, 6, range(3, 8)) | strokes(4, 1, 6, range(34, 38)) | BESIDE
    slices.drop_unseeded_components(markers_of(marks), UNITS, lambda k, voxels: 3.0)
    assert (slices.labels[0, 3:13, 2:22] == 1).all()
    assert (slices.labels[0, 3:13, 32:40] == 1).all()
    assert not slices.labels[0, :, 46:].any()


def test_one_leg_of_an_arch_marked_in_a_slice_through_both_finds_the_other():
    truth = np.zeros((20, 24, 40), bool)
    truth[:, 8:16, 6:13] = truth[:, 8:16, 27:34] = True
    truth[14:, 8:16, 6:34] = True
    image = 60 + 60 * truth + np.random.default_rng(1).normal(0, 3, truth.shape)
    volume = Volume.from_array(image.astype(np.float32))
    model = SegmentModel(volume, fit_for_segmentation(volume, FitParams(iterations=10)))
    drawn = np.zeros(truth.shape, np.uint8)
    drawn[6, 12, 8:12] = 1
    drawn[6, 3, 2:38] = drawn[6, 20, 2:38] = 9
    found = model.update(Prompts(labels=drawn, background=9)).labels == 1
    assert overlap(found[6, :, 24:], truth[6, :, 24:]) > 0.95
    assert overlap(found[:, :, 24:], truth[:, :, 24:]) > 0.95
