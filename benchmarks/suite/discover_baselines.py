"""Baselines of the case "discover": other cells, other costs, other hierarchies, flat classes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs.data.equalization import equalized
from napari_medgs.data.volume import Volume
from napari_medgs.hierarchy import PartParams, PartTree
from napari_medgs.hierarchy.cells import CellGraph, cell_graph
from napari_medgs.hierarchy.merging import merge_regions
from suite.registry import Context

SLIC_VOXELS = 2_000_000  # SLIC takes minutes beyond
LINKAGE_LEAVES = 45_000  # average linkage takes minutes where a cell has very many neighbors
CLASSES = 8


@njit(cache=True)
def _add_to_parents(parent: Any, values: Any) -> None:
    for node in range(len(parent)):
        if parent[node] >= 0:
            values[parent[node]] += values[node]


@dataclass
class Baseline:
    """Regions of an image, of which the best one is looked for.

    Attributes
    ----------
    name : str
    cells : (Z, Y, X) ndarray of int
        The leaf of every voxel.
    leaves : int
    parent : (M,) ndarray of int, optional
        Parent of every node, after its children; -1 of the root. None for flat regions.
    """

    name: str
    cells: NDArray[Any]
    leaves: int
    parent: NDArray[np.int64] | None

    @property
    def sizes(self) -> NDArray[Any]:
        """Voxels of all nodes."""
        return self.sum_up(np.bincount(self.cells.reshape(-1), minlength=self.leaves))

    def sum_up(self, leaf_values: NDArray[Any]) -> NDArray[Any]:
        """Return sums over the leaves below every node."""
        if self.parent is None:
            return leaf_values
        values = np.zeros(len(self.parent), leaf_values.dtype)
        values[: self.leaves] = leaf_values
        _add_to_parents(self.parent, values)
        return values


def _parents(children: NDArray[np.int32]) -> NDArray[np.int64]:
    leaves = len(children) + 1
    parent = np.full(2 * leaves - 1, -1, np.int64)
    parent[children.reshape(-1)] = np.repeat(np.arange(leaves, 2 * leaves - 1), 2)
    return parent


def _merged(name: str, cells: NDArray[np.int32], graph: CellGraph, contrasts: int) -> Baseline:
    """Merge cells with this package's cost."""
    leaves = len(graph.mass)
    children, bridge = np.zeros((leaves - 1, 2), np.int32), np.zeros((leaves - 1, 2), np.int32)
    chosen = PartParams().chosen(contrasts)
    merge_regions(
        graph.ends, graph.length, graph.strength, graph.mass, graph.mean, graph.scatter,
        chosen.boundary_power, chosen.length_power, chosen.noise, children,
        np.zeros(leaves - 1), bridge,
    )  # fmt: skip
    return Baseline(name, cells, leaves, _parents(children))


def _slic(image: NDArray[np.float32], volume: Volume, leaves: int) -> NDArray[np.int32]:
    """Return as many SLIC supervoxels as there are cells."""
    from skimage.segmentation import slic

    spread = image - image.mean(axis=(1, 2, 3), keepdims=True)
    spread /= np.maximum(spread.std(axis=(1, 2, 3), keepdims=True), 1e-12)
    labels = slic(
        np.moveaxis(spread, 0, -1), n_segments=leaves, compactness=0.1, spacing=volume.spacing,
        start_label=0, channel_axis=-1,
    )  # fmt: skip
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


def _higra_trees(graph: CellGraph) -> Iterator[tuple[str, Callable[[], NDArray[np.int64]]]]:
    """Yield hierarchies of the library higra on the cells' adjacency graph."""
    import higra as hg

    leaves = len(graph.mass)
    adjacency = hg.UndirectedGraph(leaves)
    adjacency.add_edges(graph.ends[:, 0].astype(np.int64), graph.ends[:, 1].astype(np.int64))
    weights = graph.strength / graph.length

    def parents(tree: Any) -> NDArray[np.int64]:
        parent = np.array(tree.parents(), np.int64)
        parent[-1] = -1
        return parent

    def by_area() -> NDArray[np.int64]:
        return parents(hg.watershed_hierarchy_by_area(adjacency, weights, graph.mass)[0])

    def by_dynamics() -> NDArray[np.int64]:
        return parents(hg.watershed_hierarchy_by_dynamics(adjacency, weights)[0])

    def average() -> NDArray[np.int64]:
        tree, _ = hg.binary_partition_tree_average_linkage(adjacency, weights, graph.length)
        return parents(tree)

    def ward() -> NDArray[np.int64]:
        tree, _ = hg.binary_partition_tree_ward_linkage(adjacency, graph.mean, graph.mass)
        return parents(tree)

    yield "watershed hierarchy by area (higra)", by_area
    yield "watershed hierarchy by dynamics (higra)", by_dynamics
    if leaves <= LINKAGE_LEAVES:
        yield "ultrametric contour map, average strength (higra)", average
        yield "Ward linkage (higra)", ward


def _classes(graph: CellGraph, tree: PartTree, seed: int) -> Baseline:
    """Return connected pieces of k-means classes of the cells, weighted by their voxels."""
    from skimage.measure import label
    from sklearn.cluster import KMeans

    model = KMeans(CLASSES, n_init=3, random_state=seed)
    classes = model.fit_predict(graph.mean, sample_weight=graph.mass)[tree.cells]
    pieces = label(classes + 1, connectivity=1).astype(np.int32) - 1
    return Baseline(f"k-means, {CLASSES} classes, connected", pieces, int(pieces.max()) + 1, None)


def baselines_of(
    volume: Volume, tree: PartTree, name: str, context: Context
) -> tuple[list[Baseline], dict[str, float]]:
    """Return the baselines of one image, and the seconds that each took.

    Those that would take minutes are left out.
    """
    chosen = PartParams().chosen(volume.channels)
    image = np.stack([equalized(channel, chosen.equalization) for channel in volume.data])
    gaussians = tree.leaves - len(tree.empty_anchor)
    graph = cell_graph(tree.cells, image, volume.spacing, gaussians)
    made: list[Baseline] = []
    seconds: dict[str, float] = {}

    def add(what: str, make: Callable[[], Baseline]) -> None:
        started = time.perf_counter()
        made.append(make())
        seconds[what] = time.perf_counter() - started

    if image[0].size <= SLIC_VOXELS:
        what = "SLIC supervoxels, this cost"

        def slic_tree() -> Baseline:
            cells = _slic(image, volume, tree.leaves)
            own = cell_graph(cells, image, volume.spacing)
            return _merged(what, cells, own, volume.channels)

        add(what, slic_tree)
    for what, make in _higra_trees(graph):

        def hierarchy(what: str = what, make: Any = make) -> Baseline:
            return Baseline(what, tree.cells, tree.leaves, make())

        add(what, hierarchy)
    add("k-means", lambda: _classes(graph, tree, context.seed))
    context.say(f"  {name}: {', '.join(f'{k} {v:.1f} s' for k, v in seconds.items())}")
    return made, seconds
