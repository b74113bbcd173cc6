"""Points, boxes, initial masks and layers of any geometry in the Segment widget."""

from copy import copy

import numpy as np
import pytest
from napari.layers import Labels

from napari_medgs.plugin.layer_frame import (
    frame_of,
    geometry_kwargs,
    same_place,
    world_of_slice,
)
from napari_medgs.plugin.layer_metadata import FIELD_KEY
from napari_medgs.plugin.segment.layers import LabelView
from tests.plugin.strokes import begin, dice, idle, stroke


def test_two_dimensions_and_points(docked, qtbot, notes, tiny_volume):
    viewer, widget = docked(image=False)
    viewer.add_image(tiny_volume.channel(0)[5], name="flat")
    widget.view.new_strokes.click()
    layer = widget.strokes_layer
    layer.brush_size = 2
    stroke(layer, [(10, x) for x in range(6, 10)], 1)
    stroke(layer, [(2, x) for x in range(2, 22)], 255)
    idle(qtbot, widget)
    assert (widget.result_layer.data == 1).sum() > 20
    widget.view.table.choose(2)
    points = widget.prompt_layers.make("points")
    points.add([9.0, 18.0])
    assert widget.controller.session.settings.points[0].label == 2
    idle(qtbot, widget)
    assert (widget.result_layer.data == 2).sum() > 10
    widget.view.undo.click()
    assert len(points.data) == 0
    assert not (widget.result_layer.data == 2).any()
    assert notes == []


def rectangle(z, y, x):
    """Return the corners of a rectangle in slice z; y and x are (first, last)."""
    return np.array([(z, y[0], x[0]), (z, y[0], x[1]), (z, y[1], x[1]), (z, y[1], x[0])], float)


def test_boxes_hold_a_class(docked, qtbot, notes):
    _, widget = docked()
    begin(qtbot, widget)
    before = widget.result_layer.data.copy()
    widget.view.table.choose(1)
    boxes = widget.prompt_layers.make("boxes")
    assert boxes.mode == "add_rectangle"
    boxes.add_rectangles([rectangle(4, (7, 13), (5, 10))])
    box = widget.controller.session.settings.boxes[0]
    assert (box.start, box.stop, box.label) == ((0, 7, 5), (12, 14, 11), 1)
    idle(qtbot, widget)
    where = np.argwhere(widget.result_layer.data == 1)
    assert len(where)
    assert (where.min(axis=0)[1:] >= (7, 5)).all()
    assert (where.max(axis=0)[1:] <= (13, 10)).all()
    boxes.add_rectangles([rectangle(7, (7, 13), (5, 10))])
    box = widget.controller.session.settings.boxes[0]
    assert (box.start, box.stop) == ((4, 7, 5), (8, 14, 11))
    idle(qtbot, widget)
    where = np.argwhere(widget.result_layer.data == 1)
    assert where[:, 0].min() >= 4
    assert where[:, 0].max() <= 7
    widget.view.undo.click()
    assert boxes.nshapes == 1
    widget.view.undo.click()
    assert boxes.nshapes == 0
    np.testing.assert_array_equal(widget.result_layer.data, before)
    widget.view.redo.click()
    assert boxes.nshapes == 1
    assert widget.controller.session.settings.boxes[0].stop == (12, 14, 11)
    assert notes == []


def test_a_box_of_another_orientation_comes_back_in_it(docked, qtbot, notes):
    _, widget = docked()
    begin(qtbot, widget)
    widget.view.table.choose(1)
    boxes = widget.prompt_layers.make("boxes")
    # Drawn in a sagittal slice: it goes through all of them.
    boxes.add_rectangles([np.array([[2, 5, 7], [2, 13, 7], [9, 13, 7], [9, 5, 7]])])
    (box,) = widget.controller.session.settings.boxes
    assert (box.start, box.stop) == ((2, 5, 0), (10, 14, 24))
    widget.view.undo.click()
    assert boxes.nshapes == 0
    widget.view.redo.click()
    assert boxes.nshapes == 1
    assert np.ptp(boxes.data[0], axis=0).tolist() == [7, 8, 0]
    assert widget.controller.session.settings.boxes == (box,)
    assert notes == []


