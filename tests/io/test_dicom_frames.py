"""DICOM files of several frames: each kind of geometry, values and places against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    RTDoseStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from napari_medgs import io
from napari_medgs.errors import FileError, GeometryError, ImageError, MedGSError

ROW, COLUMN = np.array([1.0, 0, 0]), np.array([0.0, 1, 0])
START, SPACING, STEP = np.array([-50.0, -40, 30]), (0.7, 0.5), 2.5


def item(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def start(path, sop_class, frames, syntax=ExplicitVRLittleEndian, **tags):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    little = syntax != ExplicitVRBigEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128,
                       is_implicit_VR=False, is_little_endian=little)  # fmt: skip
    data.SOPClassUID, data.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.StudyInstanceUID = generate_uid(), "1.2.3"
    data.Modality, data.SeriesDescription, data.InstanceNumber = "MR", "brain", 1
    data.NumberOfFrames, data.Rows, data.Columns = frames.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * frames.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(frames.dtype.kind == "i")
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = frames.astype(frames.dtype.newbyteorder("<" if little else ">")).tobytes()
    return data


def pattern(count, shape=(4, 6)):
    """Return frames whose value at frame k, row r, column c is 100 k + 10 r + c."""
    k, r, c = np.meshgrid(*map(np.arange, (count, *shape)), indexing="ij")
    return (100 * k + 10 * r + c).astype(np.uint16)


def write_enhanced(path, origins, *, frames=None, groups=None, slopes=None, axes=None, **tags):
    """Write an enhanced MR file; ``groups`` adds functional groups per frame."""
    frames = pattern(len(origins)) if frames is None else frames
    data = start(path, EnhancedMRImageStorage, frames, **tags)
    shared = item(PixelMeasuresSequence=Sequence([item(PixelSpacing=list(SPACING),
                                                       SliceThickness=STEP)]))  # fmt: skip
    each = []
    for k, origin in enumerate(origins):
        row, column = (ROW, COLUMN) if axes is None else axes[k]
        group = item(
            PlaneOrientationSequence=Sequence([item(ImageOrientationPatient=[*row, *column])])
        )
        if origin is not None:
            place = item(ImagePositionPatient=[float(v) for v in origin])
            group.PlanePositionSequence = Sequence([place])
        if slopes is not None:
            values = item(RescaleSlope=slopes[k], RescaleIntercept=0, RescaleType="US")
            group.PixelValueTransformationSequence = Sequence([values])
        for name, value in (groups[k] if groups else {}).items():
            setattr(group, name, value)
        each.append(group)
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    data.PerFrameFunctionalGroupsSequence = Sequence(each)
    data.save_as(path, enforce_file_format=True)
    return path


def along_z(places):
    return [START + np.array([0, 0, STEP * z]) for z in places]


def check_places(volume, origins, frames, row=ROW, column=COLUMN):
    """Every frame's pixel lies where its header says, within 1e-4 voxel."""
    for k, origin in enumerate(origins):
        for r, c in ((0, 0), (3, 5), (2, 1)):
            lps = origin + r * SPACING[0] * column + c * SPACING[1] * row
            at = volume.grid.to_voxel(lps * [-1, -1, 1])
            np.testing.assert_allclose(at, np.rint(at), atol=1e-4)
            assert volume.data[(0, *np.rint(at).astype(int))] == frames[k, r, c]


@pytest.mark.parametrize("places", [range(6), range(5, -1, -1), (3, 0, 5, 1, 4, 2)])
def test_frames_are_sorted_by_position(tmp_path, places):
    origins = along_z(places)
    volume = io.read_volume(write_enhanced(tmp_path / "a.dcm", origins))
    assert volume.spacing == pytest.approx((STEP, *SPACING))
    check_places(volume, origins, pattern(6))


def test_oblique_frames(tmp_path):
    row = np.array([0.9602, 0.2794, 0.0]) / np.linalg.norm([0.9602, 0.2794])
    column = np.array([-0.2730, 0.9381, 0.2132])
    column -= row * (row @ column)
    column /= np.linalg.norm(column)
    origins = [START + STEP * k * np.cross(row, column) for k in (2, 0, 1, 3)]
    file = write_enhanced(tmp_path / "a.dcm", origins, axes=[(row, column)] * 4)
    check_places(io.read_volume(file), origins, pattern(4), row, column)


def test_tilted_frames(tmp_path):
    origins = [START + np.array([0, 0.7 * k, STEP * k]) for k in range(6)]
    with pytest.warns(UserWarning, match="tilted by 15.6 degrees"):
        volume = io.read_volume(write_enhanced(tmp_path / "a.dcm", origins))
    check_places(volume, origins, pattern(6))


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ((0, 1, 2, 4, 5, 6), "1 slice is missing: the step between frame 3 of a.dcm"),
        ((0, 1, 2.4, 3, 4, 5), "unevenly spaced"),
        ((0, 1, 2, 5, 8, 11), "unevenly spaced"),
        ((0, 1, 2, 2, 3, 4), "same position .*frame 3 of a.dcm and frame 4 of a.dcm"),
    ],
)
def test_frames_that_form_no_stack(tmp_path, places, says):
    with pytest.raises(GeometryError, match=says):
        io.read_volume(write_enhanced(tmp_path / "a.dcm", along_z(places)))


