"""GIL-free numba kernels: splat Gaussians into slices, gather residuals back.

A Gaussian's row is a chord of its ellipse in that slice, found exactly; along it the exponent is
one parabola. Buffers hold rows as (row, channel, column), each row padded by one vector, the
weight's row behind the channels, so that a block touches neighboring memory.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit

from napari_medgs.rendering.cpu.simd import (
    LANES,
    clear_vector,
    fast_ceil,
    fast_exp2,
    fast_floor,
    fast_sqrt,
    gather_block,
    splat_block,
    spread_vector,
    stack_vectors,
    sum_vector,
)
from napari_medgs.rendering.parameters import (
    A1,
    A2,
    A3,
    B1,
    B2,
    B3,
    GEOMETRY,
    LOG_R1,
    LOG_R2,
    LOG_RT,
    LOG_W,
    SHEAR,
    T,
    X,
    Y,
)

# Columns of the prepared parameters: precisions are squared and in units of log2.
P_R1, P_S, P_R2, P_RT, P_LOG2W, P_A1, P_A2, P_A3, P_B1, P_B2, P_B3, P_WIDE, P_INV2 = range(3, 16)

HALF_LOG2E = np.float32(0.72134752044448170)
FEW = 16  # columns up to which finding every row's chord costs more than it saves
LOG2E = np.float32(1.4426950408889634)

_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz", "arcp"}}


# Inlined as source, so that the rounding of what they enter stays that of one expression.
@njit(inline="always")
def center_x(p: Any, d: Any) -> Any:
    """Return the column of a prepared Gaussian's center, ``d`` slices from its own."""
    return p[0] + d * (p[P_A1] + d * (p[P_A2] + d * p[P_A3]))


@njit(inline="always")
def center_y(p: Any, d: Any) -> Any:
    """Return the row of a prepared Gaussian's center, ``d`` slices from its own."""
    return p[1] + d * (p[P_B1] + d * (p[P_B2] + d * p[P_B3]))


@njit(**_options)
def prepare(parameters: Any, degree: int, prepared: Any, first: int, last: int) -> None:
    """Turn optimized parameters into the constants that the kernels use."""
    for i in range(first, last):
        r1 = fast_exp2(parameters[i, LOG_R1] * LOG2E)
        r2 = fast_exp2(parameters[i, LOG_R2] * LOG2E)
        rt = fast_exp2(parameters[i, LOG_RT] * LOG2E)
        p = prepared[i]
        p[0], p[1], p[2] = parameters[i, X], parameters[i, Y], parameters[i, T]
        p[P_R1] = r1 * r1 * HALF_LOG2E
        p[P_S] = parameters[i, SHEAR] * r2 / r1
        p[P_R2] = r2 * r2 * HALF_LOG2E
        p[P_RT] = rt * rt * HALF_LOG2E
        p[P_LOG2W] = parameters[i, LOG_W] * LOG2E
        for k in range(3):
            used = degree > k
            p[P_A1 + k] = parameters[i, A1 + k] if used else np.float32(0)
            p[P_B1 + k] = parameters[i, B1 + k] if used else np.float32(0)
        # Half the ellipse's width and height are these times the root of the cutoff that is left.
        p[P_WIDE] = fast_sqrt(np.float32(1) / p[P_R1] + p[P_S] * p[P_S] / p[P_R2])
        p[P_INV2] = np.float32(1) / fast_sqrt(p[P_R2])


@njit(**_options)
def first_index(edge: Any, least: int) -> int:
    """Return the first whole number from ``edge`` on, at least ``least``."""
    return int(max(fast_ceil(edge), np.float32(least)))


@njit(**_options)
def last_index(edge: Any, most: int) -> int:
    """Return the last whole number up to ``edge``, at most ``most``."""
    return int(min(fast_floor(edge), np.float32(most)))


@njit(**_options)
def slice_range(p: Any, log2_cutoff: Any, depth: int) -> tuple[int, int]:
    """First and one past the last slice that a prepared Gaussian touches."""
    half = fast_sqrt(log2_cutoff / p[P_RT])
    return first_index(p[2] - half, 0), last_index(p[2] + half, depth - 1) + 1


