"""Catchment basins of the gradient magnitude and the saddles between them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.segmentation.terms import watershed as module
from napari_medgs.segmentation.terms.watershed import CatchmentBasins


@pytest.fixture
def valley(rng):
    """Two quiet halves with a wall between them, and a little noise."""
    image = np.zeros((1, 6, 12, 20), np.float32)
    image[..., 10:] = 40.0
    image += rng.normal(0, 0.1, image.shape).astype(np.float32)
    return image


def test_every_voxel_has_a_basin_and_saddles_span_all(valley):
    basins = CatchmentBasins(valley, np.ones(3))
    assert basins.labels.shape == valley.shape[1:]
    assert np.array_equal(np.unique(basins.labels), np.arange(basins.count))
    assert len(basins.first) == basins.count - 1  # a spanning tree
    sizes = np.bincount(basins.labels.reshape(-1))
    assert sizes.min() >= 2


def test_saddles_are_no_lower_than_both_sides_and_ordered(valley):
    basins = CatchmentBasins(valley, np.ones(3))
    assert (np.diff(basins.saddle_heights.astype(int)) >= 0).all()
    deepest = np.full(basins.count, module.LEVELS)
    np.minimum.at(deepest, basins.labels.reshape(-1), basins.gradient_levels.reshape(-1))
    assert (basins.saddle_heights >= deepest[basins.first]).all()
    assert (basins.saddle_heights >= deepest[basins.second]).all()


def test_the_saddles_are_a_minimum_spanning_tree(rng):
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    image = np.round(rng.normal(size=(1, 5, 14, 9)) * 2).astype(np.float32)  # with plateaus
    basins = CatchmentBasins(image, np.array([2.0, 1.0, 1.0]))
    level = basins.gradient_levels.astype(np.int64)
    lowest: dict[tuple[int, int], int] = {}
    for axis in range(3):
        low, high = np.s_[:-1], np.s_[1:]
        ends = [np.moveaxis(basins.labels, axis, 0)[part] for part in (low, high)]
        saddle = np.maximum(*(np.moveaxis(level, axis, 0)[part] for part in (low, high)))
        for a, b, h in zip(*(part.ravel().tolist() for part in (*ends, saddle)), strict=True):
            if a != b:
                pair = min(a, b), max(a, b)
                lowest[pair] = min(h, lowest.get(pair, h))
    pairs, heights = np.array(list(lowest)), np.array(list(lowest.values()))
    graph = coo_array((heights + 1, pairs.T), (basins.count, basins.count)).tocsr()
    tree = minimum_spanning_tree(graph)
    assert tree.nnz == len(basins.saddle_heights) > 10
    assert tree.sum() - tree.nnz == basins.saddle_heights.sum()


@pytest.mark.parametrize("voxels", [1, 10**9])
def test_when_saddles_are_listed_changes_nothing(valley, monkeypatch, voxels):
    usual = CatchmentBasins(valley, np.ones(3))
    monkeypatch.setattr(module, "LARGE_PART", voxels)
    other = CatchmentBasins(valley, np.ones(3))
    for name in ("labels", "first", "second", "saddle_heights"):
        assert np.array_equal(getattr(other, name), getattr(usual, name))


def test_voxels_join_the_basin_of_their_lowest_neighbor():
    # Slopes fall to both extent along x; the steepest place is nearer to the left.
    line = np.cumsum([0, 1, 2, 9, 6, 3, 2, 1, 1, 1]).astype(np.float32)
    basins = CatchmentBasins(np.broadcast_to(line, (1, 1, 1, 10)).copy(), np.ones(3))
    assert basins.count == 2
    top = basins.gradient_levels[0, 0].argmax()
    left, right = basins.gradient_levels[0, 0, top - 1], basins.gradient_levels[0, 0, top + 1]
    assert left != right
    lower = top - 1 if left < right else top + 1
    assert basins.labels[0, 0, top] == basins.labels[0, 0, lower]


def test_a_single_slice_and_a_constant_image_are_fine(rng):
    flat = CatchmentBasins(rng.normal(size=(1, 1, 12, 12)).astype(np.float32), np.ones(3))
    assert flat.labels.shape == (1, 12, 12)
    still = CatchmentBasins(np.zeros((2, 3, 4, 5), np.float32), np.ones(3))
    assert still.count >= 1
    assert len(still.first) == still.count - 1
