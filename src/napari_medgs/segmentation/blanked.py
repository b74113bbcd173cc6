"""Parts of an image that were set to one value among its intensities, as a face or name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation.far_constants import (
    FLAT,
    LEAST,
    RIM,
    is_smooth,
    is_tail,
    sample_places,
)

OTHERS = 0.1  # of the blanked voxels: as many may be flat at other values
BACK = 3  # voxels from the inside of a box to its corner, along axes


@dataclass(frozen=True)
class Blanked:
    """Voxels of a channel that were set to one value, and what stands for it.

    Attributes
    ----------
    where : (Z, Y, X) ndarray of bool
    value : float
    low : float
        What stands for it: the low end of all other intensities.
    """

    where: NDArray[np.bool_]
    value: float
    low: float

    def between(self, lowest: float | None, highest: float | None) -> bool:
        """Tell whether a limit of intensities lies between the value and what stands for it."""
        return any(
            limit is not None and self.low <= limit <= self.value for limit in (lowest, highest)
        )


def blanked_of(channel: NDArray[Any]) -> Blanked | None:
    """Return what was set to one value within the range of a channel, as far as it can be told.

    That is the one value that many voxels have together with all that are one and two voxels
    away, where hardly any other voxels have that but at the ends of the range, and voxels that
    vary are more. In images with few gray levels, or drawn by a program, others have it too.
    """
    places = sample_places(channel)
    sample = channel[places].astype(np.float64)
    ends = float(channel.min()), float(channel.max())
    near = FLAT * (ends[1] - ends[0])
    flat, beside = np.ones(sample.shape, np.bool_), []
    for axis in range(3):
        for shift in (-RIM, -1, 1, RIM):
            moved = list(places)
            moved[axis] = np.clip(places[axis] + shift, 0, channel.shape[axis] - 1)
            other = channel[tuple(moved)].astype(np.float64)
            flat &= np.abs(other - sample) <= near
            if abs(shift) == RIM:
                beside.append(other)
    inner = (sample - ends[0] > near) & (ends[1] - sample > near)
    varied = inner & ~flat
    if not varied.any():
        return None
    low = float(np.percentile(sample[varied], 0.5))
    if np.issubdtype(channel.dtype, np.integer):
        low = float(np.floor(low))
    steps, counts = np.unique(
        np.rint((sample[inner & flat & (sample > low)] - ends[0]) / near), return_counts=True
    )
    if not len(steps) or counts.max() < LEAST * sample.size:
        return None
    if counts.sum() - counts.max() > OTHERS * counts.max():
        return None
    value = ends[0] + near * float(steps[counts.argmax()])
    for values in (sample, *beside):
        varied &= np.abs(values - value) > near
    if np.count_nonzero(varied) < counts.max():
        return None
    if not is_tail(low, sample[varied]):
        return None
    if not is_smooth(sample[varied], [b[varied] for b in beside[1::2]]):
        return None
    return Blanked(_flat_parts(channel, value, near), value, low)


def _flat_parts(channel: NDArray[Any], value: float, near: float) -> NDArray[np.bool_]:
    """Return the parts at one value that hold voxels with only such neighbors."""
    same = np.empty(channel.shape, np.bool_)
    for plane, values in zip(same, channel, strict=True):
        plane[:] = np.abs(values.astype(np.float64) - value) <= near
    parts = same.copy()
    for before, after in _neighbors(same.shape):
        parts[before] &= same[after]
    for _ in range(BACK):
        grown = parts.copy()
        for before, after in _neighbors(same.shape):
            grown[before] |= parts[after]
        parts = grown & same
    return parts


def _neighbors(shape: tuple[int, ...]) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Return the places with a neighbor and those of the neighbor, in the six directions."""
    found = []
    for axis in range(len(shape)):
        first, last = [slice(None)] * len(shape), [slice(None)] * len(shape)
        first[axis], last[axis] = slice(None, -1), slice(1, None)
        found += [(tuple(first), tuple(last)), (tuple(last), tuple(first))]
    return found
