"""Stages of a solve: timed, reported, and the places where it can be stopped."""

from __future__ import annotations

import time

from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.errors import Cancelled


class Clock:
    """Times stages, reports them, and stops between them."""

    def __init__(self, progress: ProgressCallback, should_stop: StopCallback, total: int) -> None:
        self._progress, self._stop, self._total = progress, should_stop, total
        self.started = time.perf_counter()
        self._last, self._done = self.started, 0
        self.seconds: dict[str, float] = {}

    def stage(self, name: str) -> None:
        """End the stage before and begin the next one."""
        if self._stop():
            raise Cancelled("The segmentation was cancelled.")
        now = time.perf_counter()
        self._progress(ProgressEvent(name, self._done, self._total, now - self.started))
        self._current = name
        self._done += 1
        self._last = now

    def end(self) -> None:
        """Book the time of the running stage."""
        now = time.perf_counter()
        self.seconds[self._current] = self.seconds.get(self._current, 0.0) + now - self._last
