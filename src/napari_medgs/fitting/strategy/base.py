"""The contract between a fit and the strategies that change its Gaussians.

A strategy changes the Gaussians of a fit once its rounds of optimization are over. It works
against the small :class:`Trainer` protocol, so that loops on the CPU and on a GPU serve alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import ProgressCallback
from napari_medgs.fitting.optim.state import LoopState, Snapshot
from napari_medgs.fitting.params import FitParams
from napari_medgs.fitting.problem import FitProblem


class Trainer(Protocol):
    """A fit that a strategy may change and let recover.

    Attributes
    ----------
    params : FitParams
    problem : FitProblem
    state : LoopState
        The table of Gaussians and what is known of it.
    lower, upper : (14 + C,) ndarray
        Limits of the table's columns.
    image_voxels : float
        Voxels whose squared errors are the image error.
    max_label_error, max_through_plane_error : float
        With more of these (see LoopState) the target does not count as met; infinite at first.
    progress : callable
    """

    params: FitParams
    problem: FitProblem
    state: LoopState
    lower: Floats
    upper: Floats
    image_voxels: float
    max_label_error: float
    max_through_plane_error: float
    progress: ProgressCallback

    @property
    def seconds(self) -> float:
        """Wall time since the fit began."""

    def must_end(self) -> bool:
        """Tell whether the user canceled, or the time is up."""

    def snapshot(self) -> Snapshot:
        """Return what :meth:`restore` needs to undo all that follows."""

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot; the history stays."""

    def reindex(self, parameters: Floats, rows: NDArray[np.int64]) -> None:
        """Go on with another table, known to the optimizer as ``rows`` of the last one."""

    def recover(self, steps: int, decay: float, report: Callable[[], None]) -> bool:
        """Take up to so many steps; return whether the target was met."""

    def weighted_moments(self) -> list[NDArray[Any]]:
        """Return what :func:`~napari_medgs.fitting.optim.moments.weighted_moments` does."""


class Strategy(Protocol):
    """A way to change the Gaussians of a fit that met its target quality."""

    def applies(self, trainer: Trainer) -> bool:
        """Tell whether the strategy has anything to do for a fit."""

    def apply(self, trainer: Trainer) -> None:
        """Change the fit; on return its state is one that meets the target."""
