"""An initial mask stays where nothing contradicts it, and gives way where something does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Point, Prompts, SegmentModel, fit_for_segmentation
from napari_medgs.segmentation.advanced import InitialMaskParams, SolverParams
from napari_medgs.segmentation.prompts.initial_mask import initial_mask_of
from napari_medgs.segmentation.prompts.rasterize import rasterize_prompts
from napari_medgs.segmentation.result.result import SegmentResult

SHAPE = (24, 32, 32)
BACKGROUND = 0


def _ball(center: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    return np.asarray(((grid - np.array(center)) ** 2).sum(-1) <= radius**2)


@pytest.fixture(scope="module")
def truth() -> NDArray[np.uint8]:
    """Two balls that touch nothing else."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[_ball((12, 11, 11), 7)] = 1
    labels[_ball((12, 24, 24), 5)] = 2
    return labels


@pytest.fixture(scope="module")
def model(truth: NDArray[np.uint8]) -> SegmentModel:
    noise = np.random.default_rng(0).normal(0, 4, SHAPE)
    image = np.array([0.0, 100.0, 200.0])[truth] + noise
    volume = Volume.from_array(image.astype(np.float32))
    return SegmentModel(volume, fit_for_segmentation(volume, FitParams(iterations=20)))


def _dice(guess: NDArray[Any], truth: NDArray[Any]) -> float:
    return float(2 * (guess & truth).sum() / (guess.sum() + truth.sum()))


def test_a_mask_without_prompts_stays(model: SegmentModel, truth: NDArray[np.uint8]) -> None:
    assert (model.update(Prompts(initial=truth)).labels == truth).all()


@settings(max_examples=8, deadline=None)
@given(place=st.tuples(*(st.integers(0, n - 1) for n in SHAPE)))
def test_prompts_that_agree_change_nothing(
    model: SegmentModel, truth: NDArray[np.uint8], place: tuple[int, int, int]
) -> None:
    point = Point(tuple(map(float, place)), int(truth[place]), radius=0.5)
    assert (model.update(Prompts(initial=truth, points=(point,))).labels == truth).all()


def test_background_clicks_around_an_organ_do_not_shrink_it(
    model: SegmentModel, truth: NDArray[np.uint8]
) -> None:
    around = [(12.0, 1.0, 11.0), (12.0, 11.0, 1.0), (1.0, 11.0, 11.0), (22.0, 11.0, 11.0)]
    points = tuple(Point(p, BACKGROUND) for p in around)
    assert (model.update(Prompts(initial=truth, points=points)).labels == truth).all()


def test_a_click_fills_what_a_mask_lacks_and_leaves_the_rest(
    model: SegmentModel, truth: NDArray[np.uint8]
) -> None:
    initial = truth.copy()
    initial[_ball((12, 11, 16), 3.5) & (truth == 1)] = 0
    found = model.update(Prompts(initial=initial, points=(Point((12.0, 11.0, 15.0), 1),))).labels
    assert _dice(found == 1, truth == 1) > _dice(initial == 1, truth == 1) + 0.02
    assert (found[truth == 2] == 2).all()
    far = ~_ball((12, 11, 15), 12)
    assert (found[far] == initial[far]).all()


@settings(max_examples=12, deadline=None)
@given(place=st.tuples(*(st.integers(0, n - 1) for n in SHAPE)), label=st.integers(0, 2))
def test_a_click_moves_a_mask_toward_its_class_alone(
    model: SegmentModel, truth: NDArray[np.uint8], place: tuple[int, int, int], label: int
) -> None:
    """The image shows more of both classes than the mask has, and a click tells of one."""
    initial = np.zeros_like(truth)
    initial[_ball((12, 11, 11), 4)] = 1
    initial[_ball((12, 24, 24), 3)] = 2
    point = Point(tuple(map(float, place)), label)
    found = model.update(Prompts(initial=initial, points=(point,))).labels
    changed = found != initial
    assert (found[changed] == label).all()


