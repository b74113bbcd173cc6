"""What a viewer's layer says about space, as channels, three axes and an affine to RAS mm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import GeometryError, ImageError

_TO_MM = {
    "mm": 1.0,
    "millimeter": 1.0,
    "millimetre": 1.0,
    "um": 1e-3,
    "µm": 1e-3,
    "μm": 1e-3,
    "micron": 1e-3,
    "micrometer": 1e-3,
    "micrometre": 1e-3,
    "nm": 1e-6,
    "nanometer": 1e-6,
    "nanometre": 1e-6,
    "cm": 10.0,
    "centimeter": 10.0,
    "centimetre": 10.0,
    "m": 1e3,
    "meter": 1e3,
    "metre": 1e3,
    # A layer without a unit is taken as millimetres, as viewers draw it.
    "": 1.0,
    "pixel": 1.0,
    "px": 1.0,
    "dimensionless": 1.0,
}


def layer_array(
    data: NDArray[Any],
    matrix: NDArray[np.float64],
    *,
    units: str | Sequence[str],
    world_to_ras: NDArray[np.float64],
    rgb: bool,
    channel_axis: int | None,
) -> tuple[NDArray[Any], NDArray[np.float64], tuple[str, ...]]:
    """Return a layer's data as (C, A, B, C'), their affine to RAS mm, and channel names.

    The parameters are those of :meth:`napari_medgs.data.volume.Volume.from_transform`. The names
    are
    empty unless the layer has colours.

    Raises
    ------
    ImageError
        When the data have another number of axes, or are empty.
    GeometryError
        When the matrix does not fit the data or mixes channels with space, or a unit is no
        length.
    """
    names: tuple[str, ...] = ()
    if rgb:
        if data.ndim < 3 or data.shape[-1] not in (3, 4):
            raise ImageError(f"The layer of shape {data.shape} holds no RGB colours.")
        data = np.moveaxis(data, -1, 0)[:3]
        names = ("red", "green", "blue")
        channel_axis = None
    axes = data.ndim - 1 if rgb else data.ndim
    if data.size == 0:
        raise ImageError(f"The image is empty: its shape is {data.shape}.")
    if matrix.shape != (axes + 1, axes + 1):
        raise GeometryError(
            f"The transform is a {matrix.shape} matrix; data with {axes} axes need "
            f"{(axes + 1, axes + 1)}."
        )
    listed = [units] * axes if isinstance(units, str) else [str(u) for u in units]
    if len(listed) != axes:
        raise GeometryError(f"There are {len(listed)} units for {axes} axes.")
    if channel_axis is not None:
        if not -axes <= channel_axis < axes:
            raise ImageError(f"The layer has {axes} axes; there is no axis {channel_axis}.")
        channel_axis %= axes
        data = np.moveaxis(data, channel_axis, 0)
        matrix = _drop_channels(matrix, channel_axis)
        del listed[channel_axis]
        axes -= 1
    elif not rgb:
        data = data[None]
    if axes not in (2, 3):
        raise ImageError(
            f"The layer has {axes} spatial axes; 2 or 3 are needed. Say which axis holds "
            "channels, or pick one time point."
        )
    matrix = np.diag([*(_millimetres(unit) for unit in listed), 1.0]) @ matrix
    if axes == 2:
        data = data[:, None]
        deep = np.eye(4)
        deep[1:, 1:] = matrix
        # The slice is as thick as its pixels are wide: a 2D layer does not say.
        deep[0, 0] = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2])))) or 1.0
        matrix = deep
    affine: NDArray[np.float64] = world_to_ras @ matrix
    return data, affine, names


def _drop_channels(matrix: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Take the channel axis out of a transform that must not mix it with space."""
    last = len(matrix) - 1
    mixing = np.delete(matrix[axis, :last], axis)
    mixed = np.delete(matrix[:last, axis], axis)
    if mixing.any() or mixed.any():
        raise GeometryError("The transform mixes the channel axis with space.")
    return np.delete(np.delete(matrix, axis, axis=0), axis, axis=1)


def _millimetres(unit: str) -> float:
    """Return the millimetres in a unit of length."""
    name = unit.strip()
    factor = _TO_MM.get(name, _TO_MM.get(name.lower()))
    if factor is None:
        raise GeometryError(
            f"The unit '{name}' is no known length; use mm, um, nm, cm, m or pixel."
        )
    return factor