def test_negative_points_say_not_this_class(docked, qtbot, notes):
    viewer, widget = docked()
    begin(qtbot, widget)
    before = widget.result_layer.data.copy()
    assert before[8, 9, 17] == 2
    widget.view.table.choose(2)
    points = widget.prompt_layers.make("points")
    widget.view.negative.setChecked(True)
    points.add([8.0, 9.0, 17.0])
    point = widget.controller.session.settings.points[0]
    assert point.position == pytest.approx((8, 9, 17))
    assert (point.label, point.positive) == (2, False)
    assert str(points.symbol[0]) == "cross"
    idle(qtbot, widget)
    assert widget.result_layer.data[8, 9, 17] != 2
    widget.view.negative.setChecked(False)
    widget.view.table.choose(1)
    points.add([9.0, 9.0, 17.0])
    assert [p.positive for p in widget.controller.session.settings.points] == [False, True]
    idle(qtbot, widget)
    assert widget.result_layer.data[9, 9, 17] == 1
    viewer.layers.remove(points)
    assert widget.controller.session.settings.points == ()
    widget.view.undo.click()
    assert len(widget.prompt_layers.points.data) == 2
    assert notes == []


def test_an_initial_mask_stays_until_it_is_corrected(docked, qtbot, notes, tiny_labels):
    from scipy.ndimage import binary_dilation

    viewer, widget = docked()
    rough = tiny_labels.copy()
    rough[binary_dilation(tiny_labels == 1, iterations=2) & (tiny_labels == 0)] = 1
    rough[tiny_labels == 2] = 7
    scan = viewer.layers["scan"]
    mask = viewer.add_labels(rough, name="rough", **geometry_kwargs(scan))
    widget.view.initial.choose(mask)
    widget.view.new_strokes.click()
    assert widget.controller.session.initial is not None
    # Its classes can be edited at once, before anything was solved.
    np.testing.assert_array_equal(widget.result_layer.data, rough)
    assert set(widget.state.volumes_ml) == set(widget.view.table.classes) == {1, 7}
    idle(qtbot, widget)
    np.testing.assert_array_equal(widget.result_layer.data, rough)
    np.testing.assert_array_equal(mask.data, rough)
    assert not mask.visible
    stroke(widget.strokes_layer, [(5, 10, x) for x in range(6, 8)], 7)
    idle(qtbot, widget)
    assert (widget.result_layer.data[5, 10, 6:8] == 7).all()
    assert notes == []


# About the layer's last axis: slices are oblique to the body.
TURN = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
@pytest.mark.parametrize("turn", [np.eye(3), TURN], ids=["flipped", "oblique"])
def test_flipped_and_oblique_layers(docked, qtbot, notes, tiny_volume, tiny_labels, turn):
    viewer, widget = docked(image=False)
    flips = np.array([True, False, True])
    turned = np.vstack([np.c_[turn @ np.diag([-3.0, 1, -1]), [5, 30, 40]], [0, 0, 0, 1]])
    scan = viewer.add_image(
        np.ascontiguousarray(tiny_volume.channel(0)[::-1, :, ::-1]),
        name="turned",
        affine=turned,
        units="mm",
    )
    widget.view.new_strokes.click()
    frame, layer = widget.context.frame, widget.strokes_layer
    assert frame.order == (0, 1, 2)
    assert frame.flips == tuple(flips)
    assert same_place(layer, scan)
    assert same_place(widget.result_layer, scan)
    layer.brush_size = 2
    for places, value in (
        ([(5, 10, x) for x in range(6, 10)], 1),
        ([(5, 9, x) for x in range(16, 20)], 2),
        ([(5, 2, x) for x in range(2, 22)], 255),
    ):
        stroke(layer, np.round(frame.points_to_layer(np.array(places))).astype(int), value)
    idle(qtbot, widget)
    session = widget.controller.session
    np.testing.assert_array_equal(frame.to_canonical(layer.data), session.strokes)
    result = frame.to_canonical(widget.result_layer.data)
    np.testing.assert_array_equal(result, session.labels)
    assert dice(result, tiny_labels, 1) > 0.8
    assert dice(result, tiny_labels, 2) > 0.8
    before = widget.result_layer.data.copy()
    z, y, x = (int(v) for v in frame.points_to_layer(np.array([[7, 12, 8]]))[0])
    widget.result_layer.brush_size = 1
    stroke(widget.result_layer, [(z, y, x)], 2)
    assert session.strokes[7, 12, 8] == 2
    assert layer.data[z, y, x] == 2
    idle(qtbot, widget)
    assert widget.result_layer.data[z, y, x] == 2
    widget.view.undo.click()
    np.testing.assert_array_equal(widget.result_layer.data, before)
    assert layer.data[z, y, x] == 0
    for order, index, place in (
        ((0, 1, 2), 4, (0, 7)), ((1, 0, 2), 8, (1, 8)), ((2, 0, 1), 6, (2, 17))
    ):  # fmt: skip
        viewer.dims.order = order
        viewer.dims.set_point(order[0], world_of_slice(scan, order[0], index))
        assert widget.context.visible_slice() == place
    viewer.dims.ndisplay = 3
    assert widget.context.visible_slice() is None
    assert all("turned or sheared" in text for _, text in notes)
    assert bool(notes) == (turn is TURN)


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_boxes_of_painting_follow_the_axes_of_the_layer():
    # napari cannot show such a layer in 2D, but its axes and the body's may well differ in order.
    columns = np.diag([3.0, 1.0, 1.0])[:, [2, 0, 1]] * [-1, 1, -1]
    layer = Labels(
        np.zeros((24, 12, 20), np.uint8),
        affine=np.vstack([np.c_[columns, [5, 30, 40]], [0, 0, 0, 1]]),
    )
    view = LabelView(layer, frame_of(layer))
    assert view.frame.order == (1, 2, 0)
    assert view.frame.flips == (False, True, True)
    boxes = []
    layer.events.paint.connect(lambda event: boxes.append(view.box_of(event.value)))
    layer.brush_size = 1
    stroke(layer, [(4, 7, 11), (5, 7, 11)], 3)
    painted = np.argwhere(view.array)
    np.testing.assert_array_equal(painted, [[7, 8, 18], [7, 8, 19]])
    assert boxes == [(slice(7, 8), slice(8, 9), slice(18, 20))]
    assert view.box_of([((slice(0, 2), slice(None)),)]) is None


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_an_image_that_napari_cannot_slice_is_refused_in_a_sentence(docked, notes, tiny_volume):
    viewer, widget = docked(image=False)
    viewer.dims.ndisplay = 3  # in 2D napari fails as soon as the image is added
    viewer.add_image(tiny_volume.channel(0), name="scan", affine=np.eye(4)[[1, 2, 0, 3]])
    widget.view.new_strokes.click()
    ((severity, text),) = notes
    assert severity == "error"
    assert text.startswith("napari cannot show 'scan' in these slices")
    assert len(viewer.layers) == 1
    assert widget.controller.session is None


