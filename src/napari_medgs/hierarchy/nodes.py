"""Nested regions of an image as nodes of a binary tree: structure, sizes, places and masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Doubles, Floats
from napari_medgs.errors import GeometryError, ParameterError

if TYPE_CHECKING:
    from napari_medgs.data.grid import Grid
    from napari_medgs.hierarchy.membership import MembershipRenderer

_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def _sum_up(children: Any, values: Any) -> None:
    """Add the values of children to their parents, from the leaves up."""
    leaves = len(children) + 1
    for k in range(len(children)):
        values[leaves + k] += values[children[k, 0]] + values[children[k, 1]]


@njit(**_options)
def _leaf_mask(children: Any, node: int, inside: Any) -> None:
    """Set the leaves below a node."""
    leaves = len(children) + 1
    stack = np.empty(64, np.int64)
    stack[0] = node
    size = 1
    while size:
        size -= 1
        top = stack[size]
        if top < leaves:
            inside[top] = True
            continue
        if size + 2 > len(stack):
            longer = np.empty(2 * len(stack), np.int64)
            longer[:size] = stack[:size]
            stack = longer
        stack[size], stack[size + 1] = children[top - leaves, 0], children[top - leaves, 1]
        size += 2


@njit(**_options)
def _path_up(parent: Any, node: int) -> Any:
    """Return a node and all its ancestors."""
    count, top = 1, node
    while parent[top] >= 0:
        top = parent[top]
        count += 1
    path = np.empty(count, np.int64)
    for k in range(count):
        path[k] = node
        node = parent[node]
    return path


@njit(**_options)
def _half_grown(children: Any, voxels: Any, node: int) -> int:
    """Return the last node, down the larger children, with half of the voxels."""
    leaves = len(children) + 1
    half, core = voxels[node] / 2, node
    while core >= leaves:
        a, b = children[core - leaves, 0], children[core - leaves, 1]
        larger = a if voxels[a] >= voxels[b] else b
        if voxels[larger] < half:
            break
        core = larger
    return core


def _sharp(shares: Floats, cells: NDArray[np.bool_]) -> Floats:
    """Return shares of the blend, or cells where the shares are above half at fewer than half."""
    if 2 * np.count_nonzero(shares > 0.5) < np.count_nonzero(cells):
        return cells.astype(np.float32)
    return shares


@dataclass(frozen=True)
class NestedParts:
    """Nodes of a binary tree over the cells of an image; see :class:`PartTree`."""

    grid: Grid
    cells: NDArray[np.int32]
    gaussian_leaf: NDArray[np.int32]
    children: NDArray[np.int32]
    altitude: Doubles
    bridge: NDArray[np.int32]
    empty_anchor: NDArray[np.int64]
    field_digest: str = ""
    renderer: MembershipRenderer | None = field(default=None, repr=False, compare=False)

    # Structure

    def __len__(self) -> int:
        return self.leaves + len(self.children)

    @property
    def leaves(self) -> int:
        """Number of leaves."""
        return len(self.children) + 1

    @property
    def root(self) -> int:
        """The node that is the whole image."""
        return len(self) - 1

    @cached_property
    def parent(self) -> NDArray[np.int32]:
        """Parent of every node; -1 of the root."""
        parent = np.full(len(self), -1, np.int32)
        parent[self.children.reshape(-1)] = np.repeat(
            np.arange(self.leaves, len(self), dtype=np.int32), 2
        )
        return parent

    @property
    def empty_leaves(self) -> dict[int, int]:
        """Leaf of every piece of empty space, by its first voxel's flat index."""
        first = self.leaves - len(self.empty_anchor)
        return {int(voxel): first + k for k, voxel in enumerate(self.empty_anchor)}

    @cached_property
    def voxels(self) -> NDArray[np.int64]:
        """Voxels of every node's cells."""
        counts = np.bincount(self.cells.reshape(-1), minlength=self.leaves)
        return self.sum_up(counts.astype(np.int64))

    @cached_property
    def height(self) -> Doubles:
        """Cost of the merge that made every node; 0 of leaves."""
        return np.concatenate([np.zeros(self.leaves), self.altitude])

    @cached_property
    def covered(self) -> int:
        """Voxels that a Gaussian reaches."""
        return int(self.voxels[: self.leaves - len(self.empty_anchor)].sum())

    def prominence(self, node: int) -> float:
        """Return how much dearer it is to leave a node than to fill it, 0 to 1.

        1 - c / C, where C is the cost of the merge that ends the node and c that of the merge at
        which it had grown to half its size. 1 for the whole image.
        """
        node = self._checked(node)
        if node == self.root:
            return 1.0
        core = _half_grown(self.children, self.voxels, node)
        above = self.height[self.parent[node]]
        return float(1 - self.height[core] / above) if above > 0 else 0.0

    def sum_up(self, leaf_values: NDArray[Any]) -> NDArray[Any]:
        """Return the sums of values (L,) of the leaves below every node, (2 L - 1,)."""
        values = np.concatenate([leaf_values, np.zeros(len(self.children), leaf_values.dtype)])
        _sum_up(self.children, values)
        return values

    def milliliters(self, node: int) -> float:
        """Return the volume of a node's cells."""
        return float(self.voxels[self._checked(node)] * self.grid.voxel_volume / 1000)

    def _checked(self, node: int) -> int:
        if not 0 <= int(node) < len(self):
            raise ParameterError(f"The tree has nodes 0 to {len(self) - 1}, not {node}.")
        return int(node)

    def ancestors(self, node: int) -> NDArray[np.int64]:
        """Return a node and all its ancestors, up to the root."""
        path: NDArray[np.int64] = _path_up(self.parent, self._checked(node))
        return path

    def levels(self, node: int, growth: float = 0.25, min_fraction: float = 2e-5) -> list[int]:
        """Return the ancestors worth stopping at: those whose parent is much larger.

        Parameters
        ----------
        node : int
            Counts itself.
        growth : float
            Of the number of voxels to the parent's.
        min_fraction : float
            Of the covered voxels; smaller ancestors are passed over.

        Returns
        -------
        list of int
            From small to large, at least one; the whole image only where there is no other.
        """
        chain = self.ancestors(node)
        sizes = self.voxels[chain]
        good = np.zeros(len(chain), bool)
        good[:-1] = (sizes[1:] >= (1 + growth) * sizes[:-1]) & (
            sizes[:-1] >= min_fraction * self.covered
        )
        if not good.any():
            good[max(len(chain) - 2, 0)] = True
        return [int(n) for n in chain[good]]

    def leaf_mask(self, nodes: int | Iterable[int]) -> NDArray[np.bool_]:
        """Return which leaves lie below any of the nodes, (L,)."""
        inside = np.zeros(self.leaves, np.bool_)
        for node in [nodes] if isinstance(nodes, (int, np.integer)) else nodes:
            _leaf_mask(self.children, self._checked(node), inside)
        return inside

    def common_ancestor(self, nodes: Sequence[int]) -> int:
        """Return the smallest node that holds all the given ones."""
        chains = [self.ancestors(node) for node in nodes]
        if not chains:
            raise ParameterError("Give at least one node.")
        common = set(chains[0].tolist())
        for chain in chains[1:]:
            common &= set(chain.tolist())
        return min(common)  # parents have higher numbers than their children

    # Places

    def leaf_at(self, voxel: Sequence[float]) -> int:
        """Return the leaf at a voxel (z, y, x) of the canonical grid.

        Raises
        ------
        GeometryError
            When it lies outside of the image.
        """
        place = np.asarray(voxel, np.float64)
        if place.shape != (3,) or not np.isfinite(place).all():
            raise GeometryError(f"A place is three finite numbers, not {voxel}.")
        index = np.floor(place + 0.5).astype(np.int64)
        if (index < 0).any() or (index >= self.grid.shape).any():
            shown = tuple(float(v) for v in place)
            raise GeometryError(
                f"The place {shown} lies outside of the image of shape {self.grid.shape}."
            )
        return int(self.cells[tuple(index)])

    def best_node(self, mask: NDArray[Any]) -> tuple[int, float]:
        """Return the node whose cells fit a mask best, and their Dice.

        Raises
        ------
        GeometryError, ParameterError
            When the mask has another shape, or is empty.
        """
        inside = np.asarray(mask) != 0
        if inside.shape != self.grid.shape:
            raise GeometryError(
                f"The mask has shape {inside.shape}, the tree's image {self.grid.shape}."
            )
        if not inside.any():
            raise ParameterError("The mask is empty; mark at least one voxel.")
        shared = self.sum_up(np.bincount(self.cells[inside], minlength=self.leaves))
        dice = 2 * shared / (self.voxels + inside.sum())
        node = int(dice.argmax())
        return node, float(dice[node])

    # Masks

    def need_renderer(self) -> MembershipRenderer:
        """Return the renderer of memberships.

        Raises
        ------
        ParameterError
            When the tree was made without a field.
        """
        if self.renderer is None:
            raise ParameterError("The tree has no field to render masks with.")
        return self.renderer

    def soft_mask(self, nodes: int | Iterable[int]) -> Floats:
        """Return the share of the blend that the nodes' Gaussians have, (Z, Y, X), 0 to 1."""
        return self.need_renderer().volume(self.leaf_mask(nodes))

    def mask(self, nodes: int | Iterable[int]) -> NDArray[np.bool_]:
        """Return the voxels of nodes, (Z, Y, X).

        Where their Gaussians have most of the blend. A part so small that they have it hardly
        anywhere is the union of its cells.
        """
        leaves = self.leaf_mask(nodes)
        return _sharp(self.need_renderer().volume(leaves), leaves[self.cells]) > 0.5

    def plane(self, nodes: int | Iterable[int], axis: int, index: int) -> Floats:
        """Return :meth:`soft_mask` in one plane across an axis of the canonical grid."""
        if axis not in (0, 1, 2) or not 0 <= index < self.grid.shape[axis]:
            raise GeometryError(f"The image has no plane {index} across axis {axis}.")
        return self.need_renderer().plane(self.leaf_mask(nodes), axis, index)

    def outline(self, nodes: int | Iterable[int], axis: int, index: int) -> list[Doubles]:
        """Return closed lines around the nodes in one plane.

        Parameters
        ----------
        nodes : int or iterable of int
        axis, index : int
            The plane, on the canonical grid.

        Returns
        -------
        list of (K, 2) ndarray
            Voxel coordinates along the plane's two axes, in their order. The first point is the
            last one, also where the part touches the border.
        """
        from skimage.measure import find_contours

        shares = self.plane(nodes, axis, index)
        cells = self.leaf_mask(nodes)[np.take(self.cells, index, axis=axis)]
        image = np.pad(_sharp(shares, cells), 1)
        return [line - 1 for line in find_contours(image, 0.5)]
