"""Shares of the blend applied both ways: from Gaussians to voxels, and from voxels back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Doubles, Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.rendering.cpu.kernels import center_x, center_y, first_index, last_index
from napari_medgs.rendering.cpu.scores import EMPTY_WEIGHT, CpuScoreRenderer
from napari_medgs.rendering.cpu.simd import fast_exp2, fast_sqrt

BLOCKS = 8  # of slices, each summed by itself: results do not depend on the number of threads
_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz", "arcp"}}

SliceMap = Callable[[int, Floats, NDArray[np.bool_]], Floats]


@njit(**_options)
def _collect_slice(
    prepared: Any, members: Any, z: int, log2_cutoff: Any, inverse: Any, planes: Any, totals: Any
) -> None:
    """Add to every Gaussian its shares of the planes (Y, X, M) of one slice."""
    height, width, count = planes.shape
    sums = np.empty(count, np.float32)
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
        sums[:] = np.float32(0)
        for y in range(
            first_index(my - half_height, 0), last_index(my + half_height, height - 1) + 1
        ):
            dy = np.float32(y) - my
            room = left - p[5] * dy * dy
            if room < 0:
                continue
            center = mx + p[4] * dy
            half = fast_sqrt(room / p[3])
            for x in range(
                first_index(center - half, 0), last_index(center + half, width - 1) + 1
            ):
                if inverse[y, x] == 0:
                    continue
                u = np.float32(x) - center
                share = fast_exp2(p[7] - log2_cutoff + room - p[3] * u * u) * inverse[y, x]
                for m in range(count):
                    sums[m] += share * planes[y, x, m]
        for m in range(count):
            totals[i, m] += sums[m]


class ShareProjector(CpuScoreRenderer):
    """Applies the matrix of shares W (voxels x Gaussians) and its transpose.

    W_vi is the weight of Gaussian i at voxel v over the sum of all weights there, so that the
    shares at a voxel sum to 1. Voxels that nothing reaches have none. Neither matrix is stored.
    """

    @property
    def count(self) -> int:
        """Number of Gaussians."""
        return len(self._prepared)

    def collect(
        self, scores: Floats, count: int, task: SliceMap, region: NDArray[np.bool_] | None = None
    ) -> Doubles:
        """Render scores slice by slice, and bring what is made of them back to the Gaussians.

        Parameters
        ----------
        scores : (N, K) ndarray of float32
        count : int
            M, the number of planes that ``task`` returns.
        task : callable
            Called with a slice's number, the scores there (K, Y, X) and where nothing is
            rendered (Y, X); returns planes (M, Y, X) of float32. Called in several threads.
        region : (Z, Y, X) ndarray of bool, optional
            Slice-first. Voxels that count; all by default.

        Returns
        -------
        (N, M) ndarray of float64
            W^T times the planes.
        """
        scores = np.ascontiguousarray(scores, np.float32)
        depth, height, width = self.shape
        wanted = np.arange(depth) if region is None else np.flatnonzero(region.any(axis=(1, 2)))
        blocks = np.array_split(wanted, BLOCKS)
        total = np.zeros((len(self._prepared), count))
        lock, done, waiting = threading.Lock(), 0, {}

        def block(k: int) -> None:
            nonlocal done
            sums = np.zeros((len(self._prepared), count), np.float64)
            for z in blocks[k]:
                buffer = self._splat(scores, int(z), (0, height))
                sheet = np.moveaxis(buffer[:, :, :width], 1, 0)
                weight = sheet[-1]
                empty = weight < EMPTY_WEIGHT
                inverse = np.where(empty, 0, 1 / np.maximum(weight, EMPTY_WEIGHT))
                planes = task(int(z), sheet[:-1] * inverse, empty)
                if region is not None:
                    inverse[~region[z]] = 0
                _collect_slice(
                    self._prepared,
                    self._members[self._offsets[z] : self._offsets[z + 1]],
                    int(z),
                    self._log2_cutoff,
                    inverse.astype(np.float32),
                    np.ascontiguousarray(np.moveaxis(planes, 0, 2), np.float32),
                    sums,
                )
            with lock:  # added in the order of the blocks
                waiting[k] = sums
                while done in waiting:
                    total[:] += waiting.pop(done)
                    done += 1

        run_chunks(block, len(blocks), self.threads)
        return total
