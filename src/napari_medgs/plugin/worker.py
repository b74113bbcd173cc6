"""Long tasks in a thread, with what they report delivered in the main thread.

napari's ``thread_worker`` is not used: it cannot stop a function between its yields, and its
error signal raises inside napari itself on some Qt bindings. psygnal's queue for the main thread
is not used either: it delivers every report where only the newest one matters, its timer runs
all the time, and any other plugin in the process may change that timer's interval or stop it.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from psygnal import Signal

from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.errors import Cancelled

LOGGER = logging.getLogger("napari_medgs")
POLL_MS = 120  # about 8 reports a second: smooth to the eye, nothing for the CPU
CLOSE_SECONDS = 1.0  # how long a closing widget waits: a window must not freeze
JOIN_SECONDS = 20.0  # how long the end of the program waits


class Job(Protocol):
    """A core function with its arguments bound."""

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> Any:
        """Do the work; call ``progress`` as often as liked, return soon after a stop."""


class Task:
    """One run of a job in a thread of its own.

    Nothing is emitted from the thread: :meth:`poll`, called in the main thread, emits the newest
    progress event and, once, the outcome. No Qt in here.

    Parameters
    ----------
    job : Job
        Must not touch layers or widgets.
    """

    progressed = Signal(ProgressEvent)
    returned = Signal(object)
    errored = Signal(Exception)
    cancelled = Signal()
    finished = Signal()

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stop = threading.Event()
        self._done = threading.Event()
        self._latest: ProgressEvent | None = None
        self._result: Any = None
        self._error: BaseException | None = None
        self._delivered = False
        self._thread = threading.Thread(target=self._run, name="medgs-task", daemon=True)
        _RUNNING.add(self)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._job(self._report, self._stop.is_set)
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    def _report(self, event: ProgressEvent) -> None:
        self._latest = event

    @property
    def running(self) -> bool:
        """Whether the outcome is still to be delivered."""
        return not self._delivered

    @property
    def stopping(self) -> bool:
        """Whether a stop has been asked for."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask the job to stop; its outcome is delivered as usual."""
        self._stop.set()

    def abandon(self, seconds: float = JOIN_SECONDS) -> bool:
        """Stop, deliver nothing any more, and wait for the thread to end.

        Returns
        -------
        bool
            Whether it ended in time.
        """
        self._delivered = True
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        self._result = None
        if self._thread.is_alive():
            return False  # stays listed: the end of the program waits for it
        _RUNNING.discard(self)
        return True

    def poll(self) -> bool:
        """Deliver what there is; return whether the task goes on (main thread only)."""
        if self._delivered:
            return False
        event, self._latest = self._latest, None
        if event is not None:
            self.progressed.emit(event)
        # A listener of the progress may have abandoned this task.
        if self._delivered or not self._done.is_set():
            return not self._delivered
        self._delivered = True
        self._thread.join()
        _RUNNING.discard(self)
        try:
            if isinstance(self._error, Cancelled):
                self.cancelled.emit()
            elif isinstance(self._error, Exception):
                self.errored.emit(self._error)
            elif self._error is not None:
                raise self._error
            else:
                self.returned.emit(self._result)
        finally:
            self._result = None
            self.finished.emit()
        return False


_RUNNING: weakref.WeakSet[Task] = weakref.WeakSet()


@atexit.register
def stop_all() -> None:
    """Stop every task that is still running, as the program ends."""
    for task in list(_RUNNING):
        task.abandon()


class Runner:
    """Runs one task at a time and polls it with a Qt timer.

    Parameters
    ----------
    owner : qtpy.QtCore.QObject
        The timer's parent, a widget as a rule. When it is destroyed, the task is stopped.
    poll_ms : int
        Milliseconds between polls of the task.
    """

    def __init__(self, owner: Any, poll_ms: int = POLL_MS) -> None:
        from qtpy.QtCore import QTimer

        self._task: Task | None = None
        self._timer = QTimer(owner)
        self._timer.setInterval(poll_ms)
        self._timer.timeout.connect(self._poll)
        owner.destroyed.connect(_stopper(self))

    @property
    def task(self) -> Task | None:
        """The running task, if any."""
        return self._task if self._task is not None and self._task.running else None

    @property
    def busy(self) -> bool:
        """Whether a task is running."""
        return self.task is not None

    def start(
        self,
        job: Job,
        *,
        returned: Callable[[Any], None],
        errored: Callable[[Exception], None],
        cancelled: Callable[[], None] | None = None,
        progressed: Callable[[ProgressEvent], None] | None = None,
        finished: Callable[[], None] | None = None,
    ) -> Task:
        """Run a job; the callbacks are called in the main thread.

        Raises
        ------
        RuntimeError
            When a task is running already: callers disable what starts one.
        """
        if self.busy:
            raise RuntimeError("A task is running already.")
        task = Task(job)
        task.returned.connect(returned)
        task.errored.connect(errored)
        if cancelled is not None:
            task.cancelled.connect(cancelled)
        if progressed is not None:
            task.progressed.connect(progressed)
        if finished is not None:
            task.finished.connect(finished)
        self._task = task
        task.start()
        self._timer.start()
        return task

    def stop(self) -> None:
        """Ask the running task to stop, if there is one."""
        if self._task is not None:
            self._task.stop()

    def shut_down(self) -> None:
        """Stop the running task without any further callback.

        One that is in the middle of a long step ends after it, on its own.
        """
        task, self._task = self._task, None
        if task is not None and task.running and not task.abandon(CLOSE_SECONDS):
            LOGGER.info("A task is still in the middle of a step and ends after it.")

    def _poll(self) -> None:
        task = self._task
        if task is None:
            self._timer.stop()
            return
        try:
            going = task.poll()
        except Exception:
            self._timer.stop()
            raise
        if not going and self._task is task:
            self._task = None
            self._timer.stop()


def _stopper(runner: Runner) -> Callable[..., None]:
    """Return a callback that shuts a runner down without keeping it alive."""
    reference = weakref.ref(runner)

    def stop(*_: Any) -> None:
        alive = reference()
        if alive is not None:
            alive.shut_down()

    return stop
