"""Which background job of the Segment widget runs next. No Qt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from psygnal import Signal

from napari_medgs._util.progress import ProgressEvent
from napari_medgs.plugin.segment.model import JobKind


class TaskRunner(Protocol):
    """Runs one job at a time in a thread; see :class:`napari_medgs.plugin.worker.Runner`."""

    @property
    def busy(self) -> bool:
        """Whether a job is running."""

    def start(
        self,
        job: Any,
        *,
        returned: Callable[[Any], None],
        errored: Callable[[Exception], None],
        cancelled: Callable[[], None] | None = None,
        progressed: Callable[[ProgressEvent], None] | None = None,
        finished: Callable[[], None] | None = None,
    ) -> Any:
        """Start a job; the callbacks are called in the main thread."""

    def stop(self) -> None:
        """Ask the job to stop."""


class JobScheduler:
    """Runs requested jobs one after the other, in the order of :class:`JobKind`.

    All methods and signals are for the main thread.

    Parameters
    ----------
    runner : TaskRunner
    make_job : callable
        JobKind -> job, or None where there is nothing to do.
    """

    returned = Signal(object, object)  # kind, result
    errored = Signal(object, Exception)  # kind, error
    cancelled = Signal(object)  # kind
    progressed = Signal(ProgressEvent)
    job_changed = Signal(object)  # kind of the job that began, or None when none runs

    def __init__(self, runner: TaskRunner, make_job: Callable[[JobKind], Any | None]) -> None:
        self._runner, self._make_job = runner, make_job
        self._current: JobKind | None = None
        self._n_started = 0
        self.waiting: set[JobKind] = set()

    def request(self, *kinds: JobKind) -> None:
        """Ask for jobs; the first begins at once unless one is running."""
        self.waiting |= set(kinds)
        self.run_next()

    def interrupt(self) -> None:
        """Stop the running job where newer strokes make its result useless."""
        if self._current is not None and self._current.interruptible:
            self._runner.stop()

    def cancel(self) -> None:
        """Stop the running job and drop those that wait."""
        self.waiting.clear()
        self._runner.stop()

    def run_next(self) -> None:
        """Start the next job unless one is running."""
        if self._runner.busy:
            return
        for kind in JobKind:
            if kind in self.waiting:
                self.waiting.discard(kind)
                job = self._make_job(kind)
                if job is not None:
                    self._start(kind, job)
                    return

    def _start(self, kind: JobKind, job: Any) -> None:
        self._current = kind
        self._n_started += 1
        number = self._n_started
        self.job_changed.emit(kind)
        self._runner.start(
            job,
            returned=lambda result: self.returned.emit(kind, result),
            errored=lambda error: self.errored.emit(kind, error),
            cancelled=lambda: self.cancelled.emit(kind),
            progressed=lambda event: self.progressed.emit(event),
            finished=lambda: self._on_finished(number),
        )

    def _on_finished(self, number: int) -> None:
        if number != self._n_started:
            return  # a listener to the result has started the next job already
        self._current = None
        self.run_next()
        if self._current is None:
            self.job_changed.emit(None)
