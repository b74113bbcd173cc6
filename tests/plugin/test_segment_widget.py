"""The Segment widget in a real viewer."""

import numpy as np
import pytest
from napari.utils.colormaps import DirectLabelColormap

from napari_medgs.plugin import segment_autosave as autosave
from napari_medgs.plugin.geometry import grid_kwargs
from napari_medgs.plugin.widgets.segment import SegmentWidget

WAIT = 40_000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep sessions in a folder of the test's own."""
    place = tmp_path / "cache" / "sessions"
    monkeypatch.setattr(autosave, "folder", lambda: place)
    return place


@pytest.fixture
def docked(make_viewer, tiny_volume):
    def open_it(image=True):
        viewer = make_viewer()
        if image:
            place = grid_kwargs(tiny_volume.grid)
            metadata = place.pop("metadata")
            viewer.add_image(tiny_volume.channel(0), name="scan", metadata=metadata, **place)
        widget = SegmentWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Segment")
        return viewer, widget

    return open_it


def stroke(layer, places, value):
    """Paint as the mouse does: one event for the whole stroke."""
    layer.selected_label = value
    with layer.block_history():
        for place in places:
            layer.paint(place, value)


def paint_three(layer):
    layer.brush_size = 2
    stroke(layer, [(5, 10, x) for x in range(6, 10)], 1)
    stroke(layer, [(5, 9, x) for x in range(16, 20)], 2)
    stroke(layer, [(5, 2, x) for x in range(2, 22)], 255)


def idle(qtbot, widget):
    """Wait until nothing runs or waits to run and the result is that of a full solve."""
    control = widget.control
    qtbot.waitUntil(lambda: control.session.settled and not widget.runner.busy, timeout=WAIT)


def dice(result, truth, value):
    a, b = result == value, truth == value
    return 2 * (a & b).sum() / max(a.sum() + b.sum(), 1)


def begin(qtbot, widget):
    widget.new_strokes.click()
    layer = widget.strokes_layer
    paint_three(layer)
    idle(qtbot, widget)
    return layer


def test_strokes_become_a_mask_by_themselves(docked, qtbot, tiny_labels, notes):
    viewer, widget = docked()
    widget.new_strokes.click()
    layer = widget.strokes_layer
    assert viewer.layers.selection.active is layer
    assert layer.mode == "paint"
    assert isinstance(layer.colormap, DirectLabelColormap)
    paint_three(layer)
    idle(qtbot, widget)
    assert notes == []
    result = widget.result_layer
    assert result is not layer
    assert dice(result.data, tiny_labels, 1) > 0.8
    assert dice(result.data, tiny_labels, 2) > 0.8
    np.testing.assert_array_equal(result.data, widget.control.session.labels)
    assert [x.name for x in viewer.layers] == ["scan", "scan · segmentation", "scan · strokes"]
    assert widget.table.item(1, 2).text() != ""
    image = viewer.layers["scan"]
    np.testing.assert_array_equal(result.scale, image.scale)
    assert result.units == image.units
    volume = widget.control.volumes_ml[1]
    assert volume == pytest.approx((result.data == 1).sum() * 3 / 1000)


def test_undo_and_redo_bring_strokes_and_result_back(docked, qtbot, notes):
    _, widget = docked()
    layer = begin(qtbot, widget)
    strokes, result = layer.data.copy(), widget.result_layer.data.copy()
    stroke(layer, [(5, 10, x) for x in range(10, 14)], 2)
    idle(qtbot, widget)
    later = widget.result_layer.data.copy()
    assert (later != result).any()
    widget.undo.click()
    np.testing.assert_array_equal(layer.data, strokes)
    np.testing.assert_array_equal(widget.result_layer.data, result)
    idle(qtbot, widget)
    np.testing.assert_array_equal(widget.result_layer.data, result)
    widget.redo.click()
    np.testing.assert_array_equal(widget.result_layer.data, later)
    for _ in range(4):
        widget.undo.click()
    assert not layer.data.any()
    assert not widget.result_layer.data.any()
    assert not widget.undo.isEnabled()
    assert notes == []


