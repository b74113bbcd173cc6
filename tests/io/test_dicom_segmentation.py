"""DICOM segmentations written by highdicom: values, places, names, and overlaps refused."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from napari_medgs import io
from napari_medgs.errors import FileError, LabelError
from napari_medgs.io.dicom.segmentation import read_dicom_segmentation, read_dicom_segments
from tests.io.test_dicom import write_series

highdicom = pytest.importorskip("highdicom")


def write_seg(folder, masks, path, kind="BINARY", names=("liver", "spleen"), sources=slice(None)):
    """Write masks, (slices, rows, columns, segments), on the series of a folder."""
    from highdicom.seg import Segmentation, SegmentDescription
    from highdicom.sr.coding import CodedConcept

    organ = CodedConcept("91723000", "SCT", "Anatomical Structure")
    images = [pydicom.dcmread(p) for p in folder.iterdir()]
    images.sort(key=lambda d: d.ImagePositionPatient[2])
    for image in images:
        image.FrameOfReferenceUID = "1.2.3.4"
        for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID",
                     "StudyDate", "StudyTime", "AccessionNumber"):  # fmt: skip
            setattr(image, name, "")
    described = [
        SegmentDescription(k, name, organ, organ, "MANUAL") for k, name in enumerate(names, 1)
    ]
    Segmentation(
        images[sources], masks, kind, described, "1.2.3.9", 1, "1.2.3.9.1", 1, "maker", "model",
        "1", "serial",
    ).save_as(path)  # fmt: skip
    return path


def boxes(overlap=False):
    masks = np.zeros((6, 5, 7, 2), np.uint8)
    masks[1:4, 1:4, 2:5, 0] = 1
    masks[4:, 3:, 4:, 1] = 1
    if overlap:
        masks[2, 2, 3, 1] = 1
    return masks


def test_segments_lie_on_the_series(tmp_path):
    folder = write_series(tmp_path / "s")
    file = write_seg(folder, boxes(), tmp_path / "seg.dcm")
    image = io.read_volume(folder)
    truth = boxes()[..., 0] + 2 * boxes()[..., 1]
    # The file leaves out the empty slice; on the image's grid it is there.
    labels, grid = io.read_labels(file, like=image.grid)
    np.testing.assert_array_equal(labels, truth)
    assert grid is image.grid
    own, own_grid = io.read_labels(file)
    for z, y, x in np.argwhere(own):
        at = image.grid.to_voxel(own_grid.to_world([z, y, x]))
        np.testing.assert_allclose(at, np.rint(at), atol=1e-4)
        assert truth[tuple(np.rint(at).astype(int))] == own[z, y, x]
    assert [(s.value, s.name) for s in read_dicom_segments(file)] == [(1, "liver"), (2, "spleen")]
    assert io.read_label_names(file) == {1: "liver", 2: "spleen"}
    np.testing.assert_array_equal(io.read_volume(file).data[0], own)


def test_gap_between_segments(tmp_path):
    masks = np.zeros((6, 5, 7, 2), np.uint8)
    masks[:2, 1, 1, 0] = masks[5, 2, 2, 1] = 1
    folder = write_series(tmp_path / "s")
    file = write_seg(folder, masks, tmp_path / "seg.dcm")
    labels, _ = io.read_labels(file)
    np.testing.assert_array_equal(labels, masks[..., 0] + 2 * masks[..., 1])


def test_overlapping_segments(tmp_path):
    folder = write_series(tmp_path / "s")
    file = write_seg(folder, boxes(overlap=True), tmp_path / "seg.dcm")
    with pytest.raises(LabelError, match=r"'liver' and 'spleen' overlap.* of: 'liver', 'spleen'"):
        io.read_labels(file)
    labels, _, found = read_dicom_segmentation(file, segments=["spleen"])
    assert [s.value for s in found] == [2]
    assert int((labels == 2).sum()) == int(boxes(overlap=True)[..., 1].sum())
    like = io.read_volume(folder).grid
    chosen, _ = io.read_labels(file, like=like, segments=["2"])
    np.testing.assert_array_equal(chosen, 2 * boxes(overlap=True)[..., 1])
    with pytest.raises(LabelError, match=r"no segment 'heart'. There are: 'liver'"):
        read_dicom_segmentation(file, segments=["heart"])


def test_fractional_segments(tmp_path):
    folder = write_series(tmp_path / "s")
    file = write_seg(folder, boxes()[..., :1] * 0.5, tmp_path / "f.dcm", "FRACTIONAL", ("liver",))
    with pytest.raises(LabelError, match="fractional"):
        io.read_labels(file)


def test_structure_sets_are_named():
    file = pydicom.data.get_testdata_file("rtstruct.dcm", download=False)
    with pytest.raises(FileError, match="contours"):
        io.read_volume(file)
