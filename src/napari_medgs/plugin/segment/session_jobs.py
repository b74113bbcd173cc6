"""What runs in the background for a session, and what its results change in the layers. No Qt.

The core's segmenter solves in :mod:`.jobs`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_medgs._util.progress import ProgressEvent
from napari_medgs.errors import Cancelled, MedGSError
from napari_medgs.plugin.segment.jobs import (
    ComputeMaps,
    PrepareSegmenter,
    PreviewSlice,
    ProvisionalMask,
    SolveMask,
    SuggestSlice,
)
from napari_medgs.plugin.segment.layer_session import LayerSession
from napari_medgs.plugin.segment.model import JobKind, ResultUpdate, SegmentState
from napari_medgs.plugin.segment.parts.jobs import BuildParts
from napari_medgs.plugin.segment.scheduler import JobScheduler, TaskRunner

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.segmentation import (
        InteractiveSegmenter,
        SegmentResult,
        Session,
    )

PROVISIONAL = (
    "<b>Provisional</b>, from one class alone: a stroke in the background, or in another class, "
    "makes it certain."
)
FILLED = (
    "<b>No background is marked</b>: the classes divide the whole image between them. Unless this "
    "is meant, paint a stroke in the background, or draw a box around each class."
)
COMPLETE = "If all of it is painted, check <i>this slice is complete</i> there."


class SessionJobs:
    """The jobs of a session: which run, in what order, and what is done with what they return.

    Parameters
    ----------
    runner : TaskRunner
    visible_slice : callable
        () -> (axis, index) of the visible slice on the canonical grid, or None.
    state : SegmentState, optional
        Kept up to date.

    Attributes
    ----------
    layers : LayerSession or None
        The session's layers; None while there is no session.
    segmenter : InteractiveSegmenter or None
        All of the work on the image: session, field and solver; None while there is no session.
    painting : bool
        True while the mouse button is down in the middle of a stroke.
    threads : int or None
        CPU threads of the next solve; all by default. Not part of the undo history.
    """

    prompts_changed = Signal()  # strokes, other prompts, settings or history
    shown = Signal(object)  # the result layer has changed: ResultUpdate
    settings_restored = Signal()  # undo, redo or painting changed more than strokes
    solve_due = Signal()  # a full solve should follow when the user rests
    progressed = Signal(ProgressEvent)
    refused = Signal(str)  # why there is no result yet
    failed = Signal(Exception)
    hinted = Signal(str)  # what prompts may not mean
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
    def is_current(self) -> bool:
        """Whether the result is that of a full solve of the present prompts."""
        return self.segmenter is not None and self.segmenter.is_current

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._runner.busy

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
        outdated = kind.is_solve and self._job_revision != self.revision
        if (kind is JobKind.PREVIEW or outdated) and any(k.is_solve for k in self._jobs.waiting):
            return  # the solve that waits says what is wrong, or finds a mask
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

    def _show_result(self, kind: JobKind, result: SegmentResult | ProvisionalMask) -> None:
        assert self.layers is not None
        self._report_errors = False
        if isinstance(result, ProvisionalMask):
            self.result = None
            self.layers.set_provisional(result.labels)
            self.state.summary, self.state.provisional = PROVISIONAL, True
            self.state.fills_image = False
            self._show(ResultUpdate.FULL)
            self._call_waiting()
            return
        self.result, self.state.provisional = result, False
        self.layers.set_result(result)
        self.state.fills_image = not result.has_background
        self.state.summary = f"Mask updated in <b>{result.seconds_solve:.1f} s</b>"
        if self.state.fills_image:
            self.state.summary += f"<br>{FILLED}"
        gaps = self.layers.describe_gaps()
        if gaps:
            self.state.summary += f"<br>{gaps} {COMPLETE}"
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
        state.keeps_mask = session is not None and session.starts_from_mask
        state.locked = session.settings.locked if session is not None else frozenset()
        state.volumes_ml = {} if self.layers is None else self.layers.display.volumes_ml
        if not state.volumes_ml:
            state.summary, state.provisional, state.fills_image = "", False, False

    def _call_waiting(self) -> None:
        calls, self._on_current = self._on_current, []
        for call in calls:
            call()
