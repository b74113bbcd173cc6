"""The same normalized model rendered with plain torch operations, tile by tile, by autograd.

What one would write without own kernels, well done: the volume is cut into blocks, every block
gets the Gaussians whose bounding box meets it, blocks of similar size are batched, and all is
dense inside a block. Gradients come from autograd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.rendering.parameters import (
    A1,
    B1,
    GEOMETRY,
    LOG_R1,
    LOG_R2,
    LOG_RT,
    LOG_W,
    SHEAR,
    T,
    X,
    Y,
)

if TYPE_CHECKING:
    from torch import Tensor

BATCH_PAIRS = 2_000_000  # Gaussian-voxel pairs of one batch: what fits into caches and memory


@dataclass(frozen=True)
class TileList:
    """Gaussians by block.

    Attributes
    ----------
    tiles : (K,) ndarray
        Indices of the blocks in use, by falling number of Gaussians.
    starts : (K + 1,) ndarray
        Where each block's Gaussians begin in ``members``.
    members : (P,) ndarray
    """

    tiles: NDArray[np.int64]
    starts: NDArray[np.int64]
    members: NDArray[np.int64]


def _expand(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for ``counts`` items of every owner, the owner and the item's number."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def list_tiles(
    theta: Floats, shape: tuple[int, int, int], size: int, cutoff: float, degree: int
) -> TileList:
    """List the Gaussians of every block, by bounding boxes of their ellipses in every slice."""
    r1, r2, rt = np.exp(theta[:, [LOG_R1, LOG_R2, LOG_RT]].astype(np.float64)).T
    half = np.sqrt(cutoff) / rt
    first = np.maximum(np.ceil(theta[:, T] - half), 0).astype(np.int64)
    last = np.minimum(np.floor(theta[:, T] + half), shape[0] - 1).astype(np.int64)
    owner, number = _expand(np.maximum(last - first + 1, 0))
    z = first[owner] + number
    some = theta[owner].astype(np.float64)
    d = z - some[:, T]
    left = np.sqrt(np.maximum(cutoff - (rt[owner] * d) ** 2, 0))
    mx, my = some[:, X].copy(), some[:, Y].copy()
    for k in range(degree):
        mx += some[:, A1 + k] * d ** (k + 1)
        my += some[:, B1 + k] * d ** (k + 1)
    shear = some[:, SHEAR] / r1[owner]  # the optimized shear holds s r1 / r2
    reach_x = left * np.sqrt(1 / r1[owner] ** 2 + shear**2)
    reach_y = left / r2[owner]
    limit = np.array(shape[1:]) - 1
    low = np.stack([my - reach_y, mx - reach_x], 1).clip(0, limit + 1)
    high = np.stack([my + reach_y, mx + reach_x], 1).clip(-1, limit)
    low, high = np.ceil(low).astype(np.int64), np.floor(high).astype(np.int64)
    spread = np.where(high >= low, high // size - low // size + 1, 0)
    row, number = _expand(spread.prod(axis=1))
    y = low[row, 0] // size + number // spread[row, 1]
    x = low[row, 1] // size + number % spread[row, 1]
    blocks = [-(-n // size) for n in shape]
    block = (z[row] // size * blocks[1] + y) * blocks[2] + x
    pairs = np.unique(block * len(theta) + owner[row])
    tiles, begin, sizes = np.unique(pairs // len(theta), return_index=True, return_counts=True)
    falling = np.argsort(-sizes, kind="stable")
    owners, number = _expand(sizes[falling])
    members = pairs[begin[falling][owners] + number] % len(theta)
    return TileList(tiles[falling], np.concatenate([[0], np.cumsum(sizes[falling])]), members)


class TorchTiles:
    """Loss and gradient of the normalized model for one channel.

    Parameters
    ----------
    image : (Z, Y, X) ndarray
    background : float
    size : int
        Edge of a block, in voxels.
    cutoff, eps, degree
        See :class:`~napari_medgs.data.field.FieldInfo`.
    """

    def __init__(
        self,
        image: Floats,
        background: float,
        *,
        size: int = 8,
        cutoff: float = 9.0,
        eps: float = 1e-3,
        degree: int = 3,
    ) -> None:
        self.size, self.cutoff, self.eps, self.degree = size, cutoff, eps, degree
        self.background, self.shape = background, image.shape
        blocks = [-(-n // size) for n in image.shape]
        padded = np.full([b * size for b in blocks], np.nan, np.float32)
        padded[tuple(slice(n) for n in image.shape)] = image
        parts = padded.reshape(blocks[0], size, blocks[1], size, blocks[2], size)
        self.blocks = blocks
        self.goal = np.ascontiguousarray(parts.transpose(0, 2, 4, 1, 3, 5)).reshape(-1, size**3)

    def list(self, theta: Floats) -> TileList:
        """List the Gaussians of every block."""
        z, y, x = self.shape
        return list_tiles(theta, (z, y, x), self.size, self.cutoff, self.degree)

    def step(self, theta: Floats, listed: TileList, every: int = 1) -> tuple[float, Floats, float]:
        """Return squared error, gradient of half of it, and the share of the work that was done.

        Parameters
        ----------
        theta : (N, 15) ndarray
        listed : TileList
        every : int
            Do every so manieth batch only, to time a share of the work; 1 does all.
        """
        import torch

        table = torch.from_numpy(theta).requires_grad_(True)
        tiles, starts = listed.tiles, listed.starts
        idle = np.ones(len(self.goal), bool)
        idle[tiles] = False
        squares = float(np.nansum((self.goal[idle] - self.background) ** 2))
        done, batches, k = 0, 0, 0
        while k < len(tiles):
            longest = int(starts[k + 1] - starts[k])
            count = max(1, BATCH_PAIRS // (longest * self.size**3))
            chosen = np.arange(k, min(k + count, len(tiles)))
            k = int(chosen[-1]) + 1
            batches += 1
            if (batches - 1) % every:
                continue
            index = np.zeros((len(chosen), longest), np.int64)
            used = np.zeros((len(chosen), longest), bool)
            for row, tile in enumerate(chosen):
                some = listed.members[starts[tile] : starts[tile + 1]]
                index[row, : len(some)], used[row, : len(some)] = some, True
            done += int(used.sum())
            loss = self._batch(
                table, torch.from_numpy(index), torch.from_numpy(used), tiles[chosen]
            )
            torch.autograd.backward(loss)
            squares += 2 * float(loss.detach())
        if table.grad is None:
            return squares, np.zeros_like(theta), 1.0
        return squares, table.grad.numpy(), done / int(starts[-1])

    def _batch(
        self, table: Tensor, index: Tensor, used: Tensor, tiles: NDArray[np.int64]
    ) -> Tensor:
        import torch

        size, count = self.size, len(tiles)
        p = table[index]  # (blocks, Gaussians, columns)
        r1, r2, rt = (torch.exp(p[..., c]) for c in (LOG_R1, LOG_R2, LOG_RT))
        shear = p[..., SHEAR] * r2 / r1
        tile = torch.from_numpy(tiles)
        by, bx = self.blocks[1], self.blocks[2]
        edge = torch.arange(size, dtype=torch.float32)
        z = (tile // (by * bx) * size)[:, None] + edge
        y = (tile // bx % by * size)[:, None] + edge
        x = (tile % bx * size)[:, None] + edge
        d = z[:, None, :] - p[..., T, None]  # (blocks, Gaussians, slices)
        mx, my, power = p[..., X, None], p[..., Y, None], d
        for k in range(self.degree):
            mx = mx + p[..., A1 + k, None] * power
            my = my + p[..., B1 + k, None] * power
            power = power * d
        along = (rt[..., None] * d) ** 2
        dy = y[:, None, None, :] - my[..., None]  # (blocks, Gaussians, slices, rows)
        across = along[..., None] + (r2[..., None, None] * dy) ** 2
        center = mx[..., None] + shear[..., None, None] * dy
        u = x[:, None, None, None, :] - center[..., None]
        q = across[..., None] + (r1[..., None, None, None] * u) ** 2
        g = torch.exp(p[..., LOG_W, None, None, None] - 0.5 * q)
        inside = (q <= self.cutoff) & used[..., None, None, None]
        g = torch.where(inside, g, 0.0).reshape(count, index.shape[1], -1)
        sums = torch.stack([p[..., GEOMETRY], torch.ones_like(r1)], 1) @ g
        value = (sums[:, 0] + self.eps * self.background) / (sums[:, 1] + self.eps)
        goal = torch.from_numpy(self.goal[tiles])
        known = ~torch.isnan(goal)
        return 0.5 * torch.where(known, value - torch.nan_to_num(goal), 0.0).square().sum()
