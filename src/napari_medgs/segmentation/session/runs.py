"""Changed voxels as runs: start, length and value in one list, as JSON files hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.arrays import with_room
from napari_medgs.segmentation.prompts.kinds import LABELS
from napari_medgs.segmentation.session.changes import Delta, difference


def encode_runs(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], values: NDArray[Any]
) -> list[int]:
    """Return changed voxels as start, length, value triples in one flat JSON-able list.

    Parameters
    ----------
    starts : (R,) ndarray of int
        Flat index of the first voxel of every run, increasing.
    lengths : (R,) ndarray of int
    values : (R,) ndarray of int

    Returns
    -------
    list of int

    Examples
    --------
    >>> import numpy as np
    >>> encode_runs(np.array([3, 9]), np.array([2, 1]), np.array([1, 2]))
    [3, 2, 1, 9, 1, 2]
    """
    if not len(starts):
        return []
    # Runs that differ in what was there before are one here.
    new = (starts[1:] != starts[:-1] + lengths[:-1]) | (values[1:] != values[:-1])
    first = np.concatenate([[0], np.flatnonzero(new) + 1])
    triples = np.stack([starts[first], np.add.reduceat(lengths, first), values[first]], axis=1)
    out: list[int] = triples.astype(np.int64).reshape(-1).tolist()
    return out


def decode_runs(
    runs: list[int], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return starts, lengths and values of :func:`encode_runs`.

    Parameters
    ----------
    runs : list of int
    size : int
        Number of voxels.

    Returns
    -------
    starts, lengths, values : (R,) ndarray of int64

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
    starts, lengths, values = np.ascontiguousarray(table.reshape(-1, 3).T)
    bad = (starts < 0) | (lengths < 1) | (starts + lengths > size)
    if bad.any() or lengths.sum() > size:
        raise ValueError("a run lies outside of the image")
    return starts, lengths, values


def encode_image(image: NDArray[Any]) -> list[int]:
    """Return the nonzero voxels of an image as runs, see :func:`encode_runs`."""
    labels = np.ascontiguousarray(image).reshape(-1)
    change = difference(np.zeros_like(labels), labels)
    return encode_runs(change.starts, change.lengths, change.after)


def decode_image(runs: list[int], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the image of :func:`encode_image`, of the smallest type."""
    image: NDArray[Any] = np.zeros(shape, np.uint8)
    starts, lengths, values = decode_runs(runs, image.size)
    if values.max(initial=0) > LABELS.max or values.min(initial=0) < LABELS.min:
        raise ValueError("a label does not fit into 32 bits")
    image = with_room(image, values)
    Delta(starts, lengths, values, values).apply(image)
    return image
