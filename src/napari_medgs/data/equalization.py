"""Intensities spread over [0, 1], so that soft tissue in CT gets its share of the range."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.data.intensities import check_span, is_single

KNOTS = 1024
SAMPLE = 1_000_000
_FINE = 2.0**-12  # of the largest value: narrower spans have fewer steps than four a knot


@njit(nogil=True, cache=True)
def _look_up(values: Any, low: float, inverse: float, curve: Any, out: Any) -> None:
    """Interpolate in a curve between ``low`` and one span above; beyond, its ends count."""
    knots = len(curve) - 1
    for v in range(len(values)):
        place = min(max((values[v] - low) * inverse, 0.0), 1.0) * knots
        k = min(int(place), knots - 1)
        f = place - k
        out[v] = (1 - f) * curve[k] + f * curve[k + 1]


def intensity_curve(
    channel: NDArray[Any], equalization: float = 0.5
) -> tuple[float, float, Floats]:
    """Return the range and a monotone curve that spreads an image's intensities over [0, 1].

    Half linear between the 0.5 and 99.5 percentiles, half histogram equalization: soft tissue in
    CT takes a tenth of the range but holds most of the structures.

    Parameters
    ----------
    channel : ndarray
    equalization : float
        Part of histogram equalization, 0 to 1.

    Returns
    -------
    low, high : float
        Intensities of the first and last knot.
    curve : (KNOTS + 1,) ndarray of float32
    """
    step = max(1, channel.size // SAMPLE)
    with np.errstate(over="ignore"):  # an outlier, which the percentiles leave out
        sample = np.ascontiguousarray(channel).reshape(-1)[::step].astype(np.float32)
    low, high = (float(v) for v in np.percentile(sample, (0.5, 99.5)))
    if not high > low:
        low, high = float(channel.min()), float(channel.max())
    if not high > low:
        high = low + 1.0
    if is_single(low, high) and high - low >= _FINE * max(abs(low), abs(high)):
        counts, _ = np.histogram(sample, KNOTS, range=(low, high))
    else:
        sample = np.ascontiguousarray(channel).reshape(-1)[::step].astype(np.float64)
        low, high = (float(v) for v in np.percentile(sample, (0.5, 99.5)))
        if not high > low:
            low, high = float(channel.min()), float(channel.max())
        if channel.min() == channel.max():
            high = low + 1.0
        check_span(low, high)
        counts, _ = np.histogram((sample - low) / (high - low), KNOTS, range=(0, 1))
    # One dominant value (air, a zeroed background) would take up the whole range.
    counts = np.minimum(counts, 8 * counts.sum() / KNOTS)
    rank = np.concatenate([[0], np.cumsum(counts)])
    rank = rank / max(float(rank[-1]), 1e-12)
    linear = np.linspace(0, 1, KNOTS + 1)
    return low, high, (equalization * rank + (1 - equalization) * linear).astype(np.float32)


def equalized(channel: NDArray[Any], equalization: float = 0.5) -> Floats:
    """Return a channel with its intensities spread by :func:`intensity_curve`.

    Parameters
    ----------
    channel : ndarray
        Finite.
    equalization : float
        0 for the channel over its whole range, not cut at percentiles.

    Returns
    -------
    ndarray of float32
        Of the same shape.

    Examples
    --------
    >>> import numpy as np
    >>> equalized(np.array([-2.0, 0.0, 2.0]), 0.0).tolist()
    [0.0, 0.5, 1.0]
    """
    if equalization == 0:
        low, high = float(channel.min()), float(channel.max())
    else:
        low, high, curve = intensity_curve(channel, equalization)
    check_span(low, high)
    if equalization == 0:
        curve = np.array([0, 1], np.float32)
    out = np.empty(channel.shape, np.float32)
    flat = np.ascontiguousarray(channel).reshape(-1)
    _look_up(flat, low, 1 / ((high - low) or 1.0), curve, out.reshape(-1))
    return out
