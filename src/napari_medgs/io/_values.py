"""The values of an image that is to be written: their axes, and their type."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_medgs.errors import ImageError


def with_channels(data: NDArray[Any]) -> NDArray[Any]:
    """Return an image as (C, Z, Y, X).

    Raises
    ------
    ImageError
        When it has other axes, or values that are no numbers.
    """
    array = np.asarray(data)
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.dtype.kind not in "biuf":
        raise ImageError(
            f"An image of shape {array.shape} and type {array.dtype} cannot be written; "
            "(z, y, x) or (channel, z, y, x) numbers can."
        )
    return array


def cast(array: NDArray[Any], dtype: DTypeLike | None) -> NDArray[Any]:
    """Return an image in another type, rounding floats to integers.

    Raises
    ------
    ImageError
        When a value does not fit.
    """
    if dtype is None:
        wanted = {"b": np.dtype(np.uint8)}.get(array.dtype.kind, array.dtype)
        if wanted == np.float16:
            wanted = np.dtype(np.float32)
        return array.astype(wanted, copy=False)
    wanted = np.dtype(dtype)
    if wanted.kind not in "iuf":
        raise ImageError(f"Images are not written as {wanted}; use an integer or float type.")
    if wanted.kind in "iu" and array.dtype != wanted:
        limits = np.iinfo(wanted)
        low, high = array.min(), array.max()
        if not (np.isfinite(low) and limits.min <= np.rint(low) <= np.rint(high) <= limits.max):
            raise ImageError(f"Values from {low:g} to {high:g} do not fit into {wanted}.")
        array = np.rint(array) if array.dtype.kind == "f" else array
    return array.astype(wanted, copy=False)
