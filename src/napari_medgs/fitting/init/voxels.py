"""Passes over all voxels, compiled and shared by threads.

What they return does not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks

RADIUS = 4  # of the blur, in sigmas and voxels
CHUNK = 65536


def smooth(volume: Floats, threads: int | None = None) -> Floats:
    """Blur a volume by a Gaussian of one voxel, along all axes that have more than one.

    The numbers of SciPy's ``gaussian_filter`` with its usual mirroring borders.

    Parameters
    ----------
    volume : (Z, Y, X) ndarray of float32
    threads : int, optional
        CPU threads; all by default.
    """
    taps = np.exp(-0.5 * np.arange(-RADIUS, RADIUS + 1) ** 2.0)
    taps = (taps / taps.sum())[RADIUS:]
    result = np.empty(volume.shape, np.float32)
    run_chunks(lambda z: _smooth_slice(volume, taps, z, result[z]), len(volume), threads)
    return result


@njit(nogil=True, cache=True)
def _mirrored(k: int, size: int) -> int:
    while k < 0 or k >= size:
        k = -1 - k if k < 0 else 2 * size - 1 - k
    return k


@njit(nogil=True, cache=True)
def _smooth_slice(volume: Any, taps: Any, z: int, out: Any) -> None:
    """Blur slice z, in 64 bits along each axis and rounded to 32 in between."""
    depth, height, width = volume.shape
    across, row = np.empty((height, width), np.float32), np.empty(width, np.float64)
    padded = np.empty(width + 2 * RADIUS, np.float32)
    for y in range(height):
        _begin(volume[z, y], taps[0], depth, row)
        for k in range(RADIUS if depth > 1 else 0, 0, -1):
            low, high = _mirrored(z - k, depth), _mirrored(z + k, depth)
            _add_pair(volume[low, y], volume[high, y], taps[k], row)
        _round(row, across[y])
    for y in range(height):
        _begin(across[y], taps[0], height, row)
        for k in range(RADIUS if height > 1 else 0, 0, -1):
            low, high = _mirrored(y - k, height), _mirrored(y + k, height)
            _add_pair(across[low], across[high], taps[k], row)
        middle = padded[RADIUS : RADIUS + width]
        _round(row, middle)
        for k in range(RADIUS):
            padded[k] = middle[_mirrored(k - RADIUS, width)]
            padded[RADIUS + width + k] = middle[_mirrored(width + k, width)]
        _begin(middle, taps[0], width, row)
        for k in range(RADIUS if width > 1 else 0, 0, -1):
            _add_pair(padded[RADIUS - k :], padded[RADIUS + k :], taps[k], row)
        _round(row, out[y])


@njit(nogil=True, cache=True)
def _begin(values: Any, tap: float, size: int, row: Any) -> None:
    if size == 1:
        tap = 1.0  # along an axis of one nothing is blurred
    for x in range(len(row)):
        row[x] = np.float64(values[x]) * tap


@njit(nogil=True, cache=True)
def _add_pair(low: Any, high: Any, tap: float, row: Any) -> None:
    for x in range(len(row)):
        row[x] += (np.float64(low[x]) + np.float64(high[x])) * tap


@njit(nogil=True, cache=True)
def _round(row: Any, out: Any) -> None:
    for x in range(len(row)):
        out[x] = row[x]


@njit(nogil=True, cache=True)
def add_squared_slopes(volume: Any, z: int, out: Any) -> None:
    """Add the squares of a slice's slopes along all axes: central differences, one-sided at ends.

    Parameters
    ----------
    volume : (Z, Y, X) float32
    z : int
    out : (Y, X) float32
    """
    depth, height, width = volume.shape
    half, one = np.float32(0.5), np.float32(1)
    za, zb = max(z - 1, 0), min(z + 1, depth - 1)
    z_step = half if zb - za == 2 else one
    for y in range(height):
        ya, yb = max(y - 1, 0), min(y + 1, height - 1)
        y_step = half if yb - ya == 2 else one
        line = out[y]
        low, high, before, after = volume[za, y], volume[zb, y], volume[z, ya], volume[z, yb]
        for x in range(width):
            along, down = (high[x] - low[x]) * z_step, (after[x] - before[x]) * y_step
            line[x] = line[x] + along * along + down * down
        if width > 1:
            row = volume[z, y]
            for x in range(1, width - 1):
                slope = (row[x + 1] - row[x - 1]) * half
                line[x] += slope * slope
            line[0] += (row[1] - row[0]) ** 2
            line[width - 1] += (row[width - 1] - row[width - 2]) ** 2


@njit(nogil=True, cache=True)
def count_borders(labels: Any, z: int, out: Any) -> None:
    """Count, for each voxel of a slice, the six neighbors with another label (255 is 0).

    Parameters
    ----------
    labels : (Z, Y, X) uint8
    z : int
    out : (Y, X) float32
        Overwritten.
    """
    depth, height, width = labels.shape
    for y in range(height):
        for x in range(width):
            here = labels[z, y, x] % 255
            changes = 0
            if z > 0:
                changes += labels[z - 1, y, x] % 255 != here
            if z + 1 < depth:
                changes += labels[z + 1, y, x] % 255 != here
            if y > 0:
                changes += labels[z, y - 1, x] % 255 != here
            if y + 1 < height:
                changes += labels[z, y + 1, x] % 255 != here
            if x > 0:
                changes += labels[z, y, x - 1] % 255 != here
            if x + 1 < width:
                changes += labels[z, y, x + 1] % 255 != here
            out[y, x] = changes


def histogram(volume: Floats, bins: int, threads: int | None = None) -> NDArray[np.int64]:
    """Count values from 0 to 1 (1 included) in equal bins, as NumPy does for powers of two.

    Parameters
    ----------
    volume : (Z, Y, X) ndarray of float32
    bins : int
    threads : int, optional
        CPU threads; all by default.
    """
    counts = np.zeros((len(volume), bins), np.int64)
    run_chunks(lambda z: _count_values(volume[z], counts[z]), len(volume), threads)
    total: NDArray[np.int64] = counts.sum(axis=0)
    return total


@njit(nogil=True, cache=True)
def _count_values(plane: Any, counts: Any) -> None:
    bins = len(counts)
    # Neighbors are often equal: four tables keep one count from waiting for the last.
    tables = np.zeros((4, bins), np.int64)
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            k = int(plane[y, x] * np.float32(bins))
            tables[x & 3, min(max(k, 0), bins - 1)] += 1
    for k in range(bins):
        counts[k] += tables[0, k] + tables[1, k] + tables[2, k] + tables[3, k]


def draw(
    density: Floats, marks: NDArray[np.float64], threads: int | None = None
) -> NDArray[np.int64]:
    """Return the flat indices at which the running sum of a density first exceeds marks.

    Parameters
    ----------
    density : ndarray of float32
        Contiguous and not negative; its sum is not zero.
    marks : (N,) ndarray
        Increasing fractions of the whole sum, from 0 to 1.
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    (N,) ndarray of int64
    """
    flat = density.reshape(-1)
    chunks = -(-flat.size // CHUNK)
    before = np.zeros(chunks + 1)

    def add(k: int) -> None:
        before[k + 1] = _sum(flat[k * CHUNK : (k + 1) * CHUNK])

    run_chunks(add, chunks, threads)
    np.cumsum(before, out=before)
    places = marks * before[-1]
    first = np.searchsorted(places, before)
    first[-1] = len(places)
    found = np.empty(len(places), np.int64)

    def find(k: int) -> None:
        some = slice(first[k], first[k + 1])
        start = k * CHUNK
        _find(flat[start : start + CHUNK], before[k], places[some], start, found[some])

    run_chunks(find, chunks, threads)
    return found


@njit(nogil=True, cache=True)
def _sum(values: Any) -> float:
    lanes = np.zeros(8, np.float64)
    whole = len(values) // 8 * 8
    for k in range(0, whole, 8):
        for lane in range(8):
            lanes[lane] += values[k + lane]
    result = 0.0
    for lane in range(8):
        result += lanes[lane]
    for k in range(whole, len(values)):
        result += values[k]
    return result


@njit(nogil=True, cache=True)
def _find(values: Any, running: float, places: Any, start: int, found: Any) -> None:
    done = 0
    for k in range(len(values)):
        if done == len(places):
            return
        running += values[k]
        while done < len(places) and places[done] < running:
            found[done] = start + k
            done += 1
    last = len(values) - 1  # rounding of the sums can leave some for the end
    while last > 0 and values[last] == 0:
        last -= 1
    found[done:] = start + last


@njit(nogil=True, cache=True)
def root_of_slice(density: Any, sums: Any) -> None:
    """Take the root of a slice in place; write its sum and largest value to ``sums``."""
    total, largest = 0.0, np.float32(0)
    for y in range(density.shape[0]):
        line = density[y]
        for x in range(len(line)):
            line[x] = np.sqrt(line[x])
            largest = max(largest, line[x])
        part = 0.0
        for x in range(len(line)):
            part += line[x]
        total += part
    sums[0], sums[1] = total, largest


@njit(nogil=True, cache=True)
def mark_apart(image: Any, level: Any, least: Any, marks: Any) -> None:
    """Set marks (Y, X) where an image is farther than ``least`` from a level."""
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            marks[y, x] |= abs(image[y, x] - level) > least


@njit(nogil=True, cache=True)
def mark_above(density: Any, least: Any, marks: Any, sums: Any) -> None:
    """Set marks (Y, X) where a density is above ``least``; sum it over all that are marked.

    ``sums`` becomes the sum and the number of marks.
    """
    total, count = 0.0, 0
    for y in range(density.shape[0]):
        for x in range(density.shape[1]):
            if density[y, x] > least:
                marks[y, x] = True
            if marks[y, x]:
                total += density[y, x]
                count += 1
    sums[0], sums[1] = total, count
