"""The CPU engine: render a stack, or a loss and its gradient, with all threads.

One engine serves one stack shape. Its work is split into bands: whole slices, or parts of a
slice where there are fewer slices than would keep the threads busy.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import default_threads, run_chunks
from napari_medgs.data.field import Blend
from napari_medgs.rendering.cpu.kernels import (
    HALF_LOG2E,
    gather_kernel,
    list_slices,
    prepare,
    splat_kernel,
)
from napari_medgs.rendering.cpu.residual import blend_rows, residual_rows
from napari_medgs.rendering.cpu.simd import LANES
from napari_medgs.rendering.parameters import GEOMETRY

GATHER_CHUNK = 512


@dataclass
class StackTarget:
    """What a stack should look like, slice-first.

    Attributes
    ----------
    images : (M, Z, Y, X) ndarray of float32
    image_weights : (M, Z) ndarray of float32
        Loss weight of each channel in each slice; 0 leaves a slice out.
    labels : (Z, Y, X) ndarray of uint8
        Class indices, 255 where unlabelled; (0, 0, 0) without classes.
    seg_weights : (Z,) ndarray of float32
        Loss weight of the labels in each slice.
    classes : int
    l1 : bool
        Absolute instead of squared image errors.
    scored : (Z,) ndarray of bool, optional
        Slices whose squared errors count as the image's; all of positive weight by default.
    """

    images: Floats
    image_weights: Floats
    labels: NDArray[np.uint8]
    seg_weights: Floats
    classes: int = 0
    l1: bool = False
    scored: NDArray[np.bool_] | None = None

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Slices of positive image weight whose squared errors are summed, (Z,)."""
        used: NDArray[np.bool_] = np.any(self.image_weights > 0, axis=0)
        return used if self.scored is None else used & self.scored

    @property
    def active(self) -> NDArray[np.bool_]:
        """Slices that carry any loss, (Z,)."""
        used: NDArray[np.bool_] = np.any(self.image_weights > 0, axis=0)
        if self.classes:
            used = used | (self.seg_weights > 0)
        return used


