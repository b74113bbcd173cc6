"""The final smoothing leaves parts as they are that are no wider than itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import convolve, maximum_filter

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentModel, SegmentParams
from napari_medgs.segmentation.advanced import NarrowBandParams, SolverParams
from napari_medgs.segmentation.api import fit_for_segmentation
from napari_medgs.segmentation.solver.boundary_smoothing import keep_thin_parts

BACKGROUND = 9


@pytest.mark.parametrize("limit", [0.0, 0.4, 0.8])
def test_thin_parts_are_those_whose_kernel_holds_little_of_them(rng, limit):
    shape = (6, 9, 11)
    labels = rng.integers(0, 2, shape).astype(np.uint8)
    labels[1:5, 2:7, 1:6] = 2
    smoothed = rng.integers(0, 3, shape).astype(np.uint8)
    grid = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1)
    weights = np.exp(-0.5 * (grid**2).sum(axis=-1)).astype(np.float32)
    expected = smoothed.copy()
    for k in (1, 2):  # of the background nothing is a part
        mine = labels == k
        own = convolve(mine.astype(float), weights, mode="constant")
        own /= convolve(np.ones(shape), weights, mode="constant")
        thick = maximum_filter((mine & (own > limit)).astype(int), 3, mode="constant") > 0
        expected[mine & ~thick] = k
    found = smoothed.reshape(-1).copy()
    voxels = np.argwhere(np.ones(shape)).astype(np.int32)
    keep_thin_parts(
        voxels, labels, labels.reshape(-1), grid.reshape(-1, 3), weights.reshape(-1),
        np.float32(limit), 0, len(voxels), found,
    )  # fmt: skip
    np.testing.assert_array_equal(found.reshape(shape), expected)
    assert (expected != smoothed).any() == (limit > 0)


def test_a_rod_of_three_voxels_is_not_smoothed_away(rng):
    truth = np.zeros((24, 32, 32), bool)
    for z in range(3, 21):
        truth[z, 10 + z // 2 : 13 + z // 2, 15:18] = True
    image = np.where(truth, 100, 40) + rng.normal(0, 6, truth.shape)
    volume = Volume.from_array(image.astype(np.float32))
    field = fit_for_segmentation(volume, FitParams(gaussians=1200, iterations=30))
    drawn = np.zeros(truth.shape, np.int32)
    for z in (6, 16):
        drawn[z, 11 + z // 2, 15:18] = 1
        drawn[z, 3, 3:29] = drawn[z, 27, 3:29] = drawn[z, 3:28, 5] = BACKGROUND
    prompts = Prompts(labels=drawn, background=BACKGROUND)
    lost = []
    for limit in (0.0, 0.8):
        advanced = SolverParams(narrow_band=NarrowBandParams(thin_part=limit))
        found = SegmentModel(volume, field, SegmentParams(advanced=advanced)).update(prompts)
        mask = found.labels == 1
        lost.append(np.count_nonzero(truth & ~mask) / np.count_nonzero(truth))
        assert np.count_nonzero(mask & ~truth) < 0.2 * np.count_nonzero(truth)
    assert lost[1] < 0.6 * lost[0]


def test_a_bar_with_borders_as_sharp_as_voxels_keeps_its_rim():
    """Smoothed, a rim of bright on black has the look of the gray that is near."""
    truth = np.zeros((24, 32, 32), np.uint8)
    truth[:, 4:13, 4:28] = 1
    truth[:, 15:20, 6:26] = 2
    image = np.array([0.0, 100.0, 200.0])[truth]
    image[20:, 25:30, 22:30] = 200  # the same look elsewhere
    image += np.random.default_rng(0).normal(0, 4, truth.shape)
    volume = Volume.from_array(image.astype(np.float32))
    field = fit_for_segmentation(volume, FitParams(iterations=15))
    strokes = np.zeros(truth.shape, np.uint8)
    strokes[12, 17, 8:24], strokes[12, 26, 4:28] = 2, BACKGROUND
    found = SegmentModel(volume, field).update(Prompts(labels=strokes, background=BACKGROUND))
    bar, mine = truth == 2, found.labels == 2
    assert 2 * (mine & bar).sum() / (mine.sum() + bar.sum()) > 0.95
