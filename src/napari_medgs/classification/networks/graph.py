"""Networks on graphs of Gaussians: the published kind, and edge convolutions with levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_medgs.classification.gaussians.set import GaussianSet
from napari_medgs.classification.networks.graph_features import (
    check_enough,
    edge_features,
    edge_width,
    global_features,
    global_width,
    neighbours,
    node_features,
    node_width,
    pick,
    spectrum,
)
from napari_medgs.classification.networks.patches import (
    field_images,
    patch_step,
    patch_width,
    patches,
)
from napari_medgs.classification.networks.raw_features import (
    raw_edge_features,
    raw_edge_width,
    raw_node_features,
    raw_node_width,
)

if TYPE_CHECKING:
    from torch import Tensor


class Scaled(nn.Module):
    """Brings features of different units to one scale, as measured in training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., F) with about zero mean and unit spread, without far outliers."""
        flat = self.norm(x.reshape(-1, x.shape[-1])).clamp(-5, 5)
        return flat.reshape(x.shape)


def gate(h: Tensor, gaussians: GaussianSet) -> Tensor:
    """Silence Gaussians that are not there (weight 0).

    The factor is 1 for all others, with the derivative of a factor on the weight: attribution
    asks what the presence of a Gaussian brings.
    """
    weights = gaussians.weights
    here = weights.detach()
    present = (here > 0) + (weights - here) / here.clamp_min(1e-12)
    return h * present[..., None]


class GraphNetwork(nn.Module):
    """Graph convolutions of mean aggregation with vertex, edge and global embeddings.

    After the published attempt at classifying Gaussian fields: raw parameters as features, four
    residual blocks with layer normalisation, mean read-out. It names its global node without
    saying what it holds; here it starts from learned numbers. Its sizes were chosen for as many
    parameters.

    Parameters
    ----------
    ndim, channels, classes : int
    neighbours : int
    shape_input : bool
        The Gaussians of a shape. Moved to the middle first unless ``raw``.
    raw : bool
        Read the Gaussians' parameters as they are. Otherwise this package's features of nodes,
        edges and the whole: the same layers, to tell what features bring.
    width, blocks : int
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        classes: int,
        neighbours: int = 8,
        shape_input: bool = False,
        raw: bool = True,
        width: int = 79,
        blocks: int = 4,
    ) -> None:
        super().__init__()
        self.neighbours, self.shape_input, self.raw = neighbours, shape_input, raw
        if raw:
            nodes, edges = raw_node_width(ndim, channels), raw_edge_width(ndim)
        else:
            nodes, edges = node_width(ndim, channels), edge_width(ndim, channels)
        self.node_scale, self.edge_scale = Scaled(nodes), Scaled(edges)
        self.vertex = nn.Sequential(nn.Linear(nodes, width), nn.LayerNorm(width), nn.ReLU())
        self.edge = nn.Linear(edges, width)
        if raw:
            self.start = nn.Parameter(torch.zeros(width))
        else:
            whole = global_width(ndim, channels)
            self.global_scale, self.master = Scaled(whole), nn.Linear(whole, width)
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.other = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.up = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.head = nn.Linear(2 * width, classes)

    def forward(self, gaussians: GaussianSet) -> Tensor:
        """Return logits (B, K)."""
        check_enough(gaussians, self.neighbours + 1)
        if self.shape_input and not self.raw:
            gaussians = gaussians.centered()
        near = neighbours(gaussians.means, gaussians.weights, self.neighbours)
        if self.raw:
            nodes, edges = raw_node_features(gaussians), raw_edge_features(gaussians, near)
            master = self.start.expand(len(gaussians), -1)
        else:
            parts = spectrum(gaussians.covariances)
            nodes = node_features(gaussians, parts)
            edges = edge_features(gaussians, parts, near)
            master = self.master(self.global_scale(global_features(gaussians)))
        h = gate(self.vertex(self.node_scale(nodes)), gaussians)
        edges = self.edge(self.edge_scale(edges)).mean(2)
        for own, other, norm, up in zip(self.own, self.other, self.norms, self.up, strict=True):
            message = pick(other(h), near).mean(2) + edges + master[:, None]
            h = gate(h + torch.relu(norm(own(h) + message)), gaussians)
            master = master + torch.relu(up(h.mean(1)))
        return self.head(torch.cat([h.mean(1), master], -1))


