"""What the Segment widget shows is what there is."""

import subprocess
import sys

import numpy as np
import pytest
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QPushButton

from napari_medgs.data.grid import Grid
from napari_medgs.plugin.layer_frame import grid_kwargs
from napari_medgs.plugin.segment.class_table import ClassTable, volume_unit
from napari_medgs.plugin.segment.steps import Step
from tests.plugin.strokes import WAIT, begin, dice, idle, stroke


def test_a_mask_of_erased_strokes_goes_and_comes_back_with_undo(docked, qtbot, notes):
    viewer, widget = docked()
    layer = begin(qtbot, widget)
    mask = widget.result_layer.data.copy()
    told = []
    layer.events.selected_label.connect(lambda event: told.append(layer.selected_label))
    widget.view.table.choose(2)
    assert told == [2]  # napari's own control hears of it as well
    assert widget.view.suggest.objectName() == "medgs-primary"
    where = np.argwhere(np.isin(layer.data, (1, 2)))
    layer.data_setitem(tuple(where.T), 0)
    qtbot.waitUntil(lambda: not widget.result_layer.data.any(), timeout=WAIT)
    assert "Only one class is marked" in widget.state.message
    assert not widget.view.accept.isEnabled()
    assert widget.state.volumes_ml == {}
    widget.undo()
    np.testing.assert_array_equal(widget.result_layer.data, mask)
    idle(qtbot, widget)
    # One class alone gives a first answer: what surrounds it is taken for background.
    where = np.argwhere(np.isin(layer.data, (2, 255)))
    layer.data_setitem(tuple(where.T), 0)
    qtbot.waitUntil(lambda: "Provisional" in widget.state.summary, timeout=WAIT)
    np.testing.assert_array_equal(widget.result_layer.data, widget.controller.session.labels)
    assert (widget.result_layer.data[layer.data == 1] == 1).all()
    assert dice(widget.result_layer.data, mask, 1) > 0.6
    assert not widget.controller.is_current
    assert "paint a stroke in the background" in widget.view.next_step.text
    widget.undo()
    idle(qtbot, widget)
    # Without background two classes divide the whole image, and the panel says so.
    where = np.argwhere(layer.data == 255)
    layer.data_setitem(tuple(where.T), 0)
    qtbot.waitUntil(lambda: widget.state.fills_image, timeout=WAIT)
    idle(qtbot, widget)
    assert "No background is marked" in widget.view.result.text()
    assert "No background is marked" in widget.view.panel.status.text()
    assert widget.view.heads[Step.PAINT].is_next
    widget.undo()
    idle(qtbot, widget)
    assert "No background" not in widget.view.result.text() + widget.view.panel.status.text()
    # A slice that is filled but for two voxels is told of.
    layer.selected_label = 1
    missing = np.ones(layer.data.shape[1:], bool)
    missing[0, [2, 9]] = False
    where = np.argwhere((layer.data[2] == 0) & missing)
    layer.data_setitem((np.full(len(where), 2), *where.T), 255)
    layer.data_setitem((np.full(4, 2), np.full(4, 10), np.arange(6, 10)), 1)
    qtbot.waitUntil(lambda: "Not fully labeled" in widget.state.summary, timeout=WAIT)
    idle(qtbot, widget)
    assert "slice 2 lacks 2 voxels" in widget.view.result.text()
    layer.data_setitem((np.full(2, 2), np.zeros(2, int), np.array([2, 9])), 255)
    qtbot.waitUntil(lambda: "Not fully" not in widget.view.result.text(), timeout=WAIT)
    idle(qtbot, widget)
    # With the image, its classes' names go.
    widget.view.table.names[1] = "spleen"
    viewer.layers.clear()
    assert widget.view.table.name(1) == "class 1"
    assert not widget.view.restore_bar.isVisibleTo(widget)
    assert "Restore" not in widget.state.message
    assert notes == []


def test_one_stroke_painted_while_the_field_is_fitted_gets_an_answer(docked, qtbot, notes):
    _, widget = docked()
    widget.view.new_strokes.click()
    assert not widget.controller.segmenter.is_prepared
    stroke(widget.strokes_layer, [(5, 10, x) for x in range(6, 10)], 1)
    qtbot.waitUntil(lambda: widget.state.provisional, timeout=WAIT)
    assert widget.result_layer.data[5, 10, 7] == 1
    assert notes == []