def test_two_clicks_open_their_classes_where_both_reach(
    model: SegmentModel, truth: NDArray[np.uint8]
) -> None:
    initial = np.where(truth == 2, 0, truth)
    initial[(truth == 1) & _ball((12, 11, 4), 7)] = 0
    clicks = Point((12.0, 11.0, 7.0), 1), Point((12.0, 24.0, 24.0), 2)
    found = model.update(Prompts(initial=initial, points=clicks)).labels
    for k in (1, 2):
        assert _dice(found == k, truth == k) > 0.9


def test_a_negative_point_leaves_the_other_classes_open(
    model: SegmentModel, truth: NDArray[np.uint8]
) -> None:
    """The first class has swallowed most of the second one."""
    initial = truth.copy()
    initial[(truth == 2) & ~_ball((12, 24, 28), 2)] = 1
    point = Point((12.0, 24.0, 22.0), 1, positive=False)
    found = model.update(Prompts(initial=initial, points=(point,))).labels
    assert _dice(found == 2, truth == 2) > _dice(initial == 2, truth == 2) + 0.4


def test_a_click_removes_what_a_mask_has_too_much(
    model: SegmentModel, truth: NDArray[np.uint8]
) -> None:
    initial = truth.copy()
    extra = _ball((12, 5, 24), 4) & (truth == 0)
    initial[extra] = 1
    found = model.update(Prompts(initial=initial, points=(Point((12.0, 5.0, 24.0), 0),))).labels
    assert (found[extra] == 1).mean() < 0.05
    assert _dice(found == 1, truth == 1) > 0.97


def test_a_negative_point_removes_its_region(
    model: SegmentModel, truth: NDArray[np.uint8]
) -> None:
    initial = truth.copy()
    extra = _ball((12, 5, 24), 4) & (truth == 0)
    initial[extra] = 1
    point = Point((12.0, 5.0, 24.0), 1, positive=False)
    found = model.update(Prompts(initial=initial, points=(point,))).labels
    assert (found[extra] == 1).mean() < 0.05
    assert _dice(found == 1, truth == 1) > 0.97


def test_a_click_that_takes_all_of_a_mask_says_so(
    model: SegmentModel, truth: NDArray[np.uint8]
) -> None:
    initial = np.where(truth == 1, 1, 0)
    click = Point(tuple(np.argwhere(truth == 1).mean(axis=0)), 0)
    with pytest.raises(LabelError, match="nothing of the initial mask's label 1"):
        model.update(Prompts(initial=initial, points=(click,)))


@pytest.mark.parametrize("margin", [0.0, 1.0, 2.0, 4.0])
def test_only_voxels_within_the_margin_change(
    model: SegmentModel, truth: NDArray[np.uint8], margin: float
) -> None:
    from scipy.ndimage import distance_transform_edt

    eroded = np.where(_ball((12, 11, 11), 5.5), 1, np.where(truth == 2, 2, 0)).astype(np.uint8)
    found = model.update(Prompts(initial=eroded, initial_margin=margin)).labels
    depth = np.min(
        [distance_transform_edt(eroded == k) + 1e9 * (eroded != k) for k in range(3)], axis=0
    )
    assert (found[depth >= margin] == eroded[depth >= margin]).all()
    if margin == 4.0:  # wide enough to reach the true border
        assert _dice(found == 1, truth == 1) > _dice(eroded == 1, truth == 1) + 0.1


def test_a_class_that_only_a_prompt_names_joins_a_mask(
    model: SegmentModel, truth: NDArray[np.uint8]
) -> None:
    initial = np.where(truth == 1, 1, 0)
    found = model.update(Prompts(initial=initial, points=(Point((12.0, 24.0, 24.0), 2),))).labels
    assert _dice(found == 2, truth == 2) > 0.9
    assert (found[truth == 1] == 1).all()


