"""What long tasks tell their callers, and how callers stop them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ProgressEvent:
    """One report of a running task.

    Attributes
    ----------
    stage : str
        What is being done now, in words for the user ("initialise", "fit", "render").
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
    """

    stage: str
    done: int
    total: int
    seconds: float
    psnr: float | None = None
    gaussians: int | None = None
    remaining: float | None = None


ProgressCallback = Callable[[ProgressEvent], None]
StopCallback = Callable[[], bool]


def ignore_progress(event: ProgressEvent) -> None:
    """Do nothing with a report (the default callback)."""


def never_stop() -> bool:
    """Return False: the default answer to "should the task stop?"."""
    return False
