"""GIL-free numba kernels for motion between slices: sampling, normal equations, trajectories.

A pair of neighboring slices a and b is looked at in the frame half way between them, where
``u`` = (rows, columns) is half the way that structures move from a to b: a(p - u) = b(p + u).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

F = np.float32

_options: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "fastmath": {"contract", "nsz", "arcp", "reassoc"},
}


@njit(**_options)
def bilinear(image: Any, y: Any, x: Any) -> Any:
    """Sample an image (Y, X) linearly, clamped at its border."""
    h, w = image.shape
    y = min(max(y, F(0)), F(h - 1))
    x = min(max(x, F(0)), F(w - 1))
    y0 = min(int(y), h - 2)  # -1 for a single row: the same one, counted from the end
    x0 = min(int(x), w - 2)
    fy = y - F(y0)
    fx = x - F(x0)
    a = image[y0, x0] + fx * (image[y0, x0 + 1] - image[y0, x0])
    b = image[y0 + 1, x0] + fx * (image[y0 + 1, x0 + 1] - image[y0 + 1, x0])
    return a + fy * (b - a)


@njit(**_options)
def bicubic(image: Any, y: Any, x: Any) -> Any:
    """Sample by Catmull-Rom, bilinear in the outermost ring of pixels."""
    h, w = image.shape
    y = min(max(y, F(0)), F(h - 1))
    x = min(max(x, F(0)), F(w - 1))
    y0 = min(int(y), h - 2)
    x0 = min(int(x), w - 2)
    if y0 < 1 or x0 < 1 or y0 > h - 3 or x0 > w - 3:
        return bilinear(image, y, x)
    f = y - F(y0)
    g = x - F(x0)
    b0 = F(0.5) * g * (F(-1) + g * (F(2) - g))
    b1 = F(1) + g * g * (F(1.5) * g - F(2.5))
    b2 = F(0.5) * g * (F(1) + g * (F(4) - F(3) * g))
    b3 = F(0.5) * g * g * (g - F(1))
    p, q, r, s = image[y0 - 1], image[y0], image[y0 + 1], image[y0 + 2]
    r0 = b0 * p[x0 - 1] + b1 * p[x0] + b2 * p[x0 + 1] + b3 * p[x0 + 2]
    r1 = b0 * q[x0 - 1] + b1 * q[x0] + b2 * q[x0 + 1] + b3 * q[x0 + 2]
    r2 = b0 * r[x0 - 1] + b1 * r[x0] + b2 * r[x0 + 1] + b3 * r[x0 + 2]
    r3 = b0 * s[x0 - 1] + b1 * s[x0] + b2 * s[x0 + 1] + b3 * s[x0 + 2]
    a0 = F(0.5) * f * (F(-1) + f * (F(2) - f))
    a1 = F(1) + f * f * (F(1.5) * f - F(2.5))
    a2 = F(0.5) * f * (F(1) + f * (F(4) - F(3) * f))
    a3 = F(0.5) * f * f * (f - F(1))
    return a0 * r0 + a1 * r1 + a2 * r2 + a3 * r3


@njit(**_options)
def blur(image: Any, weights: Any, scratch: Any, out: Any) -> None:
    """Convolve with odd symmetric ``weights`` along both axes, edges repeated."""
    h, w = image.shape
    r = len(weights) // 2
    for y in range(h):
        t = scratch[y]
        for x in range(w):
            t[x] = weights[r] * image[y, x]
        for k in range(1, r + 1):
            p, q, c = image[max(y - k, 0)], image[min(y + k, h - 1)], weights[r + k]
            for x in range(w):
                t[x] += c * (p[x] + q[x])
    for y in range(h):
        t, o = scratch[y], out[y]
        for x in range(w):
            o[x] = weights[r] * t[x]
        for k in range(1, r + 1):
            c = weights[r + k]
            inner = max(k, w - k)
            for x in range(min(k, w)):
                o[x] += c * (t[0] + t[min(x + k, w - 1)])
            for x in range(k, w - k):
                o[x] += c * (t[x - k] + t[x + k])
            for x in range(inner, w):
                o[x] += c * (t[max(x - k, 0)] + t[w - 1])


@njit(**_options)
def resize(image: Any, scale: Any, out: Any) -> None:
    """Sample ``image`` bilinearly over the extent of ``out`` and multiply by ``scale``."""
    h, w = out.shape
    sy, sx = F(image.shape[0]) / F(h), F(image.shape[1]) / F(w)
    for y in range(h):
        for x in range(w):
            yy = (F(y) + F(0.5)) * sy - F(0.5)
            xx = (F(x) + F(0.5)) * sx - F(0.5)
            out[y, x] = scale * bilinear(image, yy, xx)


@njit(**_options)
def add_equations(a: Any, b: Any, u: Any, weight: Any, total: Any, change: Any, eq: Any) -> None:
    """Add a channel's pointwise normal equations of the whole motion, not of its update.

    With g = grad(a(p - u) + b(p + u)) and r = b(p + u) - a(p - u), both linear in u near its
    present value, ``eq`` gets weight times (gy gy, gy gx, gx gx, gy e, gx e) with e = g.u - r.
    ``total`` and ``change`` are scratch (Y, X).
    """
    h, w = a.shape
    for y in range(h):
        for x in range(w):
            uy, ux = u[0, y, x], u[1, y, x]
            p = bicubic(a, F(y) - uy, F(x) - ux)
            q = bicubic(b, F(y) + uy, F(x) + ux)
            total[y, x] = p + q
            change[y, x] = q - p
    for y in range(h):
        above, below = max(y - 1, 0), min(y + 1, h - 1)
        cy = F(1) / F(below - above)
        for x in range(w):
            left, right = max(x - 1, 0), min(x + 1, w - 1)
            gy = (total[below, x] - total[above, x]) * cy
            gx = (total[y, right] - total[y, left]) * (F(1) / F(right - left))
            e = gy * u[0, y, x] + gx * u[1, y, x] - change[y, x]
            wy, wx = weight * gy, weight * gx
            eq[0, y, x] += wy * gy
            eq[1, y, x] += wy * gx
            eq[2, y, x] += wx * gx
            eq[3, y, x] += wy * e
            eq[4, y, x] += wx * e


@njit(**_options)
def gather_equations(
    images: Any, i: int, half: Any, weights: Any, window: Any, equations: Any
) -> None:
    """Write pair ``i``'s equations of all channels, smoothed by ``window``."""
    channels, _, h, w = images.shape
    points = np.zeros((5, h, w), np.float32)
    total, change = np.empty((h, w), np.float32), np.empty((h, w), np.float32)
    for c in range(channels):
        add_equations(images[c, i], images[c, i + 1], half[i], weights[c], total, change, points)
    for m in range(5):
        blur(points[m], window, total, equations[i, m])


