"""Class scores of Gaussians rendered to labels, slice by slice, without storing score volumes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import default_threads, run_chunks
from napari_medgs.data.field import GaussianField
from napari_medgs.rendering.cpu.engine import row_bands
from napari_medgs.rendering.cpu.kernels import (
    P_INV2,
    P_WIDE,
    center_x,
    center_y,
    first_index,
    last_index,
    splat_kernel,
)
from napari_medgs.rendering.cpu.simd import LANES, fast_exp2, fast_sqrt
from napari_medgs.rendering.cpu.slice_members import SliceMembers
from napari_medgs.rendering.engine import Backprojection

EMPTY_WEIGHT = np.float32(0.02)  # sum of weights below which a voxel counts as empty space
_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz", "arcp"}}


@njit(**_options)
def _argmax(buffer: Any, x0: int, x1: int, labels: Any, best: Any, margin: Any) -> None:
    """Write the best class, its score and its margin over the second, in columns x0 .. x1 - 1."""
    rows, planes, _ = buffer.shape
    classes = planes - 1
    for y in range(rows):
        for x in range(x0, x1):
            weight = buffer[y, classes, x]
            if weight < EMPTY_WEIGHT:
                labels[y, x], best[y, x], margin[y, x] = 0, np.float32(-3e38), np.float32(3e38)
                continue
            first, second = np.float32(-3e38), np.float32(-3e38)
            leader = 0
            for k in range(classes):
                value = buffer[y, k, x]
                if value > first:
                    second, first, leader = first, value, k
                elif value > second:
                    second = value
            inverse = np.float32(1) / weight
            labels[y, x] = leader
            best[y, x] = first * inverse
            margin[y, x] = (first - second) * inverse


@njit(**_options)
def _reach_windows(
    prepared: Any, offsets: Any, members: Any, chosen: Any, log2_cutoff: Any, windows: Any
) -> None:
    """Grow windows (D, 2, 2) of empty rows and columns by what the chosen Gaussians reach."""
    for z in range(len(offsets) - 1):
        window = windows[z]
        for index in range(offsets[z], offsets[z + 1]):
            i = members[index]
            if not chosen[i]:
                continue
            p = prepared[i]
            d = np.float32(z) - p[2]
            left = log2_cutoff - p[6] * d * d
            if left <= 0:
                continue
            root = fast_sqrt(left)
            my = center_y(p, d)
            mx = center_x(p, d)
            tall, wide = root * p[P_INV2] + np.float32(1), root * p[P_WIDE] + np.float32(1)
            window[0, 0] = min(window[0, 0], np.int32(np.floor(my - tall)))
            window[0, 1] = max(window[0, 1], np.int32(np.ceil(my + tall)) + 1)
            window[1, 0] = min(window[1, 0], np.int32(np.floor(mx - wide)))
            window[1, 1] = max(window[1, 1], np.int32(np.ceil(mx + wide)) + 1)


@njit(**_options)
def _backproject_slice(
    prepared: Any,
    members: Any,
    z: int,
    log2_cutoff: Any,
    eps: Any,
    row_offsets: Any,
    first_row: int,
    columns: Any,
    classes: Any,
    mass: Any,
    squares: Any,
    leader: Any,
) -> None:
    """Distribute one slice's labeled voxels in the proportions in which Gaussians render them.

    The voxels are sorted by row, then column; those of row ``first_row + r`` lie from
    ``row_offsets[r]`` to ``row_offsets[r + 1]``. Adds to ``mass`` (N, K) and ``squares`` (N,),
    and fills ``leader`` (P,).
    """
    rows = len(row_offsets) - 1
    weight = np.full(len(columns), eps, np.float32)
    largest = np.zeros(len(columns), np.float32)
    for turn in range(2):
        for index in range(len(members)):
            i = members[index]
            p = prepared[i]
            d = np.float32(z) - p[2]
            left = log2_cutoff - p[6] * d * d
            if left <= 0:
                continue
            my = center_y(p, d)
            mx = center_x(p, d)
            half_height = fast_sqrt(left / p[5])
            low = first_index(my - half_height, first_row) - first_row
            high = last_index(my + half_height, first_row + rows - 1) - first_row
            for r in range(low, high + 1):
                if row_offsets[r] == row_offsets[r + 1]:
                    continue
                dy = np.float32(r + first_row) - my
                room = left - p[5] * dy * dy
                if room < 0:
                    continue
                center = mx + p[4] * dy
                half = fast_sqrt(room / p[3])
                for m in range(row_offsets[r], row_offsets[r + 1]):
                    u = np.float32(columns[m]) - center
                    if u > half:
                        break
                    if u < -half:
                        continue
                    g = fast_exp2(p[7] - log2_cutoff + room - p[3] * u * u)
                    if turn == 0:
                        weight[m] += g
                    else:
                        share = g / weight[m]
                        mass[i, classes[m]] += share
                        squares[i] += share * share
                        if share > largest[m]:
                            largest[m] = share
                            leader[m] = i


@njit(**_options)
def _blend_column(
    prepared: Any, scores: Any, members: Any, z: int, column: int, log2_cutoff: Any, out: Any
) -> None:
    """Add one slice's Gaussians to one column of voxels; ``out`` (rows, K + 1) ends in weights."""
    rows, classes = out.shape[0], out.shape[1] - 1
    for index in range(len(members)):
        i = members[index]
        p = prepared[i]
        d = np.float32(z) - p[2]
        left = log2_cutoff - p[6] * d * d
        if left <= 0:
            continue
        mx = center_x(p, d)
        half_width = np.float32(column) - mx
        if half_width * half_width > left * p[P_WIDE] * p[P_WIDE]:
            continue
        my = center_y(p, d)
        half_height = fast_sqrt(left / p[5])
        for y in range(
            first_index(my - half_height, 0), last_index(my + half_height, rows - 1) + 1
        ):
            dy = np.float32(y) - my
            u = half_width - p[4] * dy
            room = left - p[5] * dy * dy - p[3] * u * u
            if room < 0:
                continue
            g = fast_exp2(p[7] - log2_cutoff + room)
            for k in range(classes):
                out[y, k] += g * scores[i, k]
            out[y, classes] += g


