"""A trained classifier: from an image or a field to probabilities and scores of Gaussians."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from napari_medgs.classify.card import ModelCard
from napari_medgs.classify.result import Attribution, Prediction
from napari_medgs.field import GaussianField
from napari_medgs.volume import Volume

if TYPE_CHECKING:
    from torch import nn


class Classifier:
    """A network with its card.

    Parameters
    ----------
    card : ModelCard
    network : torch.nn.Module
        In evaluation mode from here on.
    """

    def __init__(self, card: ModelCard, network: nn.Module) -> None:
        self.card, self.network = card, network.eval()

    def predict(self, image: Volume | GaussianField) -> Prediction:
        """Return the probabilities of all classes.

        Parameters
        ----------
        image : Volume or GaussianField
            2D classifiers read volumes of one slice. A field is rendered on its own grid.

        Raises
        ------
        ImageError
            When the image has other channels or axes than the classifier's.
        """
        raise NotImplementedError

    def attribute(
        self,
        image: Volume | GaussianField,
        class_index: int,
        method: Literal["gradient", "leave-out"] = "gradient",
        *,
        fraction: float = 0.1,
        seed: int = 0,
    ) -> Attribution:
        """Return how much each Gaussian speaks for a class, with a check by deletion.

        Raises
        ------
        ParameterError
            When there is no such class or method, or the classifier reads pixels.
        ImageError
            As :meth:`predict`.
        """
        raise NotImplementedError
