"""Scissors on the canvas of the Segment widget."""

import threading

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_medgs.segmentation.postprocess.scissors import cut_class
from tests.plugin.strokes import WAIT, Mouse, begin, idle


@pytest.fixture
def shown(docked, qtbot, notes):
    viewer, widget = docked()
    viewer.window._qt_window.resize(1280, 800)
    viewer.window._qt_window.show()
    QApplication.processEvents()
    begin(qtbot, widget)
    viewer.dims.set_point(0, widget.strokes_layer.data_to_world((5, 0, 0))[0])
    widget.view.table.choose(1)
    widget.view.section("Edit the class").open()
    QApplication.processEvents()
    return viewer, widget


def settle(qtbot, widget):
    qtbot.waitUntil(lambda: not widget.tools.busy, timeout=WAIT)
    idle(qtbot, widget)


def ring(z=5, low=(7, 5), high=(13, 9)):
    """Return corners of a rectangle, and places along it close enough for a free line."""
    (a, b), (c, d) = low, high
    return [(z, a, b), (z, a, d), (z, c, d), (z, c, b)]


def click(mouse, layer, place, double=False):
    """Click at a place; the second press of a double click is another event."""
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    mouse._send(QEvent.Type.MouseMove, layer, place, none, none)
    mouse._send(QEvent.Type.MouseButtonPress, layer, place, left, left)
    mouse._send(QEvent.Type.MouseButtonRelease, layer, place, left, none)
    if double:
        mouse._send(QEvent.Type.MouseButtonDblClick, layer, place, left, left)
        mouse._send(QEvent.Type.MouseButtonRelease, layer, place, left, none)
    QTest.qWait(25)


def test_a_line_cuts_through_slices_and_undo_mends_it(shown, qtbot, notes):
    viewer, widget = shown
    panel, layer, result = widget.tools.panel.scissors, widget.strokes_layer, widget.result_layer
    before, strokes = result.data.copy(), layer.data.copy()
    center = tuple(viewer.camera.center)
    QTest.mouseClick(panel.button, Qt.MouseButton.LeftButton)
    assert panel.details.isVisible()
    corners = ring(low=(7.2, 5.2), high=(13.3, 8.7))
    with Mouse(viewer).drag(layer, [*corners, corners[0]]):
        assert widget.scissors.canvases[0].is_shown
    settle(qtbot, widget)
    outline = [place[1:] for place in corners]
    expected = cut_class(before, 1, outline, "cut")
    assert (expected != before).any(axis=(1, 2)).sum() > 1  # in other slices, too
    inside = np.zeros(before.shape, bool)
    inside[:, 8:13, 6:8] = True  # at least a pixel of the screen from the line
    np.testing.assert_array_equal(result.data[inside], expected[inside])
    assert (result.data != expected).mean() < 0.01
    assert not widget.scissors.canvases[0].is_shown
    # Neither painted nor panned.
    assert tuple(viewer.camera.center) == center
    assert not (layer.data[layer.data != strokes]).any()
    widget.undo()
    np.testing.assert_array_equal(result.data, before)
    np.testing.assert_array_equal(layer.data, strokes)

    # A lasso in this slice alone; corner by corner, closed by a double click.
    panel.slices.setValue(1)
    assert panel.slices.text() == "1 slice"
    panel.cut.setCurrentIndex(panel.cut.findData("fill"))
    mouse = Mouse(viewer)
    wide = ring(low=(1.2, 3.2), high=(4.3, 8.7))
    for place in wide:
        click(mouse, layer, place, double=place is wide[-1])
    settle(qtbot, widget)
    expected = cut_class(before, 1, [p[1:] for p in wide], "fill", slices=(5, 5))
    changed = np.flatnonzero((result.data != before).any(axis=(1, 2)))
    assert changed.tolist() == [5]
    assert (result.data[5] != expected[5]).sum() <= 2
    assert notes == []


