"""Strokes by the mouse, keys and what is refused in the Segment widget."""

import numpy as np
from qtpy.QtCore import Qt

from napari_medgs.plugin.image_digest import fingerprint
from napari_medgs.plugin.segment import autosave
from napari_medgs.plugin.segment.jobs import FindEdits
from napari_medgs.plugin.segment.model import JobKind
from tests.plugin.strokes import WAIT, Mouse, begin, idle, stroke


def test_keys_are_freed_on_close(docked, qtbot):
    viewer, widget = docked()
    layer = begin(qtbot, widget)
    strokes, result = layer, widget.result_layer
    from napari.components import ViewerModel
    from napari.utils.key_bindings import coerce_keybinding

    update = coerce_keybinding("U")  # a key with a name, which napari's preferences list
    assert update in ViewerModel.class_keymap
    assert layer.keymap
    layer.keymap[coerce_keybinding("Ctrl+Z")](layer)
    assert widget.view.redo.isEnabled()
    count = len(layer.mouse_drag_callbacks)
    updates = []
    widget.update_now = lambda: updates.append(1)
    widget.shut_down()
    assert not viewer.keymap
    if update in ViewerModel.class_keymap:  # for another viewer that is still open
        ViewerModel.class_keymap[update](viewer)
    assert not updates
    assert not strokes.keymap
    assert not result.keymap
    assert len(layer.mouse_drag_callbacks) == count - 1
    assert autosave.find(fingerprint(widget.context.volume))


def test_a_newer_stroke_stops_the_older_solve(docked, qtbot, notes):
    _, widget = docked()
    layer = begin(qtbot, widget)
    shown = []
    widget.controller.shown.connect(lambda kind: shown.append((kind, widget.controller.revision)))
    for x in range(10, 15):
        stroke(layer, [(5, 12, x)], 1)
    idle(qtbot, widget)
    last = widget.controller.revision
    assert all(revision == last for kind, revision in shown if kind in ("incremental", "full"))
    assert (widget.result_layer.data[5, 12, 10:15] == 1).all()
    assert notes == []


def test_refusals_are_sentences(docked, qtbot, notes, tiny_labels):
    viewer, widget = docked(image=False)
    widget.view.new_strokes.click()
    assert "image" in notes.pop()[1]
    image = viewer.add_image(tiny_labels.astype(np.float32), name="plain")
    other = viewer.add_labels(np.zeros((3, 4, 5), np.uint8), name="other")
    widget.view.strokes.choose(other)
    assert "differ in shape" in notes.pop()[1]
    assert widget.controller.session is None
    widget.view.new_strokes.click()
    stroke(widget.strokes_layer, [(5, 2, 8)], 255)  # no class to infer a mask from
    qtbot.waitUntil(lambda: widget.controller.segmenter.is_prepared and not widget.runner.busy,
                    timeout=WAIT)  # fmt: skip
    assert "two" in widget.view.panel.status.text()
    assert notes == []
    widget.view.panel.button.click()
    qtbot.waitUntil(lambda: bool(notes), timeout=WAIT)
    assert "two" in notes.pop()[1]
    assert image in viewer.layers


def test_strokes_of_the_mouse(docked, qtbot, notes):
    viewer, widget = docked()
    viewer.show()
    viewer.dims.set_current_step(0, 5)
    begin(qtbot, widget)
    viewer.reset_view()
    layer, session = widget.strokes_layer, widget.controller.session
    strokes, result = layer.data.copy(), widget.result_layer.data.copy()
    steps = len(session.history.done)
    widget.view.table.choose(2)
    layer.brush_size = 1
    mouse = Mouse(viewer)
    places = [(5, 10, x) for x in (9, 10, 11, 12)]
    # Something is being solved while the next stroke begins.
    widget.controller.request(JobKind.FULL)
    with mouse.drag(layer, places):
        assert widget.controller.painting
        assert (layer.data[5, 10, 9:13] == 2).all()
        qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
        np.testing.assert_array_equal(widget.result_layer.data, result)
        widget.view.undo.click()
        assert (layer.data[5, 10, 9:13] == 2).all()
        assert len(session.history.done) == steps
    assert not widget.controller.painting
    assert len(session.history.done) == steps + 1
    changed = np.argwhere(layer.data != strokes)
    assert {tuple(p) for p in changed.tolist()} == set(places)
    idle(qtbot, widget)
    assert (widget.result_layer.data[5, 10, 9:13] == 2).all()
    widget.view.undo.click()
    np.testing.assert_array_equal(layer.data, strokes)
    np.testing.assert_array_equal(widget.result_layer.data, result)
    assert notes == []


def test_a_stroke_that_changes_nothing_holds_nothing_up(docked, qtbot, notes):
    viewer, widget = docked()
    viewer.show()
    viewer.dims.set_current_step(0, 5)
    layer = begin(qtbot, widget)
    viewer.reset_view()
    steps = len(widget.controller.session.history.done)
    widget.view.table.choose(1)
    layer.brush_size = 1
    stroke(layer, [(5, 13, 8)], 1)
    with Mouse(viewer).drag(layer, [(5, 10, 7), (5, 10, 8)]):
        assert widget.controller.painting
        qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    idle(qtbot, widget)
    assert len(widget.controller.session.history.done) == steps + 1
    assert widget.result_layer.data[5, 13, 8] == 1
    assert notes == []


