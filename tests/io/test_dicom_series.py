"""Classic DICOM with missing or odd geometry, volumes at one place, studies, and damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid

from napari_medgs import io
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, GeometryError, MedGSError
from napari_medgs.io.dicom.pixels import rescale
from tests.io.test_dicom import write_series, write_slice
from tests.io.test_dicom_frames import along_z, write_enhanced


def change(folder, edit, which=slice(None)):
    for file in sorted(folder.iterdir())[which]:
        data = pydicom.dcmread(file)
        edit(data)
        data.save_as(file)
    return folder


def values(folder):
    k, r, c = np.meshgrid(np.arange(6), np.arange(5), np.arange(7), indexing="ij")
    return 100 * k + 10 * r + c


@pytest.mark.parametrize("damage", ["missing", "zero", "negative"])
def test_no_pixel_spacing(tmp_path, damage):
    def edit(data):
        data.ImagerPixelSpacing = [0.143, 0.15]
        if damage == "missing":
            del data.PixelSpacing
        else:
            data.PixelSpacing = [0, 0] if damage == "zero" else [-1, 1]

    folder = change(write_series(tmp_path / "s"), edit)
    with pytest.raises(GeometryError, match=r"PixelSpacing.* 0.143 x 0.15 mm .*--spacing"):
        io.read_volume(folder)
    volume = io.read_volume(folder, spacing=(2, 0.7, 0.6))
    np.testing.assert_allclose(volume.affine[:3, 3], [50, 40, 30])
    assert volume.spacing == pytest.approx((2, 0.7, 0.6))
    with pytest.raises(GeometryError, match="lie 2 mm apart"):
        io.read_volume(folder, spacing=(3, 0.7, 0.6))


@pytest.mark.parametrize("cosines", [None, [0] * 6])
def test_no_orientation(tmp_path, cosines):
    def edit(data):
        if cosines is None:
            del data.ImageOrientationPatient
        else:
            data.ImageOrientationPatient = cosines

    with pytest.raises(GeometryError, match="no usable orientation"):
        io.read_volume(change(write_series(tmp_path / "s"), edit))


@pytest.mark.parametrize("cosines", [[2, 0, 0, 0, 1, 0], [1, 0, 0, 0.6, 0.8, 0]])
def test_impossible_orientation(tmp_path, cosines):
    def edit(data):
        data.ImageOrientationPatient = cosines

    with pytest.raises(GeometryError, match="not two perpendicular unit vectors"):
        io.read_volume(change(write_series(tmp_path / "s"), edit))


def test_shifted_slice(tmp_path):
    def edit(data):
        x, y, z = data.ImagePositionPatient
        data.ImagePositionPatient = [x, y + 5, z]

    folder = write_series(tmp_path / "s", shuffle=False)
    with pytest.raises(GeometryError, match=r"im003 is shifted within its plane, by 5 mm"):
        io.read_volume(change(folder, edit, slice(3, 4)))


def test_two_slice_distances(tmp_path):
    folder, series = tmp_path / "s", generate_uid()
    folder.mkdir()
    for k, z in enumerate((0, 7.5, 15, 22.5, 35, 47.5)):
        write_slice(folder / f"{k}.dcm", np.full((4, 4), k, np.int16), (0, 0, z), series=series)
    with pytest.raises(GeometryError, match="unevenly spaced"):
        io.read_volume(folder)


def test_monochrome1_keeps_its_values(tmp_path):
    folder = write_series(
        tmp_path / "s", PhotometricInterpretation="MONOCHROME1", slope=1, intercept=-1024
    )
    np.testing.assert_array_equal(io.read_volume(folder).data[0], values(folder) - 1024)


@pytest.mark.parametrize("syntax", ["RLELossless", "ExplicitVRLittleEndian"])
def test_monochrome1_compressed(tmp_path, syntax):
    folder = write_series(tmp_path / "s", PhotometricInterpretation="MONOCHROME1")
    if syntax == "RLELossless":
        change(folder, lambda d: d.compress(pydicom.uid.RLELossless))
    np.testing.assert_array_equal(io.read_volume(folder).data[0], values(folder))


def test_compressed_frames_are_rescaled_one_by_one(tmp_path):
    origins = along_z((2, 0, 1))
    file = write_enhanced(tmp_path / "a.dcm", origins, slopes=(1, 2, 3))
    plain = io.read_volume(file)
    data = pydicom.dcmread(file)
    data.compress(pydicom.uid.RLELossless)
    data.save_as(file)
    packed = io.read_volume(file)
    np.testing.assert_array_equal(packed.data, plain.data)
    np.testing.assert_array_equal(packed.data[0, :, 0, 0], [200, 600, 0])


def test_echoes_of_one_series(tmp_path):
    series = generate_uid()
    folder = write_series(tmp_path / "s", series=series, EchoTime=4.6)
    write_series(folder, series=series, prefix="b", EchoTime=20, slope=2)
    with pytest.raises(FileError, match=r"2 volumes .* 1: echo time 4.6; 2: echo time 20"):
        io.read_volume(folder)
    assert io.list_series(folder)[0].volumes == ("echo time 4.6", "echo time 20")
    np.testing.assert_array_equal(io.read_volume(folder, series="1.1").data[0], values(folder))
    np.testing.assert_array_equal(io.read_volume(folder, series="1.2").data[0], 2 * values(folder))


@pytest.mark.parametrize("below", [("a", "b"), ("DICOM/PAT/A", "DICOM/PAT/B")])
def test_study_folder(tmp_path, below):
    study = tmp_path / "study"
    for k, name in enumerate(below):
        (study / name).mkdir(parents=True)
        write_series(study / name, 6 - k, series=f"1.2.3.{k + 1}", PatientName="Doe^Jane")
    with pytest.raises(FileError, match=r"2 series; choose one. 1: CT thorax, 6 files") as error:
        io.read_volume(study)
    assert "2 x 0.7 x 0.6 mm" in str(error.value)
    assert "Jane" not in str(error.value)
    found = io.list_series(study)
    assert [(s.slices, s.modality, s.description) for s in found] == [
        (6, "CT", "thorax"),
        (5, "CT", "thorax"),
    ]
    assert found[0].spacing == pytest.approx((2, 0.7, 0.6))
    assert io.read_volume(study, series="2").shape == (5, 5, 7)


def test_disc_with_a_directory(tmp_path):
    names = {"PatientID": "1", "PatientName": "Doe^Jane", "StudyDate": "20200101"}
    numbers = {"StudyTime": "120000", "StudyID": "1", "SeriesNumber": 1}
    folder = write_series(tmp_path / "s", **names, **numbers)
    disc = FileSet()
    for file in folder.iterdir():
        disc.add(file)
    disc.write(tmp_path / "disc")
    for place in (tmp_path / "disc", tmp_path / "disc" / "DICOMDIR"):
        np.testing.assert_array_equal(io.read_volume(place).data[0], values(folder))


def test_rescaled_types():
    stored = np.array([0, 100], np.uint16)
    assert rescale(stored, 1, 0, (0, 4095)) is stored
    assert rescale(stored, 1, -1024, (0, 4095)).dtype == np.int16
    assert rescale(stored, 1, -1024, (0, 65535)).dtype == np.int32
    assert rescale(stored, 2**20, 0, (0, 65535)).dtype == np.float32
    np.testing.assert_array_equal(rescale(stored, 0.5, 1, (0, 65535)), [1, 51])


def damaged_copies(raw, count, seed):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        made = bytearray(raw)
        if rng.random() < 0.2:
            del made[int(rng.integers(1, len(made))) :]
        for _ in range(int(rng.integers(1, 17))):
            # Mostly in the header, where a byte changes more than one pixel.
            at = int(rng.integers(len(made)) * rng.random() ** 2)
            made[at] = int(rng.integers(256))
        yield bytes(made)


@pytest.mark.parametrize("kind", ["slice", "frames", "compressed", "dose", "segmentation"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_give_an_error_or_a_volume(tmp_path, kind):
    if kind == "dose":
        raw = Path(pydicom.data.get_testdata_file("rtdose.dcm", download=False)).read_bytes()
    elif kind == "segmentation":
        pytest.importorskip("highdicom")
        from tests.io.test_dicom_segmentation import boxes, write_seg

        raw = write_seg(write_series(tmp_path / "s"), boxes(), tmp_path / "seg.dcm").read_bytes()
    else:
        file = tmp_path / "a.dcm"
        if kind == "slice":
            file = next(write_series(tmp_path / "s", 1).iterdir())
        else:
            write_enhanced(file, along_z(range(3)), slopes=(1, 2, 3))
        if kind == "compressed":
            data = pydicom.dcmread(file)
            data.compress(pydicom.uid.RLELossless)
            data.save_as(file)
        raw = file.read_bytes()
    outcomes, messages = set(), []
    for number, made in enumerate(damaged_copies(raw, 100, seed=len(kind))):
        file = tmp_path / f"x{number}.dcm"
        file.write_bytes(made)
        try:
            outcomes.add(type(io.read_volume(file)))
        except MedGSError as error:
            outcomes.add(MedGSError)
            messages.append((str(error), str(file)))
    assert all(text.startswith(name) and "\n" not in text for text, name in messages)
    assert outcomes == {MedGSError, Volume}


def jpeg_2000():
    """Return a lossless JPEG 2000 slice, and the same slice uncompressed."""
    names = ("MR_small_jp2klossless.dcm", "MR_small.dcm")
    return [pydicom.dcmread(pydicom.data.get_testdata_file(n, download=False)) for n in names]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_jpeg_2000_in_several_frames(tmp_path, photometric):
    packed, plain = jpeg_2000()
    file = write_enhanced(tmp_path / "a.dcm", along_z((1, 0)), slopes=(1, 0.5),
                          frames=np.zeros((2, 64, 64), np.int16))  # fmt: skip
    data = pydicom.dcmread(file)
    stream = next(generate_frames(packed.PixelData, number_of_frames=1))
    data.PixelData = encapsulate([stream, stream])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
    data.PhotometricInterpretation = photometric
    data.save_as(file)
    volume = io.read_volume(file)
    np.testing.assert_array_equal(volume.data[0, 0], 0.5 * plain.pixel_array)
    np.testing.assert_array_equal(volume.data[0, 1], plain.pixel_array)


def test_info_lists_what_there_is_to_choose(tmp_path):
    import json

    from typer.testing import CliRunner

    from napari_medgs.cli.app import app

    study = tmp_path / "study"
    for k in (1, 2):
        (study / str(k)).mkdir(parents=True)
        write_series(study / str(k), 7 - k, series=f"1.2.3.{k}", PatientName="Doe^Jane")
    write_series(study / "2", 5, series="1.2.3.2", EchoTime=9, prefix="b")
    numbers = tmp_path / "n.json"
    result = CliRunner().invoke(app, ["info", str(study), "--json", str(numbers)])
    assert result.exit_code == 0, result.output
    listed = json.loads(numbers.read_text())["series"]
    assert [(k, v["volume"], v["slices"]) for k, v in listed.items()] == [
        ("1", "", 6),
        ("2.1", "echo time 9", 5),
        ("2.2", "no echo time", 5),
    ]
    assert listed["1"]["spacing_mm"] == pytest.approx([2, 0.7, 0.6])
    assert "Jane" not in result.output + numbers.read_text()
    result = CliRunner().invoke(app, ["info", str(study), "--series", "2.2"])
    assert result.exit_code == 0, result.output
