"""A shape between the slices that it was drawn on, as an interpolated signed distance.

Distances are clipped at a few pixels: near the outline they move with it, and far from it they
say no more than inside or outside, so that distant parts of a shape do not pull at each other.
They are smoothed by less than a pixel, which takes the staircase of the voxels away, and
shifted so that every slice keeps its area.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.errors import ParameterError
from napari_medgs.interpolation.baselines import interpolate_baseline
from napari_medgs.interpolation.flow import (
    Flow,
    FlowParams,
    check_stack,
    estimate_flow,
    gaussian_weights,
)
from napari_medgs.interpolation.motion import compensate

ShapeMethod = Literal["flow", "linear", "cubic"]

CLIP = 6.0
SMOOTH = 0.8
# On every second pixel and on every fourth; ridges for distances in pixels whose "noise" is one
# pixel.
NARROW_FLOW = FlowParams(window=0.75, ridge=5.76, presmooth=0.2, iterations=2)
WIDE_FLOW = FlowParams(window=1.0, ridge=0.172, presmooth=0.2, iterations=3)
STILL_SHARE = 0.3


def check_method(method: str) -> None:
    """Raise ParameterError unless this is a way to interpolate shapes."""
    if method not in get_args(ShapeMethod):
        raise ParameterError(f"Unknown shape interpolation {method!r}: flow, linear or cubic.")


def signed_distances(
    masks: NDArray[np.bool_],
    sampling: tuple[float, float] = (1.0, 1.0),
    threads: int | None = None,
) -> Floats:
    """Return each slice's distance to its shape's outline, positive inside, clipped.

    Parameters
    ----------
    masks : (S, Y, X) ndarray of bool
        Neighboring slices, in order.
    sampling : (float, float)
        Distance between rows and between columns, in pixels.
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    (S, Y, X) ndarray of float32
        In pixels. Where a slice is empty, the shape ends half way to a neighbor that is not:
        the distance is minus the neighbor's absolute one (the mean of two neighbors').
    """
    from scipy.ndimage import distance_transform_edt

    filled: NDArray[np.bool_] = np.array([mask.any() for mask in masks], np.bool_)
    out = np.full(masks.shape, -CLIP, np.float32)

    def measure(k: int) -> None:
        if not filled[k]:
            return
        inside = masks[k]
        if inside.all():
            out[k] = CLIP
            return
        within = distance_transform_edt(inside, sampling=sampling)
        beyond = distance_transform_edt(~inside, sampling=sampling)
        out[k] = np.clip(np.where(inside, within - 0.5, 0.5 - beyond), -CLIP, CLIP)

    run_chunks(measure, len(masks), threads)
    for k in np.flatnonzero(~filled):
        beside = [j for j in (k - 1, k + 1) if 0 <= j < len(masks) and filled[j]]
        if beside:
            out[k] = -np.mean([np.abs(out[j]) for j in beside], axis=0)
    return out


def smooth_distances(
    distances: Floats, masks: NDArray[np.bool_], threads: int | None = None
) -> Floats:
    """Smooth signed distances (S, Y, X) in plane; every slice keeps its number of pixels."""
    from napari_medgs.interpolation.kernels import blur

    weights = gaussian_weights(SMOOTH)
    out = np.empty_like(distances)

    def smooth(k: int) -> None:
        blur(distances[k], weights, np.empty_like(out[k]), out[k])
        area = int(np.count_nonzero(masks[k]))
        if 0 < area < out[k].size:
            place = out[k].size - area
            ordered = np.partition(out[k].ravel(), (place - 1, place))
            out[k] -= np.float32(0.5) * (ordered[place - 1] + ordered[place])

    run_chunks(smooth, len(distances), threads)
    return out


def interpolate_distances(
    distances: Floats,
    positions: NDArray[Any],
    wanted: NDArray[Any],
    method: ShapeMethod = "flow",
    threads: int | None = None,
) -> Floats:
    """Interpolate signed distances between slices.

    Parameters
    ----------
    distances : (S, Y, X) ndarray of float32
        In pixels, clipped.
    positions : (S,) array_like
        Increasing positions of the slices; gaps may differ.
    wanted : (W,) array_like
    method : {"flow", "linear", "cubic"}
        "flow" follows the motion of the distances themselves, found on every second pixel, with
        a share of "cubic" (Catmull-Rom without motion).
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    (W, Y, X) ndarray of float32

    Raises
    ------
    GeometryError
        If positions do not fit the slices.
    ParameterError
        For an unknown method.
    """
    check_method(method)
    where = np.asarray(positions, np.float64)
    check_stack(distances, where)
    plain = interpolate_baseline(
        distances, where, wanted, "linear" if method == "linear" else "cubic"
    )
    if method != "flow" or len(where) < 2:
        return plain
    plain += np.float32(1 - STILL_SHARE) * _gain_by_motion(
        distances, plain, where, wanted, threads
    )
    return plain


def _gain_by_motion(
    distances: Floats,
    plain: Floats,
    where: NDArray[np.float64],
    wanted: NDArray[Any],
    threads: int | None,
) -> Floats:
    """Return what motion compensation changes in plain frames (W, Y, X).

    Distances are smooth, and so is this change: all of it is computed on every second pixel. The
    motion is the mean of one of narrow windows there and one of wide windows on every fourth.
    """
    small, still = _halved(distances), _halved(plain)
    noise = np.ones(1)
    mean = estimate_flow(small, where, NARROW_FLOW, noise=noise, threads=threads).half_displacement
    wide = estimate_flow(_halved(small), where, WIDE_FLOW, noise=noise, threads=threads)
    mean += _doubled(wide.half_displacement, np.float32(2), small.shape[1:], threads)
    mean *= np.float32(0.5)
    moved = np.zeros((1, *still.shape), np.float32)
    compensate(small[None], Flow(mean, where), wanted, moved, threads=threads)
    return _doubled(moved[0] - still, np.float32(1), plain.shape[1:], threads)


def _doubled(
    stack: Floats, scale: np.float32, size: tuple[int, ...], threads: int | None
) -> Floats:
    """Bring what was computed on every second pixel, (..., Y, X), to ``size`` rows and columns."""
    from napari_medgs.interpolation.kernels import resize

    rows, columns = stack.shape[-2:]
    flat = stack.reshape(-1, rows, columns)
    out = np.empty((len(flat), 2 * rows, 2 * columns), np.float32)
    run_chunks(lambda k: resize(flat[k], scale, out[k]), len(flat), threads)
    return out.reshape(*stack.shape[:-2], 2 * rows, 2 * columns)[..., : size[0], : size[1]]


def _halved(stack: Floats) -> Floats:
    """Return the means of 2 x 2 pixels; the last ones of odd sizes count twice."""
    _, height, width = stack.shape
    if height % 2 or width % 2:
        stack = np.pad(stack, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    total = stack[:, ::2, ::2] + stack[:, 1::2, ::2]
    total += stack[:, ::2, 1::2]
    total += stack[:, 1::2, 1::2]
    return np.ascontiguousarray(total * np.float32(0.25))


def interpolate_shape(
    masks: NDArray[np.bool_],
    positions: NDArray[Any],
    wanted: NDArray[Any],
    method: ShapeMethod = "flow",
    *,
    sampling: tuple[float, float] = (1.0, 1.0),
    threads: int | None = None,
) -> Floats:
    """Return the signed distance of a shape between the slices it was drawn on.

    Parameters
    ----------
    masks : (S, Y, X) ndarray of bool
        The shape on its slices; an empty slice says that it is not there.
    positions, wanted, method
        As in :func:`interpolate_distances`.
    sampling : (float, float)
        Distance between rows and between columns, in pixels.
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    (W, Y, X) ndarray of float32
        In pixels, positive inside.

    Raises
    ------
    GeometryError, ParameterError
        As in :func:`interpolate_distances`.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.interpolation import interpolate_shape
    >>> masks = np.zeros((2, 24, 24), bool)
    >>> masks[0, 4:16, 4:16] = masks[1, 8:20, 8:20] = True
    >>> middle = interpolate_shape(masks, np.array([0, 4]), np.array([2]))[0]
    >>> bool(middle[11, 11] > 0), bool(middle[2, 2] > 0)
    (True, False)
    """
    distances = signed_distances(masks, sampling, threads)
    if method == "flow":
        distances = smooth_distances(distances, masks, threads)
    return interpolate_distances(distances, positions, wanted, method, threads)
