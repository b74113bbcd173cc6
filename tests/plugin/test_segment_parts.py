"""Clicking on parts in the Segment widget: outlines, sizes, clicks with keys, undo, replay."""

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_medgs.plugin.fit.compare import camera_of
from napari_medgs.segmentation.session.replay import load_session, save_session
from tests.plugin.strokes import NO_KEY, WAIT, Mouse, idle, stroke

SHIFT, ALT = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.AltModifier
PLACE = (5, 10, 8)


@pytest.fixture
def clicking(docked, qtbot):
    """A shown viewer with the tool on, and a mouse that moves, clicks and turns its wheel."""
    viewer, widget = docked()
    viewer.show()
    widget.view.parts.button.click()
    assert widget.strokes_layer.mode == "pan_zoom"
    assert widget.view.parts.text.text() == "Finding parts …"
    qtbot.waitUntil(lambda: widget.parts.picker is not None, timeout=WAIT)
    assert "No part" in widget.view.parts.text.text()  # the mouse is elsewhere
    image = widget.context.image
    viewer.dims.set_point(0, image.data_to_world(PLACE)[0])
    QTest.qWait(30)
    return viewer, widget, Pointer(viewer, image)


class Pointer:
    """Moves, clicks and wheels at voxels of a layer."""

    def __init__(self, viewer, layer):
        self.viewer, self.layer, self.mouse = viewer, layer, Mouse(viewer)

    def move(self, place):
        none = Qt.MouseButton.NoButton
        for shift in (0.4, 0.0):  # a move to the same pixel is none
            spot = np.add(place, (0, 0, shift))
            self.mouse._send(QEvent.Type.MouseMove, self.layer, spot, none, none)
            QTest.qWait(25)

    def click(self, place, keys=NO_KEY):
        self.move(place)
        self.mouse.keys = keys
        with self.mouse.drag(self.layer, [place]):
            pass
        self.mouse.keys = NO_KEY

    def wheel(self, levels, keys=SHIFT):
        native = self.mouse.canvas.native
        spot = QPointF(native.width() / 2, native.height() / 2)
        for _ in range(abs(levels)):
            turn = QPoint(0, 120 if levels > 0 else -120)
            event = QWheelEvent(
                spot, QPointF(native.mapToGlobal(spot.toPoint())), QPoint(), turn,
                Qt.MouseButton.NoButton, keys, Qt.ScrollPhase.NoScrollPhase, False,
            )  # fmt: skip
            QApplication.sendEvent(native, event)


def settle(qtbot, widget):
    qtbot.waitUntil(
        lambda: (
            not (widget.parts.runner.busy or widget.parts._queue or widget.parts._rest.isActive())
        ),
        timeout=WAIT,
    )


def test_hover_wheel_click_and_a_stroke(clicking, qtbot, notes, tmp_path):
    viewer, widget, pointer = clicking
    picker, canvas = widget.parts.picker, widget.parts.canvases[0]
    zoom = camera_of(viewer).zoom
    pointer.move(PLACE)
    part = picker.hovered
    assert canvas.lines_shown == (True, False)
    assert "mL" in widget.view.parts.text.text() or "mm³" in widget.view.parts.text.text()
    pointer.wheel(1)
    assert picker.hovered.level == min(part.level + 1, len(part.levels) - 1)
    pointer.wheel(-20)
    assert picker.hovered.level == 0
    widget.view.parts.size.setValue(part.level)
    assert picker.hovered.nodes == part.nodes
    assert camera_of(viewer).zoom == zoom
    pointer.click(PLACE)
    settle(qtbot, widget)
    tree = picker.tree
    session = widget.controller.session
    np.testing.assert_array_equal(session.initial == 1, tree.mask(part.nodes))
    assert canvas.lines_shown == (False, True)
    idle(qtbot, widget)
    assert widget.result_layer.data[PLACE] == 1
    assert widget.state.volumes_ml[1] > 0
    # The wheel changes the clicked part, in place of the last step.
    steps = len(session.history.done)
    pointer.wheel(-1 if part.level else 1)
    settle(qtbot, widget)
    assert len(session.history.done) == steps
    np.testing.assert_array_equal(session.initial == 1, tree.mask(picker.clicked.nodes))
    assert picker.clicked.nodes != part.nodes
    widget.undo()
    assert not widget.result_layer.data.any()
    assert picker.clicked is None
    # Nothing is marked now: what comes next is said, not why there is no mask.
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    qtbot.waitUntil(lambda: "Click a part" in widget.view.panel.status.text(), timeout=WAIT)
    widget.redo()
    idle(qtbot, widget)
    # A stroke corrects it, and the brush leaves the tool.
    widget.view.brush.brush.click()
    assert not widget.parts.is_on
    assert widget.strokes_layer.mode == "paint"
    assert len(viewer.mouse_double_click_callbacks) == 1
    stroke(widget.strokes_layer, [(5, 2, x) for x in range(2, 22)], 255)
    idle(qtbot, widget)
    assert widget.result_layer.data[PLACE] == 1
    assert not widget.result_layer.data[5, 2, 2:22].any()
    # The log has the click and its mask, and needs no tree.
    again, _ = load_session(save_session(session, tmp_path / "session.json"))
    np.testing.assert_array_equal(again.initial, session.initial)
    record = [event["part"] for event in session.events if event.get("part")][-1]
    assert record["label"] == 1
    np.testing.assert_allclose(record["positive"][0], PLACE, atol=0.5)
    assert notes == []


