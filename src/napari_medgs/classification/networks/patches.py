"""Patches of the rendered field around each Gaussian, as node features.

Means, covariances and values of a few neighbors tell a network little about the blended field
around a Gaussian; samples of the field do. The field is a function of the Gaussians alone, so
that every transform of them transforms it as well.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from napari_medgs.classification.networks.grid import render

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medgs.classification.gaussians.set import GaussianSet

SHAPE_STEP = 1.0  # voxels between points, for shapes
RELATIVE_STEP = 0.5  # distance of the points over the mean spacing of the Gaussians


def patch_size(ndim: int, shape_input: bool) -> int:
    """Return the number of points along each axis of a patch."""
    return 5 if ndim == 2 or shape_input else 3


def patch_width(ndim: int, channels: int, shape_input: bool) -> int:
    """Return the number of features of a patch."""
    return patch_size(ndim, shape_input) ** ndim * channels


def rendered_field(gaussians: GaussianSet) -> Tensor:
    """Return (B, C, ...): the field at all pixels in 2D, at every second voxel in 3D."""
    if gaussians.ndim == 2:
        return render(gaussians, gaussians.shape)
    return render(gaussians, tuple(max(4, n // 2) for n in gaussians.shape))


def patch_step(gaussians: GaussianSet) -> float:
    """Return the distance between the points of a patch, in voxels."""
    if gaussians.occupancy:
        return SHAPE_STEP
    return RELATIVE_STEP * float(
        (math.prod(gaussians.shape) / gaussians.count) ** (1 / gaussians.ndim)
    )


def patches(images: Tensor, gaussians: GaussianSet, step: float) -> Tensor:
    """Return (B, N, P * C): the field around each Gaussian.

    Parameters
    ----------
    images : (B, C, ...) tensor
        From :func:`rendered_field`, over the whole image at any resolution.
    gaussians : GaussianSet
        Centers of the patches: those of the images, or merged ones.
    step : float
        Distance of the points in voxels, along the image's axes.

    Returns
    -------
    (B, N, P * C) tensor
        Differences from the patch's mean; for shapes the occupancy, 0 outside of the image.
    """
    d, n = gaussians.ndim, patch_size(gaussians.ndim, gaussians.occupancy)
    device = gaussians.means.device
    axis = (torch.arange(n, device=device) - (n - 1) / 2) * step
    stencil = torch.stack(torch.meshgrid(*[axis] * d, indexing="ij"), -1).reshape(-1, d)
    size = torch.tensor(gaussians.shape, device=device)
    # grid_sample's coordinates: -1 to 1 over the edges, x first.
    points = (gaussians.means[:, :, None] + stencil + 0.5) / size * 2 - 1
    places = points.flip(-1) if d == 2 else points.flip(-1)[:, :, :, None]
    padding = "zeros" if gaussians.occupancy else "border"
    found = torch.nn.functional.grid_sample(
        images, places, padding_mode=padding, align_corners=False
    )
    values = found.reshape(*found.shape[:2], gaussians.count, -1).permute(0, 2, 3, 1)
    if not gaussians.occupancy:
        values = values - values.mean(2, keepdim=True)
    return values.flatten(2)
