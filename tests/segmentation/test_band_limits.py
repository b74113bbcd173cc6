"""Which voxels are solved one by one: those near classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentModel, SegmentParams
from napari_medgs.segmentation.advanced import NarrowBandParams
from napari_medgs.segmentation.api import fit_for_segmentation
from napari_medgs.segmentation.solver.band_limits import band_limits
from tests.segmentation.conftest import overlap
from tests.segmentation.test_kernels import markers_of

SHAPE = (10, 33, 40)
PARAMS = NarrowBandParams(thresholds=(0.2, 0.5, 1.0, 3.0), min_threshold=0.5, block=4.0)


@pytest.fixture
def margins(rng):
    """Margins, and the labels of one voxel of a class; another one is marked."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1, 3, 5] = 1
    markers = markers_of([(9, 30, 30), (5, 20, 20)], [1, 0], (0, 1))
    return rng.uniform(0, 4, SHAPE).astype(np.float32), labels, markers


def near_voxels():
    """Blocks of 2 x 4 x 4 voxels at and beside those of the class."""
    near = np.zeros((5, 9, 10), bool)
    near[0, 0, 1] = near[4, 7, 7] = True
    near = binary_dilation(near, np.ones((3, 3, 3)))
    for axis, times in enumerate((2, 4, 4)):
        near = near.repeat(times, axis=axis)
    return near[: SHAPE[0], : SHAPE[1], : SHAPE[2]]


@pytest.mark.parametrize(
    ("spare", "threshold"), [(0, 1.0), (-1, 0.5), (10**6, 3.0), (-(10**6), 0.5)]
)
def test_voxels_are_spent_near_classes(margins, spare, threshold):
    margin, labels, markers = margins
    near = near_voxels()
    most = np.count_nonzero(margin < np.where(near, 1.0, 0.5)) + spare
    found = band_limits(labels, margin, markers, np.array([2.0, 1, 1]), most, PARAMS)
    expected = np.where(near, threshold, 0.5)
    values = found.values
    for axis, times in enumerate(found.size):
        values = values.repeat(times, axis=axis)
    np.testing.assert_allclose(values[: SHAPE[0], : SHAPE[1], : SHAPE[2]], expected)
    assert found.count == np.count_nonzero(margin < expected)


@pytest.mark.parametrize("thin", [2, 70, 255])
def test_the_widest_margins_are_for_classes_that_fill_no_block(margins, thin):
    margin, labels, markers = margins
    labels[:] = 0
    labels[2:8, 8:16, 8:16], labels[4, 26, 30] = 1, thin
    params = replace(PARAMS, thick_threshold=1.0)
    most = np.count_nonzero(margin < 3.0) - 1  # not everything
    found = band_limits(labels, margin, markers, np.array([2.0, 1, 1]), most, params)
    assert found.values[2, 2, 2] == found.near == 1.0
    assert found.values[2, 6, 7] == 3.0
    assert found.values[0, 0, 9] == 0.5
    everything = band_limits(labels, margin, markers, np.array([2.0, 1, 1]), most + 1, params)
    assert everything.values[2, 2, 2] == 3.0


def test_between_thick_fully_labeled_slices_all_blocks_count_alike(margins):
    margin, labels, markers = margins
    labeled = replace(markers, fully_labeled={0: np.array([3])})
    params = replace(PARAMS, thick_slices=1.0)
    most = np.count_nonzero(margin < 1.0)
    found = band_limits(labels, margin, labeled, np.ones(3), most, params)
    assert (found.values == 1.0).all()
    assert found.count == most
    thin = replace(params, thick_slices=1.5)
    found = band_limits(labels, margin, labeled, np.ones(3), most, thin)
    plain = band_limits(labels, margin, markers, np.ones(3), most, thin)
    np.testing.assert_array_equal(found.values, plain.values)
    assert not (found.values == 1.0).all()


def test_a_class_thinner_than_the_gaussians_is_found():
    """A faint cross in a disc: few Gaussians show the disc only."""
    rng = np.random.default_rng(0)
    _, y, x = np.indices((9, 96, 96))
    y, x = abs(y - 48), abs(x - 48)
    cross = ((y <= 1) & (x <= 9)) | ((x <= 1) & (y <= 9))
    image = 50 + 40 * (y**2 + x**2 < 400) + 10 * cross + rng.normal(0, 4, cross.shape)
    volume = Volume.from_array(image.astype(np.float32), spacing=(5, 1, 1))
    field = fit_for_segmentation(volume, FitParams(gaussians=500, iterations=20))
    drawn = np.zeros(cross.shape, np.uint8)
    for z in (2, 6):
        drawn[z, 48, 43:52], drawn[z, 38, 38:46], drawn[z, 57, 50:60] = 1, 2, 2
        drawn[z, 10, 10:80] = 2
    params = SegmentParams(refine_voxels=16_000)
    band = replace(params.advanced.narrow_band, block=10_000.0)  # one block: the whole image
    spread = replace(params, advanced=replace(params.advanced, narrow_band=band))
    prompts = Prompts(labels=drawn, background=2)
    model = SegmentModel(volume, field, params)
    near = overlap(model.update(prompts).labels == 1, cross)
    model.params = spread
    assert near > overlap(model.update(prompts).labels == 1, cross) + 0.05
