"""Sessions of the Segment widget: saved, opened, restored, replayed."""

from threading import Event

import numpy as np

from napari_medgs.segmentation import api
from tests.plugin.strokes import WAIT, begin, idle, paint_three, stroke


def test_a_saved_session_replays_to_the_same_mask(docked, qtbot, tiny_volume, tmp_path, notes):
    from typer.testing import CliRunner

    from napari_medgs.cli.app import app
    from napari_medgs.io import read_labels, write_image

    _, widget = docked()
    layer = begin(qtbot, widget)
    widget.result_layer.brush_size = 2
    stroke(widget.result_layer, [(7, 14, 8)], 0)
    idle(qtbot, widget)
    widget.classes.set_lock(1, True)
    stroke(layer, [(8, 9, x) for x in range(15, 19)], 2)
    log = tmp_path / "work.json"
    widget.files.save(log)
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


def test_strokes_come_back_after_a_crash(docked, qtbot, notes):
    viewer, widget = docked()
    layer = begin(qtbot, widget)
    qtbot.waitUntil(lambda: widget.files.is_saved, timeout=WAIT)
    strokes, result = layer.data.copy(), widget.result_layer.data.copy()
    viewer.layers.remove(layer)
    assert widget.controller.session is None
    assert widget.view.restore_bar.isVisibleTo(widget)
    viewer.dims.set_current_step(0, 1)
    widget.view.restore.click()
    assert viewer.dims.current_step[0] == 5  # where the strokes are
    np.testing.assert_array_equal(widget.strokes_layer.data, strokes)
    idle(qtbot, widget)
    np.testing.assert_array_equal(widget.result_layer.data, result)
    assert widget.view.undo.isEnabled()
    assert notes == []


def saved(qtbot, widget, path):
    """Save the session and wait for the file."""
    widget.files.save(path)
    qtbot.waitUntil(path.exists, timeout=WAIT)


def test_a_saved_session_is_opened_in_another_viewer(docked, qtbot, tmp_path, notes, monkeypatch):
    viewer, widget = docked()
    layer = begin(qtbot, widget)
    widget.view.table.item(1, 1).setText("egg")
    points = widget.prompt_layers.make("points")
    widget.view.table.choose(1)
    points.add([7.0, 12.0, 8.0])
    idle(qtbot, widget)
    widget.classes.set_lock(2, True)
    log = tmp_path / "work.json"
    saved(qtbot, widget, log)
    strokes, result = layer.data.copy(), widget.result_layer.data.copy()
    viewer.close()

    _, second = docked()
    monkeypatch.setattr(second.view, "ask_file", lambda save: str(log))
    second.view.load.click()
    assert notes == []
    np.testing.assert_array_equal(second.strokes_layer.data, strokes)
    assert second.view.table.name(1) == "egg"
    assert second.view.table.is_locked(2)
    np.testing.assert_array_equal(second.prompt_layers.points.data, [[7.0, 12.0, 8.0]])
    idle(qtbot, second)
    np.testing.assert_array_equal(second.result_layer.data, result)
    second.view.undo.click()
    assert not second.view.table.is_locked(2)
    second.view.undo.click()
    assert len(second.prompt_layers.points.data) == 0
    assert notes == []


def test_files_that_are_no_session_of_the_image_are_refused(
    docked, qtbot, tmp_path, notes, monkeypatch, rng
):
    viewer, widget = docked()
    begin(qtbot, widget)
    log, text = tmp_path / "work.json", tmp_path / "text.json"
    saved(qtbot, widget, log)
    text.write_text("{}")
    session = widget.controller.session
    monkeypatch.setattr(widget.view, "ask_file", lambda save: str(text))
    widget.view.load.click()
    assert "text.json" in notes[0][1]
    assert widget.controller.session is session  # work goes on
    notes.clear()

    other = viewer.add_image(rng.normal(size=(6, 8, 9)).astype(np.float32), name="other")
    widget.view.images.check([other])
    assert widget.view.images.layers == [other]
    notes.clear()
    count = len(viewer.layers)
    monkeypatch.setattr(widget.view, "ask_file", lambda save: str(log))
    widget.view.load.click()
    assert len(notes) == 1
    assert "image" in notes[0][1]
    assert widget.controller.session is None
    assert len(viewer.layers) == count


def test_the_first_fit_is_cancelled(docked, qtbot, notes, monkeypatch):
    _, widget = docked()
    clicked, fit = Event(), api.fit_for_segmentation

    def fit_and_wait(*args, progress, **options):
        def report(event):
            progress(event)
            if event.stage == "fit":
                clicked.wait(WAIT / 1000)  # this fit would be done before the click

        return fit(*args, progress=report, **options)

    monkeypatch.setattr(api, "fit_for_segmentation", fit_and_wait)
    widget.view.new_strokes.click()
    paint_three(widget.strokes_layer)
    assert widget.view.panel.cancel.isEnabled()
    widget.view.panel.cancel.click()
    clicked.set()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert not widget.controller.segmenter.is_prepared
    assert "Canceled" in widget.view.panel.status.text()
    assert widget.view.undo.isEnabled()
    assert not widget.result_layer.data.any()
    stroke(widget.strokes_layer, [(5, 11, 8)], 1)
    assert not widget.runner.busy
    widget.view.panel.button.click()
    idle(qtbot, widget)
    assert widget.result_layer.data[5, 11, 8] == 1
    assert (widget.result_layer.data == 2).any()
    assert notes == []
