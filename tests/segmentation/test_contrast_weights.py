"""Contrasts count by what they tell of the user's own strokes."""

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
from napari_medgs.segmentation.terms.contrast_weights import learn_contrast_weights
from napari_medgs.segmentation.voxel_model import VoxelModel
from tests.segmentation.conftest import overlap

BACKGROUND = 9
SHAPE = (9, 40, 40)


@pytest.fixture(scope="module")
def scene():
    """A lesion that the first contrast shows; the second shows another structure across it."""
    rng = np.random.default_rng(3)
    z, y, x = np.mgrid[tuple(slice(n) for n in SHAPE)]
    lesion = ((z - 4) / 4) ** 2 + ((y - 20) / 9) ** 2 + ((x - 20) / 9) ** 2 < 1
    other = (y // 5 + x // 5) % 2 * 1.0
    data = np.stack([lesion * 100.0, other * 100.0])
    data += rng.normal(0, 1, data.shape) * np.array([45.0, 8.0])[:, None, None, None]
    volume = Volume.from_array(data.astype(np.float32))
    field = fit_for_segmentation(volume, FitParams(gaussians=1200, iterations=20))
    strokes = np.zeros(SHAPE, np.int32)
    strokes[4, 20, 14:27] = 1
    strokes[4, 8, 6:35] = strokes[4, 33, 6:35] = strokes[4, 6:35, 8] = BACKGROUND
    return volume, field, lesion, strokes


def _solve(scene, **settings):
    volume, field, _, strokes = scene
    model = SegmentModel(volume, field, SegmentParams(**settings))
    return model.update(Prompts(labels=strokes, background=BACKGROUND)).labels == 1


def _learn(volume, field, prompts):
    model = VoxelModel(volume, field)
    return learn_contrast_weights(model.snapshot(prompts).markers, model._setup.graph.image, 0)


def test_the_contrast_that_shows_a_lesion_decides(scene):
    lesion = scene[2]
    alike, weighed = _solve(scene, weigh_contrasts=False), _solve(scene)
    assert overlap(weighed, lesion) > overlap(alike, lesion) + 0.02
    assert overlap(weighed, lesion) > 0.85


@pytest.mark.parametrize("slices", [(4,), (3, 5)])
def test_weights_are_those_of_held_out_markers(scene, slices):
    volume, field, _, strokes = scene
    drawn = np.zeros_like(strokes)
    for z in slices:
        drawn[z] = strokes[4]
    found = _learn(volume, field, Prompts(labels=drawn, background=BACKGROUND))
    assert found.edges[0] == 1
    assert found.edges[1] <= 0.5
    assert (4 * found.edges == np.round(4 * found.edges)).all()
    np.testing.assert_allclose(found.by_class.mean(axis=0), 1, rtol=1e-5)
    assert (found.by_class[0] > found.by_class[1]).all()


def test_a_model_tells_what_it_learned(scene):
    volume, field, _, strokes = scene
    given = Prompts(labels=strokes, background=BACKGROUND)
    found = _learn(volume, field, given)
    model = SegmentModel(volume, field)
    np.testing.assert_array_equal(model.contrast_weights(given), found.by_class)
    model.update(given)
    np.testing.assert_array_equal(model.contrast_weights(given), found.by_class)
    model.params = SegmentParams(weigh_contrasts=False)
    assert model.contrast_weights(given) is None
    explained = explain_contrasts(volume, given, field)
    np.testing.assert_array_equal(explained.weights, found.by_class[:, 1:])


def test_subsets_with_a_copy_of_a_contrast_are_solved_as_segment_solves_them(scene):
    volume, field, _, strokes = scene
    first, second = volume.data
    three = Volume.from_array(np.stack([first, second, 2 * first + 3]))
    given = Prompts(labels=strokes, background=BACKGROUND)
    explained = explain_contrasts(three, given, field)
    full = SegmentModel(three, field).update(given).labels
    for c in range(3):
        alone = SegmentModel(three.subset((c,)), field).update(given).labels
        assert explained.alone[c, 0] == overlap(alone == 1, full == 1)
    assert explained.alone[0] == explained.alone[2]
    # Beside the original a copy says nothing, so that both are worth the same (but for rounding).
    np.testing.assert_allclose(explained.shapley[0], explained.shapley[2], atol=0.01)
    np.testing.assert_array_equal(explained.weights[2], 0)


def test_one_contrast_and_too_few_markers_change_nothing(scene):
    volume, field, lesion, strokes = scene
    given = Prompts(labels=strokes, background=BACKGROUND)
    single = replace(volume, data=volume.data[:1], channel_names=volume.channel_names[:1])
    assert _learn(single, field, given) is None
    labels = [
        SegmentModel(single, field, SegmentParams(weigh_contrasts=on)).update(given).labels
        for on in (False, True)
    ]
    np.testing.assert_array_equal(*labels)
    many = Volume.from_array(np.concatenate([volume.data] * 3))
    assert _learn(many, field, given) is None
    few = np.zeros_like(strokes)
    few[4, 20, 20:22], few[4, 8, 6:35] = 1, BACKGROUND
    assert _learn(volume, field, Prompts(labels=few, background=BACKGROUND)) is None
    refined = replace(given, initial=lesion.astype(np.uint8))
    assert _learn(volume, field, refined) is None


def test_a_result_depends_on_its_prompts_alone(scene):
    volume, field, _, strokes = scene
    given = Prompts(labels=strokes, background=BACKGROUND)
    swapped = Volume.from_array(volume.data[::-1].copy(), affine=volume.affine)
    model = SegmentModel(volume, field)
    # The checkerboard as the object: now the second contrast counts.
    board = np.where(volume.data[1, 4] > 50, 1, BACKGROUND)
    board[::3], board[:, ::2] = 0, 0
    other = np.zeros_like(strokes)
    other[4] = board
    first = model.update(Prompts(labels=other, background=BACKGROUND))
    assert overlap(first.labels[4] == 1, volume.data[1, 4] > 50) > 0.75
    again = model.update(given).labels
    np.testing.assert_array_equal(again == 1, _solve(scene))
    model.params = SegmentParams(weigh_contrasts=False)
    np.testing.assert_array_equal(
        model.update(given).labels == 1, _solve(scene, weigh_contrasts=False)
    )
    found = _learn(swapped, field, given)
    assert found.edges[1] == 1 > found.edges[0]


def test_a_range_of_the_first_contrast_is_no_range_of_the_others(scene):
    volume, field, _, strokes = scene
    prompts = Prompts(labels=strokes, background=BACKGROUND)
    far = np.stack([volume.data[0], volume.data[1] + 1e4])
    volume = replace(volume, data=far)
    free = explain_contrasts(volume, prompts, field)
    params = SegmentParams(lowest=-1000, highest=1000)
    held = explain_contrasts(volume, prompts, field, params)
    np.testing.assert_array_equal(held.alone, free.alone)
    assert (free.alone[1] > 0).all()
