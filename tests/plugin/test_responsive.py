"""Files are read in a thread while the window goes on drawing."""

import threading

import nibabel as nib
import numpy as np
from qtpy.QtCore import QTimer

from napari_medgs.data import phantom
from napari_medgs.errors import FileError
from napari_medgs.plugin import reader
from napari_medgs.plugin.responsive import run_responsive


def test_an_opened_file_is_read_in_a_thread(make_viewer, qtbot, tmp_path, monkeypatch, notes):
    viewer = make_viewer()
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4)), path)
    ticked, readers = threading.Event(), []
    read = reader.read_volume_layers

    def slow(path):
        readers.append(threading.current_thread())
        assert ticked.wait(20)  # the event loop goes on meanwhile
        return read(path)

    monkeypatch.setattr(reader, "read_volume_layers", slow)
    opened = []

    def drop():
        QTimer.singleShot(30, ticked.set)
        opened.extend(viewer.open(path, plugin="napari-medgs"))

    QTimer.singleShot(0, drop)
    qtbot.waitUntil(lambda: bool(opened), timeout=30_000)
    assert opened == list(viewer.layers)
    assert readers[0] is not threading.main_thread()
    # A script gets its layers from the same call, as ever.
    assert [x.data.shape for x in viewer.open(path, plugin="napari-medgs")] == [(6, 5, 4)]
    assert readers[1] is threading.main_thread()
    assert notes == []


def test_failures_arrive_where_they_are_caught(make_viewer, qtbot):
    make_viewer()
    seen = []

    def fail():
        raise FileError("no such file")

    def call():
        try:
            run_responsive(fail, "Reading")
        except FileError as error:
            seen.append(str(error))

    QTimer.singleShot(0, call)
    qtbot.waitUntil(lambda: bool(seen), timeout=10_000)
    assert seen == ["no such file"]


def test_a_sample_is_made_in_a_thread(make_viewer, qtbot, monkeypatch):
    viewer = make_viewer()
    ticked, makers = threading.Event(), []
    make = phantom.make_phantom

    def slow():
        makers.append(threading.current_thread())
        assert ticked.wait(20)
        return make()

    monkeypatch.setattr(phantom, "make_phantom", slow)
    opened = []

    def choose():
        QTimer.singleShot(30, ticked.set)
        opened.extend(viewer.open_sample("napari-medgs", "phantom"))

    QTimer.singleShot(0, choose)
    qtbot.waitUntil(lambda: bool(opened), timeout=30_000)
    assert opened == list(viewer.layers)
    assert makers[0] is not threading.main_thread()
