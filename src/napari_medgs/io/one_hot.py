"""Masks of one channel per class, joined to one label image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import LabelError


def is_one_hot(data: NDArray[Any]) -> bool:
    """Tell whether several channels hold nothing but 0 and 1.

    Parameters
    ----------
    data : (C, Z, Y, X) ndarray

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.io.one_hot import is_one_hot
    >>> is_one_hot(np.array([[[[0, 1]]], [[[1, 0]]]]))
    True
    >>> is_one_hot(np.array([[[[0, 3]]], [[[1, 0]]]]))
    False
    """
    if len(data) < 2 or data.dtype.kind not in "biuf":
        return False
    return all(bool(((channel == 0) | (channel == 1)).all()) for channel in data)


def join_one_hot(data: NDArray[Any], name: str = "The mask") -> NDArray[Any]:
    """Return the label image of a one-hot mask.

    Parameters
    ----------
    data : (C, Z, Y, X) ndarray
        0 or 1 per class. Where every voxel has a class, the first channel is the background and
        the others become labels 1, 2, ...; else the channels become labels 1, 2, ... and voxels
        without a class 0.
    name : str
        What to call it in messages.

    Returns
    -------
    (Z, Y, X) ndarray of uint8 or uint16

    Raises
    ------
    LabelError
        When there are other values, or channels overlap.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.io.one_hot import join_one_hot
    >>> join_one_hot(np.array([[[[1, 0, 0]]], [[[0, 0, 1]]]]))
    array([[[1, 0, 2]]], dtype=uint8)
    >>> join_one_hot(np.array([[[[1, 0]]], [[[0, 1]]]]))
    array([[[0, 1]]], dtype=uint8)
    """
    if not is_one_hot(data):
        raise LabelError(
            f"{name} has {len(data)} channels that hold other values than 0 and 1. A mask has one "
            "channel of labels, or one channel of 0 and 1 per class: extract a channel first."
        )
    dtype = np.uint8 if len(data) < 256 else np.uint16
    labels = np.zeros(data.shape[1:], dtype)
    for number, channel in enumerate(data, 1):
        inside = channel == 1
        taken = labels[inside]
        if taken.any():
            raise LabelError(
                f"{name} has channels {int(taken[taken > 0][0])} and {number} that overlap in "
                f"{int(np.count_nonzero(taken)):,} voxels, and a label image holds one label per "
                "voxel. Save the channels as files of their own."
            )
        labels[inside] = number
    if labels.all():
        labels -= 1  # every voxel has a class, and the first class is the background
    return labels
