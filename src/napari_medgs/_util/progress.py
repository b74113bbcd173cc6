"""What long tasks tell their callers, and how callers stop them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from napari_medgs.errors import Cancelled


@dataclass(frozen=True)
class ProgressEvent:
    """One report of a running task.

    Attributes
    ----------
    stage : str
        What is being done now, in words for the user ("initialize", "fit", "render").
    done, total : int
        Finished and expected steps of the stage; ``total`` is 0 when unknown.
    seconds : float
        Wall time since the task began.
    psnr : float or None
        Peak signal-to-noise ratio of the fit so far, in dB; None until it is known (on a GPU
        after the first few steps).
    gaussians : int or None
        Gaussians in the field so far.
    remaining : float or None
        Estimated seconds until the end of the task.
    loss : float or None
        Of a network that is trained, averaged since the last report.
    dice : float or None
        Mean Dice on cases that the network does not learn from, where it was measured.
    """

    stage: str
    done: int
    total: int
    seconds: float
    psnr: float | None = None
    gaussians: int | None = None
    remaining: float | None = None
    loss: float | None = None
    dice: float | None = None


ProgressCallback = Callable[[ProgressEvent], None]
StopCallback = Callable[[], bool]


def ignore_progress(event: ProgressEvent) -> None:
    """Do nothing with a report (the default callback)."""


def never_stop() -> bool:
    """Return False: the default answer to "should the task stop?"."""
    return False


class StageTimer:
    """Times the stages of a task, reports them, and stops the task between them.

    Parameters
    ----------
    task : str
        What is done, for the message of the exception: "segmentation".
    progress : callable
        Called with a :class:`ProgressEvent` as every stage begins.
    should_stop : callable
        Asked before every stage.
    total : int
        Number of stages; 0 if unknown.

    Attributes
    ----------
    seconds : dict of str to float
        Wall time per stage that has ended.

    Examples
    --------
    >>> timer = StageTimer("demonstration", ignore_progress, never_stop, 1)
    >>> timer.stage("read")
    >>> timer.end()
    >>> list(timer.seconds)
    ['read']
    """

    def __init__(
        self, task: str, progress: ProgressCallback, should_stop: StopCallback, total: int
    ) -> None:
        self._task = task
        self._progress, self._stop, self._total = progress, should_stop, total
        self.started = time.perf_counter()
        self._last, self._done = self.started, 0
        self.seconds: dict[str, float] = {}

    def stage(self, name: str) -> None:
        """Begin a stage.

        Raises
        ------
        Cancelled
            When the task is to stop.
        """
        if self._stop():
            raise Cancelled(f"The {self._task} was canceled.")
        now = time.perf_counter()
        done = min(self._done, self._total) if self._total else self._done  # stages may repeat
        self._progress(ProgressEvent(name, done, self._total, now - self.started))
        self._current = name
        self._done += 1
        self._last = now

    def end(self) -> None:
        """End the running stage; its time is added to what earlier ones of its name took."""
        now = time.perf_counter()
        self.seconds[self._current] = self.seconds.get(self._current, 0.0) + now - self._last
