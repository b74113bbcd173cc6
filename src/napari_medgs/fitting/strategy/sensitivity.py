"""What each Gaussian does for the loss: a bound of what leaving it out would add."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.fitting.strategy.base import Trainer
from napari_medgs.rendering.cpu.residual import UNLABELED
from napari_medgs.rendering.engine import Engine, StackTarget
from napari_medgs.rendering.parameters import GEOMETRY


def removal_sensitivity(trainer: Trainer) -> tuple[Floats, NDArray[np.float64]]:
    """Return what leaving out each Gaussian would cost, and how much each one contributes.

    Parameters
    ----------
    trainer : Trainer

    Returns
    -------
    sensitivity : (N,) ndarray
        A bound of what leaving a Gaussian out adds to twice the loss.
    weight_sums : (N, C) ndarray
        Sum over voxels of a Gaussian's blending weight times the loss's curvature.

    Notes
    -----
    The sensitivity is the sum over voxels and channels of a Gaussian's blending weight times the
    squared difference between its value and the rendering, times the loss's curvature there:
    where the weights are small, a bound of twice what leaving it out adds to the loss of a field
    at its optimum. Gaussians whose neighbors say the same count little, however large they are,
    and so do those well inside a class.

    The slope of half the squared error in a value is the sum of share times residual. With the
    residuals h, h I and h I^2 in turn (h the curvature, I the rendering) it gives the three sums
    that are needed.
    """
    values = trainer.state.parameters[:, GEOMETRY:].astype(np.float64)
    weight_sums, first, second = trainer.weighted_moments()
    sensitivity = values * values * weight_sums - 2 * values * first + second
    return np.maximum(sensitivity.sum(axis=1), 0).astype(np.float32), np.maximum(weight_sums, 0)


def weighted_moments(
    engine: Engine, parameters: Floats, target: StackTarget, threads: int | None = None
) -> list[NDArray[np.float64]]:
    """Return sums over voxels of each Gaussian's blending weight times h, h I and h I^2.

    Parameters
    ----------
    engine : Engine
    parameters : (N, 14 + C) ndarray of float32
    target : StackTarget
    threads : int, optional

    Returns
    -------
    list of (N, C) ndarray
        h is the curvature of the loss, I the rendering.
    """
    rendered: Floats = engine.render(parameters)
    slices = np.flatnonzero(target.active)
    weights = np.concatenate(
        [target.image_weights, np.repeat(target.seg_weights[None], target.classes, axis=0)]
    )
    aim = np.zeros_like(rendered)

    def sums(power: int) -> NDArray[np.float64]:
        def task(k: int) -> None:
            z = int(slices[k])
            here = rendered[:, z]
            residual = _curvature(here, target, z)
            for _ in range(power):
                residual *= here
            np.subtract(here, residual, out=aim[:, z])

        run_chunks(task, len(slices), threads)
        # Another object each time, as engines may keep what they made of the last.
        wanted = replace(target, images=aim, image_weights=weights, classes=0, l1=False)
        gradient: Floats = engine.loss_and_gradient(parameters, wanted)[2]
        return gradient[:, GEOMETRY:].astype(np.float64)

    return [sums(power) for power in range(3)]


def _curvature(rendered: Floats, target: StackTarget, z: int) -> Floats:
    """Return the loss's second derivative in every value of slice z, weights aside, (C, Y, X).

    One for an image, p (1 - p) for the logit of a class of probability p where there are labels.
    """
    images = len(target.images)
    curvature = np.ones_like(rendered)
    if len(rendered) > images:
        probabilities = np.exp(rendered[images:] - rendered[images:].max(axis=0))
        probabilities /= probabilities.sum(axis=0)
        np.multiply(probabilities, 1 - probabilities, out=curvature[images:])
        curvature[images:, target.labels[z] == UNLABELED] = 0
    return curvature