class CpuScoreRenderer:
    """Renders class scores on the CPU.

    Implements :class:`~napari_medgs.rendering.engine.ScoreRenderer`.

    Parameters
    ----------
    field : GaussianField
        Its geometry is prepared once; its values are not looked at.
    threads : int, optional
        CPU threads; the limit in force by default.
    """

    def __init__(self, field: GaussianField, threads: int | None = None) -> None:
        self.threads = threads
        self.shape = field.info.stack_shape
        slices = SliceMembers.of_field(field)
        self._prepared, self._log2_cutoff = slices.prepared, slices.log2_cutoff
        self._offsets, self._members = slices.offsets, slices.members
        self._eps = np.float32(max(field.info.eps, 1e-6))

    def _splat(self, scores: Floats, z: int, rows: tuple[int, int]) -> Floats:
        height, width, planes = rows[1] - rows[0], self.shape[2], scores.shape[1] + 1
        buffer = np.zeros((height, planes, width + LANES), np.float32)
        members = self._members[self._offsets[z] : self._offsets[z + 1]]
        splat_kernel(planes - 1)(
            self._prepared, scores, members, z, *rows, width, self._log2_cutoff, buffer.reshape(-1)
        )
        return buffer

    def argmax(
        self,
        scores: Floats,
        labels: NDArray[np.uint8],
        best: Floats,
        margin: Floats,
        windows: NDArray[np.int32] | None = None,
    ) -> None:
        """Fill labels, best score and margin; see :meth:`ScoreRenderer.argmax`."""
        scores = np.ascontiguousarray(scores, np.float32)
        depth, height, width = self.shape
        bands = row_bands(depth, height, self.threads or default_threads())

        def task(k: int) -> None:
            z, band = divmod(k, len(bands))
            (y0, y1), (x0, x1) = bands[band], (0, width)
            if windows is not None:
                y0, y1 = max(y0, int(windows[z, 0, 0])), min(y1, int(windows[z, 0, 1]))
                x0, x1 = int(windows[z, 1, 0]), int(windows[z, 1, 1])
                if y0 >= y1 or x0 >= x1:
                    return
            buffer = self._splat(scores, z, (y0, y1))
            _argmax(buffer, x0, x1, labels[z, y0:y1], best[z, y0:y1], margin[z, y0:y1])

        run_chunks(task, depth * len(bands), self.threads)

    def windows(self, chosen: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Return rows and columns that Gaussians reach; see :meth:`ScoreRenderer.windows`."""
        depth, height, width = self.shape
        out = np.empty((depth, 2, 2), np.int32)
        out[:, :, 0], out[:, :, 1] = np.iinfo(np.int32).max, np.iinfo(np.int32).min
        _reach_windows(
            self._prepared, self._offsets, self._members, chosen, self._log2_cutoff, out
        )
        np.clip(out, 0, np.array([height, width], np.int32)[:, None], out=out)
        return out

    def render_slice(self, scores: Floats, z: int) -> tuple[Floats, NDArray[np.bool_]]:
        """Return one slice's scores (K, Y, X) and where nothing is rendered (Y, X)."""
        buffer = self._splat(np.ascontiguousarray(scores, np.float32), z, (0, self.shape[1]))
        return _normalize(np.moveaxis(buffer[:, :, : self.shape[2]], 1, 0))

    def render_plane(
        self, scores: Floats, axis: int, index: int
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Render scores in a plane; see :meth:`ScoreRenderer.render_plane`."""
        scores = np.ascontiguousarray(scores, np.float32)
        if axis == 0:
            return self.render_slice(scores, index)
        depth, height, width = self.shape
        planes = scores.shape[1] + 1
        out = np.zeros((depth, width if axis == 1 else height, planes), np.float32)

        def task(z: int) -> None:
            if axis == 1:
                row = self._splat(scores, z, (index, index + 1))[0, :, :width]
                out[z] = row.T
            else:
                members = self._members[self._offsets[z] : self._offsets[z + 1]]
                _blend_column(self._prepared, scores, members, z, index, self._log2_cutoff, out[z])

        run_chunks(task, depth, self.threads)
        return _normalize(np.moveaxis(out, 2, 0))

    def backproject(
        self, voxels: NDArray[Any], classes: NDArray[Any], count: int
    ) -> Backprojection:
        """Distribute labeled voxels to Gaussians; see :meth:`ScoreRenderer.backproject`."""
        gaussians = len(self._prepared)
        mass = np.zeros((gaussians, count), np.float32)
        squares = np.zeros(gaussians, np.float32)
        leader = np.full(len(voxels), -1, np.int32)
        order = np.lexsort((voxels[:, 2], voxels[:, 1], voxels[:, 0]))
        voxels, classes = voxels[order], np.asarray(classes)[order].astype(np.int32)
        slices, starts = np.unique(voxels[:, 0], return_index=True)
        stops = np.append(starts, len(voxels))[1:]
        for z, start, stop in zip(slices, starts, stops, strict=True):
            rows = voxels[start:stop, 1]
            offsets = np.searchsorted(rows, np.arange(rows[0], rows[-1] + 2))
            _backproject_slice(
                self._prepared,
                self._members[self._offsets[z] : self._offsets[z + 1]],
                int(z),
                self._log2_cutoff,
                self._eps,
                offsets.astype(np.int64),
                int(rows[0]),
                voxels[start:stop, 2].astype(np.int32),
                classes[start:stop],
                mass,
                squares,
                leader[start:stop],
            )
        share = squares / np.maximum(mass.sum(axis=1), np.finfo(np.float32).tiny)
        in_order = np.empty_like(leader)
        in_order[order] = leader
        return Backprojection(mass, share, in_order)

    def empty_mask(self) -> NDArray[np.bool_]:
        """Return where nothing is rendered, (Z, Y, X)."""
        empty = np.empty(self.shape, np.bool_)
        scores = np.zeros((len(self._prepared), 1), np.float32)

        def task(z: int) -> None:
            empty[z] = self.render_slice(scores, z)[1]

        run_chunks(task, self.shape[0], self.threads)
        return empty


def _normalize(sums: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Divide sums (K + 1, ...) by their weights; tell where there are none."""
    weight = sums[-1]
    empty: NDArray[np.bool_] = weight < EMPTY_WEIGHT
    return np.ascontiguousarray(sums[:-1] / np.maximum(weight, EMPTY_WEIGHT)), empty
