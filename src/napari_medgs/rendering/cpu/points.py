"""Render at scattered points: cells of the slice-first grid list the Gaussians that reach them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.arrays import sorted_unique
from napari_medgs._util.threads import run_chunks
from napari_medgs.data.field import GaussianField
from napari_medgs.errors import BackendError
from napari_medgs.rendering.cpu.kernels import HALF_LOG2E, center_x, center_y, prepare
from napari_medgs.rendering.cpu.simd import fast_exp2
from napari_medgs.rendering.parameters import GEOMETRY, check_finite, to_parameters

CELL = 4.0  # voxels
_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz", "arcp"}}


@njit(**_options)
def _bounds(p: Any, log2_cutoff: Any, low: Any, high: Any) -> None:
    """Write the box (z, y, x) that a prepared Gaussian reaches, folds included."""
    half = np.sqrt(log2_cutoff / p[6])
    low[0], high[0] = p[2] - half, p[2] + half
    bend_x = abs(p[8]) * half + abs(p[9]) * half**2 + abs(p[10]) * half**3
    bend_y = abs(p[11]) * half + abs(p[12]) * half**2 + abs(p[13]) * half**3
    reach_y = np.sqrt(log2_cutoff / p[5])
    # Widest chord of the sheared ellipse.
    reach_x = np.sqrt(log2_cutoff / p[3] + p[4] ** 2 * log2_cutoff / p[5])
    low[1], high[1] = p[1] - reach_y - bend_y, p[1] + reach_y + bend_y
    low[2], high[2] = p[0] - reach_x - bend_x, p[0] + reach_x + bend_x


@njit(**_options)
def _list_cells(
    prepared: Any,
    log2_cutoff: Any,
    origin: Any,
    cells: Any,
    wanted: Any,
    offsets: Any,
    members: Any,
) -> int:
    """Fill the compressed list wanted cell -> Gaussians, or count when members is too small."""
    low, high = np.zeros(3, np.float32), np.zeros(3, np.float32)
    first, last = np.zeros(3, np.int64), np.zeros(3, np.int64)
    fill = len(members) > 0
    position = offsets.copy()
    if not fill:
        offsets[:] = 0
    for i in range(len(prepared)):
        _bounds(prepared[i], log2_cutoff, low, high)
        for axis in range(3):
            a = np.floor((low[axis] - origin[axis]) / np.float32(CELL))
            b = np.floor((high[axis] - origin[axis]) / np.float32(CELL))
            first[axis] = np.int64(max(a, np.float32(0)))
            last[axis] = np.int64(min(b, np.float32(cells[axis] - 1)))
        for cz in range(first[0], last[0] + 1):
            for cy in range(first[1], last[1] + 1):
                for cx in range(first[2], last[2] + 1):
                    cell = wanted[(cz * cells[1] + cy) * cells[2] + cx]
                    if cell < 0:
                        continue
                    if fill:
                        members[position[cell]] = i
                        position[cell] += 1
                    else:
                        offsets[cell + 1] += 1
    if not fill:
        for cell in range(len(offsets) - 1):
            offsets[cell + 1] += offsets[cell]
    return offsets[-1]


@njit(**_options)
def _evaluate(
    points: Any,
    order: Any,
    cell_of: Any,
    offsets: Any,
    members: Any,
    prepared: Any,
    values: Any,
    log2_cutoff: Any,
    normalized: bool,
    eps: Any,
    background: Any,
    start: int,
    stop: int,
    out: Any,
) -> None:
    channels = values.shape[1]
    for k in range(start, stop):
        index = order[k]
        z, y, x = points[index]
        weight = np.float32(0)
        result = out[index]
        result[:] = 0
        cell = cell_of[index]
        for m in range(offsets[cell], offsets[cell + 1]):
            i = members[m]
            p = prepared[i]
            d = z - p[2]
            left = log2_cutoff - p[6] * d * d
            if left < 0:
                continue
            dy = y - center_y(p, d)
            left -= p[5] * dy * dy
            if left < 0:
                continue
            u = x - center_x(p, d) - p[4] * dy
            left -= p[3] * u * u
            if left < 0:
                continue
            g = fast_exp2(p[7] - log2_cutoff + left)
            weight += g
            for c in range(channels):
                result[c] += g * values[i, c]
        if normalized:
            inverse = np.float32(1) / (weight + eps)
            for c in range(channels):
                result[c] = (result[c] + eps * background[c]) * inverse
        else:
            for c in range(channels):
                result[c] += background[c]


def render_at_points(
    field: GaussianField, points: NDArray[np.float32], threads: int | None = None
) -> Floats:
    """Render all channels at points (P, 3), (slice, row, column) in voxels; return (P, C).

    Raises
    ------
    BackendError
        For the alpha blend, which is defined on whole slices.
    """
    info = field.info
    if info.blend == "alpha":
        raise BackendError("Fields of the blend 'alpha' can only be rendered on their own grid.")
    parameters = to_parameters(field)
    values = np.ascontiguousarray(parameters[:, GEOMETRY:])
    prepared = np.empty((len(parameters), 16), np.float32)
    check_finite(parameters)
    prepare(parameters, info.degree, prepared, 0, len(parameters))
    log2_cutoff = np.float32(np.float32(info.cutoff) * HALF_LOG2E)
    out = np.empty((len(points), info.channels), np.float32)
    if not len(points):
        return out
    points = np.ascontiguousarray(points, np.float32)
    # Points off the stack see no more than those at its rim would: clamp the cells to a shell.
    reach = 8 * CELL
    low = np.maximum(points.min(axis=0), -reach)
    high = np.minimum(points.max(axis=0), np.asarray(info.stack_shape) + reach)
    high = np.maximum(high, low)
    cells = (np.floor((high - low) / CELL) + 1).astype(np.int64)
    where = np.floor((points - low) / np.float32(CELL)).astype(np.int64)
    outside = ((where < 0) | (where >= cells)).any(axis=1)
    where = np.clip(where, 0, cells - 1)
    flat = (where[:, 0] * cells[1] + where[:, 1]) * cells[2] + where[:, 2]
    used = sorted_unique(flat)
    wanted = np.full(int(np.prod(cells)), -1, np.int32)
    wanted[used] = np.arange(len(used))
    cell_of = wanted[flat]
    offsets = np.zeros(len(used) + 1, np.int64)
    arguments = (prepared, log2_cutoff, low.astype(np.float32), cells, wanted, offsets)
    needed = _list_cells(*arguments, np.zeros(0, np.int32))
    members = np.empty(max(int(needed), 1), np.int32)
    _list_cells(*arguments, members)
    order = np.argsort(cell_of, kind="stable")
    chunk = 16384

    def task(k: int) -> None:
        start = k * chunk
        _evaluate(
            points,
            order,
            cell_of,
            offsets,
            members,
            prepared,
            values,
            log2_cutoff,
            info.blend == "normalized",
            np.float32(info.eps),
            field.background,
            start,
            min(len(points), start + chunk),
            out,
        )

    run_chunks(task, -(-len(points) // chunk), threads)
    if outside.any():
        out[outside] = field.background
    return out
