"""The networks by name; each has about 78 thousand parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari_medgs._optional import require
from napari_medgs.classification.card import ModelCard, ModelKind
from napari_medgs.errors import ParameterError

if TYPE_CHECKING:
    from torch import nn


def outputs(card: ModelCard) -> int:
    """Return the number of logits: one per class (two for a binary task) or per label."""
    return len(card.class_names)


def _constructor(model: str) -> Callable[..., nn.Module]:
    """Return the class of a kind of network; only graph networks need torch-geometric."""
    from napari_medgs.classification.networks.grid import Hybrid, ResNet8
    from napari_medgs.classification.networks.siren import WeightNetwork

    if ModelKind(model).is_graph:
        require("torch_geometric", feature=f"The network {model}")
        from napari_medgs.classification.networks.graph import EdgeNetwork, GraphNetwork

        return EdgeNetwork if model == "edge" else GraphNetwork
    return {"hybrid": Hybrid, "resnet8": ResNet8, "inr2vec": WeightNetwork}[model]


def make_network(card: ModelCard) -> nn.Module:
    """Return the untrained network that a card describes.

    Parameters
    ----------
    card : ModelCard

    Returns
    -------
    torch.nn.Module
        With random weights.

    Raises
    ------
    ParameterError
        When the card's network settings are unknown.
    MissingPackageError
        When a graph network is wanted and torch-geometric is not installed.
    """
    constructor = _constructor(card.model)
    try:
        return constructor(
            ndim=card.ndim, channels=card.channels, classes=outputs(card), **card.network
        )
    except TypeError as error:
        raise ParameterError(f"Unknown settings of a network of kind {card.model}.") from error


GRID_SEVENTHS = {"gray": 6, "color": 5}
"""Grid points per 7 pixels along an edge, in 2D. By cross-validation on BreastMNIST and
RetinaMNIST: gray ultrasound loses accuracy with fewer, color does not; as many points as pixels
are no better."""


def default_network(
    model: str, ndim: int, shape: tuple[int, ...], is_shape: bool, channels: int
) -> dict[str, Any]:
    """Return a network's default settings for images of this kind."""
    if model == "hybrid":
        if ndim == 2:
            # Patches of 2 x 2 points become channels: all detail at a quarter of the positions.
            sevenths = GRID_SEVENTHS["gray" if channels == 1 else "color"]
            grid = [max(4, n * sevenths // 14 * 2) for n in shape]
            return {"grid": grid, "patch": 2, "shape_input": is_shape}
        return {"grid": [max(4, n // 2) for n in shape], "patch": 1, "shape_input": is_shape}
    if ModelKind(model).is_graph:
        return {"neighbors": 8, "shape_input": is_shape}
    return {}


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
