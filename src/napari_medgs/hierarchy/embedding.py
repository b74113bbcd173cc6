"""Parts as points: the tree's distances in flat or hyperbolic space of few dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Doubles, Indices
from napari_medgs._util.progress import StopCallback, never_stop
from napari_medgs.errors import Cancelled, ParameterError
from napari_medgs.hierarchy import hyperbolic
from napari_medgs.hierarchy.nodes import NestedParts

Space = Literal["poincare", "euclidean"]
MOST_PARTS = 1000  # distances of all pairs are stored
START_LENGTH = {2: 2.0}  # of the longest distance from the root, hyperbolic, by dimension
OTHER_LENGTH = 4.0
RATE = {2: 0.03}  # of the mean distance from the root, by dimension
OTHER_RATE = 0.01


@dataclass(frozen=True)
class PartEmbedding:
    """Parts of a tree, and the nodes that join them, as points.

    Attributes
    ----------
    nodes : (P,) ndarray of int64
        Nodes of the tree; the last one joins all others.
    is_part : (P,) ndarray of bool
        Whether a node is a part of the cut, or joins several.
    parent : (P,) ndarray of int64
        Index of the node that joins it to others, -1 of the last.
    points : (P, D) ndarray of float64
        Inside of the unit ball where the space is hyperbolic.
    space : str
        "poincare" or "euclidean".
    scale : float
        Distance of points over distance in the tree.
    distortion : float
        Mean over all pairs of |distance of points / scale - d| / d, d their distance in the tree.
    rank_correlation : float
        Spearman's, of the distances of all pairs.
    """

    nodes: Indices
    is_part: NDArray[np.bool_]
    parent: Indices
    points: Doubles
    space: Space
    scale: float
    distortion: float
    rank_correlation: float

    def __len__(self) -> int:
        return len(self.nodes)

    def distances(self, index: int) -> Doubles:
        """Return the distances (P,) of all points to one."""
        point = self.points[index]
        if self.space == "poincare":
            return hyperbolic.distance(self.points, point)
        found: Doubles = np.linalg.norm(self.points - point, axis=1)
        return found

    @property
    def middle(self) -> int:
        """Index of the node with the least sum of distances to the parts."""
        sums = [float(self.distances(k)[self.is_part].sum()) for k in range(len(self))]
        return int(np.argmin(sums))

    def centered(self, center: Doubles) -> Doubles:
        """Return the points (P, D) moved so that ``center`` is the origin.

        By Moebius translation in the ball, by subtraction in flat space.
        """
        if self.space == "poincare":
            return hyperbolic.translate(self.points, center)
        moved: Doubles = self.points - center
        return moved


def _disjoint(tree: NestedParts, parts: Sequence[int]) -> tuple[int, ...]:
    """Return parts after a check of their number and places."""
    chosen = tuple(int(part) for part in parts)
    if not 2 <= len(chosen) <= MOST_PARTS:
        raise ParameterError(f"Embed 2 to {MOST_PARTS} parts, not {len(chosen)}.")
    above = {int(n) for part in chosen for n in tree.ancestors(part)[1:]}
    if len(set(chosen)) < len(chosen) or above & set(chosen):
        raise ParameterError("Embed parts that lie outside of each other, each of them once.")
    return chosen


def _joined(tree: NestedParts, parts: tuple[int, ...]) -> tuple[Indices, Indices]:
    """Return parts and the nodes where their paths to the root meet, and everyone's parent."""
    holds: dict[int, int] = {}
    for part in parts:
        for node in tree.ancestors(part).tolist():
            holds[node] = holds.get(node, 0) + 1
    kept = set(parts)
    for node in holds:
        if node >= tree.leaves:
            a, b = (holds.get(int(c), 0) for c in tree.children[node - tree.leaves])
            if a and b:
                kept.add(node)
    nodes = np.array(sorted(kept), np.int64)  # parents have higher numbers
    index = {int(n): k for k, n in enumerate(nodes)}
    parent = np.full(len(nodes), -1, np.int64)
    for k, node in enumerate(nodes.tolist()):
        above = [n for n in tree.ancestors(node)[1:].tolist() if n in index]
        parent[k] = index[above[0]] if above else -1
    return nodes, parent


