"""Changes of label images as runs: found, joined, applied, and written into logs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_medgs import Grid
from napari_medgs.segmentation import Session, Settings
from napari_medgs.segmentation.session.changes import Delta, compose, difference
from napari_medgs.segmentation.session.replay import load_session, save_session
from napari_medgs.segmentation.session.runs import (
    decode_image,
    decode_runs,
    encode_image,
    encode_runs,
)

SHAPE = (4, 5, 6)
labels = arrays(np.uint8, SHAPE, elements=st.integers(0, 2))
boxes = st.tuples(*(st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in SHAPE))


def assert_leads(change: Delta, before, after) -> None:
    shown = before.copy()
    change.apply(shown)
    np.testing.assert_array_equal(shown, after)
    change.revert(shown)
    np.testing.assert_array_equal(shown, before)


@settings(deadline=None)
@given(labels, labels)
def test_a_change_says_what_differs(a, b):
    change = difference(a, b)
    places = np.argwhere(a != b)
    np.testing.assert_array_equal(change.where, np.flatnonzero(a != b))
    assert change.voxels == len(places)
    assert_leads(change, a, b)
    box = change.box(SHAPE)
    if len(places):
        assert [s.start for s in box] == places.min(axis=0).tolist()
        assert [s.stop - 1 for s in box] == places.max(axis=0).tolist()
    else:
        assert not a[box].size
    for value in range(3):
        grown = np.count_nonzero(b == value) - np.count_nonzero(a == value)
        assert change.counts().get(value, 0) == grown


@settings(deadline=None)
@given(labels, labels)
def test_memory_order_makes_no_difference(a, b):
    change = difference(a, b)
    turned = np.asfortranarray(b)
    again = difference(a, turned)
    np.testing.assert_array_equal(again.where, change.where)
    mirrored = np.ascontiguousarray(a[:, ::-1])[:, ::-1]
    assert not mirrored.flags.c_contiguous
    change.apply(mirrored)
    np.testing.assert_array_equal(mirrored, b)


@settings(deadline=None)
@given(labels, labels, boxes)
def test_a_box_is_all_that_is_looked_at(a, b, corners):
    box = tuple(slice(min(low, high), max(low, high)) for low, high in corners)
    after = a.copy()
    after[box] = b[box]
    assert_leads(difference(a, b, box), a, after)


@settings(deadline=None)
@given(labels, labels, labels)
def test_two_changes_joined_are_one(a, b, c):
    joined = compose(difference(a, b), difference(b, c))
    assert_leads(joined, a, c)
    stops = joined.starts + joined.lengths
    assert (joined.starts[1:] >= stops[:-1]).all()


@settings(deadline=None)
@given(labels, labels, labels)
def test_a_change_onto_another_mask(a, b, other):
    change, expected = difference(a, b), other.copy()
    change.apply(expected)
    onto = change.onto(other)
    assert_leads(onto, other, expected)
    assert onto.voxels == np.count_nonzero(expected != other)


@settings(deadline=None)
@given(labels)
def test_runs_survive_the_round_trip(image):
    change = difference(np.zeros_like(image), image)
    runs = encode_runs(change.starts, change.lengths, change.after)
    starts, lengths, values = decode_runs(runs, image.size)
    again = np.zeros_like(image)
    Delta(starts, lengths, values, values).apply(again)
    np.testing.assert_array_equal(again, image)
    np.testing.assert_array_equal(decode_image(encode_image(image), image.shape), image)
    assert encode_image(image) == runs


def test_a_run_that_no_label_image_holds_is_refused():
    with pytest.raises(ValueError, match="32 bits"):
        decode_image([0, 1, 2**31], (2, 2, 2))


@pytest.mark.parametrize("kind", [np.uint8, np.int32])
def test_changes_of_large_masks_are_found(rng, kind):
    old = rng.integers(0, 3, (3, 1000, 701)).astype(np.int32)
    new = old.astype(kind)
    new[1, 400:420, 30:50] = 7
    new[2, 999, 700] = 9
    change = difference(old, new)
    np.testing.assert_array_equal(change.where, np.flatnonzero(old != new))
    assert_leads(change, old, new)


def test_a_change_takes_memory_by_runs():
    mask = np.zeros((40, 100, 100), np.uint8)
    mask[5:35, 20:80, 20:80] = 1
    change = difference(np.zeros_like(mask), mask)
    assert change.voxels == 30 * 60 * 60
    assert change.nbytes < mask.nbytes / 5


@pytest.mark.parametrize("large", [300, 70_000])
def test_labels_that_need_more_bits(large, tmp_path):
    session = Session(Grid(SHAPE), Settings(background=large + 1))
    first, second = np.zeros(SHAPE, np.int64), np.zeros(SHAPE, np.int64)
    first[1, 1:3], second[1, 2:4] = 1, large
    session.paint(np.s_[1, 1], 1)
    session.set_result(first)
    session.paint(np.s_[1, 2], large)
    session.set_result(second)
    assert int(session.strokes.max()) == large
    np.testing.assert_array_equal(session.labels, second)
    session.undo()
    np.testing.assert_array_equal(session.labels, first)
    assert int(session.strokes.max()) == 1
    session.redo()
    np.testing.assert_array_equal(session.labels, second)
    edited = session.labels.copy()
    edited[1, 2] = 0
    assert session.correct(edited)
    assert (session.strokes[1, 2] == large + 1).all()
    again, _ = load_session(save_session(session, tmp_path / "log.json"), session.grid)
    np.testing.assert_array_equal(again.strokes, session.strokes)
    np.testing.assert_array_equal(session.labels_with(large, first == 1), first * large)


def test_what_is_no_number_differs_from_everything():
    old, new = np.zeros(200), np.zeros(200)
    new[70:73] = np.nan
    assert difference(old, new).where.tolist() == [70, 71, 72]
