"""Constants in an image that lie far from all that was measured, as outside of a field of view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLAT = 1e-6  # of a channel's range: what resampling leaves of a constant
SAMPLE = 100_000  # voxels that are looked at first
LEAST = 0.005  # of the voxels: a rarer constant is beyond the percentiles that scale intensities
FAR = 0.25  # of the span of all other intensities
RIM = 2  # voxels beside a constant that may hold some of it
TAIL = 0.05  # of all others at most have the value that stands for a constant; more are a tissue
ALIKE = 0.5  # correlation of voxels that far apart; in noise alone there is nothing to lose


@dataclass(frozen=True)
class Clip:
    """A channel's constants that lie far from all that was measured, and what stands for them.

    A field of view, a mask or a removed face leave such a constant; taken as it is, it would
    compress all other intensities.

    Attributes
    ----------
    low, high : float
        Where intensities are cut; infinite where there is no such constant.
    lowest, highest : float
        The constants; infinite where there is none.
    """

    low: float = -np.inf
    high: float = np.inf
    lowest: float = -np.inf
    highest: float = np.inf

    @property
    def is_needed(self) -> bool:
        """Whether there is such a constant."""
        return bool(np.isfinite(self.low) or np.isfinite(self.high))

    def cut(self, values: NDArray[Any], out: NDArray[Any]) -> None:
        """Write values of the channel, cut, into an array of their type."""
        out[...] = values
        if np.isfinite(self.low):
            np.maximum(out, out.dtype.type(self.low), out=out)
        if np.isfinite(self.high):
            np.minimum(out, out.dtype.type(self.high), out=out)

    def holds(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which values are nearer to such a constant than to what stands for it."""
        found = np.zeros(np.shape(values), np.bool_)
        if np.isfinite(self.low):
            found |= values < 0.5 * self.lowest + 0.5 * self.low
        if np.isfinite(self.high):
            found |= values > 0.5 * self.highest + 0.5 * self.high
        return found

    def between(self, lowest: float | None, highest: float | None) -> bool:
        """Tell whether a limit of intensities lies where they are cut."""
        below = lowest is not None and self.lowest < lowest <= self.low
        return below or (highest is not None and self.high <= highest < self.highest)


def clip_of(channel: NDArray[Any]) -> Clip:
    """Return what a channel's constants far from all else are, and where to cut them.

    These are its lowest or highest value where many voxels have it, and all others, but for
    those at its border, lie apart.
    """
    places = sample_places(channel)
    ends = float(channel.min()), float(channel.max())
    near = FLAT * (ends[1] - ends[0])

    def constant(values: NDArray[Any]) -> NDArray[np.bool_]:
        return np.logical_or.reduce(
            [np.abs(values.astype(np.float64) - end) <= near for end in common]
        )

    sample = channel[places].astype(np.float64)
    common = [end for end in ends if (np.abs(sample - end) <= near).mean() >= LEAST]
    if not common:
        return Clip()
    apart, beside = ~constant(sample), []
    for axis in range(3):
        for shift in (-RIM, RIM):
            moved = list(places)
            moved[axis] = np.clip(places[axis] + shift, 0, channel.shape[axis] - 1)
            beside.append(channel[tuple(moved)].astype(np.float64))
            apart &= ~constant(beside[-1])
    if not apart.any() or not is_smooth(sample[apart], [b[apart] for b in beside[1::2]]):
        return Clip()
    low, high = (float(v) for v in np.percentile(sample[apart], (0.5, 99.5)))
    if np.issubdtype(channel.dtype, np.integer):
        low, high = float(np.floor(low)), float(np.ceil(high))
    far = FAR * (high - low)
    found = Clip()
    if ends[0] in common and low - ends[0] > far > 0 and is_tail(low, sample[apart]):
        found = replace(found, low=low, lowest=ends[0])
    if ends[1] in common and ends[1] - high > far > 0 and is_tail(high, sample[apart]):
        found = replace(found, high=high, highest=ends[1])
    return found


def sample_places(channel: NDArray[Any]) -> tuple[NDArray[np.intp], ...]:
    """Return the indices of voxels all over a channel, few enough to look at quickly."""
    step = max(1, channel.size // SAMPLE)
    return np.unravel_index(np.arange(0, channel.size, step), channel.shape)


def is_tail(end: float, values: NDArray[np.float64]) -> bool:
    """Tell whether few values are at this end, so that a constant may be brought there."""
    return float((values == end).mean()) <= TAIL


def is_smooth(values: NDArray[np.float64], neighbors: Sequence[NDArray[np.float64]]) -> bool:
    """Tell whether voxels are like one of their neighbors, more than noise is."""
    variance = float(np.var(values))
    least = min(float(np.mean((values - other) ** 2)) for other in neighbors)
    return variance > 0 and 1 - least / (2 * variance) >= ALIKE