@pytest.fixture
def gate(monkeypatch):
    """Let cuts wait, and count those that were begun."""
    from napari_medgs.segmentation.postprocess import scissors

    opened, begun = threading.Event(), []

    def cut(*arguments, **options):
        begun.append(arguments[2])
        assert opened.wait(30)
        return cut_class(*arguments, **options)

    monkeypatch.setattr(scissors, "cut_class", cut)
    opened.begun = begun
    return opened


def draw(viewer, layer, corners):
    with Mouse(viewer).drag(layer, [*corners, corners[0]]):
        pass


def test_lines_drawn_while_a_cut_is_computed_are_cut_after_it(shown, qtbot, notes, gate):
    viewer, widget = shown
    panel, layer, result = widget.tools.panel.scissors, widget.strokes_layer, widget.result_layer
    before = result.data.copy()
    QTest.mouseClick(panel.button, Qt.MouseButton.LeftButton)
    left, right, low = (
        ring(low=(7.2, 5.2), high=(9.3, 8.7)),
        ring(low=(7.2, 8.7), high=(13.3, 11.3)),
        ring(low=(11.2, 3.2), high=(13.3, 8.7)),
    )
    draw(viewer, layer, left)
    qtbot.waitUntil(lambda: len(gate.begun) == 1, timeout=WAIT)
    draw(viewer, layer, right)
    with Mouse(viewer).drag(layer, [*low, low[0]]):
        gate.set()  # the first cut is ready while the third line is drawn
        QTest.qWait(400)
    panel.button.setChecked(False)  # what was drawn is cut all the same
    settle(qtbot, widget)
    expected = before
    for outline in gate.begun:
        expected = cut_class(expected, 1, outline, "cut")
    assert len({np.asarray(outline).tobytes() for outline in gate.begun}) == 3
    for corners in (left, right, low):
        y, x = np.mean([place[1:] for place in corners], axis=0).round().astype(int)
        assert before[5, y, x] == 1
        assert result.data[5, y, x] == 0
    np.testing.assert_array_equal(result.data, expected)
    # Each line is a step.
    for _ in range(3):
        widget.undo()
    np.testing.assert_array_equal(result.data, before)
    assert notes == []


def test_undo_takes_back_the_newest_line_that_is_not_cut_yet(shown, qtbot, notes, gate):
    viewer, widget = shown
    panel, layer, result = widget.tools.panel.scissors, widget.strokes_layer, widget.result_layer
    before, strokes = result.data.copy(), layer.data.copy()
    panel.button.setChecked(True)
    first, second = ring(low=(7.2, 5.2), high=(9.3, 8.7)), ring(low=(10.2, 5.2), high=(13.3, 8.7))
    draw(viewer, layer, first)
    qtbot.waitUntil(lambda: len(gate.begun) == 1, timeout=WAIT)
    draw(viewer, layer, second)
    widget.view.undo.click()
    gate.set()
    settle(qtbot, widget)
    assert len(gate.begun) == 1
    np.testing.assert_array_equal(result.data, cut_class(before, 1, gate.begun[0], "cut"))
    widget.view.undo.click()
    settle(qtbot, widget)
    gate.clear()
    draw(viewer, layer, second)
    qtbot.waitUntil(lambda: len(gate.begun) == 2, timeout=WAIT)
    widget.view.undo.click()
    assert "Taken back" in widget.state.message
    draw(viewer, layer, first)
    widget.end()  # and none is cut in a session that comes after
    gate.set()
    qtbot.waitUntil(lambda: not widget.tools.busy, timeout=WAIT)
    np.testing.assert_array_equal(result.data, before)
    np.testing.assert_array_equal(layer.data, strokes)
    assert notes == []


