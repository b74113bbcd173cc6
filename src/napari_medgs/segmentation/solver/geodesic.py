"""The solver on the graph of Gaussians: who is nearest, by paths that pay for boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.data.field import GaussianField
from napari_medgs.rendering.engine import ScoreRenderer
from napari_medgs.segmentation.prompts.markers import Evidence
from napari_medgs.segmentation.solver.extent import Ends
from napari_medgs.segmentation.solver.graph import FLOOR, Graph, build_graph
from napari_medgs.segmentation.solver.shortest_paths import graph_distances
from napari_medgs.segmentation.terms.annotated_slices import LabelledSlices
from napari_medgs.segmentation.terms.appearance import Appearance
from napari_medgs.segmentation.terms.image_features import ImageFeatures
from napari_medgs.segmentation.terms.shape_prior import ShapePrior
from napari_medgs.segmentation.terms.stochastic_watershed import Flood, Floods
from napari_medgs.segmentation.terms.watershed import Basins

SEED_MASS = 0.05
SEED_PURITY = 0.6
SOFTENING = 0.1  # path cost of two quiet voxels: below it a distance means nothing
DISTANT = np.float32(1e6)
LEAST = 1e-3
FINE = 0.5  # finest voxels: smoothing of the contrasts for the finer of two sets of basins
VOID_SHARE = 0.15  # nodes of empty space, over Gaussians


@dataclass(frozen=True)
class Dues:
    """What each class pays on its ways.

    Attributes
    ----------
    toll : (P, K) ndarray of float32
        Per finest voxel of way.
    paid : (P, K) ndarray of float32
        Share of the image's slopes.
    """

    toll: Floats
    paid: Floats


@dataclass
class GraphSolution:
    """What the graph knows after a solve.

    Attributes
    ----------
    distance : (K, N) ndarray of float32
        Path cost from each class's seeds; ``DISTANT`` where there is no way.
    appearance : Appearance
    prior : ShapePrior or None
    flood : Flood
        The second opinion.
    ends : Ends
        Path costs at which everything belongs to the background; ``distance`` heeds them.
    shape : float
        Weight of the prior.
    """

    distance: Floats
    appearance: Appearance
    prior: ShapePrior | None
    flood: Flood
    ends: Ends
    shape: float

    def dues(self, features: Floats, points: NDArray[Any], weight: float) -> Dues:
        """Return what each class pays at points."""
        return dues(self.appearance, features, points, self.prior, self.flood, weight, self.shape)


class GraphSolver:
    """All that does not change from stroke to stroke, for one field and image.

    Everything is in slice-first voxels.

    Parameters
    ----------
    field : GaussianField
    features : ImageFeatures
    renderer : ScoreRenderer
        Of the same field. Where it renders nothing a coarse lattice of nodes stands in for
        Gaussians.
    seed : int
        Of the floods.
    """

    def __init__(
        self,
        field: GaussianField,
        features: ImageFeatures,
        renderer: ScoreRenderer,
        seed: int = 0,
    ) -> None:
        self.image = features
        self.gaussians = len(field)
        self._renderer = renderer
        empty = renderer.empty_mask()
        centers = field.centers[:, [2, 1, 0]].astype(np.float64)
        self._void = void_lattice(empty, features.units, int(VOID_SHARE * len(field)) + 8)
        self.points = np.concatenate([centers, self._void])
        self.graph: Graph = build_graph(self.points, features.units, features.metric)
        self.features = features.at(self.points)
        fine = Basins(features.contrasts(FINE), features.units)
        self._basins = fine, Basins(features.metric, features.units)
        self._floods = Floods(self._basins, seed)
        self._void_tree: Any = None
        self._tree: Any = None
        self._empty = empty

    def floods(self, seed: int) -> Floods:
        """Return the floods of a seed; they are kept until another one is asked for."""
        if self._floods.seed != seed:
            self._floods = Floods(self._basins, seed)
        return self._floods

    def seeds(self, voxels: NDArray[Any], classes: NDArray[Any], count: int) -> NDArray[np.int32]:
        """Return each node's class by the marks on it, -1 where they do not decide."""
        mass = np.zeros((len(self.points), count), np.float32)
        if len(voxels):
            inside = ~self._empty[tuple(voxels.T)]
            mass[: self.gaussians] = self._renderer.backproject(
                voxels[inside], classes[inside], count
            )
            if len(self._void) and not inside.all():
                near = self._void_nodes(voxels[~inside])
                np.add.at(mass, (near, classes[~inside]), 1.0)
        total = mass.sum(axis=1)
        best = mass.argmax(axis=1).astype(np.int32)
        clear = (total > SEED_MASS) & (mass.max(axis=1) > SEED_PURITY * total)
        best[~clear] = -1
        return best

    def _void_nodes(self, voxels: NDArray[Any]) -> NDArray[np.int64]:
        """Return the nodes of empty space nearest to voxels."""
        from scipy.spatial import cKDTree

        if self._void_tree is None:
            self._void_tree = cKDTree(self._void * self.image.units)
        near: NDArray[np.int64] = self._void_tree.query(voxels * self.image.units)[1]
        return near + self.gaussians

    def nearest_nodes(self, voxels: NDArray[Any]) -> NDArray[np.int64]:
        """Return the node nearest to each voxel."""
        from scipy.spatial import cKDTree

        if self._tree is None:
            self._tree = cKDTree(self.points * self.image.units)
        near: NDArray[np.int64] = self._tree.query(voxels * self.image.units)[1]
        return near

    def propagate(
        self,
        seeds: NDArray[np.int32],
        due: Dues,
        banned: NDArray[np.bool_] | None = None,
        bound: Floats | None = None,
    ) -> Floats:
        """Return the path costs (K, N) from every class's seeds.

        ``banned`` (K, N) marks nodes that a class may not have. Ways that cost more than
        ``bound`` (N,) at a node are not followed.
        """
        classes = due.toll.shape[1]
        distance = np.full((classes, len(self.points)), np.inf, np.float32)
        tolls, paid = np.ascontiguousarray(due.toll.T), np.ascontiguousarray(due.paid.T)

        def task(k: int) -> None:
            mine = distance[k]
            starts = seeds == k
            if banned is not None:
                tolls[k][banned[k]] = DISTANT
                starts &= ~banned[k]
            mine[starts] = 0
            self._relax(tolls[k], paid[k], np.flatnonzero(starts), mine, bound)
            # Ways not followed are no shorter than this.
            np.minimum(mine, DISTANT if bound is None else bound, out=mine)
            if banned is not None:
                mine[banned[k]] = DISTANT

        run_chunks(task, classes)
        return distance

    def _relax(
        self,
        toll: Floats,
        paid: Floats,
        starts: NDArray[Any],
        distance: Floats,
        bound: Floats | None = None,
    ) -> None:
        graph = self.graph
        if bound is None:
            bound = np.full(len(toll), DISTANT, np.float32)
        graph_distances(
            graph.offsets,
            graph.neighbours,
            graph.slopes,
            graph.lengths,
            FLOOR,
            toll,
            paid,
            starts.astype(np.int32),
            bound,
            distance,
        )

    def add_seeds(self, distance: Floats, seeds: NDArray[np.int32], due: Dues) -> Floats:
        """Return path costs (K, N) after more seeds, from those before, without new dues."""
        distance = distance.copy()
        tolls, paid = np.ascontiguousarray(due.toll.T), np.ascontiguousarray(due.paid.T)

        def task(k: int) -> None:
            starts = np.flatnonzero(seeds == k)
            if len(starts):
                distance[k, starts] = 0
                self._relax(tolls[k], paid[k], starts, distance[k])
            distance[k, (seeds >= 0) & (seeds != k)] = DISTANT

        run_chunks(task, len(tolls))
        return distance

    def labels_in_plane(self, scores: Floats, axis: int, index: int) -> NDArray[np.uint8]:
        """Return the winning class in one plane of scores (N, K) rendered from the Gaussians."""
        blended, empty = self._renderer.render_plane(scores, axis, index)
        plane = blended.argmax(axis=0).astype(np.uint8)
        plane[empty] = 0
        return plane

    def annotated_slices(self, distance: Floats, evidence: Evidence) -> LabelledSlices:
        """Return the labels of the annotated slices after a solve."""
        axis, places = evidence.annotated_planes()
        scores = scores_of(distance, self.gaussians)
        shape = [n for a, n in enumerate(self.image.metric.shape[1:]) if a != axis]
        planes = np.empty((len(places), *shape), np.uint8)
        rest = [a for a in range(3) if a != axis]
        for s, z in enumerate(places):
            planes[s] = self.labels_in_plane(scores, axis, int(z))
            on = evidence.voxels[:, axis] == z
            rows, columns = evidence.voxels[on][:, rest].T
            planes[s, rows, columns] = evidence.classes[on]
        return LabelledSlices(axis, places, planes)


