"""The slow and plain renderer that all others are tested against (torch, any dtype and device).

Every Gaussian is evaluated at every point, in chunks; gradients come from autograd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medgs.rendering.engine import EngineSpec, LossAndGradient, StackTarget
from napari_medgs.rendering.parameters import (
    A1,
    B1,
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
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_medgs._typing import Floats
    from napari_medgs.data.field import Blend, FieldInfo

ALPHA_LIMIT = 0.999


@dataclass(frozen=True)
class BlendSettings:
    """The part of :class:`~napari_medgs.data.field.FieldInfo` that rendering depends on."""

    blend: Blend
    degree: int
    cutoff: float
    eps: float


def gaussians_at(parameters: Tensor, points: Tensor, degree: int, cutoff: float) -> Tensor:
    """Return w g of every Gaussian at every point, (P, N), for the order-free blends.

    Parameters
    ----------
    parameters : (N, 14 + C) tensor
        See :mod:`napari_medgs.rendering.parameters`.
    points : (P, 3) tensor
        (slice, row, column) in voxels of the slice-first grid.
    """
    import torch

    q, _ = _exponents(parameters, points, degree)
    inside = q <= cutoff
    return torch.where(inside, torch.exp(parameters[:, LOG_W] - 0.5 * q), torch.zeros_like(q))


def _exponents(parameters: Tensor, points: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """Return q and its slice part (rt d)^2, both (P, N)."""
    import torch

    d = points[:, :1] - parameters[:, T]
    mean_x = parameters[:, X].expand_as(d)
    mean_y = parameters[:, Y].expand_as(d)
    for k in range(degree):
        mean_x = mean_x + parameters[:, A1 + k] * d ** (k + 1)
        mean_y = mean_y + parameters[:, B1 + k] * d ** (k + 1)
    r1, r2 = torch.exp(parameters[:, LOG_R1]), torch.exp(parameters[:, LOG_R2])
    shear = parameters[:, SHEAR] * r2 / r1
    dy = points[:, 1:2] - mean_y
    u = points[:, 2:3] - mean_x - shear * dy
    along = (torch.exp(parameters[:, LOG_RT]) * d) ** 2
    return (r1 * u) ** 2 + (r2 * dy) ** 2 + along, along


def render_at(
    parameters: Tensor,
    background: Tensor,
    info: FieldInfo | BlendSettings,
    points: Tensor,
    chunk: int = 4096,
) -> Tensor:
    """Render all channels of a parameter table at points.

    Parameters
    ----------
    parameters : (N, 14 + C) tensor
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
        values = parameters[:, GEOMETRY:]
        if info.blend == "alpha":
            parts.append(_composite(parameters, background, info, some))
            continue
        g = gaussians_at(parameters, some, info.degree, info.cutoff)
        total = g @ values
        if info.blend == "normalized":
            weight = g.sum(dim=1, keepdim=True) + info.eps
            parts.append((total + info.eps * background) / weight)
        else:
            parts.append(total + background)
    return torch.cat(parts) if parts else background.new_zeros((0, len(background)))


def _composite(
    parameters: Tensor, background: Tensor, info: FieldInfo | BlendSettings, points: Tensor
) -> Tensor:
    """Front-to-back alpha compositing in index order, opacity w exp(-(rt d)^2 / 2)."""
    import torch

    q, _ = _exponents(parameters, points, info.degree)
    alpha = torch.exp(parameters[:, LOG_W] - 0.5 * q).clamp(max=ALPHA_LIMIT)
    alpha = torch.where(q <= info.cutoff, alpha, torch.zeros_like(alpha))
    through = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=1)
    seen: Tensor = (alpha * before) @ parameters[:, GEOMETRY:]
    return seen + through[:, -1:] * background


def grid_points(shape: tuple[int, int, int], **options: Any) -> Tensor:
    """Return the voxel centers (Z * Y * X, 3) of a slice-first grid; options go to torch."""
    import torch

    axes = [torch.arange(n, **options) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


class ReferenceEngine:
    """Renders with PyTorch in float64, every Gaussian at every voxel, in all blends.

    Slow: for checks of other engines and for very small volumes. Implements
    :class:`~napari_medgs.rendering.engine.Engine`.

    Parameters
    ----------
    spec : EngineSpec
    """

    def __init__(self, spec: EngineSpec) -> None:
        import torch

        self.spec = spec
        self.shape, self.channels = spec.shape, spec.channels
        self.background = torch.as_tensor(spec.background, dtype=torch.float64)
        self.settings = BlendSettings(spec.blend, spec.degree, spec.cutoff, spec.eps)

    def _stack(self, parameters: Tensor, slices: NDArray[Any]) -> Tensor:
        import torch

        points = grid_points(self.shape, dtype=torch.float64)
        points = points.reshape(*self.shape, 3)[torch.as_tensor(slices)].reshape(-1, 3)
        values = render_at(parameters, self.background, self.settings, points, chunk=2048)
        return values.T.reshape(self.channels, len(slices), *self.shape[1:])

    def render(self, parameters: Floats, slices: NDArray[Any] | None = None) -> Floats:
        """Render all or some slices; see :meth:`Engine.render`."""
        import torch

        wanted = np.arange(self.shape[0]) if slices is None else np.asarray(slices)
        with torch.no_grad():
            table = torch.as_tensor(parameters, dtype=torch.float64)
            rendered: Floats = self._stack(table, wanted).numpy().astype(np.float32)
        return rendered

    def loss_and_gradient(self, parameters: Floats, target: StackTarget) -> LossAndGradient:
        """Return errors and gradient; see :meth:`Engine.loss_and_gradient`."""
        import torch
        from torch.nn.functional import cross_entropy

        active = np.flatnonzero(target.active)
        table = torch.tensor(parameters, dtype=torch.float64, requires_grad=True)
        rendered = self._stack(table, active)
        images = len(target.images)
        goal = torch.as_tensor(target.images[:, active], dtype=torch.float64)
        weights = torch.as_tensor(target.image_weights[:, active], dtype=torch.float64)
        difference = rendered[:images] - goal
        cost = difference.abs() if target.l1 else 0.5 * difference**2
        loss = (cost * weights[:, :, None, None]).sum()
        seen = torch.from_numpy(target.counted[active])
        unscored = torch.from_numpy((target.weighted & ~target.counted)[active])
        squares = difference.detach() ** 2
        label_error = 0.0
        if target.classes:
            labels = torch.as_tensor(target.labels[active].astype(np.int64))
            known = labels != 255
            logits = rendered[images:].movedim(0, -1)[known]
            strength = torch.as_tensor(target.seg_weights[active], dtype=torch.float64)
            strength = strength[:, None, None].expand(labels.shape)[known]
            truth = labels[known]
            loss = loss + (strength * cross_entropy(logits, truth, reduction="none")).sum()
            probability = logits.detach().softmax(dim=-1)
            label_error = float((1 - probability.gather(1, truth[:, None])).sum())
        torch.autograd.backward(loss)
        gradient: Floats = table.grad.numpy().astype(np.float32)  # type: ignore[union-attr]
        return LossAndGradient(
            float(squares[:, seen].sum()), label_error, gradient, float(squares[:, unscored].sum())
        )