def test_the_next_step_stands_out(docked):
    viewer, widget = docked(image=False)
    view = widget.view

    def blue():
        found = view.findChildren(QPushButton)
        return [b.text() for b in found if b.objectName() == "medgs-primary"]

    assert blue() == []
    assert view.panel.status.text().startswith("Open an image")
    viewer.add_image(np.random.default_rng(0).random((4, 20, 20)), name="scan")
    assert blue() == ["New"]
    view.new_strokes.click()
    assert blue() == []
    assert view.heads[Step.PAINT].is_next
    view.auto.setChecked(False)
    stroke(widget.strokes_layer, [(1, 5, 5)], 1)
    assert blue() == ["Update"]


@pytest.mark.parametrize("thick", [1.0, 9.0])
def test_new_shows_the_slices_of_images_of_any_reader(docked, thick):
    viewer, widget = docked(image=False)
    viewer.add_image(np.random.default_rng(0).random((12, 9, 12)), scale=(1, thick, 1))
    widget.view.new_strokes.click()
    assert viewer.dims.order == ((1, 0, 2) if thick > 1 else (0, 1, 2))


def test_icons_keep_their_colors_and_few_rows_need_no_scroll_bar(qtbot):
    table = ClassTable()
    qtbot.addWidget(table)
    table.fill([1, 2], 255)
    table.show_locks({1})
    for column in (0, 3):
        icon = table.item(1, column).icon()
        normal, chosen = (
            icon.pixmap(32, 32, mode).toImage()
            for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected)
        )
        assert normal == chosen
        assert not normal.allGray()
    table.show()
    assert not table.verticalScrollBar().isVisible()
    assert table.is_locked(1)
    assert not table.is_locked(2)


def test_volumes_have_a_readable_unit(qtbot):
    assert volume_unit([]) == (1.0, "mL")
    assert volume_unit([1500.0, 1e-3]) == (1.0, "mL")
    assert volume_unit([0.02]) == (1e3, "mm³")
    table = ClassTable()
    qtbot.addWidget(table)
    table.fill([1], 255)
    table.show_volumes({1: 1.03e-10})
    assert table.item(1, 2).text() == "103"
    assert table.horizontalHeaderItem(2).text() == "µm³"


def test_a_mask_of_nan_background_and_booleans(docked, qtbot, notes):
    viewer, widget = docked(image=False)
    rng = np.random.default_rng(0)
    data = rng.random((4, 24, 24)).astype(np.float32)
    data[:, :, :3] = np.nan
    viewer.add_image(data, name="scan", **grid_kwargs(Grid((4, 24, 24))))
    widget.view.new_strokes.click()
    assert widget.controller.session is not None
    assert [severity for severity, _ in notes] == ["warning"]
    assert "288" in notes[0][1]
    viewer.layers.clear()
    viewer.add_image(data > 0.5, name="shape", **grid_kwargs(Grid((4, 24, 24))))
    widget.view.new_strokes.click()
    layer = widget.strokes_layer
    layer.brush_size = 1
    stroke(layer, [(1, 5, 5)], 1)
    stroke(layer, [(1, 20, 20)], 255)
    idle(qtbot, widget)
    assert widget.result_layer.data.any()
    assert [severity for severity, _ in notes] == ["warning"]


def test_an_image_that_is_removed_while_a_session_begins(docked, notes, monkeypatch):
    viewer, widget = docked()
    load = widget.context.load_images

    def load_and_lose(layers):
        loaded = load(layers)
        viewer.layers.clear()  # as a script can, while the window goes on
        return loaded

    monkeypatch.setattr(widget.context, "load_images", load_and_lose)
    widget.view.new_strokes.click()
    assert notes == [("error", "Choose at least one image layer.")]
    assert not viewer.layers
    assert widget.controller.session is None


def test_the_first_strokes_layer_finds_everything_compiled():
    code = """
import subprocess
import sys

import numpy as np
from napari.layers import Labels
from numba.core.event import install_recorder
from napari_medgs.plugin.segment.layers import label_colormap
from napari_medgs.plugin.segment.warm_up import warm_up
warm_up()
with install_recorder("numba:compile") as seen:
    for result in (False, True):
        layer = Labels(np.zeros((3, 4, 5), np.uint8),
                       colormap=label_colormap({3: (1, 0, 0, 1)}, 255, result=result))
        layer.data[1, 2, 2] = 3
        layer.refresh(extent=False)
print(len(seen.buffer))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"]
