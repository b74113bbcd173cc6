"""Graph networks on Gaussians: mean aggregation, and edge convolutions with pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch_geometric.nn import global_max_pool, global_mean_pool
from torch_geometric.nn.aggr import AttentionalAggregation

from napari_medgs.classification.gaussians.set import GaussianSet
from napari_medgs.classification.networks.convolutions import (
    EdgeConvolution,
    MeanConvolution,
    NeighborAggregation,
)
from napari_medgs.classification.networks.graph_features import (
    check_enough,
    edge_features,
    edge_width,
    global_features,
    global_width,
    graph_batch,
    nearest_neighbors,
    node_features,
    node_width,
    spectrum,
)
from napari_medgs.classification.networks.patches import (
    patch_step,
    patch_width,
    patches,
    rendered_field,
)
from napari_medgs.classification.networks.raw_features import (
    raw_edge_features,
    raw_edge_width,
    raw_node_features,
    raw_node_width,
)

if TYPE_CHECKING:
    from torch import Tensor


class FeatureNorm(nn.Module):
    """Standardizes features of different units by batch statistics, and clips outliers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., F) with zero mean and unit variance, clipped to 5 standard deviations."""
        flat = self.norm(x.reshape(-1, x.shape[-1])).clamp(-5, 5)
        return flat.reshape(x.shape)


def mask_absent(h: Tensor, gaussians: GaussianSet) -> Tensor:
    """Set the features (B N, W) of absent Gaussians, those of weight 0, to zero.

    The factor is 1 for all others, with the derivative of a factor on the weight: attribution
    asks how the logits change with the presence of a Gaussian.
    """
    weights = gaussians.weights
    here = weights.detach()
    present = (here > 0) + (weights - here) / here.clamp_min(1e-12)
    return h * present.reshape(-1, 1)


class GraphNetwork(nn.Module):
    """Graph convolutions of mean aggregation with vertex, edge and global embeddings.

    A baseline after a published classifier of Gaussian fields: raw parameters as features, four
    residual blocks with layer normalization, mean read-out. The publication does not say what
    its global node holds at first; here that is a learned vector. The sizes were chosen for as
    many parameters as the other networks have.

    Parameters
    ----------
    ndim, channels, classes : int
    neighbors : int
        Incoming edges per node.
    shape_input : bool
        The Gaussians are of a binary shape. They are centered first unless ``raw``.
    raw : bool
        Read the Gaussians' parameters as they are. Otherwise the features of nodes, edges and
        graphs of :mod:`.graph_features`, in the same layers, to measure what features bring.
    width, blocks : int
        Features per node, and number of convolutions.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        classes: int,
        neighbors: int = 8,
        shape_input: bool = False,
        raw: bool = True,
        width: int = 79,
        blocks: int = 4,
    ) -> None:
        super().__init__()
        self.neighbors, self.shape_input, self.raw = neighbors, shape_input, raw
        if raw:
            nodes, edges = raw_node_width(ndim, channels), raw_edge_width(ndim)
        else:
            nodes, edges = node_width(ndim, channels), edge_width(ndim, channels)
        self.node_norm, self.edge_norm = FeatureNorm(nodes), FeatureNorm(edges)
        self.node_encoder = nn.Sequential(nn.Linear(nodes, width), nn.LayerNorm(width), nn.ReLU())
        self.edge_encoder = nn.Linear(edges, width)
        self.edge_mean = NeighborAggregation("mean")
        if raw:
            self.global_start = nn.Parameter(torch.zeros(width))
        else:
            whole = global_width(ndim, channels)
            self.global_norm, self.global_encoder = FeatureNorm(whole), nn.Linear(whole, width)
        self.convolutions = nn.ModuleList(MeanConvolution(width) for _ in range(blocks))
        self.global_updates = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.head = nn.Linear(2 * width, classes)

    def forward(self, gaussians: GaussianSet) -> Tensor:
        """Return logits (B, K)."""
        check_enough(gaussians, self.neighbors + 1)
        if self.shape_input and not self.raw:
            gaussians = gaussians.centered()
        near = nearest_neighbors(gaussians.means, gaussians.weights, self.neighbors)
        if self.raw:
            nodes, edges = raw_node_features(gaussians), raw_edge_features(gaussians, near)
            whole = self.global_start.expand(len(gaussians), -1)
        else:
            parts = spectrum(gaussians.covariances)
            nodes = node_features(gaussians, parts)
            edges = edge_features(gaussians, parts, near)
            whole = self.global_encoder(self.global_norm(global_features(gaussians)))
        graphs = graph_batch(nodes, edges, near)
        of, count = graphs.batch, graphs.num_graphs
        h = mask_absent(self.node_encoder(self.node_norm(graphs.x)), gaussians)
        messages = self.edge_encoder(self.edge_norm(graphs.edge_attr))
        around = self.edge_mean(messages, graphs.edge_index[1], dim_size=len(h))
        for convolution, update in zip(self.convolutions, self.global_updates, strict=True):
            h = h + convolution(h, graphs.edge_index, around, whole[of])
            h = mask_absent(h, gaussians)
            whole = whole + torch.relu(update(global_mean_pool(h, of, count)))
        return self.head(torch.cat([global_mean_pool(h, of, count), whole], -1))


