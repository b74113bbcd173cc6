"""Slices that were meant to be fully labeled, but lack a few voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_MARKED = 0.95
MOST_NAMED = 3


@dataclass(frozen=True)
class NearlyFullSlice:
    """A slice of which all but a few voxels are marked.

    Attributes
    ----------
    axis, index : int
        On the canonical grid.
    missing : int
        Voxels without a label.
    """

    axis: int
    index: int
    missing: int


def find_nearly_full_slices(
    labels: NDArray[Any], unlabeled: int, least_marked: float = LEAST_MARKED
) -> tuple[NearlyFullSlice, ...]:
    """Return the slices with several labels that lack a few voxels, as a paint bucket leaves them.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of int
    unlabeled : int
        The value that carries no label.
    least_marked : float
        Share of a slice that must be marked, 0 to 1.

    Returns
    -------
    tuple of NearlyFullSlice

    Examples
    --------
    >>> labels = np.zeros((3, 10, 10), int)
    >>> labels[1], labels[1, 2:5, 2:5], labels[1, 7, 7] = 2, 1, 0
    >>> find_nearly_full_slices(labels, 0)
    (NearlyFullSlice(axis=0, index=1, missing=1),)
    """
    found = []
    for axis in range(3):
        stack = np.moveaxis(labels, axis, 0)
        if stack.shape[0] < 2 or min(stack.shape[1:]) < 2:
            continue
        # A few voxels of each slice rule most others out.
        probe = stack[:, :: max(1, stack.shape[1] // 4), :: max(1, stack.shape[2] // 4)]
        for index in np.flatnonzero((probe != unlabeled).mean(axis=(1, 2)) >= least_marked / 2):
            plane = stack[index]
            empty = plane == unlabeled
            missing = int(np.count_nonzero(empty))
            if not 0 < missing <= (1 - least_marked) * empty.size:
                continue
            # An empty row or column is a slice of another orientation without marks, not a gap.
            if empty.all(axis=0).any() or empty.all(axis=1).any():
                continue
            if np.ptp(plane[~empty]) > 0:
                found.append(NearlyFullSlice(axis, int(index), missing))
    return tuple(found)


def describe_nearly_full(slices: Sequence[tuple[str, int]]) -> str:
    """Return a sentence that names slices and how many voxels each lacks.

    Parameters
    ----------
    slices : sequence of (str, int)
        What each slice is called, and its voxels without a label; one or more.

    Returns
    -------
    str

    Examples
    --------
    >>> describe_nearly_full([("slice 4", 2)])
    'Not fully labeled: slice 4 lacks 2 voxels. Its marks count as strokes.'
    """
    parts = [
        f"{name} lacks {missing:,} voxel{'s' if missing > 1 else ''}"
        for name, missing in slices[:MOST_NAMED]
    ]
    if len(slices) > MOST_NAMED:
        parts.append(f"{len(slices) - MOST_NAMED} more lack some")
    whose = "Its" if len(slices) == 1 else "Their"
    return f"Not fully labeled: {', '.join(parts)}. {whose} marks count as strokes."
