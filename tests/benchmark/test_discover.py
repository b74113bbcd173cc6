"""The case "discover" of the benchmark suite: its measures, on trees small enough to count."""

from __future__ import annotations

import numpy as np
import pytest

from suite.discover_baselines import Baseline
from suite.discover_case import best_dice, cases, clicks, nodes_needed
from suite.part_strokes_case import chosen, correct, first_strokes

# Leaves 0 to 3; node 4 joins 0 and 1, node 5 joins 2 and 3, node 6 is all.
PARENT = np.array([4, 4, 5, 5, 6, 6, -1])
CELLS = np.repeat(np.arange(4, dtype=np.int32), [10, 20, 30, 40]).reshape(1, 10, 10)


def test_sums_of_a_tree_and_of_flat_regions():
    tree = Baseline("tree", CELLS, 4, PARENT)
    assert tree.sizes.tolist() == [10, 20, 30, 40, 30, 70, 100]
    flat = Baseline("flat", CELLS, 4, None)
    assert flat.sizes.tolist() == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("found", "needed", "best"),
    [
        ([0, 0, 30, 40], 1, 1.0),  # node 5
        ([10, 20, 0, 40], 2, 2 * 70 / 170),  # nodes 4 and 3; the best single one is all
        ([10, 0, 30, 0], 1, 60 / 70),  # leaf 2
        ([5, 10, 15, 20], None, 2 * 50 / 150),  # half of everything
    ],
)
def test_nodes_needed_and_best_node(found, needed, best):
    tree = Baseline("tree", CELLS, 4, PARENT)
    inside, total = tree.sum_up(np.array(found)), sum(found)
    assert nodes_needed(PARENT, inside, tree.sizes, total) == needed
    assert best_dice(inside, tree.sizes, total) == pytest.approx(best)


def test_clicks_are_inside_and_the_first_is_the_deepest():
    mask = np.zeros((9, 9, 9), bool)
    mask[2:7, 2:7, 2:7] = True
    places = list(clicks(mask, 0))
    assert places[0] == (4, 4, 4)
    assert len(places) == 5
    assert all(mask[place] for place in places)
    assert places == list(clicks(mask, 0))


def test_every_case_says_what_it_was_used_for():
    found = cases(quick=False)
    assert {case.split for case in found} == {"tune", "report"}
    assert len({case.name for case in found}) == len(found)
    assert len(cases(quick=True)) == 2


def test_corrections_are_strokes_where_most_is_wrong():
    truth = np.zeros((5, 12, 12), bool)
    truth[1:4, 2:8, 2:8] = True
    marks = first_strokes(truth, 0, seed=0)
    assert set(np.unique(marks)) == {-1, 0, 1}
    assert truth[marks == 1].all()
    assert not truth[marks == 0].any()
    found = truth.copy()
    found[2, 2:8, 2:4] = False  # twelve voxels of one slice are missing
    found[3, 9, 9] = True
    marks = np.full(truth.shape, -1, np.int32)
    correct(marks, found, truth, 0)
    where = np.argwhere(marks >= 0)
    assert set(where[:, 0]) == {2}
    assert (marks[tuple(where.T)] == 1).all()
    assert (truth & ~found)[tuple(where.T)].all()
    before = marks.copy()
    correct(marks, truth, truth, 0)
    assert np.array_equal(marks, before)


def test_hippocampi_and_targets_of_the_users():
    found = list(chosen(quick=False))
    names = [case.name for case in found]
    assert len(set(names)) == len(names)
    assert sum(name.startswith("hippocampus") for name in names) == 8
    assert sum(len(case.targets) for case in found) == 25