def test_slices_far_apart_keep_every_class(model: SegmentModel) -> None:
    """A layer of one slice between free neighbors is still known by its class."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:20, 8:14, 8:14] = 1
    labels[12, 20, 20] = 2
    found = model.update(Prompts(initial=labels, initial_margin=3.0))
    assert found.values == (0, 1, 2)


def test_probabilities_agree_with_what_stays(
    model: SegmentModel, truth: NDArray[np.uint8]
) -> None:
    initial = np.roll(truth, 2, axis=2)  # the image says otherwise at its borders
    result = model.update(Prompts(initial=initial))
    assert (result.labels == initial).all()
    probability = result.probability()
    own = np.take_along_axis(probability, initial[None].astype(int), axis=0)[0]
    assert (own >= probability.max(axis=0) - 1e-6).all()
    np.testing.assert_allclose(probability.sum(axis=0), 1, atol=1e-5)
    wrong = initial != truth
    assert result.uncertainty()[wrong].mean() > 3 * result.uncertainty()[~wrong].mean()


def test_a_preview_keeps_the_mask(model: SegmentModel, truth: NDArray[np.uint8]) -> None:
    initial = np.roll(truth, 2, axis=2)
    for axis in range(3):
        plane = model.preview_slice(axis, 12, Prompts(initial=initial))
        assert (plane == np.take(initial, 12, axis=axis)).all()


def _prior_of(labels: NDArray[Any], certainty: NDArray[Any] | float) -> NDArray[np.float32]:
    prior = np.stack([(labels == k) * certainty for k in range(3)])
    return (prior + (1 - prior.sum(axis=0)) / 3).astype(np.float32)


def test_a_certain_prior_is_a_mask(model: SegmentModel, truth: NDArray[np.uint8]) -> None:
    assert (model.update(Prompts(prior=_prior_of(truth, 0.9))).labels == truth).all()


def test_a_prior_may_change_where_it_is_unsure(
    model: SegmentModel, truth: NDArray[np.uint8]
) -> None:
    labels = truth.copy()
    hole = _ball((12, 11, 16), 3.5) & (truth == 1)
    labels[hole] = 0
    certainty = np.where(_ball((12, 11, 16), 5), 0.3, 0.9)
    found = model.update(Prompts(prior=_prior_of(labels, certainty))).labels
    assert (found[hole] == 1).mean() > 0.8
    assert (found[certainty > 0.5] == labels[certainty > 0.5]).all()


def test_impossible_priors_are_refused(truth: NDArray[np.uint8]) -> None:
    good = _prior_of(truth, 0.9)
    with pytest.raises(ParameterError, match="not both"):
        Prompts(prior=good, initial=truth).check(SHAPE)
    with pytest.raises(GeometryError, match="one channel per class"):
        Prompts(prior=good[:, 1:]).check(SHAPE)
    with pytest.raises(LabelError, match="channels"):
        Prompts(prior=np.ones((1, *SHAPE), np.float32)).check(SHAPE)
    with pytest.raises(LabelError, match="not floats"):
        Prompts(prior=(good > 0.5).astype(np.int32)).check(SHAPE)
    with pytest.raises(LabelError, match="add up to 1"):
        Prompts(prior=2 * good).check(SHAPE)
    bad = good.copy()
    bad[0, 0, 0, 0] = np.nan
    with pytest.raises(LabelError, match="add up to 1"):
        Prompts(prior=bad).check(SHAPE)


def test_a_mask_with_the_background_value_of_the_strokes_is_refused():
    mask, strokes = np.zeros((4, 6, 6), np.uint8), np.zeros((4, 6, 6), np.uint8)
    mask[1:3, 2:4, 2:4], strokes[2, 5, :] = 255, 255
    prompts = Prompts(labels=strokes, background=255, initial=mask)
    with pytest.raises(LabelError, match="the label 255, which means background"):
        prompts.check(mask.shape)
    replace(prompts, initial=mask // 255).check(mask.shape)


@pytest.fixture(scope="module")
def beside() -> tuple[SegmentModel, NDArray[np.uint8]]:
    """A class beside another one, and a third one of the same look, far from both."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[:, 4:13, 4:28] = 1
    truth[:, 15:20, 6:26] = 2
    look = truth.copy()
    look[20:, 25:30, 22:30] = 2
    image = np.array([0.0, 100.0, 200.0])[look] + np.random.default_rng(0).normal(0, 4, SHAPE)
    volume = Volume.from_array(image.astype(np.float32))
    return SegmentModel(volume, fit_for_segmentation(volume, FitParams(iterations=15))), truth


