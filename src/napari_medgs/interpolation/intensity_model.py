"""An intensity model that moves outlines between drawn slices to where the image has edges.

Histograms of intensity on both sides of the drawn outlines give every voxel's log-odds of being
inside. How far these may move an outline is learned: slices that were drawn are predicted from
their neighbors, and a logistic regression weighs predicted distance against log-odds there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.interpolation.signed_distance import interpolate_distances

BAND = 5.0
NEAR = 4.0
BINS = 32
LIMIT = 4.0
# Drawn slices are predicted over twice the gap, where distances err more than they will.
TRUST = 0.3
LEAST_VOXELS = 200
ENOUGH_VOXELS = 5000  # for the weights of distance and contrasts
SAMPLES = 20_000  # for quantiles of intensity
RIDGE = 1e-3  # per voxel


def _count_codes(codes: NDArray[np.uint8], distances: Floats) -> NDArray[np.int64]:
    """Count the codes near outlines, outside and inside, for each slice: (S, 2, BINS)."""
    near = np.abs(distances) < BAND
    where = np.nonzero(near)[0]
    place = (2 * where + (distances[near] > 0)) * BINS + codes[near]
    return np.bincount(place, minlength=2 * BINS * len(codes)).reshape(len(codes), 2, BINS)


def _histogram_odds(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log-odds (BINS,) of inside against outside from counts (2, BINS)."""
    from scipy.ndimage import gaussian_filter1d

    soft = gaussian_filter1d(counts.astype(np.float64), 1.0, axis=1, mode="nearest")
    share = (soft + 2) / (soft.sum(axis=1, keepdims=True) + 2 * BINS)
    odds: NDArray[np.float64] = np.clip(np.log(share[1] / share[0]), -LIMIT, LIMIT)
    return odds


def _logistic_weights(
    features: NDArray[np.float64], inside: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the weights of a logistic regression without intercept, with a weak ridge."""
    from sklearn.linear_model import LogisticRegression

    if inside.all() or not inside.any():  # nothing to tell apart: the distance alone decides
        return np.eye(1, features.shape[1])[0]
    if len(inside) > 2 * ENOUGH_VOXELS:
        step = len(inside) // ENOUGH_VOXELS
        features, inside = features[::step], inside[::step]
    model = LogisticRegression(
        C=1 / (RIDGE * len(inside)), fit_intercept=False, solver="newton-cholesky", tol=1e-8
    )
    weights: NDArray[np.float64] = model.fit(features, inside).coef_[0]
    return weights


def _predictions(
    distances: Floats, positions: NDArray[Any], threads: int | None
) -> list[tuple[int, Floats]]:
    """Predict drawn slices from their neighbors: (slice, distance) pairs."""
    found: list[tuple[int, Floats]] = []
    for parity in (0, 1):
        base = np.arange(parity, len(distances), 2)
        left = np.arange(1 - parity, len(distances), 2)
        left = left[(left > base[0]) & (left < base[-1])] if len(base) > 1 else left[:0]
        if len(left):
            frames = interpolate_distances(
                np.ascontiguousarray(distances[base]),
                positions[base],
                positions[left],
                "flow",
                threads,
            )
            found += list(zip(left.tolist(), frames, strict=True))
        if sum(np.count_nonzero(np.abs(frame) < NEAR) for _, frame in found) >= ENOUGH_VOXELS:
            break  # every second slice tells as much as all
    return found


def refine_with_intensity(
    shape: Floats,
    wanted: NDArray[np.int64],
    distances: Floats,
    positions: NDArray[np.int64],
    image: Sequence[NDArray[Any]],
    threads: int | None = None,
) -> NDArray[np.float64]:
    """Move interpolated outlines toward where the image says they are, in place.

    Parameters
    ----------
    shape : (W, Y, X) ndarray of float32
        Signed distances between the drawn slices; changed.
    wanted : (W,) ndarray of int
        Their slices in the image.
    distances : (S, Y, X) ndarray of float32
        Signed distances of the drawn slices, in pixels.
    positions : (S,) ndarray of int
        Their slices in the image.
    image : sequence of (Z, Y, X) ndarray
        Contrasts.
    threads : int, optional

    Returns
    -------
    (C,) ndarray
        Pixels per unit of log-odds that each contrast was given; 0 where too few drawn slices
        tell.
    """
    near = np.abs(distances) < BAND
    predictions = [
        (k, f, np.abs(f) < NEAR) for k, f in _predictions(distances, positions, threads)
    ]
    used = near.copy()
    for k, _, unsure in predictions:
        used[k] |= unsure
    codes = []
    for channel in image:
        drawn = channel[positions]
        some = drawn[near]
        some = some[:: max(1, len(some) // SAMPLES)]
        edges = np.quantile(some, np.linspace(0, 1, BINS + 1)[1:-1])
        code = np.zeros(drawn.shape, np.uint8)
        code[used] = np.digitize(drawn[used], edges)
        codes.append((edges, code, _count_codes(code, distances)))
    features, inside = [], []
    for k, frame, unsure in predictions:
        columns = [frame[unsure].astype(np.float64)]
        for _, code, counts in codes:
            others = counts.sum(axis=0) - counts[k]  # a slice does not predict itself
            columns.append(_histogram_odds(others)[code[k][unsure]])
        features.append(np.stack(columns, axis=1))
        inside.append(distances[k][unsure] > 0)
    if sum(len(some) for some in inside) < LEAST_VOXELS:
        return np.zeros(len(codes))
    weights = _logistic_weights(np.concatenate(features), np.concatenate(inside))
    pixels = TRUST * np.clip(weights[1:] / max(weights[0], 1e-2), 0.0, 1.0)
    for (edges, _, counts), channel, weight in zip(codes, image, pixels, strict=True):
        if weight > 0:
            odds = (weight * _histogram_odds(counts.sum(axis=0))).astype(np.float32)
            for frame, z in zip(shape, wanted, strict=True):
                near = np.abs(frame) < NEAR
                frame[near] += odds[np.digitize(channel[z][near], edges)]
    return np.asarray(pixels, np.float64)
