"""Rendering as a differentiable PyTorch operation, for losses of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medgs.rendering.cuda.engine import CudaEngine


def render_with_gradient(
    engine: CudaEngine, theta: Tensor, slices: NDArray[Any] | None = None
) -> Tensor:
    """Render a table so that gradients flow back to it.

    Only the table is saved for the backward pass, which sums the Gaussians again: memory stays
    that of the output plus one slab, however large the volume.

    Parameters
    ----------
    engine : CudaEngine
    theta : (N, 14 + C) tensor
        See :mod:`napari_medgs.rendering.parameters`; on the engine's device.
    slices : ndarray of int, optional
        Increasing numbers of the slices wanted; all by default.

    Returns
    -------
    (C, slices, Y, X) tensor
    """
    import torch

    class Render(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, table: Tensor) -> Tensor:
            ctx.save_for_backward(table)
            answer: Tensor = engine.render(table, slices)
            return answer

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, given: Tensor) -> Tensor:
            (table,) = ctx.saved_tensors
            return engine.pull_back(table, given, slices).to(table.dtype)

    rendered: Tensor = Render.apply(theta)  # type: ignore[no-untyped-call]
    return rendered
