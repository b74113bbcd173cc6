"""The Segment widget's controller: what a user does to a session, and the jobs that edits start.

No Qt. The core's segmenter gets prompts in :mod:`.layer_session`; what runs is in
:mod:`.session_jobs`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from napari_medgs.errors import MedGSError
from napari_medgs.plugin.segment.jobs import Box
from napari_medgs.plugin.segment.layer_session import LayerSession
from napari_medgs.plugin.segment.layers import LabelView
from napari_medgs.plugin.segment.model import JobKind, ResultUpdate
from napari_medgs.plugin.segment.session_jobs import SessionJobs

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume
    from napari_medgs.hierarchy import PartSelection
    from napari_medgs.segmentation import SegmentParams, Session


class SegmentController(SessionJobs):
    """One session on one image, its solves and what they change in the layers.

    All methods are for the main thread. Painting goes on while a solve runs: a stroke stops the
    solve, and the next one begins with all strokes so far. Parameters and
    attributes are those of :class:`.SessionJobs`.
    """

    def open(
        self,
        session: Session,
        volume: Volume,
        strokes: LabelView,
        view: LabelView,
        field: GaussianField | None = None,
        field_file: Path | None = None,
    ) -> None:
        """Begin with a session.

        Parameters
        ----------
        session : Session
        volume : Volume
        strokes : LabelView
            Of the layer that the user paints in.
        view : LabelView
            Of the layer that shows the result.
        field : GaussianField, optional
            Fitted when first needed by default.
        field_file : Path, optional
            Where the field may be read from.
        """
        from napari_medgs.segmentation import InteractiveSegmenter

        self.segmenter = InteractiveSegmenter.from_session(session, volume)
        self.segmenter.on_warning = self.hinted.emit
        self.layers = LayerSession(self.segmenter, strokes, view)
        self._known_field = (field, field_file)
        self._reset()
        self._on_changed()

    def close(self) -> None:
        """End the session; layers stay as they are."""
        if self.layers is not None:
            self.layers.close()
        self.layers = self.segmenter = None
        self._known_field = (None, None)
        self._reset()
        self._update_state()

    @property
    def field_file(self) -> Path | None:
        """The file that the session's field may have been read from."""
        return self._known_field[1]

    def sync_strokes(self, box: Box | None = None) -> bool:
        """Record what was painted in the strokes layer; see :meth:`LayerSession.sync_strokes`."""
        if self.layers is None or not self.layers.sync_strokes(box):
            return False
        self._on_painted()
        return True

    def sync_result(self, box: Box | None = None) -> bool:
        """Record what was painted on the result; see :meth:`LayerSession.sync_result`."""
        if self.layers is None or not self.layers.sync_result(box):
            return False
        self._on_painted()
        self._show(ResultUpdate.EDIT)
        return True

    def _on_painted(self) -> None:
        if self.layers is not None and self.layers.took_points_back:
            self.settings_restored.emit()
        self._on_edited(JobKind.PREVIEW, JobKind.INCREMENTAL)

    def update_settings(self, **settings: Any) -> bool:
        """Change points, boxes, locked classes or params as one step.

        Returns
        -------
        bool
            Whether anything was different.
        """
        if self.layers is None or not self.layers.update_settings(**settings):
            return False
        only_prompts = set(settings) <= {"points", "boxes"}
        jobs = (JobKind.PREVIEW, JobKind.INCREMENTAL) if only_prompts else (JobKind.FULL,)
        self._on_edited(*jobs)
        return True

    def set_mask(self, mask: NDArray[Any]) -> bool:
        """Make a mask the result and what later solves start from; see ``LayerSession.set_mask``.

        Returns
        -------
        bool
            Whether it is another one.
        """
        if self.layers is None or not self.layers.set_mask(mask):
            return False
        self._on_edited(JobKind.FULL)
        self._show(ResultUpdate.EDIT)
        return True

    def keep_mask(self, keep: bool) -> None:
        """Keep the mask of all strokes so far, which later ones only correct, as one step.

        Parameters
        ----------
        keep : bool
            False: solve from the strokes alone again.

        Raises
        ------
        ParameterError
            When there is no mask to keep.
        """
        if not keep or self.is_current:
            self._keep_mask(keep)
            return
        revision = self.revision

        def keep_then() -> None:
            if self.revision != revision or not (self.is_current or self.state.provisional):
                return
            try:
                self._keep_mask(keep)
            except MedGSError as error:
                self.failed.emit(error)

        self.when_current(keep_then)  # a quick update's mask is not the one to keep

    def _keep_mask(self, keep: bool) -> None:
        if self.layers is not None and self.layers.keep_mask(keep):
            self._on_edited(JobKind.FULL)
            self._show(ResultUpdate.EDIT)

    def set_prior(self, probabilities: NDArray[Any]) -> bool:
        """Start from a model's probabilities, whose mask is shown; strokes then correct it.

        Nothing is solved before the next stroke: without any the model's own mask is as good.

        Returns
        -------
        bool
            Whether they are other ones.
        """
        if self.layers is None or not self.layers.set_prior(probabilities):
            return False
        self.revision += 1
        self._jobs.interrupt()
        self._jobs.waiting -= {JobKind.PREVIEW, JobKind.INCREMENTAL, JobKind.FULL}
        self._show(ResultUpdate.EDIT)
        self._on_changed()
        return True

    def add_part(
        self, label: int, part: PartSelection, mask: NDArray[Any], *, instead: bool = False
    ) -> bool:
        """Give a part a class, as one step; see ``LayerSession.add_part``.

        Returns
        -------
        bool
            Whether any voxel was of another class.
        """
        if self.layers is None:
            return False
        changed = self.layers.add_part(label, part, mask, instead=instead)
        if changed or instead:
            self._on_edited(JobKind.FULL)
            self._show(ResultUpdate.EDIT)
        return changed

    def set_params(self, params: SegmentParams) -> None:
        """Change the solver's settings as one step; the number of threads is no part of it."""
        self.threads = params.threads
        if self.session is not None:
            threads = self.session.settings.params.threads
            self.update_settings(params=replace(params, threads=threads))

    def undo(self) -> bool:
        """Undo the last step: strokes, settings and result are as before it.

        Returns
        -------
        bool
            Whether there was a step. Nothing happens in the middle of a stroke.
        """
        return self._move_in_history(back=True)

    def redo(self) -> bool:
        """Do the last undone step again; see :meth:`undo`."""
        return self._move_in_history(back=False)

    def _move_in_history(self, *, back: bool) -> bool:
        if self.layers is None or self.painting:
            return False
        step = self.layers.move_in_history(back=back)
        if step is None:
            return False
        self._jobs.interrupt()
        self._jobs.waiting.clear()
        self.result, self.state.provisional = None, False
        self.revision += 1
        if step.settings_before is not None:
            self.settings_restored.emit()
        self._show(ResultUpdate.EDIT)
        self._on_changed()
        kept = step.result is None or not len(step.result.starts)
        if kept and self.state.auto_update:  # the mask on show is that of other prompts
            self.request_full_solve()
        else:
            self.solve_due.emit()
        return True

    def _on_edited(self, *kinds: JobKind) -> None:
        self.revision += 1
        self._on_changed()
        if not self.state.auto_update:
            return
        self._jobs.interrupt()
        # A stroke after a changed setting must not shorten the solve that the setting needs.
        waiting = self._jobs.waiting
        full = JobKind.FULL in waiting or JobKind.FULL in kinds
        waiting -= {JobKind.INCREMENTAL, JobKind.FULL, JobKind.SUGGEST, JobKind.MAPS}
        incremental = JobKind.INCREMENTAL
        self._jobs.request(*(JobKind.FULL if full and k is incremental else k for k in kinds))

    def show_in(self, view: LabelView) -> None:
        """Show the result in another layer from now on."""
        if self.layers is not None:
            self.layers.show_in(view)
