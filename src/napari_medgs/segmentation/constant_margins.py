"""Constant margins of an image, as in one that was padded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.far_constants import FLAT
from napari_medgs.segmentation.local import Box, window


def box_without_margins(data: NDArray[Any]) -> Box:
    """Return the box without planes at the sides that are constant, and as the outermost one.

    Parameters
    ----------
    data : (C, Z, Y, X) ndarray

    Returns
    -------
    tuple of slice

    Examples
    --------
    >>> import numpy as np
    >>> image = np.pad(np.random.default_rng(0).normal(size=(1, 4, 5, 6)), ((0, 0), *[(2, 3)] * 3))
    >>> [(s.start, s.stop) for s in box_without_margins(image)]
    [(2, 6), (2, 7), (2, 8)]
    """
    low, high = [0, 0, 0], list(data.shape[1:])
    flat = np.array([FLAT * (float(c.max()) - float(c.min())) for c in data])
    found = True
    while found:  # sides of other constants meet at edges: these end once the others are gone
        found = False
        for axis in range(3):
            for last in (False, True):
                planes = _even_planes(
                    data[(slice(None), *map(slice, low, high))], axis, last, flat
                )
                found |= planes > 0
                if last:
                    high[axis] -= planes
                else:
                    low[axis] += planes
    return window(low, high)


def _even_planes(part: NDArray[Any], axis: int, last: bool, flat: Floats) -> int:
    """Return how many planes from one side on have the same constant, one less than all at most.

    ``flat`` is what counts as no difference, by channel.
    """
    stack = np.moveaxis(part, axis + 1, 1)
    if last:
        stack = stack[:, ::-1]
    first = stack[:, 0, 0, 0].astype(np.float64)
    for k in range(stack.shape[1] - 1):
        away = np.abs(stack[:, k].reshape(len(stack), -1) - first[:, None]).max(axis=1)
        if (away > flat).any():
            return k
    return stack.shape[1] - 1
