"""Compiled rasterization of the Gaussians of many small images.

Same results as :func:`~napari_medgs.classification.gaussians.fit.blend` and
:func:`~napari_medgs.classification.networks.grid.render_occupancy`, without
derivatives. The loops over points contain no calls and no sums over lanes, so that LLVM
vectorizes them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba as nb
import numpy as np

from napari_medgs._util.threads import run_chunks
from napari_medgs.classification.gaussians.set import grid_points, monomials

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medgs.classification.gaussians.set import GaussianSet

FAST = {"contract", "nnan", "ninf", "nsz", "arcp"}
LOG2E, HALF = np.float32(math.log2(math.e)), np.float32(0.5)
TURN = np.float32(2 * math.pi)
TINY = np.float32(1e-20)  # stands for the weight of absent Gaussians
# Least-squares polynomial of 2^f on [0, 1], relative error 4e-7.
C1, C2, C3 = np.float32(0.69315159), np.float32(0.24016431), np.float32(0.05579394)
C4, C5 = np.float32(0.00903089), np.float32(0.00185888)
BLOCK = 128  # points at a time: a Gaussian's exponents stay in the first-level cache


def rasterize(
    gaussians: GaussianSet, grid: tuple[int, ...], widths: tuple[float, ...], *, threads: int = 1
) -> NDArray[np.float32]:
    """Return images on a grid of cells over the whole image.

    Parameters
    ----------
    gaussians : GaussianSet
        On the CPU. Shapes (``occupancy``) are summed, others blended.
    grid : (D,) tuple of int
        Cells along each axis.
    widths : (D,) tuple of float
        Variance added to every Gaussian along each axis, in voxels squared (low-pass filter).
    threads : int

    Returns
    -------
    (B, C, *grid) float32 ndarray
        The values, or the occupancy (C = 1).
    """
    d, count = gaussians.ndim, len(gaussians)
    middle = gaussians.center()
    points = monomials(grid_points(gaussians.shape, grid) - middle).mT.contiguous().numpy()
    means = (gaussians.means - middle).numpy()
    spread, weights = gaussians.covariances.numpy(), gaussians.weights.numpy()
    values = gaussians.values.mT.contiguous().numpy()
    extra = np.asarray(widths, np.float32)
    terms = np.empty((count, gaussians.count, len(points)), np.float32)
    channels = 1 if gaussians.occupancy else values.shape[1]
    out = np.empty((count, channels, points.shape[1]), np.float32)
    step = max(1, -(-count // threads))
    fill = _fill_2d if d == 2 else _fill_3d

    def rasterize_part(chunk: int) -> None:
        part = slice(chunk * step, min(count, (chunk + 1) * step))
        fill(means[part], spread[part], weights[part], extra, gaussians.occupancy, terms[part])
        _raster(terms[part], points, values[part], gaussians.occupancy, out[part])

    run_chunks(rasterize_part, -(-count // step), threads)
    return out.reshape(count, channels, *grid)


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _fill_2d(means, spread, weights, extra, occupancy, terms):  # type: ignore[no-untyped-def]
    """Write exponents' coefficients (of 2, not e), as `log_terms` orders them."""
    for b in range(len(means)):
        for k in range(means.shape[1]):
            s = spread[b, k]
            yy, yx, xx = s[0, 0] + extra[0], s[0, 1], s[1, 1] + extra[1]
            det = yy * xx - yx * yx
            a, c, e = LOG2E * xx / det, -LOG2E * yx / det, LOG2E * yy / det
            y, x = means[b, k, 0], means[b, k, 1]
            t = terms[b, k]
            t[1], t[2] = a * y + c * x, c * y + e * x
            t[0] = np.log2(max(weights[b, k], TINY)) - HALF * (t[1] * y + t[2] * x)
            if occupancy:
                t[0] -= HALF * np.log2(TURN * TURN * det)
            t[3], t[4], t[5] = -HALF * a, -c, -HALF * e


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _fill_3d(means, spread, weights, extra, occupancy, terms):  # type: ignore[no-untyped-def]
    """As `_fill_2d`, of three axes."""
    for b in range(len(means)):
        for k in range(means.shape[1]):
            s = spread[b, k]
            zz, yy, xx = s[0, 0] + extra[0], s[1, 1] + extra[1], s[2, 2] + extra[2]
            zy, zx, yx = s[0, 1], s[0, 2], s[1, 2]
            # The inverse by cofactors: six numbers, since it is symmetric.
            pzz, pzy, pzx = yy * xx - yx * yx, yx * zx - zy * xx, zy * yx - yy * zx
            pyy, pyx, pxx = zz * xx - zx * zx, zy * zx - zz * yx, zz * yy - zy * zy
            det = zz * pzz + zy * pzy + zx * pzx
            f = LOG2E / det
            z, y, x = means[b, k, 0], means[b, k, 1], means[b, k, 2]
            t = terms[b, k]
            t[1] = f * (pzz * z + pzy * y + pzx * x)
            t[2] = f * (pzy * z + pyy * y + pyx * x)
            t[3] = f * (pzx * z + pyx * y + pxx * x)
            t[0] = np.log2(max(weights[b, k], TINY))
            t[0] -= HALF * (t[1] * z + t[2] * y + t[3] * x)
            if occupancy:
                t[0] -= HALF * np.log2(TURN * TURN * TURN * det)
            t[4], t[5], t[6] = -HALF * f * pzz, -f * pzy, -f * pzx
            t[7], t[8], t[9] = -HALF * f * pyy, -f * pyx, -HALF * f * pxx


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _raster(terms, points, values, occupancy, out):  # type: ignore[no-untyped-def]
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
        for m in range(many):
            for x in range(w):
                some[m, x] = points[m, first + x]
        for b in range(count):
            highest[:] = np.float32(0) if occupancy else np.float32(-1e30)
            for k in range(n):
                _exponents(terms[b, k], some, exponents[k])
                if not occupancy:
                    _raise(highest, exponents[k])
            total[:] = 0
            sums[:] = 0
            for k in range(n):
                _power_of_two(exponents[k], highest, fraction, bits, power)
                _add(total, fraction, np.float32(1))
                if not occupancy:
                    for c in range(channels):
                        _add(sums[c], fraction, values[b, c, k])
            for c in range(channels):
                for x in range(w):
                    out[b, c, first + x] = total[x] if occupancy else sums[c, x] / total[x]


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
