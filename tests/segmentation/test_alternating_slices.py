"""Stacks whose slices are brighter and darker by turns."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_medgs.data.volume import Volume
from napari_medgs.segmentation import Prompts, SegmentModel, fit_for_segmentation
from napari_medgs.segmentation.terms.alternating_slices import (
    alternating_gain,
    without_alternation,
)


def stack(even: float = 1.0, odd: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return ten slices with an ellipsoid that is half as bright again, and the ellipsoid."""
    rng = np.random.default_rng(0)
    z, y, x = np.indices((10, 48, 48))
    truth = ((z - 4.5) / 5) ** 2 + ((y - 23) / 14) ** 2 + ((x - 25) / 12) ** 2 < 1
    image = gaussian_filter(np.where(truth, 120.0, 80.0), (0, 0.8, 0.8))
    image = image + rng.normal(0, 6, image.shape)
    image *= np.where(np.arange(10) % 2, odd, even)[:, None, None]
    return image.astype(np.float32), truth


def test_one_slice_is_enough_where_slices_alternate() -> None:
    image, truth = stack(1.25, 0.85)
    volume = Volume.from_array(image, spacing=(6, 1, 1)).prepared()
    strokes = np.zeros(truth.shape, np.uint8)
    strokes[4, 20:27, 25], strokes[4, 3, 5:43], strokes[4, 5:43, 3] = 1, 9, 9
    model = SegmentModel(volume, fit_for_segmentation(volume))
    found = model.update(Prompts(labels=strokes, background=9)).labels == 1
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.93


def test_gain_is_found() -> None:
    image, _ = stack(0.8, 1.25)
    assert alternating_gain(image) == pytest.approx(np.log(0.8), abs=0.02)
    image[0, 0, 0] = -0.1  # as interpolation leaves it in air
    assert alternating_gain(image) == pytest.approx(np.log(0.8), abs=0.02)
    even = without_alternation(image[None])[0]
    assert abs(alternating_gain(even)) < 0.005


@pytest.mark.parametrize("kind", ["even", "ramp", "one", "negative", "few", "zeros"])
def test_other_stacks_stay_as_they_are(kind: str) -> None:
    image, _ = stack() if kind in ("even", "ramp", "one") else stack(1.25, 0.85)
    if kind == "ramp":
        image = image * np.exp(0.2 * np.arange(10))[:, None, None]
    elif kind == "one":
        image[4] *= 1.5
    elif kind == "negative":
        image = image - 100
    elif kind == "few":
        image = image[:5]
    elif kind == "zeros":
        image = np.zeros_like(image)
    data = np.ascontiguousarray(image, np.float32)[None]
    assert without_alternation(data) is data
