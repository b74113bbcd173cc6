"""DICOM masks in the viewer: opened as layers, saved on the series of the image."""

from __future__ import annotations

import napari
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_medgs import io
from napari_medgs.errors import FileError
from napari_medgs.io.segmented import read_segmented
from napari_medgs.plugin.export.jobs import export_job
from napari_medgs.plugin.layer_metadata import NAMES_KEY
from napari_medgs.plugin.reader import get_reader
from napari_medgs.plugin.writer import save_labels, write_labels_layer
from tests.io.test_dicom import write_series
from tests.io.test_dicom_masks import FRAME, NAMES, oblique, random_labels
from tests.io.test_dicom_structures import STRUCTURES, box, write_structures

SUFFIXES = [".dcm", ".rtstruct.dcm"]


@pytest.fixture
def study(tmp_path):
    """Make an oblique series with a mask; return its folder, its grid and the labels."""
    folder = write_series(tmp_path / "ct", series="1.2.9", **oblique(), **FRAME)
    grid = io.read_volume(folder).grid
    return folder, grid, random_labels(grid.shape)


def opened(path):
    return get_reader(str(path))(str(path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_layers_of_a_mask_are_saved_as_they_came(study, tmp_path, monkeypatch, suffix):
    folder, grid, labels = study
    path = tmp_path / f"m{suffix}"
    colors = {2: (1, 0.2, 0.4), 7: (0, 0, 1), 300: (1, 1, 0)}
    io.write_labels(path, labels, grid, NAMES, colors=colors, source=folder)
    viewer = ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    ((image, options, _),) = opened(folder)
    viewer.add_image(image, **options)
    ((data, options, kind),) = opened(path)
    assert kind == "labels"
    layer = viewer.add_labels(data, **options)
    for out in (tmp_path / "out.dcm", tmp_path / "out.rtstruct.dcm"):
        save_labels(out, layer)
        found, place, table = read_segmented(out, grid)
        np.testing.assert_array_equal(found, labels)
        assert place is grid
        assert table.names == {**NAMES, 300: "a / b"}
        for value, color in colors.items():
            np.testing.assert_allclose(table.colors[value], color, atol=4e-3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_painted_mask_is_exported_on_its_image(study, tmp_path, monkeypatch, suffix):
    folder, grid, labels = study
    viewer = ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    ((image, options, _),) = opened(folder)
    source = viewer.add_image(image, **options)
    painted = viewer.add_labels(labels, scale=source.scale, translate=source.translate,
                                affine=source.affine)  # fmt: skip
    painted.metadata[NAMES_KEY] = {2: "liver"}
    viewer.add_points(np.zeros((1, 3)), name="seeds")
    viewer.add_surface((np.eye(3), np.array([[0, 1, 2]])))
    out = tmp_path / f"m{suffix}"
    export_job("mask", painted, out)(lambda event: None, lambda: False)
    np.testing.assert_array_equal(io.read_labels(out, grid)[0], labels)
    assert io.read_label_names(out)[2] == "liver"


def test_without_the_series_there_is_one_line(study, tmp_path, monkeypatch, notes):
    _, grid, labels = study
    nifti = io.write_labels(tmp_path / "m.nii.gz", labels, grid)
    monkeypatch.setattr(napari, "current_viewer", lambda: None)
    ((data, options, _),) = opened(nifti)
    with pytest.raises(FileError, match="open the DICOM series beside it"):
        save_labels(tmp_path / "m.dcm", Labels(data, **options))
    assert write_labels_layer(str(tmp_path / "m.dcm"), data, options) == []
    assert "open the DICOM series beside it" in notes[-1][1]
    assert not (tmp_path / "m.dcm").exists()


def test_overlapping_structures_are_layers_of_their_own(tmp_path):
    folder = write_series(tmp_path / "ct", series="1.2.9")
    both = {**STRUCTURES, "body": [box(2, 0, 0, 4, 6)]}
    file = write_structures(folder / "rs.dcm", both, "1.2.9")
    layers = opened(file)
    assert [options["name"] for _, options, _ in layers] == ["rs liver", "rs spleen", "rs body"]
    assert [np.unique(data).tolist() for data, _, _ in layers] == [[0, 1], [0, 2], [0, 3]]
