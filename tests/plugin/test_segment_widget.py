"""The Segment widget in a real viewer."""

from threading import Event

import numpy as np
import pytest
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtWidgets import QApplication

from napari_medgs._util.settings import settings_of
from napari_medgs.plugin.segment.form import ELSEWHERE
from napari_medgs.segmentation import SegmentParams, api
from tests.plugin.strokes import WAIT, begin, dice, idle, paint_three, stroke


def test_strokes_become_a_mask_by_themselves(docked, qtbot, tiny_labels, notes):
    viewer, widget = docked()
    widget.view.new_strokes.click()
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
    np.testing.assert_array_equal(result.data, widget.controller.session.labels)
    assert [x.name for x in viewer.layers] == ["scan", "scan · segmentation", "scan · strokes"]
    assert widget.view.table.item(1, 2).text() != ""
    image = viewer.layers["scan"]
    np.testing.assert_array_equal(result.scale, image.scale)
    assert result.units == image.units
    volume = widget.state.volumes_ml[1]
    assert volume == pytest.approx((result.data == 1).sum() * 3 / 1000)


def test_undo_and_redo_bring_strokes_and_result_back(docked, qtbot, notes):
    _, widget = docked()
    layer = begin(qtbot, widget)
    strokes, result = layer.data.copy(), widget.result_layer.data.copy()
    stroke(layer, [(5, 10, x) for x in range(10, 14)], 2)
    idle(qtbot, widget)
    later = widget.result_layer.data.copy()
    assert (later != result).any()
    widget.view.undo.click()
    np.testing.assert_array_equal(layer.data, strokes)
    np.testing.assert_array_equal(widget.result_layer.data, result)
    idle(qtbot, widget)
    np.testing.assert_array_equal(widget.result_layer.data, result)
    widget.view.redo.click()
    np.testing.assert_array_equal(widget.result_layer.data, later)
    for _ in range(4):
        widget.view.undo.click()
    assert not layer.data.any()
    assert not widget.result_layer.data.any()
    assert not widget.view.undo.isEnabled()
    assert notes == []


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
        assert widget.state.volumes_ml == pytest.approx(ml)
        widget.view.undo.click()


def test_counts_follow_strokes_that_were_painted_before_the_first_mask(docked, qtbot, notes):
    _, widget = docked()
    layer = begin(qtbot, widget)  # all strokes are painted while the field is fitted

    def ml():
        return {
            v: n * 3 / 1000 for v in (1, 2) if (n := int((widget.result_layer.data == v).sum()))
        }

    first = ml()
    for _ in range(2):
        widget.view.undo.click()  # the background, which leaves two classes to solve for
        assert widget.state.volumes_ml == pytest.approx(ml())
        idle(qtbot, widget)
        assert widget.state.volumes_ml == pytest.approx(ml())
        assert ml() != first
        widget.view.redo.click()
        assert widget.state.volumes_ml == pytest.approx(ml())
        idle(qtbot, widget)
        assert widget.state.volumes_ml == pytest.approx(first)
    widget.viewer.layers.remove(layer)
    table = widget.view.table
    assert not any(table.item(row, 2).text() for row in range(table.rowCount()))
    assert notes == []


def test_what_needs_a_result_waits_for_one(docked, qtbot, notes):
    _, widget = docked()
    widget.view.new_strokes.click()
    control = widget.controller
    qtbot.waitUntil(lambda: control.segmenter.is_prepared and not widget.runner.busy, timeout=WAIT)
    assert widget.view.panel.status.text().startswith("Paint a short stroke in each class")
    assert not widget.view.suggest.isEnabled()
    assert not widget.view.accept.isEnabled()
    paint_three(widget.strokes_layer)
    idle(qtbot, widget)
    assert widget.view.suggest.isEnabled()
    assert widget.view.accept.isEnabled()
    assert widget.view.result.isVisibleTo(widget)
    for _ in range(3):
        widget.view.undo.click()
    assert not widget.view.suggest.isEnabled()
    assert not widget.view.accept.isEnabled()
    assert not widget.view.result.isVisibleTo(widget)
    assert notes == []


