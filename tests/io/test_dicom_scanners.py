"""What scanners and archives write: nuclear medicine, phases, private elements, copies."""

from __future__ import annotations

import shutil
import warnings

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence

from napari_medgs import io
from napari_medgs.errors import FileError, GeometryError
from napari_medgs.io.dicom.series import list_series
from tests.io.test_dicom import write_series, write_slice
from tests.io.test_dicom_frames import START, STEP, along_z, check_places, item, pattern, start

NUCLEAR = "1.2.840.10008.5.1.4.1.1.20"
SLICES, SLOTS, WINDOWS, ANGLES, TIMES = 0x00540080, 0x00540070, 0x00540010, 0x00540090, 0x00540100


def write_nuclear(path, count, kind="RECON TOMO", *, step=STEP, **tags):
    place = item(ImagePositionPatient=list(START), ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    data = start(path, NUCLEAR, pattern(count), Modality="NM", PixelSpacing=[0.7, 0.5],
                 SpacingBetweenSlices=step, ImageType=["ORIGINAL", "PRIMARY", kind, "EMISSION"],
                 DetectorInformationSequence=Sequence([place]), **tags)  # fmt: skip
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("order", [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [2, 4, 1, 5, 3]])
def test_nuclear_slices_lie_where_their_vector_says(tmp_path, order):
    file = write_nuclear(tmp_path / "a.dcm", 5, FrameIncrementPointer=[SLICES], SliceVector=order)
    check_places(io.read_volume(file), along_z(np.array(order) - 1), pattern(5))


def test_nuclear_slices_without_vector_and_against_the_normal(tmp_path):
    file = write_nuclear(tmp_path / "a.dcm", 4, step=-STEP, NumberOfSlices=4)
    check_places(io.read_volume(file), along_z([0, -1, -2, -3]), pattern(4))


def test_nuclear_time_slots_and_windows_are_volumes(tmp_path):
    slices = [1, 2, 3] * 4
    file = write_nuclear(tmp_path / "a.dcm", 12, "RECON GATED TOMO", SliceVector=slices,
                         FrameIncrementPointer=[WINDOWS, SLOTS, SLICES],
                         EnergyWindowVector=[1] * 6 + [2] * 6,
                         TimeSlotVector=[1, 1, 1, 2, 2, 2] * 2)  # fmt: skip
    with pytest.raises(FileError, match=r"4 volumes.* energy window 2, time slot 1"):
        io.read_volume(file)
    volume = io.read_volume(file, volume=3)
    check_places(volume, along_z(range(3)), pattern(12)[6:9])


@pytest.mark.parametrize(
    ("kind", "tags"),
    [
        ("TOMO", {"FrameIncrementPointer": [ANGLES], "AngularViewVector": [1, 2, 3, 4]}),
        ("DYNAMIC", {"FrameIncrementPointer": [TIMES], "TimeSliceVector": [1, 2, 3, 4]}),
        ("STATIC", {"FrameIncrementPointer": [WINDOWS], "EnergyWindowVector": [1, 2, 3, 4]}),
        ("OTHER", {"FrameIncrementPointer": [ANGLES], "AngularViewVector": [1, 2, 3, 4]}),
    ],
)
def test_nuclear_projections_are_no_volume(tmp_path, kind, tags):
    file = write_nuclear(tmp_path / "a.dcm", 4, kind, **tags)
    with pytest.raises(GeometryError, match="no slices of a volume"):
        io.read_volume(file)


def test_nuclear_frames_that_are_not_told_apart(tmp_path):
    file = write_nuclear(tmp_path / "a.dcm", 6, NumberOfSlices=3)
    with pytest.raises(FileError, match="SliceVector"):
        io.read_volume(file)


def write_phases(folder, tags_of, phases=3):
    folder.mkdir()
    for k in range(4):
        for p in range(phases):
            write_slice(folder / f"s{k}p{p}", np.full((5, 7), 10 * k + p, np.int16),
                        (0, 0, 2.0 * k), series="1.2.3.4", **tags_of(k, p))  # fmt: skip
    return folder


def test_phases_of_a_heart_whose_times_differ_from_slice_to_slice(tmp_path):
    folder = write_phases(tmp_path / "s", lambda k, p: {"TriggerTime": f"{40 * p + 3 * k}"})
    (series,) = list_series(folder)
    assert series.volumes == tuple(f"phase by trigger time {p}" for p in (1, 2, 3))
    np.testing.assert_array_equal(io.read_volume(folder, volume=2).data[0, :, 0, 0],
                                  [1, 11, 21, 31])  # fmt: skip


def test_phases_that_nothing_tells_apart(tmp_path):
    folder = write_phases(tmp_path / "s", lambda k, p: {"TriggerTime": "5"})
    with pytest.raises(GeometryError, match="do not tell apart"):
        io.read_volume(folder)


@pytest.mark.parametrize(
    ("creator", "group", "element", "representation", "values", "names"),
    [
        ("SIEMENS MR HEADER", 0x19, 0x0C, "IS", ("0", "1000"), ("b-value 0", "b-value 1000")),
        ("Philips Imaging DD 001", 0x2001, 0x03, "FL", (0.0, 800.0), ("b-value 0", "b-value 800")),
        ("GEMS_PARM_01", 0x43, 0x39, "IS", ([1000000000, 8], [1000000700, 8]),
         ("b-value 0", "b-value 700")),
        ("GEMS_PARM_01", 0x43, 0x2F, "SS", (0, 3), ("component IMAGINARY", "component MAGNITUDE")),
    ],
)  # fmt: skip
def test_private_elements_tell_volumes_apart(
    tmp_path, creator, group, element, representation, values, names
):
    folder = write_phases(tmp_path / "s", lambda k, p: {}, phases=2)
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        block = data.private_block(group, creator, create=True)
        block.add_new(element, representation, values[int(file.name[-1])])
        data.save_as(file)
    (series,) = list_series(folder)
    assert series.volumes == names
    second = io.read_volume(folder, volume=2).data[0, :, 0, 0]
    np.testing.assert_array_equal(second % 10, "IMAG" not in names[0])


def test_copies_are_read_once(tmp_path):
    folder = write_series(tmp_path / "s")
    right = io.read_volume(folder)
    for file in sorted(folder.iterdir())[:2]:
        shutil.copy(file, file.with_name(f"{file.name} copy"))
    with pytest.warns(UserWarning, match="2 of 8 files of a series are copies"):
        volume = io.read_volume(folder)
    np.testing.assert_array_equal(volume.data, right.data)


def test_series_of_two_studies_with_one_uid(tmp_path):
    folder = write_series(tmp_path / "s", series="1.2.3.4")
    write_series(folder, series="1.2.3.4", start=(-50, -40, 42), prefix="b",
                 StudyInstanceUID="1.2.9")  # fmt: skip
    with pytest.raises(FileError, match="2 series"):
        io.read_volume(folder)
    assert io.read_volume(folder, series="2").shape == (6, 5, 7)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient"])
@pytest.mark.parametrize("spacing", [None, (2, 0.7, 0.6)])
def test_one_slice_without_a_place(tmp_path, keyword, spacing):
    folder = write_series(tmp_path / "s")
    file = sorted(folder.iterdir())[2]
    data = pydicom.dcmread(file)
    delattr(data, keyword)
    data.save_as(file)
    with pytest.raises(GeometryError, match=f"im002 carries no usable {keyword}"):
        io.read_volume(folder, spacing=spacing)


def test_without_places_and_numbers_names_tell_the_order(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    for k in range(12):
        write_slice(folder / f"IM{k}", np.full((5, 7), k, np.int16), None, series="1.2.3.4")
    with pytest.warns(UserWarning, match="numbers in the files' names"):
        volume = io.read_volume(folder, spacing=(2, 0.7, 0.6))
    np.testing.assert_array_equal(volume.data[0, :, 0, 0], range(12))


def test_a_place_that_no_file_states_is_not_the_scanners(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    for k in range(3):
        write_slice(folder / f"IM{k}", np.full((5, 7), k, np.int16), None, series="1.2.3.4",
                    number=k)  # fmt: skip
    volume = io.read_volume(folder, spacing=(2, 0.7, 0.6))
    io.write_image(tmp_path / "a.nii.gz", volume.data, volume.grid)
    assert nib.load(tmp_path / "a.nii.gz").header["sform_code"] == 2
    placed = io.read_volume(write_series(tmp_path / "placed"))
    io.write_image(tmp_path / "b.nii.gz", placed.data, placed.grid)
    assert nib.load(tmp_path / "b.nii.gz").header["sform_code"] == 1


def test_rounded_cosines_are_no_tilt(tmp_path):
    row, column = np.array([0.857, 0.515, 0.0]), np.array([-0.498, 0.829, 0.255])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        io.read_volume(write_series(tmp_path / "s", row=row, column=column))


@pytest.mark.parametrize(("kind", "units"), [("HU", "HU"), ("US", ""), ("Z_EFF", "")])
def test_maps_of_a_ct_are_not_hounsfield_units(tmp_path, kind, units):
    assert io.read_volume(write_series(tmp_path / "s", RescaleType=kind)).units == units


def test_doubts_about_values_are_said(tmp_path):
    folder = write_series(tmp_path / "s", BitsStored=12, HighBit=15)
    with pytest.warns(UserWarning, match="12 bits end at bit 15"):
        io.read_volume(folder)
    folder = write_series(tmp_path / "t", intercept=-1024)
    file = sorted(folder.iterdir())[1]
    data = pydicom.dcmread(file)
    del data.RescaleSlope, data.RescaleIntercept
    data.save_as(file)
    with pytest.warns(UserWarning, match=r"im001 has no rescaling.*intercept -1024"):
        io.read_volume(folder)
