"""Edits of a class, statistics and the 3D surface in the Segment widget."""

import csv

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QApplication

from napari_medgs.metrics import label_statistics
from napari_medgs.segmentation.postprocess.class_edits import edit_class
from tests.plugin.strokes import WAIT, begin, idle, stroke


def edited(qtbot, widget):
    """Wait until an edit is computed and the next one can be asked for."""
    button = widget.tools.panel.edits["grow"]
    qtbot.waitUntil(lambda: not widget.tools.busy and button.isEnabled(), timeout=WAIT)


def settle(qtbot, widget):
    """Wait until an edit is computed and taken over, and solved with."""
    edited(qtbot, widget)
    idle(qtbot, widget)


def test_edits_of_a_class_are_steps_that_stay(docked, qtbot, notes):
    _viewer, widget = docked()
    panel = widget.tools.panel
    panel.edits["grow"].click()
    assert "Press New first" in notes.pop()[1]
    begin(qtbot, widget)
    before = widget.result_layer.data.copy()
    strokes = widget.strokes_layer.data.copy()
    spacing = widget.context.volume.spacing
    panel.margin.setValue(round(1.2 * max(spacing), 1))
    widget.view.table.choose(255)
    panel.edits["grow"].click()
    assert "background has no shape" in notes.pop()[1]
    widget.view.table.choose(1)
    panel.edits["grow"].click()
    settle(qtbot, widget)
    grown = edit_class(before, 1, "grow", spacing, panel.margin.value())
    np.testing.assert_array_equal(widget.result_layer.data, grown)
    # Background strokes that lay in the margin are gone, others are kept.
    left = widget.strokes_layer.data
    assert not ((left == 255) & (grown == 1)).any()
    np.testing.assert_array_equal(left[grown != 1], strokes[grown != 1])
    panel.edits["keep largest"].click()
    edited(qtbot, widget)
    assert widget.state.message == "There was nothing to change."
    widget.classes.toggle_lock()
    panel.edits["shrink"].click()
    assert "locked" in notes.pop()[1]
    widget.undo()
    widget.undo()
    np.testing.assert_array_equal(widget.result_layer.data, before)
    np.testing.assert_array_equal(widget.strokes_layer.data, strokes)
    widget.redo()
    np.testing.assert_array_equal(widget.result_layer.data, grown)
    # One that is not computed yet is what Undo takes back.
    panel.edits["shrink"].click()
    widget.undo()
    edited(qtbot, widget)
    np.testing.assert_array_equal(widget.result_layer.data, grown)
    # A stroke meanwhile is kept: the edit is made of the mask with it.
    panel.edits["grow"].click()
    stroke(widget.strokes_layer, [(0, 0, x) for x in range(4)], 2)
    settle(qtbot, widget)
    assert panel.edits["grow"].isEnabled()
    assert (widget.strokes_layer.data[0, 0, :4] == 2).all()
    assert (widget.result_layer.data == 1).sum() > (grown == 1).sum()
    assert notes == []


def test_strokes_only_correct_a_mask_that_is_kept(docked, qtbot, notes, tiny_volume, tmp_path):
    from typer.testing import CliRunner

    from napari_medgs.cli.app import app
    from napari_medgs.io import read_labels, write_image

    _viewer, widget = docked()
    box = widget.view.only_correct
    assert not box.isEnabled()
    layer = begin(qtbot, widget)
    first = widget.result_layer.data.copy()
    box.click()
    idle(qtbot, widget)
    assert box.isChecked()
    np.testing.assert_array_equal(widget.result_layer.data, first)
    far = tuple(np.argwhere(first == 2)[-1])
    stroke(layer, [far], 255)
    idle(qtbot, widget)
    corrected = widget.result_layer.data.copy()
    assert corrected[far] == 0
    np.testing.assert_array_equal(corrected == 1, first == 1)

    # It is one step, and the box follows the history.
    widget.undo()
    widget.undo()
    assert not box.isChecked()
    widget.redo()
    assert box.isChecked()
    widget.redo()
    idle(qtbot, widget)
    np.testing.assert_array_equal(widget.result_layer.data, corrected)

    # The command line makes the same mask from the saved session.
    log, out, numbers = (tmp_path / name for name in ("work.json", "mask.nii.gz", "n.json"))
    widget.files.save(log)
    qtbot.waitUntil(log.exists, timeout=WAIT)
    write_image(tmp_path / "scan.nii.gz", tiny_volume.data, tiny_volume.grid)
    words = [tmp_path / "scan.nii.gz", "--session", log, "-o", out, "--json", numbers, "--quiet"]
    done = CliRunner().invoke(app, ["segment", *map(str, words)])
    assert done.exit_code == 0, done.output
    assert '"same_as_session": true' in numbers.read_text()
    np.testing.assert_array_equal(read_labels(out, tiny_volume.grid)[0], corrected)

    box.click()
    idle(qtbot, widget)
    assert not box.isChecked()
    assert not widget.controller.session.starts_from_mask
    assert notes == []


