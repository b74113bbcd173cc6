"""Sessions of the Segment widget: saved, opened, restored, replayed."""

from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QObject
from qtpy.QtGui import QCloseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_medgs.errors import ParameterError
from napari_medgs.plugin.deferred import call_later
from napari_medgs.plugin.layer_frame import geometry_kwargs, grid_kwargs
from napari_medgs.plugin.segment import autosave
from napari_medgs.plugin.segment.session_images import images_of
from napari_medgs.segmentation import api, load_session
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


def test_undo_after_a_restart_keeps_a_mask_on_show(docked, qtbot, notes):
    viewer, widget = docked()
    layer = begin(qtbot, widget)
    before = widget.result_layer.data.copy()
    stroke(layer, [(5, 12, x) for x in range(6, 12)], 2)
    idle(qtbot, widget)
    after = widget.result_layer.data.copy()
    qtbot.waitUntil(lambda: widget.files.is_saved, timeout=WAIT)
    for made in (layer, widget.result_layer):
        viewer.layers.remove(made)
    widget.view.restore.click()
    idle(qtbot, widget)
    np.testing.assert_array_equal(widget.result_layer.data, after)
    widget.rest_timer.setInterval(WAIT)  # the right mask is not waited for
    widget.view.undo.click()
    np.testing.assert_array_equal(widget.result_layer.data, after)
    idle(qtbot, widget)
    np.testing.assert_array_equal(widget.result_layer.data, before)
    widget.view.redo.click()
    np.testing.assert_array_equal(widget.result_layer.data, after)
    widget.view.undo.click()
    np.testing.assert_array_equal(widget.result_layer.data, before)
    assert notes == []


def test_new_hides_the_session_before_and_its_strokes_bring_it_back(docked, qtbot, notes):
    viewer, widget = docked()
    first = begin(qtbot, widget)
    widget.view.uncertainty.click()
    qtbot.waitUntil(lambda: "scan · uncertainty" in viewer.layers, timeout=WAIT)
    points = widget.prompt_layers.make("points")
    points.add([7.0, 12.0, 8.0])
    idle(qtbot, widget)
    mine = [x for x in viewer.layers if x.name != "scan"]
    strokes, mask = first.data.copy(), widget.result_layer.data.copy()
    result = widget.result_layer
    widget.view.new_strokes.click()
    assert widget.strokes_layer is not first
    assert not any(layer.visible for layer in mine)
    np.testing.assert_array_equal(first.data, strokes)
    np.testing.assert_array_equal(result.data, mask)
    paint_three(widget.strokes_layer)
    idle(qtbot, widget)
    np.testing.assert_array_equal(result.data, mask)
    second = widget.strokes_layer, widget.result_layer
    # To choose its strokes is to go on with it: mask, points and history are those of then.
    widget.view.strokes.choose(first)
    assert widget.strokes_layer is first
    assert widget.result_layer is result
    assert not any(layer.visible for layer in second)
    np.testing.assert_array_equal(result.data, mask)  # before the first solve
    idle(qtbot, widget)
    np.testing.assert_array_equal(result.data, mask)
    qtbot.waitUntil(lambda: all(layer.visible for layer in mine), timeout=WAIT)
    widget.view.undo.click()
    assert len(widget.prompt_layers.points.data) == 0
    assert widget.prompt_layers.points is points
    # The image itself, and masks of other origin, are never hidden.
    truth = viewer.add_labels(mask.copy(), name="truth", **geometry_kwargs(first))
    widget.view.new_strokes.click()
    assert truth.visible
    assert viewer.layers["scan"].visible
    assert notes == []


def test_a_session_in_a_layer_of_the_users_goes_on_when_the_dock_is_reopened(docked, qtbot, notes):
    from napari_medgs.plugin.segment.widget import SegmentWidget

    viewer, widget = docked()
    scan = viewer.layers["scan"]
    own = viewer.add_labels(np.zeros(scan.data.shape, int), name="mine", **geometry_kwargs(scan))
    own.mode = "paint"
    widget.view.strokes.choose(own)
    paint_three(own)
    idle(qtbot, widget)
    names, mask = [x.name for x in viewer.layers], widget.result_layer.data.copy()
    viewer.window.remove_dock_widget(widget)
    again = SegmentWidget(viewer)
    viewer.window.add_dock_widget(again)
    assert again.strokes_layer is own
    assert again.view.undo.isEnabled()
    np.testing.assert_array_equal(again.result_layer.data, mask)  # before the first solve
    assert [x.name for x in viewer.layers] == names
    idle(qtbot, again)
    np.testing.assert_array_equal(again.result_layer.data, mask)
    # What was painted while no widget was open is kept: the saved session gets a layer of its own.
    viewer.window.remove_dock_widget(again)
    stroke(own, [(3, 9, x) for x in range(15, 19)], 2)
    painted = own.data.copy()
    third = SegmentWidget(viewer)
    viewer.window.add_dock_widget(third)
    assert third.controller.session is None
    third.view.restore.click()
    assert third.strokes_layer is not own
    np.testing.assert_array_equal(own.data, painted)
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
    monkeypatch.setattr(second.view, "ask_file", lambda save, start="": str(log))
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


