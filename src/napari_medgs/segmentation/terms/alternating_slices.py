"""Slices that are brighter and darker by turns, as interleaved two-dimensional MR leaves them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST_SLICES = 6
SAMPLES = 64  # rows and columns of a slice that are looked at, at most
FOREGROUND = 0.1  # of the 99th percentile: darker voxels are mostly noise
MOST_NEGATIVE = 0.05  # 1st percentile over the 99th: resampling and noise leave such values in air
FEWEST_VOXELS = 50  # of the foreground, in a slice that counts
LEAST_GAIN = 0.02  # logarithm of the gain, below which nothing is done
LEAST_RATIO = 3.0  # of the gain to the deviation of the slices from it


def alternating_gain(channel: NDArray[Any]) -> float:
    """Return the logarithm of the factor by which even slices are brighter, and odd ones darker.

    Slices are compared with the mean of their neighbors, voxel by voxel, in the logarithm of
    their intensity: what changes evenly along the stack cancels.

    Parameters
    ----------
    channel : (Z, Y, X) ndarray
        Finite.

    Returns
    -------
    float
        0 where slices do not alternate clearly, and for images with negative intensities.
    """
    if len(channel) < FEWEST_SLICES:
        return 0.0
    steps = [max(1, n // SAMPLES) for n in channel.shape[1:]]
    part = channel[:, :: steps[0], :: steps[1]].astype(np.float64)
    low, high = np.percentile(part, (1, 99))
    floor = FOREGROUND * float(high)
    if not floor > 0 or low < -MOST_NEGATIVE * high:
        return 0.0
    shown = part > floor
    logarithm = np.log(np.maximum(part, floor))
    all_three = shown[1:-1] & shown[:-2] & shown[2:]
    excess = logarithm[1:-1] - (logarithm[:-2] + logarithm[2:]) / 2
    found = [
        # A neighbor's gain is the inverse one, so that the difference is twice the gain.
        np.median(excess[k][on]) / 2 * (-1 if k % 2 == 0 else 1)
        for k, on in enumerate(all_three)
        if np.count_nonzero(on) >= FEWEST_VOXELS
    ]
    if len(found) < FEWEST_SLICES - 2:
        return 0.0
    gains = np.array(found)
    gain = float(np.median(gains))
    same = np.sign(gains) == np.sign(gain)
    spread = float(np.median(np.abs(gains - gain)))
    clear = same.all() and abs(gain) >= max(LEAST_GAIN, LEAST_RATIO * spread)
    return gain if clear else 0.0


def without_alternation(data: NDArray[Any]) -> NDArray[Any]:
    """Return channels whose slices are not brighter and darker by turns.

    Parameters
    ----------
    data : (C, Z, Y, X) ndarray
        Finite.

    Returns
    -------
    (C, Z, Y, X) ndarray
        The same array where no channel alternates; see :func:`alternating_gain`.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.full((1, 8, 20, 20), 100.0)
    >>> image[:, ::2] *= 1.44
    >>> np.unique(without_alternation(image).round(3)).tolist()
    [120.0]
    """
    gains = [alternating_gain(channel) for channel in data]
    if not any(gains):
        return data
    sign = np.where(np.arange(data.shape[1]) % 2 == 0, 1.0, -1.0)
    factors = np.exp(-np.outer(gains, sign)).astype(np.float32)
    even: NDArray[Any] = data.astype(np.float32) * factors[:, :, None, None]
    return even