@njit(**_options)
def solve(eqs: Any, i: int, along: Any, ridge: Any, limit: Any, u: Any) -> None:
    """Solve pair ``i``'s equations, smoothed over its neighbors, into ``u`` (2, Y, X)."""
    n, _, h, w = eqs.shape
    r = len(along) // 2
    acc = np.zeros((5, w), np.float32)
    for y in range(h):
        acc[:] = 0
        for k in range(-r, r + 1):
            j = min(max(i + k, 0), n - 1)
            c = along[r + k]
            for m in range(5):
                e, t = eqs[j, m, y], acc[m]
                for x in range(w):
                    t[x] += c * e[x]
        for x in range(w):
            yy, yx, xx = acc[0, x] + ridge, acc[1, x], acc[2, x] + ridge
            by, bx = acc[3, x], acc[4, x]
            inverse = F(1) / (yy * xx - yx * yx)
            vy = (xx * by - yx * bx) * inverse
            vx = (yy * bx - yx * by) * inverse
            u[0, y, x] = min(max(vy, -limit), limit)
            u[1, y, x] = min(max(vx, -limit), limit)


@njit(**_options)
def middle_point(u: Any, y: Any, x: Any, reach: Any) -> tuple[Any, Any]:
    """Half motion (rows, columns) of the trajectory through (y, x).

    ``reach`` = (time of the point - middle) in half gaps: -1 on slice a, +1 on slice b.
    """
    vy, vx = bilinear(u[0], y, x), bilinear(u[1], y, x)
    if reach != F(0):
        for _ in range(3):
            qy, qx = y - reach * vy, x - reach * vx
            vy, vx = bilinear(u[0], qy, qx), bilinear(u[1], qy, qx)
    return vy, vx


