"""Work that napari wants the result of at once, without a frozen window."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_MS = 15


def run_responsive(work: Callable[[], T], text: str) -> T:
    """Return what a function returns, which runs in a thread while the window goes on drawing.

    Mouse and keys wait until it is done; napari shows that something is running. In scripts and
    other threads, where no event loop is running, the function is called directly.

    Parameters
    ----------
    work : callable
        Must touch neither layers nor widgets.
    text : str
        What is done, for napari's activity list.
    """
    if not in_event_loop():
        return work()
    from napari.utils import progress
    from qtpy.QtCore import QEventLoop, QTimer

    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="medgs-read", daemon=True)
    loop, timer = QEventLoop(), QTimer()
    timer.setInterval(POLL_MS)
    timer.timeout.connect(lambda: None if thread.is_alive() else loop.quit())
    with progress(total=0, desc=text):
        thread.start()
        timer.start()
        loop.exec(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
        timer.stop()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def breathe() -> None:
    """Let the window draw and timers run between two steps of long work in the main thread.

    Mouse and keys wait. In scripts, where no event loop is running, nothing happens.
    """
    if in_event_loop():
        from qtpy.QtCore import QCoreApplication, QEventLoop

        QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)


def in_event_loop() -> bool:
    """Tell whether this is the main thread, called by Qt."""
    from qtpy.QtCore import QThread
    from qtpy.QtWidgets import QApplication

    app = QApplication.instance()
    if app is None or threading.current_thread() is not threading.main_thread():
        return False
    return bool(QThread.currentThread().loopLevel() > 0)
