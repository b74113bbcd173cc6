"""Slices that something is drawn in, as those of a segmentation made on some slices only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import LabelError

# Of slices of another orientation only a line lies in each slice of this one.
MOST_LINES = 0.5


def drawn_slices(labels: NDArray[Any], unlabeled: int = 0) -> tuple[tuple[int, int], ...]:
    """Return the slices with labels, of the orientation in which these are the fewest.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of int
    unlabeled : int
        The value that carries no label.

    Returns
    -------
    tuple of (axis, index)
        As ``Prompts.fully_labeled`` takes them.

    Raises
    ------
    LabelError
        When nothing is drawn, or slices of several orientations are.

    Examples
    --------
    >>> labels = np.zeros((5, 10, 10), int)
    >>> labels[1, 2:5, 2:5] = labels[3, 3:6, 2:5] = 1
    >>> drawn_slices(labels)
    ((0, 1), (0, 3))
    """
    drawn = labels != unlabeled
    places = [
        np.flatnonzero(drawn.any(axis=tuple(a for a in range(3) if a != axis)))
        for axis in range(3)
    ]
    if not len(places[0]):
        raise LabelError("The label image holds no labels: draw some slices.")
    axis = min(range(3), key=lambda a: (len(places[a]), len(places[a]) / labels.shape[a]))
    planes = np.moveaxis(drawn, axis, 0)[places[axis]]
    lines = np.array([min(p.any(axis=0).sum(), p.any(axis=1).sum()) == 1 for p in planes])
    if len(planes) > 2 and MOST_LINES < lines.mean() < 1:
        raise LabelError(
            "The label image is drawn in slices of several orientations: which of them are "
            "fully labeled cannot be told. Keep those of one orientation, or give strokes."
        )
    return tuple((axis, int(index)) for index in places[axis])
