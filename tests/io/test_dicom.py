"""DICOM series made by hand: order, place, rescaling, and what must be refused."""

from __future__ import annotations

import warnings

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

from napari_medgs import io
from napari_medgs.errors import FileError, GeometryError, ImageError, MemoryEstimateError
from napari_medgs.io.dicom.series import list_series, read_dicom

ROW = np.array([1.0, 0, 0])
COLUMN = np.array([0.0, 1, 0])


def write_slice(path, pixels, position, *, series, row=ROW, column=COLUMN, spacing=(0.7, 0.6),
                number=1, slope=1, intercept=0, **tags):  # fmt: skip
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID = series
    data.StudyInstanceUID = "1.2.3"
    data.Modality = "CT"
    data.SeriesDescription = "thorax"
    data.InstanceNumber = number
    data.Rows, data.Columns = pixels.shape[:2]
    data.PixelSpacing = [float(s) for s in spacing]
    data.SliceThickness = 2
    if position is not None:
        data.ImagePositionPatient = [float(p) for p in position]
        data.ImageOrientationPatient = [float(v) for v in (*row, *column)]
    data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.RescaleSlope, data.RescaleIntercept = str(slope), str(intercept)
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = np.ascontiguousarray(pixels).tobytes()
    data.save_as(path, enforce_file_format=True)


def write_series(folder, count=6, *, step=2.0, row=ROW, column=COLUMN, start=(-50.0, -40.0, 30.0),
                 along=None, skip=(), shuffle=True, series=None, prefix="", values=None,
                 **options):  # fmt: skip
    """Write slices whose pixel at row r, column c of slice k is 100 k + 10 r + c."""
    folder.mkdir(exist_ok=True)
    series = series or generate_uid()
    along = np.cross(row, column) if along is None else np.asarray(along)
    names = np.random.default_rng(3).permutation(count) if shuffle else np.arange(count)
    r, c = np.meshgrid(np.arange(5), np.arange(7), indexing="ij")
    for k in range(count):
        if k in skip:
            continue
        pixels = (100 * k + 10 * r + c).astype(np.int16) if values is None else values(k)
        position = np.asarray(start) + k * step * along
        name = f"{prefix}im{names[k]:03d}"
        write_slice(folder / name, pixels, position, series=series, row=row, column=column,
                    number=int(names[k]), **options)  # fmt: skip
    return folder


def test_series_is_sorted_and_placed(tmp_path):
    volume = io.read_volume(write_series(tmp_path / "s", slope=2, intercept=-1024))
    # Axial, rows to posterior, columns to left, slices to superior: already canonical.
    k, r, c = np.meshgrid(np.arange(6), np.arange(5), np.arange(7), indexing="ij")
    np.testing.assert_array_equal(volume.data[0], 2 * (100 * k + 10 * r + c) - 1024)
    assert volume.spacing == pytest.approx((2, 0.7, 0.6))
    # DICOM says LPS (-50, -40, 30); in RAS x and y change sign.
    np.testing.assert_allclose(volume.affine[:3, 3], [50, 40, 30])
    np.testing.assert_allclose(
        volume.affine[:3, :3], [[0, 0, -0.6], [0, -0.7, 0], [2, 0, 0]], atol=1e-12
    )
    assert volume.channel_names == ("thorax",)
    assert volume.units == "HU"


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ((0, 1, 0), (0, 0, -1)),  # sagittal
        ((1, 0, 0), (0, 0, -1)),  # coronal
        ((-1, 0, 0), (0, -1, 0)),
        ((0.9602, 0.2794, 0.0), (-0.2730, 0.9381, 0.2132)),  # oblique
    ],
)
def test_any_orientation(tmp_path, row, column):
    row = np.asarray(row) / np.linalg.norm(row)
    column = np.asarray(column) - row * (row @ column)
    column /= np.linalg.norm(column)
    volume = io.read_volume(write_series(tmp_path / "s", row=row, column=column))
    normal = np.cross(row, column)
    for k, r, c in ((0, 0, 0), (5, 4, 6), (2, 3, 1)):
        lps = np.array([-50.0, -40, 30]) + k * 2 * normal + r * 0.7 * column + c * 0.6 * row
        at = np.rint(volume.grid.to_voxel(lps * [-1, -1, 1])).astype(int)
        np.testing.assert_allclose(volume.grid.to_world(at), lps * [-1, -1, 1], atol=1e-3)
        assert volume.data[(0, *at)] == 100 * k + 10 * r + c


def test_same_place_as_simpleitk_and_nifti(tmp_path):
    import SimpleITK as sitk

    folder = write_series(tmp_path / "s")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(files)
    volume = io.read_volume(folder)
    lps = np.array(image.TransformIndexToPhysicalPoint((3, 2, 4)))
    at = np.rint(volume.grid.to_voxel(lps * [-1, -1, 1])).astype(int)
    assert volume.data[(0, *at)] == image[3, 2, 4]
    # A mask is written in the series' own order: columns, rows, slices.
    io.write_labels(tmp_path / "m.nii.gz", volume.data[0] > 300, volume.grid)
    mask = nib.load(tmp_path / "m.nii.gz")
    assert mask.shape == (7, 5, 6)
    np.testing.assert_allclose(mask.affine @ [3, 2, 4, 1], [*(lps * [-1, -1, 1]), 1], atol=1e-4)
    assert mask.header["sform_code"] == mask.header["qform_code"] == 1
    labels, _ = io.read_labels(tmp_path / "m.nii.gz", like=volume.grid)
    np.testing.assert_array_equal(labels, volume.data[0] > 300)


