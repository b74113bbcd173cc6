"""The slow and plain renderer that all others are tested against (torch, any dtype and device).

Every Gaussian is evaluated at every point, in chunks; gradients come from autograd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medgs.render.theta import (
    A1,
    A3,
    B1,
    B3,
    GEOMETRY,
    LOG_R1,
    LOG_R2,
    LOG_RT,
    LOG_W,
    SHEAR,
    T,
    X,
    Y,
)

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medgs.field import FieldInfo

ALPHA_LIMIT = 0.999


def gaussians_at(theta: Tensor, points: Tensor, degree: int, cutoff: float) -> Tensor:
    """Return w g of every Gaussian at every point, (P, N), for the order-free blends.

    Parameters
    ----------
    theta : (N, 14 + C) tensor
        See :mod:`napari_medgs.render.theta`.
    points : (P, 3) tensor
        (slice, row, column) in voxels of the slice-first grid.
    """
    import torch

    q, _ = _exponents(theta, points, degree)
    inside = q <= cutoff
    return torch.where(inside, torch.exp(theta[:, LOG_W] - 0.5 * q), torch.zeros_like(q))


def _exponents(theta: Tensor, points: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """Return q and its slice part (rt d)^2, both (P, N)."""
    import torch

    d = points[:, :1] - theta[:, T]
    mean_x = theta[:, X].expand_as(d)
    mean_y = theta[:, Y].expand_as(d)
    for k in range(degree):
        mean_x = mean_x + theta[:, A1 + k] * d ** (k + 1)
        mean_y = mean_y + theta[:, B1 + k] * d ** (k + 1)
    r1, r2 = torch.exp(theta[:, LOG_R1]), torch.exp(theta[:, LOG_R2])
    shear = theta[:, SHEAR] * r2 / r1
    dy = points[:, 1:2] - mean_y
    u = points[:, 2:3] - mean_x - shear * dy
    along = (torch.exp(theta[:, LOG_RT]) * d) ** 2
    return (r1 * u) ** 2 + (r2 * dy) ** 2 + along, along


def render_at(
    theta: Tensor, background: Tensor, info: FieldInfo, points: Tensor, chunk: int = 4096
) -> Tensor:
    """Render all channels of a parameter table at points.

    Parameters
    ----------
    theta : (N, 14 + C) tensor
    background : (C,) tensor
    info : FieldInfo
        Blend, degree, cutoff and eps are used.
    points : (P, 3) tensor
        (slice, row, column) in voxels of the slice-first grid.

    Returns
    -------
    (P, C) tensor
    """
    import torch

    parts = []
    for start in range(0, len(points), chunk):
        some = points[start : start + chunk]
        values = theta[:, GEOMETRY:]
        if info.blend == "alpha":
            parts.append(_composite(theta, background, info, some))
            continue
        g = gaussians_at(theta, some, info.degree, info.cutoff)
        total = g @ values
        if info.blend == "normalized":
            weight = g.sum(dim=1, keepdim=True) + info.eps
            parts.append((total + info.eps * background) / weight)
        else:
            parts.append(total + background)
    return torch.cat(parts) if parts else background.new_zeros((0, len(background)))


def _composite(theta: Tensor, background: Tensor, info: FieldInfo, points: Tensor) -> Tensor:
    """Front-to-back alpha compositing in index order, opacity w exp(-(rt d)^2 / 2)."""
    import torch

    q, _ = _exponents(theta, points, info.degree)
    alpha = torch.exp(theta[:, LOG_W] - 0.5 * q).clamp(max=ALPHA_LIMIT)
    alpha = torch.where(q <= info.cutoff, alpha, torch.zeros_like(alpha))
    through = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=1)
    seen: Tensor = (alpha * before) @ theta[:, GEOMETRY:]
    return seen + through[:, -1:] * background


def grid_points(shape: tuple[int, int, int], **options: Any) -> Tensor:
    """Return the voxel centres (Z * Y * X, 3) of a slice-first grid; options go to torch."""
    import torch

    axes = [torch.arange(n, **options) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
