"""Background strokes along the border of a class, and slices that are fully labeled."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentModel
from napari_medgs.segmentation.api import fit_for_segmentation
from tests.segmentation.conftest import overlap

BACKGROUND = 9
SHAPE = (16, 96, 96)


def model_of(image):
    volume = Volume.from_array(image.astype(np.float32), spacing=(5, 0.8, 0.8))
    field = fit_for_segmentation(volume, FitParams(gaussians=600, iterations=40))
    return SegmentModel(volume, field)


@pytest.fixture(scope="module")
def organ():
    """An ellipsoid in thick slices, beside a tissue of similar intensity; few large Gaussians."""
    z, y, x = np.indices(SHAPE)
    inside = ((z - 8) / 7) ** 2 + ((y - 48) / 26) ** 2 + ((x - 48) / 32) ** 2 < 1
    rng = np.random.default_rng(1)
    texture = gaussian_filter(rng.normal(0, 100, SHAPE), (1, 5, 5))
    image = 100 + 60.0 * inside + 35.0 * ((y > 60) & ~inside) + texture
    return model_of(gaussian_filter(image, (0.3, 1, 1)) + rng.normal(0, 6, SHAPE)), inside


@pytest.fixture(scope="module")
def rod():
    """A rod of four pixels a slice, much thinner than the Gaussians."""
    z, y, x = np.indices(SHAPE)
    inside = (abs(y - 40.5 - 0.5 * (z - 8)) < 1) & (abs(x - 50.5) < 1)
    rng = np.random.default_rng(2)
    image = 100 + 90.0 * inside + gaussian_filter(rng.normal(0, 100, SHAPE), (1, 5, 5))
    return model_of(image + rng.normal(0, 4, SHAPE)), inside


def strokes(truth, slices, *, outline=False):
    """A line through the class and a frame; an outline two pixels outside of the class."""
    out = np.zeros(truth.shape, int)
    for z in slices:
        out[z, (3, 92), 5:91] = out[z, 5:91, 3] = out[z, 5:91, 92] = BACKGROUND
        rows, columns = np.nonzero(truth[z])
        middle = int(np.median(rows))
        on = columns[rows == middle]
        out[z, middle, on[len(on) // 4 : len(on) - len(on) // 4]] = 1
        if outline:
            near = binary_dilation(truth[z], iterations=2)
            out[z][binary_dilation(near) & ~near] = BACKGROUND
    return out


def masked(model, labels):
    return model.update(Prompts(labels=labels, background=BACKGROUND)).labels == 1


@pytest.mark.parametrize("slices", [(8,), (4, 8, 12)])
def test_an_outline_in_the_background_takes_nothing_of_the_class(organ, slices):
    model, truth = organ
    plain = overlap(masked(model, strokes(truth, slices)), truth)
    outlined = overlap(masked(model, strokes(truth, slices, outline=True)), truth)
    assert plain > 0.97
    assert outlined > plain - 0.012


def test_a_thin_class_is_not_lost_by_an_outline(rod):
    model, truth = rod
    assert overlap(masked(model, strokes(truth, (4, 8, 12), outline=True)), truth) > 0.85


def labeled(truth, slices):
    out = np.zeros(truth.shape, int)
    for z in slices:
        out[z] = np.where(truth[z], 1, BACKGROUND)
    return out


@pytest.mark.parametrize("slices", [(8,), (4, 8, 12)])
def test_a_fully_labeled_slice_says_no_less_than_strokes_in_it(organ, slices):
    model, truth = organ
    plain = overlap(masked(model, strokes(truth, slices)), truth)
    assert overlap(masked(model, labeled(truth, slices)), truth) > plain


def test_a_thin_class_goes_on_between_fully_labeled_slices(rod):
    model, truth = rod
    assert overlap(masked(model, labeled(truth, (4, 8, 12))), truth) > 0.97
