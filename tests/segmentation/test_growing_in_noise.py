"""Regions grow on intensities whose noise is smoothed, where there is noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter

from napari_medgs.segmentation.solver.region_growing import (
    SIGMA,
    CalmImage,
    grow_regions,
)
from napari_medgs.segmentation.terms.image_features import image_features
from tests.segmentation.conftest import overlap


@pytest.mark.parametrize("depth", [1.0, 2.5])
def test_noisy_channels_are_smoothed_around_the_band(rng, depth):
    noise = rng.normal(size=(7, 12, 12)).astype(np.float32)
    clean = gaussian_filter(rng.normal(size=noise.shape), 2).astype(np.float32)
    image = image_features(np.stack([noise, clean]), np.array([depth, 1, 1]))
    assert image.noisy == (True, False)
    line = np.exp(-0.5 * (np.arange(-1, 2) / SIGMA) ** 2)
    across = np.exp(-0.5 * (np.arange(-1, 2) * depth / SIGMA) ** 2)
    kernel = np.einsum("i,j,k->ijk", across, line, line)
    expected = convolve(image.sharp[0].astype(float), kernel, mode="constant")
    expected /= convolve(np.ones(noise.shape), kernel, mode="constant")
    band = np.zeros(noise.shape, bool)
    band[2:5, 3:9, 0:6] = True
    band[3, 5, 3] = False
    near = convolve(band.astype(int), np.ones((3, 3, 3)), mode="constant") > 0
    calm, voxels = CalmImage(image), np.argwhere(band).astype(np.int32)
    for part in (voxels[:40], voxels):  # what is there stays
        found = calm.near(part)
    np.testing.assert_allclose(found[0][near], expected[near], atol=1)
    np.testing.assert_array_equal(found[1][near], image.sharp[1][near])


def test_clean_images_stay_as_they_are(rng):
    clean = gaussian_filter(rng.normal(size=(1, 7, 12, 12)), (0, 2, 2, 2)).astype(np.float32)
    image = image_features(clean, np.ones(3))
    assert CalmImage(image).near(np.zeros((1, 3), np.int32)) is image.sharp


def test_regions_follow_a_tube_in_noise(rng):
    z, y, x = np.indices((24, 40, 40)).astype(float)
    truth = np.hypot(y - 20 - 4 * np.sin(z / 7), x - 20 - 3 * np.cos(z / 9)) < 4
    noise = rng.normal(0, 20, truth.shape)
    raw = gaussian_filter(np.where(truth, 140.0, 100.0), 0.6) + noise
    image = image_features(raw[None].astype(np.float32), np.ones(3))
    voxels = np.argwhere(np.ones(truth.shape)).astype(np.int32)
    slot = np.arange(truth.size, dtype=np.int32).reshape(truth.shape)
    seeds = np.zeros(truth.shape, bool)
    seeds[4::8] = (np.hypot(y - 20 - 4 * np.sin(z / 7), x - 20 - 3 * np.cos(z / 9)) < 2)[4::8]
    seeds[4::8, 6] = seeds[4::8, -7] = seeds[4::8, :, 6] = seeds[4::8, :, -7] = True
    marked = slot[seeds]
    nothing, none = np.zeros(truth.shape, np.uint8), np.full(truth.shape, -np.inf, np.float32)
    scores = []
    for levels in (image.sharp, CalmImage(image).near(voxels)):
        labels, _ = grow_regions(
            levels, None, slot, voxels, marked, truth[seeds].astype(np.int32), nothing, none
        )
        scores.append(overlap(labels.reshape(truth.shape) == 1, truth))
    assert scores[1] > scores[0] + 0.1
