"""Masks as logits of the Gaussians that the image itself is made of.

The image is fitted with Gaussians; a graph network gives each of them logits from the features at
its center, its shape and its neighbors; the logits are rendered with the Gaussians. Training goes
through the renderer: the target are voxels, not shares of classes in each Gaussian, which cannot
show a mask as well.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_medgs._typing import Floats
from napari_medgs.classification.networks.convolutions import EdgeConvolution
from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams, fit
from napari_medgs.learning.networks.slots import SegmenterConfig
from napari_medgs.learning.networks.splatting import render_logits
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
    to_parameters,
)

if TYPE_CHECKING:
    from torch import Tensor

DEPTH = 3
ITERATIONS = 10
"""Of the fit: 0.05 s for an image of 62,000 voxels, 0.12 s with the 40 of a segmentation."""
DEGREE = 1  # Gaussians of any direction, without curved folds
NEIGHBORS, WIDTH, LAYERS = 8, 48, 2
KEPT = 64
"""Fits that are kept for images that come again, as those of the validation do."""
SHAPE_COLUMNS = [LOG_R1, LOG_R2, LOG_RT, SHEAR, LOG_W, A1, B1]

_fits: OrderedDict[bytes, Floats] = OrderedDict()
_lock = threading.Lock()


def fit_table(image: NDArray[np.float32]) -> Floats:
    """Return the table (N, 14 + C) of the Gaussians that an image is fitted with.

    Parameters
    ----------
    image : (C, Y, X) or (C, Z, Y, X) ndarray

    Returns
    -------
    ndarray of float32
        See :mod:`napari_medgs.rendering.parameters`; slices along the first axis.
    """
    key = hashlib.blake2b(image.tobytes() + str(image.shape).encode()).digest()
    with _lock:
        if key in _fits:
            _fits.move_to_end(key)
            return _fits[key]
    stack = image[:, None] if image.ndim == DEPTH else image
    flat = [float(np.ptp(channel)) == 0 for channel in stack]
    if any(flat):  # nothing to fit: as good as noise
        noise = np.random.default_rng(0).normal(size=stack.shape[1:]).astype(np.float32)
        stack = np.stack([noise if f else c for c, f in zip(stack, flat, strict=True)])
    params = FitParams(
        iterations=ITERATIONS,
        fold=DEGREE,
        slice_axis=0,
        interpolate=False,
        backend="cpu",
        threads=torch.get_num_threads(),
    )
    field = fit(Volume.from_array(stack), params).field
    table = to_parameters(field)
    with _lock:
        _fits[key] = table
        while len(_fits) > KEPT:
            _fits.popitem(last=False)
    return table


class FieldDecoder(nn.Module):
    """Logits of the image's own Gaussians, by message passing between neighbors.

    Parameters
    ----------
    config : SegmenterConfig
    widths : tuple of int
        Channels of the features, coarse to fine.
    """

    def __init__(self, config: SegmenterConfig, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.ndim = config.ndim
        shape = len(SHAPE_COLUMNS) + config.channels
        self.lift = nn.Linear(sum(widths) + shape, WIDTH)
        self.layers = nn.ModuleList(EdgeConvolution(WIDTH, 2 + DEPTH) for _ in range(LAYERS))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, config.classes))

    def forward(self, features: list[Tensor], size: tuple[int, ...], image: Tensor) -> Tensor:
        """Return logits; see the protocol."""
        with torch.autocast(image.device.type, enabled=False):
            return torch.stack(
                [
                    self._render([level[b : b + 1].float() for level in features], size, image[b])
                    for b in range(len(image))
                ]
            )

    def _render(self, features: list[Tensor], size: tuple[int, ...], image: Tensor) -> Tensor:
        """Return the logits (K, *size) of one image (C, ...)."""
        source = np.ascontiguousarray(image.detach().float().cpu().numpy())
        table = torch.from_numpy(fit_table(source).copy()).to(image.device)
        logits = self._logits(features, table, tuple(image.shape[1:]))
        geometry = _scaled(table[:, :GEOMETRY], tuple(image.shape[1:]), size)
        return render_logits(torch.cat([geometry, logits], 1), size, DEGREE)

    def _logits(self, features: list[Tensor], table: Tensor, size: tuple[int, ...]) -> Tensor:
        """Return the logits (N, K) of Gaussians."""
        nodes = [_sample(level, table, size) for level in features]
        shape = table[:, [*SHAPE_COLUMNS, *range(GEOMETRY, table.shape[1])]]
        nodes.append(shape.clamp(-10, 10))
        h = self.lift(torch.cat(nodes, 1))
        edges, attributes = _graph(table)
        for layer in self.layers:
            h = layer(h, edges, attributes)
        found: Tensor = self.head(h)
        return found


def _sample(level: Tensor, table: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return the features (N, W) of one level (1, W, ...) at the centers of Gaussians."""
    columns = (X, Y, T)[: len(size)]
    extent = torch.tensor(size[::-1], device=table.device, dtype=table.dtype)
    place = 2 * (table[:, list(columns)] + 0.5) / extent - 1
    place = place.reshape(1, -1, *(1,) * (len(size) - 1), len(size))
    found = nn.functional.grid_sample(level, place, padding_mode="border", align_corners=False)
    return found.flatten(2)[0].mT


def _graph(table: Tensor) -> tuple[Tensor, Tensor]:
    """Return edges (2, E), sorted by target, to the nearest Gaussians, and their features."""
    from scipy.spatial import KDTree

    centers = table[:, [T, Y, X]]
    count = min(NEIGHBORS, len(centers))
    points = centers.cpu().numpy()
    near = KDTree(points).query(points, count)[1].reshape(len(points), count)
    source = torch.from_numpy(near.astype(np.int64).ravel()).to(table.device)
    target = torch.arange(len(points), device=table.device).repeat_interleave(count)
    offset = centers[source] - centers[target]
    distance = offset.norm(dim=1, keepdim=True)
    # Also in standard deviations of the target along rows and columns: how far they overlap.
    overlap = distance * table[target][:, [LOG_R1, LOG_R2]].mean(1, keepdim=True).exp()
    attributes = torch.cat([offset / (1 + distance), distance.log1p(), overlap.log1p()], 1)
    return torch.stack([source, target]), attributes


def _scaled(geometry: Tensor, size: tuple[int, ...], wanted: tuple[int, ...]) -> Tensor:
    """Return the geometry of Gaussians on a grid of another resolution."""
    if tuple(size) == tuple(wanted):
        return geometry
    ratio = [n / m for n, m in zip(wanted, size, strict=True)]
    along, rows, columns = ([1.0] * (DEPTH - len(ratio)) + ratio)[:DEPTH]
    out = geometry.clone()
    for column, factor in ((X, columns), (Y, rows), (T, along)):
        out[:, column] = (geometry[:, column] + 0.5) * factor - 0.5
    for column, factor in ((LOG_R1, columns), (LOG_R2, rows), (LOG_RT, along)):
        out[:, column] -= float(np.log(factor))
    out[:, A1] *= columns / along
    out[:, B1] *= rows / along
    return out
