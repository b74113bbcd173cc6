"""Basins of the slope and the passes between them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.segmentation.terms import watershed as module
from napari_medgs.segmentation.terms.watershed import Basins


@pytest.fixture
def valley(rng):
    """Two quiet halves with a wall between them, and a little noise."""
    image = np.zeros((1, 6, 12, 20), np.float32)
    image[..., 10:] = 40.0
    image += rng.normal(0, 0.1, image.shape).astype(np.float32)
    return image


def test_every_voxel_has_a_basin_and_passes_join_all(valley):
    basins = Basins(valley, np.ones(3))
    assert basins.basins.shape == valley.shape[1:]
    assert np.array_equal(np.unique(basins.basins), np.arange(basins.count))
    assert len(basins.first) == basins.count - 1  # a spanning tree
    sizes = np.bincount(basins.basins.reshape(-1))
    assert sizes.min() >= module.LEAST_AREA


def test_passes_are_no_lower_than_both_sides_and_come_in_order(valley):
    basins = Basins(valley, np.ones(3))
    assert (np.diff(basins.heights.astype(int)) >= 0).all()
    deepest = np.full(basins.count, module.LEVELS)
    np.minimum.at(deepest, basins.basins.reshape(-1), basins.levels.reshape(-1))
    assert (basins.heights >= deepest[basins.first]).all()
    assert (basins.heights >= deepest[basins.second]).all()


def test_water_runs_to_the_lowest_neighbour():
    # Slopes fall to both ends along x; the steepest place is nearer to the left.
    line = np.cumsum([0, 1, 2, 9, 6, 3, 2, 1, 1, 1]).astype(np.float32)
    basins = Basins(np.broadcast_to(line, (1, 1, 1, 10)).copy(), np.ones(3))
    assert basins.count == 2
    top = basins.levels[0, 0].argmax()
    left, right = basins.levels[0, 0, top - 1], basins.levels[0, 0, top + 1]
    assert left != right
    lower = top - 1 if left < right else top + 1
    assert basins.basins[0, 0, top] == basins.basins[0, 0, lower]


def test_a_single_slice_and_a_constant_image_are_fine(rng):
    flat = Basins(rng.normal(size=(1, 1, 12, 12)).astype(np.float32), np.ones(3))
    assert flat.basins.shape == (1, 12, 12)
    still = Basins(np.zeros((2, 3, 4, 5), np.float32), np.ones(3))
    assert still.count >= 1
    assert len(still.first) == still.count - 1
