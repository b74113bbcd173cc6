"""Logits at the features' resolution, enlarged linearly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from napari_medgs.learning.networks.slots import SegmenterConfig
from napari_medgs.learning.networks.unet import convolution

if TYPE_CHECKING:
    from torch import Tensor


class TrilinearDecoder(nn.Module):
    """One linear layer on the finest features, and trilinear interpolation of its logits.

    Parameters
    ----------
    config : SegmenterConfig
    widths : tuple of int
        Channels of the features, coarse to fine.
    """

    def __init__(self, config: SegmenterConfig, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.head = convolution(config.ndim)(widths[-1], config.classes, 1)
        self.mode = "trilinear" if config.ndim == 3 else "bilinear"

    def forward(self, features: list[Tensor], size: tuple[int, ...], image: Tensor) -> Tensor:
        """Return logits; see the protocol."""
        del image
        logits: Tensor = self.head(features[-1])
        return nn.functional.interpolate(logits, size, mode=self.mode, align_corners=False)