def test_the_scissors_are_put_away_with_the_brush_by_escape_and_for_parts(shown, qtbot, notes):
    viewer, widget = shown
    panel, layer = widget.tools.panel.scissors, widget.strokes_layer
    panel.button.setChecked(True)
    assert str(layer.mode) == "pan_zoom"
    mouse = Mouse(viewer)
    before = widget.result_layer.data.copy()
    for place in ring()[:2]:
        click(mouse, layer, place)
    canvas = widget.scissors.canvases[0]
    assert canvas.corners == 2
    widget.scissors.escape()
    assert (canvas.corners, panel.button.isChecked()) == (0, True)
    click(mouse, layer, ring()[0])
    viewer.dims.set_point(0, layer.data_to_world((6, 0, 0))[0])
    assert canvas.corners == 0  # a line belongs to one slice
    assert "in which they were clicked" in widget.view.panel.status.text()
    for place in ring(6)[:2]:
        click(mouse, layer, place, double=place == ring(6)[1])
    assert "three corners or more" in widget.view.panel.status.text()
    widget.scissors.escape()
    assert not panel.button.isChecked()
    assert str(layer.mode) == "paint"
    panel.button.setChecked(True)
    widget.view.brush.set_mode("erase")
    assert not panel.button.isChecked()
    assert str(layer.mode) == "erase"
    panel.button.setChecked(True)
    widget.view.parts.button.setChecked(True)
    assert not panel.button.isChecked()
    assert str(layer.mode) == "pan_zoom"
    panel.button.setChecked(True)
    assert not widget.view.parts.button.isChecked()
    assert widget.scissors.is_on
    # What cannot be cut is said.
    widget.view.table.choose(255)
    with Mouse(viewer).drag(layer, [*ring(6), ring(6)[0]]):
        pass
    assert "background has no shape" in notes.pop()[1]
    np.testing.assert_array_equal(widget.result_layer.data, before)
    widget.end()
    assert not panel.button.isChecked()
    panel.button.click()
    assert "Press New first" in notes.pop()[1]
    assert not panel.button.isChecked()


def test_lines_cut_in_the_planes_of_four_views(shown, qtbot, notes):
    _viewer, widget = shown
    opened = []
    widget.look.four_views.opened.connect(lambda: opened.append(True))
    QTest.mouseClick(widget.look.four, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: bool(opened), timeout=WAIT)
    before = widget.result_layer.data.copy()
    widget.tools.panel.scissors.button.setChecked(True)
    assert len(widget.scissors.canvases) == 4  # the surface's as well
    canvas = widget.scissors.canvases[1]
    axis, index = canvas._places.slice
    flat = [n for a, n in enumerate(before.shape) if a != axis]
    half = np.array([(-1, -1), (-1, flat[1]), (flat[0] / 2, flat[1]), (flat[0] / 2, -1)])
    canvas.drawn.emit(half, axis, index)
    settle(qtbot, widget)
    np.testing.assert_array_equal(
        widget.result_layer.data, cut_class(before, 1, half, "cut", axis=axis)
    )
    widget.look.four.setChecked(False)
    assert widget.scissors.canvases == []
    assert notes == []