def test_a_frame_shifted_within_its_plane(tmp_path):
    origins = along_z(range(6))
    origins[4] = origins[4] + [5, 0, 0]
    with pytest.raises(GeometryError, match=r"frame 5 of a.dcm is shifted .* by 5 mm"):
        io.read_volume(write_enhanced(tmp_path / "a.dcm", origins))


def test_frames_without_position(tmp_path):
    file = write_enhanced(tmp_path / "a.dcm", [None] * 4)
    with pytest.raises(GeometryError, match="carry no position"):
        io.read_volume(file)
    assert io.read_volume(file, spacing=(3, 2, 1)).spacing == (3, 2, 1)


def test_three_planes_in_one_file(tmp_path):
    axes = [(ROW, COLUMN)] * 2 + [(COLUMN, np.array([0, 0, -1.0]))] * 2
    with pytest.raises(GeometryError, match="mixes orientations"):
        io.read_volume(write_enhanced(tmp_path / "a.dcm", along_z(range(4)), axes=axes))


def group_of(kind, value):
    return {
        "b-value": {"MRDiffusionSequence": Sequence([item(DiffusionBValue=value)])},
        "echo time": {"MREchoSequence": Sequence([item(EffectiveEchoTime=value)])},
        "time point": {"FrameContentSequence": Sequence([item(TemporalPositionIndex=value)])},
        "component": {
            "MRImageFrameTypeSequence": Sequence(
                [item(ComplexImageComponent=("MAGNITUDE", "PHASE")[value > 5])]
            )
        },
    }[kind]


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("kind", ["b-value", "echo time", "time point", "component"])
def test_volumes_are_listed_and_chosen(tmp_path, kind, interleaved):
    order = [(z, v) for v in (5, 10) for z in range(3)]
    if interleaved:
        order = [(z, v) for z in range(3) for v in (5, 10)]
    origins = along_z([z for z, _ in order])
    groups = [group_of(kind, v) for _, v in order]
    file = write_enhanced(tmp_path / "a.dcm", origins, groups=groups)
    with pytest.raises(FileError, match=f"holds 2 volumes at one place.* 1: {kind}"):
        io.read_volume(file)
    for number, value in ((1, 5), (2, 10)):
        volume = io.read_volume(file, series=f"1.{number}")
        members = [k for k, (_, v) in enumerate(order) if v == value]
        assert volume.shape == (3, 4, 6)
        check_places(volume, [origins[k] for k in members], pattern(6)[members])
    with pytest.raises(FileError, match="no volume 3"):
        io.read_volume(file, series="1.3")
    second = io.read_volume(file, volume=2)
    np.testing.assert_array_equal(second.data, volume.data)
    assert second.grid.source["volume"] == 2
    for wrong in ({"volume": 3}, {"volume": 0}, {"series": "1.1", "volume": 2}):
        with pytest.raises(MedGSError, match=r"no volume|names volume 1|from 1, not 0"):
            io.read_volume(file, **wrong)


def test_frames_rescale_by_themselves(tmp_path):
    slopes = (1, 2.5, 1e-3)
    file = write_enhanced(tmp_path / "a.dcm", along_z(range(3)), slopes=slopes)
    values = pattern(3) * np.array(slopes)[:, None, None]
    np.testing.assert_allclose(io.read_volume(file).data[0], values, rtol=1e-6)


def test_number_of_frames_against_groups(tmp_path):
    import pydicom

    file = write_enhanced(tmp_path / "a.dcm", along_z(range(4)))
    data = pydicom.dcmread(file)
    data.NumberOfFrames = 3
    data.save_as(file)
    with pytest.raises(FileError, match="3 frames and describes 4"):
        io.read_volume(file)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_dose(tmp_path, syntax):
    frames = pattern(4).astype(np.uint32) * 1000
    data = start(tmp_path / "d.dcm", RTDoseStorage, frames, syntax, Modality="RTDOSE",
                 PixelSpacing=list(SPACING), ImagePositionPatient=list(START), DoseUnits="GY",
                 ImageOrientationPatient=[*ROW, *COLUMN], DoseGridScaling="1e-5",
                 GridFrameOffsetVector=[0, 2.5, 5, 7.5])  # fmt: skip
    data.save_as(tmp_path / "d.dcm", enforce_file_format=True)
    volume = io.read_volume(tmp_path / "d.dcm")
    np.testing.assert_allclose(volume.data[0], frames * 1e-5, rtol=1e-6)
    assert volume.units == "Gy"
    check_places(volume, along_z(range(4)), (frames * np.float64(1e-5)).astype(np.float32))


def test_cine_and_mosaic_and_palette(tmp_path):
    frames = pattern(4).astype(np.uint8)
    data = start(tmp_path / "us.dcm", UltrasoundMultiFrameImageStorage, frames, FrameTime="40")
    data.save_as(tmp_path / "us.dcm", enforce_file_format=True)
    with pytest.raises(GeometryError, match="ultrasound sequence of 4 frames in time"):
        io.read_volume(tmp_path / "us.dcm")
    with pytest.raises(GeometryError, match="mosaic"):
        io.read_volume(write_enhanced(tmp_path / "m.dcm", along_z([0]),
                                      ImageType=["ORIGINAL", "PRIMARY", "MOSAIC"]))  # fmt: skip
    with pytest.raises(ImageError, match="PALETTE COLOR"):
        io.read_volume(write_enhanced(tmp_path / "p.dcm", along_z(range(2)),
                                      PhotometricInterpretation="PALETTE COLOR"))  # fmt: skip
