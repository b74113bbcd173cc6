"""The margin of each class of a field over the other classes, slab by slab of a grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.data.grid import Grid
from napari_medgs.meshing.signed_distance import shifted

SLAB_BYTES = 256 * 2**20
"""Upper bound of the logits of all classes that are in memory at once."""


def cut_slabs(grid: Grid, channels: int) -> Iterator[tuple[int, Grid]]:
    """Cut a grid along z into slabs of limited size; yield their first slices and grids."""
    depth, height, width = grid.shape
    thickness = max(1, SLAB_BYTES // (4 * channels * height * width))
    for start in range(0, depth, thickness):
        size = min(thickness, depth - start)
        yield start, shifted(grid, (start, 0, 0), (size, height, width))


def class_margins(
    slabs: Callable[[], Iterable[tuple[int, Floats]]],
    grid: Grid,
    classes: Sequence[int],
    level: float,
    padding: NDArray[np.int64],
) -> list[tuple[Floats, Grid] | None]:
    """Return the margin of each class, on the part of the grid where it is the most probable.

    Parameters
    ----------
    slabs : callable
        Returns, on each call, an iterator of first slices and logits (K, z, Y, X) of slabs.
    grid : Grid
        The whole grid.
    classes : sequence of int
        Which of the K classes.
    level : float
        Margin in logits that counts as zero.
    padding : (3,) ndarray of int
        Voxels to keep around the part where the margin is positive.

    Returns
    -------
    list
        For each class its margin, the logit less the largest other one less ``level``, with the
        grid of that part; None for a class whose margin is positive nowhere.
    """
    low = np.tile(np.asarray(grid.shape), (len(classes), 1))
    high = np.zeros_like(low)
    single: tuple[int, Floats] | None = None
    for start, logits in slabs():
        top, second = _two_largest(logits)
        for n, k in enumerate(classes):
            positive = _margin(logits[k], top, second) > level
            for axis in range(3):
                where = np.flatnonzero(positive.any(axis=tuple(a for a in range(3) if a != axis)))
                if len(where):
                    offset = start if axis == 0 else 0
                    low[n, axis] = min(low[n, axis], where[0] + offset)
                    high[n, axis] = max(high[n, axis], where[-1] + offset + 1)
        single = (start, logits) if logits.shape[1] == grid.shape[0] else None
    low = np.maximum(low - padding, 0)
    high = np.where(high > 0, np.minimum(high + padding, grid.shape), 0)
    parts = [
        shifted(grid, a, b - a) if (b > 0).all() else None for a, b in zip(low, high, strict=True)
    ]
    margins = [None if part is None else np.empty(part.shape, np.float32) for part in parts]
    for start, logits in slabs() if single is None else (single,):
        top, second = _two_largest(logits)
        stop = start + logits.shape[1]
        for n, k in enumerate(classes):
            margin = margins[n]
            first, last = max(start, int(low[n, 0])), min(stop, int(high[n, 0]))
            if margin is None or first >= last:
                continue
            _, (y0, x0), (y1, x1) = n, low[n, 1:], high[n, 1:]
            box = (slice(first - start, last - start), slice(y0, y1), slice(x0, x1))
            margin[first - low[n, 0] : last - low[n, 0]] = (
                _margin(logits[k][box], top[box], second[box]) - level
            )
    return [
        None if part is None or margin is None else (margin, part)
        for margin, part in zip(margins, parts, strict=True)
    ]


def _two_largest(logits: Floats) -> tuple[Floats, Floats]:
    """The largest and second largest of all classes, (z, Y, X) each."""
    top = logits[0].copy()
    second = np.full_like(top, -np.inf)
    for other in logits[1:]:
        np.maximum(second, np.minimum(top, other), out=second)
        np.maximum(top, other, out=top)
    return top, second


def _margin(logit: Floats, top: Floats, second: Floats) -> Floats:
    margin: Floats = logit - np.where(logit == top, second, top)
    return margin
