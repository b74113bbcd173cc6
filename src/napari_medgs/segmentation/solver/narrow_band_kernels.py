"""Kernels of the narrow band: its voxels, their start values, the smoothing of the result."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz"}}


@njit(**_options)
def count_in_blocks(
    labels: Any, margin: Any, thresholds: Any, size: Any, first: int, last: int,
    present: Any, below: Any,
) -> None:  # fmt: skip
    """Count what blocks of ``size`` voxels hold, in slices first .. last-1.

    Parameters
    ----------
    labels : (Z, Y, X) uint8, margin : (Z, Y, X) float32
    thresholds : (T,) float32
        Increasing.
    present : (z, y, x, 4) uint64
        A bit for each class; set where there is a voxel of it.
    below : (z, y, x, T) int32
        Voxels whose margin is below a threshold but not below the one before.
    """
    _, height, width = labels.shape
    for z in range(first, last):
        for y in range(height):
            there, levels = present[z // size[0], y // size[1]], below[z // size[0], y // size[1]]
            for x in range(width):
                b, label = x // size[2], labels[z, y, x]
                there[b, label >> 6] |= np.uint64(1) << np.uint64(label & 63)
                value = margin[z, y, x]
                for t in range(len(thresholds)):
                    if value < thresholds[t]:
                        levels[b, t] += 1
                        break


@njit(**_options)
def mark_in_windows(labels: Any, size: Any, windows: Any, shown: Any) -> None:
    """Mark the blocks that show a class in rows and columns (Z, 2, 2)."""
    for z in range(len(windows)):
        for y in range(windows[z, 0, 0], windows[z, 0, 1]):
            there = shown[z // size[0], y // size[1]]
            for x in range(windows[z, 1, 0], windows[z, 1, 1]):
                if labels[z, y, x] > 0:
                    there[x // size[2]] = True


@njit(**_options)
def list_band(margin: Any, limits: Any, size: Any, slot: Any, voxels: Any) -> int:
    """Number the voxels whose margin is below their block's limit, in memory order."""
    count = 0
    depth, height, width = margin.shape
    for z in range(depth):
        for y in range(height):
            row = limits[z // size[0], y // size[1]]
            for x in range(width):
                if margin[z, y, x] < row[x // size[2]]:
                    voxels[count, 0], voxels[count, 1], voxels[count, 2] = z, y, x
                    slot[z, y, x] = count
                    count += 1
    return count


@njit(**_options)
def count_in_windows(margin: Any, limits: Any, size: Any, windows: Any) -> int:
    """Count voxels whose margin is below their block's limit in rows and columns (Z, 2, 2)."""
    total = 0
    for z in range(len(windows)):
        for y in range(windows[z, 0, 0], windows[z, 0, 1]):
            row = limits[z // size[0], y // size[1]]
            for x in range(windows[z, 1, 0], windows[z, 1, 1]):
                total += margin[z, y, x] < row[x // size[2]]
    return total


@njit(**_options)
def list_in_windows(margin: Any, limits: Any, size: Any, windows: Any, voxels: Any) -> None:
    """List the voxels that :func:`count_in_windows` counts, in memory order."""
    count = 0
    for z in range(len(windows)):
        for y in range(windows[z, 0, 0], windows[z, 0, 1]):
            row = limits[z // size[0], y // size[1]]
            for x in range(windows[z, 1, 0], windows[z, 1, 1]):
                if margin[z, y, x] < row[x // size[2]]:
                    voxels[count, 0], voxels[count, 1], voxels[count, 2] = z, y, x
                    count += 1


@njit(**_options)
def number_band(slot: Any, voxels: Any) -> None:
    """Write the index of every voxel of a list."""
    for i in range(len(voxels)):
        slot[voxels[i, 0], voxels[i, 1], voxels[i, 2]] = i


@njit(**_options)
def clear_band(slot: Any, voxels: Any) -> None:
    """Undo :func:`list_band`."""
    for i in range(len(voxels)):
        slot[voxels[i, 0], voxels[i, 1], voxels[i, 2]] = -1


@njit(**_options)
def start_from_shell(
    image: Any,
    slot: Any,
    voxels: Any,
    steps: Any,
    lengths: Any,
    difference_scales: Any,
    base_cost: Any,
    labels: Any,
    best: Any,
    distance: Any,
) -> None:
    """Start from the decided voxels around the band: the path costs of their classes.

    ``best`` is the score of the winner, minus the logarithm of its path cost; ``distance`` (K, B)
    is lowered.
    """
    channels, depth, height, width = image.shape
    for i in range(len(voxels)):
        z, y, x = voxels[i, 0], voxels[i, 1], voxels[i, 2]
        for s in range(len(steps)):
            u, v, w = z + steps[s, 0], y + steps[s, 1], x + steps[s, 2]
            if u < 0 or v < 0 or w < 0 or u >= depth or v >= height or w >= width:
                continue
            if slot[u, v, w] >= 0:
                continue
            score = best[u, v, w]
            if score < np.float32(-1e38):
                continue
            difference = np.float32(0)
            for c in range(channels):
                difference = max(difference, abs(image[c, z, y, x] - image[c, u, v, w]))
            difference *= difference_scales[s]
            value = np.exp(-score) + lengths[s] * (base_cost + difference * difference)
            k = labels[u, v, w]
            if value < distance[k, i]:
                distance[k, i] = value


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
