"""Values in place of missing ones that make no border: smooth, and continuous where values end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats


def fill_smoothly(values: NDArray[Any], missing: NDArray[np.bool_]) -> Floats:
    """Fill what is missing with averages over blocks, the larger the farther values are.

    Parameters
    ----------
    values : (Z, Y, X) ndarray
    missing : (Z, Y, X) ndarray of bool
        Not everywhere.

    Returns
    -------
    (Z, Y, X) ndarray of float32

    References
    ----------
    Gortler et al. 1996, *The lumigraph*, SIGGRAPH (the pull-push algorithm).

    Examples
    --------
    >>> import numpy as np
    >>> values = np.array([[[4.0, 4, 0, 0, 0, 8, 8, 8]]])
    >>> fill_smoothly(values, values == 0)[0, 0].round(1).tolist()
    [4.0, 4.0, 4.0, 5.0, 7.0, 8.0, 8.0, 8.0]
    """
    weight = (~missing).astype(np.float32)
    value = np.where(missing, 0, values).astype(np.float32)
    levels = [(value, weight)]
    while not weight.all() and max(weight.shape) > 1:
        total, weight = _halved(value * weight), _halved(weight)
        value = np.divide(total, np.maximum(weight, 1e-6), dtype=np.float32)
        np.minimum(weight, 1, out=weight)
        levels.append((value, weight))
    filled = levels.pop()[0]
    while levels:
        value, weight = levels.pop()
        filled = _doubled(filled, value.shape)
        filled += weight * (value - filled)
    return filled


def _halved(values: Floats) -> Floats:
    """Return sums over pairs of voxels along every axis, and of some of those beside them.

    Without these, nothing would be told across a border between two blocks.
    """
    for axis, count in enumerate(values.shape):
        if count > 1:
            pad = [(0, 0)] * 3
            pad[axis] = (1, 1 + count % 2)
            wide = np.moveaxis(np.pad(values, pad), axis, 0)
            sums: Floats = wide[:-3:2] + wide[3::2] + 3 * (wide[1:-2:2] + wide[2:-1:2])
            sums *= np.float32(0.25)
            values = np.moveaxis(sums, 0, axis)
    return values


def _doubled(values: Floats, shape: tuple[int, ...]) -> Floats:
    """Interpolate values at the middles of blocks linearly in the voxels of the blocks."""
    for axis, count in enumerate(shape):
        if count == 1:
            continue
        place = np.clip((np.arange(count) - 0.5) / 2, 0, values.shape[axis] - 1)
        low = place.astype(np.int64)
        share = (
            (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        )
        first = np.take(values, low, axis=axis)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        first += share * (np.take(values, high, axis=axis) - first)
        values = first
    return values