def _tree_distances(parent: Indices, height: Doubles) -> Doubles:
    """Return the lengths of the paths between all nodes; an edge is a difference in height."""
    count = len(parent)
    top = np.zeros((count, count))
    below: list[list[int]] = [[k] for k in range(count)]
    for k in range(count):  # children come before their parents
        top[k, below[k]] = top[below[k], k] = height[k]
        above = int(parent[k])
        if above >= 0:
            mine, others = below[k], below[above]
            top[np.ix_(mine, others)] = height[above]
            top[np.ix_(others, mine)] = height[above]
            below[above] = others + mine
    distances: Doubles = 2 * top - height[:, None] - height
    np.fill_diagonal(distances, 0)
    return np.maximum(distances, 0)


def _start(distances: Doubles, parent: Indices, dim: int) -> Doubles:
    """Return flat vectors: as long as the distance to the root, in directions of relatives."""
    count = len(parent)
    if dim == 2:  # a radial drawing: every node gets a sector for its parts
        share = np.zeros(count)
        for k in range(count):
            share[k] = max(share[k], 1)
            if parent[k] >= 0:
                share[parent[k]] += share[k]
        low, angle, used = np.zeros(count), np.zeros(count), np.zeros(count)
        for k in range(count - 1, -1, -1):
            above = int(parent[k])
            if above >= 0:
                low[k] = low[above] + used[above]
                used[above] += share[k]
            angle[k] = 2 * np.pi * (low[k] + share[k] / 2) / share[-1]
        direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    else:  # classical scaling
        squared = distances**2
        mean = squared.mean(axis=0)
        values, vectors = np.linalg.eigh(-0.5 * (squared - mean - mean[:, None] + mean.mean()))
        direction = vectors[:, -dim:] * np.sqrt(np.maximum(values[-dim:], 0))
        direction = direction - direction[-1]
        direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-12)
    vectors = direction * distances[:, -1:]
    return vectors + 1e-3 * np.random.default_rng(0).normal(size=vectors.shape)


def _pairs(points: Doubles, first: Indices, second: Indices, space: Space) -> Doubles:
    a, b = points[first], points[second]
    if space == "poincare":
        return hyperbolic.distance(a, b)
    found: Doubles = np.linalg.norm(a - b, axis=1)
    return found


def _slopes(points: Doubles, weight: Doubles, space: Space) -> Doubles:
    """Return the derivative of the sum of weight (P, P) x distance, with respect to points."""
    if space == "euclidean":
        squared = ((points[:, None] - points) ** 2).sum(axis=-1)
        slope = weight / np.sqrt(np.maximum(squared, 1e-24))
        found: Doubles = 2 * (slope.sum(axis=1)[:, None] * points - slope @ points)
        return found
    room = np.maximum(1 - (points**2).sum(axis=1), hyperbolic.EDGE)
    u = ((points[:, None] - points) ** 2).sum(axis=-1) / (room[:, None] * room)
    slope = weight / np.sqrt(np.maximum(u * (1 + u), 1e-24))
    pulled = slope / (room[:, None] * room)
    found = 2 * (pulled.sum(axis=1)[:, None] * points - pulled @ points)
    found += 2 * ((slope * u).sum(axis=1) / room)[:, None] * points
    return 2 * found


