"""Where a contrast has no value, the others decide: an image is no worse for where one ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import (
    Prompts,
    SegmentModel,
    SegmentParams,
    explain_contrasts,
    fit_for_segmentation,
)
from napari_medgs.segmentation.local import crop
from napari_medgs.segmentation.terms.smooth_fill import fill_smoothly
from tests.segmentation.conftest import overlap

BACKGROUND = 9
SHAPE = (10, 44, 44)
FIT = FitParams(gaussians=600, iterations=6)


@pytest.fixture(scope="module")
def scene():
    """A lesion in two contrasts, each of which shows it dimly; strokes in its middle slice."""
    rng = np.random.default_rng(3)
    z, y, x = np.indices(SHAPE)
    lesion = ((z - 5) / 4) ** 2 + ((y - 22) / 11) ** 2 + ((x - 22) / 11) ** 2 < 1
    data = 100 + 40 * lesion + rng.normal(0, 18, (2, *SHAPE))
    strokes = np.zeros(SHAPE, np.int32)
    strokes[5, 22, 14:31] = 1
    strokes[5, 6, 6:39] = strokes[5, 38, 6:39] = strokes[5, 6:39, 5] = BACKGROUND
    return data.astype(np.float32), lesion, strokes


def half_of(data, channel=1):
    """Return an image one contrast of which ends within the lesion."""
    cut = data.copy()
    cut[channel, :, :, 22:] = np.nan
    return Volume.from_array(cut)


@pytest.fixture(scope="module")
def half(scene):
    """The second contrast ends in the middle of the lesion; with its field."""
    with pytest.warns(UserWarning, match="goes by the other contrasts where they have values"):
        volume = half_of(scene[0]).prepared()
    return volume, fit_for_segmentation(volume, FIT)


def solve(volume, field, strokes, **settings):
    model = SegmentModel(volume, field, SegmentParams(**settings))
    return model.update(Prompts(labels=strokes, background=BACKGROUND)).labels == 1


def test_a_contrast_that_ends_within_a_lesion_makes_no_mask_worse(scene, half):
    _, lesion, strokes = scene
    strokes = np.where(np.arange(SHAPE[2]) < 20, strokes, 0)  # where both contrasts are
    alone = half[0].subset([0])
    without = overlap(solve(alone, fit_for_segmentation(alone, FIT), strokes), lesion)
    found = overlap(solve(*half, strokes), lesion)
    background = Volume(half[0].data, half[0].grid)  # taken as background, it is a border
    assert found > without - 0.02
    assert found > overlap(solve(background, half[1], strokes), lesion) + 0.2


def test_what_stands_for_missing_values_counts_for_nothing(scene, half):
    volume, field = half
    other = volume.data.copy()
    other[volume.missing] = np.random.default_rng(0).normal(300, 200, other[volume.missing].shape)
    same = solve(replace(volume, data=other), field, scene[2])
    np.testing.assert_array_equal(same, solve(volume, field, scene[2]))


@pytest.mark.parametrize("channel", [0, 1])
def test_strokes_where_a_contrast_has_no_value(scene, half, channel):
    data, lesion, strokes = scene
    volume = half[0]
    if channel == 0:
        with pytest.warns(UserWarning, match="goes by the other contrasts"):
            volume = half_of(data, channel).prepared()
    strokes = strokes.copy()
    strokes[:, :, :23] = 0  # no stroke on either class sees both contrasts
    strokes[5, 8:37, 40] = BACKGROUND
    found = solve(volume, half[1], strokes)
    assert overlap(found, lesion) > 0.7


def test_a_class_of_which_a_contrast_shows_nothing(scene, half):
    _, lesion, strokes = scene
    strokes = strokes.copy()
    strokes[5, 22, :23] = 0
    assert overlap(solve(*half, strokes), lesion) > 0.7


def test_large_images_and_explanations(scene, half):
    volume, field = half
    _, lesion, strokes = scene
    assert overlap(solve(volume, field, strokes, working_voxels=8000), lesion) > 0.7
    prompts = Prompts(labels=strokes, background=BACKGROUND)
    found = explain_contrasts(volume, prompts, field)
    assert np.isfinite(found.shapley).all()
    assert found.shapley[0, 0] > found.shapley[1, 0]


def test_a_part_of_an_image_has_the_contrasts_with_values_in_it(scene, half):
    volume, field = half
    part, inside = crop(volume, field, np.s_[2:9, 8:36, 24:40])
    assert part.channel_names == volume.channel_names[:1]
    assert not part.missing.any()
    strokes = scene[2][2:9, 8:36, 24:40].copy()
    strokes[3, :, 14] = BACKGROUND
    assert solve(part, inside, strokes)[3, 14, 2:7].all()
    both, _ = crop(volume, field, np.s_[2:9, 8:36, 12:40])
    assert both.channels == 2
    np.testing.assert_array_equal(both.missing, volume.missing[:, 2:9, 8:36, 12:40])


def test_nan_of_all_contrasts_is_background(scene):
    data = scene[0].copy()
    data[:, :, :4] = np.nan
    with pytest.warns(UserWarning, match="taken as 0"):
        volume = Volume.from_array(data).prepared()
    assert volume.missing is None
    data[1, 0, 20] = np.nan
    with pytest.warns(UserWarning, match="taken as 0"):
        volume = Volume.from_array(data).prepared()
    assert volume.missing[1, 0, 20].all()
    assert volume.missing.sum() == SHAPE[2]
    with pytest.warns(UserWarning, match="given"):
        assert Volume.from_array(data).fill_nan(5).missing is None


@pytest.mark.parametrize("last", [13, 14, 15, 16])
def test_values_are_continued_without_a_border(last):
    z, y, x = np.indices((9, 30, 31))
    image = np.sin(x / 8) + np.cos(y / 9) + z / 9
    missing = x > last
    filled = fill_smoothly(image, missing)
    np.testing.assert_allclose(filled[~missing], image[~missing], rtol=1e-5)
    assert np.abs(np.diff(filled, axis=2)).max() < 1.5 * np.abs(np.diff(image, axis=2)).max()
    known = image[~missing]
    assert known.min() - 1e-6 <= filled.min() <= filled.max() <= known.max() + 1e-6