def test_the_mask_of_all_strokes_is_kept_not_that_of_a_quick_update(docked, qtbot, notes):
    _viewer, widget = docked()
    layer = begin(qtbot, widget)
    widget.view.auto.setChecked(False)
    stroke(layer, [(5, 10, x) for x in range(6, 10)], 255)
    qtbot.waitUntil(lambda: not widget.controller.is_current, timeout=WAIT)
    box = widget.view.only_correct
    box.click()
    assert not box.isChecked(), "the mask of the new stroke is computed first"
    qtbot.waitUntil(box.isChecked, timeout=WAIT)
    assert (widget.result_layer.data[5, 10, 6:10] == 0).all()
    assert notes == []


def test_a_threshold_is_a_first_mask_and_the_range_limits_brush_and_mask(docked, qtbot, notes):
    _viewer, widget = docked()
    widget.view.new_strokes.click()
    panel = widget.tools.panel
    image = widget.context.volume.channel(0)
    low, high = float(np.percentile(image, 90)), float(image.max())
    panel.high.setValue(high + 1)
    panel.low.setValue(low)
    panel.threshold.click()
    settle(qtbot, widget)
    inside = image >= panel.low.value()
    np.testing.assert_array_equal(widget.result_layer.data == 1, inside)
    panel.limit.setChecked(True)
    assert widget.controller.session.settings.params.lowest == panel.low.value()
    stroke(widget.strokes_layer, [(5, 10, x) for x in range(22)], 1)
    settle(qtbot, widget)
    assert (widget.strokes_layer.data == 1).any()
    assert not (widget.strokes_layer.data == 1)[~inside].any()
    assert not (widget.result_layer.data == 1)[~inside].any()
    widget.undo()
    widget.undo()
    assert not panel.limit.isChecked()
    panel.low.setValue(1e5)
    panel.high.setValue(1e5 + 1)
    panel.threshold.click()
    edited(qtbot, widget)
    assert "No background voxel" in notes.pop()[1]


def test_statistics_and_the_surface_follow_the_mask(docked, qtbot, notes, tmp_path, monkeypatch):
    viewer, widget = docked()
    look, panel = widget.look, widget.statistics.panel
    panel.measure.click()
    look.show_3d.click()
    assert [text for _, text in notes] == [
        "There is no mask to measure yet: paint strokes first.",
        "There is no mask to show in 3D yet: paint strokes first.",
    ]
    notes.clear()
    assert not look.show_3d.isChecked()
    begin(qtbot, widget)
    panel.measure.click()
    qtbot.waitUntil(lambda: not widget.statistics.runner.busy, timeout=WAIT)
    volume, mask = widget.context.volume, widget.result_layer.data
    truth = label_statistics(mask, volume.grid, volume.channel(0))
    assert [row["label"] for row in panel.rows] == [1, 2]
    assert panel.rows[0]["mean"] == truth[1].mean
    assert panel.rows[1]["longest_mm"] == truth[2].longest_mm
    assert panel.table.columnCount() == 2
    panel.copy.click()
    assert QApplication.clipboard().text().splitlines()[1].startswith("1\tclass 1\t")
    path = tmp_path / "numbers"
    monkeypatch.setattr(panel, "ask_file", lambda start: str(path))
    panel.save.click()
    saved = list(csv.DictReader((tmp_path / "numbers.csv").open()))
    assert float(saved[1]["volume_ml"]) == truth[2].volume_ml

    viewer.dims.order = (1, 0, 2)
    viewer.layers["scan"].visible = True
    camera = getattr(viewer, "scene", viewer).camera
    camera.zoom, camera.center = 3.5, (0.0, 7.0, 4.0)
    place = camera.zoom, tuple(camera.center)
    look.show_3d.click()
    assert widget.state.message == "Making the surface ..."
    qtbot.waitUntil(lambda: widget.surface.layer is not None, timeout=WAIT)
    assert widget.state.message == ""
    surface = widget.surface.layer
    assert viewer.dims.ndisplay == 3
    assert [layer.name for layer in viewer.layers if layer.visible] == ["scan · surface"]
    # It lies where the mask lies in the world.
    where = np.argwhere(mask > 0)
    low, high = (
        widget.result_layer.data_to_world(corner) for corner in (where.min(0), where.max(0))
    )
    corners = surface.data[0] * surface.scale
    np.testing.assert_allclose(corners.min(axis=0), low, atol=max(volume.spacing))
    np.testing.assert_allclose(corners.max(axis=0), high, atol=max(volume.spacing))
    assert tuple(viewer.dims.nsteps) == volume.shape  # slices are scrolled as before
    count = len(surface.data[0])
    widget.view.table.choose(1)
    widget.tools.panel.edits["shrink"].click()
    settle(qtbot, widget)
    qtbot.waitUntil(
        lambda: not widget.surface.runner.busy and len(surface.data[0]) != count, timeout=WAIT
    )
    assert "changed since" in panel.note.text()
    look.show_3d.click()
    assert viewer.dims.ndisplay == 2
    assert tuple(viewer.dims.order) == (1, 0, 2)
    assert viewer.layers["scan"].visible
    assert (camera.zoom, tuple(camera.center)) == place
    assert not surface.visible
    look.show_3d.click()
    viewer.dims.ndisplay = 2  # by napari's own button
    assert not look.show_3d.isChecked()
    assert viewer.layers["scan"].visible
    assert notes == []


