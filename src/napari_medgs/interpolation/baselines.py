"""Interpolation along the slice axis without motion: the baselines, and the fallback."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.errors import ParameterError
from napari_medgs.interpolation.flow import check_stack

BaselineMethod = Literal["nearest", "linear", "cubic", "spline", "quintic"]

# The weights of a quintic spline fall to 0.43 from slice to slice: what is farther away than this
# many has less than a millionth.
QUINTIC_REACH = 17


def slice_weights(
    positions: NDArray[Any], wanted: float, cubic: float = 1.0
) -> tuple[int, float, NDArray[np.float64]]:
    """Return where a frame lies and how much its four neighbors weigh.

    Parameters
    ----------
    positions : (Z,) ndarray
        At least two, increasing.
    wanted : float
        Clamped to the first and last position.
    cubic : float
        Share of Catmull-Rom (1) in its mixture with linear interpolation (0).

    Returns
    -------
    index : int
        Of the slice at or before the frame; index + 1 exists.
    share : float
        Place in the gap, 0 to 1.
    weights : (4,) ndarray
        Of slices index - 1 to index + 2; 0 where there is none. Uneven gaps: a cubic Hermite
        spline whose tangent is that of the parabola through three neighbors; at both ends the
        outermost slice is repeated.
    """
    count = len(positions)
    index = int(np.clip(np.searchsorted(positions, wanted, side="right") - 1, 0, count - 2))
    gap = float(positions[index + 1] - positions[index])
    t = float(np.clip((wanted - positions[index]) / gap, 0.0, 1.0))
    before = float(positions[index] - positions[index - 1]) if index > 0 else gap
    after = float(positions[index + 2] - positions[index + 1]) if index < count - 2 else gap
    # Tangents at both ends of the gap, per gap, as weights of the four slices.
    p, q = gap / before, gap / after
    start = (-p * p / (1.0 + p), (p * p - 1.0) / (1.0 + p), 1.0 / (1.0 + p), 0.0)
    stop = (0.0, -1.0 / (1.0 + q), (1.0 - q * q) / (1.0 + q), q * q / (1.0 + q))
    step, rise, fall = t * t * (3 - 2 * t), t * (1 - t) ** 2, t * t * (1 - t)
    straight = (0.0, 1 - t, t, 0.0)
    weights = np.array(
        [
            cubic * (held + step * jump + rise * a - fall * b) + (1 - cubic) * line
            for held, jump, a, b, line in zip(
                (0.0, 1.0, 0.0, 0.0), (0.0, -1.0, 1.0, 0.0), start, stop, straight, strict=True
            )
        ]
    )
    if index == 0:
        weights = np.array([0.0, weights[0] + weights[1], weights[2], weights[3]])
    if index == count - 2:
        weights = np.array([weights[0], weights[1], weights[2] + weights[3], 0.0])
    return index, t, weights


def interpolate_baseline(
    stack: Floats,
    positions: NDArray[Any],
    wanted: NDArray[Any],
    method: BaselineMethod = "cubic",
) -> Floats:
    """Interpolate slices pixel by pixel.

    Parameters
    ----------
    stack : (Z, Y, X) or (C, Z, Y, X) ndarray
    positions : (Z,) array_like
        Increasing positions of the slices.
    wanted : (W,) array_like
        Positions of the frames; beyond the ends the outermost slice is repeated.
    method : {"nearest", "linear", "cubic", "spline", "quintic"}
        "cubic" is Catmull-Rom, "spline" SciPy's interpolating cubic spline; "quintic" is a spline
        of degree 5 through the stack continued by its point reflection at both ends.

    Returns
    -------
    (W, Y, X) or (C, W, Y, X) ndarray of float32

    Raises
    ------
    GeometryError
        If positions do not fit the slices.
    ParameterError
        For an unknown method.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.interpolation import interpolate_baseline
    >>> stack = np.zeros((2, 1, 1), np.float32)
    >>> stack[1] = 4
    >>> interpolate_baseline(stack, [0, 2], [0.5, 1.0], "linear").ravel().tolist()
    [1.0, 2.0]
    """
    if method not in get_args(BaselineMethod):
        raise ParameterError(f"Unknown interpolation {method!r}: use {get_args(BaselineMethod)}.")
    data = np.asarray(stack, np.float32)
    channels = data if data.ndim == 4 else data[None]
    where = np.asarray(positions, np.float64)
    check_stack(channels[0], where)
    frames = np.clip(np.asarray(wanted, np.float64), where[0], where[-1])
    out = np.empty((len(channels), len(frames), *channels.shape[2:]), np.float32)
    if len(where) == 1:
        out[:] = channels[:, :1]
    elif method == "spline":
        _spline(channels, where, frames, out)
    elif method == "quintic":
        _quintic(channels, where, frames, out)
    else:
        for k, t in enumerate(frames):
            index, share, weights = slice_weights(where, t, float(method == "cubic"))
            if method == "nearest":
                weights = np.array([0.0, share < 0.5, share >= 0.5, 0.0])
            used = np.flatnonzero(weights)
            mix = weights[used].astype(np.float32)
            out[:, k] = np.tensordot(channels[:, index - 1 + used], mix, axes=(1, 0))
    return out if data.ndim == 4 else out[0]


def _spline(channels: Floats, where: NDArray[Any], frames: NDArray[Any], out: Floats) -> None:
    """Fill ``out`` (C, W, Y, X) from the not-a-knot spline, a few rows at a time."""
    from scipy.interpolate import make_interp_spline

    degree = min(3, len(where) - 1)
    rows = max(1, (32 << 20) // (8 * len(where) * channels.shape[3]))
    for c in range(len(channels)):
        for y in range(0, channels.shape[2], rows):
            band = channels[c, :, y : y + rows].astype(np.float64)
            out[c, :, y : y + rows] = make_interp_spline(where, band, k=degree)(frames)


def _quintic(channels: Floats, where: NDArray[Any], frames: NDArray[Any], out: Floats) -> None:
    """Fill ``out`` (C, W, Y, X) from the quintic spline of the reflected stack."""
    weights = quintic_weights(where, frames)
    flat = channels.reshape(*channels.shape[:2], -1)
    for k, t in enumerate(frames):
        index = int(np.searchsorted(where, t))
        first, last = max(0, index - QUINTIC_REACH), index + QUINTIC_REACH
        mix = weights[k, first:last].astype(np.float32)
        for c in range(len(channels)):
            out[c, k] = (mix @ flat[c, first:last]).reshape(out.shape[2:])


def quintic_weights(where: NDArray[Any], frames: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weights (W, Z) of slices in a quintic spline at the positions of frames.

    The stack is continued beyond its ends by its point reflection there: without, a spline of
    this degree swings at the ends.

    Parameters
    ----------
    where : (Z,) ndarray
        At least two, increasing.
    frames : (W,) ndarray
        From the first to the last of them.

    Returns
    -------
    (W, Z) ndarray
        Rows of sum 1.
    """
    from scipy.interpolate import make_interp_spline

    count = len(where)
    more = min(QUINTIC_REACH, count - 1)
    slices = np.eye(count)
    before, after = slice(more, 0, -1), slice(-2, -2 - more, -1)
    positions = np.concatenate([2 * where[0] - where[before], where, 2 * where[-1] - where[after]])
    values = np.concatenate(
        [2 * slices[:1] - slices[before], slices, 2 * slices[-1:] - slices[after]]
    )
    degree = 5 if len(positions) > 5 else 3
    weights: NDArray[np.float64] = make_interp_spline(positions, values, k=degree)(frames)
    return weights
