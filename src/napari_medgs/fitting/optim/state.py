"""State of a running fit, and snapshots to return to."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from napari_medgs._typing import Floats


class StopReason(StrEnum):
    """Why a fit ended."""

    ITERATIONS = "iterations"
    QUALITY = "quality"
    TIME = "time"
    CANCELLED = "cancelled"


class FitStage(StrEnum):
    """Stages of a fit, as :class:`~napari_medgs._util.progress.ProgressEvent` names them."""

    INITIALIZE = "initialize"
    FIT = "fit"
    PRUNE = "prune"
    MEASURE = "measure"
    DONE = "done"


@dataclass
class LoopState:
    """State of a running fit.

    Attributes
    ----------
    parameters : (N, 14 + C) ndarray of float32
    iteration : int
        Steps taken in all rounds.
    psnr : float or None
        Of the slices there are, in dB.
    label_error : float
        Sum over labeled voxels of one minus the probability of the true class.
    through_plane_error : float
        Squared error of the interpolated slices, if any are fitted.
    history : list of dict
        iteration, psnr, label_error, seconds and gaussians of every step.
    positions : list of (int, ndarray)
        Snapshots of the centers (N, 3).
    stopped_by : StopReason
    """

    parameters: Floats
    iteration: int = 0
    psnr: float | None = None
    label_error: float = 0.0
    through_plane_error: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    positions: list[tuple[int, Floats]] = field(default_factory=list)
    stopped_by: StopReason = StopReason.ITERATIONS


@dataclass(frozen=True)
class Snapshot:
    """A table with the optimizer's memory and what was known of it."""

    parameters: Floats
    first: Any
    second: Any
    psnr: float | None
    label_error: float
    through_plane_error: float
