"""Clicks on parts in the interactive segmenter: steps with undo, redo, log and replay."""

from __future__ import annotations

import json

import numpy as np
import pytest

import napari_medgs as mg
from napari_medgs.errors import GeometryError, LabelError, ParameterError

PLACE = (4, 12, 12)


@pytest.fixture(scope="module")
def volume() -> mg.Volume:
    image = np.random.default_rng(0).normal(0, 3, (8, 28, 40)).astype(np.float32)
    image[2:7, 5:20, 5:18] += 60
    image[2:7, 5:22, 24:36] += 110
    return mg.Volume.from_array(image)


@pytest.fixture(scope="module")
def field(volume):
    return mg.fit(volume, mg.FitParams(iterations=40)).field


@pytest.fixture(scope="module")
def tree(volume, field):
    return mg.part_tree(volume, field=field)


@pytest.fixture
def segmenter(volume, field, tree) -> mg.InteractiveSegmenter:
    made = mg.InteractiveSegmenter()
    made.set_image(volume, field=field)
    made.parts.set_tree(tree)
    return made


def test_a_click_counts_at_once_and_can_be_undone(segmenter, tree):
    part = segmenter.parts.at(PLACE)
    assert segmenter.parts.is_ready
    mask = tree.mask(part.nodes)
    assert segmenter.parts.add(2, part)
    assert np.array_equal(segmenter.labels == 2, mask)
    assert not segmenter.parts.add(2, part)
    assert not segmenter.is_current
    larger = segmenter.parts.at(PLACE, (4, 12, 30))
    assert segmenter.parts.add(2, larger)
    assert segmenter.labels[tree.mask(larger.nodes)].min() == 2
    step = segmenter.undo()
    assert step is not None
    assert step.kind == "part"
    assert np.array_equal(segmenter.labels == 2, mask)
    segmenter.undo()
    assert not segmenter.labels.any()
    assert segmenter.session.initial is None
    segmenter.redo()
    assert np.array_equal(segmenter.labels == 2, mask)


def test_parts_add_up_and_are_taken_away(segmenter, tree):
    first, second = segmenter.parts.at(PLACE), segmenter.parts.at((4, 12, 30))
    segmenter.parts.add(1, first)
    segmenter.parts.add(3, second)
    assert set(np.unique(segmenter.labels)) == {0, 1, 3}
    assert segmenter.parts.remove(first)
    assert set(np.unique(segmenter.labels)) == {0, 3}
    assert np.array_equal(segmenter.session.initial, segmenter.labels)


def test_strokes_correct_a_part(segmenter):
    segmenter.parts.add(1, segmenter.parts.at(PLACE))
    segmenter.add_scribble(0, [(4, 2, 2), (4, 2, 36)])
    labels = segmenter.result().labels
    assert labels[PLACE] == 1
    assert labels[4, 2, 20] == 0
    truth = np.zeros(labels.shape, bool)
    truth[2:7, 5:20, 5:18] = True
    assert 2 * ((labels == 1) & truth).sum() / ((labels == 1).sum() + truth.sum()) > 0.9


def test_locked_classes_stay(segmenter):
    segmenter.parts.add(1, segmenter.parts.at((4, 12, 30)))
    before = segmenter.labels == 1
    segmenter.lock([1])
    segmenter.parts.add(2, segmenter.parts.at((4, 12, 30), PLACE))
    assert (segmenter.labels[before] == 1).all()
    assert (segmenter.labels == 2).any()


def test_the_log_has_the_click_and_replays(segmenter, volume, field, tmp_path):
    part = segmenter.parts.at(PLACE, negative=[(4, 12, 30)])
    segmenter.parts.add(1, part)
    segmenter.add_scribble(0, [(4, 2, 2), (4, 2, 36)])
    expected = segmenter.result().labels.copy()
    path = segmenter.save(tmp_path / "log.json")
    event = json.loads(path.read_text())["events"][0]
    assert event["part"]["positive"] == [list(map(float, PLACE))]
    assert event["part"]["negative"] == [[4.0, 12.0, 30.0]]
    assert event["part"]["notch"] == part.level
    assert event["part"]["label"] == 1
    again = mg.InteractiveSegmenter.load(path, volume, field=field)
    assert np.array_equal(again.result().labels, expected)
    assert again.session.events[0] == event
    again.undo()
    step = again.undo()
    assert step is not None
    assert step.kind == "part"
    assert again.session.initial is None


def test_several_clicks_choose_the_level(segmenter):
    part = segmenter.parts.at(PLACE, negative=[(4, 12, 30), (0, 0, 0)])
    segmenter.parts.add(1, part.larger(99))
    assert segmenter.labels[PLACE] == 1
    assert segmenter.labels[4, 12, 30] == 0
    assert segmenter.labels[0, 0, 0] == 0


def test_bad_clicks(segmenter, volume, field):
    part = segmenter.parts.at(PLACE)
    with pytest.raises(LabelError, match="class from 1"):
        segmenter.parts.add(0, part)
    with pytest.raises(LabelError):
        segmenter.parts.add(-2, part)
    with pytest.raises(GeometryError, match="outside of the image"):
        segmenter.parts.at((99, 0, 0))
    other = mg.part_tree(volume, field=field.subset(np.arange(len(field) - 1)))
    with pytest.raises(ParameterError, match="belongs to another field"):
        segmenter.parts.set_tree(other)
    fresh = mg.InteractiveSegmenter()
    with pytest.raises(ParameterError, match="no image"):
        _ = fresh.parts
    fresh.set_image(volume)
    with pytest.raises(ParameterError, match="no field yet"):
        fresh.parts.set_tree(other)


def test_the_tree_follows_the_field(segmenter, field):
    before = segmenter.parts.tree()
    segmenter.set_field(field.subset(np.arange(len(field) - 5)))
    assert not segmenter.parts.is_ready
    assert segmenter.parts.tree() is not before


def test_a_damaged_record_of_a_click(segmenter, volume, tmp_path):
    segmenter.parts.add(1, segmenter.parts.at(PLACE))
    path = segmenter.save(tmp_path / "log.json")
    record = json.loads(path.read_text())
    record["events"][0]["part"] = 7
    path.write_text(json.dumps(record))
    with pytest.raises(mg.MedGSError, match="damaged"):
        mg.InteractiveSegmenter.load(path, volume)


def test_a_stroke_across_a_border_does_not_mean_the_whole_image(segmenter, volume):
    segmenter.add_scribble(1, [(4, 12, x) for x in range(11, 21)])  # three of ten lie outside
    mask = segmenter.parts.inferred() == 1
    truth = np.zeros(volume.grid.shape, bool)
    truth[2:7, 5:20, 5:18] = True
    assert 2 * (mask & truth).sum() > 0.9 * (mask.sum() + truth.sum())
    assert mask[4, 12, 11:21].all()  # what is painted counts all the same


def test_one_class_alone_means_the_part_around_its_marks(segmenter, volume):
    assert segmenter.parts.inferred() is None
    segmenter.add_scribble(300, [(4, 10, 8), (4, 14, 14)])
    mask = segmenter.parts.inferred()
    truth = np.zeros(volume.grid.shape, bool)
    truth[2:7, 5:20, 5:18] = True
    assert set(np.unique(mask)) == {0, 300}
    assert 2 * ((mask == 300) & truth).sum() > 0.9 * ((mask == 300).sum() + truth.sum())
    segmenter.add_scribble(0, [(4, 2, 2), (4, 2, 36)])
    assert segmenter.parts.inferred() is None
    segmenter.undo()
    segmenter.add_point(4, PLACE)  # another class
    assert segmenter.parts.inferred() is None
