"""Passes over all voxels give what NumPy and SciPy give, with any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from napari_medgs.fitting.advanced import InitializationParams
from napari_medgs.fitting.heldout import slice_scores
from napari_medgs.fitting.init import voxels
from napari_medgs.fitting.init.place import importance, sample_voxels

SHAPES = [(12, 21, 19), (3, 5, 2), (1, 20, 30), (7, 1, 9), (2, 8, 8)]


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_is_scipys(rng, shape):
    volume = rng.random(shape, dtype=np.float32)
    sigmas = [0.0 if n == 1 else 1.0 for n in shape]
    blurred = voxels.smooth(volume)
    np.testing.assert_allclose(blurred, gaussian_filter(volume, sigmas), rtol=1e-6)
    np.testing.assert_array_equal(blurred, voxels.smooth(volume, threads=1))


@pytest.mark.parametrize("shape", SHAPES)
def test_slopes_are_numpys(rng, shape):
    volume = rng.random(shape, dtype=np.float32)
    found, expected = np.ones(shape, np.float32), np.ones(shape)
    for z in range(shape[0]):
        voxels.add_squared_slopes(volume, z, found[z])
    for axis in range(3):
        if shape[axis] > 1:
            expected += np.gradient(volume.astype(float), axis=axis) ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def borders_of(labels):
    known = np.where(labels == 255, 0, labels).astype(int)
    borders = np.zeros(labels.shape, np.float32)
    for axis in range(3):
        change = np.diff(known, axis=axis) != 0
        for side in (0, 1):
            pad = [(0, 0)] * 3
            pad[axis] = (side, 1 - side)
            borders += np.pad(change, pad)
    return borders


@pytest.mark.parametrize("shape", SHAPES)
def test_borders_are_counted_on_both_sides(rng, shape):
    labels = rng.choice(np.array([0, 1, 2, 255], np.uint8), shape)
    found = np.full(shape, -1, np.float32)
    for z in range(shape[0]):
        voxels.count_borders(labels, z, found[z])
    np.testing.assert_array_equal(found, borders_of(labels))


def test_histogram_is_numpys(rng):
    volume = rng.random((5, 40, 33), dtype=np.float32)
    volume[0, 0] = np.arange(33) / 32  # on edges of bins, and one
    expected = np.histogram(volume, bins=128, range=(0.0, 1.0))[0]
    np.testing.assert_array_equal(voxels.histogram(volume, 128), expected)


@pytest.mark.parametrize("size", [10, voxels.CHUNK, 3 * voxels.CHUNK + 17])
def test_draws_are_where_the_running_sum_exceeds_marks(rng, size):
    density = rng.random(size, dtype=np.float32)
    density[rng.random(size) < 0.5] = 0
    density[: size // 3] = density[-2:] = 0
    marks = np.sort(rng.random(500))
    sums = np.cumsum(density, dtype=np.float64)
    expected = np.searchsorted(sums, marks * sums[-1], side="right")
    for threads in (1, 3):
        np.testing.assert_array_equal(voxels.draw(density, marks, threads), expected)
    ends = voxels.draw(density, np.array([0.0, 1.0]))
    assert density[ends].min() > 0


def test_voxels_are_drawn_by_density(rng):
    density = np.zeros((4, 30, 40), np.float32)
    density[2] = 1
    density[3] = 3
    drawn = sample_voxels(density, 400, rng)
    assert np.all(np.diff(drawn) > 0)
    planes = np.bincount(drawn // 1200, minlength=4)
    assert planes[:2].sum() == 0
    assert planes[2] == pytest.approx(100, abs=2)
    assert 250 < planes[3] <= 300  # some voxels are hit twice
    assert len(sample_voxels(np.zeros_like(density), 50, rng)) == 50


@pytest.mark.parametrize("shape", [(12, 21, 19), (1, 20, 30)])
@pytest.mark.parametrize("labeled", [False, True])
def test_importance_is_slopes_borders_and_a_share_of_their_mean(rng, shape, labeled):
    images = np.zeros((2, *shape), np.float32)
    images[:, :, 5:, 3:12] = rng.random((2, shape[0], shape[1] - 5, 9), dtype=np.float32)
    labels = np.zeros((0, 0, 0), np.uint8)
    background = np.array([0.0, 0.1], np.float32)
    sigmas = [0.0 if n == 1 else 1.0 for n in shape]
    squares, foreground = np.zeros(shape), np.zeros(shape, bool)
    for image, level in zip(images, background, strict=True):
        blurred = gaussian_filter(image.astype(float), sigmas)
        slopes = [np.gradient(blurred, axis=axis) for axis in range(3) if shape[axis] > 1]
        squares += sum(slope**2 for slope in slopes)
        foreground |= np.abs(image - level) > 0.02
    expected = np.sqrt(squares)
    if labeled:
        labels = np.zeros(shape, np.uint8)
        labels[:, 2:9, 2:9], labels[:, 11] = 2, 255
        borders = gaussian_filter(borders_of(labels), sigmas)
        expected += borders * (expected.mean() * 4 + 1e-3)
        foreground |= (labels > 0) & (labels < 255)
    foreground |= expected > 0.05 * expected.max()
    expected[foreground] += InitializationParams().flat_fraction * expected[foreground].mean()
    settings = InitializationParams()
    found = importance(images, labels, background, settings)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(
        found, importance(images, labels, background, InitializationParams(), threads=1)
    )


def test_slice_scores_are_scikit_images(rng):
    truth = rng.random((2, 5, 17, 23), dtype=np.float32)
    guess = np.clip(truth + rng.normal(0, 0.1, truth.shape), 0, 1).astype(np.float32)
    slices = np.array([0, 2, 3])
    psnr, ssim = slice_scores(truth, guess, slices)
    some = truth[:, slices].astype(float), guess[:, slices].astype(float)
    assert psnr == pytest.approx(peak_signal_noise_ratio(*some, data_range=1.0), abs=1e-4)
    scores = [
        structural_similarity(a, b, data_range=1.0)
        for a, b in zip(*(stack.reshape(-1, 17, 23) for stack in some), strict=True)
    ]
    assert ssim == pytest.approx(np.mean(scores), abs=1e-9)
    assert np.isnan(slice_scores(truth[..., :6], guess[..., :6], slices)[1])
    assert slice_scores(truth, truth, slices) == (float("inf"), pytest.approx(1))