def test_a_saved_session_replays_to_the_same_mask(docked, qtbot, tiny_volume, tmp_path, notes):
    from typer.testing import CliRunner

    from napari_medgs.cli.app import app
    from napari_medgs.io import read_labels, write_image

    _, widget = docked()
    layer = begin(qtbot, widget)
    widget.result_layer.brush_size = 2
    stroke(widget.result_layer, [(7, 14, 8)], 0)
    idle(qtbot, widget)
    widget.set_lock(1, True)
    stroke(layer, [(8, 9, x) for x in range(15, 19)], 2)
    log = tmp_path / "work.json"
    widget.files.save_to(log)
    qtbot.waitUntil(log.exists, timeout=WAIT)
    assert notes == []
    write_image(tmp_path / "scan.nii.gz", tiny_volume.data, tiny_volume.grid)
    out, numbers = tmp_path / "mask.nii.gz", tmp_path / "n.json"
    done = CliRunner().invoke(
        app,
        ["segment", str(tmp_path / "scan.nii.gz"), "--session", str(log), "-o", str(out),
         "--json", str(numbers), "--quiet"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert '"same_as_session": true' in numbers.read_text()
    again, _ = read_labels(out, tiny_volume.grid)
    np.testing.assert_array_equal(again, widget.result_layer.data)


def test_counts_follow_every_change(docked, qtbot):
    _, widget = docked()
    layer = begin(qtbot, widget)
    widget.result_layer.brush_size = 2
    stroke(widget.result_layer, [(7, 14, 8)], 0)
    idle(qtbot, widget)
    assert layer.data[7, 14, 8] == 255
    assert widget.result_layer.data[7, 14, 8] == 0
    for _ in range(2):
        ml = {v: (widget.result_layer.data == v).sum() * 3 / 1000 for v in (1, 2)}
        assert widget.control.volumes_ml == pytest.approx(ml)
        widget.undo.click()


def test_locked_classes_stay_and_boxes_hold(docked, qtbot, notes):
    _, widget = docked()
    layer = begin(qtbot, widget)
    before = widget.result_layer.data == 1
    widget.table.lock_asked.emit(1, True)
    assert widget.table.is_locked(1)
    stroke(layer, [(8, 10, x) for x in range(10, 14)], 2)
    idle(qtbot, widget)
    np.testing.assert_array_equal(widget.result_layer.data == 1, before)
    widget.undo.click()
    widget.undo.click()
    assert not widget.table.is_locked(1)
    assert notes == []


def test_accept_keeps_what_others_painted(docked, qtbot, notes):
    viewer, widget = docked()
    begin(qtbot, widget)
    widget.accept.click()
    final = viewer.layers["scan · accepted"]
    result = widget.result_layer.data.copy()
    np.testing.assert_array_equal(final.data, result)
    final.undo()
    assert not final.data.any()
    final.data[result == 1] = 7
    widget.accept.click()
    assert (final.data[result == 1] == 7).all()
    assert (final.data[result == 2] == 2).all()
    assert notes == []


def test_strokes_come_back_after_a_crash(docked, qtbot, notes):
    viewer, widget = docked()
    layer = begin(qtbot, widget)
    qtbot.waitUntil(lambda: widget.files.path.exists() and not widget.files._unsaved
                    and not widget.files._runner.busy, timeout=WAIT)  # fmt: skip
    strokes, result = layer.data.copy(), widget.result_layer.data.copy()
    viewer.layers.remove(layer)
    assert widget.control.session is None
    assert widget.restore_bar.isVisibleTo(widget)
    widget.restore.click()
    np.testing.assert_array_equal(widget.strokes_layer.data, strokes)
    idle(qtbot, widget)
    np.testing.assert_array_equal(widget.result_layer.data, result)
    assert widget.undo.isEnabled()
    assert notes == []


def test_keys_are_freed_on_close(docked, qtbot):
    viewer, widget = docked()
    layer = begin(qtbot, widget)
    strokes, result = layer, widget.result_layer
    assert viewer.keymap
    assert layer.keymap
    from napari.utils.key_bindings import coerce_keybinding

    layer.keymap[coerce_keybinding("Ctrl+Z")](layer)
    assert widget.redo.isEnabled()
    count = len(layer.mouse_drag_callbacks)
    widget.shut_down()
    assert not viewer.keymap
    assert not strokes.keymap
    assert not result.keymap
    assert len(layer.mouse_drag_callbacks) == count - 1
    assert autosave.find(autosave.fingerprint(widget.volume))


def test_refusals_are_sentences(docked, qtbot, notes, tiny_labels):
    viewer, widget = docked(image=False)
    widget.new_strokes.click()
    assert "image" in notes.pop()[1]
    image = viewer.add_image(tiny_labels.astype(np.float32), name="plain")
    other = viewer.add_labels(np.zeros((3, 4, 5), np.uint8), name="other")
    widget.strokes.choose(other)
    assert "differ in shape" in notes.pop()[1]
    assert widget.control.session is None
    widget.new_strokes.click()
    stroke(widget.strokes_layer, [(5, 10, 8)], 1)
    qtbot.waitUntil(lambda: widget.control.model is not None and not widget.runner.busy,
                    timeout=WAIT)  # fmt: skip
    assert "two" in widget.panel.status.text()
    assert notes == []
    widget.panel.button.click()
    qtbot.waitUntil(lambda: bool(notes), timeout=WAIT)
    assert "two" in notes.pop()[1]
    assert image in viewer.layers


def test_two_dimensions_and_points(docked, qtbot, notes, tiny_volume):
    viewer, widget = docked(image=False)
    viewer.add_image(tiny_volume.channel(0)[5], name="flat")
    widget.new_strokes.click()
    layer = widget.strokes_layer
    layer.brush_size = 2
    stroke(layer, [(10, x) for x in range(6, 10)], 1)
    stroke(layer, [(2, x) for x in range(2, 22)], 255)
    idle(qtbot, widget)
    assert (widget.result_layer.data == 1).sum() > 20
    widget.table.choose(2)
    points = widget.tools.make_marks("points")
    points.add([9.0, 18.0])
    assert widget.control.session.settings.points[0].label == 2
    idle(qtbot, widget)
    assert (widget.result_layer.data == 2).sum() > 10
    widget.undo.click()
    assert len(points.data) == 0
    assert not (widget.result_layer.data == 2).any()
    assert notes == []


def test_suggested_slice_is_shown_and_the_result_layer_comes_back(docked, qtbot, notes):
    viewer, widget = docked()
    layer = begin(qtbot, widget)
    result = widget.result_layer.data.copy()
    viewer.dims.set_current_step(0, 2)
    found = []
    widget.control.suggested.connect(found.append)
    widget.suggest.click()
    qtbot.waitUntil(lambda: widget.tools.marker is not None, timeout=WAIT)
    assert found[0].axis == 0
    assert viewer.dims.current_step[0] == found[0].index
    assert viewer.layers.selection.active is layer
    viewer.layers.remove(widget.result_layer)
    qtbot.waitUntil(lambda: widget.result_layer in viewer.layers, timeout=WAIT)
    np.testing.assert_array_equal(widget.result_layer.data, result)
    assert notes == []


def test_a_newer_stroke_stops_the_older_solve(docked, qtbot, notes):
    _, widget = docked()
    layer = begin(qtbot, widget)
    shown = []
    widget.control.shown.connect(lambda kind: shown.append((kind, widget.control.revision)))
    for x in range(10, 15):
        stroke(layer, [(5, 12, x)], 1)
    idle(qtbot, widget)
    last = widget.control.revision
    assert all(revision == last for kind, revision in shown if kind in ("quick", "full"))
    assert (widget.result_layer.data[5, 12, 10:15] == 1).all()
    assert notes == []


def test_progress_of_the_fit_is_shown(docked, qtbot, notes):
    viewer, widget = docked()
    viewer.show()
    widget.new_strokes.click()
    texts = set()

    def ready():
        texts.add(widget.panel.status.text())
        return widget.control.model is not None

    qtbot.waitUntil(ready, timeout=WAIT)
    assert notes == []
    assert any("Fitting" in text or "Preparing" in text for text in texts)


def test_maps_are_layers_and_no_new_image(docked, qtbot, notes):
    viewer, widget = docked()
    layer = begin(qtbot, widget)
    widget.uncertainty.setChecked(True)
    widget.probability.setChecked(True)
    qtbot.waitUntil(lambda: len(widget.tools.maps) == 2, timeout=WAIT)
    viewer.add_image(np.ones(layer.data.shape), name="another")
    assert widget.strokes_layer is layer
    assert [x.name for x in widget.images.layers] == ["scan"]
    assert widget.tools.maps["uncertainty"].data.min() >= 0
    assert widget.tools.maps["probability"].data.max() > 0.9
    assert viewer.layers.selection.active is not None
    assert notes == []