def test_places_that_belong_and_places_that_do_not(clicking, qtbot, notes):
    _viewer, widget, pointer = clicking
    picker = widget.parts.picker
    session = widget.controller.session
    inside, outside, other = PLACE, (5, 2, 20), (5, 17, 3)
    pointer.click(inside)
    settle(qtbot, widget)
    # Shift joins another place to the part, as one step in place of the last one.
    pointer.click(outside, SHIFT)
    settle(qtbot, widget)
    assert len(session.history.done) == 1
    np.testing.assert_allclose(picker.clicked.positive, [inside, outside], atol=0.5)
    assert session.initial[inside] == session.initial[outside] == 1
    # Alt takes one out that lies within it.
    pointer.click(other, ALT)
    settle(qtbot, widget)
    assert len(session.history.done) == 1
    assert picker.clicked.is_determined
    np.testing.assert_array_equal(session.initial == 1, picker.tree.mask(picker.clicked.nodes))
    for place in (inside, outside):
        assert picker.contains(picker.clicked, picker.tree.leaf_at(place))
    assert not picker.contains(picker.clicked, picker.tree.leaf_at(other))
    # A second click on the part leaves it as it is; then another class takes one inside it.
    widget.parts.release()
    widget.view.table.choose(2)
    pointer.click(inside)
    settle(qtbot, widget)
    assert session.initial[inside] == 2
    widget.classes.toggle_lock()
    widget.parts.release()
    pointer.click(inside)
    assert "locked" in notes.pop()[1]
    before = session.initial.copy()
    pointer.click(inside, ALT)  # a locked class stays
    settle(qtbot, widget)
    np.testing.assert_array_equal(session.initial, before)
    assert notes == []


def test_four_views_show_the_part_in_every_plane_and_in_space(clicking, qtbot):
    _viewer, widget, pointer = clicking
    pointer.click(PLACE)
    settle(qtbot, widget)
    idle(qtbot, widget)
    widget.look.four.click()
    qtbot.waitUntil(lambda: len(widget.parts.canvases) == 3, timeout=WAIT)
    assert [canvas.lines_shown[1] for canvas in widget.parts.canvases] == [True] * 3
    assert not widget.look.four_views.follows_shift
    widget.parts.walk(-1 if widget.parts.picker.clicked.level else 1)
    qtbot.waitUntil(lambda: widget.parts.surface.is_shown, timeout=WAIT)
    widget.look.four.click()
    assert not widget.parts.canvases
    widget.view.parts.button.click()
    assert widget.look.four_views.follows_shift
    assert widget.strokes_layer.mode == "paint"


def test_the_tool_goes_off_where_there_is_no_tree(docked, qtbot, notes):
    viewer, widget = docked(image=False)
    widget.view.parts.button.click()
    assert not widget.parts.is_on
    notes.clear()
    viewer.add_image(np.zeros((4, 8, 8), np.float32), name="flat")
    widget.view.parts.button.click()
    qtbot.waitUntil(lambda: not widget.parts.is_on, timeout=WAIT)
    assert len(notes) == 1
