"""By how much the file grows when a parameter moves: the derivative of its bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.data.field import GaussianField
from napari_medgs.io.codec.chunks import arrange
from napari_medgs.io.codec.columns import (
    FOLDS,
    SHAPE,
    Scheme,
    fold_unit,
    natural_columns,
    quantize,
)
from napari_medgs.io.codec.model import learn, predictions
from napari_medgs.rendering.parameters import (
    A1,
    B1,
    GEOMETRY,
    LOG_R1,
    LOG_R2,
    LOG_RT,
    LOG_W,
    SHEAR,
)

_LEAST_SPREAD = 0.3
_LOG2 = float(np.log(2))


def table_columns(images: int) -> dict[str, int]:
    """Return where the columns of a file stand in the parameter table."""
    return {
        "log_r1": LOG_R1,
        "log_r2": LOG_R2,
        "log_rt": LOG_RT,
        "shear": SHEAR,
        "log_weight": LOG_W,
        **{f"a{k + 1}": A1 + k for k in range(3)},
        **{f"b{k + 1}": B1 + k for k in range(3)},
        **{f"value{c}": GEOMETRY + c for c in range(images)},
    }


class RateModel:
    """Bits of a field as the coder spends them: a Laplace distribution around what it expects.

    Class scores are left out: their bits are few, and saving them cost 0.016 Dice of 60 classes.

    Parameters
    ----------
    field : GaussianField
    scheme : Scheme
    """

    def __init__(self, field: GaussianField, scheme: Scheme) -> None:
        self._scheme = scheme
        self._images = len(field.info.image_channels)
        integers = quantize(field, scheme)
        chunks = arrange(integers)
        model = learn([placed.integers for placed, _ in chunks])
        self._expected = np.zeros(integers.columns.shape)
        for placed, rows in chunks:
            self._expected[rows] = predictions(placed.integers, model)
        errors = np.abs(integers.columns - self._expected)
        self._spread = errors.mean(axis=0) + _LEAST_SPREAD

    def gradient(self, field: GaussianField) -> Floats:
        """Return the derivative of the bits by the parameter table, (N, 14 + C).

        Parameters
        ----------
        field : GaussianField
            With the Gaussians in the order of the first one.
        """
        scheme = self._scheme
        gradient = np.zeros((len(field), GEOMETRY + field.info.channels), np.float32)
        places, known = table_columns(self._images), dict(scheme.constants)
        numbers: dict[str, NDArray[np.float64]] = natural_columns(field)
        for k, (name, step) in enumerate(zip(scheme.columns, scheme.steps, strict=True)):
            per_step = 1 / step
            if name in FOLDS:
                per_step = fold_unit(name, known) / step
            if name in SHAPE:
                known[name] = numbers[name]  # type: ignore[assignment]
            error = numbers[name] * per_step - self._expected[:, k]
            spread = self._spread[k]
            gradient[:, places[name]] = np.tanh(error / spread) * per_step / (spread * _LOG2)
        return gradient
