"""Two Gaussians become one: moment-matched merging of neighbors, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Doubles, Floats, Indices
from napari_medgs._util.arrays import sorted_unique
from napari_medgs.fitting.advanced import MergeParams
from napari_medgs.rendering.parameters import (
    A1,
    B1,
    GEOMETRY,
    LOG_R1,
    LOG_R2,
    LOG_RT,
    LOG_W,
    SHEAR,
    X,
)

LEAST_WEIGHT = 1e-6  # keeps the mean of two values defined
CHUNK = 8192


@dataclass(frozen=True)
class Pairs:
    """Pairs of neighbors as they would be merged.

    Attributes
    ----------
    first, second : (P,) ndarray of int
        Rows of the table.
    cost : (P,) ndarray
        About what merging adds to twice the loss; infinite where it leaves the limits.
    """

    first: Indices
    second: Indices
    cost: Doubles


def covariances(parameters: Floats | Doubles) -> Doubles:
    """Return the covariances (N, 3, 3) in (x, y, z) of Gaussians, higher folds aside."""
    table = parameters[:, : B1 + 1].astype(np.float64)
    s1, s2, st = (np.exp(-table[:, column]) for column in (LOG_R1, LOG_R2, LOG_RT))
    # F F^T with F = (s1, s1 shear, a st; 0, s2, b st; 0, 0, st): the shear is s r1 / r2.
    sheared, a, b = table[:, SHEAR] * s1, table[:, A1] * st, table[:, B1] * st
    product = np.empty((len(table), 3, 3))
    product[:, 0, 0] = s1 * s1 + sheared * sheared + a * a
    product[:, 1, 1] = s2 * s2 + b * b
    product[:, 2, 2] = st * st
    product[:, 0, 1] = product[:, 1, 0] = sheared * s2 + a * b
    product[:, 0, 2] = product[:, 2, 0] = a * st
    product[:, 1, 2] = product[:, 2, 1] = b * st
    return product


def write_covariances(rows: Doubles, covariance: Doubles) -> None:
    """Set precision factors, shear and linear fold of rows to covariances (N, 3, 3)."""
    along = covariance[:, 2, 2]
    a, b = covariance[:, 0, 2] / along, covariance[:, 1, 2] / along
    across = covariance[:, 1, 1] - b * covariance[:, 1, 2]
    shear = (covariance[:, 0, 1] - a * covariance[:, 1, 2]) / across
    aside = covariance[:, 0, 0] - a * covariance[:, 0, 2] - shear**2 * across
    rows[:, LOG_R1], rows[:, LOG_R2] = -0.5 * np.log(aside), -0.5 * np.log(across)
    rows[:, LOG_RT] = -0.5 * np.log(along)
    rows[:, A1], rows[:, B1] = a, b
    rows[:, SHEAR] = shear * np.exp(rows[:, LOG_R1] - rows[:, LOG_R2])


def merge_rows(
    parameters: Floats, first: Indices, second: Indices, weight_sums: Doubles, degree: int
) -> tuple[Doubles, Doubles]:
    """Return pairs of Gaussians as one each, and how far their shapes are apart.

    Weight, center and covariance of the sum of both are kept (its first three moments), higher
    folds are averaged; values are averaged by ``weight_sums``, which keeps the mean rendering of
    the two.

    Parameters
    ----------
    parameters : (N, 14 + C) ndarray
    first, second : (P,) ndarray of int
    weight_sums : (N, C) ndarray
        Sums of the blending weights, see :func:`removal_sensitivity`.
    degree : int
        Fold degree; without folds a merged Gaussian keeps upright.

    Returns
    -------
    rows : (P, 14 + C) ndarray of float64
    spread : (P,) ndarray
        Runnalls's bound of the Kullback-Leibler divergence, in nats per unit of weight: zero
        for equal shapes at one place.

    References
    ----------
    A. R. Runnalls, "Kullback-Leibler approach to Gaussian mixture reduction", IEEE Transactions
    on Aerospace and Electronic Systems 43 (2007).
    """
    a, b = parameters[first].astype(np.float64), parameters[second].astype(np.float64)
    size_a, size_b = _log_size(a), _log_size(b)
    weight_a, weight_b = a[:, LOG_W] + size_a, b[:, LOG_W] + size_b
    share = 1 / (1 + np.exp(weight_b - weight_a))
    p, q = share[:, None], 1 - share[:, None]
    rows = p * a + q * b
    offset = (b - a)[:, X : X + 3]
    covariance = p[:, :, None] * covariances(a) + q[:, :, None] * covariances(b)
    covariance += (p * q)[:, :, None] * offset[:, :, None] * offset[:, None, :]
    if degree == 0:
        covariance[:, :2, 2] = covariance[:, 2, :2] = 0
    write_covariances(rows, covariance)
    size = _log_size(rows)
    rows[:, LOG_W] = np.logaddexp(weight_a, weight_b) - size
    value_weight_a, value_weight_b = (
        weight_sums[first] + LEAST_WEIGHT,
        weight_sums[second] + LEAST_WEIGHT,
    )
    rows[:, GEOMETRY:] = (value_weight_a * a[:, GEOMETRY:] + value_weight_b * b[:, GEOMETRY:]) / (
        value_weight_a + value_weight_b
    )
    return rows, np.maximum(size - share * size_a - (1 - share) * size_b, 0)


def _log_size(rows: Doubles) -> Doubles:
    """Return the logarithm of the volume, up to a constant."""
    size: Doubles = -(rows[:, LOG_R1] + rows[:, LOG_R2] + rows[:, LOG_RT])
    return size


def neighbor_pairs(
    parameters: Floats,
    sensitivity: Floats,
    weight_sums: Doubles,
    lower: Floats,
    upper: Floats,
    degree: int,
    settings: MergeParams,
    threads: int | None = None,
) -> Pairs:
    """Return the pairs of neighbors and what merging each would cost.

    Parameters
    ----------
    parameters : (N, 14 + C) ndarray
    sensitivity : (N,) ndarray
        What leaving each Gaussian out costs.
    weight_sums : (N, C) ndarray
        As in :func:`merge_rows`.
    lower, upper : (14 + C,) ndarray
        Limits of the columns.
    degree : int
    settings : MergeParams
    threads : int, optional
        CPU threads; all by default.
    """
    from scipy.spatial import cKDTree

    from napari_medgs._util.threads import default_threads, run_chunks

    count = len(parameters)
    centers = parameters[:, X : X + 3]
    wanted = min(settings.neighbors + 1, count)
    workers = threads or default_threads()
    found = np.asarray(cKDTree(centers).query(centers, k=wanted, workers=workers)[1])
    found = found.reshape(count, wanted)
    others = found.ravel()
    ours = np.repeat(np.arange(count), wanted)
    low, high = np.minimum(ours, others), np.maximum(ours, others)
    keys = sorted_unique((low * count + high)[low != high])
    first, second = keys // count, keys % count
    cost = np.full(len(keys), np.inf)

    def task(k: int) -> None:
        some = slice(k * CHUNK, (k + 1) * CHUNK)
        i, j = first[some], second[some]
        rows, spread = merge_rows(parameters, i, j, weight_sums, degree)
        total = weight_sums[i] + weight_sums[j] + LEAST_WEIGHT
        gap = (parameters[j, GEOMETRY:] - parameters[i, GEOMETRY:]).astype(np.float64)
        lost = (weight_sums[i] * weight_sums[j] / total * gap**2).sum(axis=1)
        lost += settings.shape_loss * np.minimum(spread, 1) * (sensitivity[i] + sensitivity[j])
        allowed = np.all((rows >= lower) & (rows <= upper), axis=1)
        cost[some] = np.where(allowed, lost, np.inf)

    run_chunks(task, -(-len(keys) // CHUNK), threads)
    return Pairs(first, second, cost)


def choose_reductions(
    sensitivity: Floats, pairs: Pairs, count: int
) -> tuple[NDArray[np.bool_], Indices]:
    """Choose the cheapest ways to have ``count`` Gaussians less.

    A Gaussian is left out, or merged with one other.

    Returns
    -------
    dropped : (N,) ndarray of bool
        Rows that go, left out or merged into another.
    merged : (M,) ndarray of int
        Pairs that are merged, the second row into the first.
    """
    costs = np.concatenate([sensitivity, pairs.cost])
    order = np.argsort(costs, kind="stable")
    order = order[: int(np.count_nonzero(np.isfinite(costs)))]
    dropped = np.zeros(len(sensitivity), np.bool_)
    merged: Indices = _choose(order, pairs.first, pairs.second, count, dropped)
    return dropped, merged


@njit(nogil=True, cache=True)
def _choose(order: Any, first: Any, second: Any, count: int, dropped: Any) -> Any:
    rows = len(dropped)
    used = np.zeros(rows, np.bool_)
    merged = np.empty(count, np.int64)
    done, pairs = 0, 0
    for option in order:
        if done == count:
            break
        if option < rows:
            if used[option]:
                continue
            used[option] = True
            dropped[option] = True
        else:
            i, j = first[option - rows], second[option - rows]
            if used[i] or used[j]:
                continue
            used[i] = True
            used[j] = True
            dropped[j] = True
            merged[pairs] = option - rows
            pairs += 1
        done += 1
    return merged[:pairs]
