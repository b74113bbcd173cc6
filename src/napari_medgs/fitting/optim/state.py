"""What a running fit knows, and what it needs to take steps back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from napari_medgs._typing import Floats


@dataclass
class LoopState:
    """What a running fit knows.

    Attributes
    ----------
    theta : (N, 14 + C) ndarray of float32
    iteration : int
        Steps taken in all rounds.
    psnr : float or None
        Of the slices there are, in dB.
    miss : float
        Class mass that is not the true class's, summed over labelled voxels.
    frames_error : float
        Squared error of the frames between the slices.
    history : list of dict
        iteration, psnr, miss, seconds and gaussians of every step.
    positions : list of (int, ndarray)
        Snapshots of the centres (N, 3).
    stopped_by : str
        "iterations", "quality", "time" or "cancelled".
    """

    theta: Floats
    iteration: int = 0
    psnr: float | None = None
    miss: float = 0.0
    frames_error: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    positions: list[tuple[int, Floats]] = field(default_factory=list)
    stopped_by: str = "iterations"


@dataclass(frozen=True)
class Snapshot:
    """A table with the optimiser's memory and what was known of it."""

    theta: Floats
    first: Any
    second: Any
    psnr: float | None
    miss: float
    frames_error: float
