"""Limits of path cost beyond which no class extends, estimated from a first solve.

Within an annotated slice all of a class lies around its markers, so that a path several times as
costly as the largest one there leads out of the class. Fully labeled slices say nothing of that
kind (every node in them is a seed), and between them no limit is needed.

Annotated slices are usually spread over the structure. Path costs between the outermost two
therefore tell how large they get at all, and a class that leaks past the last slice (from one
vertebra to the next, say) is stopped by that. One gap past the outermost slices is exempt, since
the tip of a structure may well cost more than its middle. Where the slices span more than the
classes are wide, the structure is a tube, which often goes on: the limit past the ends grows with
the distance then, so that slices at one end of it do not cut off the other. What is beyond the
limit is not passed: a class does not come back farther out, where the limit is higher.

Where the slices lie close together, no place between them is far from a marker. Path costs there
say nothing of how far a class goes, and there is no limit. Where they span less than .4 of what
the widest class is wide, they say little: the limit past the ends grows with the square of what
is lacking, up to the one that holds anywhere.

Small classes, and those of fine parts, hardly have a node that is no seed in the annotated slices:
the limit would follow one or two nodes. Where the classes have fewer such nodes than a percentile
needs, nodes have no limit but past the ends, and that of voxels follows from the path costs of
voxels in the annotated slices, if there are enough of them.

The same holds for classes of many small components. Where the look of such classes is known, their
nodes have no limit, and that of their voxels is at least the largest path cost of voxels in those
slices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.arrays import sorted_unique
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.solver.graph import Graph

ENOUGH = 20  # nodes or voxels that are no seeds: fewer have no 95th percentile
OF_VOXELS = 0.75  # of the ratio of nodes: voxels are many, and their largest costs higher
ENOUGH_SPAN = 0.4  # of the widest class's width, from which on path costs between slices tell all


@dataclass(frozen=True)
class ExtentLimits:
    """Path costs above which everything belongs to the background.

    Attributes
    ----------
    cost : float
        Anywhere.
    outside : float
        Before ``first`` and after ``last``.
    axis : int
        Normal of the annotated slices, in slice-first axes.
    first, last : float
        In slices.
    growth : float
        Part of itself by which the limit outside grows with every slice from there.
    scattered : frozenset of int
        Classes of many components: their nodes have no limit.
    slices : (S,) ndarray of int, optional
        The annotated slices.
    voxel_ratio : float
        Limit of voxels over their largest path cost in the annotated slices, where nodes are too
        few to tell; 0 where nodes tell.
    """

    cost: float
    outside: float
    axis: int = 0
    first: float = -np.inf
    last: float = np.inf
    growth: float = 0.0
    scattered: frozenset[int] = frozenset()
    slices: NDArray[np.int64] | None = None
    voxel_ratio: float = 0.0

    def limit_of_voxels(
        self, voxels: NDArray[np.int32], distance: Floats, percentile: float
    ) -> float:
        """Return the limit that path costs of voxels in the annotated slices set.

        Parameters
        ----------
        voxels : (P, 3) ndarray of int32
        distance : (K, P) ndarray of float32
            Path costs from every class's markers.
        percentile : float
            Percentile of a class's path costs that counts as its largest.

        Returns
        -------
        float
            Of all classes where nodes are too few to tell, else the least one of scattered
            classes; 0 where there is none, or too few voxels, too.
        """
        if self.slices is None or not (self.scattered or self.voxel_ratio):
            return 0.0
        within = np.isin(voxels[:, self.axis], self.slices)
        if self.voxel_ratio:
            few = _count_free(distance[:, within]) < ENOUGH
            return 0.0 if few else self.voxel_ratio * _largest(distance[:, within], percentile)
        return _largest(distance[:, within], percentile, self.scattered)

    def end_voxels(
        self, distance: Floats, voxels: NDArray[np.int32], voxel_limit: float = 0.0
    ) -> None:
        """Let the background take voxels whose path costs exceed the limit, in place.

        Parameters
        ----------
        distance : (K, P) ndarray of float32
        voxels : (P, 3) ndarray of int32
        voxel_limit : float
            Of :meth:`limit_of_voxels`.
        """
        limit = self.at(voxels)
        if self.voxel_ratio and voxel_limit > 0:
            np.minimum(limit, np.float32(voxel_limit), out=limit)
        elif self.scattered:
            mine = self._scattered_first(distance)
            limit[mine] = np.maximum(limit[mine], np.float32(voxel_limit))
        np.minimum(distance[0], limit, out=distance[0])

    def at(self, points: NDArray[Any]) -> Floats:
        """Return the limit at points.

        Parameters
        ----------
        points : (P, 3) ndarray
            In slice-first voxels.

        Returns
        -------
        (P,) ndarray of float32
        """
        position = points[:, self.axis]
        away = np.maximum(np.maximum(self.first - position, position - self.last), 0)
        grown = np.minimum(self.outside * (1 + away * self.growth), self.cost)
        limit: Floats = np.where(away > 0, grown, self.cost).astype(np.float32)
        return limit

    def cut(
        self,
        distance: Floats,
        points: NDArray[Any],
        seeds: NDArray[np.int32],
        graph: Graph,
        unreachable: float,
    ) -> None:
        """Apply the limit to path costs, in place.

        The background takes what exceeds it; past the outermost slices also what is reached
        through nodes that do.

        Parameters
        ----------
        distance : (K, N) ndarray of float32
        points : (N, 3) ndarray
            In slice-first voxels.
        seeds : (N,) ndarray of int32
            Class of every node, -1 where it is no seed.
        graph : Graph
        unreachable : float
            Cost that stands for "no path".
        """
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import connected_components

        limit = self.at(points)
        position = points[:, self.axis]
        past = (position < self.first) | (position > self.last)
        if past.any():
            count = len(points)
            ones = np.ones(len(graph.neighbors), np.int8)
            links = csr_matrix((ones, graph.neighbors, graph.offsets), (count, count))
            for k in sorted(set(range(1, len(distance))) - self.scattered):
                inside = np.flatnonzero((distance[k] <= limit) | (seeds == k))
                if not past[inside].any():
                    continue
                _, part = connected_components(links[inside][:, inside], directed=False)
                known = sorted_unique(part[(seeds[inside] == k) | ~past[inside]])
                lost = inside[~np.isin(part, known)]
                distance[k, lost] = unreachable
        limit[self._scattered_first(distance)] = unreachable
        np.minimum(distance[0], limit, out=distance[0])

    def _scattered_first(self, distance: Floats) -> NDArray[np.bool_]:
        """Return where a scattered class comes before all others but the background."""
        return np.isin(1 + distance[1:].argmin(axis=0), sorted(self.scattered))


def extents_end(markers: Markers, max_path_ratio: float) -> bool:
    """Return whether classes have limits: not those of an initial mask, nor without background."""
    return max_path_ratio > 0 and markers.kept is None and bool((markers.classes == 0).any())


def estimate_extent(
    points: NDArray[np.float64],
    distance: Floats,
    markers: Markers,
    max_path_ratio: float,
    unreachable: float,
    percentile: float = 95.0,
    width: float = np.inf,
    close_gap: float = 0.125,
    node_distance: NDArray[np.float64] | None = None,
    scattered: frozenset[int] = frozenset(),
) -> ExtentLimits:
    """Estimate the limits from the path costs of a solve.

    Parameters
    ----------
    points : (N, 3) ndarray
        Nodes in slice-first voxels.
    distance : (K, N) ndarray of float32
        Path costs from every class's seeds.
    markers : Markers
    max_path_ratio : float
        Limit over the largest path cost within annotated slices; 0 for no limit.
    unreachable : float
        Cost that stands for "no path".
    percentile : float
        Percentile of a class's path costs that counts as its largest.
    width : float
        Of the widest class within annotated slices, in units of their distance; infinite where
        it is not known.
    close_gap : float
        Part of ``width`` below which all gaps must be for slices to lie close together; twice as
        much for gaps of one or two slices.
    node_distance : (3,) ndarray, optional
        Mean distance of nodes in voxels of every axis: slices with no larger gaps than that lie
        close together, however wide the classes are.
    scattered : frozenset of int
        Classes of many components, whose look is known.

    Returns
    -------
    ExtentLimits
    """
    if not extents_end(markers, max_path_ratio):
        return ExtentLimits(unreachable, unreachable)
    axis, slices = markers.annotated_slices()
    position = np.round(points[:, axis])
    if len(slices) < 2:
        on = np.isin(position, slices) if len(slices) else np.ones(len(points), np.bool_)
        cost, ratio = _within_slices(distance[:, on], max_path_ratio, percentile, unreachable)
        return ExtentLimits(
            cost, cost, axis, scattered=scattered, slices=slices, voxel_ratio=ratio
        )
    partly = np.setdiff1d(slices, markers.fully_labeled.get(axis, slices[:0]))
    gap, span = float(np.diff(slices).max()), float(slices[-1] - slices[0])
    close = width < np.inf and gap < close_gap * width * (2 if gap <= 2 else 1)
    close |= node_distance is not None and gap <= node_distance[axis]
    if close and len(partly):
        return ExtentLimits(unreachable, unreachable)
    within = np.isin(position, partly)
    cost, ratio = _within_slices(distance[:, within], max_path_ratio, percentile, unreachable)
    between = (position >= slices[0]) & (position <= slices[-1])
    outside = _largest(distance[:, between], percentile) or unreachable
    if width < np.inf and len(partly):
        outside *= max(1.0, ENOUGH_SPAN * width / span) ** 2
    empty = markers.empty
    first = float(max([slices[0] - (slices[1] - slices[0]), *empty[empty < slices[0]]]))
    last = float(min([slices[-1] + (slices[-1] - slices[-2]), *empty[empty > slices[-1]]]))
    growth = 1 / span if span >= width else 0.0
    return ExtentLimits(cost, outside, axis, first, last, growth, scattered, slices, ratio)


def _within_slices(
    distance: Floats, ratio: float, percentile: float, unreachable: float
) -> tuple[float, float]:
    """Return the limit that nodes in annotated slices set, and the ratio where voxels have to."""
    if _count_free(distance) < ENOUGH:
        return unreachable, OF_VOXELS * ratio
    return ratio * _largest(distance, percentile) or unreachable, 0.0


def _count_free(distance: Floats) -> int:
    """Return how many nodes or voxels classes win that are none of their seeds."""
    return int(np.count_nonzero((distance.argmin(axis=0) > 0) & (distance.min(axis=0) > 0)))


def _largest(distance: Floats, percentile: float, classes: frozenset[int] | None = None) -> float:
    """Return the largest path cost of the classes to their own nodes, the background left out."""
    winner, own = distance.argmin(axis=0), distance.min(axis=0)
    costs = [own[winner == k] for k in classes or range(1, len(distance))]
    return max((float(np.percentile(c, percentile)) for c in costs if len(c)), default=0.0)