class EdgeConvolution(nn.Module):
    """Messages of neighbours and edges, their maximum and mean, and a small network a node."""

    def __init__(self, width: int, edges: int) -> None:
        super().__init__()
        self.there = nn.Linear(width, width)
        self.edge = nn.Linear(edges, width, bias=False)
        self.norm1 = nn.LayerNorm(width)
        self.gather = nn.Linear(2 * width, width)
        self.norm2 = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, h: Tensor, edges: Tensor, near: Tensor) -> Tensor:
        """Return new (B, N, W) of old ones, (B, N, K, E) and (B, N, K)."""
        message = torch.relu(self.norm1(pick(self.there(h), near) + self.edge(edges)))
        h = h + self.gather(torch.cat([message.amax(2), message.mean(2)], -1))
        return h + self.feed(self.norm2(h))


class EdgeNetwork(nn.Module):
    """Edge convolutions on three levels of merged Gaussians, and an attention read-out.

    The nodes of the first level also see the field around them (:mod:`.patches`).

    Parameters
    ----------
    ndim, channels, classes : int
    neighbours : int
    shape_input : bool
        The Gaussians of a shape: moved to the middle first.
    widths : sequence of int
        Of the three levels.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        classes: int,
        neighbours: int = 8,
        shape_input: bool = False,
        widths: tuple[int, ...] = (35, 46, 58),
    ) -> None:
        super().__init__()
        self.neighbours, self.shape_input = neighbours, shape_input
        nodes, edges = node_width(ndim, channels), edge_width(ndim, channels)
        whole = global_width(ndim, channels)
        patch = patch_width(ndim, channels, shape_input)
        read = (nodes + patch, *(nodes for _ in widths[1:]))
        self.node_scale = nn.ModuleList(Scaled(n) for n in read)
        self.edge_scale = nn.ModuleList(Scaled(edges) for _ in widths)
        self.global_scale = Scaled(whole)
        below = (0, *(2 * w for w in widths[:-1]))
        self.embed = nn.ModuleList(
            nn.Sequential(nn.Linear(n + b, w), nn.LayerNorm(w), nn.ReLU())
            for n, b, w in zip(read, below, widths, strict=True)
        )
        self.convolutions = nn.ModuleList(EdgeConvolution(w, edges) for w in widths)
        last = widths[-1]
        self.query = nn.Linear(last, 1)
        self.head = nn.Sequential(
            nn.Linear(3 * last + sum(widths[:-1]) + whole, 48),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(48, classes),
        )

    def forward(self, gaussians: GaussianSet) -> Tensor:
        """Return logits (B, K)."""
        if self.shape_input:
            gaussians = gaussians.centered()
        whole = self.global_scale(global_features(gaussians))
        return self.head(torch.cat([self.encode(gaussians), whole], -1))

    def encode(self, gaussians: GaussianSet) -> Tensor:
        """Return (B, 3 * widths[2] + widths[0] + widths[1]): what is read of each graph.

        The mean of each level, and of the last also the maximum and the attended mean.
        """
        check_enough(gaussians, 16)
        level = gaussians
        h: Any = None
        means = []
        for k, convolution in enumerate(self.convolutions):
            parts = spectrum(level.covariances)
            near = neighbours(level.means, level.weights, self.neighbours)
            x = node_features(level, parts)
            if k == 0:
                around = patches(field_images(level), level, patch_step(level))
                x = torch.cat([x, around], -1)
            x = self.node_scale[k](x)
            h = self.embed[k](x if h is None else torch.cat([x, h], -1))
            edges = self.edge_scale[k](edge_features(level, parts, near))
            h = gate(convolution(gate(h, level), edges, near), level)
            means.append(h.mean(1))
            if k + 1 < len(self.convolutions):
                level = level.merged()
                grouped = h.reshape(len(h), level.count, -1, h.shape[-1])
                h = torch.cat([grouped.amax(2), grouped.mean(2)], -1)
        share = torch.softmax(self.query(h), 1)
        return torch.cat([*means, h.amax(1), (share * h).sum(1)], -1)
