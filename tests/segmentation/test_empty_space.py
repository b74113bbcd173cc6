"""Classes with the intensity of a field's background, where it renders nothing."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentModel, segment
from napari_medgs.segmentation.api import fit_for_segmentation
from tests.segmentation.conftest import BACKGROUND, overlap

SHAPE = 24, 56, 64


@pytest.fixture(scope="module")
def saturated():
    """Two bones of a saturated 8-bit image, its most common value, with a gap between them."""
    rng = np.random.default_rng(0)
    z, y, x = np.indices(SHAPE)
    truth = np.zeros(SHAPE, np.uint8)
    truth[((z - 12) / 11) ** 2 + ((y - 28) / 22) ** 2 + ((x - 19) / 15) ** 2 < 1] = 1
    truth[((z - 12) / 11) ** 2 + ((y - 28) / 22) ** 2 + ((x - 49) / 12) ** 2 < 1] = 2
    image = np.where(truth > 0, 400, 90 + 20 * np.sin(x / 5) * np.sin(y / 6))
    image = (image + rng.normal(0, 8, SHAPE)).clip(0, 255).astype(np.uint8)
    volume = Volume.from_array(image)
    field = fit_for_segmentation(volume, FitParams(gaussians=1500, iterations=20))
    strokes = np.zeros(SHAPE, int)
    strokes[12, 18:38, 19], strokes[12, 18:38, 49] = 1, 2
    strokes[12, 2, 4:60], strokes[12, 53, 4:60] = BACKGROUND, BACKGROUND
    return volume, truth, field, strokes


def test_a_class_of_the_most_common_intensity_has_no_holes(saturated):
    volume, truth, field, strokes = saturated
    result = SegmentModel(volume, field).update(Prompts(labels=strokes, background=BACKGROUND))
    for k in (1, 2):
        assert overlap(result.labels == k, truth == k) > 0.98
        # Probabilities and errors are those of the classes there.
        assert result.probability()[k][12, 22, (0, 16, 52)[k]] > 0.9
    error = result.error_estimate().error_probability
    border = error[12, 28, 32:40].max()
    assert error[12, 22, 16] < 0.5 * border
    assert error[12, 22, 52] < 0.5 * border


def test_strokes_at_the_rim_of_such_a_class_fill_it(saturated):
    volume, truth, field, strokes = saturated
    rim = strokes.copy()
    rim[rim == 1] = 0
    rim[12, 18:38, 7] = 1
    result = SegmentModel(volume, field).update(Prompts(labels=rim, background=BACKGROUND))
    assert overlap(result.labels == 1, truth == 1) > 0.98


def test_lungs_of_a_single_slice_that_are_as_dark_as_the_air_around():
    rng = np.random.default_rng(0)
    _, y, x = np.indices((1, 96, 128))
    truth = (((y - 48) / 30) ** 2 + ((x - 40) / 20) ** 2 < 1).astype(np.uint8)
    truth[((y - 48) / 30) ** 2 + ((x - 88) / 20) ** 2 < 1] = 2
    body = ((y - 48) / 42) ** 2 + ((x - 64) / 58) ** 2 < 1
    image = np.where(body & (truth == 0), 40 + rng.normal(0, 12, truth.shape), -160)
    volume = Volume.from_array(image.astype(np.float32))
    strokes = np.zeros(truth.shape, int)
    strokes[0, 36:60, 40], strokes[0, 36:60, 88] = 1, 2
    strokes[0, 30:66, 64], strokes[0, 3, 4:124] = BACKGROUND, BACKGROUND
    params = FitParams(gaussians=600, iterations=20)
    result = segment(volume, Prompts(labels=strokes, background=BACKGROUND), fit_params=params)
    for k in (1, 2):
        assert overlap(result.labels == k, truth == k) > 0.95


def test_a_quick_stroke_in_such_a_class_counts(saturated):
    volume, truth, field, strokes = saturated
    model = SegmentModel(volume, field)
    first = strokes.copy()
    first[first == 1] = 0
    first[12, 18:38, 7] = 1  # at the border of its bone
    model.update(Prompts(labels=first, background=BACKGROUND))
    more = Prompts(labels=np.maximum(first, strokes), background=BACKGROUND)
    quick = model.update(more, quick=True)
    assert quick.incremental
    assert overlap(quick.labels == 1, truth == 1) > 0.98
    shown = model.preview_slice(0, 12, Prompts(labels=strokes, background=BACKGROUND))
    assert overlap(shown == 1, truth[12] == 1) > 0.95
