"""Selection among motion, a cubic and a quintic spline by the look of the stack's own slices.

Every slice is predicted from its neighbors, which lie twice as far apart as the slices that will
be interpolated between. In a stack that is sampled densely along the axis this is unfair to the
cubic and the spline: at twice the distance it is not dense any more. So the stack is first
smoothed along the axis until two slices are as much alike over twice the distance as they are
over one.

Errors at twice the distance do not tell everything. Where the spectrum along the axis ends before
the Nyquist frequency, or the finest texture of a slice goes on in the next one, the slices were
resampled or hold no more than a limited band, and what lies between them is closer to a cubic or
a spline than leaving slices out says. The three together decide how much motion counts.

Between densely sampled slices a cubic passes too little of the finest detail and a spline too
much. Their mean errs less than either, and which of the two is better is not what the smoothed
stack tells: the share of the cubic follows from the edge and the texture too. It is small where
the spectrum ends in an edge, as it does in a stack with interpolated slices.

Where the slices show how they were resampled from those of a scan, none of this is needed: they
are resampled once more in the same way, and what is best between those is best here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import StopCallback, never_stop
from napari_medgs.errors import Cancelled
from napari_medgs.interpolation.baselines import interpolate_baseline
from napari_medgs.interpolation.flow import Flow, check_stack
from napari_medgs.interpolation.motion import DEFAULT_FLOWS, MotionParams, interpolate_stack
from napari_medgs.interpolation.resampling import Resampling, best_shares, find_resampling
from napari_medgs.interpolation.sampling import (
    matching_smoothing,
    middle,
    spectral_edge,
    spread_runs,
    texture_correlation,
)

SliceMethod = Literal["motion", "cubic", "quintic"]
METHODS: tuple[SliceMethod, ...] = get_args(SliceMethod)

# Windows twice as wide and a level more than by default: over twice the distance motion is twice
# as far.
PROBE = MotionParams(
    tuple(replace(f, window=2 * f.window, levels=f.levels + 1) for f in DEFAULT_FLOWS)
)
# Of fewer, only up to three have two neighbors on both sides once others are left out.
MIN_SLICES = 10
# The spectrum along the axis takes all slices, of so many rows and columns.
EDGE_SIDE = 128
# Logistic curves, of the share of the cubic in its mean with the spline and of the weight of
# motion: at zero, per dB of the edge of the spectrum, and by the correlation of the finest texture
# of neighboring slices, for motion by what it exceeds the least.
CUBIC_CURVE = (-1.5, 1.6, 8.0)
STEEPEST_EDGE = -5.5
MOTION_CURVE = (3.5, 1.2, -10.0)
LEAST_CORRELATION = 0.05
# And per dB that motion errs less, or more, than the better of the others at the slices left out.
PER_DB_BETTER = 0.5
PER_DB_WORSE = 2.0
# Motion of less weight is not used, and of more it is used alone.
LEAST_MOTION, MOST_MOTION = 0.15, 0.95
# Where the correlation alone decides, motion is not used from here on, and a method of less weight
# not either.
MOST_CORRELATION = 0.25
LEAST_WEIGHT = 0.1


@dataclass(frozen=True)
class MethodSelection:
    """How a stack is interpolated, and the evidence for it.

    Attributes
    ----------
    weights : dict
        Weight of "motion", "cubic" and "quintic" in the frames, of sum 1; 0 for those not used.
    errors : dict
        Root mean square error of each method at the slices left out, in the unit of the stack;
        empty where there were too few slices to leave any out.
    smoothing : float
        Standard deviation, in slices, of the smoothing along the axis before they were left out.
    correlation : float
        Of the finest in-plane texture, noise included, of neighboring slices, -1 to 1.
    edge : float
        Level in dB of the power spectrum along the axis at the Nyquist frequency against three
        quarters of it.
    resampling : Resampling or None
        How the slices were resampled from those of a scan, where they show it.
    """

    weights: dict[SliceMethod, float]
    errors: dict[SliceMethod, float]
    smoothing: float
    correlation: float = 0.0
    edge: float = 0.0
    resampling: Resampling | None = None

    @property
    def used(self) -> tuple[SliceMethod, ...]:
        """Methods by falling weight, without those that are not used."""
        order = sorted(METHODS, key=lambda name: -self.weights[name])
        return tuple(name for name in order if self.weights[name] > 0)

    @property
    def best(self) -> SliceMethod:
        """The method of the largest weight."""
        return self.used[0]

    def __str__(self) -> str:
        """Return the names of the methods used, as in "motion + quintic"."""
        return " + ".join(self.used)


def _only(method: SliceMethod) -> MethodSelection:
    weights = {name: float(name == method) for name in METHODS}
    return MethodSelection(weights, {}, 0.0)


def _by_correlation(correlation: float, edge: float) -> MethodSelection:
    """Return what is used between too few slices to leave any out."""
    motion = float(np.interp(correlation, (LEAST_CORRELATION, MOST_CORRELATION), (1.0, 0.0)))
    if min(motion, 1 - motion) < LEAST_WEIGHT:
        motion = round(motion)
    weights = _method_weights(float(motion), correlation, edge)
    return MethodSelection(weights, {}, 0.0, correlation, edge)


def _error_products(
    stack: Floats,
    positions: NDArray[Any],
    params: MotionParams | None,
    offsets: tuple[int, ...],
    threads: int | None,
    should_stop: StopCallback,
) -> tuple[NDArray[np.float64], int]:
    """Return the summed products (3, 3) of the methods' errors, and the number of pixels.

    Every second slice from each of the offsets on is kept, and those between are predicted. Only
    slices with two neighbors on both sides count: a run of slices has more ends than the stack.
    """
    total, count = np.zeros((len(METHODS), len(METHODS))), 0
    low, high = stack.min(), stack.max()
    for first in offsets:
        kept = np.ascontiguousarray(stack[first::2])
        left = np.arange(first + 3, first + 2 * len(kept) - 4, 2)
        known, wanted, truth = positions[first::2], positions[left], stack[left]
        errors = np.empty((len(METHODS), truth.size), np.float32)
        for k, name in enumerate(METHODS):
            if should_stop():
                raise Cancelled("The interpolation between slices was canceled.")
            frames = (
                interpolate_stack(
                    kept, known, wanted, params, threads=threads, should_stop=should_stop
                )[0]
                if name == "motion"
                else interpolate_baseline(kept, known, wanted, name)
            )
            errors[k] = (np.clip(frames, low, high) - truth).ravel()
        total += errors @ errors.T
        count += truth.size
    return total, count


def _evenly_spaced(positions: NDArray[Any]) -> bool:
    gaps = np.diff(positions.astype(np.float64))
    return bool(np.ptp(gaps) <= 1e-3 * gaps.max())


def _logistic(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def cubic_share(correlation: float, edge: float) -> float:
    """Return the share of the cubic in its mean with a quintic spline.

    Parameters
    ----------
    correlation : float
        From :func:`~napari_medgs.interpolation.sampling.texture_correlation`.
    edge : float
        From :func:`~napari_medgs.interpolation.sampling.spectral_edge`, in dB.

    Returns
    -------
    float
        0 to 1: small where the spectrum ends in an edge, large between dense slices without.
    """
    at_zero, by_edge, by_correlation = CUBIC_CURVE
    return _logistic(at_zero + by_edge * max(edge, STEEPEST_EDGE) + by_correlation * correlation)


def motion_weight(squared_errors: NDArray[np.float64], correlation: float, edge: float) -> float:
    """Return the weight of motion in the frames.

    Parameters
    ----------
    squared_errors : (3,) ndarray
        Mean squared errors of motion, cubic and quintic at the slices left out.
    correlation, edge : float
        As for :func:`cubic_share`.

    Returns
    -------
    float
        0, or 0.15 to 0.95, or 1, as where slices look as if they were scanned one by one and
        motion errs no more than the others.
    """
    tiny = 1e-12 * float(squared_errors.max())
    motion, others = float(squared_errors[0]), float(squared_errors[1:].min())
    better = 10 * np.log10((others + tiny) / (motion + tiny))
    at_zero, by_edge, by_correlation = MOTION_CURVE
    weight = _logistic(
        at_zero
        + (PER_DB_BETTER if better > 0 else PER_DB_WORSE) * better
        + by_edge * edge
        + by_correlation * max(0.0, correlation - LEAST_CORRELATION)
    )
    if LEAST_MOTION <= weight <= MOST_MOTION:
        return weight
    return float(round(weight))


def _method_weights(motion: float, correlation: float, edge: float) -> dict[SliceMethod, float]:
    cubic = (1 - motion) * cubic_share(correlation, edge)
    return {"motion": motion, "cubic": cubic, "quintic": 1 - motion - cubic}


def select_method(
    stack: Floats,
    positions: NDArray[Any] | None = None,
    *,
    threads: int | None = None,
    should_stop: StopCallback = never_stop,
) -> MethodSelection:
    """Choose how to interpolate a stack by leaving out its own slices and by their look.

    Parameters
    ----------
    stack : (Z, Y, X) ndarray of float32
        The slices that exist. Of more than 48, four runs of twelve are looked at, and
        256 rows and columns in the middle.
    positions : (Z,) array_like, optional
    threads : int, optional
        CPU threads; all by default.
    should_stop : callable
        Asked between interpolations.

    Returns
    -------
    MethodSelection
        Where there are fewer than ten slices, none are left out: motion, unless neighboring
        slices have their finest texture in common.

    Raises
    ------
    GeometryError
        If positions do not fit the slices.
    Cancelled
        If ``should_stop`` says so.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.interpolation import select_method
    >>> z, y, x = np.mgrid[:12, :24, :24]
    >>> smooth = np.sin(0.5 * z) * np.sin(0.3 * y) * np.sin(0.3 * x)
    >>> select_method(smooth.astype(np.float32)).weights["motion"]
    0.0
    """
    from scipy.ndimage import gaussian_filter1d

    where = np.arange(len(stack)) if positions is None else np.asarray(positions)
    check_stack(stack, where)
    runs = spread_runs(np.asarray(stack), where.astype(np.float64))
    correlation = texture_correlation([run for run, _ in runs])
    some = middle(np.asarray(stack), EDGE_SIDE)
    edge = spectral_edge(some)
    if len(stack) < MIN_SLICES:
        return _by_correlation(correlation, edge)
    resampling = find_resampling(some) if _evenly_spaced(where) else None
    smoothing = 0.0
    if resampling is None:
        smoothing = matching_smoothing([run for run, _ in runs])
    # Of slices that are resampled again, every second one lies as those of the stack do.
    offsets = (0, 1) if resampling is None else (0,)
    probe = PROBE if resampling is None else None
    products, count = np.zeros((len(METHODS), len(METHODS))), 0
    for run, known in runs:
        if resampling is not None:
            run = resampling.repeat(run)
            known = np.arange(len(run), dtype=np.float64)
        elif smoothing > 0:
            run = gaussian_filter1d(run, smoothing, axis=0, mode="nearest")
        added, pixels = _error_products(run, known, probe, offsets, threads, should_stop)
        products, count = products + added, count + pixels
    products /= count
    squared = np.diag(products)
    if not squared.max() > 0:
        return _only("cubic")  # nothing changes from slice to slice
    if resampling is None:
        weights = _method_weights(motion_weight(squared, correlation, edge), correlation, edge)
    else:
        shares = best_shares(products, LEAST_MOTION)
        weights = {name: float(share) for name, share in zip(METHODS, shares, strict=True)}
    return MethodSelection(
        weights,
        {name: float(np.sqrt(error)) for name, error in zip(METHODS, squared, strict=True)},
        smoothing,
        correlation,
        edge,
        resampling,
    )


def interpolate_auto(
    stack: Floats,
    positions: NDArray[Any],
    wanted: NDArray[Any],
    params: MotionParams | None = None,
    *,
    threads: int | None = None,
    should_stop: StopCallback = never_stop,
) -> tuple[Floats, Flow | None, MethodSelection]:
    """Interpolate slices as those of the stack itself say is best.

    Parameters
    ----------
    stack : (Z, Y, X) or (C, Z, Y, X) ndarray of float32
        The first channel decides.
    positions : (Z,) array_like
    wanted : (W,) array_like
    params : MotionParams, optional
        Of the frames; the selection has its own.
    threads : int, optional
        CPU threads; all by default.
    should_stop : callable
        Asked between motion estimates.

    Returns
    -------
    frames : (W, Y, X) or (C, W, Y, X) ndarray of float32
    flow : Flow or None
        Where motion is used.
    selection : MethodSelection

    Raises
    ------
    GeometryError
        If positions do not fit the slices.
    Cancelled
        If ``should_stop`` says so.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.interpolation import interpolate_auto
    >>> stack = np.random.default_rng(0).random((4, 16, 16)).astype(np.float32)
    >>> frames, flow, selection = interpolate_auto(stack, range(4), [0.5, 1.5])
    >>> frames.shape, ("motion" in selection.used) == (flow is not None)
    ((2, 16, 16), True)
    """
    first = stack[0] if np.ndim(stack) == 4 else stack
    selection = select_method(
        first, np.asarray(positions), threads=threads, should_stop=should_stop
    )
    frames: Floats | None = None
    flow = None
    for name in selection.used:
        if name == "motion":
            part, flow = interpolate_stack(
                stack, positions, wanted, params, threads=threads, should_stop=should_stop
            )
        else:
            part = interpolate_baseline(stack, positions, wanted, name)
        if len(selection.used) > 1:
            part = part * np.float32(selection.weights[name])
        frames = part if frames is None else frames + part
    assert frames is not None  # a selection uses at least one method
    return frames, flow, selection
