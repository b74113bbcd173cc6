"""RT Structure Sets made by hand: values, places, the series they refer to, and refusals."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from napari_medgs import io
from napari_medgs.errors import FileError, GeometryError, LabelError
from napari_medgs.io.dicom.structures import list_structures, read_structures
from tests.io.test_dicom import write_series
from tests.io.test_dicom_frames import item

START, ROW_STEP, COLUMN_STEP, STEP = np.array([-50.0, -40, 30]), 0.7, 0.6, 2.0


def points(k, corners):
    """Return a contour in slice k of ``write_series`` with corners (row, column)."""
    steps = np.array([[c * COLUMN_STEP, r * ROW_STEP, k * STEP] for r, c in corners])
    return (START + steps).tolist()


def box(k, top, left, bottom, right):
    """Return a contour half a pixel around rows top..bottom and columns left..right."""
    t, l, b, r = top - 0.5, left - 0.5, bottom + 0.5, right + 0.5  # noqa: E741
    return points(k, [(t, l), (t, r), (b, r), (b, l)])


def write_structures(path, structures, series="", kind="CLOSED_PLANAR", numbers=None, **tags):
    """Write structures, contours by name, of a series."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = pydicom.uid.RTStructureSetStorage, generate_uid()
    data.SeriesInstanceUID, data.StudyInstanceUID, data.Modality = (
        generate_uid(),
        "1.2",
        "RTSTRUCT",
    )
    refers = item(SeriesInstanceUID=series)
    study = item(RTReferencedSeriesSequence=[refers])
    frame = item(FrameOfReferenceUID="1.2.3.4", RTReferencedStudySequence=[study])
    data.ReferencedFrameOfReferenceSequence = [frame] if series else []
    numbers = numbers or range(1, len(structures) + 1)
    data.StructureSetROISequence = [
        item(ROINumber=n, ROIName=name) for n, name in zip(numbers, structures, strict=True)
    ]
    data.ROIContourSequence = [
        item(
            ReferencedROINumber=n,
            ROIDisplayColor=[255, 0, 51],
            ContourSequence=[
                item(
                    ContourGeometricType=kind,
                    NumberOfContourPoints=len(contour),
                    ContourData=[f"{v:.4f}" for v in np.ravel(contour)],
                )
                for contour in contours
            ],
        )
        for n, contours in zip(numbers, structures.values(), strict=True)
    ]
    for name, value in tags.items():
        setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def ct(tmp_path):
    (tmp_path / "study").mkdir()
    return write_series(tmp_path / "study" / "ct", series="1.2.9")


STRUCTURES = {
    "liver": [box(1, 1, 1, 3, 3), box(2, 1, 1, 3, 4), box(2, 2, 2, 2, 2)],
    "spleen": [box(4, 0, 5, 4, 6)],
}


def truth():
    labels = np.zeros((6, 5, 7), int)
    labels[1, 1:4, 1:4] = labels[2, 1:4, 1:5] = 1
    labels[2, 2, 2] = 0
    labels[4, :, 5:] = 2
    return labels


@pytest.mark.parametrize("place", [".", "ct", "rt", "ct/rt"])
def test_the_series_is_found(ct, place):
    folder = ct.parent / place
    folder.mkdir(exist_ok=True)
    file = write_structures(folder / "rs.dcm", STRUCTURES, "1.2.9")
    labels, grid, found = read_structures(file)
    np.testing.assert_array_equal(labels, truth())
    np.testing.assert_allclose(grid.affine, io.read_volume(ct).grid.affine, atol=1e-9)
    assert [(s.value, s.name, s.color) for s in found] == [
        (1, "liver", (1, 0, 0.2)),
        (2, "spleen", (1, 0, 0.2)),
    ]
    np.testing.assert_array_equal(io.read_volume(file).data[0], truth())
    assert io.read_label_names(file) == {1: "liver", 2: "spleen"}


def test_a_study_without_contours_reads_as_before(ct):
    write_structures(ct / "rs.dcm", STRUCTURES, "1.2.9")
    assert io.read_volume(ct).shape == (6, 5, 7)


def test_on_a_given_image(ct, tmp_path):
    file = write_structures(tmp_path / "rs.dcm", STRUCTURES)
    with pytest.raises(FileError, match="does not say of which series"):
        io.read_labels(file)
    far = write_structures(tmp_path / "far.dcm", STRUCTURES, "1.2.77")
    with pytest.raises(FileError, match=r"series 1\.2\.77, which was not found"):
        io.read_labels(far)
    image = io.read_volume(ct)
    np.testing.assert_array_equal(io.read_labels(far, image.grid)[0], truth())
    nifti = io.write_image(tmp_path / "scan.nii.gz", image.data, image.grid)
    np.testing.assert_array_equal(
        io.read_labels(file, io.read_volume(nifti).grid, segments=["liver"])[0],
        np.where(truth() == 1, 1, 0),
    )


