"""Kernels of the narrow band: its voxels and their start values."""

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
