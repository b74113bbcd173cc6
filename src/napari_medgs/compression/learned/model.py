"""What a learned codec computes: tables of parameters to whole latents, and back."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_medgs._typing import Floats
from napari_medgs.compression.learned.card import LEVELS, CodecCard
from napari_medgs.compression.learned.entropy import LOWEST
from napari_medgs.compression.learned.networks import make_network
from napari_medgs.compression.learned.table import from_ellipses, in_blocks, to_ellipses
from napari_medgs.rendering.parameters import GEOMETRY

SMALLEST = 1e-4
"""Standard deviation of a column below which it counts as constant."""


class CodecModel(nn.Module):
    """The network of a codec with the scales of what it reads.

    Parameters
    ----------
    card : CodecCard

    Attributes
    ----------
    mean, deviation : (S, P) tensors
        Of the columns that vary; S is 1, or one row a slot.
    usual, lower, upper : (14 + C,) tensors
        Constants of columns that do not vary, and the range of all.
    scale : (L,) tensor
        Of the step of latents.
    frequencies : (L, LEVELS) tensor of int32
    start : (S, 14 + C) tensor
        Table of the common start, where there is one.
    background : (C,) tensor
        Of the start.
    """

    mean: Tensor
    deviation: Tensor
    usual: Tensor
    lower: Tensor
    upper: Tensor
    scale: Tensor
    frequencies: Tensor
    start: Tensor
    background: Tensor

    def __init__(self, card: CodecCard) -> None:
        super().__init__()
        columns, rows = GEOMETRY + card.channels, card.slots or 1
        varied = len(card.columns)
        self.card = card
        self.network = make_network(card)
        self.register_buffer("mean", torch.zeros(rows, varied))
        self.register_buffer("deviation", torch.ones(rows, varied))
        for name in ("usual", "lower", "upper"):
            self.register_buffer(name, torch.zeros(columns))
        self.register_buffer("scale", torch.ones(card.latents))
        table = torch.ones(card.latents, LEVELS, dtype=torch.int32)
        self.register_buffer("frequencies", table)
        self.register_buffer("background", torch.zeros(card.channels))
        self.register_buffer("start", torch.zeros(card.slots if card.info else 0, columns))

    def blocks(self, table: Floats) -> Floats:
        """Return a field's table in blocks (B, block, 14 + C), in the form that is learned."""
        form = to_ellipses(table) if self.card.published else table
        return in_blocks(form.astype(np.float32), self.card.block)

    def normalize(self, blocks: Floats, centers: Floats | None = None) -> Tensor:
        """Return the network's input (B, block, P).

        Parameters
        ----------
        blocks : (B, block, 14 + C) ndarray
        centers : (B, 3) ndarray, optional
            Middles of the blocks, where positions count from them.
        """
        if centers is not None:
            blocks = blocks.copy()
            blocks[:, :, :3] -= centers[:, None]
        chosen = torch.from_numpy(blocks)[:, :, list(self.card.columns)]
        return (chosen - self._rows(self.mean)) / self._rows(self.deviation)

    def tables(self, blocks: Tensor, count: int, centers: Floats | None = None) -> Tensor:
        """Return the parameter table (N, 14 + C) of normalized blocks; differentiable.

        Parameters
        ----------
        blocks : (B, block, P) tensor
        count : int
            N, at most B times the block.
        centers : (B, 3) ndarray, optional
        """
        columns = list(self.card.columns)
        chosen = blocks * self._rows(self.deviation) + self._rows(self.mean)
        table = self.usual.expand(len(blocks), self.card.block, -1).clone()
        table[:, :, columns] = chosen
        if centers is not None:
            table[:, :, :3] += torch.from_numpy(centers)[:, None]
        table = table.reshape(-1, table.shape[-1])[:count]
        if self.card.published:
            table = from_ellipses(table)
        return torch.minimum(torch.maximum(table, self.lower), self.upper)

    def _rows(self, numbers: Tensor) -> Tensor:
        """Return scales a row of a block; slots that a block has too many are like the last."""
        if not self.card.slots:
            return numbers
        extra = self.card.block - self.card.slots
        return torch.cat([numbers, numbers[-1:].expand(extra, -1)]) if extra else numbers

    def rounded(self, latents: Tensor) -> Tensor:
        """Return whole latents, within what files store."""
        whole = torch.round(latents / self.scale)
        return whole.clamp(LOWEST, LOWEST + LEVELS - 1)

    def encode(self, blocks: Tensor) -> NDArray[np.int64]:
        """Return whole latents (B, L) of normalized blocks."""
        with torch.inference_mode():
            found = self.rounded(self.network.encode(blocks)[0])
        result: NDArray[np.int64] = found.long().numpy()
        return result

    def decode(self, whole: NDArray[np.int64]) -> Tensor:
        """Return normalized blocks of whole latents."""
        with torch.inference_mode():
            latents = torch.from_numpy(whole.astype(np.float32)) * self.scale
            return self.network.decode(latents)
