"""How the attributes of Gaussians become what is stored, as fine-tuning and files see it.

A coder says what a reader would get for a field, and writes that. Fine-tuning needs no more: it
renders what a reader would get, and moves the parameters behind it. A learned transform is one
more class with these methods.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs.compression.rate import RateModel, table_columns
from napari_medgs.data.field import FieldInfo, GaussianField
from napari_medgs.io.codec.columns import (
    Quantization,
    Scheme,
    dequantize,
    kept_degree,
    make_scheme,
    quantize,
)
from napari_medgs.io.codec.encoding import Encoded, encode
from napari_medgs.rendering.parameters import T, X, Y, from_parameters, to_parameters


class AttributeCoder(Protocol):
    """Turns a field into what is stored."""

    @property
    def degree(self) -> int:
        """Highest power of the folds that is kept."""

    @property
    def step(self) -> float:
        """How coarse it is: 1 is fine, 3 coarse."""

    def rounded(self, parameters: Floats) -> Floats:
        """Return the parameter table (N, 14 + C) that a reader would get, in the same order."""

    def trainable(self) -> Floats:
        """Return 1 for columns (14 + C,) that a reader gets back, 0 for what is fixed."""

    def rate_gradient(self, parameters: Floats, *, anew: bool) -> Floats:
        """Return the derivative of the bits by the table (N, 14 + C).

        ``anew`` asks for a look at how the bits are spent now; it is costly, and they change
        slowly.
        """

    def encode(self, field: GaussianField, preview: GaussianField | None = None) -> Encoded:
        """Return the bytes of a field."""


class StepCoder:
    """Whole numbers of steps, the usual coder.

    Parameters
    ----------
    field : GaussianField
        From which the steps of its values follow.
    quantization : Quantization
    """

    def __init__(self, field: GaussianField, quantization: Quantization) -> None:
        self.quantization = quantization
        self.scheme: Scheme = make_scheme(field, quantization)
        self._info: FieldInfo = field.info
        self._background = field.background
        self._rate: RateModel | None = None

    @property
    def degree(self) -> int:
        """Highest power of the folds that is kept."""
        return kept_degree(self.scheme, self._info)

    @property
    def step(self) -> float:
        """How coarse it is; see :class:`AttributeCoder`."""
        return self.quantization.step

    def rounded(self, parameters: Floats) -> Floats:
        """Return the parameter table that a reader would get; see :class:`AttributeCoder`."""
        field = from_parameters(parameters, self._background, self._info)
        whole = quantize(field, self.scheme)
        return to_parameters(dequantize(whole, self.scheme, self._background, self._info))

    def trainable(self) -> Floats:
        """Return 1 for columns that a reader gets back; see :class:`AttributeCoder`."""
        places = {"x": X, "y": Y, "t": T, **table_columns(len(self._info.image_channels))}
        used = np.ones(14 + self._info.channels, np.float32)
        for name in self.scheme.constants:
            used[places[name]] = 0
        return used

    def rate_gradient(self, parameters: Floats, *, anew: bool) -> Floats:
        """Return the derivative of the bits; see :class:`AttributeCoder`."""
        field = from_parameters(parameters, self._background, self._info)
        if anew or self._rate is None:
            self._rate = RateModel(field, self.scheme)
        return self._rate.gradient(field)

    def encode(self, field: GaussianField, preview: GaussianField | None = None) -> Encoded:
        """Return the bytes of a field; see :class:`AttributeCoder`."""
        return encode(field, self.quantization, scheme=self.scheme, preview=preview)
