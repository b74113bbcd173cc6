"""Slices are suggested for mistakes to be expected and for what no stroke has covered."""

from __future__ import annotations

import numpy as np

from napari_medgs.segmentation import Prompts
from napari_medgs.segmentation.prompts.rasterize import rasterize_prompts
from napari_medgs.segmentation.result.suggest import suggest_slices
from tests.segmentation.conftest import BACKGROUND

ONE = (1.0, 1.0, 1.0)


def column(depth=40, first=6, last=34):
    """A column through the slices first .. last: chance of mistakes, labels, rivals."""
    labels = np.zeros((depth, 20, 20), np.uint8)
    labels[first : last + 1, 6:14, 6:14] = 1
    return np.zeros(labels.shape, np.float32), labels, 1 - labels


def indices(*arrays, annotated, count=1, axis=0, spacing=ONE):
    found = suggest_slices(*arrays, axis, np.asarray(annotated), spacing, count)
    return [s.index for s in found]


def test_the_middle_of_a_gap_is_suggested_where_all_is_equal():
    (index,) = indices(*column(), annotated=[8, 32])
    assert index == 20
    first, second = indices(*column(), annotated=[20], count=2)
    assert abs(20 - first) == abs(20 - second) > 5
    assert (first - 20) * (second - 20) < 0


def test_expected_mistakes_draw_the_choice_but_not_next_to_strokes():
    chance, labels, runner_up = column()
    chance[28, 4:16, 4:16] = 0.5
    assert indices(chance, labels, runner_up, annotated=[8, 20]) == [28]
    chance[28], chance[20, 4:16, 4:16] = 0, 0.5
    (other,) = indices(chance, labels, runner_up, annotated=[8, 20])
    assert abs(other - 20) > 3


def test_mistakes_that_lie_together_are_worth_one_visit():
    chance, labels, runner_up = column()
    chance[25:31, 4:16, 4:16] = 0.5
    first, second = indices(chance, labels, runner_up, annotated=[20], count=2)
    assert 25 <= first <= 30
    assert second < 16


def test_slices_past_the_ends_that_are_seen_are_worth_a_look():
    seen = column(60, 25, 34)
    found = indices(*seen, annotated=range(26, 34), count=2)
    assert len(found) == 2
    assert min(found) <= 24
    assert max(found) >= 35


def test_every_class_counts_alike():
    chance, labels, runner_up = column()
    runner_up[:] = 1 - labels
    labels[:, :3, :3], runner_up[:, :3, :3] = 0, 0
    labels[30:33, 0:2, 0:2] = 2  # a tiny one
    # The same number of wrong voxels, of the large class and of the small one.
    chance[12, 6, 6:10] = 1
    chance[31, 0:2, 0:2] = 1
    assert abs(indices(chance, labels, runner_up, annotated=[21])[0] - 31) <= 1


def test_all_orientations_and_thick_slices():
    chance, labels, runner_up = column()
    chance[28, 4:16, 4:16] = 0.5
    for axis in range(3):
        turned = [np.moveaxis(a, 0, axis) for a in (chance, labels, runner_up)]
        (found,) = suggest_slices(*turned, axis, np.array([8, 20]), (3.0, 1.0, 2.0))
        assert (found.axis, found.index, found.position[axis]) == (axis, 28, 28)
        inside = [p for a, p in enumerate(found.position) if a != axis]
        assert all(4 <= p < 16 for p in inside)
        assert 0 < found.score < 1


def test_nothing_is_suggested_where_nothing_is_left():
    nothing = np.zeros((5, 6, 7), np.uint8)
    assert indices(nothing.astype(np.float32), nothing, nothing, annotated=[]) == []
    chance, labels, runner_up = column()
    assert indices(chance, labels, runner_up, annotated=np.arange(40)) == []
    assert len(indices(chance, labels, runner_up, annotated=[20], count=100)) == 39


def test_slices_with_strokes_of_one_class_are_not_suggested_again():
    drawn = np.zeros((12, 30, 30), np.int32)
    drawn[4, 10, 5:25], drawn[4, 20, 5:25] = 1, BACKGROUND
    drawn[9, 20, 5:25] = BACKGROUND
    drawn[6, 15, 15] = 1
    markers = rasterize_prompts(
        Prompts(labels=drawn, background=BACKGROUND), drawn.shape, (0, 1, 2), np.ones(3)
    )
    np.testing.assert_array_equal(markers.annotated_slices()[1], [4])
    np.testing.assert_array_equal(markers.marked_slices(0), [4, 9])
    assert markers.marked_slices(2).size == 0
