"""Every kind of prompt does what it says; quick answers; uncertainty; suggestions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_medgs.data.phantom import make_phantom
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled, GeometryError, ParameterError
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Box, Point, Prompts, SegmentModel, SegmentParams, segment
from napari_medgs.segmentation.api import fit_for_segmentation
from tests.segmentation.conftest import BACKGROUND, overlap


@pytest.fixture
def prompts(ball_strokes):
    return Prompts(labels=ball_strokes, background=BACKGROUND)


@pytest.mark.parametrize("rule", ["keep", "connected", "largest"])
def test_whatever_the_island_rule_parts_that_were_drawn_in_stay(ball_scene, prompts, rule):
    """Parts: a ball with a stroke, a smaller one with a stroke, a box without any."""
    volume, labels, field = ball_scene
    drawn = prompts.labels.copy()
    drawn[8, 36, 32:37] = 1
    small = np.zeros(labels.shape, bool)
    small[:, 30:, 28:] = labels[:, 30:, 28:] == 1
    # Class 3 is locked, so that it touches no path; a part of it has no stroke.
    drawn[8, 40, 5:8] = 3
    locked = np.zeros(labels.shape, np.int32)
    locked[7:10, 38:43, 4:9] = locked[2:4, 38:42, 4:8] = 3
    given = replace(prompts, labels=drawn, locked=frozenset({3}), result=locked)
    result = segment(volume, given, SegmentParams(islands=rule), field=field).labels
    assert (result[small] == 1).mean() > 0.5
    assert (result[labels == 1] == 1).mean() > 0.5
    np.testing.assert_array_equal(result == 3, locked == 3)  # all voxels of a locked class, too


@pytest.mark.parametrize("rule", ["connected", "largest"])
def test_the_island_rule_chooses_among_parts_of_a_mask(ball_scene, prompts, rule):
    """Parts of an initial mask count as marked, but not as drawn."""
    volume, labels, field = ball_scene
    mask = np.where(labels == 1, 1, 0)
    assert not (prompts.labels[:, 30:, 28:] == 1).any()
    given = replace(prompts, initial=mask)
    result = segment(volume, given, SegmentParams(islands=rule), field=field).labels
    assert (result[:, 30:, 28:] == 1).any() == (rule == "connected")
    assert (result[labels == 1] == 1).mean() > 0.5


def test_a_part_without_a_stroke_becomes_background(ball_scene, prompts):
    volume, labels, field = ball_scene
    lone = np.zeros(labels.shape, bool)
    lone[:, 30:, 28:] = labels[:, 30:, 28:] == 1
    result = segment(volume, prompts, field=field).labels
    assert (result[lone] == 0).all()
    assert overlap(result == 1, (labels == 1) & ~lone) > 0.9


def test_strokes_in_any_orientation(ball_scene, model):
    _, labels, _ = ball_scene
    drawn = np.zeros(labels.shape, np.int32)
    drawn[6:11, 14, 14] = 1  # on the coronal slice y = 14
    drawn[6:11, 14, 34] = 2
    drawn[1:16, 14, 24] = BACKGROUND
    drawn[1:16, 14, 3] = BACKGROUND
    drawn[1, 14, 3:45] = BACKGROUND
    drawn[1:16, 14, 45] = BACKGROUND
    result = model.update(Prompts(labels=drawn, background=BACKGROUND))
    assert overlap(result.labels == 2, labels == 2) > 0.85


def test_points_alone_are_enough(ball_scene, model):
    _, labels, _ = ball_scene
    points = (
        Point((8, 14, 14), 1, radius=2.0),
        Point((8, 14, 34), 2, radius=2.0),
        Point((8, 26, 14), 0, radius=2.0),
        Point((8, 3, 24), 0, radius=2.0),
        Point((8, 26, 40), 0, radius=2.0),
    )
    result = model.update(Prompts(points=points))
    assert overlap(result.labels == 2, labels == 2) > 0.8


def test_a_click_near_a_rim_does_not_flood_what_no_click_shows():
    """Its ball holds voxels of the tissue around the lesion, too."""
    head = make_phantom(spacing=3.0)
    volume = Volume.from_array(head.image, affine=head.grid.affine)
    model = SegmentModel(volume, fit_for_segmentation(volume))
    places = [(33, 27, 39), (33, 27, 48), (33, 24, 38), (34, 29, 40)]
    clicks = [Point(place, int(k != 1)) for k, place in enumerate(places)]
    for count in (2, 3, 4):
        found = model.update(Prompts(points=tuple(clicks[:count]))).labels == 1
        assert overlap(found, head.labels == 7) > 0.85


def test_a_negative_point_takes_the_class_away_there(model, prompts):
    before = model.update(prompts)
    place = (8, 17, 14)
    assert before.labels[place] == 1
    after = model.update(replace(prompts, points=(Point(place, 1, positive=False),)))
    assert after.labels[place] != 1


def test_a_box_bounds_its_class(model, prompts):
    result = model.update(replace(prompts, boxes=(Box((3, 6, 6), (14, 14, 23), 1),)))
    where = np.argwhere(result.labels == 1)
    assert (where >= [3, 6, 6]).all()
    assert (where < [14, 14, 23]).all()


def test_a_box_that_holds_a_class_does_not_shrink_what_strokes_found(ball_scene, model, prompts):
    labels = ball_scene[1]
    lone = np.zeros(labels.shape, bool)
    lone[:, 30:, 28:] = labels[:, 30:, 28:] == 1
    truth = (labels == 1) & ~lone
    where = np.argwhere(truth)
    box = Box(tuple(where.min(axis=0) - 1), tuple(where.max(axis=0) + 2), 1)
    free = model.update(prompts).labels == 1
    held = model.update(replace(prompts, boxes=(box,))).labels == 1
    assert overlap(held, truth) > overlap(free, truth) - 0.005


def test_a_box_alone_finds_what_is_in_it(ball_scene, model):
    _, labels, _ = ball_scene
    result = model.update(Prompts(boxes=(Box((2, 5, 25), (15, 23, 44), 2),)))
    assert overlap(result.labels == 2, labels == 2) > 0.8


def test_an_initial_mask_is_refined(ball_scene, model):
    _, labels, _ = ball_scene
    rough = np.zeros_like(labels, dtype=np.int32)
    rough[4:13, 9:20, 9:20] = 1
    rough[4:13, 9:20, 29:40] = 2
    result = model.update(Prompts(initial=rough, initial_margin=3.0))
    for value in (1, 2):
        truth = labels == value
        truth[:, 30:] = False
        assert overlap(result.labels == value, truth) > overlap(rough == value, truth)


def test_a_locked_class_stays_and_nobody_enters(ball_scene, model, prompts):
    before = model.update(prompts).labels.copy()
    more = prompts.labels.copy()
    more[8, 8:21, 14] = 2  # a stroke of class 2 right through class 1
    open_result = model.update(replace(prompts, labels=more)).labels
    assert (open_result == 1).sum() != (before == 1).sum()
    locked = replace(prompts, labels=more, locked=frozenset({1}), result=before)
    np.testing.assert_array_equal(model.update(locked).labels == 1, before == 1)


def test_a_locked_class_without_a_stroke_stays(ball_scene, model, prompts):
    """Its strokes may have been cleared since; without a marker it was no class any more."""
    before = model.update(prompts).labels.copy()
    others = np.where(prompts.labels == 1, prompts.unlabeled, prompts.labels)
    locked = replace(prompts, labels=others, locked=frozenset({1}), result=before)
    found = model.update(locked)
    assert found.values == (0, *np.unique(before[before > 0]).tolist())
    np.testing.assert_array_equal(found.labels == 1, before == 1)


def test_a_plane_image_and_several_contrasts(rng):
    labels = np.zeros((40, 44), np.uint8)
    labels[10:30, 8:20], labels[10:30, 24:36] = 1, 2
    first = np.array([20.0, 80, 80])[labels] + rng.normal(0, 4, labels.shape)
    second = np.array([20.0, 20, 80])[labels] + rng.normal(0, 4, labels.shape)
    volume = Volume.from_array(np.stack([first, second])[:, None].astype(np.float32))
    drawn = np.zeros((1, *labels.shape), np.int32)
    drawn[0, 20, 12:16], drawn[0, 20, 28:32], drawn[0, 3, 3:40] = 1, 2, BACKGROUND
    result = segment(
        volume,
        Prompts(labels=drawn, background=BACKGROUND),
        fit_params=FitParams(gaussians=400, iterations=30),
    )
    assert result.labels.shape == (1, 40, 44)
    assert result.seconds_fit > 0
    for value in (1, 2):
        assert overlap(result.labels[0] == value, labels == value) > 0.9


def test_thick_slices(rng):
    z, y, x = np.indices((7, 48, 48))
    labels = ((y - 20 - z) ** 2 + (x - 24) ** 2 < 100).astype(np.uint8)
    image = 40 + 60 * labels + rng.normal(0, 4, labels.shape)
    volume = Volume.from_array(image.astype(np.float32), spacing=(10, 1, 1))
    drawn = np.zeros(labels.shape, np.int32)
    for s in (1, 5):
        drawn[s, 20 + s, 20:29] = 1
        drawn[s, 3, 3:45] = BACKGROUND
        drawn[s, 44, 3:45] = BACKGROUND
    result = segment(
        volume,
        Prompts(labels=drawn, background=BACKGROUND),
        fit_params=FitParams(gaussians=1500, iterations=40),
    )
    assert overlap(result.labels == 1, labels == 1) > 0.9


def test_a_quick_stroke_in_empty_space_alone_counts():
    """No Gaussian renders what is drawn in the black around an extracted brain."""
    _, y, x = np.indices((12, 96, 96))
    away = np.hypot(y - 47.5, x - 47.5)
    image = np.where(away < 47, 80 + 10 * np.sin(x / 3), 0) + 40.0 * (away < 15)
    volume = Volume.from_array(image.astype(np.float32))
    field = fit_for_segmentation(volume, FitParams(gaussians=600, iterations=10))
    model = SegmentModel(volume, field)
    strokes = np.zeros(volume.shape, int)
    strokes[[3, 8], 48, 40:56], strokes[[3, 8], 20:76, 20] = 1, 2
    full = model.update(Prompts(labels=strokes, background=2))
    strokes[5, 2, 2:6] = 2
    quick = model.update(Prompts(labels=strokes, background=2), quick=True)
    assert quick.incremental
    np.testing.assert_array_equal(quick.labels, full.labels)


def test_a_quick_answer_follows_new_strokes(ball_scene, model, ball_strokes, prompts):
    _, labels, _ = ball_scene
    model.update(prompts)
    more = ball_strokes.copy()
    more[8, 36, 32:37] = 1
    quick = model.update(prompts.with_labels(more), quick=True)
    assert quick.incremental
    lone = np.zeros(labels.shape, bool)
    lone[:, 30:, 28:] = labels[:, 30:, 28:] == 1
    assert (quick.labels[lone] == 1).mean() > 0.6
    # The next full answer does not depend on the quick one.
    full = model.update(prompts.with_labels(more))
    assert not full.incremental
    again = SegmentModel(*ball_scene[::2]).update(prompts.with_labels(more))
    np.testing.assert_array_equal(full.labels, again.labels)
    # Taking strokes away is no small step.
    assert not model.update(prompts, quick=True).incremental


@pytest.mark.parametrize("seed", [0, 1])
def test_a_quick_answer_is_close_to_the_full_one_where_classes_touch(seed):
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((14, 36, 36))
    away = np.sqrt((1.5 * (z - 7)) ** 2 + (y - 18) ** 2 + (x - 18) ** 2)
    truth = np.where(away < 9, np.where(y < 18, 1, 2), 0)
    image = gaussian_filter(50.0 + 20 * (truth > 0) + 6 * (truth == 2), 1)
    volume = Volume.from_array(
        (image + rng.normal(0, 8, image.shape)).astype(np.float32), spacing=(1.5, 1, 1)
    )
    model = SegmentModel(
        volume, fit_for_segmentation(volume, FitParams(gaussians=1000, iterations=20))
    )
    drawn = np.zeros(truth.shape, np.int32)
    drawn[7, 14, 14:23], drawn[7, 22, 14:23] = 1, 2
    drawn[7, (3, 32), 4:32] = drawn[7, 4:32, 4] = BACKGROUND
    model.update(Prompts(labels=drawn, background=BACKGROUND))
    for s in (4, 10):  # on both sides of the border between the classes, and around them
        drawn[s, 15:17, 15:22], drawn[s, 19:21, 15:22] = 1, 2
        drawn[s][(away[s] > 9.5) & (away[s] < 11.5) & (x[s] > 18)] = BACKGROUND
    prompts = Prompts(labels=drawn, background=BACKGROUND)
    quick = model.update(prompts, quick=True)
    assert quick.incremental
    full = model.update(prompts).labels
    assert (quick.labels != full).mean() < 0.015
    for k in (1, 2):
        assert overlap(quick.labels == k, truth == k) > overlap(full == k, truth == k) - 0.03


def test_a_quick_answer_solves_what_strokes_change_as_if_it_solved_all(
    ball_scene, model, ball_strokes, prompts
):
    other = SegmentModel(*ball_scene[::2])
    before = model.update(prompts).labels.copy()
    other.update(prompts)
    for z, y in ((8, 36), (7, 37)):
        ball_strokes[z, y, 32:37] = 1
        given = prompts.with_labels(ball_strokes)
        part = model.update(given, quick=True)
        # With other settings of threads than the last time all voxels are solved again.
        other.params = replace(other.params, threads=9 - z)
        whole = other.update(given, quick=True)
        assert part.incremental
        assert whole.incremental
        assert (part.labels == whole.labels).mean() > 0.999
        assert (part.labels != before).any()
        differs = np.abs(part.probability() - whole.probability()) > 0.1
        assert differs.mean() < 0.01  # paths that begin outside of what is solved again
    # Nothing new: nothing changes, be it after a cancelled update.
    np.testing.assert_array_equal(model.update(given, quick=True).labels, part.labels)
    with pytest.raises(Cancelled):
        model.update(given, quick=True, should_stop=lambda: True)
    again = model.update(given, quick=True)
    assert (again.labels == part.labels).mean() > 0.999


@pytest.mark.parametrize(("axis", "index"), [(0, 8), (1, 14), (2, 34)])
def test_previews_show_the_slice(ball_scene, model, prompts, axis, index):
    fresh = SegmentModel(*ball_scene[::2]).preview_slice(axis, index, prompts)
    model.update(prompts)
    plane = model.preview_slice(axis, index, prompts)
    expected = np.take(model.last.labels, index, axis=axis)
    assert plane.shape == expected.shape
    assert (plane == expected).mean() > 0.9
    np.testing.assert_array_equal(plane, fresh)


def test_uncertainty_points_at_errors(ball_scene, model, prompts):
    _, labels, _ = ball_scene
    result = model.update(prompts)
    wrong = result.labels != labels
    error_estimate = result.uncertainty()
    assert error_estimate.shape == labels.shape
    assert 0 <= error_estimate.min() <= error_estimate.max() <= 1
    ranks = error_estimate.reshape(-1).argsort().argsort()
    count = wrong.sum()
    area = ranks[wrong.reshape(-1)].sum() - count * (count - 1) / 2
    assert area / (count * (wrong.size - count)) > 0.8
    probability = result.probability()
    np.testing.assert_allclose(probability.sum(axis=0), 1, atol=1e-4)


def test_suggestions_are_for_open_slices_of_any_orientation(model, prompts):
    with pytest.raises(ParameterError, match="no result yet"):
        model.suggest()
    model.update(prompts)
    suggested = model.suggest(3)
    assert [s.axis for s in suggested] == [0, 0, 0]
    assert len({s.index for s in suggested}) == 3
    assert all(s.index != 8 and s.position[0] == s.index for s in suggested)
    assert 1 > suggested[0].score >= suggested[1].score > 0
    assert model.suggest(1, axis=2)[0].axis == 2


def test_cancelling_keeps_the_last_result(model, prompts):
    first = model.update(prompts)
    calls = []

    def stop():
        calls.append(1)
        return len(calls) > 2

    with pytest.raises(Cancelled):
        model.update(prompts, should_stop=stop)
    assert model.last is first


def test_a_field_of_another_image_is_refused(ball_scene):
    volume, _, field = ball_scene
    other = Volume.from_array(volume.data[0, :, :, :-1], spacing=(1.5, 1, 1))
    with pytest.raises(GeometryError, match="another grid"):
        SegmentModel(other, field)


def test_two_classes_without_background_share_everything(model, prompts):
    labels = np.where(prompts.labels == BACKGROUND, 0, prompts.labels)
    result = model.update(Prompts(labels=labels))
    assert set(np.unique(result.labels)) <= {0, 1, 2}
    assert (result.labels > 0).mean() > 0.9
