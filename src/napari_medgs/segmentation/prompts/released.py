"""What prompts that contradict an initial mask set free: balls around them.

A prompt frees voxels of the label that it contradicts, none of other labels. What prompts near
each other free is found in a box around them, and kept as long as these prompts are the same: one
more stroke costs as much as itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.advanced import InitialMaskParams

ANY_LABEL = -1  # of a prompt that says what a voxel is not
STEPS = 4  # of an octave of depths, each of which counts as one depth
CELL = 12.0  # finest voxels; prompts in cells of this size that touch are near each other
Box = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class ReleasedPart:
    """What prompts near each other set free of an initial mask.

    Attributes
    ----------
    label : int
        What they want; ``ANY_LABEL`` where they only deny the mask's.
    box : tuple of slice
        The smallest around all that is free.
    nearness : ndarray of float32
        In the box: distance to the nearest such prompt over its depth in the wrong label;
        infinite where nothing is freed.
    free : ndarray of bool
        Where it is finite.
    """

    label: int
    box: Box
    nearness: Floats
    free: NDArray[np.bool_]

    def mark_in(self, out: NDArray[np.bool_], window: Box) -> None:
        """Mark what is free in a window of the image, in place."""
        shared = overlap(window, self.box)
        if shared is not None:
            out[shared[0]] |= self.free[shared[1]]


class Releases:
    """Finds what prompts free of one initial mask; keeps the parts of the last prompts.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of int
        The mask.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    params : InitialMaskParams
    """

    def __init__(
        self, labels: NDArray[Any], relative_spacing: NDArray[Any], params: InitialMaskParams
    ) -> None:
        self._labels, self._relative_spacing, self._params = labels, relative_spacing, params
        self._known: dict[tuple[int, float, bytes], ReleasedPart] = {}

    def parts(
        self, voxels: NDArray[Any], labels: NDArray[Any], lacking: frozenset[int]
    ) -> tuple[ReleasedPart, ...]:
        """Return what prompts free, one part for those of a label that are near each other.

        Parameters
        ----------
        voxels : (P, 3) ndarray of int
            Where prompts say another label than the mask.
        labels : (P,) ndarray of int
            Which one; ``ANY_LABEL`` where they only deny the mask's.
        lacking : frozenset of int
            Labels that the mask does not have: its background says nothing of them.

        Returns
        -------
        tuple of ReleasedPart
            The same objects where these prompts were known.
        """
        found: dict[tuple[int, float, bytes], ReleasedPart] = {}
        before = self._labels[tuple(voxels.T)]
        for label in np.unique(labels):
            mine = labels == label
            # Of a class that the mask lacks, the background is as wrong as far as it extends.
            new = mine & (before == 0)
            least = 0.0
            if int(label) in lacking and new.any():
                least = float((np.ptp(voxels[new], axis=0) * self._relative_spacing).max())
            for cluster in self._clusters(voxels[mine]):
                key = int(label), least, cluster.tobytes()
                part = self._known.get(key)
                found[key] = self._part(int(label), cluster, least) if part is None else part
        self._known = found
        return tuple(found.values())

    def _clusters(self, voxels: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Return the voxels of cells that touch each other, by their places in the image."""
        from scipy.ndimage import label

        cells = (voxels * self._relative_spacing // CELL).astype(np.int64)
        low = cells.min(axis=0)
        cells -= low
        occupied = np.zeros(cells.max(axis=0) + 1, np.bool_)
        occupied[tuple(cells.T)] = True
        number = label(occupied, np.ones((3, 3, 3)))[0][tuple(cells.T)]
        for one in range(1, int(number.max()) + 1):
            yield voxels[number == one]

    def _part(self, label: int, voxels: NDArray[Any], least: float) -> ReleasedPart:
        box = self._box(voxels, self._reach(self._params.max_depth * 2 ** (1 / STEPS)))
        nearness = np.full([s.stop - s.start for s in box], np.inf, np.float32)
        values = self._labels[tuple(voxels.T)]
        for value in np.unique(values):
            own = voxels[values == value]
            self._release(value, own, least if value == 0 else 0.0, box, nearness)
        inner = smallest_box(np.isfinite(nearness))
        nearness = nearness[inner].copy()
        place = tuple(
            slice(s.start + a.start, s.start + a.stop) for a, s in zip(inner, box, strict=True)
        )
        return ReleasedPart(label, place, nearness, np.isfinite(nearness))

    def _release(
        self, value: Any, voxels: NDArray[Any], least: float, around: Box, out: Floats
    ) -> None:
        """Free voxels of one label around prompts that lie in it, at least as deep as said."""
        from scipy.ndimage import distance_transform_edt

        most = self._params.max_depth
        near = self._box(voxels, most)
        mine = self._labels[near] == value
        depth = np.full(len(voxels), most)
        if not mine.all():
            distance = distance_transform_edt(mine, sampling=self._relative_spacing)
            inner = tuple((voxels - [s.start for s in near]).T)
            depth = np.clip(distance[inner], min(least, most), most)
        # Depths in steps, each with one distance transform in its own box.
        level = np.ceil(STEPS * np.log2(depth)).astype(int)
        for step in np.unique(level):
            deep, centers = 2.0 ** (step / STEPS), voxels[level == step]
            reach = self._reach(deep)
            box = self._box(centers, reach)
            away = np.ones([s.stop - s.start for s in box], np.bool_)
            away[tuple((centers - [s.start for s in box]).T)] = False
            distance = distance_transform_edt(away, sampling=self._relative_spacing)
            ball = (distance <= reach) & (self._labels[box] == value)
            mine = out[tuple(slice(b.start - a.start, b.stop - a.start)
                             for a, b in zip(around, box, strict=True))]  # fmt: skip
            np.minimum(mine, distance / deep, out=mine, where=ball, casting="same_kind")

    def _reach(self, depth: float) -> float:
        """Return the radius of the ball that a prompt of some depth sets free."""
        params = self._params
        return max(params.release_factor * depth + params.release_offset, 1.0)

    def _box(self, voxels: NDArray[Any], reach: float) -> Box:
        corners = np.stack([voxels.min(axis=0), voxels.max(axis=0)])
        return box_around(corners, reach, self._relative_spacing, self._labels.shape)


def box_around(
    corners: NDArray[Any], reach: float, relative_spacing: NDArray[Any], shape: tuple[int, ...]
) -> Box:
    """Return a box with a margin, within an image.

    Parameters
    ----------
    corners : (2, 3) ndarray of int
        First and last voxel.
    reach : float
        Margin in finest voxels; one voxel is added.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    shape : (Z, Y, X)

    Returns
    -------
    tuple of slice
    """
    pad = np.ceil(reach / relative_spacing).astype(int) + 1
    low = np.maximum(corners[0] - pad, 0)
    high = np.minimum(corners[1] + pad + 1, shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def overlap(one: Box, other: Box) -> tuple[Box, Box] | None:
    """Return what two boxes share, in the voxels of each of them; None where that is nothing."""
    first, second = [], []
    for a, b in zip(one, other, strict=True):
        low, high = max(a.start, b.start), min(a.stop, b.stop)
        if low >= high:
            return None
        first.append(slice(low - a.start, high - a.start))
        second.append(slice(low - b.start, high - b.start))
    return tuple(first), tuple(second)


def smallest_box(where: NDArray[np.bool_]) -> Box:
    """Return the smallest box that holds what is true; an empty one where nothing is."""
    box = []
    for axis in range(where.ndim):
        there = np.flatnonzero(where.any(axis=tuple(b for b in range(where.ndim) if b != axis)))
        box.append(slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 0))
    return tuple(box)
