"""SIREN: an implicit network with sine activations, voxel coordinates to intensity (torch).

After Sitzmann et al. 2020, with its published defaults: sine layers of omega 30 and their special
initialization, a linear last layer, mean squared error, Adam.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_medgs._typing import Floats

if TYPE_CHECKING:
    from torch import Tensor, nn

OMEGA = 30.0


def make_siren(layers: int, width: int, inputs: int = 3) -> nn.Module:
    """Return a network of so many sine layers and a linear one."""
    import torch
    from torch import nn

    class Sine(nn.Module):
        def __init__(self, size_in: int, size_out: int, bound: float) -> None:
            super().__init__()
            self.linear = nn.Linear(size_in, size_out)
            with torch.no_grad():
                self.linear.weight.uniform_(-bound, bound)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(OMEGA * self.linear(x))

    bound = math.sqrt(6 / width) / OMEGA
    parts: list[nn.Module] = [Sine(inputs, width, 1 / inputs)]
    parts += [Sine(width, width, bound) for _ in range(layers - 1)]
    last = nn.Linear(width, 1)
    with torch.no_grad():
        last.weight.uniform_(-bound, bound)
    return nn.Sequential(*parts, last)


class SirenFit:
    """Fits one image with mini-batches of random voxels.

    Parameters
    ----------
    image : (Z, Y, X) ndarray
        Scaled to [0, 1].
    layers, width : int
        Sine layers and their width.
    rate : float
        Learning rate of Adam.
    batch : int
        Voxels a step.
    """

    def __init__(
        self,
        image: Floats,
        *,
        layers: int = 5,
        width: int = 256,
        rate: float = 1e-4,
        batch: int = 4096,
        seed: int = 0,
    ) -> None:
        import torch

        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.shape, self.batch = image.shape, batch
        self.flat = torch.from_numpy(np.ascontiguousarray(image).reshape(-1))
        self.model = make_siren(layers, width)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=rate)
        # One scale for all axes, so that frequencies mean the same along each.
        self.scale = 2.0 / max(image.shape)
        self.sample = torch.from_numpy(
            self.rng.choice(self.flat.numel(), min(200_000, self.flat.numel()), replace=False)
        )

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.model.parameters())

    def _points(self, index: Tensor) -> Tensor:
        import torch

        _, height, width = self.shape
        parts = (index // (height * width), index // width % height, index % width)
        middle = torch.tensor([(n - 1) / 2 for n in self.shape])
        return (torch.stack(parts, 1).float() - middle) * self.scale

    def step(self) -> float:
        """Take one step; return the mean squared error of its voxels."""
        import torch

        index = torch.from_numpy(self.rng.integers(0, self.flat.numel(), self.batch))
        guess = self.model(self._points(index))[:, 0]
        loss = torch.nn.functional.mse_loss(guess, self.flat[index])
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return float(loss.detach())

    def mean_squared_error(self, *, everywhere: bool = False) -> float:
        """Return the error on 200,000 random voxels (always the same ones), or on all."""
        import torch

        index = torch.arange(self.flat.numel()) if everywhere else self.sample
        total = 0.0
        with torch.no_grad():
            for some in torch.split(index, 65536):
                guess = self.model(self._points(some))[:, 0].clamp(0, 1)
                total += float((guess - self.flat[some]).square().sum())
        return total / index.numel()
