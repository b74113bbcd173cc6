"""Overlap of two masks: Dice and intersection over union; NaN where both are empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.metrics.volumes import check_same_shape

if TYPE_CHECKING:
    pass


def dice(seg: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the Dice coefficient of two masks; NaN when both are empty.

    Parameters
    ----------
    seg, truth : (...) ndarray
        Equal shapes; nonzero is inside.

    Returns
    -------
    float
        ``2 |A n B| / (|A| + |B|)``, from 0 to 1.

    Raises
    ------
    GeometryError
        When the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> dice(np.array([1, 1, 0, 0]), np.array([0, 1, 0, 0]))
    0.6666666666666666
    """
    seg, truth = two_masks(seg, truth)
    total = int(np.count_nonzero(seg)) + int(np.count_nonzero(truth))
    return 2 * int(np.count_nonzero(seg & truth)) / total if total else float("nan")


def iou(seg: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the intersection over union (Jaccard index) of two masks; NaN when both are empty.

    Parameters
    ----------
    seg, truth : (...) ndarray
        Equal shapes; nonzero is inside.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    GeometryError
        When the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> iou(np.array([1, 1, 0, 0]), np.array([0, 1, 0, 0]))
    0.5
    """
    seg, truth = two_masks(seg, truth)
    union = int(np.count_nonzero(seg | truth))
    return int(np.count_nonzero(seg & truth)) / union if union else float("nan")


def two_masks(
    seg: NDArray[Any], truth: NDArray[Any]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return two masks of one shape as booleans."""
    seg, truth = check_same_shape(seg, truth)
    return seg.astype(bool, copy=False), truth.astype(bool, copy=False)
