"""What stored values stand for: look-up tables and real-world values; encodings without noise."""

from __future__ import annotations

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import ParametricMapStorage

from napari_medgs import io
from napari_medgs.errors import FileError, ImageError
from tests.io.test_dicom import write_series
from tests.io.test_dicom_frames import along_z, item, pattern, write_enhanced
from tests.io.test_dicom_masks import FRAME


def mapping(slope, intercept, unit="mm2/s", **more):
    """Return a functional group with a map to real-world values."""
    units = item(CodeValue=unit, CodingSchemeDesignator="UCUM", CodeMeaning=unit)
    made = item(
        MeasurementUnitsCodeSequence=Sequence([units]),
        LUTLabel=unit, LUTExplanation=unit, RealWorldValueFirstValueMapped=0,
        RealWorldValueLastValueMapped=65535, **more,
    )  # fmt: skip
    if slope is not None:
        made.RealWorldValueSlope, made.RealWorldValueIntercept = slope, intercept
    return made


def test_real_world_values_of_each_frame(tmp_path):
    groups = [
        {"RealWorldValueMappingSequence": Sequence([mapping(k / 4 + 0.5, -k)])} for k in range(3)
    ]
    file = write_enhanced(tmp_path / "a.dcm", along_z(range(3)), groups=groups)
    volume = io.read_volume(file)
    expected = highdicom.imread(file).get_frames(apply_real_world_transform=True)
    np.testing.assert_allclose(volume.data[0], expected, rtol=1e-6)
    assert volume.units == "mm2/s"


def test_rescaling_goes_before_real_world_values(tmp_path):
    groups = [{"RealWorldValueMappingSequence": Sequence([mapping(10, 0)])}] * 3
    file = write_enhanced(tmp_path / "a.dcm", along_z(range(3)), groups=groups, slopes=[2] * 3)
    volume = io.read_volume(file)
    np.testing.assert_array_equal(volume.data[0], 2 * pattern(3).astype(int))
    assert volume.units == ""


def test_several_maps_and_tables(tmp_path):
    two = Sequence([mapping(2, 0, "g/ml"), mapping(3, 0, "Bq/ml")])
    groups = [{"RealWorldValueMappingSequence": two}] * 3
    file = write_enhanced(tmp_path / "a.dcm", along_z(range(3)), groups=groups)
    with pytest.warns(UserWarning, match=r"2 maps to real-world values; the first .*\(g/ml\)"):
        volume = io.read_volume(file)
    np.testing.assert_array_equal(volume.data[0], 2 * pattern(3).astype(int))
    table = [{"RealWorldValueMappingSequence": Sequence([mapping(None, None)])}] * 3
    with pytest.raises(ImageError, match="by a table"):
        io.read_volume(write_enhanced(tmp_path / "b.dcm", along_z(range(3)), groups=table))


@pytest.mark.parametrize(("dtype", "stored"), [(np.float32, "Float"), (np.uint16, "")])
def test_parametric_maps(tmp_path, dtype, stored):
    folder = write_series(tmp_path / "s", **FRAME)
    images = [pydicom.dcmread(p) for p in folder.iterdir()]
    images.sort(key=lambda d: d.ImagePositionPatient[2])
    for image in images:
        for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID",
                     "StudyDate", "StudyTime", "AccessionNumber"):  # fmt: skip
            setattr(image, name, "")
    values = (np.arange(6 * 5 * 7).reshape(6, 5, 7) * 1.5).astype(dtype)
    line = {"slope": 1.0, "intercept": 0.0} if stored else {"slope": 0.25, "intercept": 3.0}
    limits = (0.0, 1000.0) if stored else (0, 1000)
    real = highdicom.pm.RealWorldValueMapping(
        "ADC", "ADC", codes.UCUM.SquareMillimeterPerSecond, limits, **line
    )
    made = highdicom.pm.ParametricMap(
        images, values, "1.2.3.9", 1, "1.2.3.9.1", 1, "maker", "model", "1", "serial",
        contains_recognizable_visual_features=False, real_world_value_mappings=[real],
        window_center=100, window_width=50,
    )  # fmt: skip
    assert made.SOPClassUID == ParametricMapStorage
    made.save_as(tmp_path / "map.dcm")
    volume = io.read_volume(tmp_path / "map.dcm")
    expected = values if stored else values * 0.25 + 3
    np.testing.assert_allclose(volume.data[0], expected, rtol=1e-6)
    assert volume.grid.matches(io.read_volume(folder).grid)
    assert volume.units == "mm2/s"


def test_modality_tables(tmp_path):
    lut = item(LUTDescriptor=[300, 50, 16], ModalityLUTType="US",
               LUTData=(np.arange(300) ** 2 % 60000).tolist())  # fmt: skip
    folder = write_series(tmp_path / "s", count=3, shuffle=False)
    expected = []
    for path in sorted(folder.iterdir()):
        data = pydicom.dcmread(path)
        del data.RescaleSlope, data.RescaleIntercept
        data.ModalityLUTSequence = Sequence([lut])
        data["ModalityLUTSequence"].value[0]["LUTDescriptor"].VR = "US"
        data["ModalityLUTSequence"].value[0]["LUTData"].VR = "US"
        data.save_as(path)
        data = pydicom.dcmread(path)
        expected.append(apply_modality_lut(data.pixel_array, data))
    np.testing.assert_array_equal(io.read_volume(folder).data[0], expected)
    data.ModalityLUTSequence[0].LUTDescriptor = [300]
    data.save_as(path)
    with pytest.raises(FileError, match="damaged"):
        io.read_volume(path)


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG2000.dcm", "JPEG-LL.dcm"])
def test_decoders_print_nothing(name, capfd):
    file = get_testdata_file(name, download=False)
    if file is None:
        pytest.skip("pydicom's test file is not installed")
    io.read_volume(file, spacing=(1, 1, 1))
    assert capfd.readouterr().err == ""


def test_decoders_that_fail_print_nothing(capfd):
    file = get_testdata_file("JPEG2000-embedded-sequence-delimiter.dcm", download=False)
    with pytest.raises(FileError, match="truncated or damaged"):
        io.read_volume(file, spacing=(1, 1, 1))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_a_meta_header(tmp_path, implicit):
    folder = write_series(tmp_path / "s", slope=2, intercept=-7)
    expected = io.read_volume(folder)
    for path in list(folder.iterdir()):
        data = pydicom.dcmread(path)
        made = pydicom.Dataset(data)
        made.save_as(folder / f"{path.name}.dcm", implicit_vr=implicit, little_endian=True)
        path.unlink()
    found = io.read_volume(folder)
    np.testing.assert_array_equal(found.data, expected.data)
    assert found.grid.matches(expected.grid)
