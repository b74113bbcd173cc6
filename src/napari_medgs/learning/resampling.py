"""Images and probabilities between an image's grid and the spacing of a model.

Both grids share their edges: voxel sizes change, the field of view does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats

SAME = 0.01
"""Relative difference of voxel sizes below which nothing is resampled."""


def axis_weights(
    size: int, new: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return, for every new voxel of an axis, the two old ones around it and the second's weight.

    Examples
    --------
    >>> below, above, weight = axis_weights(2, 4)
    >>> below.tolist(), above.tolist(), weight.tolist()
    ([0, 0, 0, 1], [1, 1, 1, 1], [0.0, 0.25, 0.75, 0.0])
    """
    place = np.clip((np.arange(new) + 0.5) * size / new - 0.5, 0, size - 1)
    below = np.minimum(np.floor(place).astype(np.int64), size - 1)
    above = np.minimum(below + 1, size - 1)
    return below, above, (place - below).astype(np.float32)


def resample_image(image: Floats, shape: tuple[int, int, int]) -> Floats:
    """Return an image of another shape over the same field of view, by linear interpolation.

    It is smoothed first along axes that lose voxels.

    Parameters
    ----------
    image : (Z, Y, X) ndarray of float32
    shape : (z, y, x)

    Returns
    -------
    ndarray of float32
        The image itself where the shape stays.
    """
    from scipy.ndimage import gaussian_filter1d

    for axis in range(3):
        size, new = image.shape[axis], shape[axis]
        if size == new:
            continue
        if size > 1.2 * new:
            width = 0.5 * np.sqrt((size / new) ** 2 - 1)
            image = gaussian_filter1d(image, width, axis=axis, mode="nearest", truncate=3.0)
        below, above, weight = axis_weights(size, new)
        sides = [1, 1, 1]
        sides[axis] = -1
        factor = weight.reshape(sides)
        low = image.take(below, axis)
        high = image.take(above, axis)
        high -= low
        high *= factor
        low += high
        image = low
    return image


def resample_classes(labels: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
    """Return labels of another shape over the same field of view.

    Where voxels are lost, each new one takes the nearest old one; where they are gained, the
    class of the largest linear weight, which rounds steps.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of small integers
    shape : (z, y, x)

    Returns
    -------
    ndarray
        Of the same type.
    """
    if labels.shape == shape:
        return labels
    best = np.full(shape, -1.0, np.float32)
    out = np.zeros(shape, labels.dtype)
    for value in np.unique(labels):
        here = labels == value
        weight = here.astype(np.float32)
        for axis in range(3):
            below, above, factor = axis_weights(weight.shape[axis], shape[axis])
            sides = [1, 1, 1]
            sides[axis] = -1
            low = weight.take(below, axis)
            weight = low + (weight.take(above, axis) - low) * factor.reshape(sides)
        better = weight > best
        out[better] = value
        best[better] = weight[better]
    return out
