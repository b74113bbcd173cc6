"""Where one more stroke helps most.

A stroke speaks for its slice and, less and less, for those around. The slice suggested is the one
that speaks for most of what no annotated slice speaks for yet, be it the mistakes to be expected
or the extent of the objects as they are seen now: where the result is sure of itself but far from
all strokes, only a look at the slice can tell. Every class counts alike, however small. This is
the greedy rule for facility location, which is never far from the best choice.

Going where most is wrong is no better than going to any slice of the objects, even for one who
knows what is wrong: mistakes lie together, and strokes beside strokes tell little that is new. So
slices reach far, and the extent counts for half, with wide margins: objects often end later than
they seem to.

Sources: Nemhauser, Wolsey and Fisher 1978, *An analysis of approximations for maximizing
submodular set functions*, Mathematical Programming 14.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats

REACH = 0.35  # of the objects' extent: where a slice speaks for 1 / e of another
EXTENT = 0.5  # how much the extent counts, the rest is expected mistakes
BEYOND = 0.3  # of an object's extent: how far its ends may be wrong
BLUR = 3.0  # finest voxels


@dataclass(frozen=True)
class Suggestion:
    """A slice worth annotating.

    Attributes
    ----------
    axis, index : int
        The slice of the canonical grid.
    position : (z, y, x)
        The voxel in it at which the result is least certain.
    score : float
        The share, 0 to 1, of all mistakes and all extent that it would newly speak for.
    """

    axis: int
    index: int
    position: tuple[int, int, int]
    score: float


def suggest_slices(
    chance: Floats,
    labels: NDArray[np.uint8],
    rival: NDArray[np.uint8],
    axis: int,
    annotated: NDArray[np.int64],
    spacing: tuple[float, float, float],
    count: int = 1,
) -> list[Suggestion]:
    """Return the slices of one orientation where another annotation helps most, best first.

    Parameters
    ----------
    chance : (Z, Y, X) ndarray, 0 to 1
        That a voxel's label is wrong.
    labels, rival : (Z, Y, X) ndarray of uint8
        Class indices as they are, and as they would be if wrong; 0 is background.
    axis : int
    annotated : ndarray of int
        Slices of that orientation that carry strokes already.
    spacing : (z, y, x) in mm
    count : int
    """
    from scipy.ndimage import gaussian_filter

    annotated = np.asarray(annotated, np.int64)
    worth, extent = _worth(
        np.moveaxis(chance, axis, 0), np.moveaxis(labels, axis, 0), np.moveaxis(rival, axis, 0)
    )
    place = np.arange(len(worth))
    share = np.exp(-np.abs(place[:, None] - place) / max(1.0, REACH * extent))
    spoken_for = share[:, annotated].max(axis=1, initial=0.0)
    open_to_choice = np.ones(len(worth), np.bool_)
    open_to_choice[annotated] = False
    others = tuple(a for a in range(3) if a != axis)
    widths = [BLUR * min(spacing) / spacing[a] for a in others]
    found: list[Suggestion] = []
    for _ in range(min(count, int(np.count_nonzero(open_to_choice)))):
        gain = worth @ np.maximum(share - spoken_for[:, None], 0)
        gain[~open_to_choice] = 0
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        plane = np.take(chance, best, axis=axis)
        row, column = np.unravel_index(gaussian_filter(plane, widths).argmax(), plane.shape)
        position = [0, 0, 0]
        position[axis], position[others[0]], position[others[1]] = best, int(row), int(column)
        found.append(
            Suggestion(axis, best, (position[0], position[1], position[2]), float(gain[best]))
        )
        open_to_choice[best] = False
        spoken_for = np.maximum(spoken_for, share[:, best])
    return found


def _worth(
    chance: Floats, labels: NDArray[np.uint8], rival: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], float]:
    """Return what each slice (the first axis) is worth, in sum 1, and the objects' mean extent."""
    from scipy.ndimage import gaussian_filter1d

    classes = int(max(labels.max(), rival.max())) + 1
    area, wrong = np.zeros((len(labels), classes)), np.zeros((len(labels), classes))
    for z in range(len(labels)):
        own, weight = labels[z].reshape(-1), chance[z].reshape(-1)
        area[z] = np.bincount(own, minlength=classes)
        # What may be wrong is wrong for two classes: the one that it is and the one it should be.
        wrong[z] = np.bincount(own, weight, classes)
        wrong[z] += np.bincount(rival[z].reshape(-1), weight, classes)
    mistakes = (wrong[:, 1:] / np.maximum(area[:, 1:].sum(axis=0), 1)).sum(axis=1)
    mistakes = gaussian_filter1d(mistakes, 1.0)
    outlines, extents = np.zeros(len(labels)), []
    for k in range(1, classes):
        slices = int(np.count_nonzero(area[:, k]))
        if slices:
            wide = np.sqrt(area[:, k])
            outlines += gaussian_filter1d(wide, max(1.0, BEYOND * slices)) / wide.sum()
            extents.append(slices)
    worth = np.zeros(len(labels))
    for part, weight in ((mistakes, 1 - EXTENT), (outlines, EXTENT)):
        if part.sum() > 0:
            worth += weight * part / part.sum()
    return worth, float(np.mean(extents)) if extents else 1.0
