"""Floods over random passes, against minimax paths and scikit-image's watershed."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.segmentation.terms import stochastic_watershed as module
from napari_medgs.segmentation.terms.stochastic_watershed import Flood, Floods, flood_basins
from napari_medgs.segmentation.terms.watershed import Basins


@pytest.fixture
def valley(rng):
    """Two quiet halves with a wall between them, and a little noise."""
    image = np.zeros((1, 6, 12, 20), np.float32)
    image[..., 10:] = 40.0
    image += rng.normal(0, 0.1, image.shape).astype(np.float32)
    return image


def flooded(basins, springs, classes, starts):
    label = np.empty(basins.count, np.int32)
    turn = np.argsort(starts, kind="stable")
    flood_basins(
        basins.first,
        basins.second,
        basins.heights.astype(np.float32),
        np.asarray(springs, np.int32)[turn],
        np.asarray(classes, np.int32)[turn],
        np.asarray(starts, np.float32)[turn],
        label,
    )
    return label


def minimax(basins, springs, classes, starts):
    """Return the highest pass on the best way from springs of each class, by relaxation."""
    height = basins.heights.astype(float)
    best = np.full((max(classes) + 1, basins.count), np.inf)
    for spring, k, start in zip(springs, classes, starts, strict=True):
        best[k, spring] = min(best[k, spring], start)
    for mine in best:
        for _ in range(basins.count):
            before = mine.copy()
            np.minimum.at(mine, basins.second, np.maximum(before[basins.first], height))
            np.minimum.at(mine, basins.first, np.maximum(before[basins.second], height))
            if (mine == before).all():
                break
    return best


@pytest.mark.parametrize("high", [0, 30000])
def test_floods_take_the_lowest_passes(rng, high):
    basins = Basins(rng.normal(size=(1, 8, 9, 10)).astype(np.float32), np.ones(3))
    assert basins.count > 20
    springs = rng.choice(basins.count, 6, replace=False)
    starts = rng.uniform(0, high, 6) if high else np.zeros(6)
    classes = [0, 1, 2, 0, 1, 2]
    told = flooded(basins, springs, classes, starts)
    best = minimax(basins, springs, classes, starts)
    assert (best[told, np.arange(basins.count)] == best.min(axis=0)).all()


def test_marks_that_hold_from_their_level_on_give_the_seeded_watershed(rng):
    from scipy.ndimage import gaussian_filter
    from skimage.segmentation import watershed

    image = gaussian_filter(rng.normal(size=(12, 24, 24)), 1.5)[None].astype(np.float32)
    basins = Basins(image, np.ones(3))
    voxels = np.stack([rng.integers(0, n, 12) for n in basins.levels.shape], axis=1)
    classes = np.arange(12) % 3
    seeds = np.zeros(basins.levels.shape, np.int32)
    seeds[tuple(voxels.T)] = classes + 1
    ours = flooded(
        basins, basins.basins[tuple(voxels.T)], classes, basins.levels[tuple(voxels.T)]
    )[basins.basins]
    assert np.mean(ours == watershed(basins.levels, seeds) - 1) > 0.95


def test_a_wall_stops_floods_however_far_the_way(valley):
    basins = Basins(valley, np.ones(3))
    # The background's mark is at the wall, the class's far from it.
    flood = Floods([basins]).flood(np.array([[0, 0, 0], [0, 0, 12]]), np.array([0, 1]), 2)
    assert flood.shares[0].sum(axis=1) == pytest.approx(1)
    voxels = flood.shares[0][basins.basins]
    assert (voxels[..., :9, 0] == 1).all()
    assert (voxels[..., 11:, 1] == 1).all()


def test_where_passes_are_alike_floods_disagree(rng):
    noise = Basins(rng.normal(size=(1, 10, 20, 20)).astype(np.float32), np.ones(3))
    floods = Floods([noise])
    flood = floods.flood(np.array([[5, 10, 0], [5, 10, 19]]), np.array([0, 1]), 2)
    assert (flood.shares[0].max(axis=1) < 1).mean() > 0.2
    again = floods.flood(np.array([[5, 10, 19], [5, 10, 0]]), np.array([1, 0]), 2)
    assert np.array_equal(flood.shares[0], again.shares[0])


def test_tolls_are_what_the_floods_over_all_hierarchies_do_not_bring(valley):
    basins = Basins(valley, np.ones(3)).basins
    shares = [
        np.full((basins.max() + 1, 2), part, np.float32) * [1, 1 / part - 1] for part in (0.9, 0.6)
    ]
    flood = Flood((basins, basins), (shares[0], shares[1]), 2.0)
    points = np.array([[5.4, 0.2, 0], [3, 6, 25]])
    assert flood.at(points) == pytest.approx(np.array([[0.75, 0.25]] * 2))
    total = np.ones((2, 2), np.float32)
    flood.add_toll(points, total)
    assert total == pytest.approx(np.array([[1.5, 2.5]] * 2))


def test_a_constant_image_and_one_slice_are_fine():
    for shape in ((2, 3, 4, 5), (1, 1, 12, 12)):
        basins = Basins(np.zeros(shape, np.float32), np.ones(3))
        voxels = np.array([[0, 0, 0], [0, 3, 4]])
        shares = Floods([basins]).flood(voxels, np.array([0, 1]), 2).at(voxels)
        assert shares.shape == (2, 2)
        assert shares.sum(axis=1) == pytest.approx(1)


def test_few_floods_and_large_images(valley, monkeypatch):
    basins = Basins(valley, np.ones(3))
    floods = Floods([basins, basins])
    assert floods.count == module.MEMBERS // 2
    flood = floods.flood(np.array([[0, 0, 0], [0, 0, 12]]), np.array([0, 1]), 2, most=8)
    assert len(flood.shares) == 2
    for shares in flood.shares:
        assert shares * 4 == pytest.approx(np.round(shares * 4))
    monkeypatch.setattr(module, "BUDGET", 1)
    assert Floods([basins, basins]).count == module.FEW_MEMBERS // 2
