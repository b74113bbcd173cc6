"""Selection of the interpolation method for a stack: motion-compensated or not.

Where slices are sampled so densely that they are smooth along the slice axis, a cubic is better
than any motion. No hold-out among the slices can see that, for it doubles their distance; but
then even the finest texture of a slice, noise included, is found again in the next one. So motion
is used if (1) the texture of neighboring slices is hardly correlated, and (2) it does not lose to
the best cubic in two hold-outs together: every other slice left out, and rows or columns left out
at a step at which they differ as much as neighboring slices do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.interpolation.baselines import BaselineMethod, interpolate_baseline
from napari_medgs.interpolation.flow import Flow, FlowParams, check_stack, estimate_flow
from napari_medgs.interpolation.motion import MotionParams, compensate, interpolate_stack

# Wide, with a pyramid: over twice the gap motion is twice as far.
PROBE = FlowParams(window=5.0, levels=3)
MAX_SLICES = 40
MAX_STEP = 8
# Volumes blurred along z more and more: motion begins to lose between .18 and .25.
MAX_TEXTURE = 0.2
# Over twice the gap motion is harder to find than it will be: a small loss there is no reason.
LEAST_GAIN = -0.5


@dataclass(frozen=True)
class MethodSelection:
    """Which method interpolates a stack best, and the evidence for it.

    Attributes
    ----------
    motion_helps : bool
    dense : bool
        Whether slices lie so densely that they are smooth along the axis.
    fallback : {"cubic", "spline"}
        The better of the two without motion.
    texture : float
        Correlation of the finest texture between neighboring slices, less that over two slices
        (which is not noise but stripes along the axis).
    slice_gain, inplane_gain : float
        dB that motion gains over the best cubic when slices, and rows or columns, are left out;
        0 where there is too little to tell.
    step : int
        Distance in pixels of the rows and columns left out.
    """

    motion_helps: bool
    dense: bool
    fallback: BaselineMethod
    texture: float
    slice_gain: float
    inplane_gain: float
    step: int


def _error(prediction: Floats, truth: Floats) -> float:
    return float(np.mean((prediction - truth) ** 2)) + 1e-12


def _gain(
    stack: Floats, positions: NDArray[Any], threads: int | None
) -> tuple[float, BaselineMethod]:
    """Leave out every other slice of (Z, Y, X): dB gained by motion, and the best cubic."""
    kept, left = stack[::2], stack[1 : 2 * ((len(stack) - 1) // 2) : 2]
    if len(kept) < 2 or len(left) < 1 or min(stack.shape[1:]) < 4:
        return 0.0, "cubic"
    kept = np.ascontiguousarray(kept)
    where, wanted = positions[::2], positions[1 : 2 * len(left) : 2]
    flow = estimate_flow(kept, where, PROBE, threads=threads)
    frames = np.zeros((1, *left.shape), np.float32)
    compensate(kept[None], flow, wanted, frames, threads=threads)
    cubic = _error(interpolate_baseline(kept, where, wanted, "cubic"), left)
    spline = _error(interpolate_baseline(kept, where, wanted, "spline"), left)
    gain = 10 * float(np.log10(min(cubic, spline) / _error(frames[0], left)))
    return gain, "cubic" if cubic <= spline else "spline"


def _difference(stack: Floats, axis: int, step: int) -> float:
    ahead, behind = [slice(None)] * 3, [slice(None)] * 3
    ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
    return _error(stack[tuple(ahead)], stack[tuple(behind)])


def texture_correlation(stack: Floats) -> float:
    """Correlation of (Z, Y, X)'s finest in-plane texture over one slice less that over two."""
    if len(stack) < 2 or min(stack.shape[1:]) < 3:
        return 0.0
    rows = stack[:, 2:] - 2 * stack[:, 1:-1] + stack[:, :-2]
    fine = rows[..., 2:] - 2 * rows[..., 1:-1] + rows[..., :-2]
    size = np.abs(fine[fine != 0])
    if size.size == 0:
        return 0.0
    limit = 3 * float(np.median(size)) / 0.6745
    np.clip(fine, -limit, limit, out=fine)
    power = float(np.mean(fine**2))
    one = float(np.mean(fine[1:] * fine[:-1]))
    two = float(np.mean(fine[2:] * fine[:-2])) if len(fine) > 2 else 0.0
    return (one - two) / power