SWAP = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("affine", [np.eye(3), SWAP], ids=["straight", "swapped"])
def test_marks_on_a_plane_image_of_any_axes(docked, qtbot, notes, rng, affine, order):
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 8:24], labels[10:30, 34:52] = 1, 2
    picture = np.array([20.0, 80, 160])[labels] + rng.normal(0, 4, labels.shape)
    viewer, widget = docked(image=False)
    viewer.add_image(picture.astype(np.float32), name="picture", affine=affine)
    viewer.dims.order = order
    widget.view.new_strokes.click()
    layer = widget.strokes_layer
    layer.brush_size = 2
    for value, (row, column) in ((1, (20, 15)), (2, (20, 42)), (255, (3, 20))):
        stroke(layer, [(row, column + k) for k in range(5)], value)
    widget.view.table.choose(1)
    points, boxes = widget.prompt_layers.make("points"), widget.prompt_layers.make("boxes")
    points.add([20, 12])
    boxes.add_rectangles(np.array([[8, 6], [8, 26], [32, 26], [32, 6]]))
    idle(qtbot, widget)
    session = widget.controller.session
    assert len(session.settings.points) == len(session.settings.boxes) == 1
    assert dice(widget.result_layer.data, labels, 1) > 0.9
    assert dice(widget.result_layer.data, labels, 2) > 0.9
    before = boxes.data[0].copy()
    widget.view.undo.click()
    assert boxes.nshapes == 0
    widget.view.redo.click()
    assert boxes.nshapes == 1
    for extreme in (np.min, np.max):
        np.testing.assert_allclose(
            extreme(boxes.data[0], axis=0), extreme(before, axis=0), atol=0.5
        )
    assert notes == []