@njit(**_options)
def list_slices(prepared: Any, log2_cutoff: Any, active: Any, offsets: Any, members: Any) -> int:
    """Fill the compressed list slice -> Gaussians; return how many entries it needs.

    Called with too small a ``members`` it only counts.
    """
    depth = len(active)
    counts = np.zeros(depth + 1, np.int64)
    for i in range(len(prepared)):
        z0, z1 = slice_range(prepared[i], log2_cutoff, depth)
        for z in range(z0, z1):
            if active[z]:
                counts[z + 1] += 1
    for z in range(depth):
        counts[z + 1] += counts[z]
    total = counts[depth]
    if total > len(members):
        return total
    for z in range(depth + 1):
        offsets[z] = counts[z]
    for i in range(len(prepared)):
        z0, z1 = slice_range(prepared[i], log2_cutoff, depth)
        for z in range(z0, z1):
            if active[z]:
                members[counts[z]] = i
                counts[z] += 1
    return total


@cache
def splat_kernel(channels: int) -> Any:
    """Return the kernel that adds Gaussians to one band of a slice, for a channel count."""
    slots = channels + 1  # a closure constant is a literal to numba, an expression is not

    @njit(**_options)
    def splat_band(
        prepared: Any,
        values: Any,
        members: Any,
        z: int,
        row0: int,
        row1: int,
        width: int,
        log2_cutoff: Any,
        buffer: Any,
    ) -> None:
        """Add ``members`` to rows row0 .. row1-1 of slice z; ``buffer`` is flat, row0 first."""
        row_stride = width + LANES
        vectors = stack_vectors(slots)
        for index in range(len(members)):
            i = members[index]
            p = prepared[i]
            d = np.float32(z) - p[2]
            left = log2_cutoff - p[P_RT] * d * d
            if left <= 0:
                continue
            mx = center_x(p, d)
            my = center_y(p, d)
            half_height = fast_sqrt(left) * p[P_INV2]
            y0 = first_index(my - half_height, row0)
            y1 = last_index(my + half_height, row1 - 1)
            if y0 > y1:
                continue
            for c in range(channels):
                spread_vector(vectors, c, values[i, c])
            r1, s, r2 = p[P_R1], p[P_S], p[P_R2]
            bottom = p[P_LOG2W] - log2_cutoff
            half_width = fast_sqrt(left) * p[P_WIDE]
            x0 = first_index(mx - half_width, 0)
            x1 = last_index(mx + half_width, width - 1)
            if x0 > x1:
                continue
            if x1 - x0 < FEW:
                # One or two vectors hold the whole width: no chords to find, the mask does it all.
                for x in range(x0, x1 + 1, LANES):
                    start = (y0 - row0) * (channels + 1) * row_stride + x
                    begin = np.float32(x) - mx
                    for y in range(y0, y1 + 1):
                        dy = np.float32(y) - my
                        splat_block(
                            buffer,
                            start,
                            row_stride,
                            begin - s * dy,
                            r1,
                            bottom + left - r2 * dy * dy,
                            bottom,
                            vectors,
                            channels,
                        )
                        start += (channels + 1) * row_stride
                continue
            for y in range(y0, y1 + 1):
                dy = np.float32(y) - my
                room = left - r2 * dy * dy
                if room < 0:
                    continue
                center = mx + s * dy
                half = fast_sqrt(room / r1)
                x0 = first_index(center - half, 0)
                x1 = last_index(center + half, width - 1)
                top = bottom + room
                start = (y - row0) * (channels + 1) * row_stride
                x = x0
                while x <= x1:
                    splat_block(
                        buffer,
                        start + x,
                        row_stride,
                        np.float32(x) - center,
                        r1,
                        top,
                        bottom,
                        vectors,
                        channels,
                    )
                    x += LANES

    return splat_band


