"""Tells an ordinary image from a label image where all of its values could be labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import LabelError

FEW_CLASSES = 20  # so many classes are taken as they are
MOST_SLICES = 16  # looked at


def check_label_image(labels: NDArray[Any], unlabeled: int = 0) -> None:
    """Refuse an image with integer intensities in place of labels.

    Classes are regions: neighbors that are labeled mostly share their label. The intensities of
    an image differ from voxel to voxel. The most frequent value does not count: it may be the
    air around a body.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of int
    unlabeled : int
        The value that carries no label.

    Raises
    ------
    LabelError
        Saying what was found.

    Examples
    --------
    >>> noise = np.random.default_rng(0).integers(0, 100, (4, 20, 20))
    >>> check_label_image(noise)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    napari_medgs.errors.LabelError: The mask holds 100 values that differ from voxel to voxel, ...
    >>> check_label_image(np.arange(100).repeat(64).reshape(100, 8, 8))
    """
    slices = np.flatnonzero((labels != unlabeled).any(axis=(1, 2)))
    if not len(slices):
        return
    part = labels[slices[np.linspace(0, len(slices) - 1, MOST_SLICES).round().astype(int)]]
    values, number = np.unique(part[part != unlabeled], return_counts=True)
    if len(values) <= FEW_CLASSES:
        return
    counts = (part != unlabeled) & (part != values[number.argmax()])
    equal = pairs = 0
    for here, there in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[:, :, 1:], np.s_[:, :, :-1])):
        both = counts[here] & counts[there]
        pairs += int(np.count_nonzero(both))
        equal += int(np.count_nonzero(both & (part[here] == part[there])))
    if 2 * equal < pairs:
        raise LabelError(
            f"The mask holds {len(values)} values that differ from voxel to voxel, as an ordinary "
            "image does; give a label image, in which all voxels of a class have one value."
        )
