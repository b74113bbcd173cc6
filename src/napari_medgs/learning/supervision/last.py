"""Supervision of the last logits alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from napari_medgs.learning.networks.slots import SegmenterConfig
from napari_medgs.learning.supervision.losses import dice_and_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


class LastSupervision(nn.Module):
    """Cross-entropy and Dice of the last logits.

    Parameters
    ----------
    config : SegmenterConfig
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        del config

    def forward(self, logits: list[Tensor], target: Tensor) -> Tensor:
        """Return the loss; see the protocol."""
        return dice_and_cross_entropy(logits[-1], target)
