"""Selection among motion, cubic and spline by leaving out slices of the stack itself.

Every slice is predicted from its neighbors, which lie twice as far apart as the slices that will
be interpolated between. In a stack that is sampled densely along the axis this is unfair to a
cubic and a spline: at twice the distance it is not dense any more. So the stack is first smoothed
along the axis until two slices are as much alike over twice the distance as they are over one.
The weights of the methods are those that predict the slices left out of it best.

Between densely sampled slices a cubic passes too little of the finest detail and a spline too
much. Their mean errs less than either, and which of the two is better is not what the smoothed
stack tells: so a spline comes with a share of a cubic, the more the denser the slices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import StopCallback, never_stop
from napari_medgs.errors import Cancelled
from napari_medgs.interpolation.baselines import interpolate_baseline
from napari_medgs.interpolation.flow import Flow, check_stack
from napari_medgs.interpolation.motion import DEFAULT_FLOWS, MotionParams, interpolate_stack

SliceMethod = Literal["motion", "cubic", "spline"]
METHODS: tuple[SliceMethod, ...] = get_args(SliceMethod)

# Windows twice as wide and a level more than by default: over twice the distance motion is twice
# as far.
PROBE = MotionParams(
    tuple(replace(f, window=2 * f.window, levels=f.levels + 1) for f in DEFAULT_FLOWS)
)
# Of fewer, hardly any has two neighbors on both sides once others are left out.
MIN_SLICES = 8
# What is looked at of larger stacks: so many runs of so many slices, and of rows and columns.
RUNS = 4
RUN_LENGTH = 12
MAX_SIDE = 256
MAX_SMOOTHING = 4.0
# Slices are not points: the profile of one that is as thick as it is far from the next.
PROFILE_VARIANCE = 1 / 12
# Share of the cubic in its mean with a spline, by the smoothing that dense slices take.
SHARE_SMOOTHING = (1.0, 1.3)
CUBIC_SHARE = (0.08, 0.4)
# Motion and the others differ by so many times more dB at the distance asked for than at twice it.
SHARPNESS = 1.5
# What errs by more than the best is left out: what it would average away is less than it adds.
MOST_BEHIND_DB = 1.5
# A method of less weight changes the frames by less than it costs.
LEAST_WEIGHT = 0.1


@dataclass(frozen=True)
class MethodSelection:
    """How a stack is interpolated, and the evidence for it.

    Attributes
    ----------
    weights : dict
        Weight of "motion", "cubic" and "spline" in the frames, of sum 1; 0 for those not used.
    errors : dict
        Root mean square error of each method at the slices left out, in the unit of the stack;
        empty where there were too few slices to leave any out.
    smoothing : float
        Standard deviation, in slices, of the smoothing along the axis before they were left out.
    """

    weights: dict[SliceMethod, float]
    errors: dict[SliceMethod, float]
    smoothing: float

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
        """Return the names of the methods used, as in "motion + spline"."""
        return " + ".join(self.used)


def _only(method: SliceMethod) -> MethodSelection:
    weights = {name: float(name == method) for name in METHODS}
    return MethodSelection(weights, {}, 0.0)


def _fine_texture(stack: Floats) -> Floats:
    """Second differences along rows and columns of (Z, Y, X), without outliers."""
    rows = stack[:, 2:] - 2 * stack[:, 1:-1] + stack[:, :-2]
    fine: Floats = rows[..., 2:] - 2 * rows[..., 1:-1] + rows[..., :-2]
    size = np.abs(fine[fine != 0])
    limit = 3 * float(np.median(size)) / 0.6745 if size.size else 0.0
    return np.clip(fine, -limit, limit)


def _growth(products: NDArray[np.float64], distance: int) -> float:
    """Mean squared difference of slices at twice this distance over that at this distance.

    ``products`` (Z, Z) are the inner products of all pairs of slices.
    """
    power = np.diag(products)
    near, far = (
        float(np.mean(power[d:] + power[:-d] - 2 * np.diag(products, d)))
        for d in (distance, 2 * distance)
    )
    return far / near if near > 0 else 0.0


def _runs(stack: Floats, positions: NDArray[Any]) -> list[tuple[Floats, NDArray[Any]]]:
    """Return runs of neighboring slices and their positions, spread over the stack.

    They lie symmetrically, so that a stack turned upside down gives the same.
    """
    box = (slice(max(0, (n - MAX_SIDE) // 2), (n + MAX_SIDE) // 2) for n in stack.shape[1:])
    some = stack[(slice(None), *box)]
    between = len(stack) - RUNS * RUN_LENGTH
    if between <= 0:
        starts, length = [0], len(stack)
    else:
        length = RUN_LENGTH
        ahead = [(2 * k + 1) * between // (2 * RUNS) + k * length for k in range(RUNS // 2)]
        starts = ahead + [len(stack) - length - start for start in reversed(ahead)]
    return [
        (np.array(some[k : k + length], np.float32, order="C"), positions[k : k + length])
        for k in starts
    ]


def matching_smoothing(stacks: list[Floats]) -> float:
    """Return the smoothing that makes stacks at twice the distance like they are now.

    Parameters
    ----------
    stacks : list of (Z, Y, X) ndarray of float32
        Of one shape.

    Returns
    -------
    float
        Standard deviation in slices, 0 to 4. Of the finest in-plane texture, noise included, the
        mean squared difference between slices grows from twice the distance to four times as it
        grows from once to twice without smoothing; less the profile of a slice.
    """
    from scipy.ndimage import gaussian_filter1d

    count = len(stacks[0])
    if min(stacks[0].shape[1:]) < 3:
        return 0.0
    products = np.zeros((count, count))
    for stack in stacks:
        fine = _fine_texture(stack).reshape(count, -1)
        products += fine @ fine.T
    wanted = _growth(products, 1)

    def enough(sigma: float) -> bool:
        smooth = gaussian_filter1d(np.eye(count), sigma, axis=0, mode="nearest")
        return _growth(smooth @ products @ smooth.T, 2) >= wanted

    if _growth(products, 2) >= wanted:
        return 0.0
    low, high = 0.0, MAX_SMOOTHING
    for _ in range(12):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return float(np.sqrt(max(0.0, high**2 - PROFILE_VARIANCE)))


def _error_products(
    stack: Floats, positions: NDArray[Any], threads: int | None, should_stop: StopCallback
) -> NDArray[np.float64]:
    """Mean products (3, 3) of the methods' errors at inner slices, which are left out in turns.

    Only slices with two neighbors on both sides count: a run of slices has more ends than the
    stack.
    """
    total, count = np.zeros((len(METHODS),) * 2), 0
    low, high = stack.min(), stack.max()
    for first in (0, 1):
        kept = np.ascontiguousarray(stack[first::2])
        left = np.arange(first + 3, first + 2 * len(kept) - 4, 2)
        known, wanted, truth = positions[first::2], positions[left], stack[left]
        errors = np.empty((len(METHODS), truth.size), np.float32)
        for k, name in enumerate(METHODS):
            if should_stop():
                raise Cancelled("The interpolation between slices was cancelled.")
            frames = (
                interpolate_stack(
                    kept, known, wanted, PROBE, threads=threads, should_stop=should_stop
                )[0]
                if name == "motion"
                else interpolate_baseline(kept, known, wanted, name)
            )
            errors[k] = (np.clip(frames, low, high) - truth).ravel()
        total += errors @ errors.T
        count += truth.size
    return total / count


def convex_weights(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights (M,) >= 0 of sum 1 for which the mean of M methods errs least.

    ``products`` (M, M) are the mean products of the methods' errors. This is stacked regression
    (Breiman 1996, Machine Learning 24:49), exact: every set of methods is tried.
    """
    count = len(products)
    ridge = 1e-6 * float(np.trace(products)) / count
    best, least = np.full(count, 1 / count), np.inf
    for size in range(1, count + 1):
        for some in combinations(range(count), size):
            part = products[np.ix_(some, some)] + ridge * np.eye(size)
            share = np.linalg.lstsq(part, np.ones(size), rcond=None)[0]
            if share.sum() <= 0 or share.min() < 0:
                continue
            weights = np.zeros(count)
            weights[list(some)] = share / share.sum()
            error = float(weights @ products @ weights)
            if error < least * (1 - 1e-9):
                best, least = weights, error
    return best