def test_a_new_class_leaves_the_others_as_they_are_shown(docked, qtbot, notes):
    _, widget = docked()
    layer = begin(qtbot, widget)
    widget.classes.set_lock(1, True)
    idle(qtbot, widget)
    table = widget.view.table

    def shown():
        texts = [[table.item(row, column).text() for column in (1, 2)] for row in range(3)]
        return texts, [table.is_locked(value) for value in (1, 2)]

    before = shown()
    assert before[0][1][1] == f"{widget.state.volumes_ml[1]:.3g}"
    assert before[1] == [True, False]
    widget.view.add_class.click()
    assert table.values == [255, 1, 2, 3]
    assert table.value == 3
    assert shown() == before
    widget.viewer.layers.remove(layer)
    assert not any(table.is_locked(value) for value in (1, 2, 3))
    assert notes == []


def test_a_removed_class_comes_back_with_its_strokes(docked, qtbot, notes):
    _, widget = docked()
    begin(qtbot, widget)
    widget.view.table.choose(2)
    widget.view.remove_class.click()
    idle(qtbot, widget)
    assert widget.view.table.values == [255, 1]
    assert not (widget.result_layer.data == 2).any()
    widget.view.undo.click()
    assert widget.view.table.values == [255, 1, 2]
    idle(qtbot, widget)
    assert (widget.result_layer.data == 2).any()
    assert notes == []


def test_locked_classes_stay(docked, qtbot, notes):
    _, widget = docked()
    layer = begin(qtbot, widget)
    before = widget.result_layer.data == 1
    widget.view.table.lock_requested.emit(1, True)
    assert widget.view.table.is_locked(1)
    stroke(layer, [(8, 10, x) for x in range(10, 14)], 2)
    idle(qtbot, widget)
    np.testing.assert_array_equal(widget.result_layer.data == 1, before)
    widget.view.undo.click()
    widget.view.undo.click()
    assert not widget.view.table.is_locked(1)
    ((severity, text),) = notes  # a stroke that has no effect is no riddle
    assert severity == "warning"
    assert "class 1: locked" in text


def test_accept_keeps_what_others_painted(docked, qtbot, notes):
    viewer, widget = docked()
    begin(qtbot, widget)
    widget.view.accept.click()
    final = viewer.layers["scan · accepted"]
    result = widget.result_layer.data.copy()
    np.testing.assert_array_equal(final.data, result)
    names = [x.name for x in viewer.layers]
    assert names == ["scan", "scan · segmentation", "scan · accepted", "scan · strokes"]
    assert final.contour == 1
    final.undo()
    assert not final.data.any()
    final.data[result == 1] = 7
    widget.view.accept.click()
    assert widget.view.panel.status.text().startswith("Accepted ")
    widget.view.accept.click()
    assert widget.view.panel.status.text() == (
        "There was nothing new to accept into 'scan · accepted'."
    )
    assert (final.data[result == 1] == 7).all()
    assert (final.data[result == 2] == 2).all()
    assert notes == []


def test_suggested_slice_is_shown_and_the_result_layer_comes_back(docked, qtbot, notes):
    viewer, widget = docked()
    layer = begin(qtbot, widget)
    result = widget.result_layer.data.copy()
    viewer.dims.set_current_step(0, 2)
    found = []
    widget.controller.suggested.connect(found.append)
    widget.view.suggest.click()
    qtbot.waitUntil(lambda: widget.suggestion.marker is not None, timeout=WAIT)
    assert found[0].axis == 0
    assert viewer.dims.current_step[0] == found[0].index
    assert viewer.layers.selection.active is layer
    viewer.layers.remove(widget.result_layer)
    qtbot.waitUntil(lambda: widget.result_layer in viewer.layers, timeout=WAIT)
    np.testing.assert_array_equal(widget.result_layer.data, result)
    assert notes == []


def test_progress_of_the_fit_is_shown(docked, qtbot, notes, monkeypatch):
    viewer, widget = docked()
    viewer.show()
    texts = set()
    shown = Event()
    fit = api.fit_for_segmentation

    def show(_):
        texts.add(widget.view.panel.status.text())
        if any(text.startswith("Fitting") for text in texts):
            shown.set()

    # Only the newest report is passed on, about 8 times a second, and this fit is quicker than
    # that: it waits at its first step until that one is on the screen.
    def fit_and_wait(*args, progress, **options):
        def report(event):
            progress(event)
            if event.stage == "fit":
                shown.wait(WAIT / 2000)

        return fit(*args, progress=report, **options)

    monkeypatch.setattr(api, "fit_for_segmentation", fit_and_wait)
    widget.controller.progressed.connect(show)
    widget.view.new_strokes.click()
    qtbot.waitUntil(lambda: widget.controller.segmenter.is_prepared, timeout=WAIT)
    assert notes == []
    assert shown.is_set(), texts