def test_strokes_of_a_class_that_the_mask_lacks_find_all_of_it(beside):
    """Beside a class that is kept a stroke is not deep in the background, however short it is."""
    model, truth = beside
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[12, 17, 13:19], strokes[12, 26, 4:28] = 2, 9
    initial = np.where(truth == 1, truth, 0)
    prompts = Prompts(labels=strokes, background=9, initial=initial)
    found = model.update(prompts).labels
    assert (found[truth == 1] == 1).all()
    assert _dice(found == 2, truth == 2) > 0.95
    np.testing.assert_array_equal(model.preview_slice(0, 3, prompts), found[3])
    # One more stroke, in what was found: nothing is solved anew, and the class stays.
    strokes[5, 16, 10:20] = 2
    quick = model.update(replace(prompts, labels=strokes), quick=True)
    assert quick.incremental
    np.testing.assert_array_equal(quick.labels, found)


def test_a_class_that_the_mask_lacks_ends_within_reach_of_its_strokes():
    """Two clicks on an image tell too little of a class to let it fill all that looks alike."""
    image = np.full(SHAPE, 100.0, np.float32)
    image[:, :, :3] = 0
    image += np.random.default_rng(0).normal(0, 4, SHAPE)
    volume = Volume.from_array(image.astype(np.float32))
    even = SegmentModel(volume, fit_for_segmentation(volume, FitParams(iterations=5)))
    initial = np.zeros(SHAPE, np.uint8)
    initial[:, 28:, 5:9] = 1
    points = Point((12.0, 8.0, 16.0), 2), Point((12.0, 8.0, 1.0), 0)
    found = even.update(Prompts(initial=initial, points=points)).labels == 2
    away = np.sqrt(((np.argwhere(found) - [12, 8, 16]) ** 2).sum(axis=1))
    assert found.sum() > 100
    assert away.max() <= 3 * 4 + 1 + 1  # three times the least extent, the ball of the click


def test_background_that_only_corrects_the_mask_says_nothing_of_the_class_it_lacks(beside):
    """A class may go on in slices where voxels are taken off another one."""
    model, truth = beside
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[12, 17, 13:19], strokes[12, 26, 4:28] = 2, 9
    initial = np.where(truth == 1, truth, 0)
    initial[18:, 2:4, 4:28] = 1
    strokes[18:, 3, 5:27] = 9
    found = model.update(Prompts(labels=strokes, background=9, initial=initial)).labels
    assert _dice(found == 2, truth == 2) > 0.95
    assert _dice(found == 1, truth == 1) > 0.95


def test_a_quick_correction_is_nearly_the_full_one(
    model: SegmentModel, truth: NDArray[np.uint8]
) -> None:
    initial = truth.copy()
    initial[_ball((12, 11, 16), 4.5) & (truth == 1)] = 0
    initial[_ball((12, 27, 27), 3.5) & (truth == 0)] = 2
    marks = np.full(SHAPE, -1, np.int16)
    marks[9, 11, 14:16] = 1

    def prompts() -> Prompts:
        return Prompts(labels=marks, unlabeled=-1, background=0, initial=initial)

    before = model.update(prompts()).labels
    marks[12, 11, 14:17], marks[12, 29, 26:29] = 1, 0
    quick = model.update(prompts(), quick=True)
    full = model.update(prompts())
    assert quick.incremental
    assert not full.incremental
    changed = int((full.labels != before).sum())
    assert changed > 20
    assert (quick.labels != full.labels).sum() < 0.25 * changed
    far = ~_ball((12, 11, 15), 12) & ~_ball((12, 29, 27), 12)
    np.testing.assert_array_equal(quick.labels[far], before[far])


