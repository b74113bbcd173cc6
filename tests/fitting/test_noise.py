"""The noise of an image, and thin classes within it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import napari_medgs as mg
from napari_medgs.fitting import AdvancedFitParams, FitParams, TargetParams, fit
from napari_medgs.fitting.noise import noise_variance
from napari_medgs.metrics import dice

SHAPE = (24, 40, 48)


def test_white_noise_on_slow_changes_is_measured() -> None:
    rng = np.random.default_rng(0)
    slow = 0.5 + gaussian_filter(rng.normal(0, 1, SHAPE), 5)
    for sigma in (0.01, 0.05, 0.1):
        image = np.clip(slow + rng.normal(0, sigma, SHAPE), 0, 1).astype(np.float32)
        assert noise_variance(image, 0.0) ** 0.5 == pytest.approx(sigma, rel=0.15)


def test_background_of_low_noise_does_not_count() -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(0.3, 0.002, SHAPE)
    image[8:, 10:30, 10:30] = rng.normal(0.7, 0.05, (16, 20, 20))
    assert noise_variance(image.astype(np.float32), 0.3) ** 0.5 == pytest.approx(0.05, rel=0.15)


@pytest.mark.parametrize("shape", [(1, 200, 300), (1, 1, 3), (4, 2, 2), (300, 3, 4)])
def test_any_shape_has_an_answer(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(0.5, 0.05, shape).astype(np.float32)
    found = noise_variance(image, 0.0) ** 0.5
    assert found == pytest.approx(0.05, rel=0.2) or (min(shape[1:]) < 3 and found == 0)


def test_thin_classes_are_not_lost_in_noise() -> None:
    rng = np.random.default_rng(3)
    labels = np.zeros((40, 64, 64), np.uint8)
    for k in range(4):
        z, y, x = 8 + 7 * k, 10 + 14 * (k % 2), 10 + 14 * k
        labels[z, y : y + 9, x : x + 8] = k + 1
    # So small that the percentiles of intensity are those of the noise.
    image = rng.normal(0, 1, labels.shape) + np.where(labels > 0, 20.0, 0.0)
    volume = mg.Volume.from_array(image.astype(np.float32))
    params = FitParams(gaussians=800, iterations=40, threads=2)

    def worst(params: FitParams) -> tuple[float, float]:
        result = fit(volume, params, labels)
        found = mg.render_labels(result.field)
        return min(dice(found == k, labels == k) for k in range(1, 5)), result.metrics["psnr"]

    before = AdvancedFitParams(target=TargetParams(seg_noise=0))
    (now, psnr), (unweighted, psnr_unweighted) = (
        worst(params),
        worst(replace(params, advanced=before)),
    )
    assert now > 0.97 > 0.94 > unweighted
    assert psnr > psnr_unweighted - 0.1