def test_a_session_of_two_images_takes_both_in_its_order(
    docked, qtbot, tmp_path, notes, tiny_volume
):
    def image(viewer, name):
        data = tiny_volume.channel(0) if name == "t1" else 300 - tiny_volume.channel(0)
        return viewer.add_image(data, name=name)

    viewer, widget = docked(image=False)
    widget.view.images.check([image(viewer, "t1"), image(viewer, "t2")])
    begin(qtbot, widget)
    result, log = widget.result_layer.data.copy(), tmp_path / "work.json"
    saved(qtbot, widget, log)
    viewer.close()

    viewer, second = docked(image=False)
    t2 = image(viewer, "t2")
    with pytest.raises(ParameterError, match=r"one of 2 images.*t1"):
        second.files.open(log)
    assert second.controller.session is None
    t1 = image(viewer, "t1")
    assert second.view.images.layers == [t1]
    second.files.open(log)
    assert second.view.images.layers == [t1, t2]
    idle(qtbot, second)
    np.testing.assert_array_equal(second.result_layer.data, result)
    assert notes == []


def test_points_and_locks_count_with_other_contrasts_too(docked, qtbot, notes, tiny_volume):
    viewer, widget = docked(image=False)
    t1 = viewer.add_image(tiny_volume.channel(0), name="t1")
    t2 = viewer.add_image(300 - tiny_volume.channel(0), name="t2")
    widget.view.images.check([t1, t2])
    strokes = begin(qtbot, widget)
    widget.prompt_layers.make("points").add([2.0, 14.0, 4.0])
    idle(qtbot, widget)
    widget.classes.set_lock(1, True)
    idle(qtbot, widget)
    for chosen in ([t1], [t1, t2]):
        widget.view.images.check(chosen)
        idle(qtbot, widget)
        session = widget.controller.session
        assert len(session.settings.points) == 1
        assert session.settings.locked == {1}
        assert session.images == tuple(layer.name for layer in chosen)
        assert widget.strokes_layer is strokes
        np.testing.assert_array_equal(session.strokes, strokes.data)
        assert len(widget.controller.segmenter.volume.data) == len(chosen)
    assert len(widget.prompt_layers.points.data) == 1
    assert notes == []


def test_a_session_of_an_image_with_other_values_is_told(
    docked, qtbot, tmp_path, notes, tiny_volume
):
    viewer, widget = docked()
    begin(qtbot, widget)
    log = tmp_path / "work.json"
    saved(qtbot, widget, log)
    viewer.close()
    viewer, second = docked(image=False)
    place = grid_kwargs(tiny_volume.grid)
    noise = np.random.default_rng(0).normal(size=tiny_volume.shape).astype(np.float32)
    viewer.add_image(noise, name="scan", **place)
    second.files.open(log)
    idle(qtbot, second)
    qtbot.waitUntil(lambda: bool(notes), timeout=WAIT)
    assert [severity for severity, _ in notes] == ["warning"]
    assert "differs from the one that was saved" in notes[0][1]


def test_images_of_a_session_are_known_by_file_and_by_name():
    def layer(name, path=None):
        return SimpleNamespace(name=name, source=SimpleNamespace(path=path))

    t1, moved, plain = layer("a", "/data/t1.nii"), layer("b", "/new/t2.nii"), layer("c")
    layers = [plain, moved, t1]
    assert images_of(["/data/t1.nii", "/data/t2.nii", "c"], layers) == ([t1, moved, plain], [])
    assert images_of(["c", "/data/flair.nii"], layers) == ([plain], ["/data/flair.nii"])
    both = [layer("0", "/data/4d.nii"), layer("1", "/data/4d.nii")]
    assert images_of(["/data/4d.nii"] * 2, both) == (both, [])


