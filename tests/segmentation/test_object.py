"""One object with an answer after every prompt, and solves in a box of the image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.segmentation import InteractiveSegmenter
from napari_medgs.segmentation.borders import LEAST_NEAR, NEAR, changed_near
from napari_medgs.segmentation.local import LocalSolver, bounds, crop

SHAPE = (12, 24, 28)
BLOCK = np.s_[3:9, 6:18, 8:20]


@pytest.fixture
def segmenter() -> InteractiveSegmenter:
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    image[BLOCK] += 20
    made = InteractiveSegmenter()
    made.threads = 1
    made.set_image(image, spacing=(2.0, 1.0, 1.0))
    return made


def truth() -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[BLOCK] = True
    return mask


def dice(segmenter: InteractiveSegmenter) -> float:
    mask = segmenter.labels > 0
    return 2 * (mask & truth()).sum() / (mask.sum() + truth().sum())


def test_clicks_answers_and_undo(segmenter):
    tool = segmenter.object
    tool.add_point((6, 12, 14))
    delta = tool.answer()
    assert dice(segmenter) > 0.95
    assert np.array_equal(delta.where, np.flatnonzero(segmenter.labels))
    first = segmenter.labels.copy()
    tool.prepare()  # changes nothing
    assert np.array_equal(segmenter.labels, first)
    tool.add_point((6, 12, 23))
    tool.answer()
    assert segmenter.labels[6, 12, 23] == 1
    segmenter.undo()
    assert np.array_equal(segmenter.labels, first)
    segmenter.redo()
    assert segmenter.labels[6, 12, 23] == 1


def test_the_last_click_on_a_place_counts(segmenter):
    tool = segmenter.object
    tool.add_point((6, 12, 14))
    tool.answer()
    for positive in (False, True):
        tool.add_point((5, 9, 10), positive)
        tool.answer()
        assert segmenter.labels[5, 9, 10] == positive
    assert len(segmenter.session.settings.points) == 2


def test_other_classes_stay(segmenter):
    other = np.zeros(SHAPE, np.int32)
    other[0, :2, :2] = 7
    segmenter.session.set_mask(other)
    tool = segmenter.object
    tool.label = 2
    tool.add_point((6, 12, 14))
    tool.answer()
    tool.add_point((1, 3, 3), positive=False)
    tool.answer()
    assert set(np.unique(segmenter.labels)) == {0, 2, 7}
    assert np.array_equal(segmenter.labels == 7, other == 7)


def test_sizes_of_the_first_click(segmenter):
    tool = segmenter.object
    assert tool.part is None
    with pytest.raises(ParameterError, match="first click"):
        tool.choose(segmenter.parts.at((6, 12, 14)))
    tool.add_point((6, 12, 14))
    tool.answer()
    assert tool.part is not None
    tool.choose(tool.part.smaller(100))
    smallest = int((segmenter.labels > 0).sum())
    tool.choose(tool.part.larger(100))
    assert (segmenter.labels > 0).sum() >= smallest
    tool.add_point((1, 1, 1), positive=False)
    tool.answer()
    assert tool.part is None


def test_clicks_outside_of_a_box_free_from_it(segmenter):
    tool = segmenter.object
    tool.add_box((3, 6, 8), (9, 18, 14))
    tool.answer()
    assert not segmenter.labels[:, :, 14:].any()
    tool.add_point((6, 7, 9))
    tool.answer()
    assert not segmenter.labels[:, :, 14:].any()
    tool.add_point((6, 12, 17))
    tool.answer()
    assert segmenter.labels[6, 12, 17] == 1


def test_a_box_that_no_part_fits_is_solved(segmenter):
    segmenter.object.add_box((0, 0, 0), (2, 24, 28))
    segmenter.object.answer()
    assert segmenter.labels[:2].any()
    assert not segmenter.labels[2:].any()


def test_a_click_against_the_part_of_a_box_takes_another_one():
    image = np.random.default_rng(0).normal(size=(12, 28, 40)).astype(np.float32)
    image[2:10, 4:24, 4:20] += 30
    image[2:10, 8:20, 24:34] += 60
    segmenter = InteractiveSegmenter()
    segmenter.threads = 1
    segmenter.set_image(image)
    segmenter.object.add_box((2, 3, 3), (10, 25, 35))
    segmenter.object.answer()
    assert segmenter.labels[6, 14, 12] == 1
    segmenter.object.add_point((6, 14, 12), positive=False)
    segmenter.object.answer()
    assert segmenter.labels[2:10, 8:20, 24:34].mean() > 0.9
    assert segmenter.labels[2:10, 4:24, 4:20].mean() < 0.1
    segmenter.undo()
    assert segmenter.labels[6, 14, 12] == 1


def test_one_click_never_takes_most_of_the_image():
    ramp = np.linspace(0, 1, 20 * 20 * 20, dtype=np.float32).reshape(20, 20, 20)
    segmenter = InteractiveSegmenter()
    segmenter.set_image(ramp)
    segmenter.object.add_point((10, 10, 10))
    segmenter.object.answer()
    assert 0 < (segmenter.labels > 0).mean() <= 0.3


@pytest.mark.parametrize(
    ("prompt", "error", "says"),
    [
        (lambda t: t.add_point((99, 0, 0)), GeometryError, "outside"),
        (lambda t: t.add_point((0, np.nan, 0)), GeometryError, "finite"),
        (lambda t: t.add_point("1 2 3"), GeometryError, "finite"),
        (lambda t: t.add_box(None, (5, 6, 6)), GeometryError, "three places"),
        (lambda t: t.add_box((0.5, 0, 0), (5, 6, 6)), GeometryError, "are integers"),
        (lambda t: t.add_scribble(None), GeometryError, "shape"),
        (lambda t: t.add_box((5, 5, 5), (5, 6, 6)), GeometryError, "no voxel"),
        (lambda t: t.add_scribble(np.zeros(SHAPE, bool)), LabelError, "no voxel"),
        (lambda t: t.add_lasso(np.ones((2, 2, 2), bool)), GeometryError, "shape"),
        (lambda t: t.set_mask(np.ones((2, 2, 2), bool)), GeometryError, "shape"),
    ],
)
def test_unusable_prompts(segmenter, prompt, error, says):
    with pytest.raises(error, match=says):
        prompt(segmenter.object)
    assert not segmenter.can_undo


def test_a_crop_is_the_same_field(segmenter):
    field, volume = segmenter.fit_field(), segmenter.volume
    box = np.s_[2:10, 4:20, 6:22]
    part, inside = crop(volume, field, box)
    assert np.array_equal(part.data[0], volume.data[0][box])
    assert np.allclose(part.grid.to_world([0, 0, 0]), volume.grid.to_world([2, 4, 6]))
    centers = field.voxel_centers()
    kept = ((centers >= [1.5, 3.5, 5.5]) & (centers < [9.5, 19.5, 21.5])).all(axis=1)
    assert np.allclose(inside.voxel_centers(), centers[kept] - [2, 4, 6], atol=1e-3)


def test_boxes_are_kept_while_they_fit(segmenter):
    solver, margin = LocalSolver(segmenter.volume), np.full(3, 1.0)
    low, high = np.array([3, 6, 8]), np.array([9, 18, 20])
    box = solver.box_for(low, high, margin)
    params = segmenter.session.settings.params
    first = solver.prepare(box, segmenter.fit_field(), params)
    assert solver.box_for(low + 1, high - 1, margin) == box
    assert solver.prepare(box, segmenter.fit_field(), params) is first
    assert solver.box_for(low - 5, high, margin) != box
    assert bounds(np.zeros((2, 2, 2), bool)) is None


def test_a_click_against_all_of_a_mask_still_changes_it(segmenter):
    segmenter.object.set_mask(truth())
    segmenter.object.add_point((6, 12, 14), positive=False)
    delta = segmenter.object.answer()
    assert segmenter.labels[6, 12, 14] == 0
    assert delta.voxels > 10


@pytest.mark.parametrize("from_model", [False, True])
def test_a_mask_that_is_given_changes_near_the_prompts_alone(segmenter, from_model):
    """Errors elsewhere stay until a prompt says so; those at the prompt go."""
    given = truth()
    given[6:8, 18:22, 9:12] = True  # two errors, far from each other
    given[4:6, 2:6, 16:20] = True
    given[4:6, 6, 16:20] = False
    given[3:9, 10:14, 18:20] = False
    if from_model:
        segmenter.object.hints = given.astype(np.uint8)
        segmenter.object.add_point((6, 12, 14))
        segmenter.object.answer()
        given &= segmenter.labels > 0  # the piece at the click
    else:
        segmenter.object.set_mask(given)
    segmenter.object.add_point((7, 20, 10), positive=False)
    segmenter.object.answer()
    changed = (segmenter.labels > 0) != given
    assert changed[7, 20, 10]
    assert not changed[:, :14].any()
    assert not changed[:, :, 16:].any()
    segmenter.object.add_point((6, 12, 19))
    segmenter.object.answer()
    assert segmenter.labels[6, 12, 19] == 1
    assert dice(segmenter) > 0.93


def test_changes_all_around_a_mask_count_near_the_prompt_alone():
    before = np.zeros((3, 80, 80), bool)
    before[:, 20:60, 20:60] = True
    after = binary_dilation(before)  # one piece of changes
    prompt = np.s_[1:2, 19:20, 40:41]  # one voxel deep
    for spacing in (np.ones(3), np.array([1.0, 1.0, 2.0])):
        found = changed_near(before, after, [prompt], spacing)
        away = (np.argwhere(found != before) - (1, 19, 40)) * spacing
        farthest = np.sqrt((away**2).sum(axis=1)).max()
        assert NEAR + LEAST_NEAR - 2 < farthest <= NEAR + LEAST_NEAR
        assert (found[:, 19, 38:43] == after[:, 19, 38:43]).all()
    np.testing.assert_array_equal(
        changed_near(before, after, [np.s_[1:2, 5:6, 5:6]], np.ones(3)), before
    )
