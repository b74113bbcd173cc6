"""Where contours are: directional energy of an image at several scales, by steerable filters.

First and second derivatives of a Gaussian are steerable [1]_: the response in any direction is a
sum of those along the axes. The two together respond to edges and to lines alike. Logarithm and
power compress strong contours, as in [2]_, which has contourlets in place of these filters.

References
----------
.. [1] Freeman and Adelson, "The design and use of steerable filters", IEEE TPAMI 13, 1991.
.. [2] GauSAM, NeurIPS 2025.
"""

from __future__ import annotations

from itertools import product
from math import pi
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

SCALES = (0.7, 1.4, 2.8)
"""Standard deviations in cells of the lattice."""
FLAT_DIRECTIONS = 8
GAMMA = 0.5
REACH = 3.0  # standard deviations of the filters' support


def directions(ndim: int) -> NDArray[np.float64]:
    """Return unit vectors (D, ndim), one of each pair of opposite ones.

    Examples
    --------
    >>> directions(2).shape, directions(3).shape
    ((8, 2), (13, 3))
    """
    if ndim == 2:
        angles = np.arange(FLAT_DIRECTIONS) * pi / FLAT_DIRECTIONS
        return np.stack([np.sin(angles), np.cos(angles)], 1)
    # Axes, diagonals of faces and of the cube.
    every = [d for d in product((-1, 0, 1), repeat=3) if d > (0, 0, 0)]
    vectors = np.asarray(every, float)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class ContourEnergy(nn.Module):
    """Directional energy of an image at every cell of a lattice; nothing is learned.

    Parameters
    ----------
    ndim : {2, 3}

    Attributes
    ----------
    features : int
        Channels of the answer: for each scale the energy and its slope along each axis.
    """

    def __init__(self, ndim: int) -> None:
        super().__init__()
        from scipy.ndimage import gaussian_filter1d

        self.ndim = ndim
        self.features = len(SCALES) * (1 + ndim)
        self.directions: Tensor
        self.register_buffer(
            "directions", torch.tensor(directions(ndim), dtype=torch.float32), persistent=False
        )
        for k, scale in enumerate(SCALES):
            reach = int(np.ceil(REACH * scale))
            impulse = np.zeros(2 * reach + 1)
            impulse[reach] = 1
            taps = [gaussian_filter1d(impulse, scale, order=order) for order in range(3)]
            # Times scale^order: responses do not depend on the scale of the image. Convolutions
            # of networks are correlations, hence reversed.
            rows = [t[::-1] * scale**order for order, t in enumerate(taps)]
            taps_k = torch.tensor(np.stack(rows), dtype=torch.float32)
            self.register_buffer(f"taps{k}", taps_k, persistent=False)

    def _filter(self, image: Tensor, taps: Tensor, orders: tuple[int, ...]) -> Tensor:
        """Return the derivative of some order along each axis of (B, 1, ...)."""
        reach = taps.shape[1] // 2
        run = nn.functional.conv3d if self.ndim == 3 else nn.functional.conv2d
        for axis, order in enumerate(orders):
            shape = [1] * (self.ndim + 2)
            shape[2 + axis] = -1
            padding = [0] * (2 * self.ndim)
            place = 2 * (self.ndim - 1 - axis)
            padding[place] = padding[place + 1] = reach
            image = run(
                nn.functional.pad(image, padding, mode="replicate"), taps[order].reshape(shape)
            )
        return image

    @torch.no_grad()
    def forward(self, image: Tensor, size: tuple[int, ...]) -> Tensor:
        """Return (B, features, *size) energies and slopes of an image (B, C, ...).

        The energy of several contrasts is that of the strongest response.
        """
        pool: Any = (
            nn.functional.adaptive_avg_pool3d
            if self.ndim == 3
            else nn.functional.adaptive_avg_pool2d
        )
        channels = image.shape[1]
        cells = pool(image.float(), size).flatten(0, 1)[:, None]
        found = []
        for k in range(len(SCALES)):
            energy = self._energy(cells, getattr(self, f"taps{k}"))
            energy = energy.reshape(-1, channels, *size).amax(1)
            mean = energy.mean(tuple(range(1, energy.ndim)), keepdim=True)
            energy = energy / (mean + 1e-6)
            found.append(energy)
            for axis in range(self.ndim):
                found.append(_slope(energy, 1 + axis))
        return torch.stack(found, 1)

    def _energy(self, cells: Tensor, taps: Tensor) -> Tensor:
        ndim = self.ndim
        ones = [tuple(int(a == b) for b in range(ndim)) for a in range(ndim)]
        first = [self._filter(cells, taps, orders)[:, 0] for orders in ones]
        second = {
            (a, b): self._filter(
                cells, taps, tuple(x + y for x, y in zip(ones[a], ones[b], strict=True))
            )[:, 0]
            for a in range(ndim)
            for b in range(a, ndim)
        }
        total = torch.zeros_like(first[0])
        for direction in self.directions:
            edge = sum(direction[a] * first[a] for a in range(ndim))
            line = sum(
                direction[a] * direction[b] * value * (1 if a == b else 2)
                for (a, b), value in second.items()
            )
            response = (edge**2 + line**2 + 1e-12).sqrt()
            total = total + response.log1p() ** GAMMA
        return total / len(self.directions)


def _slope(energy: Tensor, axis: int) -> Tensor:
    """Return half of the difference of both neighbors along an axis, borders repeated."""
    n = energy.shape[axis]
    place = torch.arange(n, device=energy.device)
    after, before = (place + 1).clamp_max(n - 1), (place - 1).clamp_min(0)
    return (energy.index_select(axis, after) - energy.index_select(axis, before)) / 2
