"""Adam for the parameter table, fused into one pass, with a step size per column."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.fitting.advanced import OptimizerParams
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

CHUNK = 4096


def step_sizes(
    images: int, classes: int, degree: int, settings: OptimizerParams, *, flat: bool
) -> Floats:
    """Return the largest step of every column (14 + C,), in voxels or natural units.

    Parameters
    ----------
    images, classes : int
        Image channels and classes.
    degree : int
        Degree of the fold; coefficients above it stay as they are.
    settings : OptimizerParams
    flat : bool
        A single slice: nothing moves along the slice axis.
    """
    steps = np.zeros(GEOMETRY + images + classes, np.float32)
    steps[[X, Y]] = settings.position
    steps[[LOG_R1, LOG_R2, SHEAR]] = settings.shape
    steps[LOG_W] = settings.weight
    if not flat:
        steps[T] = settings.position
        steps[LOG_RT] = settings.shape
        for k in range(degree):
            steps[[A1 + k, B1 + k]] = settings.fold[k]
    steps[GEOMETRY : GEOMETRY + images] = settings.value
    steps[GEOMETRY + images :] = settings.logit
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
    keep1: Any,
    keep2: Any,
    add1: Any,
    add2: Any,
    start: int,
    stop: int,
) -> None:
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
    settings : OptimizerParams

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: A method for stochastic optimization", ICLR 2015.
    """

    def __init__(self, count: int, columns: int, settings: OptimizerParams) -> None:
        self.settings = settings
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
        beta1, beta2 = self.settings.beta1, self.settings.beta2
        bias1 = 1 - beta1**self.taken
        bias2 = 1 - beta2**self.taken
        scaled = (steps * np.float32(np.sqrt(bias2) / bias1)).astype(np.float32)
        count = len(parameters)
        # Adam makes full steps of the faintest slopes; where nothing is at stake (flat
        # background, say) Gaussians would grow without end. Slopes far below the usual count less.
        sample = gradient[:: max(1, count // 2048)]
        floor = (
            self.settings.gradient_floor * np.sqrt(np.mean(sample * sample, axis=0)) + 1e-12
        ).astype(np.float32)

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
                np.float32(beta1),
                np.float32(beta2),
                np.float32(1 - beta1),
                np.float32(1 - beta2),
                start,
                stop,
            )

        run_chunks(task, -(-count // CHUNK), threads)

    def rearrange(self, order: Any, added: int) -> None:
        """Append ``added`` fresh rows, then reorder (or drop) rows by index."""
        zeros = np.zeros((added, self.first.shape[1]), np.float32)
        self.first = np.concatenate([self.first, zeros])[order]
        self.second = np.concatenate([self.second, zeros])[order]
