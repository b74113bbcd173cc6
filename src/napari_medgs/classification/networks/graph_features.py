"""Graphs of Gaussians: features of nodes, edges and whole graphs, free of angles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from napari_medgs._optional import require
from napari_medgs.classification.gaussians.set import GaussianSet
from napari_medgs.errors import ParameterError

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 0.02  # lower bound of variances in logarithms, voxels squared


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues' logarithms (B, N, D), log-covariances and whitening matrices (B, N, D, D)."""

    logs: Tensor
    log_covariance: Tensor
    whitening: Tensor


def spectrum(covariances: Tensor) -> Spectrum:
    """Return the eigendecomposition of covariances as rotation-equivariant tensors."""
    values, vectors = torch.linalg.eigh(covariances.float())
    values = values.clamp_min(SMALLEST)
    logs = values.log()
    log_covariance = (vectors * logs[..., None, :]) @ vectors.mT
    whitening = (vectors * values.rsqrt()[..., None, :]) @ vectors.mT
    return Spectrum(logs, log_covariance, whitening)


def node_width(ndim: int, channels: int) -> int:
    """Return the number of features of a node."""
    return ndim + ndim * (ndim + 1) // 2 + 1 + (ndim - 1) + channels + 3


def edge_width(ndim: int, channels: int) -> int:
    """Return the number of features of an edge."""
    return 2 * ndim + 5 + channels + 1


def global_width(ndim: int, channels: int) -> int:
    """Return the number of features of the global node."""
    return 1 + ndim * (ndim + 1) // 2 + 2 * channels + 1


def node_features(gaussians: GaussianSet, parts: Spectrum) -> Tensor:
    """Return (B, N, F): position, log-covariance, log-volume, elongations, values, weight, ...

    The position is relative to the volume, -1 to 1 along its longest edge, since anatomy has
    its place. The last two features are the residual of the fit and the image gradient.
    """
    d = gaussians.ndim
    half = max(gaussians.shape) / 2
    rows, columns = torch.triu_indices(d, d)
    return torch.cat(
        [
            (gaussians.means - gaussians.center()) / half,
            parts.log_covariance[..., rows, columns],
            0.5 * parts.logs.sum(-1, keepdim=True),
            parts.logs.diff(dim=-1),
            gaussians.values,
            _log_weight(gaussians)[..., None],
            gaussians.residual[..., None] * 10,
            gaussians.gradient[..., None] * 5,
        ],
        -1,
    )


def _log_weight(gaussians: GaussianSet) -> Tensor:
    return (gaussians.weights + 0.05).log()


def nearest_neighbors(means: Tensor, weights: Tensor, k: int) -> Tensor:
    """Return (B, N, K) indices of the nearest other Gaussians; those of weight 0 come last."""
    n = means.shape[1]
    k = min(k, n - 1)
    away = torch.cdist(means, means)
    away = away + torch.where(weights > 0, 0.0, 1e6)[:, None, :]
    away.diagonal(dim1=1, dim2=2).fill_(math.inf)
    return away.topk(k, largest=False).indices


def graph_batch(nodes: Tensor, edges: Tensor, index: Tensor) -> Any:
    """Return graphs of equal size as one torch_geometric ``Batch``.

    Parameters
    ----------
    nodes : (B, N, F) tensor
    edges : (B, N, K, E) tensor
        Features of the edges from ``index``'s nodes to each.
    index : (B, N, K) tensor of int64
        Neighbors within the same graph.

    Returns
    -------
    torch_geometric.data.Batch
        ``x`` (B N, F), ``edge_index`` (2, B N K), sorted by target, ``edge_attr`` (B N K, E),
        ``batch`` (B N) and ``ptr`` (B + 1).
    """
    from torch_geometric.data import Batch

    b, n, k = index.shape
    graphs = torch.arange(b, device=index.device)
    source = (index + graphs[:, None, None] * n).reshape(-1)
    target = torch.arange(b * n, device=index.device).repeat_interleave(k)
    # Put together at once: a list of B graphs would cost as much time as a convolution.
    return Batch(
        x=nodes.reshape(b * n, -1),
        edge_index=torch.stack([source, target]),
        edge_attr=edges.reshape(b * n * k, -1),
        batch=graphs.repeat_interleave(n),
        ptr=torch.arange(b + 1, device=index.device) * n,
    )


def gather_neighbors(nodes: Tensor, index: Tensor) -> Tensor:
    """Return (B, N, K, ...): the neighbors' rows of (B, N, ...)."""
    b, n, k = index.shape
    rest = nodes.shape[2:]
    flat = nodes.reshape(b, n, -1)
    wanted = index.reshape(b, n * k, 1).expand(-1, -1, flat.shape[-1])
    return torch.gather(flat, 1, wanted).reshape(b, n, k, *rest)


