"""Sums of blending weights per Gaussian, the raw material of sensitivities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.rendering.cpu.residual import UNLABELED
from napari_medgs.rendering.engine import Engine, StackTarget
from napari_medgs.rendering.parameters import GEOMETRY


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
        CPU threads; all by default.

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
