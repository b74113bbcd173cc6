"""Kernel densities of single features, as tables of logarithms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.term_params import AppearanceParams

BINS = 128
BANDWIDTH_SAMPLES = 60.0  # number of samples that the kernel width is given for

_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz"}}


@njit(**_options)
def add_log_density(
    features: Any, column: int, table: Any, low: Any, scale: Any, first: int, last: int, out: Any
) -> None:
    """Add a table's values at samples ``first`` to ``last - 1`` to ``out``."""
    bins = table.shape[1]
    for i in range(first, last):
        position = (features[i, column] - low) * scale
        position = min(max(position, np.float32(0)), np.float32(bins - 1.001))
        b = int(position)
        f = position - b
        for k in range(len(table)):
            out[i, k] += (np.float32(1) - f) * table[k, b] + f * table[k, b + 1]


def log_densities(
    values: Floats,
    classes: NDArray[Any],
    count: int,
    low: float,
    high: float,
    power: float,
    params: AppearanceParams,
) -> tuple[Floats, float, float]:
    """Return ``power`` times the log-densities (count, BINS) of one feature."""
    from scipy.ndimage import gaussian_filter1d

    scale = (BINS - 1) / max(high - low, 1e-12)
    bins = np.clip(np.round((values - low) * scale), 0, BINS - 1).astype(int)
    table = np.empty((count, BINS), np.float32)
    for k in range(count):
        mine = bins[classes == k]
        if not len(mine):
            table[k] = 1.0 / BINS
            continue
        histogram = np.bincount(mine, minlength=BINS) / len(mine)
        width = params.bandwidth * BINS * max(1.0, BANDWIDTH_SAMPLES / len(mine)) ** 0.2
        histogram = gaussian_filter1d(histogram, max(width, 1.0), mode="constant")
        table[k] = histogram * (1 - params.density_floor) + params.density_floor / BINS
    return (power * np.log(table)).astype(np.float32), float(low), float(scale)
