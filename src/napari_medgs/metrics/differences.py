"""Where two images differ: the signed difference and its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.metrics.volumes import check_same_shape

_SAMPLE = 2_000_000  # values that percentiles are taken from


@dataclass(frozen=True)
class ImageDifference:
    """A signed difference, in the units of the images.

    Attributes
    ----------
    values : (...) ndarray of float32
        Prediction minus truth, of their shape.
    mean : float
        Its mean: the bias.
    mean_absolute : float
    root_mean_square : float
    percentile_99 : float
        Of the absolute differences; images of more than two million voxels are sampled evenly.
    largest : float
        The largest absolute difference.
    """

    values: NDArray[np.float32]
    mean: float
    mean_absolute: float
    root_mean_square: float
    percentile_99: float
    largest: float


def image_difference(truth: NDArray[Any], prediction: NDArray[Any]) -> ImageDifference:
    """Subtract an image from its prediction.

    Parameters
    ----------
    truth, prediction : (...) ndarray
        Of one shape, any number of axes.

    Returns
    -------
    ImageDifference

    Raises
    ------
    GeometryError
        When the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> found = image_difference(np.zeros((2, 2)), np.array([[0, 1], [-1, 2]]))
    >>> found.mean, found.mean_absolute, found.largest
    (0.5, 1.0, 2.0)
    """
    check_same_shape(truth, prediction)
    values = np.empty(truth.shape, np.float32)
    np.subtract(prediction, truth, out=values, casting="unsafe", dtype=np.float32)
    total = absolute = squares = largest = 0.0
    for part in np.atleast_2d(values):  # slice by slice, so that no other copy is made
        wide = part.astype(np.float64)
        total += float(wide.sum())
        squares += float(np.square(wide).sum())
        size = np.abs(wide, out=wide)
        absolute += float(size.sum())
        largest = max(largest, float(size.max(initial=0.0)))
    count = max(values.size, 1)
    step = max(1, values.size // _SAMPLE)
    sample = np.abs(values.reshape(-1)[::step])
    return ImageDifference(
        values,
        total / count,
        absolute / count,
        float(np.sqrt(squares / count)),
        float(np.percentile(sample, 99)) if sample.size else 0.0,
        largest,
    )
