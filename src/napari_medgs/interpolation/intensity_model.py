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
ENOUGH_VOXELS, LEAST_SLICES = 1000, 3  # for the weights of distance and contrasts
FITTED_VOXELS = 3000  # that the weights are fitted to, at least, where there are so many
SAMPLES = 20_000  # for quantiles of intensity
RIDGE = 1e-3  # per voxel
CONVERGED = 1e-4  # slope of the mean log-likelihood


def _count_codes(codes: NDArray[np.uint8], distances: Floats) -> NDArray[np.int64]:
    """Count the codes near outlines, outside and inside, for each slice: (S, 2, BINS)."""
    near = np.abs(distances) < BAND
    where = np.nonzero(near)[0]
    place = (2 * where + (distances[near] > 0)) * BINS + codes[near]
    return np.bincount(place, minlength=2 * BINS * len(codes)).reshape(len(codes), 2, BINS)


def _histogram_odds(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log-odds (..., BINS) of inside against outside from counts (..., 2, BINS)."""
    from scipy.ndimage import gaussian_filter1d

    soft = gaussian_filter1d(counts.astype(np.float64), 1.0, axis=-1, mode="nearest")
    share = (soft + 2) / (soft.sum(axis=-1, keepdims=True) + 2 * BINS)
    odds: NDArray[np.float64] = np.clip(np.log(share[..., 1, :] / share[..., 0, :]), -LIMIT, LIMIT)
    return odds


def _logistic_weights(
    features: NDArray[np.float64], inside: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the weights of a logistic regression without intercept, with a weak ridge."""
    from scipy.optimize import root
    from scipy.special import expit

    alone = np.eye(1, features.shape[1])[0]  # the distance decides
    if inside.all() or not inside.any():  # nothing to tell apart
        return alone
    step = max(1, len(inside) // FITTED_VOXELS)
    signed = np.where(inside[::step, None], features[::step], -features[::step])
    ridge = RIDGE * np.eye(signed.shape[1])

    def slope(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        slope: NDArray[np.float64] = expit(-(signed @ weights)) @ signed
        return weights @ ridge - slope / len(signed)

    def curvature(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        likely = expit(signed @ weights)
        return (signed.T * (likely * (1 - likely))) @ signed / len(signed) + ridge

    found = root(slope, np.zeros(len(ridge)), jac=curvature, tol=1e-8)
    weights: NDArray[np.float64] = found.x
    return weights if np.abs(slope(weights)).max() < CONVERGED else alone


def _predictions(
    distances: Floats, positions: NDArray[Any], threads: int | None
) -> list[tuple[int, Floats]]:
    """Predict drawn slices from their neighbors: (slice, distance) pairs.

    Every second slice is left out, then the others, until there are voxels enough.
    """
    voxels = np.count_nonzero(np.abs(distances) < NEAR, axis=(1, 2))
    found: list[tuple[int, Floats]] = []
    for parity in (0, 1):
        base = np.arange(parity, len(distances), 2)
        left = np.arange(1 - parity, len(distances), 2)
        left = left[(left > base[0]) & (left < base[-1])] if len(base) > 1 else left[:0]
        left = _middle(left, voxels, ENOUGH_VOXELS - sum(int(voxels[k]) for k, _ in found))
        if len(left):
            # A frame depends on two slices on both sides.
            base = base[(base >= left[0] - 3) & (base <= left[-1] + 3)]
            frames = interpolate_distances(
                np.ascontiguousarray(distances[base]),
                positions[base],
                positions[left],
                "flow",
                threads,
            )
            found += list(zip(left.tolist(), frames, strict=True))
    return found


def _middle(left: NDArray[np.int64], voxels: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """Return as many slices of the middle of ``left`` as have the wanted number of voxels."""
    if wanted <= 0:
        return left[:0]
    for count in range(LEAST_SLICES, len(left)):
        first = (len(left) - count) // 2
        part = left[first : first + count]
        if voxels[part].sum() >= wanted:
            return part
    return left


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
        CPU threads; all by default.

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
        counts = _count_codes(code, distances)
        whole = counts.sum(axis=0)
        # A slice does not predict itself.
        codes.append((edges, code, _histogram_odds(whole), _histogram_odds(whole - counts)))
    features, inside = [], []
    for k, frame, unsure in predictions:
        columns = [frame[unsure].astype(np.float64)]
        columns += [others[k][code[k][unsure]] for _, code, _, others in codes]
        features.append(np.stack(columns, axis=1))
        inside.append(distances[k][unsure] > 0)
    if sum(len(some) for some in inside) < LEAST_VOXELS:
        return np.zeros(len(codes))
    weights = _logistic_weights(np.concatenate(features), np.concatenate(inside))
    pixels = TRUST * np.clip(weights[1:] / max(weights[0], 1e-2), 0.0, 1.0)
    move = np.zeros(0, np.float32)
    if (pixels > 0).any():
        near = np.abs(shape) < NEAR
        move = np.zeros(np.count_nonzero(near), np.float32)
    for (edges, _, odds, _), channel, weight in zip(codes, image, pixels, strict=True):
        if weight > 0:
            shift = (weight * odds).astype(np.float32)
            move += shift[np.digitize(channel[wanted][near], edges)]
    if len(move):
        shape[near] += move
    return np.asarray(pixels, np.float64)