class EdgeNetwork(nn.Module):
    """Edge convolutions on three levels of merged Gaussians, and an attention read-out.

    The nodes of the first level also have the rendered field around them as features
    (:mod:`.patches`). Between levels four neighbors are merged to one Gaussian of the same
    moments, and their features are pooled by maximum and mean.

    Parameters
    ----------
    ndim, channels, classes : int
    neighbors : int
        Incoming edges per node.
    shape_input : bool
        The Gaussians are of a binary shape: they are centered first.
    widths : sequence of int
        Features per node of the three levels.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        classes: int,
        neighbors: int = 8,
        shape_input: bool = False,
        widths: tuple[int, ...] = (35, 46, 58),
    ) -> None:
        super().__init__()
        self.neighbors, self.shape_input = neighbors, shape_input
        nodes, edges = node_width(ndim, channels), edge_width(ndim, channels)
        whole = global_width(ndim, channels)
        patch = patch_width(ndim, channels, shape_input)
        read = (nodes + patch, *(nodes for _ in widths[1:]))
        self.node_norm = nn.ModuleList(FeatureNorm(n) for n in read)
        self.edge_norm = nn.ModuleList(FeatureNorm(edges) for _ in widths)
        self.global_norm = FeatureNorm(whole)
        below = (0, *(2 * w for w in widths[:-1]))
        self.node_encoders = nn.ModuleList(
            nn.Sequential(nn.Linear(n + b, w), nn.LayerNorm(w), nn.ReLU())
            for n, b, w in zip(read, below, widths, strict=True)
        )
        self.convolutions = nn.ModuleList(EdgeConvolution(w, edges) for w in widths)
        self.pool = NeighborAggregation("max", "mean")
        last = widths[-1]
        self.attention = AttentionalAggregation(nn.Linear(last, 1))
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
        whole = self.global_norm(global_features(gaussians))
        return self.head(torch.cat([self.encode(gaussians), whole], -1))

    def encode(self, gaussians: GaussianSet) -> Tensor:
        """Return (B, 3 * widths[2] + widths[0] + widths[1]): an embedding of each graph.

        The mean of each level, and of the last also the maximum and the attention-weighted mean.
        """
        check_enough(gaussians, 16)
        level = gaussians
        h: Any = None
        of: Any = None
        means = []
        for k, convolution in enumerate(self.convolutions):
            parts = spectrum(level.covariances)
            near = nearest_neighbors(level.means, level.weights, self.neighbors)
            nodes = node_features(level, parts)
            if k == 0:
                around = patches(rendered_field(level), level, patch_step(level))
                nodes = torch.cat([nodes, around], -1)
            graphs = graph_batch(nodes, edge_features(level, parts, near), near)
            x = self.node_norm[k](graphs.x)
            h = self.node_encoders[k](x if h is None else torch.cat([x, h], -1))
            edges = self.edge_norm[k](graphs.edge_attr)
            h = mask_absent(convolution(mask_absent(h, level), graphs.edge_index, edges), level)
            of = graphs.batch
            means.append(global_mean_pool(h, of, len(level)))
            if k + 1 < len(self.convolutions):
                level = level.merged()
                h = self.pool(h, dim_size=len(level) * level.count)
        maximum = global_max_pool(h, of, len(gaussians))
        attended = self.attention(h, of, dim_size=len(gaussians))
        return torch.cat([*means, maximum, attended], -1)
