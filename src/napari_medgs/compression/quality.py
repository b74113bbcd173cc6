"""How good a field is beside its image and mask, or beside the field that it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.compression.problem import class_indices, scaled_images, training_step
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.fitting.heldout import slice_scores
from napari_medgs.fitting.problem import UNLABELED
from napari_medgs.metrics import dice
from napari_medgs.rendering import render_stack


@dataclass(frozen=True)
class Measured:
    """Quality of a field.

    Attributes
    ----------
    psnr, ssim : float or None
        Against the image; without one, the PSNR that follows from what the field says of itself
        and how far it has changed, and the SSIM to the field as it was.
    psnr_to_field : float or None
        Against the rendering of the field as it was.
    dice : dict of str to float
        Against the mask, or the labels of the field as it was.
    """

    psnr: float | None
    ssim: float | None
    psnr_to_field: float | None
    dice: dict[str, float] = field(default_factory=dict)

    def loss(self, after: Measured) -> float | None:
        """Return how much PSNR another one has lost, in dB."""
        if self.psnr is None or after.psnr is None:
            return None
        return self.psnr - after.psnr

    def record(self) -> dict[str, Any]:
        """Return the numbers that are known."""
        values: dict[str, Any] = {
            "psnr": self.psnr,
            "ssim": self.ssim,
            "psnr_to_field": self.psnr_to_field,
        }
        known = {k: v for k, v in values.items() if v is not None and np.isfinite(v)}
        if self.dice:
            known["dice"] = self.dice
            known["dice_mean"] = float(np.mean(list(self.dice.values())))
        return known


class Ruler:
    """Measures fields against one image and mask.

    Parameters
    ----------
    field : GaussianField
        As it was.
    volume : Volume, optional
    mask : (Z, Y, X) ndarray of int, optional
    threads : int, optional
        CPU threads; all by default.
    """

    def __init__(
        self,
        field: GaussianField,
        volume: Volume | None,
        mask: NDArray[Any] | None,
        threads: int | None = None,
    ) -> None:
        self._threads = threads
        self._images = len(field.info.image_channels)
        self._values = field.info.label_values
        self._step = training_step(field)
        own = render_stack(field, threads=threads)
        self._own = np.clip(own[: self._images], 0, 1)
        self._truth = scaled_images(field, volume) if volume and self._images else None
        self._claimed = _claimed_psnr(field)
        self._labels: NDArray[Any] | None = None
        if field.info.class_names:
            self._labels = (
                own[self._images :].argmax(axis=0) if mask is None else class_indices(field, mask)
            )

    def measure(self, field: GaussianField) -> Measured:
        """Return how good a field is."""
        rendered = render_stack(field, threads=self._threads)
        images = np.clip(rendered[: self._images], 0, 1)
        psnr = ssim = to_field = None
        if self._images:
            every = np.arange(0, images.shape[1], self._step)
            to_field, own_ssim = slice_scores(self._own, images, every, self._threads)
            if self._truth is not None:
                psnr, ssim = slice_scores(self._truth, images, every, self._threads)
            else:
                ssim = own_ssim
                if self._claimed is not None:
                    changed = 0.0 if np.isinf(to_field) else 10 ** (-to_field / 10)
                    psnr = -10 * float(np.log10(10 ** (-self._claimed / 10) + changed))
        return Measured(psnr, ssim, to_field, self._dice(rendered))

    def _dice(self, rendered: NDArray[Any]) -> dict[str, float]:
        if self._labels is None:
            return {}
        found = rendered[self._images :].argmax(axis=0)
        known = self._labels != UNLABELED
        scores = {}
        for k, value in enumerate(self._values[1:], start=1):
            score = float(dice((found == k) & known, self._labels == k))
            if np.isfinite(score):
                scores[str(value)] = score
        return scores


def _claimed_psnr(field: GaussianField) -> float | None:
    """Return the PSNR that a field's record has of its fit."""
    claimed = field.info.metrics.get("psnr")
    if not isinstance(claimed, (int, float)) or isinstance(claimed, bool):
        return None
    return float(claimed) if np.isfinite(claimed) else None
