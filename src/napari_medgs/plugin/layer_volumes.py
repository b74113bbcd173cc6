"""Volumes and masks of napari's layers, on the canonical grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.errors import GeometryError, ImageError, LabelError
from napari_medgs.plugin.layer_frame import (
    LayerFrame,
    array_of,
    check_layer,
    frame_of,
    same_place,
)
from napari_medgs.plugin.layer_orientation import is_assumed

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume


def volume_from_layers(layers: Sequence[Any]) -> tuple[Volume, LayerFrame]:
    """Make one volume of Image layers: each is a contrast.

    Parameters
    ----------
    layers : sequence of napari.layers.Image
        2D or 3D, from any reader, at the same place.

    Returns
    -------
    volume : Volume
        (C, Z, Y, X) on the canonical grid.
    frame : LayerFrame
        Back to the layers' axes.

    Raises
    ------
    ImageError, GeometryError
        For what cannot be fitted, and for layers at different places.
    """
    from napari_medgs.data.volume import Volume

    if not layers:
        raise ImageError("Choose at least one image layer.")
    for layer in layers:
        check_layer(layer)
        if not same_place(layers[0], layer):
            raise GeometryError(
                f"{layer.name!r} and {layers[0].name!r} differ in shape, voxel size or place: "
                "contrasts must be on one grid. Press 'Resample' below the list of images."
            )
    frames = [frame_of(layer) for layer in layers]
    frame = next((known for known in frames if not is_assumed(known.grid)), frames[0])
    data = np.stack([frame.to_canonical(array_of(layer)) for layer in layers])
    volume = Volume(data, frame.grid, tuple(layer.name for layer in layers))
    return volume, frame


def volume_from_rgb(layer: Any) -> tuple[Volume, LayerFrame]:
    """Make a volume of the three colors of an RGB or RGBA layer; opacity is left out.

    Parameters
    ----------
    layer : napari.layers.Image
        With ``layer.rgb``.

    Returns
    -------
    volume : Volume
        (3, Z, Y, X) on the canonical grid.
    frame : LayerFrame
        Back to the layer's axes.

    Raises
    ------
    ImageError, GeometryError
        As :func:`frame_of`.
    """
    from napari_medgs.data.volume import Volume

    frame = frame_of(layer, colors=True)
    array = array_of(layer)
    data = np.stack([frame.to_canonical(array[..., k]) for k in range(3)])
    return Volume(data, frame.grid, ("red", "green", "blue")), frame


def labels_like(
    labels: Any, image: Any, frame: LayerFrame, *, resample: bool = False
) -> NDArray[Any]:
    """Return the array of a Labels layer on the canonical grid of an image layer.

    A mask of another extent with the same voxels, as Slicer crops them, is padded and cropped.
    With ``resample``, one of any other grid is brought over by the nearest label.

    Raises
    ------
    GeometryError
        When the two are not on one grid, or cannot be compared.
    LabelError
        When no voxel is labeled.
    """
    array = array_of(labels)
    if not same_place(labels, image):
        return _placed(labels, array, image, frame, resample)
    if not array.any():
        raise LabelError(f"The mask {labels.name!r} is empty: paint something, or choose none.")
    return frame.to_canonical(array)


def _placed(
    labels: Any, array: NDArray[Any], image: Any, frame: LayerFrame, resample: bool
) -> NDArray[Any]:
    """Return a mask of another extent, or of another grid, on the grid of an image."""
    from napari_medgs.io._axes import is_part_of, place_on_grid

    own = frame_of(labels) if labels.ndim == 3 else None
    if own is not None and resample:
        from napari_medgs.data.resampling import resample_labels

        grids = own.grid, frame.grid
        if all(is_assumed(grid) for grid in grids):  # both lie in the viewer's world
            grids = Grid(grids[0].shape, grids[0].affine), Grid(grids[1].shape, grids[1].affine)
        name = f"The mask {labels.name!r}"
        placed = resample_labels(own.to_canonical(array), *grids, name=name)
    elif own is None or not is_part_of(own.grid, frame.grid):
        raise GeometryError(
            f"The mask {labels.name!r} and the image {image.name!r} differ in shape, voxel size "
            "or place. Check 'Resample' to take the nearest labels, or paint on a Labels layer "
            "that was made for this image."
        )
    else:
        placed = place_on_grid(own.to_canonical(array), own.grid, frame.grid, labels.name)
    if not placed.any():
        raise LabelError(f"The mask {labels.name!r} has no label within {image.name!r}.")
    return placed
