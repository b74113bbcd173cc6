"""Batches of Gaussians rendered by the product's engines, so that gradients flow back."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from napari_medgs.rendering import EngineSpec, differentiable_render, make_engine
from napari_medgs.rendering.engine import DifferentiableEngine
from napari_medgs.rendering.parameters import (
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

EPS = 1e-3
"""Weight of the background, logits of 0, in the normalized blend."""
DEPTH = 3
"""Axes of the engines."""


@lru_cache(maxsize=8)
def _engine(
    shape: tuple[int, int, int], channels: int, degree: int, backend: str, threads: int, owner: int
) -> DifferentiableEngine:
    """Return an engine; ``owner`` is the thread that alone uses it."""
    del owner
    spec = EngineSpec(shape, channels, degree=degree, eps=EPS, threads=threads)
    engine = make_engine(spec, backend)
    assert isinstance(engine, DifferentiableEngine)
    return engine


def render_logits(table: Tensor, size: tuple[int, ...], degree: int = 0) -> Tensor:
    """Blend the logits of Gaussians: the weighted mean of those that reach a voxel.

    Parameters
    ----------
    table : (N, 14 + K) tensor
        Columns as in :mod:`napari_medgs.rendering.parameters`.
    size : tuple of int
        Of the output in voxels, (y, x) or (z, y, x).
    degree : int
        Of the Gaussians' folds.

    Returns
    -------
    (K, *size) tensor of float32

    Examples
    --------
    >>> table = torch.zeros(1, 16)
    >>> table[0, :2], table[0, 14] = 2.0, 5.0
    >>> logits = render_logits(table, (5, 5))
    >>> logits.shape, round(float(logits[0, 2, 2]), 2)
    (torch.Size([2, 5, 5]), 5.0)
    """
    flat = len(size) == DEPTH - 1
    shape = (1, *size) if flat else tuple(size)
    backend = "cuda" if table.is_cuda else "cpu"
    engine = _engine(
        shape,
        table.shape[1] - GEOMETRY,
        degree,
        backend,
        torch.get_num_threads(),
        threading.get_ident(),
    )
    rendered = differentiable_render(engine, table.float().contiguous())
    return rendered[:, 0] if flat else rendered


def gaussian_table(
    centers: Tensor, log_precision: Tensor, shear: Tensor, log_weight: Tensor, logits: Tensor
) -> Tensor:
    """Return the engines' table of Gaussians without folds.

    Parameters
    ----------
    centers : (..., N, D) tensor
        Voxels of the output, (y, x) or (z, y, x), 0 at the center of the first voxel.
    log_precision : (..., N, D) tensor
        Logarithm of one over the standard deviation in voxels.
    shear : (..., N) tensor
        Within a slice, in units of the standard deviations; 0 for axes along the voxels.
    log_weight : (..., N) tensor
    logits : (..., N, K) tensor

    Returns
    -------
    (..., N, 14 + K) tensor of float32
    """
    columns: list[Tensor] = [torch.zeros_like(shear)] * GEOMETRY
    columns[X], columns[Y] = centers[..., -1], centers[..., -2]
    columns[LOG_R1], columns[LOG_R2] = log_precision[..., -1], log_precision[..., -2]
    if centers.shape[-1] == DEPTH:
        columns[T], columns[LOG_RT] = centers[..., 0], log_precision[..., 0]
    columns[SHEAR], columns[LOG_W] = shear, log_weight
    return torch.cat([torch.stack(columns, -1), logits], -1).float()
