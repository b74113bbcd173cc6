"""Networks of learned codecs: block of parameters to latents, and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_medgs.compression.learned.card import CodecCard
from napari_medgs.compression.learned.params import TOKEN

WIDTH, HEADS, DEPTH = 48, 4, 2


class Residual(nn.Module):
    """Two convolutions along the order, added to what came in.

    Parameters
    ----------
    width : int
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv1d(width, width, 3, padding=1),
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv1d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, width, n)."""
        result: Tensor = x + self.layers(x)
        return result


class ConvolutionalVAE(nn.Module):
    """The published networks: convolutions along the Morton order, then dense layers.

    Parameters
    ----------
    columns, block, latents : int
    widths : tuple of int
        Channels; the length halves between them.
    residuals : tuple of int
        Residual blocks at each.
    hidden : int
        Width of the dense layer.
    """

    def __init__(
        self,
        columns: int,
        block: int,
        latents: int,
        widths: tuple[int, ...],
        residuals: tuple[int, ...],
        hidden: int,
    ) -> None:
        super().__init__()
        steps = len(widths) - 1
        flat = widths[-1] * (block >> steps)
        down: list[nn.Module] = [nn.Conv1d(columns, widths[0], 3, padding=1)]
        up: list[nn.Module] = []
        for k, width in enumerate(widths):
            if k:
                down += [nn.SiLU(), nn.Conv1d(widths[k - 1], width, 4, 2, 1)]
            down += [Residual(width) for _ in range(residuals[k])]
        for k in range(steps, -1, -1):
            up += [Residual(widths[k]) for _ in range(residuals[k])]
            if k:
                up += [nn.SiLU(), nn.ConvTranspose1d(widths[k], widths[k - 1], 4, 2, 1)]
        up += [nn.SiLU(), nn.Conv1d(widths[0], columns, 3, padding=1)]
        self.down = nn.Sequential(*down, nn.SiLU(), nn.Flatten(), nn.Linear(flat, hidden))
        self.moments = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 2 * latents))
        self.spread = nn.Sequential(
            nn.Linear(latents, hidden), nn.SiLU(), nn.Linear(hidden, flat), nn.SiLU()
        )
        self.up = nn.Sequential(nn.Unflatten(1, (widths[-1], block >> steps)), *up)

    def encode(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (B, L) of the latents of blocks (B, n, P)."""
        mean, spread = self.moments(self.down(blocks.mT)).chunk(2, 1)
        return mean, spread.clamp(-12, 8)

    def decode(self, latents: Tensor) -> Tensor:
        """Return blocks (B, n, P) of latents (B, L)."""
        result: Tensor = self.up(self.spread(latents)).mT
        return result


class TokenCoder(nn.Module):
    """Tokens of neighboring Gaussians, each with latents of its own, that attend to each other.

    Parameters
    ----------
    columns, block, latents : int

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017.
    """

    def __init__(self, columns: int, block: int, latents: int) -> None:
        super().__init__()
        self.tokens, self.columns = block // TOKEN, columns
        own = latents // self.tokens
        self.embed = nn.Linear(TOKEN * columns, WIDTH)
        self.to_latents = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, own))
        self.from_latents = nn.Linear(own, WIDTH)
        self.out = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, TOKEN * columns))
        self.places = nn.Parameter(0.1 * torch.randn(2, self.tokens, WIDTH))
        self.encoder, self.decoder = _attention(), _attention()

    def encode(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Return latents (B, L) of blocks (B, n, P), and zeros."""
        tokens = self.embed(blocks.reshape(len(blocks), self.tokens, -1)) + self.places[0]
        latents = self.to_latents(self.encoder(tokens)).flatten(1)
        return latents, torch.zeros_like(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Return blocks (B, n, P) of latents (B, L)."""
        tokens = self.from_latents(latents.reshape(len(latents), self.tokens, -1))
        result: Tensor = self.out(self.decoder(tokens + self.places[1]))
        return result.reshape(len(latents), -1, self.columns)


def _attention() -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False)


def make_network(card: CodecCard) -> ConvolutionalVAE | TokenCoder:
    """Return the network of a card, with new weights.

    Parameters
    ----------
    card : CodecCard
    """
    sizes = (len(card.columns), card.block, card.latents)
    if card.network == "tokens":
        return TokenCoder(*sizes)
    if card.network == "conv1d":
        return ConvolutionalVAE(*sizes, (64, 128, 256), (0, 0, 0), 320)
    return ConvolutionalVAE(*sizes, (128, 256, 512), (2, 2, 3), 448)
