"""The Load widget lists the DICOM series of a study or a disc."""

import numpy as np
import pytest
from pydicom.fileset import FileSet
from qtpy.QtCore import QTimer

from napari_medgs.plugin.load.series_table import series_choices
from napari_medgs.plugin.load.widget import LoadWidget
from tests.io.test_dicom import write_series

PATIENT = {"PatientID": "1", "PatientName": "Doe^Jane"}


@pytest.fixture
def study(tmp_path):
    """Two series in folders of a study, the second with two echoes."""
    place = tmp_path / "study" / "DICOM"
    place.mkdir(parents=True)
    write_series(place / "a", 6, series="1.2.3.1", SeriesDescription="thorax", **PATIENT)
    tags = {"Modality": "MR", "SeriesDescription": "T2*", **PATIENT}
    write_series(place / "b", 4, series="1.2.3.2", EchoTime=4.6, **tags)
    write_series(place / "b", 4, series="1.2.3.2", EchoTime=20, prefix="b", slope=2, **tags)
    return tmp_path / "study"


def rows(table):
    items = [table.topLevelItem(row) for row in range(table.topLevelItemCount())]
    return [tuple(item.text(column) for column in range(4)) for item in items]


WANTED = [
    ("CT", "thorax", "6", "2 × 0.7 × 0.6"),
    ("MR", "T2*, echo time 4.6", "4", "2 × 0.7 × 0.6"),
    ("MR", "T2*, echo time 20", "4", "2 × 0.7 × 0.6"),
]


def test_choices_are_described_without_the_patient(study):
    choices = series_choices(study)
    assert [choice.key for choice in choices] == ["1", "2.1", "2.2"]
    assert [choice.columns for choice in choices] == WANTED
    assert "Jane" not in str(choices)


def test_what_is_no_dicom_folder_has_no_series(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    for path in (tmp_path, tmp_path / "a.txt", tmp_path / "missing"):
        assert series_choices(path) == []


@pytest.fixture
def loader(make_viewer):
    viewer = make_viewer()
    widget = LoadWidget(viewer)
    viewer.window.add_dock_widget(widget)
    return widget


def wait_done(qtbot, widget):
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=60_000)


@pytest.mark.parametrize("how", ["folder button", "open button"])
def test_a_series_of_a_study_is_chosen_from_a_list(loader, qtbot, study, how, notes):
    assert loader.series.isHidden()
    if how == "folder button":
        loader.choose_folder(study)
    else:
        loader.path.setText(str(study))
        loader.run()
    wait_done(qtbot, loader)
    assert loader.made == []
    assert not loader.series.isHidden()
    assert not loader.series_hint.isHidden()
    assert rows(loader.series) == WANTED
    loader.series.choose("2.2")
    loader.run()
    wait_done(qtbot, loader)
    (layer,) = loader.made
    assert layer.data.shape == (4, 5, 7)
    assert layer.data[0, 0, 1] == 2
    np.testing.assert_allclose(layer.scale, (2, 0.7, 0.6))
    with pytest.raises(KeyError):
        loader.series.choose("9")
    # Another path has other series.
    loader.path.setText(str(study / "DICOM" / "a"))
    assert loader.series.isHidden()
    assert loader.series.chosen is None
    loader.run()
    wait_done(qtbot, loader)
    assert loader.made[0].data.shape == (6, 5, 7)
    assert notes == []


def test_a_disc_is_opened_by_its_directory_file(loader, qtbot, tmp_path, notes):
    numbers = {"StudyDate": "20200101", "StudyTime": "120000", "StudyID": "1", "SeriesNumber": 1}
    disc = FileSet()
    for file in write_series(tmp_path / "s", **PATIENT, **numbers).iterdir():
        disc.add(file)
    disc.write(tmp_path / "disc")
    loader.path.setText(str(tmp_path / "disc" / "DICOMDIR"))
    loader.run()
    wait_done(qtbot, loader)
    assert loader.made[0].data.shape == (6, 5, 7)
    assert notes == []


def test_a_dropped_study_is_listed_to_choose_from(make_viewer, qtbot, study, notes):
    viewer = make_viewer()
    QTimer.singleShot(0, lambda: viewer.open(str(study), plugin="napari-medgs"))

    def listed():
        loaders = viewer.window._qt_window.findChildren(LoadWidget)
        return bool(loaders) and rows(loaders[0].series) == WANTED

    qtbot.waitUntil(listed, timeout=60_000)
    assert len(viewer.layers) == 0
    # One series of a study needs no question.
    opened = []
    QTimer.singleShot(
        0, lambda: opened.extend(viewer.open(str(study / "DICOM" / "a"), plugin="napari-medgs"))
    )
    qtbot.waitUntil(lambda: bool(opened), timeout=60_000)
    assert opened[0].data.shape[0] == 6
    assert notes == []