def test_files_that_are_no_session_of_the_image_are_refused(
    docked, qtbot, tmp_path, notes, monkeypatch, rng
):
    viewer, widget = docked()
    begin(qtbot, widget)
    log, text = tmp_path / "work.json", tmp_path / "text.json"
    saved(qtbot, widget, log)
    text.write_text("{}")
    session = widget.controller.session
    monkeypatch.setattr(widget.view, "ask_file", lambda save, start="": str(text))
    widget.view.load.click()
    assert "text.json" in notes[0][1]
    assert widget.controller.session is session  # work goes on
    notes.clear()

    other = viewer.add_image(rng.normal(size=(6, 8, 9)).astype(np.float32), name="other")
    widget.view.images.check([other])
    assert widget.view.images.layers == [other]
    notes.clear()
    count = len(viewer.layers)
    monkeypatch.setattr(widget.view, "ask_file", lambda save, start="": str(log))
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


def test_accepted_classes_survive_a_crash(docked, qtbot, notes):
    from napari_medgs.plugin.segment.widget import SegmentWidget

    viewer, widget = docked()
    begin(qtbot, widget)
    widget.view.table.names[1] = "liver"
    widget.view.accept.click()
    accepted = viewer.layers["scan · accepted"]
    edited = accepted.data.copy()
    assert edited.any()
    # What the user paints there afterwards, and takes back, counts too.
    accepted.brush_size = 1
    stroke(accepted, [(0, 0, 0), (0, 0, 1)], 2)
    edited[0, 0, 0] = edited[0, 0, 1] = 2
    qtbot.waitUntil(lambda: widget.files.is_saved, timeout=WAIT)
    path = widget.files.path
    # A killed process leaves its file, and nothing else.
    widget.files.path = None
    autosave.release(path)
    widget.shut_down()
    viewer.window.remove_dock_widget(widget)
    viewer.layers.remove(accepted)
    for layer in list(viewer.layers)[1:]:
        viewer.layers.remove(layer)
    again = SegmentWidget(viewer)
    viewer.window.add_dock_widget(again)
    assert [layer.name for layer in viewer.layers] == ["scan"]
    again.view.restore.click()
    back = viewer.layers["scan · accepted"]
    np.testing.assert_array_equal(back.data, edited)
    assert back.metadata["medgs_label_names"][1] == "liver"
    assert again.view.target.layer is back or back in again.view.target._layers
    assert notes == []


def test_reopening_the_dock_goes_on_in_the_same_layers(docked, qtbot, notes):
    from napari_medgs.plugin.segment.widget import SegmentWidget

    viewer, widget = docked()
    begin(qtbot, widget)
    widget.view.table.choose(1)
    boxes = widget.prompt_layers.make("boxes")
    rectangle = np.array([[4, 5, 3], [4, 15, 3], [4, 15, 12], [4, 5, 12]], float)
    boxes.add_rectangles([rectangle])  # in one slice: through all of them
    idle(qtbot, widget)
    viewer.dims.set_point(0, boxes.data_to_world((5, 0, 0))[0])
    names, mask = [x.name for x in viewer.layers], widget.result_layer.data.copy()
    viewer.window.remove_dock_widget(widget)
    again = SegmentWidget(viewer)
    viewer.window.add_dock_widget(again)
    assert [x.name for x in viewer.layers] == names
    assert again.strokes_layer is viewer.layers["scan · strokes"]
    assert again.result_layer is viewer.layers["scan · segmentation"]
    assert again.view.undo.isEnabled()
    assert again.prompt_layers.boxes is boxes  # no second one, and the box where it is seen
    np.testing.assert_array_equal(boxes.data[0][:, 0], 5)
    assert viewer.layers.selection.active is again.strokes_layer
    idle(qtbot, again)
    np.testing.assert_array_equal(again.result_layer.data, mask)
    again.view.undo.click()
    assert boxes.nshapes == 0
    viewer.dims.set_point(0, boxes.data_to_world((7, 0, 0))[0])
    again.view.redo.click()
    np.testing.assert_array_equal(boxes.data[0][:, 0], 7)
    assert again.controller.session.settings.boxes[0].stop[0] == mask.shape[0]
    assert notes == []


def test_the_gaussians_of_a_segmentation_can_be_exported(docked, qtbot, tmp_path, notes):
    from napari_medgs.io.fields import load_field
    from napari_medgs.plugin.export.widget import ExportWidget

    viewer, widget = docked()
    export = ExportWidget(viewer)
    qtbot.addWidget(export)
    export.kind.setCurrentIndex(export.kind.findData("field"))
    assert export.layer.layer is None
    assert not export.panel.button.isEnabled()
    begin(qtbot, widget)
    assert export.layer.layer is widget.result_layer
    assert export.panel.button.isEnabled()
    export.save(tmp_path / "gaussians")
    qtbot.waitUntil(lambda: not export.runner.busy, timeout=WAIT)
    back = load_field(export.saved)
    np.testing.assert_array_equal(back.centers, widget.controller.field.centers)
    assert [severity for severity, _ in notes] == ["info"]
    export.shut_down()


