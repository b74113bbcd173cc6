"""How the minutes that a user gives for a training are shared among networks and measurements."""

from __future__ import annotations

import time
from dataclasses import dataclass

from napari_medgs.learning.training.params import LearnParams

FOLD_SHARE = 0.5
"""Steps of a fold's network over those of the first."""
MEASURING_SHARE = 0.08
"""Part of the minutes that the measurement of the folds may take."""
POLISHING_SHARE = 0.15
"""Part of the minutes that the measurement of polishing may take."""


@dataclass(frozen=True)
class TimeBudget:
    """The time of one training, where the user gave one.

    Attributes
    ----------
    params : LearnParams
    folds : int
        How many folds there are.
    started : float
        When the training began, by :func:`time.perf_counter`.
    """

    params: LearnParams
    folds: int
    started: float

    def of_first(self) -> float | None:
        """Return the seconds of the first network; None without a time for all."""
        if self.params.minutes is None:
            return None
        spent = time.perf_counter() - self.started
        measuring = MEASURING_SHARE * bool(self.folds) + POLISHING_SHARE * self.params.polish
        left = 60 * self.params.minutes * (1 - measuring) - spent
        return max(1.0, left) / (1 + FOLD_SHARE * self.folds)

    def left(self) -> float | None:
        """Return the seconds that are left for measurements; None without a time for all."""
        if self.params.minutes is None:
            return None
        return max(1.0, 60 * self.params.minutes - (time.perf_counter() - self.started))