def test_slices_may_rescale_differently(tmp_path):
    folder, series = tmp_path / "s", generate_uid()
    folder.mkdir()
    for k, slope in enumerate((1, 0.5, 0.25)):
        write_slice(folder / f"{k}.dcm", np.full((4, 4), 100, np.int16), (0, 0, 2 * k),
                    series=series, slope=slope)  # fmt: skip
    volume = io.read_volume(folder)
    assert volume.data.dtype == np.float32
    np.testing.assert_array_equal(volume.data[0, :, 0, 0], [100, 50, 25])


def test_gantry_tilt_is_kept(tmp_path):
    tilt = np.radians(15)
    along = np.array([0, np.tan(tilt), 1.0])
    folder = write_series(tmp_path / "s", along=along)
    with pytest.warns(UserWarning, match=r"tilted by 15.0 degrees"):
        volume = io.read_volume(folder)
    lps = np.array([-50.0, -40, 30]) + 4 * 2 * along + [3 * 0.6, 2 * 0.7, 0]
    at = volume.grid.to_voxel(lps * [-1, -1, 1])
    np.testing.assert_allclose(at, np.rint(at), atol=1e-6)
    assert volume.data[(0, *np.rint(at).astype(int))] == 100 * 4 + 10 * 2 + 3


def test_missing_slices(tmp_path):
    folder = write_series(tmp_path / "s", 8, skip=(3,))
    with pytest.raises(GeometryError, match=r"1 slice is missing: the step between .* is 4 mm"):
        io.read_volume(folder)
    folder = write_series(tmp_path / "t", 9, skip=(3, 4))
    with pytest.raises(GeometryError, match="2 slices are missing"):
        io.read_volume(folder)


def uneven(folder, shift):
    series = generate_uid()
    folder.mkdir()
    for k in range(6):
        z = 2 * k + shift * (k > 3)
        write_slice(folder / f"{k}.dcm", np.full((4, 4), k, np.int16), (0, 0, z), series=series)
    return folder