def test_corrections_of_the_mouse_on_the_result(docked, qtbot, notes):
    viewer, widget = docked()
    viewer.show()
    viewer.dims.set_current_step(0, 5)
    layer = begin(qtbot, widget)
    viewer.reset_view()
    result = widget.result_layer
    before = result.data.copy(), layer.data.copy()
    viewer.layers.selection.active = result
    result.mode = "paint"
    result.brush_size = 1
    widget.view.table.choose(1)
    places = [(5, 9, x) for x in (14, 15)]
    with Mouse(viewer).drag(result, places):
        pass
    assert (layer.data[5, 9, 14:16] == 1).all()
    idle(qtbot, widget)
    assert (result.data[5, 9, 14:16] == 1).all()
    widget.view.undo.click()
    np.testing.assert_array_equal(result.data, before[0])
    np.testing.assert_array_equal(layer.data, before[1])
    assert notes == []


def test_keys_on_the_canvas(docked, qtbot, notes):
    viewer, widget = docked()
    viewer.show()
    layer = begin(qtbot, widget)
    canvas = viewer.window._qt_viewer.canvas.native
    widget.view.table.choose(1)
    qtbot.keyClick(canvas, Qt.Key.Key_Period)
    assert widget.view.table.value == 2
    assert layer.selected_label == 2
    qtbot.keyClick(canvas, Qt.Key.Key_Comma)
    assert widget.view.table.value == 1
    qtbot.keyClick(canvas, Qt.Key.Key_K)
    assert widget.view.table.is_locked(1)
    idle(qtbot, widget)
    painted = layer.data.copy()
    ctrl = Qt.KeyboardModifier.ControlModifier
    qtbot.keyClick(canvas, Qt.Key.Key_Z, ctrl)
    assert not widget.view.table.is_locked(1)
    qtbot.keyClick(canvas, Qt.Key.Key_Z, ctrl)
    assert (layer.data != painted).any()
    qtbot.keyClick(canvas, Qt.Key.Key_Z, ctrl | Qt.KeyboardModifier.ShiftModifier)
    np.testing.assert_array_equal(layer.data, painted)
    assert notes == []


def test_keys_of_others_come_back(make_viewer):
    from napari_medgs.plugin.widgets.shortcuts import Shortcuts

    viewer = make_viewer()
    pressed = []
    viewer.bind_key("N", lambda _: pressed.append("theirs"), overwrite=True)
    before = dict(viewer.keymap)
    keys = Shortcuts()
    keys.bind(viewer, "N", lambda: pressed.append("ours"))
    keys.bind(viewer, "K", lambda: pressed.append("lock"))
    for code in list(viewer.keymap):
        viewer.keymap[code](viewer)
    assert sorted(pressed) == ["lock", "ours"]
    keys.free()
    assert dict(viewer.keymap) == before


def test_another_image_in_the_place_of_one_that_is_being_fitted(docked, qtbot, notes, blob):
    viewer, widget = docked()
    widget.view.new_strokes.click()
    old = widget.strokes_layer
    assert widget.runner.busy
    viewer.layers.remove("scan")
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert widget.controller.session is None
    assert widget.view.strokes.layer is None
    assert widget.view.panel.status.text().startswith("Open an image")
    viewer.add_image(blob, name="blob", units="mm")
    widget.view.new_strokes.click()
    assert widget.strokes_layer is viewer.layers["blob · strokes"]
    assert old in viewer.layers
    assert notes == []


def test_moving_through_slices_is_no_edit(docked, qtbot):
    viewer, widget = docked()
    viewer.show()
    layer = begin(qtbot, widget)
    qtbot.waitUntil(lambda: not widget.watcher.may_have_edits, timeout=WAIT)
    for index in (1, 2, 3):
        viewer.dims.set_current_step(0, index)
        assert not widget.watcher.may_have_edits
    viewer.dims.order = (1, 0, 2)
    assert not widget.watcher.may_have_edits
    layer.refresh()
    assert widget.watcher.may_have_edits


def test_edits_without_a_paint_event_become_a_step(docked, qtbot, notes):
    viewer, widget = docked()
    viewer.show()
    layer = begin(qtbot, widget)
    steps = len(widget.controller.session.history.done)
    layer.data[8, 9, 15:19] = 2
    layer.refresh()
    qtbot.waitUntil(lambda: len(widget.controller.session.history.done) == steps + 1, timeout=WAIT)
    idle(qtbot, widget)
    assert (widget.result_layer.data[8, 9, 15:19] == 2).all()
    layer.data = np.where(layer.data == 2, 0, layer.data)
    qtbot.waitUntil(lambda: len(widget.controller.session.history.done) == steps + 2, timeout=WAIT)
    assert not (widget.controller.session.strokes == 2).any()
    assert notes == []


def test_edits_are_found_by_their_bounding_box(rng):
    known = rng.integers(0, 4, (6, 7, 8))
    shown = known.copy()
    assert FindEdits(shown, known)(lambda event: None, lambda: False) is None
    shown[2, 3, 4] += 1
    shown[4, 1, 6] += 1
    box = FindEdits(shown, known)(lambda event: None, lambda: False)
    assert box == (slice(2, 5), slice(1, 4), slice(4, 7))
    assert FindEdits(shown, known)(lambda event: None, lambda: True) is None