def test_maps_are_layers_and_no_new_image(docked, qtbot, notes):
    viewer, widget = docked()
    layer = begin(qtbot, widget)
    widget.view.uncertainty.setChecked(True)
    widget.view.probability.setChecked(True)
    qtbot.waitUntil(lambda: len(widget.maps.layers) == 2, timeout=WAIT)
    viewer.add_image(np.ones(layer.data.shape), name="another")
    assert widget.strokes_layer is layer
    assert [x.name for x in widget.view.images.layers] == ["scan"]
    assert viewer.layers.index(layer) > viewer.layers.index(widget.maps.layers["uncertainty"])
    for kind in ("uncertainty", "probability"):
        clear, low, high = widget.maps.layers[kind].colormap.map(np.array([0, 0.1, 1.0]))
        assert clear[3] == 0
        assert 0 < low[3] < high[3] == 1
    assert widget.maps.layers["uncertainty"].data.min() >= 0
    assert 0.3 < widget.maps.layers["uncertainty"].data.max() < 1
    assert widget.maps.layers["probability"].data.max() > 0.9
    assert viewer.layers.selection.active is not None
    assert notes == []


def test_sections_open_and_buttons_stay_where_they_are(docked, qtbot):
    viewer, widget = docked()
    viewer.show()
    closed = widget.view.section("Settings").height()
    assert closed < 40
    assert not widget.settings.isVisible()
    widget.view.section("Settings").head.click()
    assert widget.settings.isVisible()
    islands = widget.settings.settings["islands"].control.native
    widest = max(islands.fontMetrics().horizontalAdvance(islands.itemText(i)) for i in range(3))
    assert widest + 40 < 315 - 110  # room beside the labels in a narrow dock
    widget.view.section("Settings").head.click()
    assert not widget.settings.isVisible()
    qtbot.waitUntil(lambda: widget.view.section("Settings").height() == closed)

    begin(qtbot, widget)
    QApplication.processEvents()
    place = widget.view.suggest.y()
    places = set()
    widget.controller.shown.connect(lambda kind: places.add(widget.view.suggest.y()))
    widget.state.events.job.connect(lambda kind: places.add(widget.view.suggest.y()))
    stroke(widget.strokes_layer, [(5, 13, 8)], 1)
    idle(qtbot, widget)
    assert places == {place}


def test_the_number_of_threads_is_no_step_but_counts_in_the_next_solve(docked, qtbot, notes):
    _, widget = docked()
    layer = begin(qtbot, widget)
    session = widget.controller.session
    steps, revision = len(session.history.done), widget.controller.revision
    widget.settings.set_value("threads", 1)
    assert len(session.history.done) == steps
    assert widget.controller.revision == revision
    stroke(layer, [(5, 13, 8)], 1)
    idle(qtbot, widget)
    assert widget.controller.segmenter.threads == 1
    widget.settings.set_value("smooth", 2.0)
    assert len(session.history.done) == steps + 2
    assert session.settings.params.smooth == 2.0
    widget.view.undo.click()
    assert widget.settings.params().smooth == 1.0
    assert widget.settings.params().threads == 1
    idle(qtbot, widget)
    assert notes == []


def test_the_form_has_every_declared_setting_with_its_range_and_help(docked):
    _, widget = docked()
    declared = settings_of(SegmentParams)
    assert list(widget.settings.settings) == [n for n in declared if n not in ELSEWHERE]
    for name, made in widget.settings.settings.items():
        setting, control = declared[name], made.control
        assert setting.help in control.native.toolTip()
        if made.is_number and not setting.optional:
            assert control.min == setting.low, name
            assert control.max == min(setting.high, 2**31 - 1), name
    assert widget.settings.params() == SegmentParams()
