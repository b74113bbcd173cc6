"""The Segment widget's controller: the segmenter, and the jobs that edits start. No Qt.

The core's segmenter gets prompts in :mod:`.layer_session` and solves in :mod:`.jobs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from psygnal import Signal

from napari_medgs._util.progress import ProgressEvent
from napari_medgs.errors import Cancelled, MedGSError
from napari_medgs.plugin.segment.jobs import (
    Box,
    ComputeMaps,
    PrepareSegmenter,
    PreviewSlice,
    ProvisionalMask,
    SolveMask,
    SuggestSlice,
)
from napari_medgs.plugin.segment.layer_session import LayerSession
from napari_medgs.plugin.segment.layers import LabelView
from napari_medgs.plugin.segment.model import JobKind, ResultUpdate, SegmentState
from napari_medgs.plugin.segment.parts.jobs import BuildParts
from napari_medgs.plugin.segment.scheduler import JobScheduler, TaskRunner

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume
    from napari_medgs.hierarchy import PartSelection
    from napari_medgs.segmentation import (
        InteractiveSegmenter,
        SegmentParams,
        SegmentResult,
        Session,
    )

PROVISIONAL = (
    "<b>Provisional</b>, from one class alone: a stroke in the background, or in another class, "
    "makes it certain."
)


class SegmentController:
    """One session on one image, its solves and what they change in the layers.

    All methods are for the main thread. Painting goes on while a solve runs: a stroke stops the
    solve, and the next one begins with all strokes so far.

    Parameters
    ----------
    runner : TaskRunner
    visible_slice : callable
        () -> (axis, index) of the visible slice on the canonical grid, or None.
    state : SegmentState, optional
        Kept up to date.

    Attributes
    ----------
    segmenter : InteractiveSegmenter or None
        All of the work on the image: session, field and solver; None while there is no session.
    painting : bool
        True while the mouse button is down in the middle of a stroke.
    threads : int or None
        CPU threads of the next solve; all by default. Not part of the undo history.
    """

    prompts_changed = Signal()  # strokes, other prompts, settings or history
    shown = Signal(object)  # the result layer has changed: ResultUpdate
    settings_restored = Signal()  # undo or redo changed more than strokes
    solve_due = Signal()  # a full solve should follow when the user rests
    progressed = Signal(ProgressEvent)
    refused = Signal(str)  # why there is no result yet
    failed = Signal(Exception)
    prepared = Signal()
    parts_ready = Signal(bool)  # whether there is a tree of parts; False where it cannot be made
    suggested = Signal(object)
    maps_ready = Signal(object)

    def __init__(
        self,
        runner: TaskRunner,
        visible_slice: Callable[[], tuple[int, int] | None],
        state: SegmentState | None = None,
    ) -> None:
        self._runner, self._visible_slice = runner, visible_slice
        self.state = state or SegmentState()
        self.painting = False
        self.threads: int | None = None
        self.layers: LayerSession | None = None
        self.segmenter: InteractiveSegmenter | None = None
        self.result: SegmentResult | None = None
        self.revision = 0
        self.requested_maps: tuple[bool, int | None] = (False, None)
        self.suggest_axis: int | None = None
        self._job_revision = 0
        self._report_errors = False
        self._on_current: list[Callable[[], None]] = []
        self._known_field: tuple[GaussianField | None, Path | None] = (None, None)
        self._jobs = JobScheduler(runner, self._make_job)
        self._jobs.returned.connect(self._on_returned)
        self._jobs.errored.connect(self._on_errored)
        self._jobs.cancelled.connect(self._on_cancelled)
        self._jobs.progressed.connect(self.progressed.emit)
        self._jobs.job_changed.connect(self._on_job_changed)

    # Beginning and end

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

    def _reset(self) -> None:
        self._jobs.cancel()
        self._on_current.clear()
        self.result = None
        self.revision += 1

    @property
    def session(self) -> Session | None:
        """The session that is worked on."""
        return None if self.segmenter is None else self.segmenter.session

    @property
    def field(self) -> GaussianField | None:
        """The field that masks are computed with, once it is there."""
        return None if self.segmenter is None else self.segmenter.field

    @property
    def field_file(self) -> Path | None:
        """The file that the session's field may have been read from."""
        return self._known_field[1]

    @property
    def is_current(self) -> bool:
        """Whether the result is that of a full solve of the present prompts."""
        return self.segmenter is not None and self.segmenter.is_current

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._runner.busy

    # What the user does

    def sync_strokes(self, box: Box | None = None) -> bool:
        """Record what was painted in the strokes layer; see :meth:`LayerSession.sync_strokes`."""
        if self.layers is None or not self.layers.sync_strokes(box):
            return False
        self._on_edited(JobKind.PREVIEW, JobKind.INCREMENTAL)
        return True

    def sync_result(self, box: Box | None = None) -> bool:
        """Record what was painted on the result; see :meth:`LayerSession.sync_result`."""
        if self.layers is None or not self.layers.sync_result(box):
            return False
        self._on_edited(JobKind.PREVIEW, JobKind.INCREMENTAL)
        self._show(ResultUpdate.EDIT)
        return True

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

    # What runs

    def request(self, *kinds: JobKind) -> None:
        """Ask for jobs; they run one after the other in the order of :class:`JobKind`."""
        if self.session is not None:
            self._jobs.request(*kinds)

    def request_update(self) -> None:
        """Solve everything anew because the user asked: refusals are shown as failures."""
        self._report_errors = True
        self.request(JobKind.PREPARE, JobKind.FULL)

    def request_full_solve(self) -> None:
        """Solve in full unless the result already is that of a full solve."""
        if self.session is not None and not self.is_current:
            self.request(JobKind.FULL)

    def when_current(self, call: Callable[[], None]) -> None:
        """Call back once the result is that of a full solve, or cannot be."""
        if self.is_current:
            call()
        else:
            self._on_current.append(call)
            self.request(JobKind.PREPARE, JobKind.FULL)

    def cancel(self) -> None:
        """Stop what runs and drop what waits."""
        self._jobs.cancel()

    def _make_job(self, kind: JobKind) -> Any | None:
        segmenter = self.segmenter
        if segmenter is None:
            return None
        self._job_revision = self.revision
        segmenter.threads = self.threads
        if kind is JobKind.PREPARE:
            prepared = segmenter.is_prepared
            return None if prepared else PrepareSegmenter(segmenter, *self._known_field)
        if not segmenter.is_prepared:
            return None
        if kind is JobKind.PARTS:
            return BuildParts(segmenter)
        if kind is JobKind.PREVIEW:
            place = self._visible_slice()
            return None if place is None else PreviewSlice(segmenter, *place)
        if kind.is_solve:
            return SolveMask(segmenter, incremental=kind is JobKind.INCREMENTAL)
        if self.result is None:
            return None
        if kind is JobKind.SUGGEST:
            return SuggestSlice(segmenter, self.suggest_axis)
        uncertainty, label = self.requested_maps
        return ComputeMaps(self.result, uncertainty, label) if uncertainty or label else None

    def _on_job_changed(self, kind: JobKind | None) -> None:
        self.state.job = kind

    def _on_cancelled(self, kind: JobKind) -> None:
        stopped = not kind.interruptible and kind not in self._jobs.waiting
        if stopped:
            self.parts_ready.emit(False)
        if stopped and self.session is not None:
            self._on_current.clear()
            self.refused.emit("Canceled. Press Update to go on; the strokes are kept.")

    def _on_errored(self, kind: JobKind, error: Exception) -> None:
        if kind is JobKind.PREVIEW and any(k.is_solve for k in self._jobs.waiting):
            return  # the solve says what is wrong, or finds a provisional mask
        asked, self._report_errors = self._report_errors, False
        self._call_waiting()
        if kind is JobKind.PARTS or JobKind.PARTS in self._jobs.waiting:
            self.parts_ready.emit(False)
        self._jobs.waiting -= {JobKind.PARTS, JobKind.FULL, JobKind.SUGGEST, JobKind.MAPS}
        expected = isinstance(error, MedGSError) and not isinstance(error, Cancelled)
        if expected and kind.is_solve:
            self._clear_result()
        if expected and not asked and kind.interruptible:
            self.refused.emit(str(error))
        else:
            self.failed.emit(error)

    def _on_returned(self, kind: JobKind, result: Any) -> None:
        if kind is JobKind.PREPARE:
            if result is self.segmenter:
                self._jobs.waiting.add(JobKind.FULL)
                self.prepared.emit()
            return
        if kind is JobKind.PARTS:
            self.parts_ready.emit(True)
            return
        if self._job_revision != self.revision or self.layers is None:
            return  # the prompts have changed since: a newer solve is waiting
        if self.painting and (kind is JobKind.PREVIEW or kind.is_solve):
            # Never under the user's brush. The end of the stroke asks for a new solve; should
            # nothing have been painted, this does.
            self.solve_due.emit()
            return
        if kind is JobKind.PREVIEW:
            if result is not None:
                self.layers.show_preview(result)
                self._show(ResultUpdate.PREVIEW)
        elif kind.is_solve:
            self._show_result(kind, result)
        elif kind is JobKind.SUGGEST:
            self.suggested.emit(result)
        else:
            self.maps_ready.emit(result)

    # What is shown

    def _show_result(self, kind: JobKind, result: SegmentResult | ProvisionalMask) -> None:
        assert self.layers is not None
        self._report_errors = False
        if isinstance(result, ProvisionalMask):
            self.result = None
            self.layers.set_provisional(result.labels)
            self.state.summary, self.state.provisional = PROVISIONAL, True
            self._show(ResultUpdate.FULL)
            self._call_waiting()
            return
        self.result, self.state.provisional = result, False
        self.layers.set_result(result)
        self.state.summary = f"Mask updated in <b>{result.seconds_solve:.1f} s</b>"
        self._show(ResultUpdate.FULL if kind is JobKind.FULL else ResultUpdate.INCREMENTAL)
        if result.incremental:
            self.solve_due.emit()
            return
        self._call_waiting()
        if self.requested_maps != (False, None):
            self._jobs.waiting.add(JobKind.MAPS)

    def _clear_result(self) -> None:
        """Show no mask where there is none of the present prompts; undo brings the last back."""
        if self.layers is not None and self._job_revision == self.revision:
            self.result = None
            if self.layers.clear_result():
                self._show(ResultUpdate.EDIT)

    def show_in(self, view: LabelView) -> None:
        """Show the result in another layer from now on."""
        if self.layers is not None:
            self.layers.show_in(view)

    def _show(self, update: ResultUpdate) -> None:
        self._update_state()
        self.shown.emit(update)

    def _on_changed(self) -> None:
        self._update_state()
        self.prompts_changed.emit()

    def _update_state(self) -> None:
        session, state = self.session, self.state
        state.has_session = session is not None
        state.can_undo = session is not None and session.can_undo
        state.can_redo = session is not None and session.can_redo
        state.is_current = self.is_current
        state.locked = session.settings.locked if session is not None else frozenset()
        state.volumes_ml = {} if self.layers is None else self.layers.display.volumes_ml
        if not state.volumes_ml:
            state.summary, state.provisional = "", False

    def _call_waiting(self) -> None:
        calls, self._on_current = self._on_current, []
        for call in calls:
            call()
