"""A U-Net that works at half of the image's resolution."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_medgs.learning.networks.slots import SegmenterConfig

if TYPE_CHECKING:
    from torch import Tensor


def convolution(ndim: int) -> type[nn.Module]:
    """Return the convolution of so many axes."""
    return nn.Conv3d if ndim == 3 else nn.Conv2d


class Block(nn.Sequential):
    """Two convolutions, each with instance normalization and a leaky ReLU.

    Parameters
    ----------
    ndim : {2, 3}
    before, after : int
        Channels.
    kernel : tuple of int
        Size by axis.
    stride : tuple of int
        Of the first convolution, by axis.
    """

    def __init__(
        self,
        ndim: int,
        before: int,
        after: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
    ) -> None:
        layers: list[nn.Module] = []
        norm = nn.InstanceNorm3d if ndim == 3 else nn.InstanceNorm2d
        padding = tuple(k // 2 for k in kernel)
        for channels, step in ((before, stride), (after, (1,) * ndim)):
            layers += [
                convolution(ndim)(channels, after, kernel, step, padding, bias=False),
                norm(after, affine=True),
                nn.LeakyReLU(0.01, inplace=True),
            ]
        super().__init__(*layers)


def space_to_depth(image: Tensor, factors: tuple[int, ...]) -> Tensor:
    """Move blocks of voxels to channels: (B, C, ...) to (B, C * prod(factors), ... / factors)."""
    ndim = len(factors)
    split: list[int] = []
    for n, f in zip(image.shape[2:], factors, strict=True):
        split += [n // f, f]
    blocks = image.reshape(*image.shape[:2], *split)
    places, inner = range(2, 2 + 2 * ndim, 2), range(3, 3 + 2 * ndim, 2)
    return blocks.permute(0, 1, *inner, *places).flatten(1, 1 + ndim)


class UNetEncoder(nn.Module):
    """A U-Net [1]_ whose first level has half of the image's resolution.

    Voxels move to channels at the start, which costs an eighth of a U-Net at full resolution and,
    on organs of some voxels, no accuracy.

    Parameters
    ----------
    config : SegmenterConfig

    References
    ----------
    .. [1] Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation",
       MICCAI 2015; instance normalization and strided convolutions as in Isensee et al.,
       "nnU-Net", Nat. Methods 18, 2021.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        ndim, widths = config.ndim, config.widths
        self.stem = config.strides[0]
        self.widths = tuple(reversed(widths))
        self.multiple = config.multiple
        count = config.channels
        for factor in self.stem:
            count *= factor
        ones = (1,) * ndim
        before = (count, *widths[:-1])
        steps = (ones, *config.strides[1:])
        self.down = nn.ModuleList(
            Block(ndim, a, b, kernel, step)
            for a, b, kernel, step in zip(before, widths, config.kernels, steps, strict=True)
        )
        self.up = nn.ModuleList(
            Block(ndim, coarse + fine, fine, kernel, ones)
            for (fine, coarse), kernel in reversed(
                list(zip(itertools.pairwise(widths), config.kernels, strict=False))
            )
        )
        self.mode = "trilinear" if ndim == 3 else "bilinear"

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return features coarse to fine; see the protocol."""
        x = space_to_depth(image, self.stem)
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        found = [skips.pop()]
        for block in self.up:
            skip = skips.pop()
            larger = nn.functional.interpolate(
                found[-1], skip.shape[2:], mode=self.mode, align_corners=False
            )
            found.append(block(torch.cat([larger, skip], 1)))
        return found
