"""Parts that are like a part, in the same image or in others: by size, shape and intensities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Doubles
from napari_medgs.data.equalization import equalized
from napari_medgs.errors import GeometryError, ParameterError
from napari_medgs.hierarchy.nodes import NestedParts

if TYPE_CHECKING:
    from napari_medgs.hierarchy.tree import PartTree

INTENSITY, TEXTURE, SIZE, SHAPE = 0.1, 0.1, 0.35, 0.25  # differences that count as one
LEAST_VOXELS = 8  # of a part that is looked for


@dataclass(frozen=True)
class SimilarPart:
    """A part that is like the one asked for.

    Attributes
    ----------
    tree : int
        Which of the trees it is a node of.
    node : int
    distance : float
        Of the features; 0 is the same.
    milliliters : float
    """

    tree: int
    node: int
    distance: float
    milliliters: float


def part_features(tree: PartTree, image: NDArray[Any] | None = None) -> Doubles:
    """Describe all nodes of a tree.

    Parameters
    ----------
    tree : PartTree
    image : (C, Z, Y, X) ndarray, optional
        The contrasts; what the tree's field renders by default.

    Returns
    -------
    (2 L - 1, 2 C + 4) ndarray of float64
        Mean and standard deviation of every contrast, each half linear and half rank from 0 to 1;
        logarithm of the volume in ml; logarithms of the standard deviations along the principal
        axes in mm, from long to short. In units of differences that count as one.

    Raises
    ------
    GeometryError
        When the image has another shape.

    Examples
    --------
    >>> import napari_medgs as mg
    >>> from napari_medgs.hierarchy import part_features
    >>> head = mg.make_phantom(spacing=8.0)
    >>> tree = mg.part_tree(mg.Volume(head.image[None], head.grid))
    >>> part_features(tree).shape == (len(tree), 6)
    True
    """
    if image is None:
        from napari_medgs.rendering import render

        image = np.asarray(render(tree.need_renderer().field), np.float32)
        image = image.reshape(-1, *tree.grid.shape)
    if image.shape[1:] != tree.grid.shape:
        raise GeometryError(f"The image has shape {image.shape[1:]}, the tree {tree.grid.shape}.")
    cells = tree.cells.reshape(-1)

    def total(values: NDArray[Any]) -> Doubles:
        found = np.bincount(cells, values.reshape(-1).astype(np.float64), tree.leaves)
        return np.asarray(tree.sum_up(found), np.float64)

    count = np.maximum(tree.voxels, 1).astype(np.float64)
    columns = []
    for channel in image:
        spread = equalized(channel, 0.5)
        mean = total(spread) / count
        variance = total(spread**2) / count - mean**2
        columns += [mean / INTENSITY, np.sqrt(np.maximum(variance, 0)) / TEXTURE]
    columns.append(np.log(count * tree.grid.voxel_volume / 1000) / SIZE)
    columns += list(_axes(tree, count).T / SHAPE)
    return np.stack(columns, axis=1)


def _axes(tree: NestedParts, count: Doubles) -> Doubles:
    """Return the logarithms of the deviations along the principal axes, long to short."""
    shape, spacing = tree.grid.shape, tree.grid.spacing
    cells = tree.cells.reshape(-1)
    places = [
        np.broadcast_to(
            (np.arange(n, dtype=np.float64) * s).reshape([-1 if k == a else 1 for k in range(3)]),
            shape,
        ).reshape(-1)
        for a, (n, s) in enumerate(zip(shape, spacing, strict=True))
    ]
    means = [tree.sum_up(np.bincount(cells, p, tree.leaves)) / count for p in places]
    matrix = np.empty((len(count), 3, 3))
    for a in range(3):
        for b in range(a, 3):
            moment = tree.sum_up(np.bincount(cells, places[a] * places[b], tree.leaves)) / count
            matrix[:, a, b] = matrix[:, b, a] = moment - means[a] * means[b]
    matrix += np.diag([s**2 / 12 for s in spacing])  # a voxel is a box, no point
    deviations = np.sqrt(np.maximum(np.linalg.eigvalsh(matrix)[:, ::-1], 1e-12))
    logarithms: Doubles = np.log(deviations)
    return logarithms


def similar_parts(
    tree: PartTree,
    node: int,
    others: Sequence[PartTree] = (),
    *,
    count: int = 10,
    features: Sequence[Doubles] | None = None,
) -> list[SimilarPart]:
    """Find the parts that are most like one, in its tree and in others.

    Parameters
    ----------
    tree : PartTree
    node : int
        The part asked for.
    others : sequence of PartTree
        Trees of other images with the same contrasts.
    count : int
        How many to return, at least 1.
    features : sequence of ndarray, optional
        Of the tree and the others, as :func:`part_features` returns them; computed by default.

    Returns
    -------
    list of SimilarPart
        Most similar first. No two overlap, and none overlaps the part itself. Tree 0 is the tree
        of the part, the others count from 1.

    Raises
    ------
    ParameterError
        When there is no such node, or when trees have other contrasts.

    Examples
    --------
    >>> import napari_medgs as mg
    >>> head = mg.make_phantom(spacing=8.0)
    >>> tree = mg.part_tree(mg.Volume(head.image[None], head.grid))
    >>> part = tree.at((10, 12, 12)).nodes[0]
    >>> found = similar_parts(tree, part, count=3)
    >>> len(found), found[0].distance <= found[1].distance
    (3, True)
    """
    trees = [tree, *others]
    if count < 1:
        raise ParameterError(f"Ask for one part or more, not {count}.")
    table = [part_features(t) for t in trees] if features is None else features
    if len(table) != len(trees) or len({f.shape[1] for f in table}) != 1:
        raise ParameterError(
            "Parts can be compared only where the images have the same contrasts."
        )
    own = tree.ancestors(node)[0]
    wanted = table[0][own]
    candidates: list[tuple[float, int, int]] = []
    for number, (other, rows) in enumerate(zip(trees, table, strict=True)):
        nodes = np.flatnonzero(
            (other.voxels >= LEAST_VOXELS) & (np.arange(len(other)) != other.root)
        )
        distances = np.linalg.norm(rows[nodes] - wanted, axis=1) / np.sqrt(rows.shape[1])
        nearest = np.argsort(distances, kind="stable")[: 50 * count]
        candidates += [(float(distances[k]), number, int(nodes[k])) for k in nearest]
    taken: list[set[int]] = [set() for _ in trees]  # nodes found, with their ancestors
    found_nodes: list[set[int]] = [set() for _ in trees]
    taken[0].update(tree.ancestors(own).tolist())
    found_nodes[0].add(int(own))
    found: list[SimilarPart] = []
    for distance, number, candidate in sorted(candidates):
        chain = trees[number].ancestors(candidate).tolist()
        if candidate in taken[number] or not found_nodes[number].isdisjoint(chain):
            continue
        taken[number].update(chain)
        found_nodes[number].add(candidate)
        size = trees[number].milliliters(candidate)
        found.append(SimilarPart(number, candidate, distance, size))
        if len(found) == count:
            break
    return found
