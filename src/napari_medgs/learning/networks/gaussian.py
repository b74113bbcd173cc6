"""Masks as fields of Gaussians: one on every cell of a lattice, placed by the features.

Every cell of the finest features predicts one Gaussian: how far its center is off the cell's, its
size along each axis, a shear, a weight and the logits of the classes; the logits of a voxel are
the weighted mean of the Gaussians that reach it, at any resolution of the output [1]_. With
guidance, directional energy of the image's contours tells where Gaussians move, and the cells of
the highest energy get smaller ones, too.

References
----------
.. [1] GauSAM, NeurIPS 2025, which has one feature vector a Gaussian and decodes their sum; here
   the logits themselves are blended, normalized, which trains in fewer steps.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_medgs.learning.networks.contour_energy import ContourEnergy
from napari_medgs.learning.networks.slots import SegmenterConfig
from napari_medgs.learning.networks.splatting import gaussian_table, render_logits
from napari_medgs.learning.networks.unet import convolution

if TYPE_CHECKING:
    from torch import Tensor

DRIFT = 0.75
"""Cells that a center can move along each axis."""
SIGMA = 0.5
"""Cells; standard deviation at the start, along each axis."""
STRETCH = log(3.0)
"""Natural logarithm of the factor by which a standard deviation can change."""
SHEAR, WEIGHT = 0.8, 2.0  # largest shear, and logarithm of the weight
PACE = 0.1
"""Geometry learns so much slower than logits: as fast, it cost 0.02 to 0.04 Dice."""
CHILDREN = 8
"""One of so many cells, those of the highest contour energy, is split."""


class GaussianDecoder(nn.Module):
    """Logits blended from one Gaussian a cell.

    Parameters
    ----------
    config : SegmenterConfig
    widths : tuple of int
        Channels of the features, coarse to fine.
    """

    guided = False

    def __init__(self, config: SegmenterConfig, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.ndim, self.classes = config.ndim, config.classes
        layer, width = convolution(config.ndim), widths[-1]
        self.logits = layer(width, config.classes, 1)
        self.energy = ContourEnergy(config.ndim) if self.guided else None
        more = self.energy.features if self.energy is not None else 0
        self.hidden = nn.Sequential(layer(width + more, width, 1), nn.LeakyReLU(0.01))
        # Drift, log-size, shear, log-weight. It starts at zero: a regular lattice.
        self.shape = _zero(layer(width, 2 * config.ndim + 2, 1))
        if self.guided:
            self.parts = 2**config.ndim
            count = self.parts * (2 * config.ndim + 2 + config.classes)
            self.finer = _zero(nn.Linear(width, count))

    def forward(self, features: list[Tensor], size: tuple[int, ...], image: Tensor) -> Tensor:
        """Return logits; see the protocol."""
        with torch.autocast(image.device.type, enabled=False):
            tables = self.tables(features[-1].float(), size, image)
            return torch.stack([render_logits(table, size) for table in tables])

    def tables(self, fine: Tensor, size: tuple[int, ...], image: Tensor) -> Tensor:
        """Return the engines' tables (B, N, 14 + K) of the Gaussians, centers in output voxels."""
        cells = tuple(fine.shape[2:])
        scale = torch.tensor([n / m for n, m in zip(size, cells, strict=True)], device=fine.device)
        energy = None if self.energy is None else self.energy(image, cells)
        seen = fine if energy is None else torch.cat([fine, energy], 1)
        hidden = self.hidden(seen)
        place = _cell_centers(cells, fine.device)
        rows = PACE * self.shape(hidden).flatten(2).mT
        logits = self.logits(fine).flatten(2).mT
        table = self._table(place, rows, logits, scale, 1.0)
        if energy is None:
            return table
        return torch.cat([table, self._split(place, hidden, energy, logits, scale)], 1)

    def _table(
        self, place: Tensor, rows: Tensor, logits: Tensor, scale: Tensor, cell: float
    ) -> Tensor:
        """Return the table of Gaussians on cells at some places; ``cell`` is the cells' size."""
        n = self.ndim
        centers = (place + cell * DRIFT * rows[..., :n].tanh()) * scale - 0.5
        log_sigma = STRETCH * rows[..., n : 2 * n].tanh() + (SIGMA * cell * scale).log()
        shear = SHEAR * rows[..., 2 * n].tanh()
        weight = WEIGHT * rows[..., 2 * n + 1].tanh()
        return gaussian_table(centers, -log_sigma, shear, weight, logits)

    def _split(
        self, place: Tensor, hidden: Tensor, energy: Tensor, logits: Tensor, scale: Tensor
    ) -> Tensor:
        """Return the table of the smaller Gaussians on the cells of the highest energy."""
        n, parts = self.ndim, self.parts
        strongest = energy[:, :: 1 + n].amax(1).flatten(1)
        count = max(1, strongest.shape[1] // CHILDREN)
        chosen = strongest.topk(count, 1).indices

        def pick(values: Tensor) -> Tensor:
            return values.gather(1, chosen[..., None].expand(-1, -1, values.shape[-1]))

        batch = len(chosen)
        rows = self.finer(pick(hidden.flatten(2).mT)).unflatten(-1, (parts, -1))
        geometry, change = PACE * rows[..., : -self.classes], rows[..., -self.classes :]
        corners = _cell_centers((2,) * n, place.device) / 2 - 0.5
        centers = pick(place.expand(batch, -1, -1))[:, :, None] + corners
        finer = pick(logits)[:, :, None] + change
        table = self._table(centers, geometry, finer, scale, 0.5)
        return table.flatten(1, 2)


class GuidedGaussianDecoder(GaussianDecoder):
    """The same, guided by the energy of contours."""

    guided = True


def _cell_centers(cells: tuple[int, ...], device: Any) -> Tensor:
    """Return the centers (1, N, D) of cells, in cells from the lattice's edge."""
    axes = [torch.arange(n, device=device) + 0.5 for n in cells]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)[None]


def _zero(layer: Any) -> Any:
    """Return a layer whose answer is zero at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