def test_overlaps_are_refused_with_the_choice(ct):
    both = {**STRUCTURES, "body": [box(2, 0, 0, 4, 6)]}
    file = write_structures(ct / "rs.dcm", both, "1.2.9")
    with pytest.raises(LabelError, match=r"'liver' and 'body' overlap.*'liver', 'spleen', 'body'"):
        io.read_labels(file)
    labels, _ = io.read_labels(file, segments=["liver", "2"])
    np.testing.assert_array_equal(labels, truth())
    with pytest.raises(LabelError, match="no segment 'heart'"):
        io.read_labels(file, segments=["heart"])


@pytest.mark.parametrize("numbers", [(0, 5), (3, 3), (-2, 4)])
def test_numbers_that_are_no_labels(ct, numbers):
    file = write_structures(ct / "rs.dcm", STRUCTURES, "1.2.9", numbers=numbers)
    assert [s.value for s in list_structures(file)] == [1, 2]
    np.testing.assert_array_equal(io.read_labels(file)[0], truth())


@pytest.mark.parametrize("kind", ["POINT", "OPEN_PLANAR", ""])
def test_only_closed_contours_are_masks(ct, kind):
    file = write_structures(ct / "rs.dcm", STRUCTURES, "1.2.9", kind=kind)
    assert list_structures(file) == []
    with pytest.raises(LabelError, match="no structure has a closed contour"):
        io.read_labels(file)


def test_contours_that_do_not_lie_on_slices(ct):
    between = write_structures(ct / "a.dcm", {"x": [box(1.5, 1, 1, 3, 3)]}, "1.2.9")
    with pytest.raises(GeometryError, match=r"contour of 'x' lies between two slices .*0\.50"):
        io.read_labels(between)
    slanted = points(0, [(1, 1), (1, 4), (4, 4)])
    slanted[2][2] += 3
    slanted[1][0] += 0.2
    file = write_structures(ct / "b.dcm", {"x": [slanted]}, "1.2.9")
    with pytest.raises(GeometryError, match="do not lie in planes of the image's voxels"):
        io.read_labels(file)
    rounded = write_structures(ct / "c.dcm", {"x": [box(1.04, 1, 1, 3, 3)]}, "1.2.9")
    assert io.read_labels(rounded)[0].sum() == 9


def test_contours_outside_and_apart(ct):
    contours = {"x": [box(9, 1, 1, 3, 3), box(1, 1, 20, 3, 23), box(1, 3, 5, 30, 40)]}
    file = write_structures(ct / "a.dcm", contours, "1.2.9")
    with pytest.warns(UserWarning, match="2 contours lie outside the image"):
        labels, _ = io.read_labels(file)
    assert np.argwhere(labels).tolist() == [[1, 3, 5], [1, 3, 6], [1, 4, 5], [1, 4, 6]]
    apart = {"x": [box(k, 1, 1, 3, 3) for k in (0, 2, 4)]}
    with pytest.warns(UserWarning, match="on every 2. slice only"):
        io.read_labels(write_structures(ct / "b.dcm", apart, "1.2.9"))


@pytest.mark.parametrize("data", [["1", "2"], ["1", "2", "nan"], []])
def test_damaged_contours(ct, data):
    file = write_structures(ct / "a.dcm", STRUCTURES, "1.2.9")
    read = pydicom.dcmread(file)
    read.ROIContourSequence[0].ContourSequence[0].ContourData = data
    with pydicom.config.disable_value_validation():
        read.save_as(file)
    with pytest.raises(FileError, match="damaged: a contour is no list of points"):
        io.read_labels(file)


def test_no_structure_set(ct):
    with pytest.raises(FileError, match="no RT Structure Set"):
        list_structures(next(ct.iterdir()))


def test_only_the_series_with_the_listed_slices_is_taken(ct, tmp_path):
    grid = io.read_volume(ct).grid
    placed = write_series(tmp_path / "placed", series="1.2.9", FrameOfReferenceUID="1.2.3.4")
    file = tmp_path / "m.rtstruct.dcm"
    io.write_labels(file, truth(), grid, source=placed)
    np.testing.assert_array_equal(io.read_labels(file)[0], truth())
    for path in placed.iterdir():
        path.unlink()
    with pytest.raises(FileError, match="was not found beside"):
        io.read_labels(file)
