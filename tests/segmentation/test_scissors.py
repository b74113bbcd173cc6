"""Scissors, against the polygons of matplotlib."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from napari_medgs import InteractiveSegmenter
from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.segmentation.postprocess.scissors import (
    Cut,
    cut_class,
    cut_class_in_view,
    in_outline,
)

SQUARE = [(1.5, 1.5), (1.5, 4.5), (4.5, 4.5), (4.5, 1.5)]
EVERYWHERE = [(-9, -9), (-9, 99), (99, 99), (99, -9)]


def bar():
    """A bar of class 1 through all slices, with a block of class 2 in it."""
    labels = np.zeros((6, 8, 10), np.uint8)
    labels[:, 2:7, 1:8] = 1
    labels[2:4, 3:5, 3:5] = 2
    return labels


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-4, 15), st.floats(-4, 15)), min_size=3, max_size=7),
    st.integers(0, 2),
    st.sampled_from(Cut),
    st.tuples(st.integers(-2, 9), st.integers(-2, 9)),
)
def test_what_lies_in_the_outline_is_cut_through_the_slices(corners, axis, cut, ends):
    labels = bar()
    before = labels.copy()
    flat = np.moveaxis(labels, axis, 0).shape[1:]
    first, last = min(ends), max(ends)
    try:
        after = cut_class(labels, 1, corners, cut, axis=axis, slices=(first, last))
    except (ParameterError, LabelError):
        return  # nothing in the outline or in the slices, or nothing left
    np.testing.assert_array_equal(labels, before)
    mine, was = np.moveaxis(after, axis, 0), np.moveaxis(before, axis, 0)
    np.testing.assert_array_equal(after[before == 2], 2)
    kept = np.ones(len(was), bool)
    kept[max(first, 0) : last + 1] = False
    np.testing.assert_array_equal(mine[kept], was[kept])
    inside = in_outline(flat, corners)
    cut_part, was_part = mine[~kept], was[~kept]
    if cut is Cut.FILL:
        expected = np.where(inside & (was_part == 0), 1, was_part)
    else:
        gone = inside if cut is Cut.CUT else ~inside
        expected = np.where(gone & (was_part == 1), 0, was_part)
    np.testing.assert_array_equal(cut_part, expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-4, 15), st.floats(-4, 15)), min_size=3, max_size=3))
def test_a_triangle_holds_what_lies_on_one_side_of_all_edges(corners):
    a, b, c = np.asarray(corners)
    centers = np.argwhere(np.ones((8, 10), bool))

    def side(p, q):
        return (q[0] - p[0]) * (centers[:, 1] - p[1]) - (q[1] - p[1]) * (centers[:, 0] - p[0])

    sides = np.array([side(a, b), side(b, c), side(c, a)])
    within = ((sides > 1e-6).all(axis=0) | (sides < -1e-6).all(axis=0)).reshape(8, 10)
    outside = ((sides > 1e-6).any(axis=0) & (sides < -1e-6).any(axis=0)).reshape(8, 10)
    try:
        inside = in_outline((8, 10), corners)
    except ParameterError:
        assert not within.any()
        return
    assert inside[within].all()
    assert not inside[outside].any()


def test_a_free_line_holds_what_matplotlib_says():
    turns = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    radii = 11 + 4 * np.sin(5 * turns)
    line = np.stack([16.2 + radii * np.sin(turns), 15.7 + radii * np.cos(turns)], axis=1)
    centers = np.argwhere(np.ones((33, 30), bool))
    expected = Outline(line).contains_points(centers).reshape(33, 30)
    np.testing.assert_array_equal(in_outline((33, 30), line), expected)


def test_the_range_limits_what_is_filled():
    labels = bar()
    within = np.zeros(labels.shape, bool)
    within[3:] = True
    wide = [(0.5, 0.5), (0.5, 4.5), (4.5, 4.5), (4.5, 0.5)]
    filled = cut_class(labels, 1, wide, "fill", within=within)
    added = (filled == 1) & (labels == 0)
    assert added.any()
    assert not added[:3].any()
    new = cut_class(labels, 7, wide, "fill", slices=(0, 0))  # of a class that has no voxels yet
    np.testing.assert_array_equal(np.argwhere(new == 7)[:, 0], 0)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "says"),
    [
        ((1, SQUARE, "tear"), {}, ParameterError, "there are cut, keep, fill"),
        ((5, SQUARE), {}, LabelError, "no voxels of class 5 to cut"),
        ((0, SQUARE, "fill"), {}, LabelError, "no voxels of class 0"),
        ((1, EVERYWHERE), {}, LabelError, "would be left: draw the line"),
        ((1, SQUARE[:2]), {}, ParameterError, "holds no voxel"),
        ((1, [(40, 40), (40, 50), (50, 50)]), {}, ParameterError, "holds no voxel"),
        ((1, [(1, 1), (1, np.nan), (5, 5)]), {}, ParameterError, "finite"),
        ((1, SQUARE), {"slices": (6, 9)}, ParameterError, "from 0 to 5"),
        ((1, SQUARE), {"within": np.ones((2, 2, 2), bool)}, GeometryError, "differ in shape"),
    ],
)
def test_what_cannot_be_cut_is_said(arguments, options, error, says):
    with pytest.raises(error, match=says):
        cut_class(bar(), *arguments, **options)


def test_a_cut_is_a_step_of_the_session_that_stays(tmp_path):
    rng = np.random.default_rng(0)
    truth = np.zeros((8, 20, 22), np.uint8)
    truth[2:7, 4:16, 3:19] = 1
    segmenter = InteractiveSegmenter()
    segmenter.set_image((truth * 100 + rng.normal(0, 4, truth.shape)).astype(np.float32))
    segmenter.add_scribble(1, [(4, 9, 6), (4, 9, 15)])
    segmenter.add_scribble(0, [(4, 1, 2), (4, 1, 19)])
    before = segmenter.result().labels.copy()
    outline = [(-1, 11.5), (-1, 30), (30, 30), (30, 11.5)]
    assert segmenter.cut_class(1, outline, "cut")
    cut = segmenter.labels.copy()
    np.testing.assert_array_equal(cut, cut_class(before, 1, outline, "cut"))
    assert before[:, :, 12:].any()
    assert not cut[:, :, 12:].any()
    assert segmenter.session.strokes[4, 9, 6] != segmenter.session.strokes[4, 9, 15]
    np.testing.assert_array_equal(segmenter.result().labels, cut)
    path = segmenter.save(tmp_path / "log.json")
    again = InteractiveSegmenter.load(path, segmenter.volume, field=segmenter.field)
    np.testing.assert_array_equal(again.result().labels, cut)
    segmenter.undo()
    np.testing.assert_array_equal(segmenter.labels, before)
    segmenter.redo()
    np.testing.assert_array_equal(segmenter.labels, cut)
    assert not segmenter.cut_class(1, outline, "cut")
    segmenter.lock([1])
    with pytest.raises(LabelError, match="locked"):
        segmenter.cut_class(1, SQUARE)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(Cut), st.booleans())
def test_a_line_in_a_picture_cuts_along_the_direction_of_view(seed, cut, perspective):
    rng = np.random.default_rng(seed)
    projection = np.eye(4)
    projection[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(5, 60)
    projection[:3, 3] = rng.uniform(-300, 300, 3)
    if perspective:
        projection[3] = (*rng.uniform(-0.05, 0.05, 3), 1.0)
    corners = rng.uniform(-400, 400, (3, 2))
    labels = bar()
    try:
        after = cut_class_in_view(labels, 1, corners, projection, cut)
    except (ParameterError, LabelError):
        return
    places = np.argwhere(labels >= 0)
    x, y, _, w = projection @ np.vstack([places.T, np.ones(len(places))])
    pixels = np.stack([x / w, y / w], axis=1)
    line = Outline(np.vstack([corners, corners[:1]]), closed=True)
    inside = line.contains_points(pixels) & (w > 0)
    if cut is Cut.FILL:
        expected = np.where(inside & (labels.ravel() == 0), 1, labels.ravel())
    else:
        gone = inside if cut is Cut.CUT else ~inside
        expected = np.where(gone & (labels.ravel() == 1), 0, labels.ravel())
    differ = np.flatnonzero(after.ravel() != expected)
    edges = np.roll(corners, -1, axis=0) - corners
    for k in differ:
        along = np.clip(
            ((pixels[k] - corners) * edges).sum(1) / np.maximum((edges**2).sum(1), 1e-9), 0, 1
        )
        near = np.linalg.norm(corners + along[:, None] * edges - pixels[k], axis=1).min()
        assert near < 1  # the line is drawn with 2048 pixels


def test_a_picture_from_above_cuts_as_a_slice_does():
    labels = bar()
    from_above = np.eye(4)[[2, 1, 0, 3]]
    np.testing.assert_array_equal(
        cut_class_in_view(labels, 1, SQUARE, from_above), cut_class(labels, 1, SQUARE, "cut")
    )
    ahead = np.eye(4)[[2, 1, 0, 3]]
    ahead[3] = (-1, 0, 0, 2.5)  # slices from 3 on lie behind the camera
    cut = cut_class_in_view(labels, 1, np.multiply(EVERYWHERE, 99), ahead)
    assert cut[:3].max() in (0, 2)
    np.testing.assert_array_equal(cut[3:], labels[3:])


@pytest.mark.parametrize(
    ("outline", "projection", "says"),
    [
        (SQUARE, np.eye(3), "projection"),
        (SQUARE, np.full((4, 4), np.nan), "projection"),
        (SQUARE[:2], np.eye(4), "no voxel"),
        ([(0, 0), (1, np.inf), (1, 1)], np.eye(4), "finite"),
        ([(0, 0), (1e9, 0), (0, 1e9)], np.eye(4), "no voxel"),
    ],
)
def test_pictures_that_cannot_be_cut(outline, projection, says):
    with pytest.raises((ParameterError, LabelError), match=says):
        cut_class_in_view(bar(), 1, outline, projection, "keep")
