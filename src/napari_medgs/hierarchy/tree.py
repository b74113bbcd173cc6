"""The tree of parts: nested regions of an image, from cells of Gaussians up to the whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from napari_medgs.hierarchy.cutting import PartCut, cut_tree
from napari_medgs.hierarchy.nodes import NestedParts
from napari_medgs.hierarchy.selection import PartSelection, select


@dataclass(frozen=True)
class PartTree(NestedParts):
    """A binary tree of nested parts of an image.

    Leaves 0 to L - 1 are the cells of single Gaussians and pieces of empty space; node L + k is
    what merge k made. Parts of one level of cost are disjoint, a part lies within all its
    ancestors, and the last node is the whole image. Parts differ from their neighbors in the
    image; the tree knows no anatomy.

    Made by :func:`napari_medgs.part_tree`.

    Attributes
    ----------
    grid : Grid
        The image's canonical grid.
    cells : (Z, Y, X) ndarray of int32
        The leaf of every voxel.
    gaussian_leaf : (N,) ndarray of int32
        The leaf of every Gaussian of the field: its own cell, or the one at its center where it
        has the largest share of the blend nowhere.
    children : (L - 1, 2) ndarray of int32
        The two nodes that each merge joined, the larger first.
    altitude : (L - 1,) ndarray of float64
        Cost of each merge, never falling.
    bridge : (L - 1, 2) ndarray of int32
        A pair of neighboring leaves, one of each child.
    empty_anchor : (E,) ndarray of int64
        First voxel, as flat index, of the pieces that no Gaussian reached; the last E leaves.
    field_digest : str
        Of the field that the tree belongs to, see :func:`~napari_medgs.hierarchy.field_digest`.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> image = np.zeros((4, 16, 16), np.float32)
    >>> image[:, 4:12, 4:12] = 100
    >>> image += np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    >>> tree = mg.part_tree(mg.Volume.from_array(image))
    >>> part = tree.at((2, 8, 8))
    >>> mask = tree.mask(part.nodes)
    >>> bool(mask[2, 8, 8]), bool(mask[2, 0, 0])
    (True, False)
    """

    def at(
        self, *positive: Sequence[float], negative: Iterable[Sequence[float]] = ()
    ) -> PartSelection:
        """Return the part at one or several places; see :func:`~napari_medgs.hierarchy.select`.

        Parameters
        ----------
        *positive : (z, y, x)
            Voxels that belong to the part.
        negative : iterable of (z, y, x)
            Voxels that do not.

        Returns
        -------
        PartSelection
        """
        return select(self, positive, list(negative))

    def cut(self, count: int, min_fraction: float = 1e-3) -> PartCut:
        """Divide the whole image into parts; see :func:`~napari_medgs.hierarchy.cut_tree`.

        Parameters
        ----------
        count : int
        min_fraction : float
            Of the covered voxels; a split counts only where both sides have so much.

        Returns
        -------
        PartCut
        """
        return cut_tree(self, count, min_fraction)
