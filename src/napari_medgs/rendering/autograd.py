"""Rendering as a differentiable PyTorch operation, for losses and models of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from napari_medgs.rendering.engine import DifferentiableEngine

if TYPE_CHECKING:
    from torch import Tensor


def differentiable_render(
    engine: DifferentiableEngine, parameters: Tensor, slices: NDArray[Any] | None = None
) -> Tensor:
    """Render a table of Gaussians so that gradients flow back to it.

    Only the table is kept for the backward pass, which renders again: memory stays that of the
    output and the engine's own buffers, however many Gaussians overlap.

    Parameters
    ----------
    engine : DifferentiableEngine
        The engines of the backends "cpu" and "cuda" with the blends "normalized" and "sum".
    parameters : (N, 14 + C) tensor
        Columns as in :mod:`napari_medgs.rendering.parameters`; on the engine's device.
    slices : (S,) ndarray of int, optional
        Increasing indices along the slice axis; all by default.

    Returns
    -------
    (C, S, Y, X) tensor

    Raises
    ------
    TypeError
        When the engine gives no gradients of its own.

    Examples
    --------
    >>> import torch
    >>> from napari_medgs.rendering import EngineSpec, differentiable_render, make_engine
    >>> engine = make_engine(EngineSpec((1, 8, 8), channels=1, blend="sum"), "cpu")
    >>> parameters = torch.zeros(1, 15)
    >>> parameters[0, :2] = 3.5  # the center, column and row
    >>> parameters.requires_grad_().shape
    torch.Size([1, 15])
    >>> differentiable_render(engine, parameters).sum().backward()
    >>> bool(parameters.grad[0, 14] > 0)  # brighter with the Gaussian's value
    True
    """
    import torch

    if not isinstance(engine, DifferentiableEngine):
        raise TypeError(f"{type(engine).__name__} gives no gradients of its own.")

    def unwrap(tensor: Tensor) -> Any:
        # Engines answer in kind: GPU engines take their device's tensors, the CPU's take arrays.
        detached = tensor.detach()
        return detached if tensor.is_cuda else detached.numpy()

    class Render(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, table: Tensor) -> Tensor:
            ctx.save_for_backward(table)
            return torch.as_tensor(engine.render(unwrap(table), slices)).to(table.dtype)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, grad_output: Tensor) -> Tensor:
            (table,) = ctx.saved_tensors
            gradient = engine.backward(unwrap(table), unwrap(grad_output), slices)
            return torch.as_tensor(gradient).to(table.dtype)

    rendered: Tensor = Render.apply(parameters)  # type: ignore[no-untyped-call]
    return rendered