def test_a_line_in_3d_cuts_along_the_view(shown, qtbot, notes):
    viewer, widget = shown
    widget.look.show_3d.setChecked(True)
    surface = widget.surface
    qtbot.waitUntil(lambda: surface.layer is not None and not surface.runner.busy, timeout=WAIT)
    panel, result = widget.tools.panel.scissors, widget.result_layer
    QTest.mouseClick(panel.button, Qt.MouseButton.LeftButton)
    assert panel.button.isChecked()
    assert viewer.dims.ndisplay == 3
    camera = getattr(viewer, "scene", viewer).camera
    camera.angles = (20.0, 35.0, -70.0)
    before, angles = result.data.copy(), tuple(camera.angles)
    canvas = viewer.window._qt_viewer.canvas
    places = np.argwhere(before == 1)
    world = np.array([result.data_to_world(place) for place in places])
    # Napari's own way from pixels to the world: voxels lie on the lines of sight of their pixels.
    projection = widget.scissors.canvases[0]._places.projection(canvas)
    x, y, _, w = projection @ np.vstack([places.T, np.ones(len(places))])
    pixels = np.stack([x / w, y / w], axis=1)
    sight = np.asarray(camera.view_direction)
    for k in range(0, len(places), 37):
        off = world[k] - canvas._map_canvas2world(tuple(pixels[k]), canvas.view)
        np.testing.assert_allclose(np.cross(off, sight), 0, atol=0.02)

    low, high = pixels.min(axis=0) - 9, pixels.max(axis=0) + 9
    middle = float(np.median(pixels[:, 0]))
    ring = [low, (middle, low[1]), (middle, high[1]), (low[0], high[1]), low]
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    press, move = QEvent.Type.MouseButtonPress, QEvent.Type.MouseMove
    send_pixel(viewer, move, ring[0], none, none)
    send_pixel(viewer, press, ring[0], left, left)
    for spot in ring[1:]:
        QTest.qWait(25)
        send_pixel(viewer, move, spot, none, left)
    QTest.qWait(25)
    assert widget.scissors.canvases[0].is_shown
    send_pixel(viewer, QEvent.Type.MouseButtonRelease, ring[-1], left, none)
    settle(qtbot, widget)
    gone = result.data[tuple(places.T)] == 0
    sure = np.abs(pixels[:, 0] - middle) > 2
    np.testing.assert_array_equal(gone[sure], pixels[sure, 0] < middle)
    assert 0.3 < gone.mean() < 0.7
    assert (result.data == 2).sum() == (before == 2).sum()
    assert tuple(camera.angles) == angles  # not turned
    assert not widget.scissors.canvases[0].is_shown
    widget.undo()
    np.testing.assert_array_equal(result.data, before)
    # A line does not turn with the picture, and corners do not go without a word.
    for spot in ring[:2]:
        send_pixel(viewer, press, spot, left, left)
        send_pixel(viewer, QEvent.Type.MouseButtonRelease, spot, left, none)
    assert widget.scissors.canvases[0].corners == 2
    camera.zoom *= 1.2
    assert widget.scissors.canvases[0].corners == 0
    assert "belong to the view" in widget.state.message
    widget.scissors.canvases[0]._begin()
    widget.scissors.canvases[0]._show([np.array(p) for p in ring])
    camera.angles = (0.0, 0.0, 90.0)
    assert not widget.scissors.canvases[0].is_shown
    assert notes == []


def send_pixel(viewer, kind, spot, button, buttons):
    """Send a mouse event at a pixel of the canvas."""
    native = viewer.window._qt_viewer.canvas.native
    at = QPointF(float(spot[0]), float(spot[1]))
    spread = QPointF(native.mapToGlobal(at.toPoint()))
    QApplication.sendEvent(
        native, QMouseEvent(kind, at, spread, button, buttons, Qt.KeyboardModifier.NoModifier)
    )


def test_the_scissors_stay_at_hand_when_3d_is_left(shown, qtbot, notes):
    viewer, widget = shown
    layer, result = widget.strokes_layer, widget.result_layer
    before = result.data.copy()
    widget.look.show_3d.setChecked(True)
    qtbot.waitUntil(lambda: widget.surface.layer is not None, timeout=WAIT)
    panel = widget.tools.panel.scissors
    panel.button.setChecked(True)
    widget.look.show_3d.setChecked(False)
    assert viewer.dims.ndisplay == 2
    assert panel.button.isChecked()
    assert str(layer.mode) == str(result.mode) == "pan_zoom"
    corners = ring()
    with Mouse(viewer).drag(layer, [*corners, corners[0]]):
        pass
    settle(qtbot, widget)
    assert (before[:, 9:12, 6:8] == 1).any()
    assert not (result.data[:, 9:12, 6:8] == 1).any()
    # The brush puts them away, as ever.
    layer.mode = "paint"
    assert not panel.button.isChecked()
    assert notes == []