def test_strokes_are_never_exported(docked, qtbot):
    from napari_medgs.plugin.export.widget import ExportWidget

    viewer, widget = docked()
    export = ExportWidget(viewer)
    qtbot.addWidget(export)

    def offered():
        return [export.layer.itemText(k) for k in range(export.layer.count())]

    widget.view.new_strokes.click()
    for kind in ("mesh", "mask"):
        export.kind.setCurrentIndex(export.kind.findData(kind))
        assert offered() == ["scan · segmentation"]
    paint_three(widget.strokes_layer)
    idle(qtbot, widget)
    widget.view.accept.click()
    assert offered() == ["scan · accepted", "scan · segmentation"]
    assert export.layer.layer is viewer.layers["scan · accepted"]
    # Nor a layer of the user's own, while it is painted in.
    place = geometry_kwargs(widget.strokes_layer)
    own = viewer.add_labels(np.zeros_like(widget.strokes_layer.data), name="mine", **place)
    assert "mine" in offered()
    widget.view.strokes.choose(own)
    assert widget.strokes_layer is own
    assert "mine" not in offered()
    widget.end()
    assert "mine" in offered()
    export.shut_down()


def test_an_image_with_nan_is_segmented_and_its_session_found_again(docked, qtbot, notes):
    from napari_medgs.plugin.segment.widget import SegmentWidget

    viewer, widget = docked()
    viewer.layers["scan"].data = viewer.layers["scan"].data.astype(np.float32)
    viewer.layers["scan"].data[:, :1] = np.nan
    begin(qtbot, widget)
    texts = [text for severity, text in notes if severity == "warning"]
    assert len(texts) == 1
    assert "NaN in" in texts[0]
    qtbot.waitUntil(lambda: widget.files.is_saved, timeout=WAIT)
    path, widget.files.path = widget.files.path, None
    autosave.release(path)
    widget.shut_down()
    viewer.window.remove_dock_widget(widget)
    for layer in list(viewer.layers)[1:]:
        viewer.layers.remove(layer)
    again = SegmentWidget(viewer)
    viewer.window.add_dock_widget(again, name="Segment")
    assert again.files.found is not None
    assert again.files.found.path == path


class ClosedByHand(QCloseEvent):
    """What the window's own button sends."""

    def spontaneous(self):
        return True


def close_by_hand(window):
    """Close a window, if it accepts, as the system does: it is hidden then."""
    event = ClosedByHand()
    QApplication.sendEvent(window, event)
    if event.isAccepted():
        window.hide()


def test_closing_the_window_saves_the_last_stroke(docked, qtbot, notes, monkeypatch):
    from napari._qt import qt_main_window
    from napari.settings import get_settings

    answers = [qt_main_window.QDialog.Rejected, qt_main_window.QDialog.Accepted]
    dialog = SimpleNamespace(exec_=lambda: answers.pop(0))
    monkeypatch.setattr(qt_main_window, "ConfirmCloseDialog", lambda *args, **kwargs: dialog)
    monkeypatch.setattr(get_settings().application, "confirm_close_window", True)
    viewer, widget = docked()
    window = viewer.window._qt_window
    window.show()
    layer = begin(qtbot, widget)
    qtbot.waitUntil(lambda: widget.files.is_saved, timeout=WAIT)
    close_by_hand(window)
    assert len(answers) == 1
    assert widget.controller.session is not None
    QTest.qWait(50)
    window.hide()  # not closed
    window.show()
    assert widget.controller.session is not None
    path = widget.files.path
    stroke(layer, [(8, 9, x) for x in range(15, 19)], 2)
    close_by_hand(window)
    assert answers == []
    assert widget.controller.session is None
    session, _ = load_session(path)
    np.testing.assert_array_equal(session.strokes[8, 9, 15:19], 2)
    assert notes == []


def test_calls_that_wait_are_dropped_with_their_widget(qtbot):
    made = []
    kept, gone = QObject(), QObject()
    call_later(kept, lambda: made.append("kept"))
    call_later(gone, lambda: made.append("gone"))
    gone.deleteLater()
    QApplication.sendPostedEvents(gone, QEvent.Type.DeferredDelete.value)
    QTest.qWait(20)
    assert made == ["kept"]
    assert kept.children() == []
