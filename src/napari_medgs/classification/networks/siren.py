"""Network of the kind inr2vec: it reads the weights of one neural representation per image."""

from __future__ import annotations

import itertools
import math
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.classification.gaussians.set import grid_points
from napari_medgs.errors import Cancelled

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

WIDTH, HIDDEN = 32, 2  # sine layers: one from the coordinates, then HIDDEN more
OMEGA = 15.0
POINTS, STEPS, RATE = 512, 150, 2e-3
CHUNK = 64


class WeightNetwork(nn.Module):
    """Reads the rows of a SIREN's hidden weights as a set: shared MLP, maximum, classifier.

    After inr2vec [1]_.

    Parameters
    ----------
    ndim, channels, classes : int
        Of the images; the length of the rows depends on the SIRENs alone.

    References
    ----------
    .. [1] De Luigi et al., "Deep learning on implicit neural representations of shapes",
       ICLR 2023.
    """

    def __init__(self, ndim: int, channels: int, classes: int) -> None:
        super().__init__()
        del ndim, channels
        sizes = (WIDTH + 1, 96, 160, 256)
        layers: list[nn.Module] = []
        self.scale = nn.BatchNorm1d(sizes[0], affine=False)
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
        self.rows = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(sizes[-1], 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, classes)
        )

    def forward(self, weights: Tensor) -> Tensor:
        """Return logits (B, K) of rows (B, R, WIDTH + 1)."""
        b, r, w = weights.shape
        rows = self.rows(self.scale(weights.reshape(b * r, w)).clamp(-6, 6))
        return self.head(rows.reshape(b, r, -1).amax(1))


def fit_sirens(
    images: NDArray[Any],
    *,
    seed: int = 0,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> Tensor:
    """Fit a SIREN [1]_ to every image, all from one initialization, and return the weights.

    Parameters
    ----------
    images : (B, C, ...) float32 ndarray
        Scaled to [0, 1].
    seed : int
        Of the initialization and the sampled points.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    (B, HIDDEN * WIDTH, WIDTH + 1) tensor
        Rows of the hidden layers, bias last.

    Raises
    ------
    Cancelled
        When ``should_stop`` returned True.

    References
    ----------
    .. [1] Sitzmann et al., "Implicit neural representations with periodic activation
       functions", NeurIPS 2020.
    """
    random = torch.Generator().manual_seed(seed)
    c, shape = images.shape[1], images.shape[2:]
    points = grid_points(shape)
    middle = torch.tensor([(n - 1) / 2 for n in shape])
    points = (points - middle) * (2 / max(shape))

    def uniform(rows: int, columns: int, bound: float) -> Tensor:
        return (torch.rand(1, rows, columns, generator=random) * 2 - 1) * bound

    bound = math.sqrt(6 / WIDTH) / OMEGA
    start = [uniform(points.shape[1], WIDTH, 1 / points.shape[1])]
    start += [uniform(WIDTH, WIDTH, bound) for _ in range(HIDDEN)]
    start += [uniform(WIDTH, c, bound)]
    started = time.perf_counter()
    found = []
    for first in range(0, len(images), CHUNK):
        batch = torch.as_tensor(images[first : first + CHUNK]).float()
        b = len(batch)
        flat = batch.reshape(b, c, -1).mT
        weights = [w.expand(b, -1, -1).clone().requires_grad_() for w in start]
        biases = [torch.zeros(b, 1, w.shape[-1], requires_grad=True) for w in start]
        optimizer = torch.optim.Adam([*weights, *biases], lr=RATE)
        for _ in range(STEPS):
            if should_stop():
                raise Cancelled("The fit of SIRENs was canceled.")
            sample = torch.randint(0, len(points), (POINTS,), generator=random)
            h = points[sample].expand(b, -1, -1)
            for w, bias in zip(weights[:-1], biases[:-1], strict=True):
                h = torch.sin(OMEGA * torch.baddbmm(bias, h, w))
            prediction = torch.baddbmm(biases[-1], h, weights[-1])
            loss = (prediction - flat[:, sample]).square().sum() / (POINTS * c)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
        rows = [
            torch.cat([w.detach().mT, bias.detach().mT], -1)
            for w, bias in zip(weights[1:-1], biases[1:-1], strict=True)
        ]
        found.append(torch.cat(rows, 1))
        done = min(len(images), first + CHUNK)
        spent = time.perf_counter() - started
        progress(ProgressEvent("fit SIRENs", done, len(images), spent))
    return torch.cat(found)
