"""The second opinion: floods over the lowest passes, against minimum spanning forests."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.segment import basins as module
from napari_medgs.segment.basins import Basins, Flood


@pytest.fixture
def valley(rng):
    """Two quiet halves with a wall between them, and a little noise."""
    image = np.zeros((1, 6, 12, 20), np.float32)
    image[..., 10:] = 40.0
    image += rng.normal(0, 0.1, image.shape).astype(np.float32)
    return image


def minimax(basins, start):
    """Return the highest pass on the best way from nodes of each class, by plain relaxation."""
    height = np.arange(1, len(basins.first) + 1)
    best = np.full((start.max() + 1, basins.count), np.inf)
    for k in range(len(best)):
        best[k, start == k] = 0
        for _ in range(basins.count):
            a, b = basins.first, basins.second
            before = best[k].copy()
            np.minimum.at(best[k], b, np.maximum(before[a], height))
            np.minimum.at(best[k], a, np.maximum(before[b], height))
            if (best[k] == before).all():
                break
    return best


def test_every_voxel_has_a_basin_and_passes_join_all(valley):
    basins = Basins(valley, np.ones(3))
    assert basins.basins.shape == valley.shape[1:]
    assert np.array_equal(np.unique(basins.basins), np.arange(basins.count))
    assert len(basins.first) == basins.count - 1  # a spanning tree
    sizes = np.bincount(basins.basins.reshape(-1))
    assert sizes.min() >= module.LEAST_AREA


def test_floods_take_the_lowest_passes(rng):
    basins = Basins(rng.normal(size=(1, 8, 9, 10)).astype(np.float32), np.ones(3))
    assert basins.count > 20
    start = np.full(basins.count, -1, np.int32)
    marked = rng.choice(basins.count, 6, replace=False)
    start[marked] = [0, 1, 2, 0, 1, 2]
    told = basins.flood(marked, start[marked], 3)
    best = minimax(basins, start)
    assert (best[told, np.arange(basins.count)] == best.min(axis=0)).all()
    assert (told[marked] == start[marked]).all()


def test_a_wall_stops_a_flood_however_far_the_way(valley):
    basins = Basins(valley, np.ones(3))
    # The background's mark is at the wall, the class's far from it.
    where = basins.basins[[0, 0], [0, 0], [0, 12]]
    told = basins.flood(where, np.array([0, 1]), 2)[basins.basins]
    assert (told[..., :9] == 0).all()
    assert (told[..., 11:] == 1).all()


def marks(shape):
    """Return marks of two classes on slices 0, 2 and 4, one in each half."""
    z, y, x = np.meshgrid([0, 2, 4], [2, 8], [3, 16], indexing="ij")
    voxels = np.stack([z.ravel(), y.ravel(), x.ravel()], axis=1)
    assert (voxels < shape).all()
    return voxels, (voxels[:, 2] > 10).astype(np.int32)


def test_trust_comes_from_left_out_slices(valley):
    basins = Basins(valley, np.ones(3))
    voxels, classes = marks(valley.shape[1:])
    flood = basins.opinion(voxels, classes, 2, voxels[:, 0])
    assert isinstance(flood, Flood)
    assert flood.toll == pytest.approx(module.MOST)
    total = np.zeros((2, 2), np.float32)
    flood.add_toll(np.array([[5.4, 0.2, 0.0], [3.0, 6.0, 25.0]]), total)
    assert total == pytest.approx(module.MOST * np.array([[0, 1], [1, 0]]))


def test_floods_that_foretell_the_wrong_do_not_count(valley):
    basins = Basins(valley, np.ones(3))
    voxels, classes = marks(valley.shape[1:])
    on = voxels[:, 0] < 4
    voxels, classes = voxels[on], classes[on]
    classes = np.where(voxels[:, 0] == 0, classes, 1 - classes)  # the slices disagree
    assert basins.opinion(voxels, classes, 2, voxels[:, 0]) is None


def test_one_slice_gives_no_opinion(valley):
    voxels, classes = marks(valley.shape[1:])
    on = voxels[:, 0] == 2
    basins = Basins(valley, np.ones(3))
    assert basins.opinion(voxels[on], classes[on], 2, voxels[on, 0]) is None


def test_a_single_slice_and_a_constant_image_are_fine(rng):
    flat = Basins(rng.normal(size=(1, 1, 12, 12)).astype(np.float32), np.ones(3))
    assert flat.basins.shape == (1, 12, 12)
    still = Basins(np.zeros((2, 3, 4, 5), np.float32), np.ones(3))
    assert still.count >= 1
    assert len(still.first) == still.count - 1
