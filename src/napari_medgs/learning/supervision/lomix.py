"""Supervision of learned mixtures of the logits of several levels (LoMix).

From every subset of two or more levels four mixtures are made: their sum, their product, a linear
layer on all of them, and a sum with weights that a linear layer finds at each voxel. The levels
and all mixtures are compared with the target; how much each counts is learned along with the
network [1]_. Nothing of it is left at inference.

Where this differs from the code that its authors published: the linear layers are parameters,
one for every subset, where theirs are random and new at each step, or shared by all subsets of a
size; and the weights cannot shrink to zero, which there lowers the loss without learning anything.
Mixtures are compared on every other voxel along each axis, with a random start.

References
----------
.. [1] LoMix: learnable weighted multi-scale logits mixing, NeurIPS 2025, arXiv:2510.22995.
"""

from __future__ import annotations

from itertools import combinations
from math import expm1, log
from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_medgs.learning.networks.slots import SegmenterConfig
from napari_medgs.learning.networks.unet import convolution
from napari_medgs.learning.supervision.deep import enlarge
from napari_medgs.learning.supervision.losses import dice_and_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

STRIDE = 2
MOST_MIXED = 4
"""Levels that are mixed, the finest ones: 48 maps; one more level would make 119."""


class LomixSupervision(nn.Module):
    """The loss of all levels and of their mixtures, with learned weights.

    Parameters
    ----------
    config : SegmenterConfig
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.levels = min(len(config.widths), MOST_MIXED)
        self.subsets = [
            subset
            for size in range(2, self.levels + 1)
            for subset in combinations(range(self.levels), size)
        ]
        layer, classes = convolution(config.ndim), config.classes
        self.joined = nn.ModuleList(layer(len(s) * classes, classes, 1) for s in self.subsets)
        self.attention = nn.ModuleList(layer(len(s) * classes, len(s), 1) for s in self.subsets)
        for subset, joined, attention in zip(
            self.subsets, self.joined, self.attention, strict=True
        ):
            _start_as_mean(joined, len(subset), classes)
            for parameter in attention.parameters():
                nn.init.zeros_(parameter)
        count = self.levels + 4 * len(self.subsets)
        # softplus of it is 1
        self.weight = nn.Parameter(torch.full((count,), log(expm1(1.0))))

    def mixtures(self, levels: list[Tensor]) -> list[Tensor]:
        """Return the four mixtures of every subset of levels (B, K, ...) of one size."""
        found: list[Tensor] = []
        for subset, joined, attention in zip(
            self.subsets, self.joined, self.attention, strict=True
        ):
            chosen = [levels[k] for k in subset]
            together, stacked = torch.cat(chosen, 1), torch.stack(chosen, 1)
            share = attention(together).softmax(1)[:, :, None]
            found += [
                stacked.sum(1),
                stacked.prod(1),
                joined(together),
                (share * stacked).sum(1),
            ]
        return found

    def forward(self, logits: list[Tensor], target: Tensor) -> Tensor:
        """Return the loss; see the protocol."""
        levels = enlarge([x.float() for x in logits[-self.levels :]], tuple(target.shape[1:]))
        starts = torch.randint(STRIDE, (target.ndim - 1,)).tolist()
        # An axis of one slice has no other voxel.
        some = tuple(
            slice(start if n > start else 0, None, STRIDE)
            for start, n in zip(starts, target.shape[1:], strict=True)
        )
        every = (slice(None), slice(None))
        sparse, wanted = [x[every + some] for x in levels], target[(slice(None), *some)]
        losses = torch.stack(
            [dice_and_cross_entropy(x, target) for x in levels]
            + [dice_and_cross_entropy(x, wanted) for x in self.mixtures(sparse)]
        )
        weight = nn.functional.softplus(self.weight)
        fixed = weight.detach()
        # The network sees weights of mean one. The weights themselves minimize w L - log w, which
        # is lowest at w = 1 / L, not at zero.
        network = (fixed / fixed.mean() * losses).mean()
        balance = (weight * losses.detach() - weight.log()).mean()
        return network + balance


def _start_as_mean(layer: nn.Module, levels: int, classes: int) -> None:
    """Make a linear layer on the joined logits of levels their mean."""
    weight, bias = layer.parameters()
    with torch.no_grad():
        weight.zero_()
        bias.zero_()
        for level in range(levels):
            for k in range(classes):
                weight[k, level * classes + k] = 1 / levels