def test_a_starting_mask_of_any_labels_can_be_corrected(docked, qtbot, notes, tiny_labels):
    viewer, widget = docked()
    rough = np.array([0, 255, 2035])[tiny_labels]  # 255 is what background strokes are elsewhere
    scan = viewer.layers["scan"]
    widget.view.initial.choose(viewer.add_labels(rough, name="rough", **geometry_kwargs(scan)))
    widget.view.new_strokes.click()
    assert set(widget.view.table.classes) == {255, 2035}
    assert widget.controller.session.settings.background == 254
    idle(qtbot, widget)
    wrong = tuple(np.argwhere(tiny_labels == 2)[0])
    assert widget.result_layer.data[wrong] == 2035
    stroke(widget.strokes_layer, [(5, 9, x) for x in range(16, 20)], 2035)
    stroke(widget.strokes_layer, [wrong], 254)
    idle(qtbot, widget)
    assert widget.result_layer.data[wrong] == 0
    assert dice(widget.result_layer.data, rough, 255) > 0.95
    assert notes == []


def test_starting_masks_of_labels_that_do_not_work_are_refused(docked, notes, tiny_labels):
    viewer, widget = docked()
    many = np.arange(tiny_labels.size).reshape(tiny_labels.shape) % 300
    place = geometry_kwargs(viewer.layers["scan"])
    for data, says in (
        (many, "has 299 labels; at most"),
        (tiny_labels * np.int64(2**61), "the label 4611686018427387904"),
        (-tiny_labels.astype(np.int8), "the label -2"),
        (0 * tiny_labels, "is empty"),
    ):
        mask = viewer.add_labels(data, name="mask", **place)
        widget.view.initial.choose(mask)
        widget.view.new_strokes.click()
        assert widget.controller.session is None
        assert says in notes[-1][1]
        viewer.layers.remove(mask)
        assert [layer.name for layer in viewer.layers] == ["scan"]


def begin_with_a_point(qtbot, widget):
    """Begin, add a point of class 1 and wait for the mask; return the strokes and the points."""
    strokes = begin(qtbot, widget)
    widget.view.table.choose(1)
    points = widget.prompt_layers.make("points")
    points.add([8.0, 9.0, 8.0])
    idle(qtbot, widget)
    return strokes, points


def test_a_mask_to_begin_with_counts_from_the_next_session(docked, qtbot, notes, tiny_labels):
    viewer, widget = docked()
    layer, points = begin_with_a_point(qtbot, widget)
    session, before = widget.controller.session, widget.result_layer.data.copy()
    place = geometry_kwargs(viewer.layers["scan"])
    mask = viewer.add_labels(7 * (tiny_labels == 2).astype(np.uint8), name="rough", **place)
    small = viewer.add_labels(np.ones((3, 4, 5), np.uint8), name="of another image")
    for choice in (mask, small, None, mask):
        widget.view.initial.choose(choice)
        assert "next New" in widget.view.panel.status.text()
    # The session goes on: strokes, points, mask and history are as they were.
    assert widget.controller.session is session
    assert (widget.strokes_layer, widget.prompt_layers.points) == (layer, points)
    assert len(session.settings.points) == 1
    assert session.initial is None
    idle(qtbot, widget)
    np.testing.assert_array_equal(widget.result_layer.data, before)
    assert mask.visible
    widget.view.undo.click()
    assert len(points.data) == 0
    widget.view.redo.click()

    # New begins with it, and shows nothing of the session before.
    widget.view.new_strokes.click()
    assert widget.controller.session is not session
    np.testing.assert_array_equal(widget.controller.session.initial, mask.data)
    assert widget.view.table.classes == [7]
    assert not layer.visible
    assert not points.visible
    assert widget.prompt_layers.points is None
    begun = widget.controller.session
    viewer.layers.remove(mask)  # which the session has a copy of
    assert widget.controller.session is begun
    assert (begun.initial == 7).any()
    assert notes == []


def test_another_value_of_background_keeps_points_boxes_and_locks(docked, qtbot, notes):
    _viewer, widget = docked()
    layer = begin(qtbot, widget)
    widget.view.table.choose(1)
    points, boxes = widget.prompt_layers.make("points"), widget.prompt_layers.make("boxes")
    points.add([8.0, 9.0, 8.0])
    widget.view.table.choose(255)
    points.add([2.0, 2.0, 2.0])
    widget.view.table.choose(2)
    boxes.add_rectangles(np.array([[5, 5, 12], [5, 5, 22], [5, 14, 22], [5, 14, 12]]))
    widget.classes.toggle_lock()
    idle(qtbot, widget)
    before, box = widget.controller.session, widget.controller.session.settings.boxes
    mask = widget.result_layer.data.copy()
    widget.values.background.setValue(0)
    assert "must differ" in notes.pop()[1]
    assert (widget.controller.session, widget.values.values()) == (before, (0, 255))
    layer.data = np.where(layer.data == 255, 9, layer.data)
    widget.values.background.setValue(9)
    session = widget.controller.session
    assert session is not before
    assert [p.label for p in session.settings.points] == [1, 9]
    assert session.settings.boxes == box
    assert session.settings.locked == {2}
    np.testing.assert_array_equal(session.strokes, layer.data)
    assert (widget.prompt_layers.points, widget.prompt_layers.boxes) == (points, boxes)
    assert len(points.data) == 2
    idle(qtbot, widget)
    assert ((widget.result_layer.data == 2) == (mask == 2)).all()
    widget.view.table.choose(1)
    points.add([8.0, 9.0, 9.0])  # and they are still heard
    assert [p.label for p in session.settings.points] == [1, 9, 1]
    assert notes == []


