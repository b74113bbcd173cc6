"""What lies between fully labeled slices: interpolated labels, or what the image shows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.interpolation import interpolate_labels
from napari_medgs.segmentation import Prompts, SegmentModel
from napari_medgs.segmentation.api import fit_for_segmentation
from tests.segmentation.conftest import overlap

SHAPE = (17, 64, 64)
SLICES = [2, 8, 14]
BACKGROUND = 9


def solve(image, truth, slices=SLICES):
    """Label some slices of the truth completely, and segment."""
    volume = Volume.from_array(image.astype(np.float32))
    model = SegmentModel(
        volume, fit_for_segmentation(volume, FitParams(gaussians=2000, iterations=20))
    )
    labels = np.zeros(truth.shape, int)
    labels[slices] = np.where(truth[slices] > 0, truth[slices], BACKGROUND)
    return model.update(Prompts(labels=labels, background=BACKGROUND)).labels


def noisy(image, sigma=5.0):
    return gaussian_filter(image, 0.6) + np.random.default_rng(4).normal(0, sigma, SHAPE)


@pytest.fixture(scope="module")
def vessel():
    """A vessel that moves by more than its diameter from one labeled slice to the next."""
    z, y, x = np.indices(SHAPE)
    truth = (np.hypot(y - 32, x - (14 + 2.2 * z)) < 3.5).astype(int)
    return 50 + 100.0 * truth, truth


def test_a_vessel_whose_sections_do_not_overlap_is_followed_through_the_image(vessel):
    image, truth = vessel
    assert not (truth[2] & truth[8]).any()
    found = solve(noisy(image), truth)
    for z in range(3, 14):
        assert overlap(found[z] == 1, truth[z] == 1) > 0.68, z


def test_a_large_organ_beside_it_is_interpolated_all_the_same(vessel):
    image, truth = vessel
    z, y, x = np.indices(SHAPE)
    organ = np.hypot(y - 12, x - 32 - 0.3 * (z - 8)) < 9
    both = np.where(organ, 2, truth)
    found = solve(noisy(image), both)  # the image does not show the organ
    for z in range(3, 14):
        assert overlap(found[z] == 1, truth[z] == 1) > 0.68, z
        assert overlap(found[z] == 2, organ[z]) > 0.9, z


def test_what_one_slice_alone_shows_ends_where_the_image_shows_its_end():
    z, y, x = np.indices(SHAPE)
    truth = ((np.hypot(y - 32, x - 32) < 10) & (z > 3)).astype(int)
    found = solve(noisy(50 + 100.0 * truth), truth, [2, 10])
    volumes = (found == 1).sum(axis=(1, 2))
    assert (volumes[5:11] > 250).all()  # of 305
    assert volumes[3] < 30


def test_overlapping_sections_are_interpolated_where_the_image_shows_nothing():
    z, y, x = np.indices(SHAPE)
    truth = (np.hypot(y - 32, x - 26 - 0.8 * z) < 12).astype(int)
    found = solve(noisy(np.full(SHAPE, 80.0)), truth)
    expected = interpolate_labels(truth, SLICES)
    for z in range(3, 14):
        assert overlap(found[z] == 1, expected[z] == 1) > 0.97, z


def test_one_slice_between_two_takes_what_both_show():
    z, y, x = np.indices(SHAPE)
    truth = (np.hypot(y - 32, x - 12 - 2.5 * z) < 4).astype(int)
    assert overlap(truth[6] == 1, truth[8] == 1) < 0.5
    found = solve(noisy(np.full(SHAPE, 80.0)), truth, [2, 4, 6, 8, 10, 12, 14])
    assert overlap(found[7] == 1, truth[7] == 1) > 0.8
