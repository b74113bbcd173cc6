"""Readers and writers of NRRD, MetaImage and Slicer's segmentations, without a viewer."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from napari.layers import Image, Labels
from npe2 import PluginManifest

from napari_medgs.data.grid import Grid
from napari_medgs.io import read_label_names, read_labels, write_labels
from napari_medgs.io.itk.segments import read_segments
from napari_medgs.plugin.reader import get_reader
from napari_medgs.plugin.writer import save_image, save_labels
from tests.io.test_dicom import write_series


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.mha"
    image = sitk.GetImageFromArray(np.arange(120, dtype=np.int16).reshape(4, 5, 6) * 7)
    image.SetSpacing((0.5, 0.7, 2))
    image.SetOrigin((10, -20, 30))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz"])
def test_image_layers_come_back_in_place(scan, tmp_path, suffix):
    ((data, options, kind),) = get_reader(str(scan))(str(scan))
    assert kind == "image"
    assert options["name"] == "scan"
    out = save_image(tmp_path / f"out{suffix}", Image(data, **options))
    found, expected = sitk.ReadImage(str(out)), sitk.ReadImage(str(scan))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(found.GetOrigin(), expected.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(found.GetDirection(), expected.GetDirection(), atol=1e-6)


def test_segmentation_keeps_names_and_colors(tmp_path):
    path, out = tmp_path / "s.seg.nrrd", tmp_path / "t.seg.nrrd"
    labels = np.arange(24).reshape(2, 3, 4) % 3
    colors = {1: (1, 0, 0.5), 2: (0, 0.25, 0)}
    write_labels(path, labels, Grid((2, 3, 4)), {1: "left lung", 2: "heart"}, colors=colors)
    ((data, options, kind),) = get_reader(str(path))(str(path))
    assert kind == "labels"
    save_labels(out, Labels(data, **options))
    assert read_segments(out) == read_segments(path)
    np.testing.assert_array_equal(read_labels(out)[0], labels)


def test_overlapping_segments_are_layers_of_their_own(tmp_path):
    layers = np.zeros((3, 4, 5, 2), np.uint8)
    layers[0, ..., 0] = 1
    layers[:2, ..., 1] = 1
    image = sitk.GetImageFromArray(layers, isVector=True)
    for k, name in enumerate(("liver", "tumor")):
        image.SetMetaData(f"Segment{k}_Name", name)
        image.SetMetaData(f"Segment{k}_LabelValue", "1")
        image.SetMetaData(f"Segment{k}_Layer", str(k))
    path = tmp_path / "s.seg.nrrd"
    sitk.WriteImage(image, str(path))
    first, second = get_reader(str(path))(str(path))
    assert [first[1]["name"], second[1]["name"]] == ["s.seg liver", "s.seg tumor"]
    assert first[0].sum() == 20
    assert second[0].sum() == 40
    save_labels(tmp_path / "tumor.nii.gz", Labels(second[0], **second[1]))
    assert read_label_names(tmp_path / "tumor.nii.gz") == {1: "tumor"}


@pytest.mark.parametrize("name", ["a.nrrd", "a.seg.nrrd", "a.mhd", "a.mgz", "a.hdr", "a.gipl.gz"])
def test_offered_for_every_format_of_the_manifest(name):
    assert get_reader(name) is not None
    contributions = PluginManifest.from_distribution("napari-medgs").contributions
    patterns = contributions.readers[0].filename_patterns
    assert any(name.endswith(pattern.removeprefix("*")) for pattern in patterns)


def test_manifest_writers_are_formats_that_are_written(tmp_path):
    contributions = PluginManifest.from_distribution("napari-medgs").contributions
    layer = Labels(np.ones((2, 3, 4), np.uint8))
    (writer,) = (w for w in contributions.writers if w.command.endswith("write_labels"))
    series = write_series(tmp_path / "ct", FrameOfReferenceUID="1.2.3.4")
    ((image, options, _),) = get_reader(str(series))(str(series))
    place = {k: v for k, v in options.items() if k in ("metadata", "scale", "translate", "affine")}
    on_series = Labels(np.ones(image.shape, np.uint8), **place)
    for suffix in writer.filename_extensions:
        source = on_series if suffix.endswith(".dcm") else layer
        assert save_labels(tmp_path / f"a{suffix}", source).is_file()
