"""Motion between neighboring slices: regularized iterative Lucas-Kanade, half way between them.

Every pixel's motion is the least-squares solution over a Gaussian window and the neighboring
gaps, pulled to zero by a ridge that grows with the noise: without the pull, noise and changes
that are no motion become motion. Pairs are solved together, slice by slice on all threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.errors import GeometryError, ParameterError

BLOCK_BYTES = 256 << 20
OVERLAP = 4


@dataclass(frozen=True)
class FlowParams:
    """Settings of one motion estimate.

    Attributes
    ----------
    window : float
        Standard deviation in pixels of the window that shares one motion.
    ridge : float
        Pull to zero motion in units of the noise variance.
    levels : int
        Levels of the image pyramid; each doubles the motion that can be found.
    along : float
        Standard deviation in gaps of the smoothing along the slice axis; 0 for none.
    presmooth : float
        Standard deviation in pixels of the smoothing before the first estimate.
    iterations : int
        Re-linearizations on each level.
    """

    window: float = 2.0
    ridge: float = 20.0
    levels: int = 1
    along: float = 0.7
    presmooth: float = 0.4
    iterations: int = 5

    def __post_init__(self) -> None:
        sizes = (self.window, self.ridge, self.along, self.presmooth)
        if not (np.isfinite(sizes).all() and self.window > 0 and min(sizes) >= 0):
            raise ParameterError("The flow's window must be positive, its ridge not negative.")
        if self.levels < 1 or self.iterations < 1:
            raise ParameterError("The flow needs at least one level and one iteration.")


@dataclass(frozen=True)
class Flow:
    """In-plane motion between neighboring slices.

    Attributes
    ----------
    half_displacement : (Z - 1, 2, Y, X) ndarray of float32
        Half the motion (rows, columns) in pixels from a slice to the next, on the pixel grid
        half way between them: ``slice[i](p - u) = slice[i + 1](p + u)``.
    positions : (Z,) ndarray of float64
        Increasing positions of the slices.
    """

    half_displacement: Floats
    positions: NDArray[np.float64]

    def velocity(self, points: NDArray[Any], threads: int | None = None) -> Floats:
        """Return d(x, y)/dt at points, which is the slope of a fold through them.

        Parameters
        ----------
        points : (P, 3) array_like
            x (column), y (row) in pixels and t in the units of ``positions``.
        threads : int, optional
            CPU threads; all by default.

        Returns
        -------
        (P, 2) ndarray of float32
            (a1, b1): columns and rows per unit of position.
        """
        from napari_medgs.interpolation.kernels import velocities

        points = np.ascontiguousarray(points, np.float64)
        out = np.zeros((len(points), 2), np.float32)
        if len(self.half_displacement) == 0:
            return out
        size = 4096

        def task(k: int) -> None:
            first, last = k * size, min(len(points), (k + 1) * size)
            velocities(self.half_displacement, self.positions, points, first, last, out)

        run_chunks(task, -(-len(points) // size), threads)
        return out


@lru_cache(maxsize=64)
def gaussian_weights(sigma: float, reach: float = 2.5) -> Floats:
    """Return odd symmetric weights (2 r + 1,) of sum 1, cut at ``reach`` sigma."""
    if sigma <= 0:
        return np.ones(1, np.float32)
    r = max(1, int(np.ceil(reach * sigma)))
    weights = np.exp(-0.5 * (np.arange(-r, r + 1) / sigma) ** 2)
    out = np.asarray(weights / weights.sum(), np.float32)
    out.setflags(write=False)  # shared by all callers
    return out


def noise_sigma(stack: NDArray[Any]) -> float:
    """Estimate the noise of slices (Z, Y, X), robust against edges.

    Median absolute response to the difference of two Laplacians (Immerkaer 1996, CVIU 64:300);
    flat parts, where it is exactly zero, say nothing about noise. At least a thousandth of the
    standard deviation, so that noise-free images have a scale too.
    """
    some = np.asarray(stack[:: max(1, len(stack) // 8)], np.float32)
    floor = 1e-3 * float(some.std()) + 1e-12
    if min(some.shape[1:]) < 3:
        return floor
    rows = some[:, 2:] - 2 * some[:, 1:-1] + some[:, :-2]
    response = np.abs(rows[..., 2:] - 2 * rows[..., 1:-1] + rows[..., :-2])
    response = response[response > 0]
    if response.size == 0:
        return floor
    return max(floor, float(np.median(response)) / 0.6745 / 6)


def check_stack(stack: NDArray[Any], positions: NDArray[Any]) -> None:
    """Raise GeometryError unless slices and their positions fit together."""
    if len(positions) != len(stack):
        raise GeometryError(f"{len(stack)} slices cannot have {len(positions)} positions.")
    if len(stack) < 1 or min(stack.shape[1:]) < 1:
        raise GeometryError("There are no slices to interpolate.")
    if len(positions) > 1 and not (np.diff(positions) > 0).all():
        raise GeometryError("The positions of the slices must increase strictly.")


def estimate_flow(
    stack: Floats,
    positions: NDArray[Any] | None = None,
    params: FlowParams | None = None,
    *,
    noise: NDArray[Any] | None = None,
    threads: int | None = None,
) -> Flow:
    """Estimate the motion between neighboring slices by regularized iterative Lucas-Kanade.

    Parameters
    ----------
    stack : (Z, Y, X) or (C, Z, Y, X) ndarray of float32
        Several channels share one motion; each counts by its own noise.
    positions : (Z,) array_like, optional
        0, 1, 2 ... by default. The estimate does not depend on them.
    params : FlowParams, optional
    noise : (C,) array_like, optional
        Standard deviation of each channel's noise; estimated by default.
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    Flow

    Raises
    ------
    GeometryError
        If positions do not fit the slices.

    References
    ----------
    B. D. Lucas and T. Kanade, "An iterative image registration technique with an application to
    stereo vision", IJCAI 1981. The structure tensor is shared by a Gaussian window and the
    neighboring gaps, and has a ridge in proportion to the noise variance.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.interpolation import estimate_flow
    >>> x = np.arange(32.0)
    >>> bump = [np.exp(-0.05 * (x - c) ** 2) + 0 * x[:, None] for c in (15.0, 16.0)]
    >>> flow = estimate_flow(np.array(bump, np.float32))
    >>> flow.half_displacement.shape
    (1, 2, 32, 32)
    """
    stack = np.ascontiguousarray(stack if stack.ndim == 4 else stack[None], np.float32)
    where = np.arange(stack.shape[1]) if positions is None else np.asarray(positions)
    check_stack(stack[0], where)
    settings = params or FlowParams()
    sigma = np.array([noise_sigma(c) for c in stack]) if noise is None else np.asarray(noise)
    weights = (1.0 / (len(stack) * sigma**2)).astype(np.float32)
    pairs, size = stack.shape[1] - 1, stack.shape[2:]
    half = np.zeros((max(pairs, 0), 2, *size), np.float32)
    if min(size) >= 2:
        block = max(2 * OVERLAP, BLOCK_BYTES // (20 * size[0] * size[1]))
        for start in range(0, pairs, block):
            stop = min(pairs, start + block)
            low, high = max(0, start - OVERLAP), min(pairs, stop + OVERLAP)
            part = _estimate(stack[:, low : high + 1], weights, settings, threads)
            half[start:stop] = part[start - low : stop - low]
    return Flow(half, np.asarray(where, np.float64))


def _estimate(stack: Floats, weights: Floats, settings: FlowParams, threads: int | None) -> Floats:
    """Half motions (Z - 1, 2, Y, X) of a stack (C, Z, Y, X), coarse to fine."""
    height, width = stack.shape[2:]
    half = np.zeros((stack.shape[1] - 1, 2, 1, 1), np.float32)
    for level in reversed(range(settings.levels)):
        size = (-(-height // 2**level), -(-width // 2**level))
        if level == 0 or min(size) >= 8:
            sigma = 0.5 * 2**level if level else settings.presmooth
            images = _shrink(stack, size, sigma, threads)
            half = _refine(images, half, weights, settings, threads)
    return half


def _shrink(stack: Floats, size: tuple[int, int], sigma: float, threads: int | None) -> Floats:
    """Smooth a stack (C, Z, Y, X) in-plane and sample it on ``size`` rows and columns."""
    from napari_medgs.interpolation.kernels import blur, resize

    channels, depth, height, width = stack.shape
    images = np.empty((channels, depth, *size), np.float32)
    smooth = gaussian_weights(sigma)

    def task(z: int) -> None:
        scratch, soft = np.empty((2, height, width), np.float32)
        for c in range(channels):
            blur(stack[c, z], smooth, scratch, soft)
            if size == (height, width):
                images[c, z] = soft
            else:
                resize(soft, np.float32(1), images[c, z])

    run_chunks(task, depth, threads)
    return images


def _refine(
    images: Floats, coarse: Floats, weights: Floats, settings: FlowParams, threads: int | None
) -> Floats:
    """Half motions on the grid of ``images``, started from those of a coarser one."""
    from napari_medgs.interpolation.kernels import gather_equations, resize, solve

    _, depth, *size = images.shape
    pairs = depth - 1
    window, along = gaussian_weights(settings.window), gaussian_weights(settings.along, 2.0)
    ridge, limit = np.float32(settings.ridge), np.float32(0.25 * max(size))
    half = np.zeros((pairs, 2, *size), np.float32)
    equations = np.empty((pairs, 5, *size), np.float32)

    def enlarge(i: int) -> None:
        for k in range(2):
            resize(coarse[i, k], np.float32(size[k] / coarse.shape[2 + k]), half[i, k])

    def gather(i: int) -> None:
        gather_equations(images, i, half, weights, window, equations)

    def update(i: int) -> None:
        solve(equations, i, along, ridge, limit, half[i])

    if coarse.shape[2] > 1:
        run_chunks(enlarge, pairs, threads)
    for _ in range(settings.iterations):
        run_chunks(gather, pairs, threads)
        run_chunks(update, pairs, threads)
    return half
