"""The steps after the mask: saving, lists of classes, going on to the next case."""

import json

import nibabel as nib
import numpy as np
import pytest
import trimesh
from qtpy.QtWidgets import QFileDialog

from napari_medgs.io import write_image, write_labels
from napari_medgs.plugin.segment.cases import next_image
from napari_medgs.segmentation import CaseStore, ClassList, save_classes
from tests.plugin.strokes import WAIT, begin, idle


@pytest.fixture
def folder(tmp_path, tiny_volume, tiny_labels):
    """Two images and a mask of one."""
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.nii.gz", tiny_volume.channel(0), tiny_volume.grid)
    write_labels(tmp_path / "a_mask.nii.gz", tiny_labels, tiny_volume.grid)
    return tmp_path


def test_the_next_image_is_no_mask_and_not_kept(folder):
    a, b = folder / "a.nii.gz", folder / "b.nii.gz"
    assert next_image(a, set()) == b
    assert next_image(b, set()) == a
    assert next_image(a, {str(b)}) is None
    assert next_image(folder / "c.nii.gz", set()) is None


def test_everything_is_saved_beside_the_image_and_the_next_case_opens(
    docked, qtbot, notes, folder, monkeypatch
):
    viewer, widget = docked(image=False)
    assert not widget.view.saving.next.isEnabled()
    viewer.open(str(folder / "a.nii.gz"), plugin="napari-medgs")
    qtbot.waitUntil(widget.view.saving.next.isEnabled, timeout=WAIT)
    widget.view.table.fill([1, 2], 255, {1: "liver"})
    begin(qtbot, widget)
    asked = []

    def save_name(parent, title, start, kinds):
        asked.append(start)
        return start, kinds

    monkeypatch.setattr(QFileDialog, "getSaveFileName", save_name)
    view = widget.view
    view.saving.everything.click()
    qtbot.waitUntil(lambda: widget.state.saved, timeout=WAIT)
    assert asked == [str(folder / "a_mask-2.nii.gz")]  # a_mask is there already
    mask = np.asarray(nib.load(folder / "a_mask-2.nii.gz").dataobj)
    assert set(np.unique(mask)) == {0, 1, 2}
    assert len(trimesh.load(folder / "a_mesh-2.ply", process=False).faces) > 50
    session = json.loads((folder / "a_session-2.json").read_text())
    assert session["names"]["1"] == "liver"
    assert view.saving.next.objectName() == "medgs-primary"
    view.saving.next.click()
    qtbot.waitUntil(lambda: "b" in viewer.layers, timeout=WAIT)
    assert "a" not in viewer.layers
    assert view.table.name(1) == "liver"
    assert widget.strokes_layer is not None
    store = CaseStore(folder / "medgs-cases")
    assert store.names == ["a"]
    assert store.record("a").session
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert notes == []


def test_an_open_file_is_not_written_over(docked, qtbot, notes, folder, monkeypatch):
    viewer, widget = docked(image=False)
    viewer.open(str(folder / "a.nii.gz"), plugin="napari-medgs")
    begin(qtbot, widget)
    before = {path: path.read_bytes() for path in folder.glob("*.nii.gz")}
    for name in ("a.nii.gz", "a"):
        widget.saving.save("mask", folder / name)
        severity, text = notes.pop()
        assert severity == "error"
        assert "a.nii.gz: is open in the viewer" in text
    # The dialog has asked about "b", not about the image "b.nii.gz".
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(folder / "b"), ""))
    for button in (widget.view.saving.mask, widget.view.saving.everything):
        button.click()
        severity, text = notes.pop()
        assert severity == "error"
        assert "b.nii.gz: exists. To replace it, choose it in the dialog" in text
    (folder / "b.json").write_text("{}")
    widget.view.saving.session.click()
    assert "b.json: exists" in notes.pop()[1]
    assert not widget.saving.busy
    assert {path: path.read_bytes() for path in before} == before


def test_classes_come_from_a_file_and_can_be_hidden_and_chosen_by_number(docked, qtbot, tmp_path):
    _, widget = docked()
    code = ("10200004", "SCT", "Liver")
    classes = ClassList.of({1: "liver", 7: "tumor"}, {7: (0.0, 1.0, 0.0)}, {1: (None, code)})
    widget.class_files.load(save_classes(tmp_path / "classes.json", classes))
    table = widget.view.table
    assert table.values == [255, 1, 7]
    assert widget.class_files.current().names == classes.names
    assert widget.class_files.current().codes == classes.codes
    layer = begin(qtbot, widget)
    table.toggle_hidden(7)
    assert widget.result_layer.get_color(7) is None or widget.result_layer.get_color(7)[3] == 0
    keys = {str(code): action for code, action in layer.keymap.items()}
    keys["3"](layer)  # the third row: class 2 was painted meanwhile
    assert table.value == 7
    keys["0"](layer)
    assert table.value == 255
    held = keys["E"](layer)
    next(held)
    assert layer.mode == "erase"
    idle(qtbot, widget)
    next(held, None)
    brush, result = widget.view.brush, widget.result_layer
    brush.outline.click()
    assert result.contour == 1
    result.contour = 0  # in napari's own controls
    assert not brush.outline.isChecked()
    brush.mask.click()
    assert not result.visible
    brush.toggle_mask()
    assert result.visible
    assert brush.mask.isChecked()
