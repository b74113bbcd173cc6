"""What each Gaussian does for the loss: a bound of what leaving it out would add."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.rendering.cpu.residual import UNLABELED
from napari_medgs.rendering.parameters import GEOMETRY

if TYPE_CHECKING:
    from napari_medgs.fitting.optim.loop import FitLoop


def removal_sensitivity(loop: FitLoop) -> tuple[Floats, NDArray[np.float64]]:
    """Return how much each Gaussian bends the rendering where that matters.

    Returns
    -------
    sensitivity : (N,) ndarray
        What leaving it out costs.
    mass : (N, C) ndarray
        How much it stands for: the sum over voxels of its share times the loss's curvature.

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
    values = loop.state.parameters[:, GEOMETRY:].astype(np.float64)
    mass, first, second = loop.weighted_moments()
    sensitivity = values * values * mass - 2 * values * first + second
    return np.maximum(sensitivity.sum(axis=1), 0).astype(np.float32), np.maximum(mass, 0)


def weighted_moments(loop: FitLoop) -> list[NDArray[np.float64]]:
    """Return sums over voxels of each Gaussian's share times h, h I and h I^2, each (N, C)."""
    parameters, target, engine = loop.state.parameters, loop.target, loop.engine
    picture: Floats = engine.render(parameters)
    slices = np.flatnonzero(target.active)
    weights = np.concatenate(
        [target.image_weights, np.repeat(target.seg_weights[None], target.classes, axis=0)]
    )
    aim = np.zeros_like(picture)

    def sums(power: int) -> NDArray[np.float64]:
        def task(k: int) -> None:
            z = int(slices[k])
            here = picture[:, z]
            residual = _curvature(here, loop, z)
            for _ in range(power):
                residual *= here
            np.subtract(here, residual, out=aim[:, z])

        run_chunks(task, len(slices), loop.params.threads)
        # Another object each time, as engines may keep what they made of the last.
        wanted = replace(target, images=aim, image_weights=weights, classes=0, l1=False)
        gradient: Floats = engine.loss_and_gradient(parameters, wanted)[2]
        return gradient[:, GEOMETRY:].astype(np.float64)

    return [sums(power) for power in range(3)]


def _curvature(picture: Floats, loop: FitLoop, z: int) -> Floats:
    """Return the loss's second derivative in every value of slice z, weights aside, (C, Y, X).

    One for an image, p (1 - p) for the logit of a class of probability p where there are labels.
    """
    images = len(loop.target.images)
    curvature = np.ones_like(picture)
    if len(picture) > images:
        shares = np.exp(picture[images:] - picture[images:].max(axis=0))
        shares /= shares.sum(axis=0)
        np.multiply(shares, 1 - shares, out=curvature[images:])
        curvature[images:, loop.target.labels[z] == UNLABELED] = 0
    return curvature
