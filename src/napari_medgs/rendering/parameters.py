"""The optimizer's view of a field: one table of unconstrained parameters."""

from __future__ import annotations

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs.data.field import FieldInfo, GaussianField
from napari_medgs.errors import ParameterError

# Columns; the channels' values follow. The shear column holds s r1 / r2, which has no unit.
X, Y, T, LOG_R1, SHEAR, LOG_R2, LOG_RT, LOG_W, A1, A2, A3, B1, B2, B3 = range(14)
GEOMETRY = 14


def check_finite(parameters: Floats) -> None:
    """Refuse a table that cannot be rendered: kernels turn its numbers into indices.

    Parameters
    ----------
    parameters : (N, 14 + C) ndarray of float32

    Raises
    ------
    ParameterError
        When a number is infinite or none.
    """
    # The two extremes, and no array of truth values: this is called in every step of a fit.
    if parameters.size and not (-np.inf < parameters.min() and parameters.max() < np.inf):
        raise ParameterError("The Gaussians hold numbers that are not finite.")


def to_parameters(field: GaussianField) -> Floats:
    """Return the parameter table (N, 14 + C) of a field."""
    parameters = np.empty((len(field), GEOMETRY + field.info.channels), np.float32)
    parameters[:, :3] = field.centers
    parameters[:, [LOG_R1, LOG_R2, LOG_RT]] = field.log_precision
    parameters[:, SHEAR] = field.shear * np.exp(
        field.log_precision[:, 0] - field.log_precision[:, 1]
    )
    parameters[:, LOG_W] = field.log_weight
    parameters[:, A1 : A3 + 1] = field.fold[:, :, 0]
    parameters[:, B1 : B3 + 1] = field.fold[:, :, 1]
    parameters[:, GEOMETRY:] = field.values
    return parameters


def from_parameters(parameters: Floats, background: Floats, info: FieldInfo) -> GaussianField:
    """Return the field of a parameter table; folds above ``info.degree`` become zero."""
    fold = np.stack([parameters[:, A1 : A3 + 1], parameters[:, B1 : B3 + 1]], axis=-1)
    fold[:, info.degree :] = 0
    return GaussianField(
        centers=parameters[:, :3],
        log_precision=parameters[:, [LOG_R1, LOG_R2, LOG_RT]],
        shear=parameters[:, SHEAR] * np.exp(parameters[:, LOG_R2] - parameters[:, LOG_R1]),
        fold=fold,
        log_weight=parameters[:, LOG_W],
        values=parameters[:, GEOMETRY:],
        background=background,
        info=info,
    )
