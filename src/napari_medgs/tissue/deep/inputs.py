"""What a tissue network sees of an image: a graph of Gaussians, or slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_medgs.tissue.bias import LegendreBasis
from napari_medgs.tissue.deep.card import TissueCard
from napari_medgs.tissue.deep.losses import Samples
from napari_medgs.tissue.mixture import Bags, fit_mixture
from napari_medgs.tissue.prepare import Layout, Prepared
from napari_medgs.tissue.statistics import FLOOR, make_bags, measure_bags

SLICES = 8  # in one step of training
VOXELS = 20_000  # on which k-means is run for slices


@dataclass(frozen=True)
class GraphInput:
    """The Gaussians of one image.

    Attributes
    ----------
    features : (N, F) tensor
    edges : (2, E) tensor of int64
        From neighbors to nodes.
    bags : Bags
    used : ndarray of bool
        Which Gaussians of the field the nodes are.
    samples : Samples
    """

    features: Tensor
    edges: Tensor
    bags: Bags
    used: NDArray[np.bool_]
    samples: Samples


def _float(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def graph_input(ready: Prepared, neighbors: int) -> GraphInput:
    """Make the graph of an image: every Gaussian and its nearest ones.

    Parameters
    ----------
    ready : Prepared
    neighbors : int

    Returns
    -------
    GraphInput
        Intensities have mean 0 and deviation 1 over the region.
    """
    from scipy.spatial import cKDTree

    moments = measure_bags(ready.shares, ready.image, ready.region)
    basis = LegendreBasis.over(*ready.box, 0)
    bags, used = make_bags(ready.field, moments, basis, np.full(len(ready.image), FLOOR))
    center = ready.image[:, ready.region].mean(axis=1, dtype=np.float64)
    means = bags.mean - center
    deviations = np.sqrt(np.einsum("icc->ic", bags.within))
    features = np.column_stack([means, deviations, np.log(bags.mass) / 3])
    places = ready.field.voxel_centers()[used] * np.array(ready.volume.spacing)
    count = min(neighbors + 1, len(places))
    nearest = cKDTree(places).query(places, k=count)[1].reshape(len(places), count)[:, 1:]
    target = np.repeat(np.arange(len(places)), nearest.shape[1])
    edges = torch.from_numpy(np.stack([nearest.reshape(-1), target]).astype(np.int64))
    samples = Samples(_float(bags.mass), _float(means), _float(bags.within))
    return GraphInput(_float(features), edges, bags, used, samples)


def centered_image(ready: Layout) -> Tensor:
    """Return the slices (Z, C, Y, X) with mean 0 over the region, and 0 out of it."""
    center = ready.image[:, ready.region].mean(axis=1, dtype=np.float64)
    image = (ready.image - center[:, None, None, None].astype(np.float32)) * ready.region
    return _float(np.swapaxes(image, 0, 1))


class GraphCase:
    """One image as a graph, for training.

    Parameters
    ----------
    ready : Prepared
    card : TissueCard
    seed : int
        Of all random choices.
    """

    def __init__(self, ready: Prepared, card: TissueCard, seed: int) -> None:
        self.input = graph_input(ready, card.neighbors)
        _, gamma, _ = fit_mixture(self.input.bags, card.classes, seed, iterations=1)
        self.start = torch.from_numpy(gamma.argmax(axis=1))

    def logits(
        self, network: Any, generator: np.random.Generator
    ) -> tuple[Tensor, Samples, Tensor]:
        """Return logits, samples and first labels of all Gaussians."""
        del generator
        return network(self.input.features, self.input.edges), self.input.samples, self.start


class SliceCase:
    """One image as slices, for training.

    Parameters
    ----------
    ready : Layout
    card : TissueCard
    seed : int
        Of all random choices.
    """

    def __init__(self, ready: Layout, card: TissueCard, seed: int) -> None:
        rows = np.flatnonzero(ready.region.any(axis=(1, 2)))
        self.image = centered_image(ready)[rows]
        self.region = torch.from_numpy(ready.region[rows])
        values = np.moveaxis(self.image.numpy(), 1, -1)[ready.region[rows]].astype(np.float64)
        step = max(1, len(values) // VOXELS)
        channels = values.shape[1]
        chosen = values[::step]
        bags = Bags(
            np.ones(len(chosen)),
            chosen,
            np.tile(FLOOR * np.eye(channels), (len(chosen), 1, 1)),
            np.zeros((len(chosen), 0)),
        )
        self.means = _float(fit_mixture(bags, card.classes, seed, iterations=1)[0].means)

    def logits(
        self, network: Any, generator: np.random.Generator
    ) -> tuple[Tensor, Samples, Tensor]:
        """Return logits, samples and first labels of the voxels of some slices."""
        chosen = generator.permutation(len(self.image))[:SLICES]
        slices, region = self.image[chosen], self.region[chosen]
        logits = network(slices).movedim(1, -1)[region]
        values = slices.movedim(1, -1)[region]
        nearest = torch.cdist(values, self.means).argmin(dim=1)
        return logits, Samples(torch.ones(len(values)), values), nearest
