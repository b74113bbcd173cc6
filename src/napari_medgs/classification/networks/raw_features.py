"""Raw parameters of Gaussians as features: the baseline of a published graph network.

Scales, an angle or a quaternion, opacity and color are ambiguous: axes may be swapped, angles
differ by half a turn. The features of :mod:`.graph_features` are unique.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_medgs.classification.networks.graph_features import SMALLEST, gather_neighbors

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medgs.classification.gaussians.set import GaussianSet


def raw_node_width(ndim: int, channels: int) -> int:
    """Return the number of raw features of a node."""
    return 2 * ndim + (1 if ndim == 2 else 4) + channels + 1


def raw_edge_width(ndim: int) -> int:
    """Return the number of raw features of an edge."""
    return ndim + 1


def raw_node_features(gaussians: GaussianSet) -> Tensor:
    """Return (B, N, F): mean in voxels, scales, rotation, opacity, color.

    Scales are standard deviations along the axes, in voxels. The rotation is an angle in radians
    in 2D, a unit quaternion in 3D.
    """
    values, vectors = torch.linalg.eigh(gaussians.covariances.float())
    scales = values.clamp_min(SMALLEST).sqrt()
    if gaussians.ndim == 2:
        long = vectors[..., -1]
        turn = torch.atan2(long[..., 0], long[..., 1])[..., None]
    else:
        turn = quaternions(vectors)
    return torch.cat(
        [gaussians.means, scales, turn, gaussians.weights[..., None], gaussians.values], -1
    )


def quaternions(frames: Tensor) -> Tensor:
    """Return (..., 4) unit quaternions (w, x, y, z), w >= 0, of orthogonal frames (..., 3, 3).

    The last axis of a left-handed frame is reversed.
    """
    frames = frames.clone()
    frames[..., 2] *= torch.linalg.det(frames).sign()[..., None]
    diagonal = frames.diagonal(dim1=-2, dim2=-1)
    x, y, z = diagonal.unbind(-1)
    squares = torch.stack([1 + x + y + z, 1 + x - y - z, 1 - x + y - z, 1 - x - y + z], -1)
    size = 0.5 * squares.clamp_min(0).sqrt()
    odd = frames - frames.mT
    signs = torch.stack([odd[..., 2, 1], odd[..., 0, 2], odd[..., 1, 0]], -1)
    vector = torch.copysign(size[..., 1:], signs)
    return torch.nn.functional.normalize(torch.cat([size[..., :1], vector], -1), dim=-1)


def raw_edge_features(gaussians: GaussianSet, index: Tensor) -> Tensor:
    """Return (B, N, K, F) of the edges from ``index``'s Gaussians: offset and its length."""
    offset = gather_neighbors(gaussians.means, index) - gaussians.means[:, :, None]
    return torch.cat([offset, offset.norm(dim=-1, keepdim=True)], -1)
