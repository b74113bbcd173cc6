"""Marked voxels with class indices, slice axis first, and what they tell of the slices."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation.prompts.kept_labels import KeptLabels

# A slice counts as drawn in from these many markers on, and from this fraction of those on the
# slice with most of them; strokes of another orientation cross many slices with a few voxels each.
MIN_MARKERS = 4
MIN_FRACTION = 0.05
MIN_FRACTION_ACROSS = 0.2
EMPTY_FRACTION = 0.5  # least background markers of a slice past the ends of everything


@dataclass(frozen=True)
class Markers:
    """Marked voxels; class 0 is the background.

    Attributes
    ----------
    values : tuple of int
        The label value of every class; 0 for the background.
    voxels : (P, 3) ndarray of int32
        Slice-first indices, each at most once.
    classes : (P,) ndarray of int32
    negative_voxels : (Q, 3) ndarray of int32, negative_classes : (Q,) ndarray of int32
        Voxels that are not of a class.
    boxes : dict
        For boxed classes the boxes (start, stop) that hold them, slice-first.
    fully_labeled : dict
        For every axis the fully labeled slices, increasing.
    user_marked : (P,) ndarray of bool
        Markers that were drawn by the user: the result has exactly these labels.
    kept : KeptLabels or None
        What stays of an initial mask.
    clicked : bool
        There are points only: the slices of one ball tell nothing about each other.
    empty : (S,) ndarray of int64
        Slices of the orientation of :meth:`annotated_slices` in which no class can be.
    """

    values: tuple[int, ...]
    voxels: NDArray[np.int32]
    classes: NDArray[np.int32]
    negative_voxels: NDArray[np.int32]
    negative_classes: NDArray[np.int32]
    boxes: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = field(
        default_factory=dict
    )
    fully_labeled: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    user_marked: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    kept: KeptLabels | None = None
    clicked: bool = False
    empty: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def count(self) -> int:
        """Number of classes, the background included."""
        return len(self.values)

    def subset(self, chosen: NDArray[np.bool_]) -> Markers:
        """Return some of the markers.

        Parameters
        ----------
        chosen : (P,) ndarray of bool

        Returns
        -------
        Markers
            The same object where all are chosen.
        """
        if chosen.all():
            return self
        return replace(
            self,
            voxels=self.voxels[chosen],
            classes=self.classes[chosen],
            user_marked=self.user_marked[chosen],
        )

    def with_inferred(self, voxels: NDArray[np.int32], classes: NDArray[np.int32]) -> Markers:
        """Return these and more markers, which the user has not drawn.

        Parameters
        ----------
        voxels : (Q, 3) ndarray of int32
            Those that are marked already keep their class.
        classes : (Q,) ndarray of int32

        Returns
        -------
        Markers
            The added ones last.
        """
        most = np.concatenate([self.voxels, voxels]).max(axis=0, initial=0) + 1
        flat = np.ravel_multi_index(tuple(voxels.T), most)
        free = ~np.isin(flat, np.ravel_multi_index(tuple(self.voxels.T), most))
        voxels, classes = voxels[free], classes[free]
        return replace(
            self,
            voxels=np.concatenate([self.voxels, voxels]),
            classes=np.concatenate([self.classes, classes]),
            user_marked=np.concatenate([self.user_marked, np.zeros(len(voxels), np.bool_)]),
        )

    def annotated_slices(self) -> tuple[int, NDArray[np.int64]]:
        """Return the orientation and indices of slices with markers of two classes or more.

        Returns
        -------
        axis : int
            The orientation whose slices hold the most markers, in all and each.
        indices : (S,) ndarray of int64
        """
        found: list[tuple[int, NDArray[np.int64], int]] = []
        for axis in range(3):
            place = self.voxels[self.user_marked, axis]
            if not len(place):
                continue
            hits = np.zeros((self.count, int(place.max()) + 1), np.int64)
            np.add.at(hits, (self.classes[self.user_marked], place), 1)
            total = hits.sum(axis=0)
            several = ((hits > 0).sum(axis=0) >= 2) & (total >= MIN_MARKERS)
            # Strokes of another orientation cross many slices with a few voxels each.
            several &= total >= MIN_FRACTION_ACROSS * total.max()
            if several.any():
                chosen = np.flatnonzero(several)
                if self.clicked:
                    chosen = np.array([int(np.where(several, total, 0).argmax())])
                found.append((axis, chosen, int(total[chosen].sum())))
        if not found:
            return 0, np.zeros(0, np.int64)
        # Slices across strokes hold a part of each; slices that were drawn in hold many markers.
        axis, chosen, _ = max(found, key=lambda one: one[2] ** 1.5 / len(one[1]) ** 0.5)
        return axis, chosen

    def background_slices(self) -> NDArray[np.int64]:
        """Return the slices past the annotated ones in which only background is marked.

        Someone who marks nothing but background there may say that the structures have ended. Each
        needs half as many background markers as the annotated slices have (their median): a
        short stroke against a leak says nothing of the whole slice.

        Returns
        -------
        (S,) ndarray of int64
            Of the orientation of :meth:`annotated_slices`.
        """
        axis, annotated = self.annotated_slices()
        none = np.zeros(0, np.int64)
        if not len(annotated):
            return none
        place, classes = self.voxels[self.user_marked, axis], self.classes[self.user_marked]
        length = int(place.max()) + 1
        background = np.bincount(place[classes == 0], minlength=length)
        others = np.bincount(place[classes > 0], minlength=length)
        shown = np.flatnonzero(others)
        least = max(MIN_MARKERS, EMPTY_FRACTION * float(np.median(background[annotated])))
        found = np.flatnonzero((others == 0) & (background >= least))
        return found[(found < shown[0]) | (found > shown[-1])] if len(shown) else none

    def slices_without_background(self) -> NDArray[np.int64]:
        """Return the slices in which classes are marked, and no background.

        Like annotated ones they hold a fifth of the fullest slice's markers.

        Returns
        -------
        (S,) ndarray of int64
            Of the orientation of :meth:`annotated_slices`.
        """
        axis, annotated = self.annotated_slices()
        place, classes = self.voxels[self.user_marked, axis], self.classes[self.user_marked]
        counts = np.bincount(place)
        least = max(MIN_MARKERS, MIN_FRACTION_ACROSS * int(counts.max(initial=0)))
        return np.setdiff1d(np.flatnonzero(counts >= least), [*annotated, *place[classes == 0]])

    def marked_slices(self, axis: int) -> NDArray[np.int64]:
        """Return the slices of one orientation that were drawn in, be it with one class only.

        Parameters
        ----------
        axis : int

        Returns
        -------
        (S,) ndarray of int64
        """
        voxels = self.voxels[self.user_marked]
        if not len(voxels):
            return np.zeros(0, np.int64)
        counts = [np.bincount(voxels[:, a]) for a in range(3)]
        most = max(int(c.max()) for c in counts)
        own = axis == self.annotated_slices()[0]
        fraction = MIN_FRACTION if own else MIN_FRACTION_ACROSS
        return np.flatnonzero(counts[axis] >= max(MIN_MARKERS, fraction * most))

    def slice_groups(self) -> NDArray[np.int64]:
        """Return the annotated slice of every marker, -1 where it lies on none."""
        axis, places = self.annotated_slices()
        place = self.voxels[:, axis].astype(np.int64)
        return np.where(np.isin(place, places), place, -1)

    def stroke_parts(self, count: int) -> NDArray[np.int64]:
        """Return the part of its class's strokes that every marker lies in.

        Parameters
        ----------
        count : int
            Of the parts, along the longest extent of each class's markers.

        Returns
        -------
        (P,) ndarray of int64
            From 0 on; a class of fewer markers has fewer parts.
        """
        part = np.zeros(len(self.classes), np.int64)
        for k in range(self.count):
            mine = np.flatnonzero(self.classes == k)
            if len(mine) < 2:
                continue
            away = self.voxels[mine] - self.voxels[mine].mean(axis=0)
            along = np.linalg.svd(away, full_matrices=False)[2][0]
            order = mine[np.argsort(away @ along, kind="stable")]
            part[order] = np.arange(len(mine)) * count // len(mine)
        return part
