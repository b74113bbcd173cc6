"""Merging two Gaussians: their moments, what it costs, and the cheapest set of reductions."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.fitting.advanced import MergeParams
from napari_medgs.fitting.strategy.merge import (
    Pairs,
    choose_reductions,
    covariances,
    merge_rows,
    neighbor_pairs,
    write_covariances,
)
from napari_medgs.rendering.cpu.engine import CpuEngine
from napari_medgs.rendering.engine import EngineSpec
from napari_medgs.rendering.parameters import A1, B1, GEOMETRY, LOG_RT, LOG_W, SHEAR


def table(rng, count, channels=1):
    """Gaussians near the middle of a (24, 24, 24) stack."""
    parameters = np.zeros((count, GEOMETRY + channels), np.float32)
    parameters[:, :3] = rng.uniform(11, 13, (count, 3))
    parameters[:, 3:7] = rng.normal(-0.5, 0.15, (count, 4))
    parameters[:, SHEAR] = rng.normal(0, 0.3, count)
    parameters[:, LOG_W] = rng.normal(0, 0.3, count)
    parameters[:, [A1, B1]] = rng.normal(0, 0.3, (count, 2))
    parameters[:, GEOMETRY:] = rng.random((count, channels))
    return parameters


def density(parameters, degree=1):
    """The sum of weighted Gaussians on voxels, (24, 24, 24)."""
    alone = parameters[:, : GEOMETRY + 1].copy()
    alone[:, GEOMETRY] = 1
    background = np.zeros(1, np.float32)
    engine = CpuEngine(
        EngineSpec((24, 24, 24), 1, background, degree=degree, cutoff=30.0, eps=0.0, blend="sum")
    )
    return engine.render(alone)[0].astype(np.float64)


def moments(picture):
    """Sum, center and covariance in (x, y, z) of a picture of densities."""
    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij")[::-1]).reshape(3, -1)
    mass = picture.ravel() / picture.sum()
    center = grid @ mass
    away = grid - center[:, None]
    return picture.sum(), center, (away * mass) @ away.T


def test_covariances_are_those_of_the_rendered_gaussian(rng):
    parameters = table(rng, 1)
    _, center, covariance = moments(density(parameters))
    np.testing.assert_allclose(center, parameters[0, :3], atol=5e-3)
    np.testing.assert_allclose(covariances(parameters)[0], covariance, atol=1e-2)


def test_covariances_survive_being_written(rng):
    parameters = table(rng, 20).astype(np.float64)
    rows = parameters.copy()
    rows[:, 3:7] = 0
    write_covariances(rows, covariances(parameters))
    np.testing.assert_allclose(rows, parameters, atol=1e-6)


def test_a_merged_gaussian_has_the_moments_of_both(rng):
    parameters = table(rng, 2)
    rows, spread = merge_rows(parameters, np.array([0]), np.array([1]), np.ones((2, 1)), 1)
    both, one = moments(density(parameters)), moments(density(rows.astype(np.float32)))
    for expected, found in zip(both, one, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-2)
    assert spread[0] > 0.01


def test_without_folds_a_merged_gaussian_is_upright(rng):
    parameters = table(rng, 2)
    parameters[:, [A1, B1]] = 0
    rows, _ = merge_rows(parameters, np.array([0]), np.array([1]), np.ones((2, 1)), 0)
    assert rows[0, A1] == rows[0, B1] == 0
    covariance = moments(density(parameters, 0))[2]
    found = moments(density(rows.astype(np.float32), 0))[2]
    np.testing.assert_allclose(np.diag(found), np.diag(covariance), rtol=5e-3)
    np.testing.assert_allclose(found[0, 1], covariance[0, 1], atol=1e-2)


def test_twins_merge_for_nothing_and_opposites_at_a_price(rng):
    parameters = np.repeat(table(rng, 1), 3, axis=0)
    parameters[2, GEOMETRY] += 1
    sensitivity, mass = np.full(3, 0.5, np.float32), np.full((3, 1), 2.0)
    limits = np.full(GEOMETRY + 1, -99, np.float32), np.full(GEOMETRY + 1, 99, np.float32)
    pairs = neighbor_pairs(parameters, sensitivity, mass, *limits, 1, MergeParams())
    cost = dict(zip(zip(pairs.first.tolist(), pairs.second.tolist()), pairs.cost, strict=True))
    assert cost[0, 1] == pytest.approx(0, abs=1e-6)
    assert cost[0, 2] == pytest.approx(1.0, rel=1e-3)  # 2 x 2 / (2 + 2) x the squared gap
    rows, spread = merge_rows(parameters, np.array([0]), np.array([2]), mass, 1)
    assert rows[0, GEOMETRY] == pytest.approx(parameters[0, GEOMETRY] + 0.5, rel=1e-4)
    assert rows[0, LOG_W] == pytest.approx(parameters[0, LOG_W] + np.log(2), rel=1e-4)
    assert spread[0] == pytest.approx(0, abs=1e-6)


def test_pairs_that_leave_the_limits_are_not_merged(rng):
    parameters = table(rng, 2)
    parameters[1, 2] += 8
    lower, upper = np.full(GEOMETRY + 1, -99, np.float32), np.full(GEOMETRY + 1, 99, np.float32)
    rows = parameters, np.ones(2, np.float32), np.ones((2, 1))
    assert np.isfinite(neighbor_pairs(*rows, lower, upper, 1, MergeParams()).cost).all()
    lower[LOG_RT] = parameters[:, LOG_RT].min() - 0.1
    assert np.isinf(neighbor_pairs(*rows, lower, upper, 1, MergeParams()).cost).all()


def test_the_cheapest_reductions_are_chosen_and_no_gaussian_twice():
    sensitivity = np.array([5, 1, 4, 9, 9], np.float32)
    pairs = Pairs(np.array([0, 1, 3]), np.array([2, 3, 4]), np.array([2.0, 0.5, 3.0]))
    dropped, merged = choose_reductions(sensitivity, pairs, 2)
    assert merged.tolist() == [1, 0]
    assert dropped.tolist() == [False, False, True, True, False]
    dropped, merged = choose_reductions(
        sensitivity, Pairs(pairs.first, pairs.second, pairs.cost * 9), 2
    )
    assert merged.tolist() == []
    assert dropped.tolist() == [False, True, True, False, False]


def test_no_more_goes_than_can():
    pairs = Pairs(np.array([0]), np.array([1]), np.array([0.1]))
    dropped, merged = choose_reductions(np.ones(2, np.float32), pairs, 2)
    assert merged.tolist() == [0]
    assert dropped.tolist() == [False, True]
