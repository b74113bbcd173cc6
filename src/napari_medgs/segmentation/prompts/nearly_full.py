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
        marked = (probe != unlabeled).mean(axis=(1, 2))
        chosen = np.flatnonzero((marked > 0) & (marked >= least_marked / 2))
        missing, crossed = _count_unlabeled(labels, unlabeled, axis, chosen)
        few = (missing > 0) & (missing <= (1 - least_marked) * stack[0].size) & ~crossed
        if few.any():
            chosen, missing = chosen[few], missing[few]
            several = _have_several(labels, unlabeled, axis, chosen, probe)
            found += [
                NearlyFullSlice(axis, int(index), int(count))
                for index, count in zip(chosen[several], missing[several])
            ]
    return tuple(found)


def _count_unlabeled(
    labels: NDArray[Any], unlabeled: int, axis: int, chosen: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the unlabeled voxels of each slice, and whether one of its lines has no label.

    Such a line belongs to a slice of another orientation without marks; it is no gap.
    """
    missing = np.zeros(len(chosen), np.int64)
    crossed = np.zeros(len(chosen), bool)
    if not len(chosen):
        return missing, crossed
    if axis == 0:
        for k, index in enumerate(chosen):
            empty = labels[index] == unlabeled
            missing[k] = np.count_nonzero(empty)
            if missing[k]:
                crossed[k] = empty.all(axis=0).any() or empty.all(axis=1).any()
        return missing, crossed
    # Plane by plane as they lie in memory: slices of the other axes are scattered over it.
    part = slice(chosen[0], chosen[-1] + 1)
    where = (part, slice(None)) if axis == 1 else (slice(None), part)
    along = 2 - axis
    never = np.ones(labels[0][where].shape, bool)
    count = np.zeros(part.stop - part.start, np.int64)
    cross = np.zeros(len(count), bool)
    for plane in labels:
        empty = plane[where] == unlabeled
        if not empty.any():
            never[:] = False
            continue
        never &= empty
        count += empty.view(np.uint8).sum(axis=along, dtype=np.uint32)  # twice as fast as bool
        cross |= empty.all(axis=along)
    cross |= never.any(axis=along)
    return count[chosen - part.start], cross[chosen - part.start]


def _have_several(
    labels: NDArray[Any],
    unlabeled: int,
    axis: int,
    chosen: NDArray[np.intp],
    probe: NDArray[Any],
) -> NDArray[np.bool_]:
    """Return which slices have several labels."""
    few = probe[chosen].reshape(len(chosen), -1)
    one = few[np.arange(len(few)), (few != unlabeled).argmax(axis=1)]
    several = np.zeros(len(chosen), bool)
    if axis == 0:
        for k, index in enumerate(chosen):
            several[k] = ((labels[index] != one[k]) & (labels[index] != unlabeled)).any()
        return several
    ones = one[:, None] if axis == 1 else one
    for plane in labels:
        lines = plane[chosen] if axis == 1 else plane[:, chosen]
        several |= ((lines != ones) & (lines != unlabeled)).any(axis=2 - axis)
    return several


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
