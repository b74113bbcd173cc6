"""Changed voxels as runs: start, length and value in one list, as JSON files hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def encode_runs(where: NDArray[np.int64], values: NDArray[Any]) -> list[int]:
    """Return changed voxels as start, length, value triples in one flat JSON-able list.

    Parameters
    ----------
    where : (P,) ndarray of int
        Flat indices, increasing.
    values : (P,) ndarray of int

    Returns
    -------
    list of int

    Examples
    --------
    >>> import numpy as np
    >>> encode_runs(np.array([3, 4, 9]), np.array([1, 1, 2]))
    [3, 2, 1, 9, 1, 2]
    """
    if not len(where):
        return []
    step = np.flatnonzero((np.diff(where) != 1) | (np.diff(values.astype(np.int64)) != 0)) + 1
    starts = np.concatenate([[0], step])
    lengths = np.diff(np.concatenate([starts, [len(where)]]))
    triples = np.stack([where[starts], lengths, values[starts].astype(np.int64)], axis=1)
    return [int(v) for v in triples.reshape(-1)]


def decode_runs(runs: list[int], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return flat indices and values of :func:`encode_runs`.

    Parameters
    ----------
    runs : list of int
    size : int
        Number of voxels.

    Returns
    -------
    where : (P,) ndarray of int64
    values : (P,) ndarray of int64

    Raises
    ------
    ValueError
        When the list holds no runs, or one outside of ``size`` voxels.
    """
    table = np.asarray(runs)
    if table.dtype.kind not in "iu" and table.size:
        raise ValueError("a run is not made of whole numbers")
    table = table.astype(np.int64)
    if table.ndim != 1 or len(table) % 3:
        raise ValueError("a run lacks its start, length or value")
    starts, lengths, values = table.reshape(-1, 3).T
    bad = (starts < 0) | (lengths < 1) | (starts + lengths > size)
    if bad.any() or lengths.sum() > size:
        raise ValueError("a run lies outside of the image")
    total = int(lengths.sum())
    offset = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return np.arange(total) + offset, np.repeat(values, lengths)


def encode_image(image: NDArray[Any]) -> list[int]:
    """Return the nonzero voxels of an image as runs, see :func:`encode_runs`."""
    flat = np.ascontiguousarray(image).reshape(-1)
    where = np.flatnonzero(flat)
    return encode_runs(where, flat[where])


def decode_image(runs: list[int], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return the image of :func:`encode_image`."""
    image = np.zeros(shape, np.int32)
    where, values = decode_runs(runs, image.size)
    image.reshape(-1)[where] = values
    return image
