"""Clicking on parts in the Segment widget: outlines, sizes, clicks with keys, undo, replay."""

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from tests.plugin.strokes import NO_KEY, WAIT, Mouse, dice, idle, stroke

SHIFT, ALT = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.AltModifier
PLACE = (5, 10, 8)


@pytest.fixture
def clicking(docked, qtbot):
    """A shown viewer with the tool on, and a mouse that moves, clicks and turns its wheel."""
    viewer, widget = docked()
    viewer.show()
    widget.view.parts.button.click()
    assert widget.strokes_layer.mode == "pan_zoom"
    qtbot.waitUntil(lambda: widget.parts.picker is not None, timeout=WAIT)
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

    def wheel(self, notches, keys=SHIFT):
        native = self.mouse.canvas.native
        spot = QPointF(native.width() / 2, native.height() / 2)
        for _ in range(abs(notches)):
            turn = QPoint(0, 120 if notches > 0 else -120)
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


def test_hover_wheel_click_and_a_stroke(clicking, qtbot, notes, tiny_labels):
    viewer, widget, pointer = clicking
    picker, canvas = widget.parts.picker, widget.parts.canvases[0]
    zoom = viewer.camera.zoom
    pointer.move(PLACE)
    part = picker.hovered
    assert canvas.lines_shown == (True, False)
    assert "mL" in widget.view.parts.text.text() or "mm³" in widget.view.parts.text.text()
    pointer.wheel(1)
    assert picker.hovered.notch == min(part.notch + 1, len(part.notches) - 1)
    pointer.wheel(-20)
    assert picker.hovered.notch == 0
    widget.view.parts.size.setValue(part.notch)
    assert picker.hovered.nodes == part.nodes
    assert viewer.camera.zoom == zoom
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
    pointer.wheel(-1 if part.notch else 1)
    settle(qtbot, widget)
    assert len(session.history.done) == steps
    np.testing.assert_array_equal(session.initial == 1, tree.mask(picker.clicked.nodes))
    assert picker.clicked.nodes != part.nodes
    widget.undo()
    assert not widget.result_layer.data.any()
    assert picker.clicked is None
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
    assert notes == []
