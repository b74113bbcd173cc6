"""The Segment widget's logic without a window: session, model, and which solve runs next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_medgs._util.progress import ProgressEvent
from napari_medgs.errors import Cancelled, MedGSError
from napari_medgs.plugin.segment.display import ResultDisplay
from napari_medgs.plugin.segment.jobs import (
    Maps,
    Prepare,
    Preview,
    Reader,
    Solve,
    Suggest,
    TaskRunner,
)
from napari_medgs.plugin.segment.layers import LabelView

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume
    from napari_medgs.segmentation import SegmentModel, SegmentResult, Session
    from napari_medgs.segmentation.session.history import Step

ORDER = ("prepare", "preview", "quick", "full", "suggest", "maps")
INTERRUPTIBLE = ("preview", "quick", "full", "suggest", "maps")


class SegmentController:
    """One session on one image, its solves and what they change in the layers.

    All methods are for the main thread. Painting goes on while a solve runs: a stroke stops the
    solve and the next one begins with all strokes so far.

    Parameters
    ----------
    runner : TaskRunner
    visible_slice : callable
        () -> (axis, index) on the canonical grid of the slice on show, or None.
    """

    changed = Signal()  # prompts, history or settings
    shown = Signal(str)  # result layer changed by: preview, quick, full, step
    settings_stepped = Signal()  # undo or redo changed more than strokes
    unsettled = Signal()  # a full solve should follow when the user rests
    progressed = Signal(ProgressEvent)
    running = Signal(str)  # kind of the job that began, or "" when none runs
    hinted = Signal(str)  # why there is no result yet
    failed = Signal(Exception)
    prepared = Signal()
    suggested = Signal(object)
    mapped = Signal(object)

    def __init__(
        self, runner: TaskRunner, visible_slice: Callable[[], tuple[int, int] | None]
    ) -> None:
        self.runner, self._visible_slice = runner, visible_slice
        self.auto = True
        self.painting = False
        self.session: Session | None = None
        self.model: SegmentModel | None = None
        self.result: SegmentResult | None = None
        self.strokes: LabelView | None = None
        self.display: ResultDisplay | None = None
        self.revision = 0
        self.maps_wanted: tuple[bool, int | None] = (False, None)
        self.suggest_axis: int | None = None
        self._reader = Reader()
        self._wanted: set[str] = set()
        self._kind, self._serial = "", 0
        self._asked = False
        self._then: list[Callable[[], None]] = []
        self._source: tuple[Volume, GaussianField | None, Path | None] | None = None

    # Life

    def open(
        self,
        session: Session,
        volume: Volume,
        strokes: LabelView,
        view: LabelView,
        field: GaussianField | None = None,
        field_file: Path | None = None,
    ) -> None:
        """Begin with a session; a model for the same volume and field is kept."""
        same = self._source is not None and self._source[0] is volume
        if not same or (field is not None and self.field is not field):
            self.model = None
        self.session, self.strokes = session, strokes
        self.display = ResultDisplay(session, view)
        self._source = (volume, field, field_file)
        self.result = None
        self._wanted.clear()
        self._then.clear()
        self.revision += 1
        self.runner.stop()
        self.changed.emit()

    def close(self) -> None:
        """End the session; layers stay as they are."""
        self._wanted.clear()
        self._then.clear()
        self.revision += 1
        self.runner.stop()
        if self.display is not None:
            self.display.restore()
        self.session = self.strokes = self.display = self.result = None
        self.model = self._source = None

    @property
    def field(self) -> GaussianField | None:
        """The field that masks are found with, once it is there."""
        return None if self.model is None else self.model.field

    # What the user does

    def sync_strokes(self, box: tuple[slice, ...] | None = None) -> bool:
        """Take what was painted in the strokes layer as one step; return whether anything was."""
        session, strokes = self.session, self.strokes
        if session is None or strokes is None or not strokes.fits():
            return False
        part = box or (slice(None),) * 3
        painted = strokes.array[part]
        if np.array_equal(painted, session.strokes[part]):
            return False
        with self._reader.hold():
            session.strokes[part] = painted
            changed = session.record_strokes(box)
        if changed:
            self._changed("preview", "quick")
        return changed

    def sync_result(self, box: tuple[slice, ...] | None = None) -> bool:
        """Take what was painted on the result as corrections; return whether anything was.

        Raises
        ------
        ParameterError
            When background was painted and there is no value for it; the result is as before.
        """
        session, display, strokes = self.session, self.display, self.strokes
        if session is None or display is None or strokes is None or not display.view.fits():
            return False
        part = box or (slice(None),) * 3
        display.drop_preview()
        edited = display.view.array
        background = session.prompts().background_value
        if background:
            region = edited[part]
            region[region == background] = 0
        try:
            with self._reader.hold():
                changed = session.correct(edited, box)
        finally:
            display.show_box(part)
        if changed:
            strokes.write_box(part, session.strokes[part])
            strokes.refresh()
            step = session.history.done[-1]
            if step.result is not None:
                display.count(step.result.before, step.result.after)
            self._changed("preview", "quick")
            self.shown.emit("step")
        return changed

    def change(self, **settings: Any) -> bool:
        """Change settings (points, boxes, locked, params) as one step."""
        if self.session is None:
            return False
        with self._reader.hold():
            changed = self.session.update_settings(**settings)
        if changed:
            marks = set(settings) <= {"points", "boxes"}
            self._changed(*(("preview", "quick") if marks else ("full",)))
        return changed

    def step(self, back: bool) -> bool:
        """Undo or redo: strokes, settings and result are as before; return whether there was one.

        Nothing happens in the middle of a stroke.
        """
        session = self.session
        if session is None or self.painting:
            return False
        self.sync_strokes()
        with self._reader.hold():
            step = session.undo() if back else session.redo()
        if step is None:
            return False
        self._interrupt()
        self._wanted.clear()
        self._show_step(step, back)
        self.revision += 1
        self.changed.emit()
        self.unsettled.emit()
        return True

    def _show_step(self, step: Step, back: bool) -> None:
        display = self.display
        if display is not None:
            display.restore()
        if step.strokes is not None and self.strokes is not None:
            delta = step.strokes
            self.strokes.write(delta.where, delta.before if back else delta.after)
            self.strokes.refresh()
        if step.result is not None and display is not None:
            display.show_delta(step.result, back=back)
        self.result = None
        if step.settings_before is not None:
            self.settings_stepped.emit()
        self.shown.emit("step")

    def _changed(self, *kinds: str) -> None:
        self.revision += 1
        self.changed.emit()
        if self.auto:
            self._interrupt()
            # A stroke after a changed setting must not shorten the solve that the setting needs.
            full = "full" in self._wanted or "full" in kinds
            self._wanted -= {"quick", "full", "suggest", "maps"}
            self._wanted |= {"full" if full and k == "quick" else k for k in kinds}
            self.run_next()

    # What runs

    def update(self) -> None:
        """Solve all anew because the user said so: refusals are failures, not hints."""
        self._asked = True
        self.want("prepare", "full")

    def settle(self) -> None:
        """Solve in full what only a quick solve, or none, has looked at."""
        if self.session is not None and not self.session.is_current:
            self.want("full")

    def when_settled(self, then: Callable[[], None]) -> None:
        """Call back once the result is that of a full solve, or cannot be."""
        if self.session is not None and self.session.is_current:
            then()
        else:
            self._then.append(then)
            self.want("prepare", "full")

    def want(self, *kinds: str) -> None:
        """Ask for jobs; they run one after the other in a fixed order."""
        self._wanted |= set(kinds)
        self.run_next()

    def cancel(self) -> None:
        """Stop what runs and what waits."""
        self._wanted.clear()
        self.runner.stop()

    def _interrupt(self) -> None:
        if self._kind in INTERRUPTIBLE:
            self.runner.stop()

    def run_next(self) -> None:
        """Start the next job unless one is running."""
        if self.runner.busy or self.session is None:
            return
        kind = next((k for k in ORDER if k in self._wanted), None)
        while kind is not None:
            self._wanted.discard(kind)
            job = self._job(kind)
            if job is not None:
                self._start(kind, job)
                return
            kind = next((k for k in ORDER if k in self._wanted), None)

    def _job(self, kind: str) -> Any | None:
        session, model = self.session, self.model
        assert session is not None
        if kind == "prepare":
            if model is not None or self._source is None:
                return None
            return Prepare(*self._source, session.settings.params)
        if model is None:
            return None
        if kind == "preview":
            place = self._visible_slice()
            return None if place is None else Preview(model, session, self._reader, *place)
        if kind in ("quick", "full"):
            return Solve(model, session, self._reader, kind == "quick")
        if self.result is None:
            return None
        if kind == "suggest":
            return Suggest(model, self.suggest_axis)
        uncertainty, label = self.maps_wanted
        return Maps(self.result, uncertainty, label) if uncertainty or label else None

    def _start(self, kind: str, job: Any) -> None:
        revision = self.revision
        self._kind = kind
        self._serial += 1
        serial = self._serial
        self.running.emit(kind)
        self.runner.start(
            job,
            returned=lambda result: self._take(kind, revision, result),
            errored=lambda error: self._failed(kind, error),
            cancelled=lambda: self._cancelled(kind),
            progressed=lambda event: self.progressed.emit(event),
            finished=lambda: self._finished(serial),
        )

    def _finished(self, serial: int) -> None:
        if serial != self._serial:
            return  # what came of it has started the next job already
        self._kind = ""
        self.run_next()
        if not self._kind:
            self.running.emit("")

    def _cancelled(self, kind: str) -> None:
        if kind == "prepare" and kind not in self._wanted and self.session is not None:
            self._then.clear()
            self.hinted.emit("Cancelled. Press Update to go on; the strokes are kept.")

    def _failed(self, kind: str, error: Exception) -> None:
        asked, self._asked = self._asked, False
        self._settle_calls()
        self._wanted -= {"full", "suggest", "maps"}
        expected = isinstance(error, MedGSError) and not isinstance(error, Cancelled)
        if expected and not asked and kind != "prepare":
            self.hinted.emit(str(error))
        else:
            self.failed.emit(error)

    def _take(self, kind: str, revision: int, result: Any) -> None:
        if kind == "prepare":
            if self._source is not None and result.volume is self._source[0]:
                self.model = result
                self._wanted.add("full")
                self.prepared.emit()
            return
        if revision != self.revision or self.session is None:
            return  # the prompts have changed since: a newer solve is waiting
        if self.painting and kind in ("preview", "quick", "full"):
            # Never under the user's brush. The end of the stroke asks for a new solve; should
            # nothing have been painted, this does.
            self.unsettled.emit()
            return
        if kind == "preview":
            if result is not None and self.display is not None:
                self.display.show_preview(result)
                self.shown.emit("preview")
        elif kind in ("quick", "full"):
            self._show_result(kind, result)
        elif kind == "suggest":
            self.suggested.emit(result)
        else:
            self.mapped.emit(result)

    # What is shown

    def _show_result(self, kind: str, result: SegmentResult) -> None:
        session, display = self.session, self.display
        assert session is not None
        assert display is not None
        self._asked = False
        self.result = result
        display.restore(refresh=False)
        settled = not result.incremental
        display.show_delta(session.set_result(result, is_current=settled))
        self.shown.emit(kind)
        if settled:
            self._settle_calls()
            if self.maps_wanted != (False, None):
                self._wanted.add("maps")
        else:
            self.unsettled.emit()

    @property
    def volumes_ml(self) -> dict[int, float]:
        """Volume of every class in the result, in millilitres."""
        return {} if self.display is None else self.display.volumes_ml

    def show_in(self, view: LabelView) -> None:
        """Show the result in another layer from now on."""
        if self.session is not None:
            self.display = ResultDisplay(self.session, view)

    def _settle_calls(self) -> None:
        calls, self._then = self._then, []
        for call in calls:
            call()
