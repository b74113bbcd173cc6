"""The cases "tissues" and "hyperbolic" of the benchmark suite: their measures."""

from __future__ import annotations

import numpy as np
import pytest

from suite.hyperbolic_case import best_nodes, pair_distances, right_order, triplets
from suite.tissues_case import scores, smooth_field, truth_of


def test_classes_are_matched_by_dice():
    truth = np.repeat([0, 1, 2, 3], 10).reshape(2, 20).astype(np.uint8)
    found = np.repeat([5, 3, 1, 2], 10).reshape(2, 20)
    mean, each, rand = scores(found, truth)
    assert (mean, each, rand) == (1.0, [1.0, 1.0, 1.0], 1.0)
    found[0, 10:15] = 1  # half of tissue 1 goes to that of 2
    mean, each, rand = scores(found, truth)
    assert each == [pytest.approx(10 / 15), pytest.approx(20 / 25), 1.0]
    assert mean == pytest.approx(np.mean(each))
    assert 0 < rand < 1


def test_tissues_of_a_parcellation():
    labels = np.array([0, 4, 3, 2, 11101, 12135, 85, 99])
    assert truth_of(labels).tolist() == [0, 1, 2, 3, 2, 2, 3, 0]


def test_the_field_is_smooth_and_has_mean_one():
    inside = np.ones((6, 8, 10), bool)
    inside[:2] = False
    field = smooth_field(inside.shape, inside)
    assert field[inside].mean() == pytest.approx(1)
    assert np.abs(field[inside] - 1).max() == pytest.approx(0.25)


class Leaves:
    """As much of a tree as the measure needs."""

    cells = np.arange(4).reshape(1, 2, 2)


def test_decoding_and_order_of_triplets():
    points = np.array([[0.0], [1.0], [10.0], [12.0]])
    distances = pair_distances(points, "euclidean")
    mask = np.array([[[True, True], [False, False]]])
    assert best_nodes(distances.copy(), np.arange(4), Leaves, {"pair": mask}) == 1.0
    mask = np.array([[[True, False], [True, False]]])
    assert best_nodes(distances.copy(), np.arange(4), Leaves, {"no node": mask}) < 1.0
    heights = np.array([[0, 1, 9, 9], [1, 0, 9, 9], [9, 9, 0, 2], [9, 9, 2, 0]], float)
    found = triplets(heights, np.arange(4), 500, 0)
    assert len(found) > 50
    near, far = heights[found[:, 0], found[:, 1]], heights[found[:, 0], found[:, 2]]
    assert (near < far).all()
    assert right_order(distances, found) == 1.0
    assert right_order(-distances, found) == 0.0
