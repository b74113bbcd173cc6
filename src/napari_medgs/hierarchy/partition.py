"""A cut that a person edits: parts are named, merged and split."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import ParameterError
from napari_medgs.hierarchy.cutting import PartCut, cut_tree
from napari_medgs.hierarchy.nodes import NestedParts


class Partition:
    """The image in parts that can be named, merged and split.

    Labels are 1, 2 ... and stay: another number of parts divides or joins some, all others keep
    their labels.

    Parameters
    ----------
    tree : PartTree
    count : int
        Parts to begin with.
    min_fraction : float
        Least size, as for :func:`~napari_medgs.hierarchy.cut_tree`.

    Attributes
    ----------
    leaf_label : (L,) ndarray of int32
        Label of every leaf.
    names : dict of int to str
        By label.

    Examples
    --------
    >>> import napari_medgs as mg
    >>> from napari_medgs.hierarchy import Partition
    >>> head = mg.make_phantom(spacing=8.0)
    >>> parts = Partition(mg.part_tree(mg.Volume(head.image[None], head.grid)), 6)
    >>> parts.merge([2, 3])
    2
    >>> sorted(parts.milliliters())
    [1, 2, 4, 5, 6]
    """

    def __init__(self, tree: NestedParts, count: int, min_fraction: float = 1e-3) -> None:
        self.tree, self.min_fraction = tree, min_fraction
        self._node_names: dict[tuple[int, ...], str] = {}
        self.set_count(count)

    def set_count(self, count: int) -> None:
        """Cut the tree anew: merges and splits end, names of nodes that are parts stay."""
        cut = cut_tree(self.tree, count, self.min_fraction)
        self.leaf_label = cut.leaf_part + 1
        self._nodes: dict[int, tuple[int, ...]] = {k: (n,) for k, n in enumerate(cut.nodes, 1)}
        self._used = len(cut)
        self.names = {
            label: self._node_names[nodes]
            for label, nodes in self._nodes.items()
            if nodes in self._node_names
        }

    @property
    def nodes(self) -> dict[int, tuple[int, ...]]:
        """The nodes that a part grew around, by label; several of a merge."""
        return dict(self._nodes)

    def milliliters(self) -> dict[int, float]:
        """Return the volume of every part."""
        voxels = np.bincount(self.leaf_label, self.tree.voxels[: self.tree.leaves])
        unit = self.tree.grid.voxel_volume / 1000
        return {int(k): float(voxels[k] * unit) for k in np.unique(self.leaf_label)}

    def name(self, label: int, text: str) -> None:
        """Name a part; an empty text takes the name away."""
        self._check([label])
        text = text.strip()
        if text:
            self.names[label] = text
        else:
            self.names.pop(label, None)
        nodes = self._nodes[label]
        self._node_names[nodes] = text
        if not text:
            del self._node_names[nodes]

    def merge(self, labels: Iterable[int]) -> int:
        """Join parts; return the label of the whole, which is the lowest.

        Raises
        ------
        ParameterError
            For fewer than two parts, or a label that is none.
        """
        wanted = sorted(set(labels))
        self._check(wanted)
        if len(wanted) < 2:
            raise ParameterError("Choose two parts or more to merge.")
        kept = wanted[0]
        self.leaf_label[np.isin(self.leaf_label, wanted)] = kept
        self._nodes[kept] = tuple(n for label in wanted for n in self._nodes[label])
        for label in wanted:
            if label != kept:
                del self._nodes[label]
            name = self.names.pop(label, None) if label != kept else None
            if name and kept not in self.names:
                self.names[kept] = name
        return kept

    def split(self, label: int) -> int:
        """Divide a part in two; return the label of the smaller one, which is new.

        Raises
        ------
        ParameterError
            When the part is a single cell, or a label that is none.
        """
        self._check([label])
        tree = self.tree
        mine = self.leaf_label == label
        sizes = tree.sum_up(np.where(mine, tree.voxels[: tree.leaves], 0))
        total = sizes[tree.root]
        least = max(min(self.min_fraction * tree.covered, total / 20), 1)
        for needed in (least, 1):  # rather small parts than none
            node = tree.root
            while node >= tree.leaves:
                a, b = (int(c) for c in tree.children[node - tree.leaves])
                small, large = (a, b) if sizes[a] <= sizes[b] else (b, a)
                if sizes[small] >= needed:
                    self._used += 1
                    self.leaf_label[mine & tree.leaf_mask(small)] = self._used
                    self._nodes[label], self._nodes[self._used] = self._divided(
                        self._nodes[label], small, large
                    )
                    return self._used
                node = large
        raise ParameterError("The part is a single cell, which cannot be split.")

    def _divided(
        self, nodes: tuple[int, ...], small: int, large: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Share the nodes of a part among what stays and what is split off."""
        chains = {n: set(self.tree.ancestors(n).tolist()) for n in nodes}
        off = tuple(n for n in nodes if small in chains[n])
        rest = tuple(n for n in nodes if small not in chains[n])
        # Where the split goes through a node, its two sides take its place.
        cut = set(self.tree.ancestors(small).tolist()) & set(rest)
        kept = tuple(n for n in rest if n not in cut) + (large,) * bool(cut)
        return kept or (large,), off or (small,)

    def labels(self, rendered: bool = True) -> NDArray[np.int32]:
        """Return the label image, (Z, Y, X); see :meth:`PartCut.labels`."""
        present, dense = np.unique(self.leaf_label, return_inverse=True)
        if not rendered:
            return self.leaf_label[self.tree.cells]
        nodes = tuple(range(len(present)))
        cut = PartCut(self.tree, nodes, dense.astype(np.int32))
        return present.astype(np.int32)[cut.labels() - 1]

    def _check(self, labels: Iterable[int]) -> None:
        present = set(np.unique(self.leaf_label).tolist())
        for label in labels:
            if label not in present:
                raise ParameterError(f"There is no part {label}.")


def place_in(labels: NDArray[np.integer], label: int) -> tuple[int, ...] | None:
    """Return a voxel of a label, in its largest section across the first axis and in its middle.

    Parameters
    ----------
    labels : ndarray of int
        2D or 3D.
    label : int

    Returns
    -------
    tuple of int or None
        None where no voxel has the label.
    """
    inside = labels == label
    if not inside.any():
        return None
    index: tuple[int, ...] = ()
    if inside.ndim == 3:
        index = (int(inside.sum(axis=(1, 2)).argmax()),)
    places = np.argwhere(inside[index])
    middle = places.mean(axis=0)
    nearest = places[((places - middle) ** 2).sum(axis=1).argmin()]
    return (*index, *(int(k) for k in nearest))
