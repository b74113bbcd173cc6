"""Quadtrees and octrees of an image: which cells become leaves, by what is in them.

Cells of the largest size tile the image; one after another the cell with the most content is
split into its 2^D parts until there are as many leaves as wanted [1]_. A cell never has less
content than its parts, hence the cells that are split are simply those of the most content, of
all sizes together, and nothing has to be done in order.

References
----------
.. [1] SHF, symmetrical hierarchical forest, NeurIPS 2025: content is the number of edge voxels.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Leaves:
    """The leaves of a batch of images, equally many in each.

    Attributes
    ----------
    sizes : tuple of int
        Edge of the cells of each level in voxels, large to small.
    grids : tuple of tuple of int
        Cells of each level along each axis.
    index : (B, L) tensor of int64
        The leaves, as positions in the cells of all levels in a row, each in C order.
    """

    sizes: tuple[int, ...]
    grids: tuple[tuple[int, ...], ...]
    index: Tensor

    @property
    def starts(self) -> tuple[int, ...]:
        """Position of the first cell of each level, and the number of all cells."""
        found = [0]
        for grid in self.grids:
            count = 1
            for n in grid:
                count *= n
            found.append(found[-1] + count)
        return tuple(found)

    def masks(self) -> list[Tensor]:
        """Return for each level which of its cells (B, *grid) are leaves."""
        starts = self.starts
        flags = torch.zeros(
            len(self.index), starts[-1], dtype=torch.bool, device=self.index.device
        )
        flags.scatter_(1, self.index, True)
        return [
            flags[:, a:b].reshape(-1, *grid)
            for a, b, grid in zip(starts[:-1], starts[1:], self.grids, strict=True)
        ]


def image_content(image: Tensor) -> Tensor:
    """Return how much there is to see at every voxel: the image's squared gradient.

    Parameters
    ----------
    image : (B, C, ...) tensor

    Returns
    -------
    (B, 1, ...) tensor
    """
    total = torch.zeros_like(image[:, :1])
    for axis in range(2, image.ndim):
        n = image.shape[axis]
        step = image.narrow(axis, 1, n - 1) - image.narrow(axis, 0, n - 1)
        square = step.square().sum(1, keepdim=True)
        total.narrow(axis, 1, n - 1).add_(square, alpha=0.5)
        total.narrow(axis, 0, n - 1).add_(square, alpha=0.5)
    return total


def grow_leaves(content: Tensor, sizes: tuple[int, ...], splits: int) -> Leaves:
    """Return the leaves of trees in which the cells of the most content are split.

    Parameters
    ----------
    content : (B, 1, ...) tensor
        At least 0; sizes are multiples of the largest cell.
    sizes : tuple of int
        Edges of cells in voxels, each half of the one before.
    splits : int
        Cells to split; fewer where there are not so many.

    Returns
    -------
    Leaves

    Examples
    --------
    >>> import torch
    >>> content = torch.zeros(1, 1, 16, 16)
    >>> content[..., 0, 0] = 1  # all there is to see is in one corner
    >>> leaves = grow_leaves(content, (8, 4, 2), 2)
    >>> [int(m.sum()) for m in leaves.masks()]
    [3, 3, 4]
    """
    ndim = content.ndim - 2
    pool: Any = nn.functional.avg_pool3d if ndim == 3 else nn.functional.avg_pool2d
    sums = []
    for size in sizes:
        cells = pool(content, size) * size**ndim
        sums.append(cells[:, 0])
    # Cells of equal content, nothing in them for instance: the larger one first. A part has at
    # most what its whole has, but for rounding.
    for level in range(1, len(sizes)):
        whole = sums[level - 1]
        for axis in range(1, ndim + 1):
            whole = whole.repeat_interleave(2, axis)
        sums[level] = torch.minimum(sums[level], whole)
    batch = len(content)
    rows = torch.cat([cells.reshape(batch, -1) for cells in sums[:-1]], 1)
    starts, grids = [0], [tuple(cells.shape[1:]) for cells in sums]
    for cells in sums:
        starts.append(starts[-1] + cells[0].numel())
    order = rows.argsort(dim=1, descending=True, stable=True)
    splits = min(splits, rows.shape[1])
    split = torch.zeros(batch, starts[-1], dtype=torch.bool, device=content.device)
    split.scatter_(1, order[:, :splits], True)
    leaf = []
    there = torch.ones_like(sums[0], dtype=torch.bool)
    for level, (a, b) in enumerate(itertools.pairwise(starts)):
        cut = split[:, a:b].reshape_as(there) & there
        leaf.append((there & ~cut).reshape(batch, -1))
        if level + 1 < len(sizes):
            there = cut
            for axis in range(1, ndim + 1):
                there = there.repeat_interleave(2, axis)
    flags = torch.cat(leaf, 1)
    # Equally many leaves in each image, so that they are rows of one array.
    count = int(flags.sum(1).min())
    index = flags.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]
    return Leaves(tuple(sizes), tuple(grids), index)
