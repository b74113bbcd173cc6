"""Painting in the Segment widget's layers, for its tests."""

from contextlib import contextmanager

from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

WAIT = 120_000  # a machine that does other things, too, needs longer than anyone expects
NO_KEY = Qt.KeyboardModifier.NoModifier


def stroke(layer, places, value):
    """Paint as the mouse does: one event for the whole stroke, which is shown once."""
    layer.selected_label = value
    with layer.block_history():
        for place in places[:-1]:
            layer.paint(place, value, refresh=False)
        layer.paint(places[-1], value)


def paint_three(layer):
    """Paint both ellipsoids of the tiny volume and the background."""
    layer.brush_size = 2
    stroke(layer, [(5, 10, x) for x in range(6, 10)], 1)
    stroke(layer, [(5, 9, x) for x in range(16, 20)], 2)
    stroke(layer, [(5, 2, x) for x in range(2, 22)], 255)


def idle(qtbot, widget):
    """Wait until nothing runs or waits to run and the result is that of a full solve."""
    control = widget.controller
    qtbot.waitUntil(lambda: control.session.is_current and not widget.runner.busy, timeout=WAIT)


def dice(result, truth, value):
    """Return the Dice coefficient of a class."""
    a, b = result == value, truth == value
    return 2 * (a & b).sum() / max(a.sum() + b.sum(), 1)


def begin(qtbot, widget):
    """Make a strokes layer, paint in it and wait for the mask; return the layer."""
    widget.view.new_strokes.click()
    layer = widget.strokes_layer
    paint_three(layer)
    idle(qtbot, widget)
    return layer


class Mouse:
    """The mouse on the canvas of a viewer that is shown."""

    def __init__(self, viewer, button=Qt.MouseButton.LeftButton, keys=NO_KEY):
        self.viewer, self.button, self.keys = viewer, button, keys
        self.canvas = viewer.window._qt_viewer.canvas

    def _send(self, kind, layer, place, button, buttons):
        world = layer.data_to_world(place)
        displayed = self.viewer.dims.displayed
        scene = self.canvas.view.transform * self.canvas.view.scene.transform
        x, y = scene.map([world[displayed[1]], world[displayed[0]]])[:2]
        native = self.canvas.native
        spot = QPointF(float(x), float(y))
        spread = QPointF(native.mapToGlobal(spot.toPoint()))
        QApplication.sendEvent(
            native,
            QMouseEvent(kind, spot, spread, button, buttons, self.keys),
        )

    @contextmanager
    def drag(self, layer, places):
        """Press at the first place and move to the others; release in the end."""
        left, none = self.button, Qt.MouseButton.NoButton
        self._send(QEvent.Type.MouseMove, layer, places[0], none, none)
        self._send(QEvent.Type.MouseButtonPress, layer, places[0], left, left)
        for place in places[1:]:
            QTest.qWait(25)  # vispy and napari drop moves that come in quick succession
            self._send(QEvent.Type.MouseMove, layer, place, none, left)
        QTest.qWait(25)
        yield
        self._send(QEvent.Type.MouseButtonRelease, layer, places[-1], left, none)