def scores_of(distance: Floats, count: int) -> Floats:
    """Return minus the logarithm of the first ``count`` nodes' distances (K, N): (count, K)."""
    return np.ascontiguousarray(-np.log(distance[:, :count].T + np.float32(SOFTENING)))


def dues(
    appearance: Appearance,
    features: Floats,
    points: NDArray[Any],
    prior: ShapePrior | None,
    flood: Flood,
    weight: float,
    shape: float,
) -> Dues:
    """Return what each class pays at points.

    Tolls are the negative logarithm of the product of all opinions, normalised and bounded. Slopes
    are paid in part where a point looks like the class: an edge between two of its own tissues is
    no boundary of it.
    """
    most = np.float32(-np.log(LEAST))
    total = -appearance.log_probability(features)
    discount = appearance.discount * min(weight, 1.0)
    paid = np.float32(1) - np.float32(discount) * np.exp(-total)
    np.minimum(total, most, out=total)
    if prior is not None and shape > 0:
        prior.add_toll(points, total, shape)
    flood.add_toll(points, total)
    total -= total.min(axis=1, keepdims=True)
    total += np.log(np.exp(-total).sum(axis=1, keepdims=True))
    np.minimum(total, most, out=total)
    total *= np.float32(weight)
    return Dues(total, paid)


def void_lattice(
    empty: NDArray[np.bool_], units: NDArray[np.float64], most: int
) -> NDArray[np.float64]:
    """Return at most about ``most`` evenly spread points (z, y, x) of empty space."""
    count = int(np.count_nonzero(empty))
    if count == 0:
        return np.zeros((0, 3))
    step = (count * float(np.prod(units)) / most) ** (1 / 3)
    strides = np.maximum(1, np.round(np.maximum(step, 3.0) / units)).astype(int)
    part = empty[tuple(slice(s // 2, None, s) for s in strides)]
    return np.argwhere(part) * strides + strides // 2.0
