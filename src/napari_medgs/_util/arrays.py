"""Small helpers for arrays of integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def sorted_unique(values: NDArray[Any]) -> NDArray[Any]:
    """Return the distinct values of an array of integers, increasing.

    As :func:`numpy.unique`, by sorting: where most values differ, the hash table of NumPy 2.3 and
    later takes up to a hundred times as long.

    Parameters
    ----------
    values : ndarray of int
        Of any shape.

    Returns
    -------
    (N,) ndarray

    Examples
    --------
    >>> import numpy as np
    >>> sorted_unique(np.array([3, 1, 3])).tolist()
    [1, 3]
    """
    ordered = np.sort(values, axis=None)
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def with_room(array: NDArray[Any], values: ArrayLike) -> NDArray[Any]:
    """Return an array of integers, or a copy of a larger type that holds other values, too.

    Label images begin with small types: an image of 200 million voxels takes 200 MB as 8 bits and
    800 MB as 32.

    Parameters
    ----------
    array : ndarray of int
    values : array-like of int

    Returns
    -------
    ndarray
        The array itself where all values fit.

    Examples
    --------
    >>> import numpy as np
    >>> with_room(np.zeros(2, np.uint8), 255).dtype, with_room(np.zeros(2, np.uint8), 256).dtype
    (dtype('uint8'), dtype('uint16'))
    """
    values = np.asarray(values)
    if not values.size:
        return array
    low, high = int(values.min()), int(values.max())
    for kind in (array.dtype, np.uint16, np.int16, np.int32, np.uint32, np.int64):
        info = np.iinfo(kind)
        if info.min <= low and high <= info.max and np.can_cast(array.dtype, kind):
            return array.astype(kind, copy=False)
    raise OverflowError(f"{low} and {high} do not fit into 64 bits")
