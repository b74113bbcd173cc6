"""Between voxels and Gaussians through the rendering weights, exactly, in both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs.field import Floats, GaussianField
from napari_medgs.parallel import run_chunks
from napari_medgs.render._simd import fast_exp2
from napari_medgs.render.cpu_kernels import HALF_LOG2E, prepare
from napari_medgs.render.cpu_points import CELL, _bounds, _list_cells
from napari_medgs.render.theta import to_theta

_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz", "arcp"}}


@njit(**_options)
def _shares(
    points: Any,
    classes: Any,
    strengths: Any,
    order: Any,
    cell_of: Any,
    offsets: Any,
    members: Any,
    prepared: Any,
    budget: Any,
    eps: Any,
    weights: Any,
    mass: Any,
) -> None:
    for k in range(len(order)):
        index = order[k]
        z, y, x = points[index]
        cell = cell_of[index]
        total = eps
        for m in range(offsets[cell], offsets[cell + 1]):
            p = prepared[members[m]]
            d = z - p[2]
            left = budget - p[6] * d * d
            g = np.float32(0)
            if left > 0:
                dy = y - (p[1] + d * (p[11] + d * (p[12] + d * p[13])))
                left -= p[5] * dy * dy
                if left > 0:
                    u = x - (p[0] + d * (p[8] + d * (p[9] + d * p[10]))) - p[4] * dy
                    left -= p[3] * u * u
                    if left > 0:
                        g = fast_exp2(p[7] - budget + left)
            weights[m - offsets[cell]] = g
            total += g
        factor = strengths[index] / total
        c = classes[index]
        for m in range(offsets[cell], offsets[cell + 1]):
            g = weights[m - offsets[cell]]
            if g > 0:
                mass[members[m], c] += g * factor


@njit(**_options)
def _blend(
    points: Any,
    order: Any,
    cell_of: Any,
    offsets: Any,
    members: Any,
    prepared: Any,
    scores: Any,
    budget: Any,
    out: Any,
    weight: Any,
) -> None:
    for k in range(len(order)):
        index = order[k]
        z, y, x = points[index]
        cell = cell_of[index]
        result = out[index]
        total = np.float32(0)
        for m in range(offsets[cell], offsets[cell + 1]):
            i = members[m]
            p = prepared[i]
            d = z - p[2]
            left = budget - p[6] * d * d
            if left < 0:
                continue
            dy = y - (p[1] + d * (p[11] + d * (p[12] + d * p[13])))
            left -= p[5] * dy * dy
            if left < 0:
                continue
            u = x - (p[0] + d * (p[8] + d * (p[9] + d * p[10]))) - p[4] * dy
            left -= p[3] * u * u
            if left < 0:
                continue
            g = fast_exp2(p[7] - budget + left)
            total += g
            for c in range(scores.shape[1]):
                result[c] += g * scores[i, c]
        weight[index] = total
        if total > 0:
            inverse = np.float32(1) / total
            for c in range(scores.shape[1]):
                result[c] *= inverse


@njit(**_options)
def _all_bounds(prepared: Any, budget: Any, shape: Any, lows: Any, highs: Any) -> None:
    """Write the first voxel and one past the last that each Gaussian may reach."""
    low, high = np.zeros(3, np.float32), np.zeros(3, np.float32)
    for i in range(len(prepared)):
        _bounds(prepared[i], budget, low, high)
        for axis in range(3):
            first = np.int64(min(max(np.ceil(low[axis]), np.float32(0)), np.float32(1e6)))
            last = np.int64(min(max(np.floor(high[axis]), np.float32(-1)), np.float32(1e6)))
            lows[i, axis] = min(first, shape[axis])
            highs[i, axis] = max(min(last + 1, shape[axis]), lows[i, axis])


class Projector:
    """Hands marks at voxels to the Gaussians that paint those voxels.

    Parameters
    ----------
    field : GaussianField
        Of the normalized blend (others are treated as if they were).
    """

    def __init__(self, field: GaussianField) -> None:
        theta = to_theta(field)
        self._shape = np.asarray(field.info.stack_shape)
        self._prepared = np.empty((len(theta), 16), np.float32)
        prepare(theta, field.info.degree, self._prepared, 0, len(theta))
        self._budget = np.float32(np.float32(field.info.cutoff) * HALF_LOG2E)
        self._eps = np.float32(max(field.info.eps, 1e-6))
        self._cells = (self._shape // int(CELL) + 1).astype(np.int64)
        self._low = np.empty((len(theta), 3), np.int32)
        self._high = np.empty((len(theta), 3), np.int32)
        _all_bounds(self._prepared, self._budget, self._shape, self._low, self._high)

    def _near(self, points: Floats) -> NDArray[np.int64]:
        """Return the Gaussians whose boxes meet the rows, columns and slices of points."""
        kept = np.ones(len(self._prepared), np.bool_)
        for axis in range(3):
            used = np.zeros(int(self._shape[axis]) + 1, np.int64)
            used[1 + np.round(points[:, axis]).astype(np.int64)] = 1
            before = np.cumsum(used)
            kept &= before[self._high[:, axis]] > before[self._low[:, axis]]
        return np.flatnonzero(kept)

    def _cells_of(self, points: Floats) -> tuple[Any, ...]:
        """Return cell, offsets and members: which Gaussians may reach each whole voxel."""
        near = self._near(points)
        where = np.clip(points.astype(np.int64) // int(CELL), 0, self._cells - 1)
        flat = (where[:, 0] * self._cells[1] + where[:, 1]) * self._cells[2] + where[:, 2]
        used, cell_of = np.unique(flat, return_inverse=True)
        wanted = np.full(int(np.prod(self._cells)), -1, np.int32)
        wanted[used] = np.arange(len(used))
        offsets = np.zeros(len(used) + 1, np.int64)
        origin = np.zeros(3, np.float32)
        arguments = (self._prepared[near], self._budget, origin, self._cells, wanted, offsets)
        needed = int(_list_cells(*arguments, np.zeros(0, np.int32)))
        members = np.empty(max(needed, 1), np.int32)
        _list_cells(*arguments, members)
        if len(near):
            members = near[members].astype(np.int32)
        return cell_of.astype(np.int64), offsets, members

    def project(
        self, voxels: NDArray[Any], classes: NDArray[Any], strengths: NDArray[Any], count: int
    ) -> Floats:
        """Return the mass of every class that each Gaussian gets, (N, count).

        Every marked voxel gives its strength away in the shares in which the Gaussians paint it.

        Parameters
        ----------
        voxels : (P, 3) ndarray
            (z, y, x) in slice-first voxels.
        classes : (P,) ndarray of int
        strengths : (P,) ndarray of float
        """
        mass = np.zeros((len(self._prepared), count), np.float32)
        if not len(voxels):
            return mass
        points = np.ascontiguousarray(voxels, np.float32)
        cell_of, offsets, members = self._cells_of(points)
        _shares(
            points,
            np.ascontiguousarray(classes, np.int32),
            np.ascontiguousarray(strengths, np.float32),
            np.argsort(cell_of, kind="stable"),
            cell_of,
            offsets,
            members,
            self._prepared,
            self._budget,
            self._eps,
            np.empty(int(np.diff(offsets).max(initial=0)) + 1, np.float32),
            mass,
        )
        return mass

    def blend(self, points: NDArray[Any], scores: Floats) -> tuple[Floats, Floats]:
        """Return blended scores (P, K) and the rendering weight (P,) at points (P, 3)."""
        points = np.ascontiguousarray(points, np.float32)
        out = np.zeros((len(points), scores.shape[1]), np.float32)
        weight = np.zeros(len(points), np.float32)
        if not len(points):
            return out, weight
        cell_of, offsets, members = self._cells_of(points)
        order = np.argsort(cell_of, kind="stable")
        chunk = 8192

        def task(block: int) -> None:
            part = order[block * chunk : (block + 1) * chunk]
            _blend(
                points, part, cell_of, offsets, members, self._prepared,
                np.ascontiguousarray(scores, np.float32), self._budget, out, weight,
            )  # fmt: skip

        run_chunks(task, -(-len(points) // chunk))
        return out, weight
