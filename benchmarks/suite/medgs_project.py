"""MedGS's folded Gaussians to 2D splats of one slice, and gradients back (numba).

A Gaussian's parameters: position x, z (the picture spans 0.72 across), two log scales, turn (a
logit, times 2 pi), opacity (logit), color (0.5 + 0.282 c, not below 0), slice center m (logit),
log sigma along the slices, coefficients of the motion by power (x, z). At time t, with d = m - t:

    mean = (x, z) + sum_p w_p d^p        scales x exp(-d^2 / (2 sigma^2))        opacity as it is

drawn where that factor is above 0.1; every splat is widened by 0.3 square pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from napari_medgs.rendering.parameters import LOG_R1, LOG_R2, LOG_RT, LOG_W, SHEAR, T, X, Y

PX, PZ, S1, S2, TURN, OPACITY, COLOR, MOMENT, SIGMA = range(9)
MOTION = 9

SPAN = 0.72
SH = np.float32(0.28209479177387814)
REACH = np.float32(np.sqrt(-2 * np.log(0.1)))
DILATION = np.float32(0.3)
CUTOFF = np.float32(9.0)  # three sigma
FAINTEST = np.float32(np.log(255.0))  # what adds less than 1/255 is skipped
SPLAT = 15
_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz", "arcp"}}


@njit(**_options)
def _sigmoid(x: Any) -> Any:
    return np.float32(1) / (np.float32(1) + np.exp(-x))


@njit(**_options)
def see(table: Any, time: Any, seen: Any) -> int:
    """Write the indices of the Gaussians seen at a time; return their number."""
    count = 0
    for i in range(len(table)):
        d = _sigmoid(table[i, MOMENT]) - time
        if abs(d) < REACH * np.exp(table[i, SIGMA]):
            seen[count] = i
            count += 1
    return count


@njit(**_options)
def _shape(p: Any, d: Any, pixels: Any) -> tuple[Any, Any, Any, Any]:
    """Squared scales in pixels, cosine and sine of the turn."""
    ratio = d * np.exp(-p[SIGMA])
    shrink = np.exp(-ratio * ratio) * pixels * pixels
    angle = np.float32(2 * np.pi) * _sigmoid(p[TURN])
    two = np.float32(2)
    return np.exp(two * p[S1]) * shrink, np.exp(two * p[S2]) * shrink, np.cos(angle), np.sin(angle)


@njit(**_options)
def project(table: Any, seen: Any, time: Any, height: int, width: int, splats: Any) -> None:
    """Fill the alpha kernels' parameter rows (M, 15) of the Gaussians seen.

    The kernels' extent along slices is put to another use: with the center one slice away it
    takes from the cut-off what makes faint Gaussians end where they fall below 1/255.
    """
    pixels = np.float32(width / SPAN)
    degree = (table.shape[1] - MOTION) // 2
    half = np.float32(0.5)
    for k in range(len(seen)):
        p, out = table[seen[k]], splats[k]
        d = _sigmoid(p[MOMENT]) - time
        x, z = np.float32(0), np.float32(0)
        for power in range(degree - 1, -1, -1):
            x = (x + p[MOTION + 2 * power]) * d
            z = (z + p[MOTION + 2 * power + 1]) * d
        a, b, c, s = _shape(p, d, pixels)
        xx = c * c * a + s * s * b + DILATION
        xy = c * s * (a - b)
        yy = s * s * a + c * c * b + DILATION
        determinant = xx * yy - xy * xy
        log_opacity = -np.log(np.float32(1) + np.exp(-p[OPACITY]))
        faint = max(CUTOFF - np.float32(2) * (FAINTEST + log_opacity), np.float32(1e-6))
        out[:] = 0
        out[X] = (x + p[PX]) * pixels + np.float32((width - 1) / 2)
        out[Y] = (z + p[PZ]) * pixels + np.float32((height - 1) / 2)
        out[T] = -1
        out[LOG_R1] = half * np.log(yy / determinant)
        out[LOG_R2] = -half * np.log(yy)
        out[SHEAR] = xy / np.sqrt(determinant)
        out[LOG_RT] = half * np.log(faint)
        out[LOG_W] = log_opacity + half * faint
        out[14] = max(half + SH * p[COLOR], np.float32(0))


@njit(**_options)
def pull_back(table: Any, seen: Any, time: Any, width: int, slopes: Any, gradient: Any) -> None:
    """Add to the parameters' gradient what the splats' gradient (M, 15) means for it."""
    pixels = np.float32(width / SPAN)
    degree = (table.shape[1] - MOTION) // 2
    one, two, half = np.float32(1), np.float32(2), np.float32(0.5)
    for k in range(len(seen)):
        p, g, out = table[seen[k]], slopes[k], gradient[seen[k]]
        m = _sigmoid(p[MOMENT])
        d = m - time
        gx, gz = pixels * g[X], pixels * g[Y]
        out[PX] += gx
        out[PZ] += gz
        pull, power = np.float32(0), one
        for n in range(degree):
            pull += (
                np.float32(n + 1) * power * (gx * p[MOTION + 2 * n] + gz * p[MOTION + 2 * n + 1])
            )
            power *= d
            out[MOTION + 2 * n] += gx * power
            out[MOTION + 2 * n + 1] += gz * power
        a, b, c, s = _shape(p, d, pixels)
        xx = c * c * a + s * s * b + DILATION
        xy = c * s * (a - b)
        yy = s * s * a + c * c * b + DILATION
        determinant = xx * yy - xy * xy
        root = np.sqrt(determinant)
        g_det = -half * (g[LOG_R1] + g[SHEAR] * xy / root) / determinant
        g_xx = g_det * yy
        g_yy = g_det * xx + half * (g[LOG_R1] - g[LOG_R2]) / yy
        g_xy = -two * xy * g_det + g[SHEAR] / root
        g_a = two * a * (c * c * g_xx + c * s * g_xy + s * s * g_yy)
        g_b = two * b * (s * s * g_xx - c * s * g_xy + c * c * g_yy)
        out[S1] += g_a
        out[S2] += g_b
        turn = _sigmoid(p[TURN])
        g_angle = (a - b) * (two * c * s * (g_yy - g_xx) + (c * c - s * s) * g_xy)
        out[TURN] += np.float32(2 * np.pi) * turn * (one - turn) * g_angle
        steep = np.exp(-two * p[SIGMA])
        out[SIGMA] += (g_a + g_b) * d * d * steep
        out[MOMENT] += m * (one - m) * (pull - (g_a + g_b) * d * steep)
        out[OPACITY] += (one - _sigmoid(p[OPACITY])) * g[LOG_W]
        if half + SH * p[COLOR] > 0:
            out[COLOR] += SH * g[14]
