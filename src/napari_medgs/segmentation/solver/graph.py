"""The nearest-neighbor graph of Gaussians; edges integrate the image gradient that they cross."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.arrays import sorted_unique
from napari_medgs._util.threads import run_chunks
from napari_medgs._util.trilinear import trilinear

CHUNK = 8192
MAX_STEPS = 1000.0  # along an edge: spacings that differ a thousandfold are mistyped
_options: dict[str, Any] = {"nogil": True, "cache": True}


@dataclass(frozen=True)
class Graph:
    """Compressed neighbor lists, both directions of every edge.

    Attributes
    ----------
    offsets : (N + 1,) ndarray of int32
    neighbors : (E,) ndarray of int32
    lengths : (E,) ndarray of float32
        In voxels of the finest axis.
    gradient_costs : (E,) ndarray of float32
        Integral of the squared image gradient along the straight edge.
    """

    offsets: NDArray[np.int32]
    neighbors: NDArray[np.int32]
    lengths: Floats
    gradient_costs: Floats

    def __len__(self) -> int:
        return len(self.offsets) - 1


@njit(**_options)
def _integrate_gradient(
    image: Any,
    points: Any,
    relative_spacing: Any,
    starts: Any,
    ends: Any,
    first: int,
    last: int,
    out: Any,
) -> None:
    """Write the integral of the squared gradient along the straight edges first .. last-1.

    The gradient is the change per finest voxel along the edge, the largest of all channels.
    """
    channels = len(image)
    before, after = np.zeros(channels, np.float32), np.zeros(channels, np.float32)
    for e in range(first, last):
        i, j = starts[e], ends[e]
        dz = points[j, 0] - points[i, 0]
        dy = points[j, 1] - points[i, 1]
        dx = points[j, 2] - points[i, 2]
        length = np.sqrt(
            (dz * relative_spacing[0]) ** 2
            + (dy * relative_spacing[1]) ** 2
            + (dx * relative_spacing[2]) ** 2
        )
        steps = max(1, int(min(length, MAX_STEPS) + 0.5))
        pace = np.float32(length / steps)
        cost = np.float32(0)
        for s in range(steps + 1):
            t = s / steps
            z, y, x = points[i, 0] + t * dz, points[i, 1] + t * dy, points[i, 2] + t * dx
            steep = np.float32(0)
            for c in range(channels):
                after[c] = trilinear(image[c], z, y, x)
                if s > 0:
                    steep = max(steep, abs(after[c] - before[c]))
                before[c] = after[c]
            if s > 0 and pace > 0:
                cost += steep * steep / pace
        out[e] = cost


def _gradient_costs(
    image: Floats,
    points: NDArray[np.float64],
    relative_spacing: NDArray[np.float64],
    starts: NDArray[np.int32],
    ends: NDArray[np.int32],
) -> Floats:
    out = np.empty(len(starts), np.float32)

    def measure(block: int) -> None:
        first, last = block * CHUNK, min(len(starts), (block + 1) * CHUNK)
        _integrate_gradient(image, points, relative_spacing, starts, ends, first, last, out)

    run_chunks(measure, -(-len(starts) // CHUNK))
    return out


def with_gradients(
    graph: Graph,
    points: NDArray[np.float64],
    relative_spacing: NDArray[np.float64],
    image: Floats,
) -> Graph:
    """Return a graph of the same nodes with the gradients of another image.

    Parameters
    ----------
    graph : Graph
    points : (N, 3) ndarray
        Its nodes, (z, y, x) in voxels.
    relative_spacing : (3,) ndarray
    image : (C, Z, Y, X) ndarray of float32

    Returns
    -------
    Graph
    """
    starts = np.repeat(np.arange(len(graph), dtype=np.int32), np.diff(graph.offsets))
    ends = graph.neighbors
    # Both directions of an edge are measured in the same one.
    low, high = np.minimum(starts, ends), np.maximum(starts, ends)
    costs = _gradient_costs(image, points, relative_spacing, low, high)
    return replace(graph, gradient_costs=costs)


def build_graph(
    points: NDArray[np.float64],
    relative_spacing: NDArray[np.float64],
    image: Floats,
    neighbors: int = 12,
) -> Graph:
    """Connect every node to its nearest ones and integrate the image gradient between them.

    Parameters
    ----------
    points : (N, 3) ndarray
        (z, y, x) in voxels.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    image : (C, Z, Y, X) ndarray of float32
        The guide image of :class:`ImageFeatures`.
    neighbors : int
        Nearest nodes to connect to.

    Returns
    -------
    Graph
    """
    from scipy.spatial import cKDTree

    count = len(points)
    physical = points * relative_spacing
    k = min(neighbors, count - 1)
    tree = cKDTree(physical)
    near = np.empty((count, k + 1), np.int64)

    def search(block: int) -> None:
        part = slice(block * CHUNK, (block + 1) * CHUNK)
        near[part] = tree.query(physical[part], k + 1)[1]

    run_chunks(search, -(-count // CHUNK))
    starts = np.repeat(np.arange(count), k + 1)
    ends = near.reshape(-1)
    keep = starts != ends
    a, b = np.minimum(starts, ends)[keep], np.maximum(starts, ends)[keep]
    pairs = sorted_unique(a * count + b)
    a, b = (pairs // count).astype(np.int32), (pairs % count).astype(np.int32)
    length = np.linalg.norm(physical[a] - physical[b], axis=1).astype(np.float32)
    gradient_costs = _gradient_costs(image, points, relative_spacing, a, b)
    order = np.argsort(np.concatenate([a, b]), kind="stable")
    twice = np.concatenate([np.arange(len(a)), np.arange(len(a))])[order]
    targets = np.concatenate([b, a])[order].astype(np.int32)
    degree = np.bincount(a, minlength=count) + np.bincount(b, minlength=count)
    offsets = np.concatenate([[0], np.cumsum(degree)]).astype(np.int32)
    return Graph(
        offsets,
        targets,
        np.ascontiguousarray(length[twice], np.float32),
        np.ascontiguousarray(gradient_costs[twice], np.float32),
    )