def method_weights(products: NDArray[np.float64], smoothing: float = 0.0) -> NDArray[np.float64]:
    """Return weights (3,) of motion, cubic and spline from the mean products of their errors.

    Candidates are motion, the cubic, and the mean of cubic and spline.
    """
    cubic = float(np.interp(smoothing, SHARE_SMOOTHING, CUBIC_SHARE))
    mean = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, cubic], [0.0, 0.0, 1 - cubic]])
    errors = mean.T @ products @ mean
    power = np.diag(errors)
    if power.min() > 0:
        farther = np.ones(3)
        farther[0] = (power[0] / power[1:].min()) ** ((SHARPNESS - 1) / 2)
        errors = errors * np.outer(farther, farther)
        power = np.diag(errors)
    near = np.flatnonzero(power <= power.min() * 10 ** (MOST_BEHIND_DB / 10))
    share = np.zeros(3)
    share[near] = convex_weights(errors[np.ix_(near, near)])
    share[share < LEAST_WEIGHT] = 0
    weights: NDArray[np.float64] = mean @ (share / share.sum())
    return weights


def select_method(
    stack: Floats,
    positions: NDArray[Any] | None = None,
    *,
    threads: int | None = None,
    should_stop: StopCallback = never_stop,
) -> MethodSelection:
    """Choose how to interpolate a stack by leaving out its own slices.

    Parameters
    ----------
    stack : (Z, Y, X) ndarray of float32
        The slices that exist. Of more than 48, four runs of twelve are looked at, and
        256 rows and columns in the middle.
    positions : (Z,) array_like, optional
    threads : int, optional
    should_stop : callable
        Asked between interpolations.

    Returns
    -------
    MethodSelection
        Motion alone where there are fewer than eight slices.

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
    >>> select_method(smooth.astype(np.float32)).best
    'spline'
    """
    from scipy.ndimage import gaussian_filter1d

    where = np.arange(len(stack)) if positions is None else np.asarray(positions)
    check_stack(stack, where)
    if len(stack) < MIN_SLICES:
        return _only("motion")
    runs = _runs(np.asarray(stack), where.astype(np.float64))
    smoothing = matching_smoothing([run for run, _ in runs])
    products = np.zeros((len(METHODS),) * 2)
    for run, known in runs:
        if smoothing > 0:
            run = gaussian_filter1d(run, smoothing, axis=0, mode="nearest")
        products += _error_products(run, known, threads, should_stop) / len(runs)
    if not np.trace(products) > 0:
        return _only("cubic")  # nothing changes from slice to slice
    weights = method_weights(products, smoothing)
    return MethodSelection(
        {name: float(w) for name, w in zip(METHODS, weights, strict=True)},
        {name: float(np.sqrt(products[k, k])) for k, name in enumerate(METHODS)},
        smoothing,
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
    """Interpolate slices as leaving out slices of the stack itself says is best.

    Parameters
    ----------
    stack : (Z, Y, X) or (C, Z, Y, X) ndarray of float32
        The first channel decides.
    positions : (Z,) array_like
    wanted : (W,) array_like
    params : MotionParams, optional
        Of the frames; the selection has its own.
    threads : int, optional
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
