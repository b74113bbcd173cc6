"""A cut that is edited: names, merges, splits."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.errors import ParameterError
from napari_medgs.hierarchy import Partition, hyperbolic
from napari_medgs.hierarchy.partition import place_in


def test_labels_stay_when_the_count_changes(tree):
    parts = Partition(tree, 5)
    coarse = parts.leaf_label.copy()
    assert np.array_equal(parts.labels(), tree.cut(5).labels())
    assert sum(parts.milliliters().values()) == pytest.approx(tree.milliliters(tree.root))
    parts.set_count(9)
    for label in range(1, 6):  # every part is divided, or itself
        assert set(coarse[parts.leaf_label == label]) == {label}
    parts.set_count(5)
    assert np.array_equal(parts.leaf_label, coarse)


def test_names_stay_with_their_nodes(tree):
    parts = Partition(tree, 5)
    parts.name(3, " block ")
    assert parts.names == {3: "block"}
    node = parts.nodes[3]
    parts.set_count(12)
    for label, at in parts.nodes.items():
        assert parts.names.get(label) == ("block" if at == node else None)
    parts.set_count(5)
    assert parts.names == {3: "block"}
    parts.name(3, "")
    assert parts.names == {}
    parts.set_count(4)
    assert parts.names == {}


def test_merging_and_splitting(tree):
    parts = Partition(tree, 6)
    sizes = parts.milliliters()
    parts.name(4, "kept")
    assert parts.merge([4, 2]) == 2
    assert parts.names == {2: "kept"}
    assert parts.milliliters()[2] == pytest.approx(sizes[2] + sizes[4])
    assert sorted(parts.milliliters()) == [1, 2, 3, 5, 6]
    new = parts.split(2)
    assert new == 7
    after = parts.milliliters()
    assert after[2] + after[7] == pytest.approx(sizes[2] + sizes[4])
    assert 0 < after[7] <= after[2]
    labels = parts.labels()
    assert sorted(np.unique(labels)) == [1, 2, 3, 5, 6, 7]
    cells = parts.labels(rendered=False)
    assert (labels == cells).mean() > 0.9
    while True:  # down to a single cell
        nodes = [n for found in parts.nodes.values() for n in found]
        assert set(parts.nodes) == set(np.unique(parts.leaf_label))
        assert len(set(nodes)) == len(nodes)
        for label, found in parts.nodes.items():
            assert (parts.leaf_label[tree.leaf_mask(found)] == label).any()
        leaves = np.flatnonzero(parts.leaf_label == 7)
        if len(leaves) == 1:
            break
        parts.split(7)
    with pytest.raises(ParameterError, match="single cell"):
        parts.split(7)


def test_bad_input(tree):
    parts = Partition(tree, 4)
    with pytest.raises(ParameterError, match="two parts or more"):
        parts.merge([1])
    for act in (lambda: parts.merge([1, 9]), lambda: parts.split(9), lambda: parts.name(9, "a")):
        with pytest.raises(ParameterError, match="no part 9"):
            act()
    with pytest.raises(ParameterError, match="2 parts or more"):
        parts.set_count(1)


def test_a_place_in_a_part():
    labels = np.zeros((4, 6, 6), int)
    labels[1, 2, 2] = 3
    labels[2, 1:4, 1:4] = 3
    assert place_in(labels, 3) == (2, 2, 2)
    assert place_in(labels[2], 3) == (2, 2)
    assert place_in(labels, 9) is None


def test_shortest_lines_and_dragging():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-0.6, 0.6, (2, 5, 2))
    lines = hyperbolic.geodesics(a, b, 9)
    assert np.allclose(lines[:, 0], a)
    assert np.allclose(lines[:, -1], b)
    steps = hyperbolic.distance(lines[:, 1:], lines[:, :-1])
    assert np.allclose(steps, hyperbolic.distance(a, b)[:, None] / 8)  # equal, and no detour
    moved = hyperbolic.drag(a, a[0], np.array([0.3, -0.2]))
    assert np.allclose(moved[0], [0.3, -0.2])
    before = hyperbolic.distance(a[1:], a[0])
    assert np.allclose(hyperbolic.distance(moved[1:], moved[0]), before)
