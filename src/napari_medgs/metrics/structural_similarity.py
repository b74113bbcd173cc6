"""Structural similarity: slices in one compiled pass, volumes by scikit-image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs.errors import ParameterError

WINDOW = 7
C1, C2 = 0.01**2, 0.03**2  # of a data range of one


def mean_ssim(truth: NDArray[np.float32], prediction: NDArray[np.float32]) -> float:
    """Return the mean structural similarity of slices (Y, X) or volumes of data range one.

    Raises
    ------
    ParameterError
        When they are smaller than the 7-wide window.
    """
    if min(truth.shape) < WINDOW:
        raise ParameterError(
            f"SSIM needs at least {WINDOW} voxels along each compared axis, not {truth.shape}: "
            "compare slices (slice_axis) or a larger image."
        )
    if truth.ndim == 2:
        return float(mean_ssim_2d(np.ascontiguousarray(truth), np.ascontiguousarray(prediction)))
    from skimage.metrics import structural_similarity

    return float(structural_similarity(truth, prediction, data_range=1.0, win_size=WINDOW))


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "arcp"})
def mean_ssim_2d(truth: Any, prediction: Any) -> float:
    """Return the mean structural similarity of two slices of data range one.

    Windows of 7 x 7 equal weights within the slice, and unbiased variances: scikit-image's
    ``structural_similarity`` without its 32-bit rounding.

    Parameters
    ----------
    truth, prediction : (Y, X) float32
        At least 7 along each axis.
    """
    height, width = truth.shape
    inner = width - WINDOW + 1
    size = WINDOW * WINDOW
    inverse, unbiased = 1.0 / size, size / (size - 1.0)
    # Sums over the window's rows of t, g, t t + g g and t g; one row enters, one leaves.
    columns = np.zeros((4, width))
    sums = np.zeros((4, inner))
    total = 0.0
    for y in range(height):
        t, g = truth[y], prediction[y]
        for x in range(width):
            a, b = np.float64(t[x]), np.float64(g[x])
            columns[0, x] += a
            columns[1, x] += b
            columns[2, x] += a * a + b * b
            columns[3, x] += a * b
        if y < WINDOW - 1:
            continue
        for k in range(4):
            row, column = sums[k], columns[k]
            for x in range(inner):
                row[x] = (
                    (column[x] + column[x + 1])
                    + (column[x + 2] + column[x + 3])
                    + (column[x + 4] + column[x + 5])
                    + column[x + 6]
                ) * inverse
        for x in range(inner):
            a, b = sums[0, x], sums[1, x]
            product, squares = a * b, a * a + b * b
            covariance = unbiased * (sums[3, x] - product)
            variances = unbiased * (sums[2, x] - squares)
            sums[0, x] = ((2 * product + C1) * (2 * covariance + C2)) / (
                (squares + C1) * (variances + C2)
            )
        part = 0.0
        for x in range(inner):
            part += sums[0, x]
        total += part
        t, g = truth[y - WINDOW + 1], prediction[y - WINDOW + 1]
        for x in range(width):
            a, b = np.float64(t[x]), np.float64(g[x])
            columns[0, x] -= a
            columns[1, x] -= b
            columns[2, x] -= a * a + b * b
            columns[3, x] -= a * b
    return total / (inner * (height - WINDOW + 1))
