"""Calls that wait for the event loop, and are dropped with the widget that made them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QTimer


def call_later(owner: Any, callback: Callable[[], Any], milliseconds: int = 0) -> None:
    """Call a function once, after what waits in the event loop, unless its owner is gone then.

    ``QTimer.singleShot`` calls it all the same, which fails on widgets that Qt has deleted.

    Parameters
    ----------
    owner : qtpy.QtCore.QObject
        A widget or another object that lives as long as the function can be called.
    callback : callable
        Without arguments.
    milliseconds : int
        How long to wait at least.
    """
    timer = QTimer(owner)
    timer.setSingleShot(True)
    timer.timeout.connect(lambda: callback())
    timer.timeout.connect(timer.deleteLater)
    timer.start(milliseconds)