class CpuEngine:
    """Renders parameter tables ``theta`` (N, 14 + C) over one stack.

    Parameters
    ----------
    shape : tuple of int
        (slices, rows, columns).
    channels : int
        C, all heads together.
    background : (C,) ndarray
    degree : int
        Fold degree, 0 to 3.
    cutoff, eps : float
        See :class:`~napari_medgs.data.field.FieldInfo`.
    blend : {"normalized", "sum"}
    threads : int, optional

    Attributes
    ----------
    squares_between : float
        Squared image error, in the last call of :meth:`loss_and_gradient`, of the slices that
        have a weight and do not count.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: int,
        background: Floats,
        *,
        degree: int,
        cutoff: float,
        eps: float,
        blend: Blend = "normalized",
        threads: int | None = None,
    ) -> None:
        self.shape, self.channels, self.degree = shape, channels, degree
        self.background = np.ascontiguousarray(background, np.float32)
        self.budget = np.float32(np.float32(cutoff) * HALF_LOG2E)
        self.eps = np.float32(eps)
        self.normalized = blend == "normalized"
        self.threads = threads or default_threads()
        depth, height, width = shape
        self.padded = width + LANES
        bands = 1 if depth >= 4 * self.threads else -(-8 * self.threads // depth)
        bands = max(1, min(bands, height // 8))
        edges = np.linspace(0, height, bands + 1).astype(int)
        self.bands = [(int(a), int(b)) for a, b in pairwise(edges)]
        self._offsets = np.zeros(depth + 1, np.int64)
        self._members = np.zeros(0, np.int32)
        self._prepared = np.zeros((0, 16), np.float32)
        self._buffer: Floats | None = None
        self._gradient = np.zeros((0, 0), np.float32)
        self.squares_between = 0.0

    def _prepare(self, theta: Floats, active: NDArray[np.bool_]) -> Floats:
        count = len(theta)
        if len(self._prepared) != count:
            self._prepared = np.empty((count, 16), np.float32)
        prepare(theta, self.degree, self._prepared, 0, count)
        arguments = (self._prepared, self.budget, active, self._offsets)
        needed = list_slices(*arguments, self._members)
        if needed > len(self._members):
            self._members = np.empty(int(needed * 1.2) + 16, np.int32)
            list_slices(*arguments, self._members)
        return np.ascontiguousarray(theta[:, GEOMETRY:])

    def _splat(self, values: Floats, z: int, band: tuple[int, int], buffer: Floats) -> None:
        members = self._members[self._offsets[z] : self._offsets[z + 1]]
        flat = buffer.reshape(-1)
        flat.fill(0)
        splat_kernel(self.channels)(
            self._prepared, values, members, z, *band, self.shape[2], self.budget, flat
        )

    def render(self, theta: Floats, slices: NDArray[Any] | None = None) -> Floats:
        """Return blended channels (C, slices, Y, X) of all or some slices.

        Parameters
        ----------
        theta : (N, 14 + C) ndarray of float32
            Columns as in :mod:`napari_medgs.rendering.cpu.kernels`.
        slices : ndarray of int, optional
            Increasing indices of the slices wanted.
        """
        depth, height, width = self.shape
        wanted = np.arange(depth) if slices is None else np.asarray(slices)
        active = np.zeros(depth, np.bool_)
        active[wanted] = True
        values = self._prepare(theta, active)
        out = np.empty((self.channels, len(wanted), height, width), np.float32)

        def task(k: int) -> None:
            index, band = divmod(k, len(self.bands))
            y0, y1 = self.bands[band]
            buffer = np.empty((y1 - y0, self.channels + 1, self.padded), np.float32)
            self._splat(values, int(wanted[index]), (y0, y1), buffer)
            blend_rows(buffer, self.normalized, self.eps, self.background, out[:, index, y0:y1])

        run_chunks(task, len(wanted) * len(self.bands), self.threads)
        return out

    def loss_and_gradient(self, theta: Floats, target: StackTarget) -> tuple[float, float, Floats]:
        """Return image error, label error and the gradient of the loss.

        The loss is half the weighted squared error (or the weighted absolute error) of the
        image channels plus the weighted softmax cross-entropy of the class logits.

        Returns
        -------
        squares : float
            Unweighted sum of squared image errors over the slices that count.
        miss : float
            Sum over labelled voxels of one minus the probability of the true class.
        gradient : (N, 14 + C) ndarray of float32
            Reused by the next call.
        """
        depth, height, _ = self.shape
        planes = self.channels + 1
        active, counted = target.active, target.counted
        between = np.any(target.image_weights > 0, axis=0) & ~counted
        if self._buffer is None:
            self._buffer = np.zeros((depth, height, planes, self.padded), np.float32)
        whole = self._buffer
        values = self._prepare(theta, active)
        wanted = np.flatnonzero(active)
        sums = np.zeros((len(wanted) * len(self.bands), 3))
        no_labels = np.zeros((0, 0), np.uint8)

        def forward(k: int) -> None:
            index, band = divmod(k, len(self.bands))
            z = int(wanted[index])
            y0, y1 = self.bands[band]
            buffer = whole[z, y0:y1]
            self._splat(values, z, (y0, y1), buffer)
            residual_rows(
                buffer,
                self.normalized,
                self.eps,
                self.background,
                target.images[:, z, y0:y1],
                target.image_weights[:, z],
                target.l1,
                target.labels[z, y0:y1] if target.classes else no_labels,
                target.classes,
                target.seg_weights[z],
                np.empty((target.classes + 4, self.padded), np.float32),
                sums[k],
            )
            if not counted[z]:
                sums[k, 2] = sums[k, 0] * between[z]
                sums[k, 0] = 0.0

        run_chunks(forward, len(sums), self.threads)
        if self._gradient.shape != theta.shape:
            self._gradient = np.empty(theta.shape, np.float32)
        flat, gather = whole.reshape(-1), gather_kernel(self.channels)
        count = len(theta)

        def backward(k: int) -> None:
            first, last = k * GATHER_CHUNK, min(count, (k + 1) * GATHER_CHUNK)
            gather(
                self._prepared,
                values,
                first,
                last,
                active,
                height,
                self.shape[2],
                self.budget,
                self.degree,
                flat,
                self._gradient,
            )

        run_chunks(backward, -(-count // GATHER_CHUNK), self.threads)
        squares, miss, self.squares_between = (float(v) for v in sums.sum(axis=0))
        return squares, miss, self._gradient