def test_a_surface_that_has_grown_is_seen_whole(docked, qtbot, notes):
    viewer, widget = docked()
    begin(qtbot, widget)
    widget.view.auto.setChecked(False)
    whole = widget.controller.session.labels.copy()
    small = np.zeros_like(whole)
    small[4:6, 8:11, 7:10] = 1
    assert widget.controller.set_mask(small)
    camera = getattr(viewer, "scene", viewer).camera
    show = widget.look.show_3d

    def shown():
        qtbot.waitUntil(
            lambda: widget.surface.layer is not None and not widget.surface.runner.busy,
            timeout=WAIT,
        )
        extent = np.asarray(widget.surface.layer.extent.world)
        return np.linalg.norm(np.ptp(extent, axis=0)), extent.mean(axis=0)

    show.click()
    (size, _), zoom = shown(), camera.zoom
    camera.angles = (0.0, 30.0, -60.0)
    assert widget.controller.set_mask(whole)
    grown, middle = shown()
    assert grown > 2 * size
    assert camera.zoom == pytest.approx(zoom * size / grown, rel=0.01)
    np.testing.assert_allclose(camera.center, middle, atol=1e-3)
    np.testing.assert_allclose(camera.angles, (0, 30, -60), atol=1e-3)
    # What the user has zoomed in on is there again after a look at the slices.
    camera.zoom *= 3
    zoom, slices = camera.zoom, viewer.dims.ndisplay
    show.click()
    assert camera.zoom != zoom
    show.click()
    shown()
    assert camera.zoom == zoom
    np.testing.assert_allclose(camera.center, middle, atol=1e-3)
    viewer.dims.ndisplay = 2  # by napari's own button
    show.click()
    shown()
    np.testing.assert_allclose(camera.center, middle, atol=1e-3)
    assert slices == viewer.dims.ndisplay == 3
    assert notes == []


def test_a_surface_that_waits_is_not_made_once_the_widget_is_gone(docked, qtbot):
    viewer, widget = docked()
    begin(qtbot, widget)
    widget.look.show_3d.click()
    surface = widget.surface
    qtbot.waitUntil(lambda: surface.layer is not None and not surface.runner.busy, timeout=WAIT)
    gone = []

    def close():
        viewer.window.remove_dock_widget(widget)
        widget.deleteLater()
        QApplication.sendPostedEvents(widget, QEvent.Type.DeferredDelete.value)
        gone.append(True)

    surface.made.connect(lambda data: QTimer.singleShot(0, close))  # before the next one begins
    surface.update()
    surface.update()  # while the other one is being made
    qtbot.waitUntil(lambda: bool(gone), timeout=WAIT)
    qtbot.wait(50)


def test_contrasts_have_a_bar_for_every_class(docked, qtbot, notes):
    viewer, widget = docked()
    assert not widget.contrasts.button.isVisibleTo(widget)
    scan = viewer.layers["scan"]
    rng = np.random.default_rng(0)
    noise = rng.normal(size=scan.data.shape).astype(np.float32)
    viewer.add_image(noise, name="noise", scale=scan.scale, translate=scan.translate,
                     affine=scan.affine, metadata=dict(scan.metadata))  # fmt: skip
    widget.view.images.check([scan, viewer.layers["noise"]])
    begin(qtbot, widget)
    contrasts = widget.contrasts
    assert contrasts.button.isVisibleTo(widget)
    contrasts.button.click()
    qtbot.waitUntil(lambda: bool(contrasts.panel.bars), timeout=WAIT)
    for value in (1, 2):
        shares = [contrasts.panel.bars[value, name].value() for name in ("scan", "noise")]
        assert shares[0] > shares[1]
    assert "Learned from the strokes, it counts" in contrasts.panel.bars[1, "scan"].toolTip()
    stroke(widget.strokes_layer, [(5, 12, x) for x in range(6, 10)], 1)
    idle(qtbot, widget)
    assert "changed since" in contrasts.panel.note.text()
    contrasts.button.click()
    assert not contrasts.panel.bars
    assert not contrasts.panel.isVisibleTo(widget)
    assert notes == []
