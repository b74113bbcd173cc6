"""Where to look for the appearance of voxels on borders: at the end of the slope that they lie on.

The border between two tissues is a slope in the image, on which the look of a third one may lie:
between fat and an organ there is a rim that looks like muscle. To which side such a voxel belongs
shows how high on the slope it lies, and the look of that side is found where the slope ends, as in
a shock filter. Halfway up, the voxel's own look counts.

References
----------
Kramer and Bruckner 1975, *Iterations of a non-linear transformation for enhancement of digital
images*, Pattern Recognition 7. Osher and Rudin 1990, *Feature-oriented image enhancement using
shock filters*, SIAM Journal on Numerical Analysis 27.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs._util.trilinear import trilinear

CHUNK = 8192
REACH = np.float32(2)  # finest voxels along a slope: the smoothed border of two flat tissues
STEP = np.float32(0.5)
FLAT = np.float32(0.1)  # part of its steepness at the voxel at which a slope ends
STEEPER = np.float32(1.02)  # a slope that gets steeper by this factor is the next border's
HALFWAY = np.float32(0.1)  # part of a slope's height, up and down from its middle

_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz"}}


@njit(**_options)
def _difference(line: Any, i: int) -> Any:
    """Return the central difference at a place of a line; outside, the nearest one counts."""
    return np.float32(0.5) * (line[min(i + 1, len(line) - 1)] - line[max(i - 1, 0)])


@njit(**_options)
def _slope_end(
    channel: Any, z: Any, y: Any, x: Any, gz: Any, gy: Any, gx: Any, sign: Any, steepness: Any
) -> Any:
    """Follow a slope up or down (sign 1 or -1).

    A layer no wider than two slopes has no flat part, but its slopes are less steep in it.

    Parameters
    ----------
    channel : (Z, Y, X) float32
    z, y, x : float32
    gz, gy, gx : float32
        One finest voxel up the slope, in voxels.
    sign, steepness : float32
        Of the slope at the place, per finest voxel.

    Returns
    -------
    distance, value : float32
        In finest voxels, to the end of the slope, and the value there.
    """
    distance, value = np.float32(0), channel[int(z), int(y), int(x)]
    last = np.float32(np.inf)
    while distance < REACH:
        t = sign * (distance + STEP)
        there = trilinear(channel, z + t * gz, y + t * gy, x + t * gx)
        rise = (there - value) * sign
        if rise <= FLAT * STEP * steepness or rise > STEEPER * last:
            break
        last, value = rise, there
        distance += STEP
    return distance, value


@njit(**_options)
def _follow_slopes(
    guide: Any, voxels: Any, spacing: Any, first: int, last: int, points: Any
) -> None:
    """Find the points of voxels first .. last-1; see :func:`off_borders`.

    Parameters
    ----------
    guide : (C, Z, Y, X) float32
    voxels : (B, 3) int32
    spacing : (3,) float32
    first, last : int
    points : (B, 3) float32
        Out.
    """
    half, up, down = np.float32(0.5), np.float32(1), np.float32(-1)
    for i in range(first, last):
        v, w, u = voxels[i, 0], voxels[i, 1], voxels[i, 2]
        z, y, x = np.float32(v), np.float32(w), np.float32(u)
        points[i, 0], points[i, 1], points[i, 2] = z, y, x
        square, channel = np.float32(0), guide[0]
        gz = gy = gx = np.float32(0)
        for c in range(len(guide)):
            a = _difference(guide[c, :, w, u], v) / spacing[0]
            b = _difference(guide[c, v, :, u], w) / spacing[1]
            d = _difference(guide[c, v, w], u) / spacing[2]
            if a * a + b * b + d * d > square:
                square, channel = a * a + b * b + d * d, guide[c]
                gz, gy, gx = a, b, d
        if square == 0:
            continue
        steepness = np.sqrt(square)
        gz /= steepness * spacing[0]
        gy /= steepness * spacing[1]
        gx /= steepness * spacing[2]
        above, high = _slope_end(channel, z, y, x, gz, gy, gx, up, steepness)
        below, low = _slope_end(channel, z, y, x, gz, gy, gx, down, steepness)
        if high <= low:
            continue
        height = (channel[v, w, u] - low) / (high - low)
        if abs(height - half) <= HALFWAY:
            continue
        t = above if height > half else -below
        points[i, 0] += t * gz
        points[i, 1] += t * gy
        points[i, 2] += t * gx


def off_borders(guide: Floats, voxels: NDArray[np.int32], spacing: NDArray[np.float64]) -> Floats:
    """Return the points at which voxels show the tissue that they belong to.

    Parameters
    ----------
    guide : (C, Z, Y, X) ndarray of float32
        Smoothed. Every voxel follows the channel with the steepest slope.
    voxels : (B, 3) ndarray of int32
    spacing : (3,) ndarray
        Distances of voxels, in finest ones.

    Returns
    -------
    (B, 3) ndarray of float32
        The voxels themselves where they lie on no slope, or halfway up.

    Examples
    --------
    >>> import numpy as np
    >>> guide = np.array([0, 0, 1, 3, 8, 9, 9, 9], np.float32).reshape(1, 1, 1, 8)
    >>> voxels = np.array([[0, 0, x] for x in range(8)], np.int32)
    >>> off_borders(guide, voxels, np.ones(3))[:, 2].tolist()
    [0.0, 1.0, 1.0, 1.0, 5.0, 5.0, 6.0, 7.0]
    """
    points = np.empty(voxels.shape, np.float32)
    lengths = np.asarray(spacing, np.float32)

    def task(k: int) -> None:
        first = k * CHUNK
        _follow_slopes(guide, voxels, lengths, first, min(len(voxels), first + CHUNK), points)

    run_chunks(task, -(-len(voxels) // CHUNK))
    return points
