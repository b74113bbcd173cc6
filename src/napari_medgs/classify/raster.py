"""Gaussians of many small images on a grid, compiled: what a network reads of them in training.

Same results as :func:`~napari_medgs.classify.fits.blend` and
:func:`~napari_medgs.classify.grid_networks.occupancy`, without derivatives. The loops over
points hold no calls and no sums over lanes, so that LLVM makes vectors of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba as nb
import numpy as np
import torch

from napari_medgs.classify.gaussians import grid_points, log_terms, monomials
from napari_medgs.parallel import run_chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medgs.classify.gaussians import GaussianSet

FAST = {"contract", "nnan", "ninf", "nsz", "arcp"}
LOG2E = math.log2(math.e)
# Least-squares polynomial of 2^f on [0, 1], relative error 4e-7.
C1, C2, C3 = np.float32(0.69315159), np.float32(0.24016431), np.float32(0.05579394)
C4, C5 = np.float32(0.00903089), np.float32(0.00185888)
BLOCK = 128  # points at once: a Gaussian's exponents there stay in the fastest cache


def rasterize(
    gaussians: GaussianSet, grid: tuple[int, ...], widths: tuple[float, ...], *, threads: int = 1
) -> NDArray[np.float32]:
    """Return images on a grid of cells over the whole image.

    Parameters
    ----------
    gaussians : GaussianSet
        On the CPU. Those of shapes (``mass``) are added up, others blended.
    grid : (D,) tuple of int
        Cells along each axis.
    widths : (D,) tuple of float
        Variance that every Gaussian gains along each axis, in voxels squared.
    threads : int

    Returns
    -------
    (B, C, *grid) float32 ndarray
        The values, or the occupancy (C = 1).
    """
    d, count = gaussians.ndim, len(gaussians)
    spread = gaussians.covariances + torch.diag(torch.tensor(widths)).to(gaussians.covariances)
    precisions = torch.linalg.inv(spread)
    constant = gaussians.weights.clamp_min(1e-20).log()
    if gaussians.mass:
        constant = constant + 0.5 * (torch.linalg.det(precisions) / (2 * torch.pi) ** d).log()
    middle = gaussians.center()
    terms = (log_terms(gaussians.means - middle, precisions, constant) * LOG2E).mT.contiguous()
    points = monomials(grid_points(gaussians.shape, grid) - middle).mT.contiguous()
    values = gaussians.values.mT.contiguous()
    channels = 1 if gaussians.mass else values.shape[1]
    out = np.empty((count, channels, points.shape[1]), np.float32)
    step = max(1, -(-count // threads))

    def some(chunk: int) -> None:
        part = slice(chunk * step, min(count, (chunk + 1) * step))
        _raster(terms[part].numpy(), points.numpy(), values[part].numpy(), gaussians.mass,
                out[part])  # fmt: skip

    run_chunks(some, -(-count // step), threads)
    return out.reshape(count, channels, *grid)


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _raster(terms, points, values, mass, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` (B, C, P) from terms (B, N, M), monomials (M, P) and values (B, C, N)."""
    count, n, many = terms.shape
    channels, places = out.shape[1:]
    exponents = np.zeros((n, BLOCK), np.float32)
    highest = np.zeros(BLOCK, np.float32)
    total = np.zeros(BLOCK, np.float32)
    fraction = np.zeros(BLOCK, np.float32)
    bits = np.zeros(BLOCK, np.int32)
    power = bits.view(np.float32)
    sums = np.zeros((channels, BLOCK), np.float32)
    some = np.zeros((many, BLOCK), np.float32)
    for first in range(0, places, BLOCK):
        w = min(BLOCK, places - first)
        some[:, :w] = points[:, first : first + w]
        for b in range(count):
            highest[:] = np.float32(0) if mass else np.float32(-1e30)
            for k in range(n):
                _exponents(terms[b, k], some, exponents[k])
                if not mass:
                    _raise(highest, exponents[k])
            total[:] = 0
            sums[:] = 0
            for k in range(n):
                _power_of_two(exponents[k], highest, fraction, bits, power)
                _add(total, fraction, np.float32(1))
                if not mass:
                    for c in range(channels):
                        _add(sums[c], fraction, values[b, c, k])
            for c in range(channels):
                for x in range(w):
                    out[b, c, first + x] = total[x] if mass else sums[c, x] / total[x]


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _exponents(term, some, line):  # type: ignore[no-untyped-def]
    if len(term) == 6:
        t0, t1, t2, t3, t4, t5 = term[0], term[1], term[2], term[3], term[4], term[5]
        for x in range(BLOCK):
            line[x] = (t0 + t1 * some[1, x] + t2 * some[2, x] + t3 * some[3, x]
                       + t4 * some[4, x] + t5 * some[5, x])  # fmt: skip
        return
    t0, t1, t2, t3, t4 = term[0], term[1], term[2], term[3], term[4]
    t5, t6, t7, t8, t9 = term[5], term[6], term[7], term[8], term[9]
    for x in range(BLOCK):
        line[x] = (t0 + t1 * some[1, x] + t2 * some[2, x] + t3 * some[3, x]
                   + t4 * some[4, x] + t5 * some[5, x] + t6 * some[6, x]
                   + t7 * some[7, x] + t8 * some[8, x] + t9 * some[9, x])  # fmt: skip


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _raise(highest, line):  # type: ignore[no-untyped-def]
    for x in range(BLOCK):
        if line[x] > highest[x]:
            highest[x] = line[x]


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _add(total, line, factor):  # type: ignore[no-untyped-def]
    for x in range(BLOCK):
        total[x] += factor * line[x]


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _power_of_two(line, highest, result, bits, power):  # type: ignore[no-untyped-def]
    for x in range(BLOCK):
        t = line[x] - highest[x]
        t = t if t > np.float32(-126) else np.float32(-126)
        whole = np.floor(t)
        result[x] = t - whole
        bits[x] = (np.int32(whole) + np.int32(127)) << np.int32(23)
    for x in range(BLOCK):
        f = result[x]
        result[x] = power[x] * (np.float32(1) + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * C5)))))
