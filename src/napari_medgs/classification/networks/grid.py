"""Convolutional networks: ResNet-8 on pixels, and the hybrid on rendered Gaussians."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_medgs.classification.gaussians.fit import blend
from napari_medgs.classification.gaussians.raster import rasterize
from napari_medgs.classification.gaussians.set import (
    GaussianSet,
    grid_points,
    log_terms,
    monomials,
)
from napari_medgs.errors import ParameterError

if TYPE_CHECKING:
    from torch import Tensor

WIDTHS = {2: (16, 32, 64), 3: (9, 18, 37)}
"""Channels of the three stages: 78 thousand parameters in 2D, 74 thousand in 3D."""


class Block(nn.Module):
    """Residual block of two convolutions, as in the ResNets for CIFAR."""

    def __init__(self, ndim: int, before: int, after: int, stride: int) -> None:
        super().__init__()
        conv = nn.Conv2d if ndim == 2 else nn.Conv3d
        norm = nn.BatchNorm2d if ndim == 2 else nn.BatchNorm3d
        self.first = conv(before, after, 3, stride, 1, bias=False)
        self.norm1 = norm(after)
        self.second = conv(after, after, 3, 1, 1, bias=False)
        self.norm2 = norm(after)
        self.short: nn.Module = nn.Identity()
        if before != after:
            self.short = nn.Sequential(conv(before, after, 1, stride, bias=False), norm(after))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = torch.relu(self.norm1(self.first(x)))
        return torch.relu(self.norm2(self.second(y)) + self.short(x))


class ResNet8(nn.Module):
    """ResNet of 6 n + 2 layers, n = 1, as for CIFAR [1]_, in two or three dimensions.

    Parameters
    ----------
    ndim : {2, 3}
    channels : int
    classes : int

    References
    ----------
    .. [1] He et al., "Deep residual learning for image recognition", CVPR 2016.
    """

    def __init__(self, ndim: int, channels: int, classes: int) -> None:
        super().__init__()
        conv = nn.Conv2d if ndim == 2 else nn.Conv3d
        norm = nn.BatchNorm2d if ndim == 2 else nn.BatchNorm3d
        a, b, c = WIDTHS[ndim]
        self.ndim, self.channels = ndim, channels
        self.stem = nn.Sequential(conv(channels, a, 3, 1, 1, bias=False), norm(a), nn.ReLU())
        self.stages = nn.Sequential(
            Block(ndim, a, a, 1), Block(ndim, a, b, 2), Block(ndim, b, c, 2)
        )
        self.head = nn.Linear(c, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, ...)."""
        # Channels last takes a third to a half less time on CPUs.
        order = torch.channels_last if self.ndim == 2 else torch.channels_last_3d
        images = images.contiguous(memory_format=order)
        return self.head(self.stages(self.stem(images)).flatten(2).mean(-1))


class Hybrid(nn.Module):
    """Renders Gaussians to a grid inside the network, then applies a ResNet.

    Parameters
    ----------
    ndim, channels, classes : int
    grid : sequence of int
        Size of the grid along each axis; it covers the whole image.
    patch : int
        Patches of this edge length become the channels of one position (space to depth).
    shape_input : bool
        Sum the Gaussians' densities (of a shape, moved to the grid's center) instead of blending
        their values.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        classes: int,
        grid: list[int],
        patch: int = 1,
        shape_input: bool = False,
    ) -> None:
        super().__init__()
        if len(grid) != ndim or any(n % patch for n in grid):
            raise ParameterError(f"A grid {grid} cannot be cut into patches of {patch}.")
        self.grid, self.patch, self.shape_input = tuple(grid), patch, shape_input
        self.resnet = ResNet8(ndim, channels * patch**ndim, classes)

    def render(self, gaussians: GaussianSet) -> Tensor:
        """Return (B, C, *grid): the Gaussians, low-pass filtered for the grid."""
        return render(gaussians, self.grid)

    def forward(self, gaussians: GaussianSet) -> Tensor:
        """Return logits (B, K)."""
        if self.shape_input:
            gaussians = gaussians.centered()
        image = self.render(gaussians)
        if self.patch > 1:
            image = torch.pixel_unshuffle(image, self.patch)
        return self.resnet(image)


def render(gaussians: GaussianSet, grid: tuple[int, ...]) -> Tensor:
    """Return (B, C, *grid): Gaussians, low-pass filtered for a grid over the whole image.

    Shapes are summed, others blended.
    """
    steps = [n / m for n, m in zip(gaussians.shape, grid, strict=True)]
    # No filter where the grid is as fine as the image; a coarser one would alias.
    widths = tuple((0.5 * s) ** 2 if s > 1 else 0.0 for s in steps)
    if gaussians.means.device.type == "cpu" and not needs_gradient(gaussians):
        return torch.from_numpy(
            rasterize(gaussians, grid, widths, threads=torch.get_num_threads())
        )
    points = grid_points(gaussians.shape, grid, gaussians.means.device)
    spread = gaussians.covariances + torch.diag(torch.tensor(widths)).to(gaussians.covariances)
    smooth = replace(gaussians, covariances=spread)
    # Exponents are differences of large numbers: half precision loses them.
    with torch.autocast(gaussians.means.device.type, enabled=False):
        out = render_occupancy(points, smooth) if gaussians.occupancy else blend(points, smooth)
    return out.mT.reshape(len(out), -1, *grid)


def needs_gradient(gaussians: GaussianSet) -> bool:
    """Tell whether derivatives with respect to the Gaussians are required."""
    tensors = (getattr(gaussians, name) for name in gaussians.tensor_names())
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def render_occupancy(points: Tensor, gaussians: GaussianSet) -> Tensor:
    """Return (B, P, 1): the summed density of the Gaussians at points (P, D)."""
    d = gaussians.ndim
    precisions = torch.linalg.inv(gaussians.covariances)
    height = 0.5 * (torch.linalg.det(precisions) / (2 * torch.pi) ** d).log()
    constant = (height + gaussians.weights.clamp_min(1e-20).log()).clamp_min(-60)
    middle = gaussians.center()
    terms = log_terms(gaussians.means - middle, precisions, constant)
    return (monomials(points - middle) @ terms).exp().sum(-1, keepdim=True)
