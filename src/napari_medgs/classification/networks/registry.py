"""The networks by name, each of about 78 thousand parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari_medgs.classification.card import ModelCard
from napari_medgs.errors import ParameterError

if TYPE_CHECKING:
    from torch import nn

INPUTS = {
    "hybrid": "gaussians",
    "edge": "gaussians",
    "gnn": "gaussians",
    "resnet8": "pixels",
    "inr2vec": "weights",
}
"""What each kind of network reads."""


def outputs(card: ModelCard) -> int:
    """Return the number of logits: one a class (two for yes or no), one a label."""
    return len(card.class_names)


def make_network(card: ModelCard) -> nn.Module:
    """Return the untrained network that a card describes.

    Raises
    ------
    ParameterError
        When the card's network settings are unknown.
    """
    makers: dict[str, Callable[..., Any]]
    from napari_medgs.classification.networks.graph import EdgeNetwork, GraphNetwork
    from napari_medgs.classification.networks.grid import Hybrid, ResNet8
    from napari_medgs.classification.networks.siren import WeightNetwork

    makers = {
        "hybrid": Hybrid,
        "edge": EdgeNetwork,
        "gnn": GraphNetwork,
        "resnet8": ResNet8,
        "inr2vec": WeightNetwork,
    }
    try:
        network: nn.Module = makers[card.model](
            ndim=card.ndim, channels=card.channels, classes=outputs(card), **card.network
        )
    except TypeError as error:
        raise ParameterError(f"Unknown settings of a network of kind {card.model}.") from error
    return network


SEVENTHS = {"grey": 6, "colour": 5}
"""Points along an edge over pixels, in 2D. By cross-validation on BreastMNIST and RetinaMNIST:
grey ultrasound loses with fewer, colour does not; as many points as pixels are no better."""


def default_network(
    model: str, ndim: int, shape: tuple[int, ...], mass: bool, channels: int
) -> dict[str, Any]:
    """Return a network's settings for a kind of images."""
    if model == "hybrid":
        if ndim == 2:
            # Every second point goes to channels: all the detail, a quarter of the places.
            share = SEVENTHS["grey" if channels == 1 else "colour"]
            grid = [max(4, n * share // 14 * 2) for n in shape]
            return {"grid": grid, "patch": 2, "shape_input": mass}
        return {"grid": [max(4, n // 2) for n in shape], "patch": 1, "shape_input": mass}
    if model in ("edge", "gnn"):
        return {"neighbours": 8, "shape_input": mass}
    return {}


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable numbers."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