def test_another_field_keeps_the_session(docked, qtbot, notes):
    viewer, widget = docked()
    layer, points = begin_with_a_point(qtbot, widget)
    session, field = widget.controller.session, widget.controller.field
    steps = len(session.history.done)
    carrier = viewer.add_image(
        np.zeros((2, 2, 2)), name="fitted", metadata={FIELD_KEY: copy(field)}
    )
    widget.view.fields.choose(carrier)
    idle(qtbot, widget)
    assert widget.controller.field is carrier.metadata[FIELD_KEY]
    viewer.layers.remove(carrier)  # the field that the session has is in memory
    assert widget.controller.session is session
    assert widget.controller.field is carrier.metadata[FIELD_KEY]
    assert (widget.strokes_layer, widget.prompt_layers.points) == (layer, points)
    assert (len(session.settings.points), len(session.history.done)) == (1, steps)
    widget.view.undo.click()
    assert len(points.data) == 0
    assert notes == []


def test_painting_over_a_click_takes_it_back_as_one_step(docked, qtbot, notes):
    _, widget = docked()
    strokes = begin(qtbot, widget)
    before = widget.result_layer.data.copy()
    widget.view.table.choose(1)
    points = widget.prompt_layers.make("points")
    points.add([5.0, 16.0, 4.0])
    idle(qtbot, widget)
    assert widget.result_layer.data[5, 16, 4] == 1
    stroke(strokes, [(5, 16, x) for x in range(2, 6)], 255)
    assert len(points.data) == 0
    assert widget.controller.session.settings.points == ()
    idle(qtbot, widget)
    assert (widget.result_layer.data[5, 16, 2:6] == 0).all()
    widget.view.undo.click()
    assert len(points.data) == 1
    assert widget.result_layer.data[5, 16, 4] == 1
    widget.view.redo.click()
    assert len(points.data) == 0
    widget.view.undo.click()
    # Beside the click: it shrinks to its own voxel, and stays so when another one is added.
    strokes.brush_size = 1
    stroke(strokes, [(5, 16, 5)], 255)
    points.add([5.0, 16.0, 12.0])
    assert [p.radius for p in widget.controller.session.settings.points] == [0.5, 1.0]
    idle(qtbot, widget)
    assert widget.result_layer.data[5, 16, 4] == 1
    assert widget.result_layer.data[5, 16, 5] == 0
    for _ in range(3):
        widget.view.undo.click()
    np.testing.assert_array_equal(widget.result_layer.data, before)
    assert notes == []


def test_a_correction_over_a_click_takes_it_back(docked, qtbot, notes):
    _, widget = docked()
    begin(qtbot, widget)
    widget.view.table.choose(1)
    points = widget.prompt_layers.make("points")
    points.add([5.0, 16.0, 4.0])
    idle(qtbot, widget)
    result = widget.result_layer
    result.brush_size = 3
    stroke(result, [(5, 16, 4)], 2)
    assert len(points.data) == 0
    idle(qtbot, widget)
    assert result.data[5, 16, 4] == 2
    assert notes == []


def test_strokes_outside_of_a_box_are_told_of_once(docked, qtbot, notes):
    _, widget = docked()
    strokes = begin(qtbot, widget)
    widget.view.table.choose(1)
    boxes = widget.prompt_layers.make("boxes")
    boxes.add_rectangles([rectangle(4, (7, 13), (5, 10))])
    assert notes == []
    for row in (16, 17):
        stroke(strokes, [(5, row, x) for x in range(6, 9)], 1)
    idle(qtbot, widget)
    assert len(notes) == 1
    assert "marked as class 1 lie" in notes[0][1]
    assert "outside of its boxes" in notes[0][1]
    assert not (widget.result_layer.data[5, 16:18] == 1).any()
