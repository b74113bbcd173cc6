"""The CPU engine: render a stack, or a loss and its gradient, with all threads.

One engine serves one stack shape. Its work is split into bands: whole slices, or parts of a
slice where there are fewer slices than would keep the threads busy.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import default_threads, run_chunks
from napari_medgs.errors import ParameterError
from napari_medgs.rendering.cpu.kernels import (
    HALF_LOG2E,
    gather_kernel,
    list_slices,
    prepare,
    splat_kernel,
)
from napari_medgs.rendering.cpu.residual import blend_rows, blend_rows_backward, residual_rows
from napari_medgs.rendering.cpu.simd import LANES
from napari_medgs.rendering.engine import EngineSpec, LossAndGradient, StackTarget
from napari_medgs.rendering.parameters import GEOMETRY, check_finite

GATHER_CHUNK = 512


def row_bands(depth: int, height: int, threads: int) -> list[tuple[int, int]]:
    """Return ranges of rows, several where slices alone would not keep all threads busy."""
    bands = 1 if depth >= 4 * threads else -(-8 * threads // depth)
    bands = max(1, min(bands, height // 8))
    edges = np.linspace(0, height, bands + 1).astype(int)
    return [(int(a), int(b)) for a, b in pairwise(edges)]


class CpuEngine:
    """Renders on the CPU with the order-free blends, "normalized" and "sum".

    Implements :class:`~napari_medgs.rendering.engine.DifferentiableEngine` and
    :class:`~napari_medgs.rendering.engine.SliceVisitor`.

    Parameters
    ----------
    spec : EngineSpec
    """

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.shape, self.channels, self.degree = spec.shape, spec.channels, spec.degree
        self.background = spec.background
        self.log2_cutoff = np.float32(np.float32(spec.cutoff) * HALF_LOG2E)
        self.eps = np.float32(spec.eps)
        self.normalized = spec.blend == "normalized"
        self.threads = spec.threads or default_threads()
        depth, height, width = spec.shape
        self.padded = width + LANES
        self.bands = row_bands(depth, height, self.threads)
        self._offsets = np.zeros(depth + 1, np.int64)
        self._members = np.zeros(0, np.int32)
        self._prepared = np.zeros((0, 16), np.float32)
        self._buffer: Floats | None = None
        self._gradient = np.zeros((0, 0), np.float32)

    def _prepare(self, parameters: Floats, active: NDArray[np.bool_]) -> Floats:
        parameters = np.ascontiguousarray(parameters, np.float32)
        check_finite(parameters)
        count = len(parameters)
        if len(self._prepared) != count:
            self._prepared = np.empty((count, 16), np.float32)
        prepare(parameters, self.degree, self._prepared, 0, count)
        arguments = (self._prepared, self.log2_cutoff, active, self._offsets)
        needed = list_slices(*arguments, self._members)
        if needed > len(self._members):
            self._members = np.empty(int(needed * 1.2) + 16, np.int32)
            list_slices(*arguments, self._members)
        return np.ascontiguousarray(parameters[:, GEOMETRY:])

    def _splat(self, values: Floats, z: int, band: tuple[int, int], buffer: Floats) -> None:
        """Add the first channels, as many as the buffer (rows, C + 1, padded) has, and weights."""
        members = self._members[self._offsets[z] : self._offsets[z + 1]]
        flat = buffer.reshape(-1)
        flat.fill(0)
        splat_kernel(buffer.shape[1] - 1)(
            self._prepared, values, members, z, *band, self.shape[2], self.log2_cutoff, flat
        )

    def render(self, parameters: Floats, slices: NDArray[Any] | None = None) -> Floats:
        """Render all or some slices; see :meth:`Engine.render`."""
        depth, height, width = self.shape
        wanted = np.arange(depth) if slices is None else np.asarray(slices)
        active = np.zeros(depth, np.bool_)
        active[wanted] = True
        values = self._prepare(parameters, active)
        out = np.empty((self.channels, len(wanted), height, width), np.float32)

        def task(k: int) -> None:
            index, band = divmod(k, len(self.bands))
            y0, y1 = self.bands[band]
            buffer = np.empty((y1 - y0, self.channels + 1, self.padded), np.float32)
            self._splat(values, int(wanted[index]), (y0, y1), buffer)
            blend_rows(buffer, self.normalized, self.eps, self.background, out[:, index, y0:y1])

        run_chunks(task, len(wanted) * len(self.bands), self.threads)
        return out

    def visit_slices(
        self, parameters: Floats, slices: NDArray[Any], visit: Callable[[int, Floats], None]
    ) -> None:
        """Render slice by slice; see :meth:`SliceVisitor.visit_slices`."""
        depth, height, width = self.shape
        active = np.zeros(depth, np.bool_)
        active[slices] = True
        values = self._prepare(parameters, active)

        def task(k: int) -> None:
            z = int(slices[k])
            buffer = np.empty((height, self.channels + 1, self.padded), np.float32)
            self._splat(values, z, (0, height), buffer)
            rendered = np.empty((self.channels, height, width), np.float32)
            blend_rows(buffer, self.normalized, self.eps, self.background, rendered)
            visit(z, rendered)

        run_chunks(task, len(slices), self.threads)

    def loss_and_gradient(self, parameters: Floats, target: StackTarget) -> LossAndGradient:
        """Return errors and gradient; see :meth:`Engine.loss_and_gradient`."""
        active, counted = target.active, target.counted
        unscored = target.weighted & ~counted
        self._whole_buffer()  # made before threads ask for it
        # Classes are rendered only where labels count; the images come first among the channels.
        labeled = active & (target.seg_weights > 0) if target.classes else active
        values = self._prepare(parameters, active)
        wanted = np.flatnonzero(active)
        sums = np.zeros((len(wanted) * len(self.bands), 3))
        no_labels = np.zeros((0, 0), np.uint8)

        def forward(k: int) -> None:
            index, band = divmod(k, len(self.bands))
            z = int(wanted[index])
            y0, y1 = self.bands[band]
            classes = target.classes if labeled[z] else 0
            buffer = self._slice_buffer(z, len(target.images) + classes)[y0:y1]
            self._splat(values, z, (y0, y1), buffer)
            residual_rows(
                buffer,
                self.normalized,
                self.eps,
                self.background,
                target.images[:, z, y0:y1],
                target.image_weights[:, z],
                target.l1,
                target.labels[z, y0:y1] if classes else no_labels,
                classes,
                target.seg_weights[z],
                np.empty((classes + 4, self.padded), np.float32),
                sums[k],
            )
            if not counted[z]:
                sums[k, 2] = sums[k, 0] * unscored[z]
                sums[k, 0] = 0.0

        run_chunks(forward, len(sums), self.threads)
        gradient = self._gather(parameters, values, labeled)
        if not np.array_equal(active, labeled):
            self._add_images(gradient, values, active & ~labeled, len(target.images))
        image_error, label_error, unscored_error = (float(v) for v in sums.sum(axis=0))
        return LossAndGradient(image_error, label_error, gradient, unscored_error)

    def backward(
        self, parameters: Floats, grad_output: Floats, slices: NDArray[Any] | None = None
    ) -> Floats:
        """Return the vector-Jacobian product; see :meth:`DifferentiableEngine.backward`."""
        depth, height, width = self.shape
        wanted = np.arange(depth) if slices is None else np.asarray(slices)
        given = np.ascontiguousarray(grad_output, np.float32)
        expected = (self.channels, len(wanted), height, width)
        if given.shape != expected:
            raise ParameterError(f"grad_output has shape {given.shape}, expected {expected}.")
        active = np.zeros(depth, np.bool_)
        active[wanted] = True
        whole = self._whole_buffer()
        values = self._prepare(parameters, active)

        def forward(k: int) -> None:
            index, band = divmod(k, len(self.bands))
            z = int(wanted[index])
            y0, y1 = self.bands[band]
            buffer = whole[z, y0:y1]
            self._splat(values, z, (y0, y1), buffer)
            blend_rows_backward(
                buffer, self.normalized, self.eps, self.background, given[:, index, y0:y1]
            )

        run_chunks(forward, len(wanted) * len(self.bands), self.threads)
        return self._gather(parameters, values, active).copy()

    def _whole_buffer(self) -> Floats:
        """Return the buffer of all slices, made at the first call."""
        if self._buffer is None:
            depth, height, _ = self.shape
            self._buffer = np.zeros((depth, height, self.channels + 1, self.padded), np.float32)
        return self._buffer

    def _slice_buffer(self, z: int, channels: int) -> Floats:
        """Return the buffer (rows, channels + 1, padded) of a slice for its first channels."""
        _, height, _ = self.shape
        used = height * (channels + 1) * self.padded
        return (
            self._whole_buffer()[z].reshape(-1)[:used].reshape(height, channels + 1, self.padded)
        )

    def _gather(self, parameters: Floats, values: Floats, active: NDArray[np.bool_]) -> Floats:
        """Turn the derivatives in the buffer into the gradient of the table."""
        if self._gradient.shape != parameters.shape:
            self._gradient = np.empty(parameters.shape, np.float32)
        self._gather_channels(values, active, self.channels, self._gradient)
        return self._gradient

    def _add_images(
        self, gradient: Floats, values: Floats, active: NDArray[np.bool_], images: int
    ) -> None:
        """Add what slices that hold only images in the buffer give to the gradient."""
        if active.any():
            part = np.empty((len(gradient), GEOMETRY + images), np.float32)
            self._gather_channels(values, active, images, part)
            gradient[:, : GEOMETRY + images] += part

    def _gather_channels(
        self, values: Floats, active: NDArray[np.bool_], channels: int, out: Floats
    ) -> None:
        """Write the gradient (N, 14 + channels) of slices with so many channels in the buffer."""
        flat, gather = self._whole_buffer().reshape(-1), gather_kernel(channels)
        depth, height, width = self.shape
        count = len(out)
        slice_stride = flat.size // depth

        def backward(k: int) -> None:
            first, last = k * GATHER_CHUNK, min(count, (k + 1) * GATHER_CHUNK)
            gather(
                self._prepared,
                values,
                first,
                last,
                active,
                height,
                width,
                slice_stride,
                self.log2_cutoff,
                self.degree,
                flat,
                out,
            )

        run_chunks(backward, -(-count // GATHER_CHUNK), self.threads)
