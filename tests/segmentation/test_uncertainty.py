"""What is doubted: labels without a margin, near borders, of another class's appearance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_medgs.segmentation import Prompts
from napari_medgs.segmentation.result.uncertainty import (
    LARGE,
    RelativeBoundaryDistance,
    compute_margins,
    label_boundaries,
    predict_error,
)
from tests.segmentation.conftest import BACKGROUND


def area_under_curve(wrong, score):
    ranks = score.reshape(-1).argsort().argsort()
    count = wrong.sum()
    area = ranks[wrong.reshape(-1)].sum() - count * (count - 1) / 2
    return area / (count * (wrong.size - count))


def test_the_lead_is_over_the_best_open_rival():
    scores = np.array([[1.0, 0.0], [3.0, 2.0], [2.5, 5.0]], np.float32)
    labels = np.array([1, 0], np.uint8)
    margin, runner_up = np.empty(2, np.float32), np.empty(2, np.uint8)
    compute_margins(scores, labels, np.zeros(3, bool), margin, runner_up)
    np.testing.assert_allclose(margin, [0.5, -5])
    np.testing.assert_array_equal(runner_up, [2, 2])
    compute_margins(scores, labels, np.array([False, False, True]), margin, runner_up)
    np.testing.assert_allclose(margin, [2, -2])
    np.testing.assert_array_equal(runner_up, [0, 1])


def test_chances_grow_without_lead_near_borders_and_with_other_looks():
    margin, depth, appearance = (np.array([v], np.float32) for v in (1.0, 0.5, 0.2))
    middle = predict_error(margin, depth, appearance)
    assert 0 < middle < 1
    assert predict_error(margin - 1, depth, appearance) > middle
    assert predict_error(margin, depth / 2, appearance) > middle
    assert predict_error(margin, depth, appearance + 1) > middle
    assert predict_error(margin, np.array([np.inf], np.float32), appearance) == 0


def test_depth_is_in_thicknesses_of_the_objects():
    labels = np.zeros((30, 30, 60), np.uint8)
    labels[8:22, 8:22, 8:22] = 1
    depth = RelativeBoundaryDistance(labels, np.ones(3))
    plane = depth.in_slice(15, (30, 60))
    assert plane.shape == (30, 60)
    assert plane[15, 15] == pytest.approx(1)
    assert plane[15, 59] == pytest.approx(38 / 7)
    nothing = RelativeBoundaryDistance(np.zeros((4, 5, 6), np.uint8), np.ones(3))
    assert np.isinf(nothing.in_slice(0, (5, 6))).all()


def test_depth_of_a_large_mask_is_nearly_the_same():
    labels = np.zeros((121, 131, 141), np.uint8)
    assert labels.size > LARGE
    z, y, x = np.indices(labels.shape, sparse=True)
    labels[(z - 60) ** 2 + (y - 66) ** 2 + (x - 70) ** 2 < 40**2] = 1
    coarse = RelativeBoundaryDistance(labels, np.ones(3)).in_slice(60, labels.shape[1:])
    distance = np.abs(np.hypot(y[0] - 66, x[0] - 70) - 40) / 40
    assert coarse.shape == distance.shape
    assert np.abs(coarse - distance).max() < 0.1


def test_borders_of_certain_voxels_do_not_count():
    labels = np.zeros((1, 1, 8), np.uint8)
    labels[..., 2:4], labels[..., 5:] = 1, 2
    assert label_boundaries(labels, None)[0, 0].tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    assert label_boundaries(labels, labels == 1)[0, 0].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]


@pytest.fixture
def prompts(ball_strokes):
    return Prompts(labels=ball_strokes, background=BACKGROUND)


def test_foretells_mistakes_and_their_right_class(ball_scene, model, prompts):
    _, labels, _ = ball_scene
    result = model.update(prompts)
    wrong = result.labels != labels
    error = result.uncertainty()
    # A third of the mistakes is a ball that nobody marked.
    assert area_under_curve(wrong, error) > 0.85
    assert abs(np.log(error.mean() / wrong.mean())) < 1.5
    error_estimate = result.error_estimate()
    assert (error_estimate.runner_up != result.labels).all()
    assert (error_estimate.runner_up[wrong] == labels[wrong]).mean() > 0.7


def test_a_part_that_was_missed_is_doubted(ball_scene, model, prompts):
    _, labels, _ = ball_scene
    result = model.update(prompts)
    lone = np.zeros(labels.shape, bool)
    lone[:, 30:, 28:] = labels[:, 30:, 28:] == 1
    assert (result.labels[lone] == 0).all()
    # As deep in the background, but of its appearance.
    elsewhere = np.zeros(labels.shape, bool)
    elsewhere[:, 30:, :20] = lone[:, 30:, 28:]
    error = result.uncertainty()
    assert error[lone].mean() > 5 * error[elsewhere].mean()


def test_a_locked_class_is_certain_and_so_is_its_border(ball_scene, model, prompts):
    before = model.update(prompts)
    labels, open_chance = before.labels.copy(), before.uncertainty()
    result = model.update(replace(prompts, locked=frozenset({1}), result=labels))
    error, probability = result.uncertainty(), result.probability()
    mine = labels == 1
    assert (error[mine] == 0).all()
    np.testing.assert_array_equal(probability[1], mine)
    np.testing.assert_allclose(probability.sum(axis=0), 1, atol=1e-5)
    other = label_boundaries(labels, mine) & (labels != 1)
    assert (error[other] > 0).mean() > 0.9
    rim = label_boundaries(labels, None) & (labels == 0) & ~other
    assert error[rim].mean() < 0.2 * open_chance[rim].mean()
