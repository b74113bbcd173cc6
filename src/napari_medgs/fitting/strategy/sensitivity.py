"""Sensitivity of the loss to the removal of each Gaussian."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.fitting.strategy.base import Trainer
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
    at its optimum. Gaussians whose neighbors have the same values count little, however large
    they are, and so do those well inside a class.

    The slope of half the squared error in a value is the sum of blending weight times residual.
    With the residuals h, h I and h I^2 in turn (h the curvature, I the rendering) it gives the
    three sums that are needed.
    """
    values = trainer.state.parameters[:, GEOMETRY:].astype(np.float64)
    weight_sums, first, second = trainer.weighted_moments()
    sensitivity = values * values * weight_sums - 2 * values * first + second
    return np.maximum(sensitivity.sum(axis=1), 0).astype(np.float32), np.maximum(weight_sums, 0)
