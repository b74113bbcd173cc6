"""What paths over Gaussians and voxels cost, and what a solve on the Gaussians found.

The cost of a path is the integral of a base cost, of the squared image gradient (in part) and of
a data cost per class, as in geodesic image segmentation (Criminisi, Sharp and Blake 2008,
*GeoS: Geodesic image segmentation*, ECCV; Bai and Sapiro 2009, IJCV 82).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.solver.extent import ExtentLimits
from napari_medgs.segmentation.solver.region_growing import GrownLabels
from napari_medgs.segmentation.terms.appearance import Appearance
from napari_medgs.segmentation.terms.stochastic_watershed import (
    WatershedVotes,
)

SOFTENING = 0.1  # added to path costs before their logarithm: a voxel or two without gradient
UNREACHABLE = np.float32(1e6)
MIN_PROBABILITY = 1e-3


class LabelPrior(Protocol):
    """What is known of the classes at a place, whatever the image shows there."""

    def add_cost(self, points: NDArray[Any], cost: Floats, weight: float) -> None:
        """Add weighted negative log-probabilities to the costs (P, K) of points (P, 3)."""


@dataclass(frozen=True)
class PathCosts:
    """What paths of each class cost at some points.

    Attributes
    ----------
    unary : (P, K) ndarray of float32
        Data cost per finest voxel of length.
    gradient_weight : (P, K) ndarray of float32
        Factor of the image gradient's cost.
    """

    unary: Floats
    gradient_weight: Floats


@dataclass
class GraphSolution:
    """Path costs after a solve, with the terms that they were computed from.

    Attributes
    ----------
    distance : (K, N) ndarray of float32
        Path cost from each class's seeds; ``UNREACHABLE`` where there is no path.
    appearance : Appearance
    prior : LabelPrior or None
    votes : WatershedVotes
    extent : ExtentLimits
        Path costs above which everything belongs to the background; ``distance`` respects them.
    shape : float
        Weight of the prior.
    """

    distance: Floats
    appearance: Appearance
    prior: LabelPrior | None
    votes: WatershedVotes
    extent: ExtentLimits
    shape: float

    def costs(
        self,
        features: Floats,
        points: NDArray[Any],
        weight: float,
        grown: GrownLabels | None = None,
    ) -> PathCosts:
        """Return the path costs at points; see :func:`edge_costs`."""
        return edge_costs(
            self.appearance.log_probability(features), self.appearance.gradient_discount, points,
            self.prior, self.votes, weight, self.shape, grown,
        )  # fmt: skip


def path_scores(distance: Floats, count: int) -> Floats:
    """Return minus the logarithm of the first ``count`` nodes' path costs.

    Parameters
    ----------
    distance : (K, N) ndarray of float32
    count : int

    Returns
    -------
    (count, K) ndarray of float32
    """
    return np.ascontiguousarray(-np.log(distance[:, :count].T + np.float32(SOFTENING)))


def edge_costs(
    log_probability: Floats,
    gradient_discount: float,
    points: NDArray[Any],
    prior: LabelPrior | None,
    votes: WatershedVotes,
    weight: float,
    shape: float,
    grown: GrownLabels | None = None,
) -> PathCosts:
    """Return the costs that edges take the mean of at their ends.

    The data cost is the negative logarithm of the product of all terms' probabilities,
    normalized over the classes and bounded. The image gradient counts less where a point has
    the appearance of the class: an edge between two tissues of one class is no boundary of it.

    Parameters
    ----------
    log_probability : (P, K) ndarray of float32
        Of the classes by appearance.
    gradient_discount : float
        Part of the image gradient's cost that a class is spared where it is certain.
    points : (P, 3) ndarray
        In slice-first voxels.
    prior : LabelPrior or None
    votes : WatershedVotes
    weight : float
        Of the data cost.
    shape : float
        Weight of the prior within it.
    grown : GrownLabels, optional
        Labels of the first points by region growing.

    Returns
    -------
    PathCosts
    """
    most = np.float32(-np.log(MIN_PROBABILITY))
    total = -log_probability
    discount = gradient_discount * min(weight, 1.0)
    gradient_weight = np.float32(1) - np.float32(discount) * np.exp(-total)
    np.minimum(total, most, out=total)
    if prior is not None and shape > 0:
        prior.add_cost(points, total, shape)
    votes.add_cost(points, total, 1.0 if grown is None else grown.watershed_fraction)
    if grown is not None:
        grown.add_cost(total)
    total -= total.min(axis=1, keepdims=True)
    total += np.log(np.exp(-total).sum(axis=1, keepdims=True))
    np.minimum(total, most, out=total)
    total *= np.float32(weight)
    return PathCosts(total, gradient_weight)