@njit(**_options)
def follow(stack: Any, half: Any, i: int, reach: Any, weights: Any, out: Any) -> None:
    """Add the frame at ``reach`` between slices i and i + 1 to ``out`` (C, Y, X).

    Parameters
    ----------
    stack : (C, Z, Y, X) ndarray
    half : (Z - 1, 2, Y, X) ndarray
    reach : float32
        -1 at slice i, +1 at slice i + 1.
    weights : (4,) ndarray
        Of slices i - 1, i, i + 1, i + 2 along the trajectory; a slice that does not exist must
        have weight 0.
    """
    channels, _, h, w = stack.shape
    before, after = weights[0] != F(0), weights[3] != F(0)
    for y in range(h):
        for x in range(w):
            vy, vx = middle_point(half[i], F(y), F(x), reach)
            back, forth = reach + F(1), F(1) - reach
            ay, ax = F(y) - back * vy, F(x) - back * vx
            by, bx = F(y) + forth * vy, F(x) + forth * vx
            py = px = ny = nx = F(0)
            if before:
                sy, sx = middle_point(half[i - 1], ay, ax, F(1))
                py, px = ay - F(2) * sy, ax - F(2) * sx
            if after:
                sy, sx = middle_point(half[i + 1], by, bx, F(-1))
                ny, nx = by + F(2) * sy, bx + F(2) * sx
            for c in range(channels):
                v = weights[1] * bicubic(stack[c, i], ay, ax)
                v += weights[2] * bicubic(stack[c, i + 1], by, bx)
                if before:
                    v += weights[0] * bicubic(stack[c, i - 1], py, px)
                if after:
                    v += weights[3] * bicubic(stack[c, i + 2], ny, nx)
                out[c, y, x] += v


@njit(**_options)
def velocities(half: Any, positions: Any, points: Any, first: int, last: int, out: Any) -> None:
    """Velocity (columns, rows) per unit of position at points (x, y, t), into ``out`` (P, 2).

    Between the middles of two gaps the velocities of both trajectories are mixed linearly in t.
    """
    pairs = half.shape[0]
    for n in range(first, last):
        x, y, t = F(points[n, 0]), F(points[n, 1]), points[n, 2]
        i = 0
        while i < pairs - 1 and positions[i + 1] <= t:
            i += 1
        middle = 0.5 * (positions[i] + positions[i + 1])
        other = i + 1 if t >= middle else i - 1
        other = min(max(other, 0), pairs - 1)
        far = 0.5 * (positions[other] + positions[other + 1])
        share = 0.0 if other == i else (t - middle) / (far - middle)
        share = min(max(share, 0.0), 1.0)
        vx = vy = 0.0
        for k in range(2):
            j = i if k == 0 else other
            mix = 1.0 - share if k == 0 else share
            gap = positions[j + 1] - positions[j]
            reach = (t - 0.5 * (positions[j] + positions[j + 1])) * 2.0 / gap
            uy, ux = middle_point(half[j], y, x, F(min(max(reach, -2.0), 2.0)))
            vy += mix * 2.0 * uy / gap
            vx += mix * 2.0 * ux / gap
        out[n, 0], out[n, 1] = F(vx), F(vy)
