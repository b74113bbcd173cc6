"""Geodesic distances over the graph of Gaussians: every node gets the class of the nearest seed.

What paths cost is in :mod:`~napari_medgs.segmentation.solver.path_costs`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.arrays import sorted_unique
from napari_medgs._util.threads import run_chunks
from napari_medgs.data.field import GaussianField
from napari_medgs.rendering.engine import ScoreRenderer
from napari_medgs.segmentation.advanced import SolverParams
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.solver.empty_slices import empty_slices
from napari_medgs.segmentation.solver.empty_space import EmptySpaceNodes, FilledRenderer
from napari_medgs.segmentation.solver.graph import Graph, build_graph, with_gradients
from napari_medgs.segmentation.solver.path_costs import (
    UNREACHABLE,
    PathCosts,
    path_scores,
)
from napari_medgs.segmentation.solver.region_growing import shown_classes
from napari_medgs.segmentation.solver.seeds import choose_seeds
from napari_medgs.segmentation.solver.shortest_paths import graph_distances
from napari_medgs.segmentation.terms.annotated_slices import AnnotatedSlices
from napari_medgs.segmentation.terms.image_features import ImageFeatures
from napari_medgs.segmentation.terms.scattered import Nodes
from napari_medgs.segmentation.terms.slice_motion import SliceMotion
from napari_medgs.segmentation.terms.stochastic_watershed import (
    StochasticWatershed,
)
from napari_medgs.segmentation.terms.watershed import CatchmentBasins

LEAST_COST = 0.1  # of paths that others are compared to


class GraphSolver:
    """All that does not change from update to update, for one field and image.

    Everything is in slice-first voxels.

    Parameters
    ----------
    field : GaussianField
    features : ImageFeatures
    renderer : ScoreRenderer
        Of the same field. Where it renders nothing, a coarse lattice of nodes stands in for
        Gaussians.
    seed : int
        Of the stochastic watershed.
    params : SolverParams, optional
    """

    def __init__(
        self,
        field: GaussianField,
        features: ImageFeatures,
        renderer: ScoreRenderer,
        seed: int = 0,
        params: SolverParams | None = None,
    ) -> None:
        self.image = features
        self.gaussians = len(field)
        self._renderer = renderer
        params = params or SolverParams()
        self._params, graph = params, params.graph
        empty = renderer.empty_mask()
        centers = field.centers[:, [2, 1, 0]].astype(np.float64)
        self._empty_nodes = EmptySpaceNodes(
            empty, features.relative_spacing, int(graph.empty_node_fraction * len(field)) + 8
        )
        self._filled: FilledRenderer | None = None
        self.points = np.concatenate([centers, self._empty_nodes.points])
        self.graph: Graph = build_graph(
            self.points, features.path_spacing, features.edges, graph.neighbors
        )
        self.base_cost = np.float32(graph.base_cost)
        self.features = features.at(self.points)
        self._basins: tuple[CatchmentBasins, ...] = self._hierarchies()
        self._watershed: StochasticWatershed | None = None
        self.watershed(seed)
        self._tree: Any = None
        self._empty = empty
        own = params.motion
        self.motion = SliceMotion(features.sharp, own) if own.voxels else None

    @property
    def node_distance(self) -> NDArray[np.float64]:
        """Mean distance of nodes along every axis, in voxels."""
        spacing = self.image.relative_spacing
        space = float(np.prod(self.image.guide.shape[1:])) * float(np.prod(spacing))
        distance: NDArray[np.float64] = (space / len(self.points)) ** (1 / 3) / spacing
        return distance

    def weigh(self, features: ImageFeatures) -> None:
        """Take gradients from the same features with other strengths or distances of slices.

        Parameters
        ----------
        features : ImageFeatures
        """
        spacing = features.path_spacing
        same = (spacing == self.image.path_spacing).all()
        self.image = features
        if same:
            self.graph = with_gradients(self.graph, self.points, spacing, features.edges)
        else:
            own = self._params.graph
            self.graph = build_graph(self.points, spacing, features.edges, own.neighbors)
        self._basins, self._watershed = (), None  # their memory is needed
        self._basins = self._hierarchies()

    def _hierarchies(self) -> tuple[CatchmentBasins, CatchmentBasins]:
        """Return the basins of a less smoothed guide image, and of the guide image."""
        image = self.image
        fine = self._params.graph.fine_sigma, self._params.graph.clean_fine_sigma
        images = image.guide_at_scale(*fine), image.edges
        found: dict[int, CatchmentBasins] = {}

        def find(k: int) -> None:
            found[k] = CatchmentBasins(images[k], image.path_spacing)

        run_chunks(find, 2)
        return found[0], found[1]

    def watershed(self, seed: int) -> StochasticWatershed:
        """Return the stochastic watershed of a seed; it is kept until another one is asked for."""
        if self._watershed is None or self._watershed.seed != seed:
            self._watershed = StochasticWatershed(self._basins, seed, self._params.watershed)
        return self._watershed

    def seeds(self, voxels: NDArray[Any], classes: NDArray[Any], count: int) -> NDArray[np.int32]:
        """Return each node's class by the marked voxels that it shows, -1 where it is no seed.

        Parameters
        ----------
        voxels : (P, 3) ndarray of int
        classes : (P,) ndarray of int
        count : int
            Number of classes.

        Returns
        -------
        (N,) ndarray of int32
        """
        mass = np.zeros((len(self.points), count), np.float32)
        share = np.ones(len(self.points), np.float32)
        leader = np.full(len(voxels), -1, np.int32)
        if len(voxels):
            inside = ~self._empty[tuple(voxels.T)]
            shown = self._renderer.backproject(voxels[inside], classes[inside], count)
            mass[: self.gaussians], share[: self.gaussians] = shown.mass, shown.share
            leader[inside] = shown.leader
            if len(self._empty_nodes) and not inside.all():
                near = self._empty_nodes.nearest(voxels[~inside]) + self.gaussians
                np.add.at(mass, (near, classes[~inside]), 1.0)
                leader[~inside] = near
        return choose_seeds(voxels, classes, mass, share, leader, self._params.graph)

    def nodes(self, seeds: NDArray[np.int32]) -> Nodes:
        """Return the nodes of the graph with their seeds; see :meth:`seeds`."""
        graph = self.graph
        return Nodes(self.points, seeds, graph.offsets, graph.neighbors)

    def nearest_nodes(self, voxels: NDArray[Any]) -> NDArray[np.int64]:
        """Return the node nearest to each voxel."""
        from scipy.spatial import cKDTree

        if self._tree is None:
            self._tree = cKDTree(self.points * self.image.relative_spacing)
        near: NDArray[np.int64] = self._tree.query(voxels * self.image.relative_spacing)[1]
        return near

    def lead(self, distance: Floats, k: int, voxels: NDArray[Any]) -> float:
        """Return how many times as much as a class's own paths those of any other class cost.

        Parameters
        ----------
        distance : (K, N) ndarray of float32
            Path costs of the nodes.
        k : int
            The class.
        voxels : (P, 3) ndarray of int
            The median over the nodes nearest to these counts.

        Returns
        -------
        float
        """
        nodes = sorted_unique(self.nearest_nodes(voxels))
        others = np.delete(distance, k, axis=0)[:, nodes].min(axis=0)
        return float(np.median(others / np.maximum(distance[k, nodes], LEAST_COST)))

    def propagate(
        self,
        seeds: NDArray[np.int32],
        costs: PathCosts,
        forbidden: NDArray[np.bool_] | None = None,
        bound: Floats | None = None,
    ) -> Floats:
        """Return the cheapest paths' costs from every class's seeds.

        Parameters
        ----------
        seeds : (N,) ndarray of int32
            Class of every node, -1 where it is no seed.
        costs : PathCosts
            At the nodes.
        forbidden : (K, N) ndarray of bool, optional
            Nodes that a class cannot have.
        bound : (N,) ndarray of float32, optional
            Paths that cost more than this at a node are not followed.

        Returns
        -------
        (K, N) ndarray of float32
        """
        classes = costs.unary.shape[1]
        distance = np.full((classes, len(self.points)), np.inf, np.float32)
        unary = np.ascontiguousarray(costs.unary.T)
        weight = np.ascontiguousarray(costs.gradient_weight.T)

        def task(k: int) -> None:
            mine = distance[k]
            starts = seeds == k
            if forbidden is not None:
                unary[k][forbidden[k]] = UNREACHABLE
                starts &= ~forbidden[k]
            mine[starts] = 0
            self.relax(unary[k], weight[k], np.flatnonzero(starts), mine, bound)
            # Paths that were not followed cost no less than this.
            np.minimum(mine, UNREACHABLE if bound is None else bound, out=mine)
            if forbidden is not None:
                mine[forbidden[k]] = UNREACHABLE

        run_chunks(task, classes)
        return distance

    def relax(
        self,
        unary: Floats,
        gradient_weight: Floats,
        starts: NDArray[Any],
        distance: Floats,
        bound: Floats | None = None,
    ) -> None:
        """Lower one class's path costs to the cheapest from some nodes, in place.

        Parameters
        ----------
        unary, gradient_weight : (N,) ndarray of float32
        starts : (S,) ndarray of int
            Nodes at which paths begin, at their costs.
        distance : (N,) ndarray of float32
        bound : (N,) ndarray of float32, optional
            Paths that cost more than this at a node are not followed.
        """
        graph = self.graph
        if bound is None:
            bound = np.full(len(unary), UNREACHABLE, np.float32)
        graph_distances(
            graph.offsets,
            graph.neighbors,
            graph.gradient_costs,
            graph.lengths,
            self.base_cost,
            unary,
            gradient_weight,
            starts.astype(np.int32),
            bound,
            distance,
        )

    def add_seeds(self, distance: Floats, seeds: NDArray[np.int32], costs: PathCosts) -> Floats:
        """Return path costs (K, N) after more seeds, from those before.

        Paths of the other classes lead through the new seeds as in a full solve. Where one of
        these was a seed of theirs before, the cost is that from its neighbors.
        """
        distance = distance.copy()
        unary = np.ascontiguousarray(costs.unary.T)
        weight = np.ascontiguousarray(costs.gradient_weight.T)

        def task(k: int) -> None:
            starts = np.flatnonzero(seeds == k)
            if len(starts):
                distance[k, starts] = 0
                self.relax(unary[k], weight[k], starts, distance[k])
            lost = np.flatnonzero((seeds >= 0) & (seeds != k) & (distance[k] == 0))
            if len(lost):
                distance[k, lost] = UNREACHABLE
                offsets, neighbors = self.graph.offsets, self.graph.neighbors
                around = [neighbors[offsets[n] : offsets[n + 1]] for n in lost]
                self.relax(unary[k], weight[k], sorted_unique(np.concatenate(around)), distance[k])

        run_chunks(task, len(unary))
        return distance

    def scores(self, distance: Floats) -> Floats:
        """Return the scores that are rendered on voxels.

        The nodes of empty space count where a class reaches one of them before background does;
        elsewhere all of it is background.

        Parameters
        ----------
        distance : (K, N) ndarray of float32
            Path costs of the nodes.

        Returns
        -------
        (M, K) ndarray of float32
            Of the Gaussians alone, or of all nodes.
        """
        own = distance[:, self.gaussians :]
        reached = (own[1:] < own[0]).any()
        return path_scores(distance, len(self.points) if reached else self.gaussians)

    def renderer(self, scores: Floats) -> ScoreRenderer:
        """Return what renders scores: of the Gaussians alone, or of all nodes."""
        if len(scores) == self.gaussians:
            return self._renderer
        if self._filled is None:
            self._filled = FilledRenderer(self._renderer, self.gaussians, self._empty_nodes)
        return self._filled

    def labels_in_plane(self, scores: Floats, axis: int, index: int) -> NDArray[np.uint8]:
        """Return the class of the highest rendered score in a plane.

        Parameters
        ----------
        scores : (M, K) ndarray of float32
            See :meth:`scores`.
        axis, index : int
            The plane, in slice-first axes.

        Returns
        -------
        (rows, columns) ndarray of uint8
        """
        rendered, empty = self.renderer(scores).render_plane(scores, axis, index)
        plane = rendered.argmax(axis=0).astype(np.uint8)
        plane[empty] = 0
        return plane

    def annotated_slices(self, distance: Floats, markers: Markers) -> AnnotatedSlices:
        """Return the labels of the annotated slices after a solve."""
        axis, slices = markers.annotated_slices()
        chosen = np.union1d(slices, markers.empty)
        return self._labeled_slices(distance, markers, axis, chosen, markers.empty)

    def with_empty_slices(self, distance: Floats, markers: Markers) -> Markers:
        """Return markers with the slices that are empty by a solve."""
        axis, _ = markers.annotated_slices()
        scores = self.scores(distance)
        found = empty_slices(markers, lambda z: self.labels_in_plane(scores, axis, z))
        return replace(markers, empty=found)

    def slices_without_background(self, distance: Floats, markers: Markers) -> AnnotatedSlices:
        """Return the labels of slices with marked classes, but no background, after a solve."""
        axis, _ = markers.annotated_slices()
        return self._labeled_slices(
            distance, markers, axis, markers.slices_without_background(), np.zeros(0, np.int64)
        )

    def _labeled_slices(
        self,
        distance: Floats,
        markers: Markers,
        axis: int,
        slices: NDArray[np.int64],
        empty: NDArray[np.int64],
    ) -> AnnotatedSlices:
        scores = self.scores(distance)
        shape = [n for a, n in enumerate(self.image.guide.shape[1:]) if a != axis]
        labels = np.empty((len(slices), *shape), np.uint8)
        shown = np.empty((len(slices), markers.count), np.bool_)
        rest = [a for a in range(3) if a != axis]
        for s, z in enumerate(slices):
            labels[s] = self.labels_in_plane(scores, axis, int(z))
            on = markers.voxels[:, axis] == z
            rows, columns = markers.voxels[on][:, rest].T
            shown[s] = shown_classes(
                labels[s], np.stack([rows, columns], axis=1), markers.classes[on], markers.count,
                self._params.shape.min_shown,
            )  # fmt: skip
            labels[s, rows, columns] = markers.classes[on]
        return AnnotatedSlices(axis, slices, labels, self._params.shape, empty, shown)
