"""Prompts as they were at one time, rasterized: what a solve works on while drawing goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from napari_medgs.segmentation.advanced import InitialMaskParams
from napari_medgs.segmentation.prompts.collector import Alike, Strokes, collect_strokes
from napari_medgs.segmentation.prompts.completion import completed, lacking_classes
from napari_medgs.segmentation.prompts.initial_mask import InitialMask, initial_mask_of
from napari_medgs.segmentation.prompts.lone_strokes import lone_strokes
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.prompts.rasterize import rasterize_prompts
from napari_medgs.segmentation.solver.constraints import Constraints

NOISE_SAMPLES = 1e6  # voxels that noise is measured on
LIKE_NOISE = 4.0  # differences of neighbors (their median) up to which voxels look alike


@dataclass(frozen=True)
class PromptSnapshot:
    """Prompts as they were when :meth:`SegmentModel.snapshot` was called, rasterized.

    It shares no array with them, so that they may change while a solve runs.

    Attributes
    ----------
    markers : Markers
    constraints : Constraints
    completion : Completion, optional
        Where classes are drawn that the initial mask does not have.
    lone : (P,) ndarray of int64, optional
        Where there is no initial mask, and strokes are alone in their slices: the stroke of every
        marker, 0 for all others.
    correct : callable, optional
        With ``lone``. InitialMask -> PromptSnapshot of the same prompts, which correct a mask.
    """

    markers: Markers
    constraints: Constraints
    completion: Completion | None = None
    lone: NDArray[np.int64] | None = None
    correct: Callable[[InitialMask], PromptSnapshot] | None = None

    @property
    def values(self) -> tuple[int, ...]:
        """Label value of every class, background (0) first."""
        return self.markers.values

    def gives_the_same(self, other: PromptSnapshot) -> bool:
        """Return whether a solve of another snapshot is one of this, too."""
        return self.markers is other.markers and self.constraints is other.constraints


@dataclass(frozen=True)
class Completion:
    """How classes that an initial mask lacks are found before it is refined.

    Attributes
    ----------
    classes : frozenset of int
        Label values.
    first : callable
        () -> PromptSnapshot. Without the mask.
    complete : callable
        (Z, Y, X) ndarray of int -> PromptSnapshot. With the labels that were found in the mask.
    """

    classes: frozenset[int]
    first: Callable[[], PromptSnapshot]
    complete: Callable[[NDArray[Any]], PromptSnapshot]


class SnapshotMaker:
    """Rasterizes prompts on one image; keeps what it found of the last initial mask.

    Parameters
    ----------
    volume : Volume
    axes : (int, int, int)
        Canonical axes in slice-first order.
    """

    def __init__(self, volume: Volume, axes: tuple[int, int, int]) -> None:
        self._volume, self._axes = volume, axes
        self._relative_spacing = volume.grid.relative_spacing
        self._initial: tuple[int, float, InitialMaskParams, Any] | None = None
        self._completed: InitialMask | None = None

    def make(self, prompts: Prompts, params: InitialMaskParams) -> PromptSnapshot:
        """Check prompts and rasterize them.

        Parameters
        ----------
        prompts : Prompts
        params : InitialMaskParams

        Returns
        -------
        PromptSnapshot

        Raises
        ------
        MedGSError
            When the prompts do not fit the image, or mark fewer than two classes.
        """
        shape = self._volume.shape
        prompts.check(shape)
        initial = None
        source = prompts.initial if prompts.prior is None else prompts.prior
        if source is not None:
            key = (id(source), prompts.initial_margin, params)
            if self._initial is None or self._initial[:3] != key:
                prepared = initial_mask_of(prompts, self._relative_spacing, params)
                self._initial = (*key, (source, prepared))
            initial = self._initial[3][1]
        # Clicks that correct a mask mean all of their balls.
        alike = self._alike if initial is None else None
        strokes = collect_strokes(prompts, shape, self._axes)
        snapshot = self._rasterized(prompts, initial, alike, strokes)
        if initial is None:
            return self._with_lone_strokes(prompts, strokes, snapshot)
        return replace(snapshot, completion=self._completion(prompts, initial))

    def _rasterized(
        self,
        prompts: Prompts,
        initial: InitialMask | None,
        alike: Alike | None,
        strokes: Strokes | None = None,
        walls: Mapping[int, NDArray[np.bool_]] | None = None,
    ) -> PromptSnapshot:
        shape, axes = self._volume.shape, self._axes
        markers = rasterize_prompts(
            prompts, shape, axes, self._relative_spacing, initial, alike, strokes
        )
        return PromptSnapshot(markers, Constraints(prompts, markers, shape, axes, walls))

    def _with_lone_strokes(
        self, prompts: Prompts, strokes: Strokes, snapshot: PromptSnapshot
    ) -> PromptSnapshot:
        """Return a snapshot with what is needed where strokes correct a mask."""
        markers = snapshot.markers
        if markers.boxes or markers.clicked:
            return snapshot
        lone = lone_strokes(markers)
        if not lone.any() or not (markers.classes[lone == 0] == 0).any():
            return snapshot
        later = replace(prompts, labels=None)  # it may change while the first solve runs

        def correct(mask: InitialMask) -> PromptSnapshot:
            return self._rasterized(later, mask, None, strokes)

        return replace(snapshot, lone=lone, correct=correct)

    def _completion(self, prompts: Prompts, initial: InitialMask) -> Completion | None:
        """Return how classes are found that an initial mask lacks, if there are some."""
        lacking = lacking_classes(prompts, initial)
        if lacking is None:
            return None
        # The prompts' arrays may change while the first solve runs.
        later = prompts if prompts.labels is None else prompts.with_labels(prompts.labels.copy())

        def first() -> PromptSnapshot:
            walls = dict.fromkeys(lacking.voxels, initial.deep)
            return self._rasterized(lacking.prompts, None, self._alike, None, walls)

        def complete(labels: NDArray[Any]) -> PromptSnapshot:
            mask = completed(initial, labels, lacking)
            if self._completed is None or not mask.is_same(self._completed):
                self._completed = mask
            return self._rasterized(later, self._completed, None)

        return Completion(frozenset(lacking.voxels), first, complete)

    @cached_property
    def _contrast(self) -> NDArray[np.float64]:
        """Largest difference of two voxels of one tissue by noise, per channel."""
        longest = int(np.argmax(self._volume.shape))
        step = max(1, int(np.sqrt(np.prod(self._volume.shape) / NOISE_SAMPLES)))
        found = []
        for channel in self._volume.data:
            part = np.moveaxis(channel, longest, 2)[::step, ::step].astype(np.float64)
            steps = np.abs(np.diff(part, axis=2)).reshape(-1)
            steps = steps[steps > 0]
            found.append(LIKE_NOISE * float(np.median(steps)) if len(steps) else 0.0)
        return np.array(found)

    def _alike(self, flat: NDArray[np.int64], middle: int) -> NDArray[np.bool_]:
        """Return which voxels do not differ from one by more than noise does."""
        values = self._volume.data.reshape(len(self._volume.data), -1)
        away = np.abs(values[:, flat].astype(np.float64) - values[:, [middle]].astype(np.float64))
        near: NDArray[np.bool_] = np.logical_and.reduce(away <= self._contrast[:, None], axis=0)
        return near
