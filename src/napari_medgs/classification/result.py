"""What a classifier returns: probabilities, and scores of single Gaussians."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medgs._typing import Floats
from napari_medgs.data.field import GaussianField


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image.

    Attributes
    ----------
    probabilities : dict of str to float
        By class name. They sum to 1, but for multi-label tasks, where each is its own.
    seconds : float
        Wall time, the fit of Gaussians included.
    field : GaussianField or None
        The Gaussians that the network read, on the image's grid; None for networks on pixels.
    """

    probabilities: dict[str, float]
    seconds: float
    field: GaussianField | None

    @property
    def best(self) -> str:
        """Name of the most probable class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


@dataclass(frozen=True)
class Deletion:
    """Do the scores point at what matters? The class's probability as Gaussians are removed.

    Attributes
    ----------
    fraction : float
        Share of the Gaussians that was removed.
    probability : float
        With all Gaussians.
    without_highest : float
        Without those of the highest scores: well below ``probability`` if the scores are right.
    without_lowest : float
        Without those of the lowest scores.
    without_random : float
        Mean over several random choices of as many.
    """

    fraction: float
    probability: float
    without_highest: float
    without_lowest: float
    without_random: float

    @property
    def supported(self) -> bool:
        """Removing the highest scores lowers the probability more than removing any others."""
        return self.without_highest < self.without_random


@dataclass(frozen=True)
class Attribution:
    """How much each Gaussian speaks for a class.

    Attributes
    ----------
    field : GaussianField
        The Gaussians, on the image's grid.
    scores : (N,) ndarray of float32
        Change of the class's log-odds that the Gaussian brings; positive speaks for the class.
    class_name : str
    method : {"gradient", "leave-out"}
    deletion : Deletion
        The check of these scores.
    seconds : float
    """

    field: GaussianField
    scores: Floats
    class_name: str
    method: str
    deletion: Deletion
    seconds: float
