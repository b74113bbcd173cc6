"""A segmenter's network: an encoder and a decoder, and how they are made by name."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch import nn

from napari_medgs.learning.networks.features import PROJECTED, FeatureChannels, FrozenFeatures
from napari_medgs.learning.networks.slots import DecoderKind, EncoderKind, SegmenterConfig
from napari_medgs.learning.networks.unet import convolution

if TYPE_CHECKING:
    from torch import Tensor

_HERE = "napari_medgs.learning.networks"
ENCODERS = {
    EncoderKind.UNET: f"{_HERE}.unet:UNetEncoder",
    EncoderKind.FOREST: f"{_HERE}.forest:ForestEncoder",
}
DECODERS = {
    DecoderKind.TRILINEAR: f"{_HERE}.trilinear:TrilinearDecoder",
    DecoderKind.GAUSSIAN: f"{_HERE}.gaussian:GaussianDecoder",
    DecoderKind.GUIDED: f"{_HERE}.gaussian:GuidedGaussianDecoder",
    DecoderKind.FIELD: f"{_HERE}.field:FieldDecoder",
}
"""Where the class of each kind is; imported when it is used."""


def load_class(place: str) -> Any:
    """Return the class that ``module:name`` names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


class SegmenterNetwork(nn.Module):
    """Encoder and decoder; in training with multi-scale supervision also one head a level.

    Parameters
    ----------
    config : SegmenterConfig
    training_heads : bool
        Make the heads of the coarser levels, which supervision of several scales needs. Files of
        trained segmenters do not have them.
    """

    def __init__(self, config: SegmenterConfig, training_heads: bool = False) -> None:
        super().__init__()
        self.config = config
        self.features = None if config.features is None else FeatureChannels(config)
        seen = config.channels + (PROJECTED if config.features else 0)
        self.encoder = load_class(ENCODERS[config.encoder])(replace(config, channels=seen))
        widths: tuple[int, ...] = self.encoder.widths
        self.decoder = load_class(DECODERS[config.decoder])(config, widths)
        self.side_heads = nn.ModuleList()
        if training_heads and config.supervision.multi_scale:
            self.side_heads.extend(
                convolution(config.ndim)(width, config.classes, 1) for width in widths[:-1]
            )

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, K, ...) of the image's size, which may be any.

        Parameters
        ----------
        image : (B, C, ...) tensor
        """
        return self.multi_scale(image, False)[-1]

    def multi_scale(self, image: Tensor, heads: bool = True) -> list[Tensor]:
        """Return logits coarse to fine: those of the side heads, if there are, then the last.

        Those of the side heads have the resolution of their level; where the image was padded to
        fit the encoder they are enlarged and cut to the image, too.
        """
        size = tuple(image.shape[2:])
        multiple = self.encoder.multiple
        padding = [-n % m for n, m in zip(size, multiple, strict=True)]
        if any(padding):
            # On both sides: networks know the distance to the border.
            before_after = [side for p in reversed(padding) for side in (p // 2, p - p // 2)]
            image = nn.functional.pad(image, before_after, mode="replicate")
        features = self.encoder(image if self.features is None else self.features(image))
        logits = [
            head(level)
            for head, level in zip(self.side_heads if heads else (), features, strict=False)
        ]
        padded = tuple(image.shape[2:])
        logits.append(self.decoder(features, padded, image))
        if any(padding):
            places = [slice(p // 2, p // 2 + n) for p, n in zip(padding, size, strict=True)]
            inside = (slice(None), slice(None), *places)
            mode = "trilinear" if len(size) == 3 else "bilinear"
            logits = [
                nn.functional.interpolate(level, padded, mode=mode)[inside] for level in logits
            ]
        return logits


def build_segmenter(
    config: SegmenterConfig,
    training_heads: bool = False,
    frozen: FrozenFeatures | None = None,
) -> SegmenterNetwork:
    """Return the untrained network of a configuration.

    Parameters
    ----------
    config : SegmenterConfig
    training_heads : bool
        Make what only the supervision needs, too.
    frozen : FrozenFeatures, optional
        The module of a configuration with ``features``.

    Returns
    -------
    SegmenterNetwork
        With random weights.

    Examples
    --------
    >>> import torch
    >>> network = build_segmenter(SegmenterConfig(ndim=3, channels=1, classes=3))
    >>> network(torch.zeros(1, 1, 20, 17, 9)).shape
    torch.Size([1, 3, 20, 17, 9])
    """
    network = SegmenterNetwork(config, training_heads)
    if network.features is not None:
        network.features.frozen = frozen
    return network
