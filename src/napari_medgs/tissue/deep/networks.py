"""The two networks: graph convolutions on Gaussians, and a U-Net on slices."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from napari_medgs.tissue.deep.card import TissueCard


class GraphNetwork(nn.Module):
    """Two rounds of neighbor means (GraphSAGE) and a head.

    Parameters
    ----------
    card : TissueCard
    """

    def __init__(self, card: TissueCard) -> None:
        super().__init__()
        width = card.width
        self.embed = nn.Linear(feature_count(card.contrasts), width)
        self.convolutions = nn.ModuleList(SAGEConv(width, width) for _ in range(2))
        self.head = nn.Sequential(
            nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, card.classes)
        )

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        """Return logits (N, K) of nodes with features (N, F) and edges (2, E)."""
        first = torch.relu(self.embed(features))
        nodes = first
        for convolution in self.convolutions:
            nodes = nodes + torch.relu(convolution(nodes, edges))
        logits: Tensor = self.head(torch.cat([first, nodes], dim=1))
        return logits


def feature_count(contrasts: int) -> int:
    """Return the number of features of a node: mean and deviation per contrast, and mass."""
    return 2 * contrasts + 1


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (inputs, outputs):
        layers += [
            nn.Conv2d(before, outputs, 3, padding=1, padding_mode="replicate"),
            nn.InstanceNorm2d(outputs, affine=True),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class SliceNetwork(nn.Module):
    """A U-Net of three levels on slices.

    Parameters
    ----------
    card : TissueCard
    """

    def __init__(self, card: TissueCard) -> None:
        super().__init__()
        widths = [card.width, 2 * card.width, 4 * card.width]
        self.down = nn.ModuleList(_block(a, b) for a, b in pairwise([card.contrasts, *widths]))
        self.up = nn.ModuleList(_block(wide + narrow, narrow) for narrow, wide in pairwise(widths))
        self.head = nn.Conv2d(widths[0], card.classes, 1)

    def forward(self, slices: Tensor) -> Tensor:
        """Return logits (S, K, Y, X) of slices (S, C, Y, X)."""
        levels = []
        x = slices
        for number, block in enumerate(self.down):
            if number:
                x = nn.functional.avg_pool2d(x, 2, ceil_mode=True)
            x = block(x)
            levels.append(x)
        for level, block in zip(levels[-2::-1], list(self.up)[::-1], strict=True):
            x = nn.functional.interpolate(x, level.shape[2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([x, level], dim=1))
        logits: Tensor = self.head(x)
        return logits


def build(card: TissueCard) -> GraphNetwork | SliceNetwork:
    """Return the network that a card describes, with new weights."""
    return GraphNetwork(card) if card.architecture == "graph" else SliceNetwork(card)
