"""Watersheds over random saddles, against minimax paths and scikit-image's watershed."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.segmentation.term_params import WatershedParams
from napari_medgs.segmentation.terms.basin_tree import BasinTree, flood_tree, ordered_levels
from napari_medgs.segmentation.terms.stochastic_watershed import (
    StochasticWatershed,
    WatershedVotes,
)
from napari_medgs.segmentation.terms.watershed import CatchmentBasins


@pytest.fixture
def valley(rng):
    """Two quiet halves with a wall between them, and a little noise."""
    image = np.zeros((1, 6, 12, 20), np.float32)
    image[..., 10:] = 40.0
    image += rng.normal(0, 0.1, image.shape).astype(np.float32)
    return image


def flooded(basins, seeds_at, classes, starts):
    tree = BasinTree.of_saddles(basins.count, basins.first, basins.second)
    heights = np.append(basins.saddle_heights, 0).astype(np.float32)[tree.edge]
    label = np.zeros(basins.count, np.uint8)
    flood_tree(
        tree.parent,
        tree.edge,
        ordered_levels(heights),
        tree.node[np.asarray(seeds_at)],
        np.asarray(classes, np.int32),
        ordered_levels(np.asarray(starts, np.float32)),
        np.empty(basins.count, np.int64),
        label,
    )
    return label[tree.node]


def flooded_edge_by_edge(basins, seeds_at, classes, starts):
    """Return the classes of a flood that joins parts at every saddle, lowest first."""
    part, label = np.arange(basins.count), np.full(basins.count, -1)
    events = [(start, 0, s) for s, start in enumerate(starts)]
    events += [(height, 1, e) for e, height in enumerate(basins.saddle_heights)]
    for _, kind, k in sorted(events):
        if kind == 0:
            mine = part == part[seeds_at[k]]
            label[mine & (label < 0)] = classes[k]
            continue
        a, b = basins.first[k], basins.second[k]
        if part[a] != part[b] and min(label[a], label[b]) < 0:
            label[(part == part[a]) | (part == part[b])] = max(label[a], label[b])
            part[part == part[b]] = part[a]
    return label


def minimax(basins, seeds_at, classes, starts):
    """Return the highest saddle on the best path from each class, by relaxation."""
    height = basins.saddle_heights.astype(float)
    best = np.full((max(classes) + 1, basins.count), np.inf)
    for seed_at, k, start in zip(seeds_at, classes, starts, strict=True):
        best[k, seed_at] = min(best[k, seed_at], start)
    for mine in best:
        for _ in range(basins.count):
            before = mine.copy()
            np.minimum.at(mine, basins.second, np.maximum(before[basins.first], height))
            np.minimum.at(mine, basins.first, np.maximum(before[basins.second], height))
            if (mine == before).all():
                break
    return best


@pytest.mark.parametrize("high", [0, 30000])
def test_watersheds_follow_minimax_paths(rng, high):
    basins = CatchmentBasins(rng.normal(size=(1, 8, 9, 10)).astype(np.float32), np.ones(3))
    assert basins.count > 20
    seeds_at = rng.choice(basins.count, 6, replace=False)
    starts = rng.uniform(0, high, 6) if high else np.zeros(6)
    classes = [0, 1, 2, 0, 1, 2]
    assigned = flooded(basins, seeds_at, classes, starts)
    best = minimax(basins, seeds_at, classes, starts)
    assert (best[assigned, np.arange(basins.count)] == best.min(axis=0)).all()


def test_equal_levels_flood_in_the_order_of_markers_and_saddles(rng):
    image = rng.integers(0, 4, (1, 6, 8, 9)).astype(np.float32)  # few heights, many ties
    basins = CatchmentBasins(image, np.ones(3))
    assert len(np.unique(basins.saddle_heights)) < len(basins.saddle_heights) / 2
    for _ in range(10):
        seeds_at, classes = rng.choice(basins.count, 8), rng.integers(0, 3, 8)
        starts = rng.choice(basins.saddle_heights, 8).astype(np.float32)
        ours = flooded(basins, seeds_at, classes, starts)
        assert np.array_equal(ours, flooded_edge_by_edge(basins, seeds_at, classes, starts))


def test_levels_are_ordered_as_their_numbers(rng):
    numbers = np.concatenate([rng.normal(size=50), [0.0, -0.0, 1e-40, -1e-40]]).astype(np.float32)
    levels = ordered_levels(numbers)
    assert np.array_equal(np.sign(np.subtract.outer(numbers, numbers)) > 0,
                          np.greater.outer(levels, levels))  # fmt: skip


def test_markers_that_flood_from_their_own_level_give_the_seeded_watershed(rng):
    from scipy.ndimage import gaussian_filter
    from skimage.segmentation import watershed

    image = gaussian_filter(rng.normal(size=(12, 24, 24)), 1.5)[None].astype(np.float32)
    basins = CatchmentBasins(image, np.ones(3))
    voxels = np.stack([rng.integers(0, n, 12) for n in basins.gradient_levels.shape], axis=1)
    classes = np.arange(12) % 3
    seeds = np.zeros(basins.gradient_levels.shape, np.int32)
    seeds[tuple(voxels.T)] = classes + 1
    ours = flooded(
        basins, basins.labels[tuple(voxels.T)], classes, basins.gradient_levels[tuple(voxels.T)]
    )[basins.labels]
    assert np.mean(ours == watershed(basins.gradient_levels, seeds) - 1) > 0.95


def test_a_wall_stops_a_class_however_far_its_marker(valley):
    basins = CatchmentBasins(valley, np.ones(3))
    # The background's mark is at the wall, the class's far from it.
    votes = StochasticWatershed([basins]).vote(
        np.array([[0, 0, 0], [0, 0, 12]]), np.array([0, 1]), 2
    )
    assert votes.fractions[0].sum(axis=1) == pytest.approx(1)
    voxels = votes.fractions[0][basins.labels]
    assert (voxels[..., :9, 0] == 1).all()
    assert (voxels[..., 11:, 1] == 1).all()


def test_realizations_disagree_where_saddles_are_alike(rng):
    noise = CatchmentBasins(rng.normal(size=(1, 10, 20, 20)).astype(np.float32), np.ones(3))
    watershed = StochasticWatershed([noise])
    votes = watershed.vote(np.array([[5, 10, 0], [5, 10, 19]]), np.array([0, 1]), 2)
    assert (votes.fractions[0].max(axis=1) < 1).mean() > 0.2
    again = watershed.vote(np.array([[5, 10, 19], [5, 10, 0]]), np.array([1, 0]), 2)
    assert np.array_equal(votes.fractions[0], again.fractions[0])


def test_costs_are_the_votes_of_all_hierarchies_for_other_classes(valley):
    basins = CatchmentBasins(valley, np.ones(3)).labels
    fractions = [
        np.full((basins.max() + 1, 2), part, np.float32) * [1, 1 / part - 1] for part in (0.9, 0.6)
    ]
    votes = WatershedVotes((basins, basins), (fractions[0], fractions[1]), 2.0)
    points = np.array([[5.4, 0.2, 0], [3, 6, 25]])
    assert votes.at(points) == pytest.approx(np.array([[0.75, 0.25]] * 2))
    total = np.ones((2, 2), np.float32)
    votes.add_cost(points, total)
    assert total == pytest.approx(np.array([[1.5, 2.5]] * 2))


def test_a_constant_image_and_one_slice_are_fine():
    for shape in ((2, 3, 4, 5), (1, 1, 12, 12)):
        basins = CatchmentBasins(np.zeros(shape, np.float32), np.ones(3))
        voxels = np.array([[0, 0, 0], [0, 3, 4]])
        fractions = StochasticWatershed([basins]).vote(voxels, np.array([0, 1]), 2).at(voxels)
        assert fractions.shape == (2, 2)
        assert fractions.sum(axis=1) == pytest.approx(1)


def test_large_images_get_fewer_realizations(valley):
    basins = CatchmentBasins(valley, np.ones(3))
    watershed = StochasticWatershed([basins, basins])
    assert watershed.count == WatershedParams().realizations // 2
    votes = watershed.vote(np.array([[0, 0, 0], [0, 0, 12]]), np.array([0, 1]), 2, most=8)
    assert len(votes.fractions) == 2
    for fractions in votes.fractions:
        assert fractions * 4 == pytest.approx(np.round(fractions * 4))
    few = StochasticWatershed([basins, basins], params=WatershedParams(max_basins=1))
    assert few.count == WatershedParams().held_out_realizations // 2
