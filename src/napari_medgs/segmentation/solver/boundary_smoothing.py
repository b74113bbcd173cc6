"""The final smoothing of class boundaries, over the voxels of a narrow band.

Every voxel gets the class of the largest mean probability in its neighborhood. Parts that are no
wider than the neighborhood keep their labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks

RING = 2  # voxels: the smoothing reaches no farther
CHUNK = 8192

_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz"}}


def smooth_boundaries(
    slot: NDArray[np.int32],
    voxels: NDArray[np.int32],
    count: int,
    labels: NDArray[np.uint8],
    probability: Floats,
    sharp: NDArray[np.uint8],
    sigma: float,
    spacing: NDArray[np.float64],
    thin_part: float,
) -> None:
    """Label the first ``count`` voxels by smoothed probabilities, in place.

    Parameters
    ----------
    slot : (Z, Y, X) ndarray of int32
        Number of every voxel in the band, below 0 outside.
    voxels : (B, 3) ndarray of int32
    count : int
    labels : (Z, Y, X) ndarray of uint8
        Without smoothing; changed in place.
    probability : (B, K) ndarray of float32
    sharp : (count,) ndarray of uint8
        Labels without smoothing. Thin parts keep them: the smoothing would take what is no wider
        than itself.
    sigma : float
        Standard deviation of the Gaussian, in finest voxels.
    spacing : (3,) ndarray
        Of voxels, over the finest.
    thin_part : float
        A part is thin where the neighborhood of none of its voxels nearby belongs to it by more
        than this.
    """
    offsets, weights = neighborhood(sigma, spacing)
    if len(offsets) == 1:  # the square of a tiny width may be zero
        return
    smoothed = np.empty((count, probability.shape[1]), np.float32)
    label = np.empty(count, np.uint8)

    def task(block: int) -> None:
        first = block * CHUNK
        last = min(count, first + CHUNK)
        smooth_probabilities(
            slot, voxels, labels, probability, offsets, weights, first, last, smoothed
        )
        label[first:last] = smoothed[first:last].argmax(axis=1)
        keep_thin_parts(
            voxels, labels, sharp, offsets, weights, np.float32(thin_part), first, last, label
        )

    run_chunks(task, -(-count // CHUNK))
    labels[tuple(voxels[:count].T)] = label


def neighborhood(sigma: float, spacing: NDArray[np.float64]) -> tuple[NDArray[np.int64], Floats]:
    """Return the offsets (S, 3) and weights (S,) of a Gaussian; its width is in finest voxels."""
    radius = [min(RING, int(2 * sigma / s)) for s in spacing]
    grid = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in radius], indexing="ij"), -1)
    offsets = grid.reshape(-1, 3)
    square = ((offsets * spacing) ** 2).sum(axis=1)
    near = square <= (2 * sigma) ** 2 + 1e-6
    if np.count_nonzero(near) == 1:
        return offsets[near], np.ones(1, np.float32)
    weights = np.exp(-0.5 * square[near] / sigma**2).astype(np.float32)
    return np.ascontiguousarray(offsets[near]), weights


@njit(**_options)
def smooth_probabilities(
    slot: Any,
    voxels: Any,
    labels: Any,
    scores: Any,
    offsets: Any,
    weights: Any,
    first: int,
    last: int,
    out: Any,
) -> None:
    """Average class probabilities over a small neighborhood, for band voxels first .. last-1.

    Parameters
    ----------
    labels : (Z, Y, X) uint8
        The classes of the voxels outside the band, taken as certain.
    scores : (B, K) float32
        Probabilities of the band's voxels.
    offsets : (S, 3) int, weights : (S,) float32
        The neighborhood, the voxel itself included.
    out : (B, K) float32
    """
    depth, height, width = slot.shape
    classes = scores.shape[1]
    for i in range(first, last):
        z, y, x = voxels[i, 0], voxels[i, 1], voxels[i, 2]
        result = out[i]
        result[:] = 0
        total = np.float32(0)
        for s in range(len(offsets)):
            u, v, w = z + offsets[s, 0], y + offsets[s, 1], x + offsets[s, 2]
            if u < 0 or v < 0 or w < 0 or u >= depth or v >= height or w >= width:
                continue
            j = slot[u, v, w]
            weight = weights[s]
            total += weight
            if j < 0:
                result[labels[u, v, w]] += weight
            else:
                for k in range(classes):
                    result[k] += weight * scores[j, k]
        inverse = np.float32(1) / total
        for k in range(classes):
            result[k] *= inverse


@njit(**_options)
def _own_part(
    labels: Any, offsets: Any, weights: Any, z: int, y: int, x: int, k: int
) -> np.float32:
    """Return the weighted part of a neighborhood that has label k."""
    depth, height, width = labels.shape
    own = total = np.float32(0)
    for s in range(len(offsets)):
        u, v, w = z + offsets[s, 0], y + offsets[s, 1], x + offsets[s, 2]
        if u < 0 or v < 0 or w < 0 or u >= depth or v >= height or w >= width:
            continue
        total += weights[s]
        if labels[u, v, w] == k:
            own += weights[s]
    return own / total


@njit(**_options)
def keep_thin_parts(
    voxels: Any,
    labels: Any,
    sharp: Any,
    offsets: Any,
    weights: Any,
    limit: Any,
    first: int,
    last: int,
    out: Any,
) -> None:
    """Give voxels first .. last-1 back the class that smoothing took, where its part is thin.

    The background has no parts: a rim of it between two classes, where voxels of their border
    look like it, goes.

    Parameters
    ----------
    labels : (Z, Y, X) uint8
        Without smoothing.
    sharp : (B,) uint8
        The same, of the band's voxels.
    offsets : (S, 3) int, weights : (S,) float32
        The neighborhood of the smoothing.
    limit : float
        A part is thin where the neighborhood of none of its voxels nearby belongs to it by more
        than this.
    out : (B,) uint8
        With smoothing; changed in place.
    """
    depth, height, width = labels.shape
    for i in range(first, last):
        k = sharp[i]
        if k == 0 or out[i] == k:
            continue
        thin = True
        for s in range(len(offsets)):
            z, y, x = (
                voxels[i, 0] + offsets[s, 0],
                voxels[i, 1] + offsets[s, 1],
                voxels[i, 2] + offsets[s, 2],
            )
            if z < 0 or y < 0 or x < 0 or z >= depth or y >= height or x >= width:
                continue
            if labels[z, y, x] == k and _own_part(labels, offsets, weights, z, y, x, k) > limit:
                thin = False
                break
        if thin:
            out[i] = k
