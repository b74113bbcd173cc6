"""Masks that are found before the one that is asked for, and that prompts then correct.

Two kinds of prompts need one: classes that an initial mask lacks, and strokes of the background
that take back a part of what all other prompts give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import LabelError
from napari_medgs.segmentation.corrections import (
    CorrectedMask,
    SolvedMarkers,
    correcting_strokes,
    knows_background,
)
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.prompts.initial_mask import InitialMask, prepare_initial_mask
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
        # The last full solve without a mask, and its mask once quick updates correct it.
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
        if not solved.is_of(markers.subset(lone == 0), params):
            return snapshot
        if not knows_background(markers, lone, own):
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
        known, self._corrected, self._found, self._quick = self._corrected, None, None, None
        if snapshot.completion is not None:
            first = snapshot.completion.first()
            labels = self._values(first, labels_of(first))
            self._found = snapshot.completion.classes, labels
            return snapshot.completion.complete(labels)
        if snapshot.correct is None or not params.advanced.initial_mask.max_flood:
            return snapshot
        self._corrected = self._mask_of(snapshot, labels_of, params, known)
        if self._corrected is None:
            return snapshot
        return self._correcting(snapshot, self._corrected.mask)

    def _mask_of(
        self,
        snapshot: PromptSnapshot,
        labels_of: LabelsOf,
        params: SegmentParams,
        known: CorrectedMask | None,
    ) -> CorrectedMask | None:
        """Return the mask that background strokes correct, None where they correct none."""
        markers, lone = snapshot.markers, snapshot.lone
        assert lone is not None  # comes with ``correct``
        own = params.advanced.initial_mask
        if not knows_background(markers, lone, own):
            return None
        others = markers.subset(lone == 0)
        if snapshot.constraints.any:
            known = None
        if known is not None and known.is_of(others, params):
            labels = known.labels
        elif not snapshot.constraints.any and self._solved and self._solved.is_of(others, params):
            labels = self._solved.labels
        else:
            labels = labels_of(replace(snapshot, markers=others))
        chosen = correcting_strokes(markers, lone, labels, own)
        if not chosen.any():
            return None
        learned = markers.subset(~chosen)
        if known is not None and known.is_of(others, params) and known.learns(learned):
            return known
        first = labels
        if len(learned.voxels) > len(others.voxels):
            labels = labels_of(replace(snapshot, markers=learned))
        if not labels.any():
            return None
        mask = prepare_initial_mask(
            self._values(snapshot, labels), 1.0, self._relative_spacing, own
        )
        return CorrectedMask(mask, first, others, learned, params, snapshot.constraints.any)

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
