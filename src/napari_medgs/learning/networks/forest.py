"""A transformer on leaves of quadtrees or octrees: its cost follows what is in the image.

Every leaf, large or small, is reduced to a patch of the same few voxels and becomes a token with
its size and position. A transformer lets tokens see each other. Each token is then turned back
into a patch of features, enlarged into its cell: the way in, mirrored [1]_.

References
----------
.. [1] SHF, symmetrical hierarchical forest, NeurIPS 2025; there the transformer is a pre-trained
   one.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_medgs.learning.networks.leaves import Leaves, grow_leaves, image_content
from napari_medgs.learning.networks.slots import SegmenterConfig
from napari_medgs.learning.networks.unet import convolution

if TYPE_CHECKING:
    from torch import Tensor

PATCH = 4
"""Voxels of a token along each axis; the smallest cells are as large."""
SIZES = (16, 8, 4)
"""Edges of cells in voxels: the roots of the trees first."""
SPLIT_SHARE = {2: 0.35, 3: 0.25}
"""Of the cells that could be split."""
WIDTH, HEADS, LAYERS = 96, 4, 4
FREQUENCIES = 4


class ForestEncoder(nn.Module):
    """Tokens of leaves, a transformer, and features of their cells.

    Parameters
    ----------
    config : SegmenterConfig
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        ndim = self.ndim = config.ndim
        self.widths = tuple(reversed(config.widths))
        self.factors = config.factors
        self.multiple = tuple(max(SIZES[0], m) for m in config.multiple)
        self.stem = config.strides[0]
        voxels = PATCH**ndim
        self.embed = nn.Linear(voxels * config.channels, WIDTH)
        self.scale = nn.Embedding(len(SIZES), WIDTH)
        self.position = nn.Linear(2 * FREQUENCIES * ndim, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 2 * WIDTH, dropout=0.0, activation="gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.transformer = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(WIDTH)
        fine = self.widths[-1]
        self.depatch = nn.Linear(WIDTH, fine * voxels)
        self.smooth = convolution(ndim)(fine, fine, 3, padding=1)
        self.levels = nn.ModuleList(
            convolution(ndim)(fine, width, 1) for width in self.widths[:-1]
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return features coarse to fine; see the protocol."""
        splits = self._splits(tuple(image.shape[2:]))
        leaves = grow_leaves(image_content(image.float()), SIZES, splits)
        tokens = self._tokens(image, leaves)
        tokens = self.norm(self.transformer(tokens))
        fine = self._features(tokens, leaves, tuple(image.shape[2:]))
        fine = fine + self.smooth(fine)
        found = []
        finest = self.factors[0]
        for layer, factors in zip(self.levels, reversed(self.factors[1:]), strict=True):
            size = tuple(a // b for a, b in zip(factors, finest, strict=True))
            pool: Any = nn.functional.avg_pool3d if self.ndim == 3 else nn.functional.avg_pool2d
            found.append(layer(pool(fine, size)))
        return [*found, fine]

    def _splits(self, size: tuple[int, ...]) -> int:
        """Return how many cells are split in an image of some size."""
        cells = sum(prod(n // s for n in size) for s in SIZES[:-1])
        return max(1, round(SPLIT_SHARE[self.ndim] * cells))

    def _tokens(self, image: Tensor, leaves: Leaves) -> Tensor:
        """Return the tokens (B, L, W) of the leaves."""
        pool: Any = nn.functional.avg_pool3d if self.ndim == 3 else nn.functional.avg_pool2d
        rows, places, scales = [], [], []
        for level, (size, grid) in enumerate(zip(leaves.sizes, leaves.grids, strict=True)):
            small = pool(image, size // PATCH) if size > PATCH else image
            rows.append(_to_patches(small, PATCH))
            places.append(_positions(grid, image))
            scales.append(torch.full((prod(grid),), level, device=image.device))
        patches = torch.cat(rows, 1)
        index = leaves.index[..., None].expand(-1, -1, patches.shape[-1])
        tokens: Tensor = self.embed(patches.gather(1, index))
        place = torch.cat(places)[leaves.index]
        return tokens + self.scale(torch.cat(scales)[leaves.index]) + self.position(place)

    def _features(self, tokens: Tensor, leaves: Leaves, size: tuple[int, ...]) -> Tensor:
        """Return the features (B, W, ...) of all cells at the resolution of the finest level."""
        ndim, stem = self.ndim, self.stem
        mode = "trilinear" if ndim == 3 else "bilinear"
        rows = self.depatch(tokens)
        fine = self.widths[-1]
        shape = tuple(n // f for n, f in zip(size, stem, strict=True))
        out = rows.new_zeros((len(tokens), fine, *shape))
        starts = leaves.starts
        for level, (cell, grid) in enumerate(zip(leaves.sizes, leaves.grids, strict=True)):
            image, token = torch.nonzero(
                (leaves.index >= starts[level]) & (leaves.index < starts[level + 1]),
                as_tuple=True,
            )
            if not len(image):
                continue
            patches = rows[image, token].reshape(-1, fine, *(PATCH,) * ndim)
            edge = tuple(cell // f for f in stem)
            if edge != (PATCH,) * ndim:
                # Toward the cells of the stem: larger for large cells, smaller for small ones.
                patches = nn.functional.interpolate(patches, edge, mode=mode, align_corners=False)
            # Cells in the order of the array: (B, cells, W, *edge), filled at the leaves.
            canvas = patches.new_zeros((len(tokens), prod(grid), *patches.shape[1:]))
            canvas[image, leaves.index[image, token] - starts[level]] = patches
            out = out + _from_patches(canvas, grid)
        return out


def _to_patches(image: Tensor, edge: int) -> Tensor:
    """Return the cells of an image (B, C, ...) as rows (B, cells, C * edge^D)."""
    ndim = image.ndim - 2
    split: list[int] = []
    for n in image.shape[2:]:
        split += [n // edge, edge]
    blocks = image.reshape(*image.shape[:2], *split)
    cells, inner = range(2, 2 + 2 * ndim, 2), range(3, 3 + 2 * ndim, 2)
    return blocks.permute(0, *cells, 1, *inner).flatten(1, ndim).flatten(2)


def _from_patches(canvas: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Return the image (B, W, ...) of cells (B, cells, W, *edge)."""
    ndim = len(grid)
    edge = canvas.shape[3:]
    blocks = canvas.reshape(len(canvas), *grid, *canvas.shape[2:])
    order = [0, 1 + ndim]
    for axis in range(ndim):
        order += [1 + axis, 2 + ndim + axis]
    sizes = [n * e for n, e in zip(grid, edge, strict=True)]
    return blocks.permute(order).reshape(len(canvas), canvas.shape[2], *sizes)


def _positions(grid: tuple[int, ...], like: Tensor) -> Tensor:
    """Return sines and cosines (cells, 2 * FREQUENCIES * D) of the cells' centers."""
    axes = [(torch.arange(n, device=like.device) + 0.5) / n for n in grid]
    centers = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    power = 2.0 ** torch.arange(FREQUENCIES, device=like.device)
    angle = (centers[..., None] * power * torch.pi).flatten(1)
    return torch.cat([angle.sin(), angle.cos()], 1).to(like.dtype)