def edge_features(gaussians: GaussianSet, parts: Spectrum, index: Tensor) -> Tensor:
    """Return (B, N, K, F) of the edges from ``index``'s Gaussians to each.

    Offset in units of the mean spacing, whitened offset, its lengths, Bhattacharyya's
    coefficient (overlap), ratio of volumes, distance of log-covariances, contrasts of values and
    weight.
    """
    d = gaussians.ndim
    offset = gather_neighbors(gaussians.means, index) - gaussians.means[:, :, None]
    length = offset.norm(dim=-1, keepdim=True)
    spacing = length.mean(dim=(1, 2), keepdim=True).clamp_min(1e-3)
    whitened = (parts.whitening[:, :, None] @ offset[..., None])[..., 0]
    # Thin Gaussians may be hundreds of their own widths apart: logarithms compress that.
    far = whitened.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    whitened = whitened / far * torch.log1p(far)
    there = gather_neighbors(gaussians.covariances, index)
    both = 0.5 * (gaussians.covariances[:, :, None] + there)
    both = both + SMALLEST * torch.eye(d, device=both.device)
    logdet = gather_neighbors(parts.logs.sum(-1), index)
    own = parts.logs.sum(-1)[:, :, None]
    solved = torch.linalg.solve(both, offset[..., None])[..., 0]
    exponent = -0.125 * (offset * solved).sum(-1)
    overlap = (exponent + 0.25 * (logdet + own) - 0.5 * torch.linalg.det(both).log()).exp()
    spectral = gather_neighbors(parts.log_covariance, index) - parts.log_covariance[:, :, None]
    contrast = gather_neighbors(gaussians.values, index) - gaussians.values[:, :, None]
    weight = _log_weight(gaussians)
    return torch.cat(
        [
            offset / spacing,
            whitened,
            length / spacing,
            torch.log1p(far),
            overlap[..., None].clamp(0, 1),
            (0.5 * (logdet - own))[..., None],
            spectral.flatten(-2).norm(dim=-1, keepdim=True),
            contrast,
            (gather_neighbors(weight, index) - weight[:, :, None])[..., None],
        ],
        -1,
    )


def global_features(gaussians: GaussianSet) -> Tensor:
    """Return (B, F): log-mass and log-covariance of the whole, moments of values, residual."""
    weight = gaussians.size_weights()
    total = weight.sum(1, keepdim=True).clamp_min(1e-9)
    weight = (weight / total)[..., None]
    mean = (weight * gaussians.means).sum(1, keepdim=True)
    offset = gaussians.means - mean
    spread = gaussians.covariances + offset[..., :, None] * offset[..., None, :]
    whole = spectrum((weight[..., None] * spread).sum(1)).log_covariance
    d = gaussians.ndim
    rows, columns = torch.triu_indices(d, d)
    value = (weight * gaussians.values).sum(1)
    deviation = (weight * (gaussians.values - value[:, None]).square()).sum(1).sqrt()
    residual = (weight[..., 0] * gaussians.residual).sum(1, keepdim=True)
    return torch.cat([total.log(), whole[:, rows, columns], value, deviation, residual * 10], -1)


def graph_data(gaussians: GaussianSet, index: int = 0, *, neighbors: int = 8) -> Any:
    """Return the graph of one image as torch_geometric ``Data``.

    Parameters
    ----------
    gaussians : GaussianSet
    index : int
        Which image.
    neighbors : int
        Incoming edges per Gaussian, from the nearest ones.

    Returns
    -------
    torch_geometric.data.Data
        ``x`` (N, F), ``edge_index`` (2, N K) from neighbors to nodes, ``edge_attr`` (N K, E),
        ``pos`` (N, D) and ``covariance`` (N, D, D) in voxels, ``global_attr`` (1, G).

    Raises
    ------
    ParameterError
        When there are too few Gaussians for so many neighbors.
    MissingPackageError
        When torch-geometric is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.classification import graph_data
    >>> from napari_medgs.classification.gaussians.fit import fit_images
    >>> from napari_medgs.classification.gaussians.settings import FitSettings
    >>> image = np.random.default_rng(0).random((1, 1, 12, 12), np.float32)
    >>> graph = graph_data(fit_images(image, FitSettings(gaussians=16, iterations=2)), neighbors=4)
    >>> graph.num_nodes, graph.num_edges
    (16, 64)
    """
    require("torch_geometric", feature="graph_data")
    from torch_geometric.data import Data

    if not 0 <= index < len(gaussians):
        raise ParameterError(f"There is no image {index} among {len(gaussians)}.")
    one = gaussians[index : index + 1]
    check_enough(one, neighbors + 1)
    parts = spectrum(one.covariances)
    near = nearest_neighbors(one.means, one.weights, neighbors)
    _, n, k = near.shape
    target = torch.arange(n).repeat_interleave(k)
    return Data(
        x=node_features(one, parts)[0],
        edge_index=torch.stack([near.reshape(-1), target]),
        edge_attr=edge_features(one, parts, near).reshape(n * k, -1),
        pos=one.means[0],
        covariance=one.covariances[0],
        global_attr=global_features(one),
    )


def check_enough(gaussians: GaussianSet, least: int) -> None:
    """Check that there are enough Gaussians for a graph.

    Raises
    ------
    ParameterError
        When there are fewer than ``least``.
    """
    if gaussians.count < least:
        raise ParameterError(
            f"A graph of {gaussians.count} Gaussians is too small: at least {least} are needed."
        )
