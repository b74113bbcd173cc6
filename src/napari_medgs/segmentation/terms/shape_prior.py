"""What annotated slices say about the slices between them: interpolated outlines as a prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks

REACH = 20.0  # finest voxels at which distances are clipped
WIDTH = 1.5  # finest voxels over which an outline is soft in its own slice
SPREAD = 0.5  # by how much softer it becomes with every finest voxel away from the slice
LEAST = 1e-3

_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz"}}


@njit(**_options)
def _add_prior(
    distances: Any,
    places: Any,
    plane_axis: int,
    unit: Any,
    points: Any,
    first: int,
    last: int,
    toll: Any,
    factor: Any,
) -> None:
    """Add the prior's toll to points first .. last-1 that lie between the first and last slice."""
    slices, classes, height, width = distances.shape
    one = np.float32(1)
    row_axis = 1 if plane_axis == 0 else 0
    column_axis = 1 if plane_axis == 2 else 2
    mix = np.empty(classes, np.float32)
    for i in range(first, last):
        z = points[i, plane_axis]
        if z <= places[0] or z >= places[slices - 1]:
            continue
        above = 1
        while places[above] < z:
            above += 1
        t = np.float32((z - places[above - 1]) / (places[above] - places[above - 1]))
        away = min(z - places[above - 1], places[above] - z) * unit
        y = min(max(points[i, row_axis], np.float32(0)), np.float32(height - 1))
        x = min(max(points[i, column_axis], np.float32(0)), np.float32(width - 1))
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        fy, fx = np.float32(y - y0), np.float32(x - x0)
        inverse = one / np.float32(WIDTH + SPREAD * away)
        peak = np.float32(-1e30)
        for k in range(classes):
            low, high = distances[above - 1, k], distances[above, k]
            a = (one - fy) * ((one - fx) * low[y0, x0] + fx * low[y0, x1])
            a += fy * ((one - fx) * low[y1, x0] + fx * low[y1, x1])
            b = (one - fy) * ((one - fx) * high[y0, x0] + fx * high[y0, x1])
            b += fy * ((one - fx) * high[y1, x0] + fx * high[y1, x1])
            mix[k] = ((one - t) * a + t * b) * inverse
            peak = max(peak, mix[k])
        total = np.float32(0)
        for k in range(classes):
            mix[k] = np.exp(mix[k] - peak)
            total += mix[k]
        for k in range(classes):
            toll[i, k] -= factor * np.log(max(mix[k] / total, np.float32(LEAST)))


@dataclass(frozen=True)
class ShapePrior:
    """Signed distances of every class in the annotated slices of one orientation.

    Attributes
    ----------
    axis : int
        Normal of the slices, in slice-first axes.
    places : (S,) ndarray of float32
    distances : (S, K, rows, columns) ndarray of float32
        In finest voxels, positive inside.
    unit : float
        Distance of neighbouring slices in finest voxels.
    """

    axis: int
    places: Floats
    distances: Floats
    unit: float

    def add_toll(self, points: NDArray[Any], toll: Floats, weight: float) -> None:
        """Add the prior's negative log-probability to the tolls (P, K) of points (P, 3)."""
        if len(self.places) < 2:
            return
        points = np.ascontiguousarray(points, np.float32)
        chunk = 16384

        def task(block: int) -> None:
            first = block * chunk
            _add_prior(
                self.distances,
                self.places,
                self.axis,
                np.float32(self.unit),
                points,
                first,
                min(len(points), first + chunk),
                toll,
                np.float32(weight),
            )

        run_chunks(task, -(-len(points) // chunk))


def shape_prior(
    planes: NDArray[np.uint8], places: NDArray[Any], axis: int, units: NDArray[Any], classes: int
) -> ShapePrior:
    """Make the prior of slices whose classes are known.

    Parameters
    ----------
    planes : (S, rows, columns) ndarray of uint8
    places : (S,) ndarray of int
        Increasing indices of the slices.
    axis : int
        Normal of the slices.
    units : (3,) ndarray
        Voxel sizes over the finest one.
    """
    from scipy.ndimage import distance_transform_edt

    inside_units = [float(units[a]) for a in range(3) if a != axis]
    distances = np.full((len(planes), classes, *planes.shape[1:]), -REACH, np.float32)
    margin = [int(REACH / u) + 1 for u in inside_units]

    def measure(index: int) -> None:
        s, k = divmod(index, classes)
        mask = planes[s] == k
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        if not rows.any():
            return
        if mask.all():
            distances[s, k] = REACH
            return
        box: list[slice] = []
        for hits, pad in ((rows, margin[0]), (columns, margin[1])):
            where = np.flatnonzero(hits)
            box.append(slice(max(0, where[0] - pad), where[-1] + pad + 1))
        part = mask[tuple(box)]
        inner = distance_transform_edt(part, sampling=inside_units)
        outer = distance_transform_edt(~part, sampling=inside_units)
        distances[s, k][tuple(box)] = np.clip(inner - outer, -REACH, REACH)

    run_chunks(measure, len(planes) * classes)
    return ShapePrior(axis, np.asarray(places, np.float32), distances, float(units[axis]))
