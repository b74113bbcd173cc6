"""Cells of a field, their statistics, and the boundaries between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Doubles, Floats

MIN_VOXELS = 4  # of a cell whose variance tells the noise

_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def _cell_moments(cells: Any, contrasts: Any, mass: Any, mean: Any, scatter: Any) -> None:
    """Fill voxels, mean and scatter matrix of every cell, by running updates."""
    count = len(contrasts)
    delta = np.empty(count)
    for v in range(len(cells)):
        i = cells[v]
        mass[i] += 1.0
        for c in range(count):
            delta[c] = contrasts[c, v] - mean[i, c]
            mean[i, c] += delta[c] / mass[i]
        for c in range(count):
            after = contrasts[c, v] - mean[i, c]
            for d in range(count):
                scatter[i, c, d] += after * delta[d]


@njit(**_options)
def _count_faces(cells: Any, counts: Any) -> int:
    """Count the boundary faces of every cell that is the lower one of a pair."""
    depth, height, width = cells.shape
    total = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                a = cells[z, y, x]
                for axis in range(3):
                    if axis == 0:
                        if z + 1 == depth:
                            continue
                        b = cells[z + 1, y, x]
                    elif axis == 1:
                        if y + 1 == height:
                            continue
                        b = cells[z, y + 1, x]
                    else:
                        if x + 1 == width:
                            continue
                        b = cells[z, y, x + 1]
                    if a != b:
                        counts[min(a, b) + 1] += 1
                        total += 1
    return total


@njit(**_options)
def _list_faces(
    cells: Any,
    contrasts: Any,
    weights: Any,
    areas: Any,
    places: Any,
    other: Any,
    area: Any,
    step: Any,
) -> None:
    """Write every boundary face into the range of its lower cell."""
    depth, height, width = cells.shape
    count = len(contrasts)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                a = cells[z, y, x]
                for axis in range(3):
                    z1, y1, x1 = z, y, x
                    if axis == 0:
                        z1 += 1
                    elif axis == 1:
                        y1 += 1
                    else:
                        x1 += 1
                    if z1 == depth or y1 == height or x1 == width:
                        continue
                    b = cells[z1, y1, x1]
                    if a == b:
                        continue
                    squared = 0.0
                    for c in range(count):
                        d = contrasts[c, z1, y1, x1] - contrasts[c, z, y, x]
                        squared += weights[c] * d * d
                    low = min(a, b)
                    at = places[low]
                    places[low] = at + 1
                    other[at] = max(a, b)
                    area[at] = areas[axis]
                    step[at] = np.sqrt(squared) * areas[axis]


@njit(**_options)
def _join_faces(
    offsets: Any, other: Any, area: Any, step: Any, ends: Any, length: Any, strength: Any
) -> int:
    """Sum the faces of every pair of cells; called without room it only counts the pairs."""
    edges = 0
    room = len(ends)
    for low in range(len(offsets) - 1):
        first, last = offsets[low], offsets[low + 1]
        if first == last:
            continue
        order = np.argsort(other[first:last], kind="mergesort")
        before = -1
        for k in order:
            at = first + k
            if other[at] != before:
                before = other[at]
                if room:
                    ends[edges, 0], ends[edges, 1] = low, before
                edges += 1
            if room:
                length[edges - 1] += area[at]
                strength[edges - 1] += step[at]
    return edges


@dataclass(frozen=True)
class CellGraph:
    """Cells and the boundaries between those that share voxel faces.

    Attributes
    ----------
    mass : (N,) ndarray of float64
        Voxels.
    mean : (N, C) ndarray of float64
    scatter : (N, C, C) ndarray of float64
        Sum of squared deviations from the mean.
    ends : (E, 2) ndarray of int32
        Pairs of cells, the lower first, in order.
    length : (E,) ndarray of float64
        Area of the boundary, in faces of a cubic voxel of the same volume.
    strength : (E,) ndarray of float64
        Sum over that area of the difference in contrasts across it.
    """

    mass: Doubles
    mean: Doubles
    scatter: Doubles
    ends: NDArray[np.int32]
    length: Doubles
    strength: Doubles


def face_areas(spacing: tuple[float, float, float]) -> Doubles:
    """Return the area of a voxel's faces across z, y, x, in faces of a cube of its volume."""
    z, y, x = (float(s) for s in spacing)
    side = (z * y * x) ** (1 / 3)
    return np.array([y * x, z * x, z * y]) / side**2


def noise_of(mass: Doubles, scatter: Doubles) -> Doubles:
    """Return the deviation within cells, per contrast: the median over their voxels.

    Cells on strong edges, and cells of few voxels, tell little of the noise.

    Parameters
    ----------
    mass : (N,) ndarray
    scatter : (N, C, C) ndarray

    Returns
    -------
    (C,) ndarray
        Above 0.
    """
    variance = np.einsum("icc->ic", scatter) / mass[:, None]
    large = mass >= MIN_VOXELS
    if not large.any():
        large[:] = True
    noise = np.empty(variance.shape[1])
    for c in range(len(noise)):
        values, weights = variance[large, c], mass[large]
        order = np.argsort(values, kind="stable")
        total = np.cumsum(weights[order])
        median = values[order][np.searchsorted(total, total[-1] / 2)]
        mean = np.einsum("i,i->", values, weights) / total[-1]
        noise[c] = np.sqrt(median if median > 1e-6 * mean else mean)
    return np.where(noise > 0, noise, 1.0)


def cell_graph(
    cells: NDArray[np.int32],
    contrasts: Floats,
    spacing: tuple[float, float, float],
    gaussians: int | None = None,
) -> CellGraph:
    """Measure cells and their boundaries.

    Contrasts are divided by their deviation within the cells first, so that one unit is the
    noise of the image.

    Parameters
    ----------
    cells : (Z, Y, X) ndarray of int32
        Numbers from 0 on; every number occurs.
    contrasts : (C, Z, Y, X) ndarray of float32
    spacing : (z, y, x) in mm
    gaussians : int, optional
        Number of cells, the first ones, that are no empty space: the noise is theirs.

    Returns
    -------
    CellGraph
    """
    count, channels = int(cells.max()) + 1, len(contrasts)
    mass, mean = np.zeros(count), np.zeros((count, channels))
    scatter = np.zeros((count, channels, channels))
    flat = np.ascontiguousarray(cells).reshape(-1)
    _cell_moments(flat, contrasts.reshape(channels, -1), mass, mean, scatter)
    noise = noise_of(mass[:gaussians], scatter[:gaussians])
    mean /= noise
    scatter /= noise[:, None] * noise
    offsets = np.zeros(count + 1, np.int64)
    total = _count_faces(cells, offsets)
    np.cumsum(offsets, out=offsets)
    other = np.empty(total, np.int32)
    area, step = np.empty(total, np.float32), np.empty(total, np.float32)
    places = offsets[:-1].copy()
    weights = 1 / noise**2
    _list_faces(cells, contrasts, weights, face_areas(spacing), places, other, area, step)
    nothing = np.zeros((0, 2), np.int32), np.zeros(0), np.zeros(0)
    edges = _join_faces(offsets, other, area, step, *nothing)
    ends, length, strength = np.zeros((edges, 2), np.int32), np.zeros(edges), np.zeros(edges)
    if edges:
        _join_faces(offsets, other, area, step, ends, length, strength)
    return CellGraph(mass, mean, scatter, ends, length, strength)
