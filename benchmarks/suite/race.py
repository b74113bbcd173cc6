"""Let a baseline train until it reaches a quality or its time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Race:
    """How a baseline fared.

    Attributes
    ----------
    seconds : float
        Training time, without measuring: to the target, or until the time was up.
    psnr : float
        Best quality measured, in dB.
    reached : bool
        Whether that met the target.
    steps : int
    trace : list of (float, float)
        Seconds and PSNR of every measurement.
    """

    seconds: float
    psnr: float
    reached: bool
    steps: int
    trace: list[tuple[float, float]] = field(default_factory=list)


def race(
    step: Callable[[], object],
    measure: Callable[[], float],
    *,
    target: float,
    limit: float,
    looks: int = 8,
    say: Callable[[str], None] = lambda line: None,
    name: str = "baseline",
) -> Race:
    """Step until the target is met or the limit is spent; measuring does not count.

    Parameters
    ----------
    step : callable
        One training step.
    measure : callable
        Returns the PSNR in dB.
    target : float
    limit : float
        Seconds of training.
    looks : int
        How often to measure, at times evenly spaced in the square root of time; the last one
        at the end.
    """
    moments = limit * (np.arange(1, looks + 1) / looks) ** 2
    spent, steps, best, reached = 0.0, 0, -np.inf, False
    trace: list[tuple[float, float]] = []
    for moment in moments:
        while spent < moment:
            start = time.perf_counter()
            step()
            spent += time.perf_counter() - start
            steps += 1
        psnr = measure()
        trace.append((spent, psnr))
        best = max(best, psnr)
        say(f"  {name}: {spent:.1f} s, {steps} steps, {psnr:.2f} dB")
        if psnr >= target:
            reached = True
            break
    return Race(spent, float(best), reached, steps, trace)