def test_a_quick_update_after_an_erased_correction_is_a_full_one(
    model: SegmentModel, truth: NDArray[np.uint8]
) -> None:
    initial = truth.copy()
    initial[_ball((12, 11, 16), 3.5) & (truth == 1)] = 0
    marks = np.full(SHAPE, -1, np.int16)

    def update(quick: bool) -> SegmentResult:
        prompts = Prompts(labels=marks, unlabeled=-1, background=0, initial=initial)
        return model.update(prompts, quick=quick)

    marks[12, 11, 14:17] = 1
    update(False)
    marks[:] = -1
    erased = update(True)
    assert not erased.incremental
    np.testing.assert_array_equal(erased.labels, initial)


def test_a_margin_is_extended_by_a_quick_update(
    model: SegmentModel, truth: NDArray[np.uint8]
) -> None:
    marks = np.full(SHAPE, -1, np.int16)

    def update(quick: bool) -> SegmentResult:
        prompts = Prompts(
            labels=marks, unlabeled=-1, background=0, initial=truth, initial_margin=2.5
        )
        return model.update(prompts, quick=quick)

    update(False)
    marks[12, 11, 4:6] = 1  # in the margin, as the mask says
    marks[12, 27:29, 23] = 0  # in the margin, against it
    quick, full = update(True), update(False)
    assert quick.incremental
    assert (quick.labels[marks >= 0] == marks[marks >= 0]).all()
    assert _dice(quick.labels == 2, full.labels == 2) > 0.95
    assert _dice(quick.labels == 1, full.labels == 1) > 0.95


def test_other_settings_of_masks_count_for_the_same_mask(
    model: SegmentModel, truth: NDArray[np.uint8]
) -> None:
    initial = truth.copy()
    initial[_ball((12, 11, 16), 3.5) & (truth == 1)] = 0
    prompts = Prompts(initial=initial, points=(Point((12.0, 11.0, 15.0), 1),))
    default, found = model.params, model.update(prompts).labels
    own = InitialMaskParams(release_factor=0.0, release_offset=0.0)  # one voxel around a prompt
    model.params = replace(default, advanced=SolverParams(initial_mask=own))
    less = model.update(prompts).labels
    model.params = default
    assert (less != initial).sum() < 0.5 * (found != initial).sum()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (1.0, 1.0, 1.7)])
def test_what_prompts_free_is_the_same_whether_known_before_or_not(
    truth: NDArray[np.uint8], spacing: tuple[float, float, float]
) -> None:
    relative, axes = np.asarray(spacing), (1, 0, 2)
    marks = np.zeros(SHAPE, np.uint8)
    prompts = Prompts(labels=marks, background=9, initial=truth)
    mask = initial_mask_of(prompts, relative)
    marks[12, 11, 5:8], marks[3, 3, 20:24] = 9, 2
    first = rasterize_prompts(prompts, SHAPE, axes, relative, mask)
    marks[20, 28, 28:31] = 1
    more = rasterize_prompts(prompts, SHAPE, axes, relative, mask)
    anew = rasterize_prompts(prompts, SHAPE, axes, relative, initial_mask_of(prompts, relative))
    for name in ("voxels", "classes", "user_marked"):
        np.testing.assert_array_equal(getattr(more, name), getattr(anew, name))
    assert first.kept
    assert more.kept
    assert anew.kept
    np.testing.assert_array_equal(more.kept.where, anew.kept.where)
    np.testing.assert_array_equal(more.kept.classes, anew.kept.classes)
    known = {id(part.origin) for part in first.kept.parts}
    assert len(known & {id(part.origin) for part in more.kept.parts}) == len(known) == 2
    changed = more.kept.changed_since(first.kept)
    assert changed is not None
    inside = np.zeros(more.kept.where.shape, bool)
    for box in changed:
        inside[box] = True
    assert (inside | (more.kept.where == first.kept.where)).all()
    assert not inside.all()
    assert more.kept.changed_since(anew.kept) is None
