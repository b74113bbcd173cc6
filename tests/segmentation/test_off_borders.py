"""Voxels on borders have the look of the tissue that they belong to, not that of a mixture."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentModel
from napari_medgs.segmentation.api import fit_for_segmentation
from napari_medgs.segmentation.solver.off_borders import off_borders
from tests.segmentation.conftest import overlap

BACKGROUND = 9
ALIKE = np.ones(3)


def values_at_ends(image, spacing=ALIKE):
    """Values of a smoothed image where each voxel is looked at."""
    voxels = np.argwhere(np.ones(image.shape)).astype(np.int32)
    points = off_borders(image[None], voxels, np.asarray(spacing))
    assert np.isfinite(points).all()
    far = np.linalg.norm((points - voxels) * spacing, axis=1)
    assert far.max() <= 2 + 1e-4
    return map_coordinates(image, points.T, order=1, mode="nearest").reshape(image.shape)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_smoothed_step_is_sharp_again_but_halfway_up(axis):
    step = np.zeros((12, 12, 12), np.float32)
    np.moveaxis(step, axis, 0)[6:] = 100
    smooth = gaussian_filter(step, 0.8, mode="nearest")
    found = np.moveaxis(values_at_ends(smooth), axis, 0)
    np.testing.assert_allclose(found[:6], 0, atol=4)
    np.testing.assert_allclose(found[6:], 100, atol=4)
    assert abs(np.moveaxis(smooth, axis, 0)[5] - 0).max() > 20
    # The step lies on a voxel: it is half of both.
    np.moveaxis(step, axis, 0)[6] = 50
    smooth = gaussian_filter(step, 0.8, mode="nearest")
    np.testing.assert_allclose(np.moveaxis(values_at_ends(smooth), axis, 0)[6], 50, atol=1)


def test_a_thin_layer_between_dark_and_bright_keeps_its_look():
    line = np.repeat([0.0, 50.0, 100.0], [6, 3, 6])
    smooth = gaussian_filter(line, 0.5)
    image = np.broadcast_to(smooth, (3, 5, 15)).astype(np.float32)
    np.testing.assert_allclose(values_at_ends(image)[1, 2, 6:9], 50, atol=8)


def test_thick_slices_are_followed_in_finest_voxels():
    step = np.zeros((8, 12, 12), np.float32)
    step[4:] = 100
    smooth = gaussian_filter(step, (0.3, 0.8, 0.8), mode="nearest")
    voxels = np.array([[3, 6, 6], [4, 6, 6]], np.int32)
    found = off_borders(smooth[None], voxels, np.array([4.0, 1, 1]))
    assert (np.abs(found - voxels) <= [0.5, 0, 0]).all()


def test_the_steepest_channel_counts():
    flat, step = np.zeros((2, 5, 9, 9), np.float32)
    step[..., 5:] = 100
    smooth = gaussian_filter(step, 0.8, mode="nearest")
    voxels = np.argwhere(np.ones(step.shape)).astype(np.int32)
    alone = off_borders(smooth[None], voxels, ALIKE)
    np.testing.assert_array_equal(off_borders(np.stack([flat, smooth]), voxels, ALIKE), alone)
    np.testing.assert_array_equal(off_borders(flat[None], voxels, ALIKE), voxels)


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 1, 9), (2, 2, 2), (1, 1, 1)])
def test_images_of_few_voxels(rng, shape):
    values_at_ends(rng.normal(size=shape).astype(np.float32))


def test_an_organ_in_fat_keeps_the_rim_that_looks_like_muscle(rng):
    z, y, x = np.indices((28, 56, 56)).astype(float)
    image = np.full(z.shape, -100.0)  # fat
    image[:, :, :18] = 60  # muscle
    truth = (z - 14) ** 2 + (y - 28) ** 2 + (x - 34) ** 2 < 10**2
    image[truth] = 95
    noisy = gaussian_filter(image, 0.7) + rng.normal(0, 8, image.shape)
    volume = Volume.from_array(noisy.astype(np.float32))
    field = fit_for_segmentation(volume, FitParams(gaussians=2500, iterations=30))
    drawn = np.zeros(truth.shape, np.int32)
    for k in (9, 14, 19):
        drawn[k, 28, 30:39] = drawn[k, 24:33, 34] = 1
        drawn[k, 4:52, 8] = drawn[k, 4, 8:52] = drawn[k, 51, 8:52] = drawn[k, 6:50, 50] = (
            BACKGROUND
        )
    found = SegmentModel(volume, field).update(Prompts(labels=drawn, background=BACKGROUND))
    assert overlap(found.labels == 1, truth) > 0.97
