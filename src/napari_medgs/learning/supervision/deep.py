"""Supervision of the logits of all levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from napari_medgs.learning.networks.slots import SegmenterConfig
from napari_medgs.learning.supervision.losses import dice_and_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


def enlarge(logits: list[Tensor], size: tuple[int, ...]) -> list[Tensor]:
    """Return logits (B, K, ...) of several resolutions, enlarged linearly to one size.

    Examples
    --------
    >>> import torch
    >>> levels = [torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 6, 5)]
    >>> [tuple(level.shape) for level in enlarge(levels, (6, 5))]
    [(1, 2, 6, 5), (1, 2, 6, 5)]
    """
    mode = "trilinear" if len(size) == 3 else "bilinear"
    return [
        level
        if tuple(level.shape[2:]) == tuple(size)
        else nn.functional.interpolate(level, size, mode=mode, align_corners=False)
        for level in logits
    ]


class DeepSupervision(nn.Module):
    """The loss of every level's logits; each coarser level counts half of the finer one [1]_.

    Parameters
    ----------
    config : SegmenterConfig

    References
    ----------
    .. [1] Isensee et al., "nnU-Net", Nat. Methods 18, 2021. There the target is made coarse; here
       the logits are made fine, so that thin structures stay.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        del config

    def forward(self, logits: list[Tensor], target: Tensor) -> Tensor:
        """Return the loss; see the protocol."""
        levels = enlarge(logits, tuple(target.shape[1:]))
        weights = [0.5**k for k in range(len(levels))]
        total = target.new_zeros((), dtype=levels[-1].float().dtype)
        for weight, level in zip(weights, reversed(levels), strict=True):
            total = total + weight * dice_and_cross_entropy(level, target)
        return total / sum(weights)
