"""Fine-tuning at the stored values: render what a reader gets, move what lies behind it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.compression.attributes import AttributeCoder
from napari_medgs.compression.problem import TuningTarget
from napari_medgs.errors import Cancelled
from napari_medgs.fitting.advanced import OptimizerParams
from napari_medgs.fitting.optim.adam import Adam, step_sizes
from napari_medgs.rendering.engine import EngineSpec
from napari_medgs.rendering.parameters import (
    A1,
    A3,
    B1,
    B3,
    LOG_R1,
    LOG_R2,
    LOG_RT,
    LOG_W,
    T,
    X,
    Y,
)
from napari_medgs.rendering.registry import choose_engine


def first_step(steps: int) -> float:
    """Return the largest step, relative to that of a fit; it falls to zero.

    Rounding hides small steps: 1.6 was 0.4 dB better than 0.5 for 180 steps, on three volumes.
    """
    return min(1.6, 0.7 + steps / 200)


def falling(done: float) -> float:
    """Return the step relative to the first one, when a share of all steps is done.

    Half a cosine: many small steps at the end were 0.2 to 0.4 dB better than a straight line.
    """
    return 0.5 + 0.5 * math.cos(math.pi * done)


RATE = 0.0125
"""Weight of a bit per unit of the coder's step, in what the loss falls by where steps halve. At
coarse steps it made files 5 to 9 % smaller for 0.1 dB; at fine ones it brings nothing."""
LOOK_EVERY = 30
"""Steps between looks at how the bits are spent."""
ROOM = 0.3
"""How far shapes may leave the range that the field has, in log precision."""


class Tuner:
    """Moves the parameters behind the stored values.

    Parameters
    ----------
    parameters : (N, 14 + C) ndarray of float32
        The field's table.
    target : TuningTarget
    backend : str
    threads : int, optional
        CPU threads; all by default.
    progress, should_stop : callable

    Attributes
    ----------
    psnr : float or None
        Of the last step, of what a reader would have got, in dB.
    """

    def __init__(
        self,
        parameters: Floats,
        target: TuningTarget,
        *,
        backend: str = "auto",
        threads: int | None = None,
        progress: ProgressCallback,
        should_stop: StopCallback,
    ) -> None:
        self.target, self.threads = target, threads
        self.progress, self.should_stop = progress, should_stop
        self.started = time.perf_counter()
        self.psnr: float | None = None
        problem = target.problem
        info = problem.info
        self._make_engine: Callable[[EngineSpec], object] = choose_engine(backend, info.blend)[1]
        self._engines: dict[int, object] = {}
        self._origin = problem.origin
        shape = info.stack_shape
        self.lower = np.full(parameters.shape[1], -1e6, np.float32)
        self.upper = np.full(parameters.shape[1], 1e6, np.float32)
        for column, size in ((X, shape[2]), (Y, shape[1]), (T, shape[0])):
            self.lower[column] = min(-2.0, parameters[:, column].min(initial=0))
            self.upper[column] = max(size + 1.0, parameters[:, column].max(initial=0))
        for column in (LOG_R1, LOG_R2, LOG_RT):
            self.lower[column] = parameters[:, column].min(initial=40) - ROOM
            self.upper[column] = parameters[:, column].max(initial=-40) + ROOM
        self.lower[LOG_W], self.upper[LOG_W] = -8.0, 8.0
        rows, columns = shape[1:]
        counted = (problem.target.image_weights[:, problem.target.counted] > 0).sum()
        self._voxels = float(counted) * rows * columns

    def engine(self, degree: int) -> object:
        """Return the engine that renders folds of a degree."""
        if degree not in self._engines:
            problem = self.target.problem
            info = problem.info
            spec = EngineSpec(
                problem.shape,
                info.channels,
                problem.background,
                degree=degree,
                cutoff=info.cutoff,
                eps=info.eps,
                blend=info.blend,
                threads=self.threads,
            )
            self._engines[degree] = self._make_engine(spec)
        return self._engines[degree]

    def run(self, parameters: Floats, coder: AttributeCoder, steps: int, stage: str) -> Floats:
        """Return the table after so many steps; the given one is not changed.

        Parameters
        ----------
        parameters : (N, 14 + C) ndarray of float32
        coder : AttributeCoder
        steps : int
        stage : str
            For progress.

        Raises
        ------
        Cancelled
            When the user cancels.
        """
        settings = OptimizerParams()
        info = self.target.problem.info
        parameters = np.ascontiguousarray(parameters.copy())
        adam = Adam(len(parameters), parameters.shape[1], settings)
        sizes = step_sizes(
            len(info.image_channels),
            len(info.class_names),
            coder.degree,
            settings,
            flat=info.stack_shape[0] == 1,
        )
        sizes *= coder.trainable() * np.float32(first_step(steps))
        engine = self.engine(coder.degree)
        begun = time.perf_counter()
        for step in range(steps):
            if self.should_stop():
                raise Cancelled("The compression was canceled; nothing was written.")
            shown = self._in_target(coder.rounded(parameters))
            found = engine.loss_and_gradient(shown, self.target.problem.target)  # type: ignore[attr-defined]
            gradient = np.array(found.gradient, np.float32)
            self._to_field(gradient)
            weight = RATE * coder.step * found.image_error / (2 * max(len(parameters), 1))
            rate = coder.rate_gradient(parameters, anew=step % LOOK_EVERY == 0)
            gradient += np.float32(weight) * rate
            error = found.image_error + self.target.problem.error_outside_crop
            if self._voxels:
                self.psnr = -10 * float(np.log10(max(error / self._voxels, 1e-12)))
            decay = np.float32(falling(step / steps))
            adam.step(parameters, gradient, sizes * decay, self.lower, self.upper, self.threads)
            now = time.perf_counter()
            self.progress(
                ProgressEvent(
                    stage,
                    step + 1,
                    steps,
                    now - self.started,
                    self.psnr,
                    len(parameters),
                    (now - begun) / (step + 1) * (steps - step - 1),
                )
            )
        return parameters

    def _in_target(self, parameters: Floats) -> Floats:
        """Return a field's table in the crop and the stack of the target, in place."""
        factor = self.target.factor
        parameters[:, Y] -= self._origin[0]
        parameters[:, X] -= self._origin[1]
        if factor > 1:
            parameters[:, T] *= factor
            parameters[:, LOG_RT] -= np.float32(np.log(factor))
            for k in range(A3 - A1 + 1):
                parameters[:, [A1 + k, B1 + k]] /= factor ** (k + 1)
        return parameters

    def _to_field(self, gradient: Floats) -> None:
        """Turn a gradient in the target's stack into one of the field's table, in place."""
        factor = self.target.factor
        if factor > 1:
            gradient[:, T] *= factor
            for k in range(B3 - B1 + 1):
                gradient[:, [A1 + k, B1 + k]] /= factor ** (k + 1)
