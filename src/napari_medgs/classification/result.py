"""Results of a classifier: probabilities, and attribution scores of Gaussians."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medgs._typing import Floats
from napari_medgs.data.field import GaussianField


@dataclass(frozen=True)
class Prediction:
    """Class probabilities of one image.

    Attributes
    ----------
    probabilities : dict of str to float
        By class name. They sum to 1, except for multi-label tasks.
    seconds : float
        Wall time, including the fit of Gaussians.
    field : GaussianField or None
        The network's input Gaussians, on the image's grid; None for networks on pixels.
    novelty : float or None
        How unlike the image is to the training images, in units of the distance that a
        few of these exceed (``Reference.false_alarms``); None where the classifier does not know
        them.
    """

    probabilities: dict[str, float]
    seconds: float
    field: GaussianField | None
    novelty: float | None = None

    @property
    def best(self) -> str:
        """Name of the most probable class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def is_unlike(self) -> bool:
        """Whether the image is unlike those that the classifier was trained on."""
        return self.novelty is not None and self.novelty > 1

    @property
    def is_undecided(self) -> bool:
        """Whether no class is more probable than all others together."""
        return max(self.probabilities.values()) <= 0.5


@dataclass(frozen=True)
class Deletion:
    """Deletion test of an attribution: the class's probability as Gaussians are removed.

    Attributes
    ----------
    fraction : float
        Fraction of the Gaussians that was removed.
    probability : float
        With all Gaussians.
    without_highest : float
        Without those of the highest scores: far below ``probability`` if the scores are faithful.
    without_lowest : float
        Without those of the lowest scores.
    without_random : float
        Mean over several random choices of as many Gaussians.
    """

    fraction: float
    probability: float
    without_highest: float
    without_lowest: float
    without_random: float

    @property
    def supported(self) -> bool:
        """Whether removing the highest scores lowers the probability more than random ones."""
        return self.without_highest < self.without_random


@dataclass(frozen=True)
class Attribution:
    """Attribution of a class probability to the Gaussians.

    Attributes
    ----------
    field : GaussianField
        The Gaussians, on the image's grid.
    scores : (N,) ndarray of float32
        Change of the class's log-odds due to the Gaussian; positive is evidence for the class.
    class_name : str
    method : {"gradient", "leave-out"}
    deletion : Deletion
        The deletion test of these scores.
    seconds : float
    """

    field: GaussianField
    scores: Floats
    class_name: str
    method: str
    deletion: Deletion
    seconds: float
