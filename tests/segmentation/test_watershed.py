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
    assert sizes.min() >= module.MIN_AREA


def test_saddles_are_no_lower_than_both_sides_and_ordered(valley):
    basins = CatchmentBasins(valley, np.ones(3))
    assert (np.diff(basins.saddle_heights.astype(int)) >= 0).all()
    deepest = np.full(basins.count, module.LEVELS)
    np.minimum.at(deepest, basins.labels.reshape(-1), basins.gradient_levels.reshape(-1))
    assert (basins.saddle_heights >= deepest[basins.first]).all()
    assert (basins.saddle_heights >= deepest[basins.second]).all()


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
