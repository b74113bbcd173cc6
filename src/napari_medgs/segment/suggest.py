"""Where one more stroke helps most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_medgs.field import Floats

NEAR = 4.0  # finest voxels around an annotated slice within which another tells little
BLUR = 3.0  # finest voxels


@dataclass(frozen=True)
class Suggestion:
    """A slice worth annotating.

    Attributes
    ----------
    axis, index : int
        The slice of the canonical grid.
    position : (z, y, x)
        The voxel in it at which the result is least certain.
    score : float
        Expected number of wrong voxels that the slice speaks for.
    """

    axis: int
    index: int
    position: tuple[int, int, int]
    score: float


def suggest_slices(
    uncertainty: Floats,
    axis: int,
    annotated: NDArray[np.int64],
    spacing: tuple[float, float, float],
    count: int = 1,
) -> list[Suggestion]:
    """Return the slices of one orientation where another annotation helps most, best first.

    A slice is worth the uncertainty in it, less where an annotated slice is near.

    Parameters
    ----------
    uncertainty : (Z, Y, X) ndarray, 0 to 1
    axis : int
    annotated : ndarray of int
        Slices of that orientation that carry strokes already.
    spacing : (z, y, x) in mm
    count : int
    """
    from scipy.ndimage import gaussian_filter, gaussian_filter1d

    others = tuple(a for a in range(3) if a != axis)
    unit = spacing[axis] / min(spacing)
    worth = np.square(uncertainty, dtype=np.float64).sum(axis=others)
    if len(worth) > 2:
        worth = gaussian_filter1d(worth, min(BLUR / unit, len(worth) / 6), mode="nearest")
    place = np.arange(len(worth))
    taken = [int(a) for a in annotated]
    found: list[Suggestion] = []
    for _ in range(min(count, len(worth))):
        value = worth.copy()
        for index in taken:
            value *= 1 - np.exp(-0.5 * ((place - index) * unit / NEAR) ** 2)
        best = int(value.argmax())
        if value[best] <= 0:
            break
        plane = np.take(uncertainty, best, axis=axis)
        widths = [BLUR * min(spacing) / spacing[a] for a in others]
        row, column = np.unravel_index(gaussian_filter(plane, widths).argmax(), plane.shape)
        position = [0, 0, 0]
        position[axis], position[others[0]], position[others[1]] = best, int(row), int(column)
        found.append(
            Suggestion(axis, best, (position[0], position[1], position[2]), float(value[best]))
        )
        taken.append(best)
    return found
