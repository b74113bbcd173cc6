"""Small helpers for arrays of integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


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
