"""Adam for the parameter table, fused into one pass, with a step size per column."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.rendering.cpu.simd import fast_sqrt
from napari_medgs.rendering.parameters import (
    A1,
    B1,
    GEOMETRY,
    LOG_R1,
    LOG_R2,
    LOG_RT,
    LOG_W,
    SHEAR,
    T,
    X,
    Y,
)

# Short memories: every step sees all voxels, so there is no noise to average.
BETA1, BETA2 = 0.7, 0.8
STEP_POSITION, STEP_SHAPE, STEP_WEIGHT, STEP_VALUE, STEP_LOGIT = 0.18, 0.09, 0.08, 0.05, 0.3
STEP_FOLD = (0.02, 0.005, 0.001)
GRADIENT_FLOOR = 0.003  # slopes below this share of a column's root mean square move little
CHUNK = 4096


def step_sizes(images: int, classes: int, degree: int, *, flat: bool) -> Floats:
    """Return the largest step of every column (14 + C,), in voxels or natural units."""
    steps = np.zeros(GEOMETRY + images + classes, np.float32)
    steps[[X, Y]] = STEP_POSITION
    steps[[LOG_R1, LOG_R2, SHEAR]] = STEP_SHAPE
    steps[LOG_W] = STEP_WEIGHT
    if not flat:
        steps[T] = STEP_POSITION
        steps[LOG_RT] = STEP_SHAPE
        for k in range(degree):
            steps[[A1 + k, B1 + k]] = STEP_FOLD[k]
    steps[GEOMETRY : GEOMETRY + images] = STEP_VALUE
    steps[GEOMETRY + images :] = STEP_LOGIT
    return steps


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "arcp"})
def _step(
    parameters: Any,
    gradient: Any,
    first_moment: Any,
    second_moment: Any,
    steps: Any,
    floor: Any,
    lower: Any,
    upper: Any,
    start: int,
    stop: int,
) -> None:
    keep1, keep2 = np.float32(BETA1), np.float32(BETA2)
    add1, add2 = np.float32(1 - BETA1), np.float32(1 - BETA2)
    for i in range(start, stop):
        row, slope = parameters[i], gradient[i]
        m, v = first_moment[i], second_moment[i]
        for k in range(len(row)):
            m[k] = keep1 * m[k] + add1 * slope[k]
            v[k] = keep2 * v[k] + add2 * slope[k] * slope[k]
            moved = row[k] - steps[k] * m[k] / (fast_sqrt(v[k]) + floor[k])
            row[k] = min(max(moved, lower[k]), upper[k])


class Adam:
    """State of the optimizer over a table (N, D).

    Parameters
    ----------
    count, columns : int
        N and D.
    """

    def __init__(self, count: int, columns: int) -> None:
        self.first = np.zeros((count, columns), np.float32)
        self.second = np.zeros((count, columns), np.float32)
        self.taken = 0

    def step(
        self,
        parameters: Floats,
        gradient: Floats,
        steps: Floats,
        lower: Floats,
        upper: Floats,
        threads: int | None = None,
    ) -> None:
        """Move ``parameters`` in place; columns stay within ``lower`` and ``upper``."""
        self.taken += 1
        bias1 = 1 - BETA1**self.taken
        bias2 = 1 - BETA2**self.taken
        scaled = (steps * np.float32(np.sqrt(bias2) / bias1)).astype(np.float32)
        count = len(parameters)
        # Adam makes full steps of the faintest slopes; where nothing is at stake (flat
        # background, say) Gaussians would grow without end. Slopes far below the usual count less.
        sample = gradient[:: max(1, count // 2048)]
        floor = (GRADIENT_FLOOR * np.sqrt(np.mean(sample * sample, axis=0)) + 1e-12).astype(
            np.float32
        )

        def task(k: int) -> None:
            start = k * CHUNK
            stop = min(count, start + CHUNK)
            _step(
                parameters,
                gradient,
                self.first,
                self.second,
                scaled,
                floor,
                lower,
                upper,
                start,
                stop,
            )

        run_chunks(task, -(-count // CHUNK), threads)

    def rearrange(self, order: Any, added: int) -> None:
        """Append ``added`` fresh rows, then reorder (or drop) rows by index."""
        zeros = np.zeros((added, self.first.shape[1]), np.float32)
        self.first = np.concatenate([self.first, zeros])[order]
        self.second = np.concatenate([self.second, zeros])[order]
