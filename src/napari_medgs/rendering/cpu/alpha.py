"""Alpha compositing on the CPU, for comparison with MedGS: slice by slice, in index order.

The opacity of Gaussian i in slice z is w_i exp(-(rt d)^2 / 2); order matters, so a slice is
composited by one thread, and every thread collects gradients of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import default_threads, run_chunks
from napari_medgs.rendering.cpu.kernels import (
    HALF_LOG2E,
    center_x,
    center_y,
    first_index,
    last_index,
    list_slices,
    prepare,
)
from napari_medgs.rendering.cpu.residual import residual_rows
from napari_medgs.rendering.cpu.simd import fast_exp2, fast_sqrt
from napari_medgs.rendering.engine import EngineSpec, LossAndGradient, StackTarget
from napari_medgs.rendering.parameters import (
    A1,
    B1,
    GEOMETRY,
    LOG_R1,
    LOG_R2,
    LOG_RT,
    LOG_W,
    SHEAR,
    T,
    X,
    Y,
    check_finite,
)

ALPHA_LIMIT = 0.999
_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz", "arcp"}}


@njit(**_options)
def composite(
    prepared: Any,
    values: Any,
    members: Any,
    z: int,
    log2_cutoff: Any,
    out: Any,
    transmittance: Any,
) -> None:
    """Composite front to back into ``out`` (rows, channels, columns).

    ``transmittance`` (rows, columns) becomes what is seen of the background.
    """
    rows, channels, width = out.shape
    out[:] = 0
    transmittance[:] = 1
    limit = np.float32(ALPHA_LIMIT)
    one = np.float32(1)
    for index in range(len(members)):
        i = members[index]
        p = prepared[i]
        d = np.float32(z) - p[2]
        left = log2_cutoff - p[6] * d * d
        if left <= 0:
            continue
        mx = center_x(p, d)
        my = center_y(p, d)
        half_height = fast_sqrt(left) * p[15]
        y0 = first_index(my - half_height, 0)
        y1 = last_index(my + half_height, rows - 1)
        for y in range(y0, y1 + 1):
            dy = np.float32(y) - my
            room = left - p[5] * dy * dy
            if room < 0:
                continue
            center = mx + p[4] * dy
            half = fast_sqrt(room / p[3])
            x0 = first_index(center - half, 0)
            x1 = last_index(center + half, width - 1)
            top = p[7] - log2_cutoff + room
            seen = transmittance[y]
            for x in range(x0, x1 + 1):
                u = np.float32(x) - center
                alpha = min(fast_exp2(top - p[3] * u * u), limit)
                blend_weight = alpha * seen[x]
                seen[x] *= one - alpha
                for c in range(channels):
                    out[y, c, x] += blend_weight * values[i, c]


@njit(**_options)
def _add_background(out: Any, transmittance: Any, background: Any) -> None:
    rows, channels, width = out.shape
    for y in range(rows):
        for c in range(channels):
            for x in range(width):
                out[y, c, x] += transmittance[y, x] * background[c]


@njit(**_options)
def uncomposite(
    prepared: Any,
    values: Any,
    members: Any,
    z: int,
    log2_cutoff: Any,
    degree: int,
    slopes: Any,
    transmittance: Any,
    behind: Any,
    gradient: Any,
) -> None:
    """Walk back to front and add one slice's gradients.

    ``slopes`` are loss derivatives (rows, channels, columns), ``transmittance`` the transmittance
    left at the end, ``behind`` starts as that times slopes of the background.
    """
    rows, channels, width = slopes.shape
    limit = np.float32(ALPHA_LIMIT)
    one = np.float32(1)
    scale = np.float32(1.3862943611198906)
    for index in range(len(members) - 1, -1, -1):
        i = members[index]
        p = prepared[i]
        row = gradient[i]
        d = np.float32(z) - p[2]
        left = log2_cutoff - p[6] * d * d
        if left <= 0:
            continue
        mx = center_x(p, d)
        my = center_y(p, d)
        half_height = fast_sqrt(left) * p[15]
        y0 = first_index(my - half_height, 0)
        y1 = last_index(my + half_height, rows - 1)
        e, eu, euu = np.float32(0), np.float32(0), np.float32(0)
        ey, euy, eyy = np.float32(0), np.float32(0), np.float32(0)
        for y in range(y0, y1 + 1):
            dy = np.float32(y) - my
            room = left - p[5] * dy * dy
            if room < 0:
                continue
            center = mx + p[4] * dy
            half = fast_sqrt(room / p[3])
            x0 = first_index(center - half, 0)
            x1 = last_index(center + half, width - 1)
            top = p[7] - log2_cutoff + room
            for x in range(x0, x1 + 1):
                u = np.float32(x) - center
                free = fast_exp2(top - p[3] * u * u)
                alpha = min(free, limit)
                clear = one / (one - alpha)
                before = transmittance[y, x] * clear
                transmittance[y, x] = before
                blend_weight = alpha * before
                mixed = np.float32(0)
                for c in range(channels):
                    slope = slopes[y, c, x]
                    mixed += slope * values[i, c]
                    row[GEOMETRY + c] += blend_weight * slope
                if free < limit:
                    part = alpha * (mixed * before - behind[y, x] * clear)
                    e += part
                    eu += part * u
                    euu += part * u * u
                    ey += part * dy
                    euy += part * u * dy
                    eyy += part * dy * dy
                behind[y, x] += mixed * blend_weight
        gx = p[3] * eu
        gy = p[5] * ey - p[4] * gx
        shear = p[3] * euy
        slope_x = p[8] + d * (np.float32(2) * p[9] + d * np.float32(3) * p[10])
        slope_y = p[11] + d * (np.float32(2) * p[12] + d * np.float32(3) * p[13])
        row[X] += scale * gx
        row[Y] += scale * gy
        row[T] += scale * (p[6] * d * e - gx * slope_x - gy * slope_y)
        row[LOG_R1] += scale * (-p[3] * euu - p[4] * shear)
        row[LOG_R2] += scale * (-p[5] * eyy + p[4] * shear)
        row[SHEAR] += scale * shear * fast_sqrt(p[5] / p[3])
        row[LOG_RT] -= scale * p[6] * d * d * e
        row[LOG_W] += e
        power = d
        for k in range(degree):
            row[A1 + k] += scale * gx * power
            row[B1 + k] += scale * gy * power
            power *= d


class AlphaCpuEngine:
    """Renders on the CPU by alpha compositing, in the order of the table.

    Implements :class:`~napari_medgs.rendering.engine.Engine`; ``eps`` has no meaning here.

    Parameters
    ----------
    spec : EngineSpec
    """

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.shape, self.channels, self.degree = spec.shape, spec.channels, spec.degree
        self.background = spec.background
        self.log2_cutoff = np.float32(np.float32(spec.cutoff) * HALF_LOG2E)
        self.threads = spec.threads or default_threads()

    def _prepare(
        self, parameters: Floats, active: NDArray[np.bool_]
    ) -> tuple[Floats, Floats, NDArray[np.int64], NDArray[np.int32]]:
        check_finite(parameters)
        prepared = np.empty((len(parameters), 16), np.float32)
        prepare(parameters, self.degree, prepared, 0, len(parameters))
        offsets = np.zeros(len(active) + 1, np.int64)
        members = np.zeros(0, np.int32)
        needed = list_slices(prepared, self.log2_cutoff, active, offsets, members)
        members = np.empty(int(needed), np.int32)
        list_slices(prepared, self.log2_cutoff, active, offsets, members)
        return prepared, np.ascontiguousarray(parameters[:, GEOMETRY:]), offsets, members

    def render(self, parameters: Floats, slices: NDArray[Any] | None = None) -> Floats:
        """Render all or some slices; see :meth:`Engine.render`."""
        depth, height, width = self.shape
        wanted = np.arange(depth) if slices is None else np.asarray(slices)
        active = np.zeros(depth, np.bool_)
        active[wanted] = True
        prepared, values, offsets, members = self._prepare(parameters, active)
        out = np.empty((self.channels, len(wanted), height, width), np.float32)

        def task(k: int) -> None:
            z = int(wanted[k])
            picture = np.empty((height, self.channels, width), np.float32)
            transmittance = np.empty((height, width), np.float32)
            chosen = members[offsets[z] : offsets[z + 1]]
            composite(prepared, values, chosen, z, self.log2_cutoff, picture, transmittance)
            _add_background(picture, transmittance, self.background)
            out[:, k] = np.swapaxes(picture, 0, 1)

        run_chunks(task, len(wanted), self.threads)
        return out

    def loss_and_gradient(self, parameters: Floats, target: StackTarget) -> LossAndGradient:
        """Return errors and gradient; see :meth:`Engine.loss_and_gradient`."""
        height, width = self.shape[1:]
        active, counted, weighted = target.active, target.counted, target.weighted
        prepared, values, offsets, members = self._prepare(parameters, active)
        wanted = np.flatnonzero(active)
        groups = min(self.threads, len(wanted))
        gradients = np.zeros((groups, *parameters.shape), np.float32)
        sums = np.zeros((groups, 3))
        no_labels = np.zeros((0, 0), np.uint8)
        nothing = np.zeros(self.channels, np.float32)

        def task(group: int) -> None:
            planes = np.empty((height, self.channels + 1, width), np.float32)
            transmittance = np.empty((height, width), np.float32)
            scratch = np.empty((target.classes + 4, width), np.float32)
            for z in wanted[group::groups]:
                chosen = members[offsets[z] : offsets[z + 1]]
                picture = planes[:, : self.channels]
                composite(prepared, values, chosen, z, self.log2_cutoff, picture, transmittance)
                _add_background(picture, transmittance, self.background)
                sums_here = np.zeros(3)
                residual_rows(
                    planes,
                    False,
                    np.float32(0),
                    nothing,
                    target.images[:, z],
                    target.image_weights[:, z],
                    target.l1,
                    target.labels[z] if target.classes else no_labels,
                    target.classes,
                    target.seg_weights[z],
                    scratch,
                    sums_here,
                )
                if not counted[z]:
                    sums_here[2] = sums_here[0] * weighted[z]
                    sums_here[0] = 0.0
                sums[group] += sums_here
                slopes = np.ascontiguousarray(planes[:, : self.channels])
                behind = np.einsum("ycx,c->yx", slopes, self.background) * transmittance
                uncomposite(
                    prepared,
                    values,
                    chosen,
                    z,
                    self.log2_cutoff,
                    self.degree,
                    slopes,
                    transmittance,
                    np.ascontiguousarray(behind, np.float32),
                    gradients[group],
                )

        run_chunks(task, groups, self.threads)
        image_error, label_error, unscored_error = (float(v) for v in sums.sum(axis=0))
        gradient = gradients.sum(axis=0)
        return LossAndGradient(image_error, label_error, gradient, unscored_error)
