"""A trained segmenter: masks and probabilities of an image, and what the folds say of them."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.memory import free_bytes
from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs._util.threads import limit_torch_threads
from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.errors import MemoryEstimateError, ParameterError
from napari_medgs.learning.card import SegmenterCard, scale_channel
from napari_medgs.learning.components import keep_largest, move_probabilities, single_classes
from napari_medgs.learning.refinement import forest_probabilities
from napari_medgs.learning.resampling import SAME, axis_weights, resample_image
from napari_medgs.learning.tiles import tile_size, tiled_probabilities

if TYPE_CHECKING:
    import torch
    from torch import nn

TILE_FACTOR = 2.5
"""Largest tiles of inference over training patches, along every axis."""
MOST_TILE_VOXELS = {"cpu": 128**3, "cuda": 160**3}
LARGEST_PRIOR_VALUE = 248
BYTES_PER_CHANNEL = 52
"""Memory of a voxel of a tile and a channel, both of the finest level; measured for U-Nets."""


@dataclass(frozen=True)
class SegmenterResult:
    """What a segmenter says of an image.

    Attributes
    ----------
    labels : (Z, Y, X) ndarray of uint8 or uint16
        Label values of the classes, 0 is background, on the image's grid.
    grid : Grid
    probabilities : (K, Z, Y, X) ndarray of float32, optional
        Of every class, background first; where they were asked for.
    fold_labels : tuple of (Z, Y, X) ndarray
        The masks of the networks of the folds, where they were asked for.
    names : dict of int to str
        Classes by label value.
    seconds : float
    """

    labels: NDArray[Any]
    grid: Grid
    probabilities: Floats | None = None
    fold_labels: tuple[NDArray[Any], ...] = ()
    names: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    def probability(self) -> Floats:
        """Return the probabilities.

        Raises
        ------
        ParameterError
            When they were not asked for.
        """
        if self.probabilities is None:
            raise ParameterError("The probabilities were not kept; segment with probabilities.")
        return self.probabilities

    def uncertainty(self) -> Floats:
        """Return one minus the largest probability of every voxel, (Z, Y, X)."""
        return np.asarray(1 - self.probability().max(axis=0), np.float32)


class Segmenter:
    """A trained model: one network, and one more for every fold.

    Parameters
    ----------
    card : SegmenterCard
    networks : sequence of torch.nn.Module
        That trained on all cases first, then those of the folds.

    Examples
    --------
    >>> from napari_medgs.learning import load_segmenter
    >>> model = load_segmenter("liver.safetensors")  # doctest: +SKIP
    >>> result = model.segment(volume)  # doctest: +SKIP
    """

    def __init__(self, card: SegmenterCard, networks: Sequence[nn.Module]) -> None:
        self.card = card
        self.networks = tuple(network.eval().requires_grad_(False) for network in networks)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.networks[0].parameters()).device

    def to(self, device: torch.device | str) -> Segmenter:
        """Move the weights to a device; returns the segmenter itself."""
        for network in self.networks:
            network.to(device)
        return self

    def by_value(self, probabilities: Floats) -> Floats:
        """Return probabilities by label value instead of by class, as prompts take a prior.

        Parameters
        ----------
        probabilities : (K, Z, Y, X) ndarray

        Returns
        -------
        (V, Z, Y, X) ndarray
            Values without a class are 0.

        Raises
        ------
        ParameterError
            When a value is too large.
        """
        values = self.card.class_values
        if max(values) > LARGEST_PRIOR_VALUE:
            raise ParameterError(
                f"The model has a class of value {max(values)}; to correct its masks, values up "
                f"to {LARGEST_PRIOR_VALUE} can be used. Segment without prompts."
            )
        if values == tuple(range(1, len(values) + 1)):
            return probabilities
        prior = np.zeros((max(values) + 1, *probabilities.shape[1:]), probabilities.dtype)
        prior[[0, *values]] = probabilities
        return prior

    def inputs(self, volume: Volume, absent: Collection[int] = ()) -> Floats:
        """Return what the network reads of an image, resampled and scaled.

        Parameters
        ----------
        volume : Volume
            With finite values.
        absent : collection of int
            Contrasts to leave out: they become their mean, 0.

        Returns
        -------
        (C, Z, Y, X) ndarray of float32

        Raises
        ------
        ImageError
            When the image has other contrasts than the model.
        """
        self.card.check_image(volume)
        shape = self.shape_for(volume.grid)
        out = np.zeros((volume.channels, *shape), np.float32)
        for c, scale in enumerate(self.card.scales):
            if c not in absent:
                out[c] = resample_image(scale_channel(volume.channel(c), scale), shape)
        return out

    def shape_for(self, grid: Grid) -> tuple[int, int, int]:
        """Return the shape (z, y, x) at which the network sees a grid."""
        pairs = list(zip(grid.shape, grid.spacing, self.card.spacing, strict=True))
        if all(n == 1 or abs(own / wanted - 1) <= SAME for n, own, wanted in pairs):
            return grid.shape
        return self.card.working_shape(grid)

    def segment(
        self,
        volume: Volume,
        *,
        probabilities: bool = False,
        folds: bool = False,
        absent: Collection[int] = (),
        forest: bool = False,
        largest: bool | None = None,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> SegmenterResult:
        """Segment an image.

        Networks use the threads that :func:`~napari_medgs._util.threads.limit_threads` allows.

        Parameters
        ----------
        volume : Volume
        probabilities : bool
            Return the probabilities, too.
        folds : bool
            Return the masks of the folds' networks, too.
        absent : collection of int
            Contrasts to leave out.
        forest : bool
            See the whole image at half of the resolution, and again where that is unsure; see
            :mod:`napari_medgs.learning.refinement`.
        largest : bool, optional
            Keep the largest component of every class only; None for the classes of which the
            model's card says so. The masks of the folds stay as they are.
        progress, should_stop : callable, optional
            Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

        Returns
        -------
        SegmenterResult

        Raises
        ------
        ImageError
            When the image has other contrasts than the model, or cannot be used.
        MemoryEstimateError
            When it would not fit into memory.
        Cancelled
            When ``should_stop`` returned True.
        """
        started = time.perf_counter()
        volume = volume.prepared()
        self.card.check_image(volume)
        self._check_memory(volume.grid, probabilities)
        inputs = self.inputs(volume, absent)
        networks = self.networks if folds else self.networks[:1]
        labels, found = [], None
        with limit_torch_threads(None):
            for k, network in enumerate(networks):

                def report(done: int, total: int, k: int = k) -> None:
                    spent = time.perf_counter() - started
                    whole = len(networks) * total
                    progress(ProgressEvent("segment", k * total + done, whole, spent))

                wanted = probabilities and k == 0
                mask, soft = self._run(
                    network, inputs, volume.grid, wanted, report, should_stop, forest
                )
                labels.append(mask)
                found = soft if wanted else found
        if largest is None or largest:
            kept = self.card.class_values if largest else single_classes(self.card)
            labels[0] = self._without_stray(labels[0], kept, found)
        seconds = time.perf_counter() - started
        return SegmenterResult(
            labels[0], volume.grid, found, tuple(labels[1:]), self.card.names, seconds
        )

    def _without_stray(
        self, labels: NDArray[Any], values: Collection[int], probabilities: Floats | None
    ) -> NDArray[Any]:
        """Return labels without the smaller components of classes; probabilities follow."""
        kept = keep_largest(labels, values, flat=self.card.network.ndim == 2)
        if probabilities is not None and kept is not labels:
            changed = kept != labels
            move_probabilities(probabilities, changed, np.zeros(int(changed.sum()), np.int64))
        return kept

    def _run(
        self,
        network: nn.Module,
        inputs: Floats,
        grid: Grid,
        probabilities: bool,
        report: Any,
        should_stop: StopCallback,
        forest: bool,
    ) -> tuple[NDArray[Any], Floats | None]:
        """Return labels, and probabilities where wanted, on the image's grid."""
        shape = inputs.shape[1:]
        flat = self.card.network.ndim == 2
        tile = self._tile(shape)
        classes = self.card.network.classes
        values = np.array([0, *self.card.class_values])
        values = values.astype(np.min_scalar_type(int(values.max())))
        device = self.device
        working = np.empty((classes, *shape), np.float16 if shape != grid.shape else np.float32)
        direct = shape == grid.shape and not probabilities
        labels = np.empty(grid.shape, values.dtype)
        planes = range(shape[0]) if flat else (0,)
        for z in planes:
            image = inputs[:, z] if flat else inputs
            for first, last, found in (forest_probabilities if forest else tiled_probabilities)(
                network, image, tile, device=device, should_stop=should_stop,
                least=self.card.patch[flat:], progress=None if flat else report,
            ):  # fmt: skip
                where = (z, slice(first, last)) if flat else (slice(first, last),)
                if direct:
                    labels[where] = values[found.argmax(0)]
                else:
                    working[(slice(None), *where)] = found
            if flat:
                report(z + 1, len(planes))
        if direct:
            return labels, None
        if shape == grid.shape:
            return values[working.argmax(0)], working
        out = np.empty((classes, *grid.shape), np.float32) if probabilities else None
        below, above, weight = axis_weights(shape[0], grid.shape[0])
        for z in range(grid.shape[0]):
            plane = working[:, below[z]].astype(np.float32)
            if weight[z]:
                plane += weight[z] * (working[:, above[z]].astype(np.float32) - plane)
            whole = _resample_plane(plane, grid.shape[1:])
            labels[z] = values[whole.argmax(0)]
            if out is not None:
                out[:, z] = whole
        return labels, out

    def _tile(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the largest tile for an image of some shape at the model's spacing."""
        most = MOST_TILE_VOXELS.get(self.device.type, MOST_TILE_VOXELS["cpu"])
        multiple = (1,) * (3 - self.card.network.ndim) + self.card.network.multiple
        largest = [
            max(m, int(TILE_FACTOR * p) // m * m)
            for p, m in zip(self.card.patch, multiple, strict=True)
        ]
        while np.prod(largest) > most:
            axis = int(np.argmax(largest))
            m = multiple[axis]
            largest[axis] = max(m, int(0.8 * largest[axis]) // m * m)
        # Smaller images lie in the middle of a patch.
        seen = [max(n, p) for n, p in zip(shape, self.card.patch, strict=True)]
        tile = [tile_size(*sizes) for sizes in zip(seen, largest, multiple, strict=True)]
        return tuple(tile[3 - self.card.network.ndim :])

    def _check_memory(self, grid: Grid, probabilities: bool) -> None:
        """Refuse an image whose segmentation would not fit into memory."""
        shape = self.shape_for(grid)
        voxels, whole = int(np.prod(shape)), int(np.prod(grid.shape))
        classes = self.card.network.classes
        config, tile = self.card.network, self._tile(shape)
        inside = int(np.prod(tile))
        finest = BYTES_PER_CHANNEL * config.widths[0] / int(np.prod(config.strides[0]))
        # One contrast as floats, its voxels that are not empty, and labels.
        needed = 4.0 * len(self.card.scales) * voxels + 11 * whole
        needed += inside * max(finest, 12 * classes)
        if inside < voxels:  # sums of the tiles of one row
            needed += 4 * (classes + 1) * voxels * tile[0] / max(1, shape[3 - config.ndim])
        if shape != grid.shape:
            needed += 2 * classes * voxels + 4 * classes * whole * probabilities
        elif probabilities:
            needed += 4 * classes * voxels
        free = free_bytes()
        if needed > free:
            raise MemoryEstimateError(
                f"Segmenting this image needs about {needed / 2**30:.1f} GiB of memory, "
                f"{free / 2**30:.1f} GiB are free; crop it, or close other programs."
            )


def _resample_plane(plane: Floats, shape: Sequence[int]) -> Floats:
    """Return (K, Y, X) probabilities of another shape, by linear interpolation."""
    for axis, new in ((1, shape[0]), (2, shape[1])):
        size = plane.shape[axis]
        if size == new:
            continue
        below, above, weight = axis_weights(size, new)
        low = plane.take(below, axis)
        factor = weight[:, None] if axis == 1 else weight
        plane = low + (plane.take(above, axis) - low) * factor
    return plane
