"""How likely every label is wrong, estimated from what mistakes were seen to go with.

Three things foretell mistakes, and each multiplies the odds of one: how little the label's class
leads over the next one; how near the border of the mask is, compared with how thick the objects
are (mistakes lie at borders, and deep inside a class that covers much of the image almost nothing
is wrong, however far the strokes are); and whether the voxel looks like another class (whole
parts that were missed do). The entropy of the probabilities, which knows neither, was high
everywhere far from strokes: in an abdominal CT with five organs it foretold mistakes worse than
chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats

# Logistic regression over wrong voxels of the benchmark's cases of the split "tune".
START = -1.92
LEAD = -1.5  # for every e-fold of the next class's distance over the label's own
DEPTH = -1.05  # for every e-fold of depth over the objects' thickness
LOOKS = 0.6  # for every e-fold by which another class is likelier by looks
LEADS = (-2.0, 6.0)
MOST_LOOKS = 2.0
LARGE = 2_000_000  # voxels: from here on depth is measured on every second one

_options: dict[str, Any] = {"nogil": True, "cache": True}


@dataclass(frozen=True)
class Doubt:
    """What may be wrong, slice-first.

    Attributes
    ----------
    chance : (Z, Y, X) ndarray of float32
        That the label is wrong, 0 to 1.
    rival : (Z, Y, X) ndarray of uint8
        The class that it would be then.
    """

    chance: Floats
    rival: NDArray[np.uint8]


@njit(**_options)
def lead_of(scores: Any, labels: Any, closed: Any, lead: Any, rival: Any) -> None:
    """Write by how much the labels' scores (K, P) lead over the best other, and which that is.

    ``closed`` (K,) marks classes that are out of the question.
    """
    classes, count = scores.shape
    for i in range(count):
        own = labels[i]
        best, value = 0, np.float32(-np.inf)
        for k in range(classes):
            if k != own and not closed[k] and scores[k, i] > value:
                best, value = k, scores[k, i]
        lead[i] = scores[own, i] - value
        rival[i] = best


def chance_of(lead: Floats, depth: Floats, looks: Floats) -> Floats:
    """Return the chance of a mistake.

    Parameters
    ----------
    lead : ndarray
        Logarithm of the next class's distance over the label's.
    depth : ndarray
        Distance to the border of the mask over the thickness of the objects.
    looks : ndarray
        Logarithm of the likeliest class's probability by looks over the label's.
    """
    odds = START + LEAD * np.clip(lead, *LEADS) + LOOKS * np.clip(looks, 0, MOST_LOOKS)
    odds += np.float32(DEPTH) * np.log(np.maximum(depth, np.float32(1e-6)))
    chance: Floats = (1 / (1 + np.exp(-odds))).astype(np.float32)
    return chance


def border_of(labels: NDArray[np.uint8], settled: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Return the voxels with a neighbour of another class, (Z, Y, X).

    Borders of ``settled`` voxels do not count.
    """
    border = np.zeros(labels.shape, np.bool_)
    for axis in range(3):
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        a, b = tuple(ahead), tuple(behind)
        differ = labels[a] != labels[b]
        if settled is not None:
            differ &= ~(settled[a] | settled[b])
        border[a] |= differ
        border[b] |= differ
    return border


class Depth:
    """Distance to the border of a mask, over the thickness of the objects.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of uint8
        Class indices, 0 is background.
    units : (3,) ndarray
        Voxel sizes over the finest one.
    settled : (Z, Y, X) ndarray of bool, optional
        What is certain; its borders do not count.
    """

    def __init__(
        self,
        labels: NDArray[np.uint8],
        units: NDArray[np.float64],
        settled: NDArray[np.bool_] | None = None,
    ) -> None:
        from scipy.ndimage import distance_transform_edt, maximum

        border = border_of(labels, settled)
        large = labels.size > LARGE
        self._steps = [
            2 if large and u < 1.5 and n >= 16 else 1
            for u, n in zip(units, labels.shape, strict=True)
        ]
        for axis, step in enumerate(self._steps):
            if step > 1:
                starts = np.arange(0, border.shape[axis], step)
                border = np.logical_or.reduceat(border, starts, axis=axis)
        if not border.any():
            self._depth: Floats = np.full(border.shape, np.inf, np.float32)
            return
        depth = distance_transform_edt(~border, sampling=np.asarray(units) * self._steps)
        self._depth = (depth + 1).astype(np.float32)
        coarse = labels[tuple(slice(None, None, s) for s in self._steps)]
        classes = [k for k in np.unique(coarse) if k > 0]
        thickness = np.median(maximum(self._depth, coarse, classes)) if classes else 1.0
        self._depth /= np.float32(thickness)

    def in_slice(self, z: int, shape: tuple[int, int]) -> Floats:
        """Return the depth in one slice, (Y, X)."""
        plane = self._depth[z // self._steps[0]]
        for axis in range(2):
            plane = np.repeat(plane, self._steps[axis + 1], axis=axis)
        return plane[: shape[0], : shape[1]]