@cache
def gather_kernel(channels: int) -> Any:
    """Return the kernel that collects gradients for a range of Gaussians."""
    slots, sums = channels + 1, channels + 6

    @njit(**_options)
    def gather_range(
        prepared: Any,
        values: Any,
        first: int,
        last: int,
        active: Any,
        height: int,
        width: int,
        slice_stride: int,
        log2_cutoff: Any,
        degree: int,
        residual: Any,
        gradient: Any,
    ) -> None:
        """Write the gradient rows first .. last-1; ``residual`` is the flat whole volume."""
        depth = len(active)
        row_stride = width + LANES
        vectors = stack_vectors(slots)
        moments = stack_vectors(sums)
        for i in range(first, last):
            p = prepared[i]
            for c in range(channels):
                spread_vector(vectors, c, values[i, c])
            for k in range(channels + 6):
                clear_vector(moments, k)
            r1, s, r2, rt = p[P_R1], p[P_S], p[P_R2], p[P_RT]
            bottom = p[P_LOG2W] - log2_cutoff
            # Sums over slices stay in registers: moments of e, and of gx, gy by powers of d.
            weight, slope_t, slope_rt = np.float32(0), np.float32(0), np.float32(0)
            gx0, gx1, gx2, gx3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            gy0, gy1, gy2, gy3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            z0, z1 = slice_range(p, log2_cutoff, depth)
            for z in range(z0, z1):
                if not active[z]:
                    continue
                d = np.float32(z) - p[2]
                left = log2_cutoff - rt * d * d
                if left <= 0:
                    continue
                mx = center_x(p, d)
                my = center_y(p, d)
                half_height = fast_sqrt(left) * p[P_INV2]
                y0 = first_index(my - half_height, 0)
                y1 = last_index(my + half_height, height - 1)
                if y0 > y1:
                    continue
                clear_vector(moments, channels)
                clear_vector(moments, channels + 1)
                clear_vector(moments, channels + 3)
                half_width = fast_sqrt(left) * p[P_WIDE]
                x0 = first_index(mx - half_width, 0)
                x1 = last_index(mx + half_width, width - 1)
                if x0 > x1:
                    continue
                narrow = x1 - x0 < FEW
                for x in range(x0, x1 + 1 if narrow else x0, LANES):
                    start = z * slice_stride + y0 * (channels + 1) * row_stride + x
                    begin = np.float32(x) - mx
                    for y in range(y0, y1 + 1):
                        dy = np.float32(y) - my
                        gather_block(
                            residual,
                            start,
                            row_stride,
                            begin - s * dy,
                            r1,
                            bottom + left - r2 * dy * dy,
                            bottom,
                            dy,
                            vectors,
                            moments,
                            channels,
                        )
                        start += (channels + 1) * row_stride
                for y in range(y0, y0 if narrow else y1 + 1):
                    dy = np.float32(y) - my
                    room = left - r2 * dy * dy
                    if room < 0:
                        continue
                    center = mx + s * dy
                    half = fast_sqrt(room / r1)
                    x0 = first_index(center - half, 0)
                    x1 = last_index(center + half, width - 1)
                    top = bottom + room
                    start = z * slice_stride + y * (channels + 1) * row_stride
                    x = x0
                    while x <= x1:
                        gather_block(
                            residual,
                            start + x,
                            row_stride,
                            np.float32(x) - center,
                            r1,
                            top,
                            bottom,
                            dy,
                            vectors,
                            moments,
                            channels,
                        )
                        x += LANES
                e = sum_vector(moments, channels)
                eu = sum_vector(moments, channels + 1)
                ey = sum_vector(moments, channels + 3)
                # e = w g dL/d(w g); d(log g) = -q'/2 in natural units, q = 2 ln2 x the log2 form.
                gx = r1 * eu
                gy = r2 * ey - s * gx
                weight += e
                slope_rt += d * d * e
                slope_x = p[P_A1] + d * (np.float32(2) * p[P_A2] + d * np.float32(3) * p[P_A3])
                slope_y = p[P_B1] + d * (np.float32(2) * p[P_B2] + d * np.float32(3) * p[P_B3])
                slope_t += rt * d * e - gx * slope_x - gy * slope_y
                gx0 += gx
                gy0 += gy
                gx *= d
                gy *= d
                gx1 += gx
                gy1 += gy
                gx *= d
                gy *= d
                gx2 += gx
                gy2 += gy
                gx3 += gx * d
                gy3 += gy * d
            # Factor 2 ln2: derivatives of -q ln2 where q is in log2 units.
            scale = np.float32(1.3862943611198906)
            zero = np.float32(0)
            euu = sum_vector(moments, channels + 2)
            euy = sum_vector(moments, channels + 4)
            eyy = sum_vector(moments, channels + 5)
            shear = r1 * euy
            row = gradient[i]
            row[X], row[Y], row[T] = scale * gx0, scale * gy0, scale * slope_t
            # The optimized shear is s r1 / r2, so log r1 and log r2 move s as well.
            row[LOG_R1] = scale * (-r1 * euu - s * shear)
            row[LOG_R2] = scale * (-r2 * eyy + s * shear)
            row[SHEAR] = scale * shear * fast_sqrt(r2 / r1)
            row[LOG_RT] = -scale * rt * slope_rt
            row[LOG_W] = weight
            row[A1] = scale * gx1 if degree > 0 else zero
            row[B1] = scale * gy1 if degree > 0 else zero
            row[A2] = scale * gx2 if degree > 1 else zero
            row[B2] = scale * gy2 if degree > 1 else zero
            row[A3] = scale * gx3 if degree > 2 else zero
            row[B3] = scale * gy3 if degree > 2 else zero
            for c in range(channels):
                row[GEOMETRY + c] = sum_vector(moments, c)

    return gather_range
