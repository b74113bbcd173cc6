"""What prompts are accepted, and what they become."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.data.volume import Volume
from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.segmentation import Box, Point, Prompts, segment
from napari_medgs.segmentation.prompts.collector import find_full_slices
from napari_medgs.segmentation.prompts.label_check import check_label_image
from napari_medgs.segmentation.prompts.nearly_full import (
    describe_nearly_full,
    find_nearly_full_slices,
)
from napari_medgs.segmentation.prompts.rasterize import rasterize_prompts

SHAPE = (6, 8, 10)
UNITS = np.array([2.0, 1.0, 1.0])


def collect(prompts, axes=(0, 1, 2)):
    prompts.check(SHAPE)
    return rasterize_prompts(prompts, SHAPE, axes, UNITS)


def image(**marks):
    labels = np.zeros(SHAPE, np.int32)
    for place, value in marks.values():
        labels[place] = value
    return labels


def test_values_are_kept_and_background_is_zero():
    labels = image(a=((0, 0, 0), 7), b=((1, 2, 3), 3), c=((5, 7, 9), 1))
    markers = collect(Prompts(labels=labels, background=1))
    assert markers.values == (0, 3, 7)
    marked = {tuple(v): int(c) for v, c in zip(markers.voxels, markers.classes, strict=True)}
    assert marked == {(0, 0, 0): 2, (1, 2, 3): 1, (5, 7, 9): 0}
    assert markers.user_marked.all()


def test_scribble_files_from_elsewhere_work_with_their_own_values():
    labels = np.full(SHAPE, 4)
    labels[0, 0, 0], labels[1, 1, 1], labels[2, 2, 2] = 0, 1, 3
    markers = collect(Prompts(labels=labels, unlabeled=4))
    assert markers.values == (0, 1, 3)
    assert len(markers.voxels) == 3


def test_voxels_follow_the_slice_axis():
    labels = image(a=((1, 2, 3), 1), b=((4, 5, 6), 2))
    markers = collect(Prompts(labels=labels), axes=(2, 0, 1))
    assert sorted(map(tuple, markers.voxels.tolist())) == [(3, 1, 2), (6, 4, 5)]


@pytest.mark.parametrize(
    ("prompts", "error", "words"),
    [
        (Prompts(), LabelError, "Nothing"),
        (Prompts(labels=image(a=((0, 0, 0), 2))), LabelError, "Only one class"),
        (Prompts(labels=image(a=((0, 0, 0), 2), b=((0, 0, 1), -3))), LabelError, "-3"),
        (Prompts(labels=np.zeros((2, 2, 2), int)), GeometryError, "share a grid"),
        (Prompts(labels=np.zeros(SHAPE)), LabelError, "integers"),
        (Prompts(labels=image().tolist()), LabelError, "label image is a list"),
        (Prompts(prior=image().tolist()), LabelError, "is a list"),
        (Prompts(points=(Point((1, 2), 1),)), GeometryError, "three places"),
        (Prompts(boxes=(Box((0, 0), (2, 2), 1),)), GeometryError, "three places"),
        (Prompts(labels=image(), background=0), ParameterError, "must differ"),
        (Prompts(points=(Point((9, 0, 0), 1),)), GeometryError, "outside"),
        (Prompts(points=(Point((1, 0, 0), 0, positive=False),)), LabelError, "negative point"),
        (Prompts(boxes=(Box((0, 0, 0), (0, 3, 3), 1),)), GeometryError, "empty or outside"),
        (Prompts(boxes=(Box((0, 0, 0), (2, 3, 3), 0),)), LabelError, "box needs a class"),
        (
            Prompts(points=(Point((1, 2, 3), 1),), boxes=(Box((0, 1, 1), (3, 5, 6), 2),)),
            LabelError,
            "middle of the box of class 2",
        ),
        (Prompts(fully_labeled=((0, 6),)), GeometryError, "does not exist"),
        (Prompts(locked=frozenset({1})), ParameterError, "Locked"),
        (Prompts(initial=np.ones(SHAPE, int)), LabelError, "nothing to refine"),
    ],
)
def test_unusable_prompts_are_explained(prompts, error, words):
    with pytest.raises(error, match=words):
        collect(prompts)


NAN = float("nan")
PLACE = (1, 2, 3)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"points": [PLACE]}, ParameterError, r"hold a tuple, \(1, 2, 3\); give a tuple of Point"),
        ({"points": PLACE}, ParameterError, "hold an int, 1"),
        ({"points": np.array([PLACE])}, ParameterError, "hold an ndarray"),
        ({"points": [(PLACE, 1)]}, ParameterError, r"as in points=\(Point\("),
        ({"points": Point(PLACE, 1)}, ParameterError, "points are a Point"),
        ({"points": None}, ParameterError, "points are None"),
        ({"points": (p for p in [Point(PLACE, 1)])}, ParameterError, "a generator"),
        ({"points": [Point(None, 1)]}, GeometryError, "three places"),
        ({"points": [Point(("1", "2", "3"), 1)]}, GeometryError, "are numbers"),
        ({"points": [Point((1, (2,), 3), 1)]}, GeometryError, "three places"),
        ({"points": [Point((NAN, 2, 3), 1)]}, GeometryError, "outside the image"),
        ({"points": [Point((1, 2, -3), 1)]}, GeometryError, "outside the image"),
        ({"points": [Point(PLACE, "1")]}, LabelError, "an integer from 0 .* not '1'"),
        ({"points": [Point(PLACE, None)]}, LabelError, "not None"),
        ({"points": [Point(PLACE, 1.5)]}, LabelError, "not 1.5"),
        ({"points": [Point(PLACE, NAN)]}, LabelError, "not nan"),
        ({"points": [Point(PLACE, -1)]}, LabelError, "not -1"),
        ({"points": [Point(PLACE, 10**400)]}, LabelError, "at most"),
        ({"points": [Point(PLACE, [1])]}, LabelError, "integer"),
        ({"points": [Point(PLACE, 1, positive="no")]}, ParameterError, "positive or not"),
        ({"boxes": [(0, 0, 0, 2, 3, 3)]}, ParameterError, "give a tuple of Box"),
        ({"boxes": Box((0, 0, 0), (2, 3, 3), 1)}, ParameterError, "boxes are a Box"),
        ({"boxes": [Point(PLACE, 1)]}, ParameterError, "hold a Point"),
        ({"boxes": [Box((0, 0.5, 0), (2, 3, 3), 1)]}, GeometryError, "are integers"),
        ({"boxes": [Box(None, (2, 3, 3), 1)]}, GeometryError, "three places"),
        ({"boxes": [Box((0, 0, 0), (2, 3, 10**30), 1)]}, GeometryError, "are integers"),
        ({"boxes": [Box((0, 0, 0), (2, 3, 3), "1")]}, LabelError, "not '1'"),
        ({"fully_labeled": (0, 2)}, ParameterError, "pairs of an axis and an index"),
        ({"fully_labeled": 2}, ParameterError, "are an int"),
        ({"fully_labeled": ((0, 2.5),)}, ParameterError, r"hold \(0, 2.5\)"),
        ({"fully_labeled": (("z", 2),)}, GeometryError, "of axis 'z' does not exist"),
        ({"locked": 1, "result": image()}, ParameterError, "a set of labels"),
        ({"locked": "1", "result": image()}, ParameterError, "a set of labels"),
        ({"locked": ["1"], "result": image()}, LabelError, "not '1'"),
        ({"background": "2"}, ParameterError, "'background' is a value .* not '2'"),
        ({"unlabeled": None}, ParameterError, "'unlabeled' is a value .* not None"),
        ({"labels": np.ma.masked_equal(image(), 0)}, LabelError, "masked array"),
        ({"labels": image()[2]}, GeometryError, "share a grid"),
        ({"labels": image().astype(np.int64) + 10**10}, LabelError, "at most"),
    ],
)
def test_what_newcomers_give_is_refused_before_work_starts(given, error, words):
    volume = Volume.from_array(np.random.default_rng(0).random(SHAPE))
    events = []
    with pytest.raises(error, match=words):
        segment(volume, Prompts(**given), progress=events.append)
    assert not events


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompts": image()}, r"prompts are an ndarray; give Prompts\("),
        ({"prompts": None}, "prompts are None"),
        ({"volume": np.zeros(SHAPE)}, "image is an ndarray; make it a Volume"),
        ({"volume": "scan.nii.gz"}, "image is a str; .* read_volume"),
        ({"params": {"threads": 1}}, "'params' is a dict; give one of type SegmentParams"),
        ({"field": "f.medgs"}, "'field' is a str; give one of type GaussianField"),
        ({"fit_params": {}}, "'fit_params' is a dict; give one of type FitParams"),
    ],
)
def test_other_types_than_those_of_segment_are_refused(arguments, words):
    volume = Volume.from_array(np.random.default_rng(0).random(SHAPE))
    prompts = Prompts(points=(Point(PLACE, 1), Point((4, 6, 8), 0)))
    with pytest.raises(ParameterError, match=words):
        segment(**({"volume": volume, "prompts": prompts} | arguments))


def test_what_is_unambiguous_is_accepted():
    plain = Prompts(
        points=(Point((1, 2, 3), 1), Point((5, 0, 0), 0)),
        boxes=(Box((0, 4, 4), (5, 8, 9), 2),),
        fully_labeled=((0, 5),),
    )
    other = Prompts(
        points=[Point(np.array([1.0, 2, 3]), np.int64(1)), Point([5, 0, 0], 0.0)],
        boxes=[Box(np.array([0, 4, 4]), [5, 8, 9], np.uint8(2))],
        fully_labeled=[[np.int64(0), 5]],
    )
    one, two = collect(plain), collect(other)
    np.testing.assert_array_equal(one.voxels, two.voxels)
    np.testing.assert_array_equal(one.classes, two.classes)
    collect(Prompts(background=-5, points=(Point(PLACE, -5), Point((4, 6, 8), 1))))


def test_too_many_classes_are_refused():
    labels = np.zeros(SHAPE, np.int32)
    labels.reshape(-1)[:300] = np.arange(300)
    with pytest.raises(LabelError, match="at most"):
        collect(Prompts(labels=labels))


def test_later_marks_win():
    labels = image(a=((1, 1, 1), 1), b=((2, 2, 2), 2))
    markers = collect(Prompts(labels=labels, points=(Point((1, 1, 1), 0, radius=0.5),)))
    marked = {tuple(v): int(c) for v, c in zip(markers.voxels, markers.classes, strict=True)}
    assert marked[1, 1, 1] == 0
    assert len(markers.voxels) == 2


def test_a_click_keeps_its_own_voxel_beside_a_later_one():
    points = Point((2, 3, 4), 1), Point((2, 3, 5), 0), Point((2, 3, 6), 1), Point((4, 3, 4), 1)
    markers = collect(Prompts(points=points))
    marked = {tuple(v): int(c) for v, c in zip(markers.voxels.tolist(), markers.classes)}
    assert [marked[2, 3, x] for x in (3, 4, 5, 6, 7)] == [1, 1, 0, 1, 1]
    assert marked[2, 4, 5] == 0
    # A larger ball is painted over what was there.
    over = Prompts(points=(points[0], points[3], Point((2, 3, 6), 2, radius=3.0)))
    markers = collect(over)
    marked = {tuple(v): int(c) for v, c in zip(markers.voxels.tolist(), markers.classes)}
    assert marked[2, 3, 4] == 2


def test_points_are_balls_in_mm():
    markers = collect(Prompts(points=(Point((2, 3, 4), 1, radius=1.0), Point((5, 7, 9), 0))))
    mine = markers.voxels[markers.classes == 1]
    # One voxel of 2 mm across, neighbors in plane only.
    assert sorted(map(tuple, mine.tolist())) == [
        (2, 2, 4), (2, 3, 3), (2, 3, 4), (2, 3, 5), (2, 4, 4),
    ]  # fmt: skip


def test_a_box_alone_marks_its_core_and_the_ring_around():
    markers = collect(Prompts(boxes=(Box((1, 2, 2), (5, 6, 8), 3),)))
    assert markers.values == (0, 3)
    inside = markers.voxels[markers.classes == 1]
    outside = markers.voxels[markers.classes == 0]
    assert len(inside)
    assert ((inside >= [1, 2, 2]) & (inside < [5, 6, 8])).all()
    assert len(outside)
    assert not ((outside >= [1, 2, 2]) & (outside < [5, 6, 8])).all(axis=1).any()
    assert not markers.user_marked.any()
    assert list(markers.boxes) == [1]


def test_the_ring_around_a_box_leaves_room_for_a_blurred_border():
    def away(start, stop, shape):
        given = Prompts(boxes=(Box(start, stop, 3),))
        markers = rasterize_prompts(given, shape, (0, 1, 2), np.ones(3))
        outside = markers.voxels[markers.classes == 0]
        apart = np.maximum(np.maximum(np.array(start) - outside, outside - np.array(stop) + 1), 0)
        return sorted(set(apart.sum(axis=1).tolist()))

    assert away((8, 8, 8), (12, 12, 12), (20, 20, 20)) == [3, 4]
    # Nearer where the image ends before that; a box that reaches to its last voxel but one.
    assert away((0, 0, 0), (20, 20, 18), (20, 20, 20)) == [2]
    assert away((0, 0, 0), (20, 20, 19), (20, 20, 20)) == [1]


def test_boxes_over_the_whole_image_leave_no_background():
    with pytest.raises(LabelError, match=r"The box covers the whole image.*mark background"):
        collect(Prompts(boxes=(Box((0, 0, 0), SHAPE, 3),)))
    halves = (Box((0, 0, 0), (3, 8, 10), 3), Box((3, 0, 0), SHAPE, 3))
    with pytest.raises(LabelError, match="The boxes cover the whole image"):
        collect(Prompts(boxes=halves))
    background = Point((0, 0, 0), 0)
    assert collect(Prompts(points=(background,), boxes=halves)).values == (0, 3)


def test_clicks_leave_the_core_of_a_box_that_looks_like_them():
    box = Box((1, 1, 1), (6, 8, 9), 3)
    alone = collect(Prompts(boxes=(box,)))
    clicked = Prompts(points=(Point((3, 6, 7), 3, radius=0.5),), boxes=(box,))
    image = np.zeros(SHAPE)

    def inside(given):
        def alike(flat, middle):
            return np.abs(image.reshape(-1)[flat] - image.reshape(-1)[middle]) < 1

        found = rasterize_prompts(given, SHAPE, (0, 1, 2), UNITS, alike=alike)
        return {tuple(v) for v in found.voxels[found.classes == 1].tolist()}

    core = {tuple(v) for v in alone.voxels[alone.classes == 1].tolist()}
    assert inside(clicked) == core | {(3, 6, 7)}
    # A click on the background says what is outside: no core then, as with strokes.
    more = (*clicked.points, Point((0, 0, 0), 0, radius=0.5))
    assert inside(Prompts(points=more, boxes=(box,))) == {(3, 6, 7)}
    image[tuple(np.array(sorted(core)).T)] = 50  # a shell: the clicked one is another tissue
    assert inside(clicked) == {(3, 6, 7)}


def test_a_box_leaves_what_is_drawn_in_its_middle():
    box = Box((1, 2, 2), (6, 8, 9), 3)
    core = collect(Prompts(boxes=(box,)))
    middle = tuple(core.voxels[core.classes == 1][0].tolist())
    labels = image(a=(middle, 9))
    markers = collect(Prompts(labels=labels, background=9, boxes=(box,)))
    marked = {tuple(v): int(c) for v, c in zip(markers.voxels, markers.classes, strict=True)}
    assert marked[middle] == 0


def test_an_initial_mask_is_believed_off_its_border_only():
    mask = np.zeros((20, 20, 20), np.int32)
    mask[4:16, 4:16, 4:16] = 5
    prompts = Prompts(initial=mask, initial_margin=3.0)
    markers = rasterize_prompts(prompts, mask.shape, (0, 1, 2), np.ones(3))
    inside = markers.voxels[markers.classes == 1]
    assert inside.min() == 6
    assert inside.max() == 13
    assert markers.values == (0, 5)
    assert not markers.user_marked.any()


def test_full_slices_are_found_in_every_orientation():
    labels = np.zeros(SHAPE, np.int32)
    labels[:, 3, :] = 1
    labels[2:4, 3, :] = 2
    assert find_full_slices(labels, 0, 1).tolist() == [3]
    assert find_full_slices(labels, 0, 0).tolist() == []
    labels[:, 5, :] = 1  # one label everywhere: a slab of paint, no annotation
    assert find_full_slices(labels, 0, 1).tolist() == [3]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_that_lack_a_few_voxels_are_named(axis):
    labels = np.full((20, 20, 20), -1, np.int32)
    stack = np.moveaxis(labels, axis, 0)
    stack[4], stack[4, 5:9, 5:9] = 0, 1
    stack[9], stack[9, 3:7, 8:12] = 0, 2
    assert find_nearly_full_slices(labels, -1) == ()  # both are full
    stack[4, 5, [2, 17]] = -1
    stack[9, :5, :5] = -1  # 25 of 400: too many for a gap
    found = find_nearly_full_slices(labels, -1)
    assert [(x.axis, x.index, x.missing) for x in found] == [(axis, 4, 2)]
    stack[9, 0] = stack[9, :, 0] = 0
    stack[9, :5, :5] = 0
    stack[9, 0, 0] = -1
    found = find_nearly_full_slices(labels, -1)
    assert [(x.axis, x.index, x.missing) for x in found] == [(axis, 4, 2), (axis, 9, 1)]
    assert describe_nearly_full([(f"slice {x.index}", x.missing) for x in found]) == (
        "Not fully labeled: slice 4 lacks 2 voxels, slice 9 lacks 1 voxel. "
        "Their marks count as strokes."
    )


def test_a_slab_of_paint_and_slices_without_marks_are_no_gaps():
    labels = np.full((20, 20, 20), -1, np.int32)
    labels[:19], labels[:19, 5:9, 5:9] = 0, 1  # the last slice is not labeled
    assert find_nearly_full_slices(labels, -1) == ()
    labels[:] = -1
    labels[3] = 1  # one label alone
    labels[3, 4, 4] = -1
    assert find_nearly_full_slices(labels, -1) == ()


@pytest.mark.parametrize("seed", range(20))
def test_nearly_full_slices_are_those_of_their_definition(seed):
    rng = np.random.default_rng(seed)
    labels = np.full(rng.integers(5, 12, 3), -1, np.int32)
    for _ in range(rng.integers(1, 8)):
        axis = rng.integers(3)
        stack = np.moveaxis(labels, axis, 0)
        plane = stack[rng.integers(len(stack)) :][: rng.integers(1, 4)]
        plane[:] = rng.integers(3)
        plane[:, 1:4, 2:4] = rng.integers(3)
    for _ in range(rng.integers(4)):
        labels[tuple(rng.integers(labels.shape))] = -1
    expected = []
    for axis in range(3):
        for index, plane in enumerate(np.moveaxis(labels, axis, 0)):
            empty = plane == -1
            if (
                0 < empty.sum() <= (1 - 0.9) * empty.size
                and not (empty.all(axis=0).any() or empty.all(axis=1).any())
                and len(np.unique(plane[~empty])) > 1
            ):
                expected.append((axis, index, empty.sum()))
    found = find_nearly_full_slices(labels, -1, 0.9)
    assert [(x.axis, x.index, x.missing) for x in found] == expected


def test_named_slices_count_their_unlabeled_voxels_as_background():
    labels = image(a=((2, slice(2, 5), slice(2, 5)), 1))
    markers = collect(Prompts(labels=labels, fully_labeled=((0, 2),)))
    assert markers.fully_labeled[0].tolist() == [2]
    assert (markers.classes == 0).sum() == 8 * 10 - 9


def test_annotated_planes_have_several_classes():
    labels = np.zeros(SHAPE, np.int32)
    labels[1, 2, 2:6], labels[1, 5, 2:6] = 1, 2
    labels[4, 2, 2:6], labels[4, 5, 2:6] = 1, 2
    labels[3, 2, 2:6] = 1
    axis, planes = collect(Prompts(labels=labels)).annotated_slices()
    assert axis == 0
    assert planes.tolist() == [1, 4]


def test_many_classes_are_no_ordinary_image():
    atlas = np.arange(120).repeat(27 * 4).reshape(12, 30, 36)
    dots = np.zeros((8, 40, 40), np.uint8)
    dots[3, ::2, ::2] = np.arange(400).reshape(20, 20) % 60
    for labels in (atlas, dots, np.zeros((4, 8, 8), np.uint8)):
        check_label_image(labels)
    with pytest.raises(LabelError, match="50 values that differ from voxel to voxel"):
        check_label_image(np.random.default_rng(0).integers(0, 51, (9, 30, 30)))


@pytest.mark.parametrize("across", [False, True])
def test_strokes_of_another_orientation_do_not_take_the_place_of_the_slices(across):
    """A thin cord: many slices of the third orientation hold a part of every stroke."""
    shape = 80, 40, 40
    labels = np.zeros(shape, int)
    for z in (12, 37, 63):
        labels[z, 20, 17:23], labels[z, (10, 30), 4:36] = 1, 9
    if across:
        labels[20:55, 20, 19], labels[20:55, 20, (6, 34)] = 1, 9
    markers = rasterize_prompts(Prompts(labels=labels, background=9), shape, (0, 1, 2), UNITS)
    axis, slices = markers.annotated_slices()
    assert axis == 0
    assert slices.tolist() == [12, 37, 63]


def test_the_orientation_of_one_large_slice_counts():
    """One large sagittal slice, and three small strokes across it."""
    shape = 60, 40, 40
    labels = np.zeros(shape, int)
    labels[5:55, 10:30:4, 20], labels[5:55, (4, 36), 20] = 1, 9
    for z in (20, 30, 40):
        labels[z, 20, 18:23], labels[z, 20, (8, 32)] = 1, 9
    markers = rasterize_prompts(Prompts(labels=labels, background=9), shape, (0, 1, 2), UNITS)
    axis, slices = markers.annotated_slices()
    assert axis == 2
    assert slices.tolist() == [20]
