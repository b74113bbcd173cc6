"""Masks that are found before the one that is asked for, and that prompts then correct.

Two kinds of prompts need one: classes that an initial mask lacks, and strokes alone in their
slices that correct what all other prompts give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import LabelError
from napari_medgs.segmentation.corrections import (
    CorrectedMask,
    SolvedMarkers,
    correcting_strokes,
    extending_strokes,
    flooding_strokes,
    knows_background,
)
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.prompts.initial_mask import InitialMask, prepare_initial_mask
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.result.result import value_table
from napari_medgs.segmentation.snapshots import PromptSnapshot

LabelsOf = Callable[[PromptSnapshot], NDArray[np.uint8]]


class FirstMasks:
    """Finds such masks, and keeps those of the last full update for quick ones.

    Parameters
    ----------
    axes : (int, int, int)
        Canonical axes in slice-first order.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    """

    def __init__(self, axes: tuple[int, int, int], relative_spacing: NDArray[Any]) -> None:
        self._axes, self._relative_spacing = axes, relative_spacing
        # What the initial mask lacked, and the labels found for that.
        self._found: tuple[frozenset[int], NDArray[Any]] | None = None
        self._corrected: CorrectedMask | None = None
        # Full solves without a mask for the last full update.
        self._solves: tuple[SolvedMarkers, ...] = ()
        # The last of them, and its mask once quick updates correct it.
        self._solved: SolvedMarkers | None = None
        self._quick: tuple[SolvedMarkers, InitialMask] | None = None

    def corrects(self, snapshot: PromptSnapshot) -> bool:
        """Return whether a snapshot corrects a mask that is known, of the same classes."""
        known = self._corrected
        return (
            snapshot.correct is not None
            and known is not None
            and known.learned.values == snapshot.values
        )

    def remember(
        self, snapshot: PromptSnapshot, labels: NDArray[np.uint8], params: SegmentParams
    ) -> None:
        """Keep what a full solve without a mask gave, for strokes that correct it later.

        Parameters
        ----------
        snapshot : PromptSnapshot
        labels : (Z, Y, X) ndarray of uint8
            Class indices, slice-first; not changed from now on.
        params : SegmentParams
        """
        if snapshot.markers.kept is None:
            plain = not snapshot.constraints.any
            self._solved = SolvedMarkers(snapshot.markers, labels, params) if plain else None

    def known(self, snapshot: PromptSnapshot, params: SegmentParams) -> PromptSnapshot:
        """Return a snapshot with the masks of the last full update, without solving."""
        if self._corrected is not None and self.corrects(snapshot):
            return self._correcting(snapshot, self._corrected.mask)
        if snapshot.correct is not None and self._corrected is None:
            return self._first_correction(snapshot, params)
        completion, found = snapshot.completion, self._found
        if completion is None or found is None or completion.classes != found[0]:
            return snapshot
        return completion.complete(found[1])

    def _first_correction(self, snapshot: PromptSnapshot, params: SegmentParams) -> PromptSnapshot:
        """Return a snapshot whose first strokes that correct do so with the last labels."""
        markers, lone, solved = snapshot.markers, snapshot.lone, self._solved
        own = params.advanced.initial_mask
        if solved is None or lone is None or snapshot.constraints.any or not own.max_flood:
            return snapshot
        background = (lone > 0) & (markers.classes == 0)
        if not background.any() or not solved.is_of(markers.subset(~background), params):
            return snapshot
        if not knows_background(markers, np.where(background, lone, 0), own):
            return snapshot
        if not correcting_strokes(markers, lone, solved.labels, own).any():
            return snapshot
        if self._quick is None or self._quick[0] is not solved:
            labels = self._values(snapshot, solved.labels)
            if not labels.any():
                return snapshot
            self._quick = solved, prepare_initial_mask(labels, 1.0, self._relative_spacing, own)
        return self._correcting(snapshot, self._quick[1])

    def found(
        self, snapshot: PromptSnapshot, labels_of: LabelsOf, params: SegmentParams
    ) -> PromptSnapshot:
        """Return a snapshot with the masks that it needs.

        Parameters
        ----------
        snapshot : PromptSnapshot
        labels_of : callable
            PromptSnapshot -> (Z, Y, X) ndarray of uint8, class indices slice-first: a full solve.
        params : SegmentParams

        Returns
        -------
        PromptSnapshot
            The same where it needs none.
        """
        corrected, self._corrected, self._found, self._quick = self._corrected, None, None, None
        last = () if self._solved is None else (self._solved,)
        solves, self._solves = (*self._solves, *last), ()
        if snapshot.completion is not None:
            first = snapshot.completion.first()
            labels = self._values(first, labels_of(first))
            self._found = snapshot.completion.classes, labels
            return snapshot.completion.complete(labels)
        if snapshot.correct is None:
            return snapshot
        self._corrected = self._mask_of(snapshot, labels_of, params, corrected, solves)
        if self._corrected is None:
            return snapshot
        return self._correcting(snapshot, self._corrected.mask)

    def _mask_of(
        self,
        snapshot: PromptSnapshot,
        labels_of: LabelsOf,
        params: SegmentParams,
        corrected: CorrectedMask | None,
        known: Sequence[SolvedMarkers],
    ) -> CorrectedMask | None:
        """Return the mask that strokes alone in their slices correct, None where none does."""
        markers, lone = snapshot.markers, snapshot.lone
        assert lone is not None  # comes with ``correct``
        own = params.advanced.initial_mask
        of_class = (lone > 0) & (markers.classes > 0)
        background = np.where(of_class, 0, lone)
        if not own.max_flood or not knows_background(markers, background, own):
            background[:] = 0
        if not (of_class | (background > 0)).any():
            return None
        free = not snapshot.constraints.any
        solves: list[SolvedMarkers] = []

        def solved(some: Markers) -> SolvedMarkers:
            for one in (*solves, *known) if free else solves:
                if one.is_of(some, params):
                    break
            else:
                one = SolvedMarkers(some, labels_of(replace(snapshot, markers=some)), params)
            solves.append(one)
            return one

        chosen = np.zeros(len(lone), np.bool_)
        others = background == 0
        if of_class.any():
            before = solved(markers.subset(others & ~of_class)).labels
            extending = extending_strokes(markers, lone, before)
            if extending.any():
                after = solved(markers.subset(others)).labels
                chosen |= flooding_strokes(markers, lone, extending, before, after, own)
        if background.any():
            first = solved(markers.subset(others & ~chosen))
            chosen |= correcting_strokes(markers, background, first.labels, own)
        learned = markers.subset(~chosen)
        labels = solved(learned).labels if chosen.any() else None
        self._solves = tuple(solves) if free else ()
        if labels is None or not labels.any():
            return None
        if corrected is not None and corrected.is_of(learned, params) and free:
            return corrected
        values = self._values(snapshot, labels)
        return CorrectedMask(
            prepare_initial_mask(values, 1.0, self._relative_spacing, own),
            learned,
            params,
            not free,
        )

    def _correcting(self, snapshot: PromptSnapshot, mask: InitialMask) -> PromptSnapshot:
        assert snapshot.correct is not None
        try:
            return snapshot.correct(mask)
        except LabelError:  # nothing of a class would be left
            self._corrected = None
            return snapshot

    def _values(self, snapshot: PromptSnapshot, labels: NDArray[np.uint8]) -> NDArray[Any]:
        """Return label values on the canonical grid."""
        return np.moveaxis(value_table(snapshot.values)[labels], 0, self._axes[0])