def embed_parts(
    tree: NestedParts,
    dim: int = 2,
    space: Space = "poincare",
    *,
    count: int = 100,
    min_fraction: float = 1e-3,
    parts: Sequence[int] | None = None,
    steps: int = 1000,
    should_stop: StopCallback = never_stop,
) -> PartEmbedding:
    """Lay the parts of a cut, and the nodes that join them, out as points.

    The distance of two nodes in the tree is the length of the path between them, in which every
    edge is as long as the logarithm of the cost grows along it. Points are moved until their
    distances are proportional to it, by the least sum of squared relative errors.

    Parameters
    ----------
    tree : PartTree
    dim : int
        Dimensions, 2 to 16.
    space : {"poincare", "euclidean"}
        Hyperbolic space has room for a tree: it grows exponentially, too.
    count : int
        Parts of the cut, 2 to 1000; see :func:`~napari_medgs.hierarchy.cut_tree`.
    min_fraction : float
        Least size of a part.
    parts : sequence of int, optional
        Nodes to lay out instead of those of a cut; none lies within another.
    steps : int
        Of the optimization (Adam, double precision).
    should_stop : callable, optional
        Asked between steps whether to stop.

    Returns
    -------
    PartEmbedding
        The same for the same tree. In two dimensions the node that joins all is near the origin.

    Raises
    ------
    ParameterError
        For an unknown space, numbers out of range, or nodes that lie within each other.
    Cancelled
        When stopped.

    References
    ----------
    .. [1] M. Nickel, D. Kiela, "Poincare embeddings for learning hierarchical representations",
       NeurIPS (2017).
    .. [2] F. Sala, C. De Sa, A. Gu, C. Re, "Representation tradeoffs for hyperbolic embeddings",
       ICML (2018).

    Examples
    --------
    >>> import napari_medgs as mg
    >>> from napari_medgs.hierarchy import embed_parts
    >>> head = mg.make_phantom(spacing=8.0)
    >>> tree = mg.part_tree(mg.Volume(head.image[None], head.grid))
    >>> found = embed_parts(tree, count=12, steps=100)
    >>> found.points.shape, int(found.is_part.sum())
    ((23, 2), 12)
    """
    if space not in get_args(Space):
        raise ParameterError(
            f"The space is one of {' and '.join(get_args(Space))}, not {space!r}."
        )
    if not 2 <= dim <= 16:
        raise ParameterError(f"An embedding has 2 to 16 dimensions, not {dim}.")
    if not 2 <= count <= MOST_PARTS:
        raise ParameterError(f"Embed 2 to {MOST_PARTS} parts, not {count}.")
    if parts is None:
        from napari_medgs.hierarchy.cutting import cut_tree

        parts = cut_tree(tree, count, min_fraction).nodes
    chosen = _disjoint(tree, parts)
    nodes, parent = _joined(tree, chosen)
    is_part = np.isin(nodes, np.array(chosen))
    height = np.where(is_part, 0.0, tree.height[nodes])
    least = height[height > 0].min() if (height > 0).any() else 1.0
    distances = _tree_distances(parent, np.log1p(height / least))
    vectors = _start(distances, parent, dim)
    first, second = np.triu_indices(len(nodes), 1)
    known = distances[first, second] > 0
    first, second = first[known], second[known]
    goal = distances[first, second]
    log_scale = 0.0
    if space == "poincare":
        log_scale = float(np.log(START_LENGTH.get(dim, OTHER_LENGTH) / distances[-1].max()))
        vectors *= np.exp(log_scale)
    points = _optimize(vectors, log_scale, (first, second, goal), space, steps, should_stop)
    lengths = _pairs(points, first, second, space)
    from scipy.stats import spearmanr

    # The scale with the least mean of relative errors, which the least squares only come near to.
    ratio = np.sort(lengths / goal)
    scale = float(min(np.quantile(ratio, np.linspace(0.2, 0.8, 25)),
                      key=lambda s: np.abs(ratio / s - 1).mean()))  # fmt: skip
    return PartEmbedding(
        nodes,
        is_part,
        parent,
        points,
        space,
        scale,
        float(np.abs(ratio / scale - 1).mean()),
        float(spearmanr(lengths, goal).statistic),
    )


def _optimize(
    vectors: Doubles,
    log_scale: float,
    pairs: tuple[Indices, Indices, Doubles],
    space: Space,
    steps: int,
    should_stop: StopCallback,
) -> Doubles:
    """Minimize the mean of (distance / (scale goal) - 1)^2 over points and scale, by Adam."""
    first, second, goal = pairs
    count, size = len(vectors), vectors.size
    unknown = np.append(vectors.reshape(-1), log_scale)
    mean, square = np.zeros_like(unknown), np.zeros_like(unknown)
    typical = float(np.linalg.norm(vectors, axis=1).mean())
    rates = np.full(size + 1, RATE.get(vectors.shape[1], OTHER_RATE) * max(typical, 1e-3))
    rates[-1] = 0.03 if space == "poincare" else 0.0  # flat space has no scale of its own
    for step in range(steps):
        if should_stop():
            raise Cancelled("The embedding was canceled.")
        flat = unknown[:-1].reshape(count, -1)
        points = hyperbolic.from_flat(flat) if space == "poincare" else flat
        ratio = _pairs(points, first, second, space) / (np.exp(unknown[-1]) * goal)
        slope = np.zeros((count, count))
        slope[first, second] = 2 * (ratio - 1) / (np.exp(unknown[-1]) * goal) / len(goal)
        slopes = _slopes(points, slope + slope.T, space) / 2
        if space == "poincare":
            slopes = hyperbolic.pull_back(flat, slopes)
        gradient = np.append(slopes.reshape(-1), -2 * ((ratio - 1) * ratio).mean())
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * gradient**2
        corrected = mean / (1 - 0.9 ** (step + 1))
        spread = np.sqrt(square / (1 - 0.99 ** (step + 1))) + 1e-12
        fading = 0.5 * (1 + np.cos(np.pi * step / steps))
        unknown -= fading * rates * corrected / spread
    flat = unknown[:-1].reshape(count, -1)
    return hyperbolic.from_flat(flat) if space == "poincare" else flat
