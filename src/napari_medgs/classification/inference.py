"""Batched inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_medgs.classification.card import ModelCard
from napari_medgs.classification.data.augment import flip, flip_axes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

BATCH = 64


def logits_of(network: nn.Module, inputs: Any, card: ModelCard) -> Tensor:
    """Return logits (B, K), averaged over flips where the card asks for it."""
    combinations = flip_axes(card.ndim) if card.preprocessing.get("tta") else [()]
    total = torch.stack([network(flip(inputs, axes)) for axes in combinations])
    return total.mean(0)


def as_probabilities(logits: Tensor, card: ModelCard) -> Tensor:
    """Return probabilities (..., K): a sigmoid per label, or the softmax over classes."""
    return torch.sigmoid(logits) if card.multi_label else torch.softmax(logits, -1)


def probabilities_of(network: nn.Module, inputs: Any, card: ModelCard) -> NDArray[np.float64]:
    """Return (N, K) probabilities of all inputs, in batches, without gradients."""
    network.eval()
    device = next(network.parameters()).device
    parts = []
    with torch.no_grad():
        for first in range(0, len(inputs), BATCH):
            batch = inputs[first : first + BATCH].to(device)
            parts.append(as_probabilities(logits_of(network, batch, card).double().cpu(), card))
    return torch.cat(parts).numpy()
