"""Solves of an interactive segmenter, in one call or step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.errors import ParameterError
from napari_medgs.segmentation.interaction.state import SegmenterState

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.segmentation.contracts import Model, Snapshot
    from napari_medgs.segmentation.result.result import SegmentResult
    from napari_medgs.segmentation.result.suggest import Suggestion
    from napari_medgs.segmentation.session.changes import Delta


class Solving(SegmenterState):
    """Results of the present prompts."""

    @property
    def is_prepared(self) -> bool:
        """Whether :meth:`prepare` has been done."""
        voxels = self._need().settings.params.working_voxels
        return self._model is not None and voxels == self._model_voxels

    def fit_field(
        self,
        *,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> GaussianField:
        """Return the field, fitted unless there is one.

        Parameters
        ----------
        progress, should_stop : callable, optional
            Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

        Returns
        -------
        GaussianField

        Raises
        ------
        MedGSError
            For an unusable image.
        Cancelled
            When stopped.
        """
        from napari_medgs.segmentation.api import FIT_PARAMS, fit_for_segmentation

        if self._field is None:
            self._field = fit_for_segmentation(
                self.volume,
                self._fit_params or replace(FIT_PARAMS, threads=self.threads),
                working_voxels=self._need().settings.params.working_voxels,
                progress=progress,
                should_stop=should_stop,
            )
        return self._field

    def prepare(
        self,
        *,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> None:
        """Do what needs no prompts: fit the field unless there is one, build the solver's graph.

        :meth:`result` does it when first called.

        Parameters
        ----------
        progress, should_stop : callable, optional
            Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

        Raises
        ------
        MedGSError
            For an unusable image or field.
        MemoryEstimateError
            Before work starts, when it would not fit into the free memory.
        Cancelled
            When stopped; a field that was fitted until then stays.
        """
        if self.is_prepared:
            return
        from napari_medgs.segmentation.memory import check_memory
        from napari_medgs.segmentation.model import SegmentModel

        volume, params = self.volume, self._need().settings.params
        gaussians = None if self._fit_params is None else self._fit_params.gaussians
        check_memory(volume, params, field=self._field, gaussians=gaussians)
        field = self.fit_field(progress=progress, should_stop=should_stop)
        progress(ProgressEvent("Preparing the segmentation", 0, 0, 0.0))
        self._model_voxels = params.working_voxels
        self._model = SegmentModel(
            volume,
            field,
            replace(params, threads=self.threads),
            progress=progress,
            should_stop=should_stop,
        )

    def _need_model(self) -> Model:
        if self._model is None:
            raise ParameterError("The segmentation is not prepared yet: call prepare first.")
        return self._model

    def result(
        self,
        *,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> SegmentResult:
        """Return the mask for the present prompts; computed only where they have changed.

        Parameters
        ----------
        progress, should_stop : callable, optional
            Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

        Returns
        -------
        SegmentResult
            ``labels`` (Z, Y, X), volumes in ml, probabilities and uncertainty on demand.

        Raises
        ------
        ParameterError
            When fewer than two classes (background counts) are marked.
        Cancelled
            When stopped; prompts and the last result stay.
        """
        session = self._need()
        if self._result is None or not session.is_current:
            # Refused before the field is fitted.
            session.prompts().check(session.grid.shape)
            if self._model is None:
                from napari_medgs.segmentation.prompts.rasterize import check_prompts

                check_prompts(session.prompts(), self.volume)
            self.prepare(progress=progress, should_stop=should_stop)
            with self._lock:
                n_events, snapshot = len(session.events), self.snapshot()
            result = self.update(snapshot, progress=progress, should_stop=should_stop)
            with self._lock:
                # Not current where another thread has added prompts meanwhile.
                self.set_result(result, is_current=n_events == len(session.events))
            return result
        return self._result

    def snapshot(self) -> Snapshot:
        """Copy prompts and settings for :meth:`update`, so that they may change meanwhile.

        Returns
        -------
        Snapshot

        Raises
        ------
        ParameterError
            Before :meth:`prepare`.
        MedGSError
            When the prompts do not fit the image, or mark fewer than two classes.
        """
        model, session = self._need_model(), self._need()
        with self._lock:
            model.params = replace(session.settings.params, threads=self.threads)
            return model.snapshot(session.prompts())

    def update(
        self,
        snapshot: Snapshot | None = None,
        *,
        quick: bool = False,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> SegmentResult:
        """Solve without changing :attr:`labels` or the history; see :meth:`set_result`.

        Parameters
        ----------
        snapshot : Snapshot, optional
            Of :meth:`snapshot`, which is called otherwise.
        quick : bool
            Only extend the last full solve by new scribbles, where that is possible; see
            :meth:`SegmentModel.update`.
        progress, should_stop : callable, optional
            Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

        Returns
        -------
        SegmentResult

        Raises
        ------
        MedGSError
            See :meth:`snapshot`; ``Cancelled`` when stopped.
        """
        return self._need_model().update(
            self.snapshot() if snapshot is None else snapshot,
            quick=quick,
            progress=progress,
            should_stop=should_stop,
        )

    def set_result(self, result: SegmentResult, *, is_current: bool = True) -> Delta:
        """Make a result of :meth:`update` the current one, which undo and redo bring back.

        Parameters
        ----------
        result : SegmentResult
        is_current : bool
            False where the prompts have changed since. An incremental result never is current.

        Returns
        -------
        Delta
            What changed in :attr:`labels`.
        """
        with self._lock:
            self._result = result
            return self._need().set_result(
                result, is_current=is_current and not result.incremental
            )

    def preview_slice(self, axis: int, index: int) -> NDArray[Any] | None:
        """Return the labels of one slice ahead of a solve, with the terms fitted in the last one.

        Parameters
        ----------
        axis, index : int
            The slice, on the canonical grid.

        Returns
        -------
        2D array of int, or None
            None where classes are new, so that it would take as long as a solve.

        Raises
        ------
        MedGSError
            See :meth:`snapshot`.
        """
        model, session, frozen = self._need_model(), self._need(), None
        with self._lock:
            prompts = session.prompts()
            last, snapshot = model.last, model.snapshot(prompts)
            if last is None or snapshot.values != last.values:
                return None
            locked = sorted(prompts.locked)
            if locked and prompts.result is not None:
                frozen = np.take(prompts.result, index, axis=axis)
        labels = model.preview_slice(axis, index, snapshot)
        if frozen is not None:
            labels = np.where(np.isin(labels, locked), 0, labels)
            labels = np.where(frozen > 0, frozen, labels)
        return labels

    def uncertainty(self) -> NDArray[np.float32]:
        """Return the probability that each voxel's label is wrong, (Z, Y, X), 0 to 1."""
        return self.result().uncertainty()

    def suggest(
        self, count: int = 1, axis: int | None = None, *, update: bool = True
    ) -> list[Suggestion]:
        """Return the slices where one more scribble helps most, best first.

        Parameters
        ----------
        count : int
        axis : int, optional
            Orientation of the slices; that of the scribbles by default.
        update : bool
            False to judge by the last solve, though prompts may have changed since.

        Raises
        ------
        MedGSError
            Without a result; see :meth:`result`.
        """
        if update:
            self.result()
        return self._need_model().suggest(count, axis)