def select_method(
    stack: Floats, positions: NDArray[Any] | None = None, *, threads: int | None = None
) -> MethodSelection:
    """Select motion-compensated or plain interpolation by hold-outs within a stack.

    Parameters
    ----------
    stack : (Z, Y, X) ndarray of float32
        The slices that exist. At most 40 in the middle are looked at.
    positions : (Z,) array_like, optional
    threads : int, optional

    Returns
    -------
    MethodSelection

    Raises
    ------
    GeometryError
        If positions do not fit the slices.
    """
    where = np.arange(len(stack)) if positions is None else np.asarray(positions)
    check_stack(stack, where)
    if len(stack) < 2:
        return MethodSelection(False, False, "cubic", 0.0, 0.0, 0.0, 1)
    start = max(0, (len(stack) - MAX_SLICES) // 2)
    some = np.ascontiguousarray(stack[start : start + MAX_SLICES], np.float32)
    where = where[start : start + MAX_SLICES].astype(np.float64)
    texture = texture_correlation(some)
    slice_gain, fallback = _gain(some, where, threads)
    wanted = _difference(some, 0, 1)
    gains, steps = [], []
    for axis in (1, 2):
        # Neighbors among the kept rows lie two steps apart.
        options = [d for d in range(1, MAX_STEP + 1) if 2 * d < some.shape[axis]]
        if not options:
            continue
        errors = np.array([_difference(some, axis, 2 * d) for d in options])
        step = options[int(np.argmin(np.abs(np.log(errors / wanted))))]
        rows = np.ascontiguousarray(np.moveaxis(some, axis, 0)[::step])
        gains.append(_gain(rows, np.arange(len(rows)), threads)[0])
        steps.append(step)
    inplane = float(np.mean(gains)) if gains else 0.0
    use = texture < MAX_TEXTURE and slice_gain + inplane > LEAST_GAIN
    step = int(np.mean(steps)) if steps else 1
    dense = texture >= MAX_TEXTURE
    if dense:
        fallback = "spline"  # which is what a densely sampled, smooth function wants
    return MethodSelection(use, dense, fallback, texture, slice_gain, inplane, step)


def interpolate_auto(
    stack: Floats,
    positions: NDArray[Any],
    wanted: NDArray[Any],
    params: MotionParams | None = None,
    *,
    threads: int | None = None,
) -> tuple[Floats, Flow | None, MethodSelection]:
    """Interpolate slices with motion where that helps, by a cubic or spline elsewhere.

    Parameters
    ----------
    stack : (Z, Y, X) or (C, Z, Y, X) ndarray of float32
        The first channel decides.
    positions : (Z,) array_like
    wanted : (W,) array_like
    params : MotionParams, optional
    threads : int, optional

    Returns
    -------
    frames : (W, Y, X) or (C, W, Y, X) ndarray of float32
    flow : Flow or None
        Where motion was used.
    selection : MethodSelection

    Raises
    ------
    GeometryError
        If positions do not fit the slices.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.interpolation import interpolate_auto
    >>> stack = np.random.default_rng(0).random((4, 16, 16)).astype(np.float32)
    >>> frames, flow, selection = interpolate_auto(stack, range(4), [0.5, 1.5])
    >>> frames.shape, selection.motion_helps == (flow is not None)
    ((2, 16, 16), True)
    """
    first = stack[0] if np.ndim(stack) == 4 else stack
    selection = select_method(first, np.asarray(positions), threads=threads)
    if not selection.motion_helps:
        return interpolate_baseline(stack, positions, wanted, selection.fallback), None, selection
    frames, flow = interpolate_stack(stack, positions, wanted, params, threads=threads)
    return frames, flow, selection
