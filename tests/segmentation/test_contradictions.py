"""Prompts that contradict others: the later one counts, and what cannot count is said."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import napari_medgs as mg
from napari_medgs.segmentation import (
    Box,
    InteractiveSegmenter,
    Point,
    Prompts,
    Session,
    Settings,
    load_session,
    save_session,
    segment,
)
from napari_medgs.segmentation.prompts.outside_boxes import (
    describe_outside_boxes,
    find_outside_boxes,
)

SHAPE = (6, 20, 24)
PLACE = (3, 10, 12)


@pytest.fixture(scope="module")
def volume() -> mg.Volume:
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    image[:, 4:16, 4:18] += 20
    return mg.Volume.from_array(image, (1, 1, 1))


@pytest.fixture(scope="module")
def field(volume):
    return mg.fit(volume, mg.FitParams(gaussians=200, iterations=5)).field


@pytest.fixture
def segmenter(volume, field) -> InteractiveSegmenter:
    """Strokes of class 1 in the block and of the background beside it."""
    made = InteractiveSegmenter()
    made.set_image(volume, field=field)
    made.add_scribble(1, [(3, 8, 6), (3, 8, 16)])
    made.add_scribble(0, [(3, 1, 2), (3, 1, 20)])
    return made


def radii(segmenter: InteractiveSegmenter) -> list[float]:
    return [point.radius for point in segmenter.session.settings.points]


def test_painting_over_a_click_takes_it_back(segmenter, volume, field, tmp_path):
    segmenter.add_point(2, PLACE)
    before = segmenter.result().labels.copy()
    assert before[PLACE] == 2
    patch = np.zeros(SHAPE, bool)
    patch[3, 8:13, 10:15] = True
    steps = len(segmenter.session.history.done)
    assert segmenter.add_scribble(1, patch)
    assert segmenter.session.settings.points == ()
    assert len(segmenter.session.history.done) == steps + 1, "one step"
    labels = segmenter.result().labels.copy()
    assert (labels[patch] == 1).all()
    file = segmenter.save(tmp_path / "log.json")
    again = InteractiveSegmenter.load(file, volume, field=field)
    assert again.session.settings.points == ()
    np.testing.assert_array_equal(again.result().labels, labels)
    segmenter.undo()
    assert radii(segmenter) == [1.0]
    np.testing.assert_array_equal(segmenter.labels, before)
    segmenter.redo()
    assert segmenter.session.settings.points == ()
    np.testing.assert_array_equal(segmenter.labels, labels)


def test_painting_beside_the_clicked_voxel_shrinks_the_click(segmenter):
    segmenter.add_point(1, PLACE, radius=3)
    z, y, x = PLACE
    segmenter.add_scribble(0, [(z, y, x + 2)])
    assert radii(segmenter) == pytest.approx([(2 + np.sqrt(3)) / 2])
    labels = segmenter.result().labels
    assert labels[z, y, x + 2] == 0
    assert (labels[z, y, x - 1 : x + 2] == 1).all()
    segmenter.add_scribble(0, [(z, y + 1, x)])
    assert radii(segmenter) == [0.5]
    labels = segmenter.result().labels
    assert labels[PLACE] == 1
    assert labels[z, y + 1, x] == 0


def test_what_agrees_with_a_click_or_erases_leaves_it(segmenter):
    segmenter.add_point(1, PLACE)
    segmenter.add_point(0, (3, 1, 10))
    patch = np.zeros(SHAPE, bool)
    patch[3, 8:13, 10:15] = True
    segmenter.add_scribble(1, patch)
    segmenter.erase(patch)
    segmenter.add_scribble(0, [(3, 1, 8), (3, 1, 12)])
    assert radii(segmenter) == [1.0, 1.0]


def test_a_negative_click_is_taken_back_by_its_class(segmenter):
    segmenter.add_point(1, PLACE, positive=False)
    segmenter.add_scribble(0, [PLACE])
    assert radii(segmenter) == [1.0]
    segmenter.add_scribble(1, [PLACE])
    assert radii(segmenter) == []
    assert segmenter.result().labels[PLACE] == 1


def test_a_stroke_that_is_there_already_counts_again(segmenter):
    """Nothing changes in the stroke image, yet the click under the brush is the earlier one."""
    segmenter.add_scribble(1, [PLACE])
    segmenter.add_point(0, PLACE)
    assert segmenter.result().labels[PLACE] == 0
    assert segmenter.add_scribble(1, [PLACE])
    assert radii(segmenter) == []
    assert segmenter.result().labels[PLACE] == 1
    assert segmenter.add_scribble(1, [PLACE]) is False
    segmenter.add_point(0, PLACE)
    corrected = segmenter.result().labels.copy()
    corrected[PLACE] = 1
    assert segmenter.correct(corrected)
    assert radii(segmenter) == []
    assert segmenter.labels[PLACE] == 1


def test_label_images_of_strokes_take_clicks_back_too(segmenter):
    segmenter.add_point(0, PLACE)
    strokes = segmenter.session.strokes.copy()
    strokes[PLACE] = 1
    assert segmenter.set_scribbles(strokes)
    assert radii(segmenter) == []


def test_logs_of_earlier_versions_keep_their_clicks(volume, tmp_path):
    """Strokes took no click back then, and the masks of these files are to come out again."""
    session = Session(volume.grid, Settings(unlabeled=-1, background=0))
    session.update_settings(points=(Point(tuple(map(float, PLACE)), 1),))
    session.paint(PLACE, 0)
    assert session.settings.points == ()
    file = save_session(session, tmp_path / "log.json")
    record = json.loads(file.read_text())
    del record["events"][-1]["settings"]
    file.write_text(json.dumps(record))
    restored, _ = load_session(file)
    assert len(restored.settings.points) == 1
    assert restored.strokes[PLACE] == 0


def test_points_win_over_strokes_in_one_call(volume, field):
    labels = np.full(SHAPE, -1)
    labels[3, 8, 6:17], labels[3, 1, 2:20] = 1, 0
    place = (3.0, 8.0, 10.0)
    given = Prompts(labels=labels, unlabeled=-1, points=(Point(place, 0, radius=0.0),))
    assert segment(volume, given, field=field).labels[3, 8, 10] == 0


def test_marks_outside_of_boxes_are_counted():
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, 8, 6:17], labels[1, 1, 1:4] = 1, 2
    prompts = Prompts(
        labels=labels,
        background=9,
        points=(Point((3.0, 8.0, 16.0), 1), Point((4.0, 2.0, 2.0), 1), Point((3.0, 9.0, 8.0), 1)),
        boxes=(Box((0, 0, 0), (6, 20, 8), 1), Box((0, 0, 8), (6, 20, 12), 1)),
    )
    assert find_outside_boxes(prompts, SHAPE) == {1: 5}
    assert find_outside_boxes(Prompts(labels=labels), SHAPE) == {}
    text = describe_outside_boxes({1: 1, 3: 2000}, {3: "liver"})
    assert text.startswith("1 voxel marked as class 1 and 2,000 voxels marked as class 3 (liver)")


def test_one_warning_tells_of_strokes_that_a_box_leaves_out(segmenter):
    segmenter.add_box(1, (0, 4, 4), (6, 16, 18))
    with pytest.warns(UserWarning, match="5 voxels marked as class 1 lie outside") as caught:
        segmenter.add_scribble(1, [(3, 18, 6), (3, 18, 10)])
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter.add_scribble(1, [(3, 19, 6), (3, 19, 10)])  # it is known
        assert (segmenter.result().labels[3, 18:20] == 0).all()
        segmenter.undo()
        segmenter.undo()
        segmenter.add_scribble(1, [(3, 10, 6), (3, 10, 10)])


@pytest.mark.parametrize(
    "add",
    [
        lambda s: s.add_box(1, (0, 0, 0), (6, 4, 4)),
        lambda s: s.update_settings(boxes=(Box((0, 0, 0), (6, 4, 4), 1),)),
    ],
)
def test_a_box_that_leaves_strokes_out_is_warned_of(segmenter, add):
    with pytest.warns(UserWarning, match="11 voxels marked as class 1 lie outside") as caught:
        add(segmenter)
    assert caught[0].filename == __file__
    told = []
    segmenter.undo()
    segmenter.add_box(2, (0, 0, 0), (6, 4, 4))  # no box of class 1 is left
    segmenter.on_warning = told.append
    add(segmenter)
    segmenter.add_box(2, (0, 0, 0), (5, 4, 4))
    assert len(told) == 1
    segmenter.add_point(2, (3, 18, 6))
    assert len(told) == 2
    assert "class 1 and 1 voxel marked as class 2 lie" in told[1]


def test_a_box_that_leaves_strokes_out_is_warned_of_in_one_call(volume, field):
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, 8, 6:17], labels[3, 1, 2:20] = 1, 9
    prompts = Prompts(labels=labels, background=9, boxes=(Box((0, 4, 4), (6, 16, 12), 1),))
    with pytest.warns(UserWarning, match="5 voxels marked as class 1 lie outside") as caught:
        segment(volume, prompts, field=field)
    assert len(caught) == 1
    assert caught[0].filename == __file__
