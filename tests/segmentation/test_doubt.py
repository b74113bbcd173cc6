"""What is doubted: labels without a lead, near borders, of another class's looks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_medgs.segmentation import Prompts
from napari_medgs.segmentation.result.uncertainty import (
    LARGE,
    Depth,
    border_of,
    chance_of,
    lead_of,
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
    lead, rival = np.empty(2, np.float32), np.empty(2, np.uint8)
    lead_of(scores, labels, np.zeros(3, bool), lead, rival)
    np.testing.assert_allclose(lead, [0.5, -5])
    np.testing.assert_array_equal(rival, [2, 2])
    lead_of(scores, labels, np.array([False, False, True]), lead, rival)
    np.testing.assert_allclose(lead, [2, -2])
    np.testing.assert_array_equal(rival, [0, 1])


def test_chances_grow_without_lead_near_borders_and_with_other_looks():
    lead, depth, looks = (np.array([v], np.float32) for v in (1.0, 0.5, 0.2))
    middle = chance_of(lead, depth, looks)
    assert 0 < middle < 1
    assert chance_of(lead - 1, depth, looks) > middle
    assert chance_of(lead, depth / 2, looks) > middle
    assert chance_of(lead, depth, looks + 1) > middle
    assert chance_of(lead, np.array([np.inf], np.float32), looks) == 0


def test_depth_is_in_thicknesses_of_the_objects():
    labels = np.zeros((30, 30, 60), np.uint8)
    labels[8:22, 8:22, 8:22] = 1
    depth = Depth(labels, np.ones(3))
    plane = depth.in_slice(15, (30, 60))
    assert plane.shape == (30, 60)
    assert plane[15, 15] == pytest.approx(1)
    assert plane[15, 59] == pytest.approx(38 / 7)
    nothing = Depth(np.zeros((4, 5, 6), np.uint8), np.ones(3))
    assert np.isinf(nothing.in_slice(0, (5, 6))).all()


def test_depth_of_a_large_mask_is_nearly_the_same():
    labels = np.zeros((121, 131, 141), np.uint8)
    assert labels.size > LARGE
    z, y, x = np.indices(labels.shape, sparse=True)
    labels[(z - 60) ** 2 + (y - 66) ** 2 + (x - 70) ** 2 < 40**2] = 1
    coarse = Depth(labels, np.ones(3)).in_slice(60, labels.shape[1:])
    distance = np.abs(np.hypot(y[0] - 66, x[0] - 70) - 40) / 40
    assert coarse.shape == distance.shape
    assert np.abs(coarse - distance).max() < 0.1


def test_borders_of_settled_voxels_do_not_count():
    labels = np.zeros((1, 1, 8), np.uint8)
    labels[..., 2:4], labels[..., 5:] = 1, 2
    assert border_of(labels, None)[0, 0].tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    assert border_of(labels, labels == 1)[0, 0].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]


@pytest.fixture
def prompts(ball_strokes):
    return Prompts(labels=ball_strokes, background=BACKGROUND)


def test_doubt_foretells_mistakes_and_their_right_class(ball_scene, model, prompts):
    _, labels, _ = ball_scene
    result = model.update(prompts)
    wrong = result.labels != labels
    chance = result.uncertainty()
    assert area_under_curve(wrong, chance) > 0.9
    assert abs(np.log(chance.mean() / wrong.mean())) < 1.5
    doubt = result.doubt()
    assert (doubt.rival != result.labels).all()
    assert (doubt.rival[wrong] == labels[wrong]).mean() > 0.7


def test_a_part_that_was_missed_is_doubted(ball_scene, model, prompts):
    _, labels, _ = ball_scene
    result = model.update(prompts)
    lone = np.zeros(labels.shape, bool)
    lone[:, 30:, 28:] = labels[:, 30:, 28:] == 1
    assert (result.labels[lone] == 0).all()
    # As deep in the background, but of its looks.
    elsewhere = np.zeros(labels.shape, bool)
    elsewhere[:, 30:, :20] = lone[:, 30:, 28:]
    chance = result.uncertainty()
    assert chance[lone].mean() > 5 * chance[elsewhere].mean()


def test_a_locked_class_is_certain_and_so_is_its_border(ball_scene, model, prompts):
    before = model.update(prompts)
    labels, open_chance = before.labels.copy(), before.uncertainty()
    result = model.update(replace(prompts, locked=frozenset({1}), result=labels))
    chance, probability = result.uncertainty(), result.probability()
    mine = labels == 1
    assert (chance[mine] == 0).all()
    np.testing.assert_array_equal(probability[1], mine)
    np.testing.assert_allclose(probability.sum(axis=0), 1, atol=1e-5)
    other = border_of(labels, mine) & (labels != 1)
    assert (chance[other] > 0).mean() > 0.9
    rim = border_of(labels, None) & (labels == 0) & ~other
    assert chance[rim].mean() < 0.2 * open_chance[rim].mean()
