"""Images that are too large for the memory: a coarser level of them as a layer of its own.

Multiscale layers have such levels; of others one is made, by averaging blocks of voxels. Lazy
arrays are read block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.memory import free_bytes
from napari_medgs.data.grid import Grid
from napari_medgs.errors import MemoryEstimateError
from napari_medgs.plugin.layer_frame import check_layer, frame_of, same_place
from napari_medgs.plugin.layer_orientation import (
    GRID_KEY,
    TRANSFORM_KEY,
    layer_matrix,
    unit_scale,
)
from napari_medgs.plugin.report import show_hint
from napari_medgs.plugin.responsive import run_responsive

LEVEL_KEY = "medgs_level"  # name of the layer that a level is of, and its factors
SHARE = 0.85  # of the free memory may be used
GAUSSIANS = 150_000  # of a field that is not fitted yet
SMALLEST = 16  # voxels along an axis that is not made coarser
Shape = tuple[int, int, int]
Need = Callable[[Shape, int], int]


@dataclass(frozen=True)
class Level:
    """A level of an image.

    Attributes
    ----------
    data : array
        Any array, lazy or not.
    factors : tuple of int or float
        Voxels of the finest level per voxel, by axis.
    block : tuple of int
        Voxels of ``data`` to average, by axis; ones where a level is there already.
    """

    data: Any
    factors: tuple[float, ...]
    block: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels by axis."""
        return tuple(int(n) // b for n, b in zip(self.data.shape, self.block, strict=True))

    def read(self) -> NDArray[Any]:
        """Return the level in memory."""
        if all(b == 1 for b in self.block):
            return np.asarray(self.data)
        from skimage.measure import block_reduce

        out = np.empty(self.shape, np.float32)
        rows, counts = self.block[0], [n * b for n, b in zip(self.shape, self.block, strict=True)]
        inside = tuple(slice(0, count) for count in counts[1:])
        for k in range(self.shape[0]):
            part = np.asarray(self.data[(slice(k * rows, (k + 1) * rows), *inside)], np.float32)
            out[k] = block_reduce(part, self.block, np.mean)[0]
        return out


def fit_need(shape: Shape, contrasts: int) -> int:
    """Return about how many bytes a fit needs, with its input and its pictures."""
    from napari_medgs.fitting.memory import estimate_bytes

    voxels = int(np.prod(shape, dtype=np.int64))
    return (
        estimate_bytes(shape, contrasts, 0, min(GAUSSIANS, voxels // 8)) + 12 * voxels * contrasts
    )


def segment_need(shape: Shape, contrasts: int) -> int:
    """Return about how many bytes a segmentation of two classes needs, with its layers."""
    from napari_medgs.segmentation.memory import estimate_bytes

    voxels = int(np.prod(shape, dtype=np.int64))
    return (
        estimate_bytes(shape, contrasts, 3, min(GAUSSIANS, voxels // 8))
        + (8 + 8 * contrasts) * voxels
    )


def levels_of(layer: Any) -> list[Level]:
    """Return the levels of an image layer, finest first; coarser ones are made where needed."""
    arrays = list(layer.data) if layer.multiscale else [layer.data]
    finest = arrays[0].shape
    ones = (1,) * len(finest)
    levels = []
    for array in arrays:
        factors = tuple(n / m for n, m in zip(finest, array.shape, strict=True))
        levels.append(Level(array, factors, ones))
    last, block = levels[-1], list(ones)
    spacing = np.abs(np.diag(layer_matrix(layer))[: len(finest)]) * np.asarray(last.factors)
    while True:
        size = [n // b for n, b in zip(last.data.shape, block, strict=True)]
        pitch = spacing * block
        # The finest axes first, so that voxels become cubes.
        chosen = [
            k for k, n in enumerate(size) if n >= 2 * SMALLEST and pitch[k] < 1.5 * pitch.min()
        ]
        if not chosen:
            return levels
        for k in chosen:
            block[k] *= 2
        factors = tuple(f * b for f, b in zip(last.factors, block, strict=True))
        levels.append(Level(last.data, factors, tuple(block)))


def at_fitting_level(viewer: Any, layers: Sequence[Any], need: Need, what: str) -> list[Any]:
    """Return images of a size that the memory allows: the given ones, or coarser ones of them.

    Coarser ones become layers of the viewer, and a notification says so.

    Parameters
    ----------
    viewer : napari.Viewer
    layers : sequence of napari.layers.Image
        On one grid.
    need : callable
        Shape and number of contrasts -> bytes: :func:`fit_need` or :func:`segment_need`.
    what : str
        What is to be done, as the subject of a sentence.

    Returns
    -------
    list of napari.layers.Image

    Raises
    ------
    ImageError
        See :func:`~napari_medgs.plugin.layer_frame.check_layer`.
    MemoryEstimateError
        When not even the coarsest level fits.
    """
    images = list(layers)
    for layer in images:
        check_layer(layer)
    if not images or images[0].ndim != 3 or not all(same_place(images[0], x) for x in images):
        return images  # refused, or small
    free = free_bytes()
    found = [levels_of(layer) for layer in images]
    counts = min(len(levels) for levels in found)
    wanted = [need(_shape(found[0][k]), len(images)) for k in range(counts)]
    index = next((k for k, size in enumerate(wanted) if size <= SHARE * free), None)
    if index == 0:
        return images
    says = (
        f"{what} of {images[0].name!r} needs about {wanted[0] / 2**30:.1f} GiB and "
        f"{free / 2**30:.1f} GiB are free"
    )
    if index is None:
        raise MemoryEstimateError(f"{says}: crop the image, or close other programs.")
    made = [_level_layer(viewer, x, levels[index]) for x, levels in zip(images, found)]
    show_hint(f"{says}: it is done on {made[0].name!r}, a layer of coarser voxels.")
    return made


def _shape(level: Level) -> Shape:
    z, y, x = level.shape
    return z, y, x


def _level_layer(viewer: Any, layer: Any, level: Level) -> Any:
    from napari.layers import Image

    key = {"of": layer.name, "factors": [float(f) for f in level.factors]}
    for other in viewer.layers:
        if other.metadata.get(LEVEL_KEY) == key:
            return other
    data = run_responsive(partial(level.read), f"Reading {layer.name}")
    factors = np.asarray(level.factors)
    step = np.diag([*factors, 1.0])
    step[:3, 3] = (factors - 1) / 2  # the middle of a block of voxels
    matrix = layer_matrix(layer) @ step
    linear = matrix[:3, :3]
    straight = np.allclose(linear, np.diag(np.diag(linear)))
    place: dict[str, Any] = {"affine": matrix}
    if straight:
        place = {"scale": np.diag(linear), "translate": matrix[:3, 3]}
    metadata: dict[str, Any] = {k: v for k, v in layer.metadata.items() if k == "path"}
    metadata[LEVEL_KEY] = key
    frame = frame_of(layer)
    if GRID_KEY in layer.metadata and frame.order == (0, 1, 2) and not any(frame.flips):
        grid = Grid(_shape(level), frame.grid.affine @ step, dict(frame.grid.source))
        metadata[GRID_KEY] = grid.to_dict()
        millimeters = np.diag([*[unit_scale(layer)] * 3, 1.0]) @ matrix
        metadata[TRANSFORM_KEY] = millimeters.tolist()
    size = " x ".join(f"{abs(s):.3g}" for s in np.linalg.norm(linear, axis=0))
    made = Image(
        data,
        name=f"{layer.name} · {size}",
        colormap=layer.colormap,
        contrast_limits=layer.contrast_limits,
        units=layer.units,
        axis_labels=layer.axis_labels,
        metadata=metadata,
        **place,
    )
    viewer.add_layer(made)
    return made
