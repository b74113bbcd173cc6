"""Random affine augmentation of pixels and Gaussians alike; exact on Gaussians."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from napari_medgs.classification.gaussians.set import GaussianSet

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random augmentation in training.

    Attributes
    ----------
    flips : bool
        Flip along every axis; off where classes are lateral (left, right).
    degrees : float
        Largest rotation.
    scale : float
        Largest relative change of size.
    shift : float
        Largest translation in voxels along each axis.
    gain : float
        Largest relative change of contrast, and half of it of brightness.
    drop : float
        Fraction of the Gaussians that is dropped from graphs. Half of those of a blended image,
        since the rest still covers it: networks overfit less.
    """

    flips: bool = True
    degrees: float = 10.0
    scale: float = 0.05
    shift: float = 1.5
    gain: float = 0.1
    drop: float = 0.5


SHAPE_DROP = 0.05
"""Fraction dropped from a shape's graphs: its Gaussians are parts that add up to it."""


def random_affine(
    count: int, ndim: int, settings: Augmentation, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return (B, D, D) matrices and (B, D) shifts in voxels."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random) * 2 - 1

    angle = settings.degrees * torch.pi / 180
    if ndim == 2:
        theta = uniform(count) * angle
        sine, cosine = theta.sin(), theta.cos()
        matrix = torch.stack([cosine, sine, -sine, cosine], -1).reshape(count, 2, 2)
    else:
        axis = uniform(count, 3)
        theta = (uniform(count, 1) * angle)[..., None]
        axis = axis / axis.norm(dim=1, keepdim=True).clamp_min(1e-6)
        across = torch.zeros(count, 3, 3)
        across[:, 0, 1], across[:, 0, 2], across[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
        across = across - across.mT
        # Rodrigues' formula: a rotation by theta about the axis.
        matrix = torch.eye(3) + theta.sin() * across + (1 - theta.cos()) * (across @ across)
    matrix = matrix * (1 + settings.scale * uniform(count, 1, 1))
    if settings.flips:
        signs = torch.randint(0, 2, (count, ndim), generator=random) * 2 - 1
        matrix = matrix * signs[:, None].float()
    return matrix, settings.shift * uniform(count, ndim)


def augment(
    inputs: Tensor | GaussianSet, settings: Augmentation, random: torch.Generator
) -> Tensor | GaussianSet:
    """Return augmented pixels (B, C, ...) or Gaussians; rows of weights are returned unchanged."""
    count = len(inputs)
    gain = 1 + settings.gain * (torch.rand(count, generator=random) * 2 - 1)
    bias = settings.gain * 0.5 * (torch.rand(count, generator=random) * 2 - 1)
    if isinstance(inputs, GaussianSet):
        matrix, shift = random_affine(count, inputs.ndim, settings, random)
        device = inputs.means.device
        moved = inputs.transform(matrix.to(device), shift.to(device))
        if inputs.occupancy:
            return moved
        gain, bias = gain.to(device), bias.to(device)
        factor = gain[:, None]
        return replace(
            moved,
            values=(moved.values - 0.5) * factor[..., None] + 0.5 + bias[:, None, None],
            residual=moved.residual * factor,
            gradient=moved.gradient * factor,
        )
    if inputs.ndim < 4:  # weights of networks know no moves
        return inputs
    ndim = inputs.ndim - 2
    matrix, shift = random_affine(count, ndim, settings, random)
    pixels = move_pixels(inputs, matrix.to(inputs.device), shift.to(inputs.device))
    if ndim == 3 and bool(((inputs == 0) | (inputs == 1)).all()):
        return pixels
    shape = (-1, *[1] * (ndim + 1))
    gain, bias = gain.to(inputs.device).reshape(shape), bias.to(inputs.device).reshape(shape)
    return (pixels - 0.5) * gain + 0.5 + bias


def drop(gaussians: GaussianSet, fraction: float, random: torch.Generator) -> GaussianSet:
    """Drop a random fraction of the Gaussians (weight 0)."""
    keep = torch.rand(gaussians.weights.shape, generator=random) >= fraction
    return replace(gaussians, weights=gaussians.weights * keep.to(gaussians.weights.device))


def move_pixels(images: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Transform images by x -> A (x - c) + c + shift, by linear interpolation."""
    sizes = torch.tensor(images.shape[2:], device=images.device, dtype=images.dtype)
    inverse = torch.linalg.inv(matrix)
    # grid_sample's coordinates: -1 to 1 over the edges, x first.
    linear = inverse * (sizes[None, None, :] / sizes[None, :, None])
    offset = -(inverse @ shift[..., None])[..., 0] * 2 / sizes
    theta = torch.cat([linear.flip(1, 2), offset.flip(1)[..., None]], -1)
    grid = torch.nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    edge = "border" if images.ndim == 4 else "zeros"
    return torch.nn.functional.grid_sample(images, grid, padding_mode=edge, align_corners=False)


def flip(inputs: Tensor | GaussianSet, axes: tuple[int, ...]) -> Tensor | GaussianSet:
    """Return inputs flipped along some of the image's axes."""
    if not axes:
        return inputs
    if isinstance(inputs, GaussianSet):
        signs = torch.ones(inputs.ndim)
        signs[list(axes)] = -1
        return inputs.transform(torch.diag(signs))
    return inputs.flip([a + 2 for a in axes])


def flip_axes(ndim: int) -> list[tuple[int, ...]]:
    """Return all combinations of axes, the empty one first."""
    return [tuple(a for a in range(ndim) if bits >> a & 1) for bits in range(2**ndim)]


def has_lateral_classes(class_names: tuple[str, ...]) -> bool:
    """Tell whether classes are lateral (left, right), so that a flip changes the class."""
    return any("left" in name.lower() or "right" in name.lower() for name in class_names)