def test_uneven_slices(tmp_path):
    with pytest.raises(GeometryError, match=r"unevenly spaced: 2.6 mm between 3.dcm and 4.dcm"):
        io.read_volume(uneven(tmp_path / "a", 0.6))
    with pytest.warns(UserWarning, match=r"vary by 3.0%"):
        volume = io.read_volume(uneven(tmp_path / "b", 0.06))
    assert volume.spacing[0] == pytest.approx(10.06 / 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        io.read_volume(uneven(tmp_path / "c", 0.0001))


def test_doubled_slices(tmp_path):
    series = generate_uid()
    folder = write_series(tmp_path / "s", series=series)
    write_series(folder, series=series, prefix="echo2")
    with pytest.raises(GeometryError, match=r"same position .* several time points or echoes"):
        io.read_volume(folder)


def test_several_series(tmp_path):
    folder = write_series(tmp_path / "s", series="1.2.3.1")
    write_series(folder, 4, series="1.2.3.2", prefix="b", SeriesDescription="scout",
                 Modality="MR")  # fmt: skip
    with pytest.raises(
        FileError, match=r"holds 2 series; choose one\. 1: CT thorax, 6 files"
    ) as e:
        io.read_volume(folder)
    assert "2: MR scout, 4 files" in str(e.value)
    found = list_series(folder)
    assert [len(s.files) for s in found] == [6, 4]
    assert io.read_volume(folder, series="2").shape[0] == 4
    volume = io.read_volume(folder, series=found[1].uid)
    assert (volume.units, volume.channel_names) == ("", ("scout",))
    with pytest.raises(FileError, match=r"no series '7' here. There are: 1: CT"):
        io.read_volume(folder, series="7")


def test_mixed_stacks(tmp_path):
    series = generate_uid()
    folder = write_series(tmp_path / "s", series=series)
    write_slice(folder / "x", np.ones((4, 4), np.int16), (0, 0, 99), series=series)
    # GDCM may part them by itself; either way the user is told.
    with pytest.raises((GeometryError, FileError), match=r"(mixes slices|holds 2 series)"):
        io.read_volume(folder)
    folder = write_series(tmp_path / "t", series=series)
    write_slice(folder / "x", np.ones((5, 7), np.int16), (0, 0, 99), series=series,
                column=np.array([0, 0, -1.0]))  # fmt: skip
    with pytest.raises((GeometryError, FileError), match=r"(mixes orientations|holds 2 series)"):
        io.read_volume(folder)


def test_no_positions(tmp_path):
    folder, series = tmp_path / "s", generate_uid()
    folder.mkdir()
    for k in (2, 0, 1):
        write_slice(folder / f"{9 - k}", np.full((4, 5), k, np.int16), None, series=series,
                    number=k + 1)  # fmt: skip
    with pytest.raises(GeometryError, match=r"carry no position .* Give the spacing"):
        io.read_volume(folder)
    volume = io.read_volume(folder, spacing=(3, 1, 2))
    assert volume.spacing == (3, 1, 2)
    np.testing.assert_array_equal(volume.data[0, :, 0, 0], [0, 1, 2])


def test_a_spacing_is_only_for_files_without_one(tmp_path):
    with pytest.raises(GeometryError, match="has its own geometry"):
        io.read_volume(write_series(tmp_path / "s"), spacing=(1, 1, 1))


def test_colors(tmp_path):
    folder = write_series(tmp_path / "s", values=lambda k: np.full((5, 7, 3), k, np.uint8))
    with pytest.raises(ImageError, match="colors"):
        io.read_volume(folder)


def test_one_slice_and_one_file(tmp_path):
    folder = write_series(tmp_path / "s", 1)
    volume = io.read_volume(folder)
    assert volume.shape == (1, 5, 7)
    assert volume.spacing[0] == pytest.approx(2)
    file = next(folder.iterdir())
    np.testing.assert_array_equal(io.read_volume(file).data, volume.data)


def test_several_frames_in_one_file(tmp_path):
    from pydicom.sequence import Sequence

    frames = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)
    file = tmp_path / "multi.dcm"
    write_slice(file, frames[0], None, series=generate_uid(), SliceThickness=2.5)
    data = pydicom.dcmread(file)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    data.NumberOfFrames = 4
    data.PixelData = frames.tobytes()
    for name in ("PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept"):
        delattr(data, name)

    def group(**items):
        inner = pydicom.Dataset()
        for name, value in items.items():
            setattr(inner, name, value)
        return Sequence([inner])

    shared = pydicom.Dataset()
    shared.PixelMeasuresSequence = group(PixelSpacing=[0.6, 0.5], SliceThickness=2.5)
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelValueTransformationSequence = group(
        RescaleSlope=2, RescaleIntercept=-1000, RescaleType="HU"
    )
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    each = []
    for k in range(4):
        item = pydicom.Dataset()
        item.PlanePositionSequence = group(ImagePositionPatient=[10, 20, 30 + 2.5 * k])
        each.append(item)
    data.PerFrameFunctionalGroupsSequence = Sequence(each)
    data.save_as(file)
    volume = io.read_volume(file)
    np.testing.assert_array_equal(volume.data[0], 2 * frames.astype(int) - 1000)
    assert volume.spacing == pytest.approx((2.5, 0.6, 0.5))
    np.testing.assert_allclose(volume.affine[:3, 3], [-10, -20, 30])


def test_other_objects_in_the_folder_are_passed_over(tmp_path):
    folder = write_series(tmp_path / "s")
    report = pydicom.dcmread(next(folder.iterdir()))
    for name in ("PixelData", "Rows", "Columns", "BitsAllocated"):
        delattr(report, name)
    report.Modality, report.SeriesInstanceUID = "SR", "1.2.3.9"
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID
    report.save_as(folder / "report.dcm")
    (folder / "notes.txt").write_text("hello")
    assert io.read_volume(folder).shape == (6, 5, 7)


@pytest.mark.parametrize("keep", [-30, -90, 600])
@pytest.mark.parametrize("which", [0, 2, 5])
def test_truncated_slices_are_not_left_out_in_silence(tmp_path, which, keep):
    folder = write_series(tmp_path / "s", shuffle=False)
    file = sorted(folder.iterdir())[which]
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(FileError, match=f"{file.name}: truncated or damaged slice"):
        io.read_volume(folder)


def test_a_file_on_which_the_toolkit_gives_up(tmp_path):
    folder = write_series(tmp_path / "s")
    file = sorted(folder.iterdir())[1]
    data = pydicom.dcmread(file)
    data.SamplesPerPixel = 7
    data.save_as(file)
    with pytest.raises(FileError, match="damaged"):
        io.read_volume(folder)


def test_nothing_readable(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"nonsense")
    with pytest.raises(FileError, match="no DICOM image"):
        io.read_volume(tmp_path)
    with pytest.raises(FileError, match="cannot be read as a DICOM image"):
        io.read_volume(tmp_path / "a.dcm")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="neither DICOM slices nor"):
        io.read_volume(tmp_path / "empty")
    with pytest.raises(FileError, match="no such folder"):
        list_series(tmp_path / "none")


def test_little_memory(tmp_path, monkeypatch):
    import psutil

    folder = write_series(tmp_path / "s")
    free = psutil.virtual_memory()._replace(available=100)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(MemoryEstimateError, match="needs about"):
        read_dicom(folder)


def test_claimed_size_beyond_the_file(tmp_path):
    folder = write_series(tmp_path / "s", 1)
    file = next(folder.iterdir())
    data = pydicom.dcmread(file)
    data.Rows = data.Columns = 60000
    data.save_as(file)
    with pytest.raises(FileError, match=r"promises|truncated"):
        io.read_volume(folder)
