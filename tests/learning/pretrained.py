"""Modules that stand for pre-trained networks: what a user would name by import path."""

from __future__ import annotations

import torch
from torch import nn

IMPORTED = []


class Blur(nn.Module):
    """Features of a slice at a quarter of its resolution, as those of a vision transformer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.inner = nn.Conv2d(1, 5, 4, stride=4)

    def forward(self, image):
        assert not self.training
        assert image.ndim == 4
        return self.inner(image[:, :1])


class Solid(nn.Module):
    """Features of a volume."""

    ndim = 3

    def forward(self, image):
        return torch.cat([image, image**2], 1)


def blur() -> nn.Module:
    IMPORTED.append("blur")
    return Blur()


def other_weights() -> nn.Module:
    return Blur(1)


def broken() -> nn.Module:
    raise OSError("no weights here\nat all")


def number() -> int:
    return 3


def wrong_shape() -> nn.Module:
    return nn.Flatten()


def picky() -> nn.Module:
    return nn.Conv2d(7, 1, 1)
