"""How many clicks lead from a dropped scan to the files of a segmentation."""

import nibabel as nib
import numpy as np
import pytest
import trimesh
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_medgs.io import write_image
from tests.plugin.strokes import WAIT, Mouse, idle

MOST = 12


class Hand:
    """A hand with a mouse, whose presses are counted.

    A stroke is one press, a file's dialog one more for its Save. The menu Plugins, MedGS, Segment
    is three, and napari's question for a reader one, although it can be told not to ask.
    """

    def __init__(self, viewer, monkeypatch):
        self.viewer, self.presses = viewer, 0
        monkeypatch.setattr(QFileDialog, "getSaveFileName", self._save)

    def drop(self, path):
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path))])
        action, none = Qt.DropAction.CopyAction, Qt.KeyboardModifier.NoModifier
        event = QDropEvent(QPointF(9, 9), action, data, Qt.MouseButton.LeftButton, none)
        self.viewer.window._qt_viewer.dropEvent(event)
        self.presses += 1

    def menu(self, name):
        self.presses += 3
        widget = self.viewer.window.add_plugin_dock_widget("napari-medgs", name)[1]
        QTest.qWait(60)
        return widget

    def press(self, button):
        assert button.isVisible()
        assert button.isEnabled()
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        self.presses += 1

    def choose(self, table, value):
        row = table.values.index(value)
        place = table.visualItemRect(table.item(row, 1)).center()
        QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
        self.presses += 1
        assert table.value == value

    def stroke(self, layer, places):
        with Mouse(self.viewer).drag(layer, places):
            pass
        QTest.qWait(30)
        self.presses += 1

    def _save(self, parent, title, start, kinds):
        self.presses += 1
        return start, kinds


@pytest.fixture
def hand(make_viewer, session_cache, monkeypatch):
    viewer = make_viewer(show=True)
    viewer.window._qt_window.resize(1600, 1000)
    QApplication.processEvents()
    return Hand(viewer, monkeypatch)


@pytest.mark.parametrize("way", ["strokes", "parts"])
def test_from_a_dropped_scan_to_mask_and_mesh(
    hand, qtbot, notes, tmp_path, tiny_volume, tiny_labels, monkeypatch, way
):
    path = tmp_path / "scan.nii.gz"
    write_image(path, tiny_volume.channel(0), tiny_volume.grid)
    viewer = hand.viewer
    monkeypatch.setattr(
        type(viewer.window._qt_viewer),
        "_qt_open",
        lambda self, names, **_: viewer.open(names, plugin="napari-medgs"),
    )
    hand.drop(path)
    widget = hand.menu("Segment")
    view, table = widget.view, widget.view.table
    z = 5
    viewer.dims.set_point(0, viewer.layers[0].data_to_world((z, 0, 0))[0])
    if way == "strokes":
        hand.press(view.new_strokes)
        layer = widget.strokes_layer
        layer.brush_size = 2
        hand.stroke(layer, [(z, 10, 6), (z, 10, 9)])
        hand.choose(table, 2)
        hand.stroke(layer, [(z, 9, 16), (z, 9, 19)])
        hand.choose(table, 255)
        hand.stroke(layer, [(z, 2, 2), (z, 2, 21)])
    else:
        hand.press(view.parts.button)
        qtbot.waitUntil(lambda: widget.parts.picker is not None, timeout=WAIT)
        layer = widget.strokes_layer
        hand.stroke(layer, [(z, 10, 8)])
        hand.choose(table, 2)
        hand.stroke(layer, [(z, 9, 18)])
        qtbot.waitUntil(lambda: len(widget.state.volumes_ml) == 2, timeout=WAIT)
    idle(qtbot, widget)
    hand.press(view.saving.everything)
    qtbot.waitUntil(lambda: widget.state.saved, timeout=WAIT)
    assert hand.presses <= MOST
    mask = np.asarray(nib.load(tmp_path / "scan_mask.nii.gz").dataobj)
    assert set(np.unique(mask)) == {0, 1, 2}
    assert len(trimesh.load(tmp_path / "scan_mesh.ply", process=False).faces) > 50
    for value in (1, 2):
        shown, truth = widget.result_layer.data == value, tiny_labels == value
        assert 2 * (shown & truth).sum() > 0.7 * (shown.sum() + truth.sum())
    assert notes == []
