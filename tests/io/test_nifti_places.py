"""NIfTI files that say two places, odd headers, wrong names, and bytes that inflate."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from napari_medgs import io
from napari_medgs.cli.app import app
from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import to_source
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, GeometryError, LabelError
from napari_medgs.io._content import known_content
from napari_medgs.io.itk.meta_header import check_meta

AFFINE = np.diag([1.5, 1.25, 3.0, 1.0])
AFFINE[:3, 3] = -20, 30, 10
VALUES = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


def save(
    path: Path,
    *,
    sform: Any = AFFINE,
    qform: Any = AFFINE,
    codes: tuple[int, int] = (1, 1),
    units: str = "mm",
    **fields: Any,
) -> Path:
    image = nib.Nifti1Image(VALUES, None)
    image.set_sform(sform, codes[0])
    image.set_qform(qform, codes[1], strip_shears=True)
    image.header.set_xyzt_units(units)
    nib.save(image, path)
    if fields:
        raw = bytearray(path.read_bytes())
        header = nib.Nifti1Header(bytes(raw[:348]), check=False)
        for name, value in fields.items():
            header[name] = value
        raw[:348] = header.binaryblock
        path.write_bytes(bytes(raw))
    return path


def moved(*by: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += by
    return affine


def as_nibabel(path: Path) -> None:
    volume = io.read_volume(path)
    image = nib.load(path)
    assert np.array_equal(to_source(volume.data[0], volume.grid), np.asarray(image.dataobj))
    assert np.allclose(volume.grid.source["affine"], image.affine, atol=1e-5)


class TestTwoPlaces:
    @pytest.mark.parametrize(
        ("qform", "mm", "mirrored"),
        [
            (moved(0, 9, 12), 15.0, False),
            (moved(0.5, 0, 0), 0.5, False),
            (AFFINE @ np.diag([-1, 1, 1, 1.0]), 2 * 3 * 1.5, True),
            (AFFINE @ np.diag([-1, -1, 1, 1.0]), 2 * np.hypot(3 * 1.5, 4 * 1.25), False),
        ],
    )
    def test_a_warning_says_how_far_apart(self, tmp_path, qform, mm, mirrored):
        path = save(tmp_path / "a.nii", qform=qform)
        with pytest.warns(UserWarning, match="the sform is used") as caught:
            volume = io.read_volume(path)
        assert len(caught) == 1
        text = str(caught[0].message)
        assert str(path) in text
        assert f"up to {mm:.3g} mm apart" in text
        assert ("mirror" in text) == mirrored
        assert np.allclose(volume.grid.source["affine"], AFFINE)
        assert volume.grid.source["qform_apart_mm"] == pytest.approx(mm, abs=0.01)

    def test_pairs(self, tmp_path):
        image = nib.Nifti1Pair(VALUES, None)
        image.set_sform(AFFINE, 1)
        image.set_qform(moved(0, 9, 12), 1)
        nib.save(image, tmp_path / "a.img")
        with pytest.warns(UserWarning, match="up to 15 mm apart"):
            volume = io.read_volume(tmp_path / "a.hdr")
        assert volume.grid.source["qform_apart_mm"] == pytest.approx(15)

    def test_units_count(self, tmp_path):
        with pytest.warns(UserWarning, match="up to 500 mm apart"):
            io.read_volume(save(tmp_path / "a.nii", qform=moved(0.5, 0, 0), units="meter"))

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"qform": moved(0.1, 0, 0)},
            {"qform": moved(40, 0, 0), "codes": (1, 0)},
            {"sform": moved(40, 0, 0), "codes": (0, 1)},
        ],
    )
    def test_no_warning_for_rounding_and_unset_codes(self, tmp_path, options):
        volume = io.read_volume(save(tmp_path / "a.nii", **options))
        assert "qform_apart_mm" not in volume.grid.source

    @pytest.mark.filterwarnings("error")
    @given(
        st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1),
        st.sampled_from([(0.3, 0.3, 0.3), (0.5, 0.5, 5.0), (0.02, 0.02, 0.02)]),
    )
    def test_no_warning_for_what_float32_makes_of_a_rotation(self, quaternion, sizes):
        from napari_medgs.io.nifti.geometry import forms_apart

        turned = nib.quaternions.quat2mat(np.divide(quaternion, np.linalg.norm(quaternion)))
        affine = np.eye(4)
        affine[:3, :3] = turned * sizes
        affine[:3, 3] = -100, 80, -30
        header = nib.Nifti1Header()
        header.set_data_shape((512, 512, 300))
        header.set_sform(affine, 1)
        header.set_qform(affine, 1)
        assert forms_apart(header, (512, 512, 300)) is None

    def test_info_and_the_command_line_say_so_once(self, tmp_path):
        path, out = save(tmp_path / "a.nii", qform=moved(0, 9, 12)), tmp_path / "n.json"
        result = CliRunner().invoke(app, ["info", str(path), "--json", str(out)])
        assert result.exit_code == 0
        assert result.stderr.count("mm apart") == 1
        assert "15 mm" in result.stdout
        assert json.loads(out.read_text())["qform_apart_from_sform_mm"] == pytest.approx(15)


class TestOddHeaders:
    @pytest.mark.parametrize("qfac", [0, 1, -1, 2, -2, np.nan])
    def test_qfac_as_nibabel_reads_it(self, tmp_path, qfac):
        as_nibabel(save(tmp_path / "a.nii", codes=(0, 1), pixdim=[qfac, 1.5, 1.25, 3, 0, 0, 0, 0]))

    @pytest.mark.parametrize("signs", [(-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
    def test_negative_voxel_sizes_as_nibabel_reads_them(self, tmp_path, signs):
        sizes = np.multiply(signs, (1.5, 1.25, 3))
        as_nibabel(save(tmp_path / "a.nii", codes=(0, 1), pixdim=[1, *sizes, 0, 0, 0, 0]))

    def test_qfac_0_as_itk_reads_it(self, tmp_path):
        path = save(tmp_path / "a.nii", codes=(0, 1), pixdim=[0, 1.5, 1.25, 3, 0, 0, 0, 0])
        image = sitk.ReadImage(str(path))
        volume = io.read_volume(path)
        corner = np.diag([-1, -1, 1]) @ image.TransformIndexToPhysicalPoint((3, 4, 5))
        own = np.asarray(volume.grid.source["affine"]) @ (3, 4, 5, 1)
        assert np.allclose(own[:3], corner, atol=1e-4)

    def test_masks_of_such_an_image_have_its_header(self, tmp_path):
        path = save(tmp_path / "a.nii", codes=(0, 1), pixdim=[0, -1.5, 1.25, 3, 0, 0, 0, 0])
        volume = io.read_volume(path)
        mask = io.write_labels(tmp_path / "m.nii", volume.data[0] > 50, volume.grid)
        assert np.allclose(nib.load(mask).affine, nib.load(path).affine)


class TestNames:
    def test_gzip_inside_nii(self, tmp_path):
        plain = save(tmp_path / "plain.nii")
        path = tmp_path / "a.nii"
        path.write_bytes(gzip.compress(plain.read_bytes()))
        expected, found = io.read_volume(plain), io.read_volume(path)
        assert np.array_equal(found.data, expected.data)
        assert found.channel_names == ("a",)
        path.write_bytes(gzip.compress(plain.read_bytes())[:-30])
        with pytest.raises(FileError, match="truncated"):
            io.read_volume(path)

    def test_two_members(self, tmp_path):
        content = save(tmp_path / "plain.nii").read_bytes()
        path = tmp_path / "a.nii.gz"
        path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
        assert np.array_equal(
            io.read_volume(path).data, io.read_volume(tmp_path / "plain.nii").data
        )

    def test_nii_gz_that_is_none(self, tmp_path):
        path = save(tmp_path / "plain.nii").rename(tmp_path / "a.nii.gz")
        with pytest.raises(FileError, match=r"not a gzip file but a NIfTI image \(\.nii\)"):
            io.read_volume(path)
        path.write_bytes(b"\x89PNG\r\n" + bytes(500))
        with pytest.raises(FileError, match="not a gzip file but a PNG image"):
            io.read_volume(path)

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (b"NRRD0004\n", "an NRRD file"),
            (bytes(128) + b"DICM", "a DICOM file"),
            (b"PK\x03\x04", "a zip archive"),
            (b"<html><body>404", "a web page"),
        ],
    )
    def test_other_files_named_nii(self, tmp_path, content, kind):
        path = tmp_path / "a.nii"
        path.write_bytes(content + bytes(600))
        with pytest.raises(FileError, match=f"not a NIfTI image but {kind}"):
            io.read_volume(path)
        assert known_content(tmp_path / "absent") is None

    @pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.mgh", "a.mgz", "a.gipl"])
    def test_nifti_under_the_name_of_another_format(self, tmp_path, name):
        path = save(tmp_path / "a.nii")
        content = path.read_bytes()
        if name == "a.mgz":
            content = gzip.compress(content)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileError, match=r"not an? .* but a NIfTI image .+; rename it"):
            io.read_volume(tmp_path / name)

    @pytest.mark.parametrize("name", ["scan.dat", "scan"])
    def test_nifti_under_another_name(self, tmp_path, name):
        path = save(tmp_path / "a.nii").rename(tmp_path / name)
        with pytest.raises(FileError, match=r"holds a NIfTI image \(\.nii\) under another name"):
            io.read_volume(path)
        path.write_bytes(gzip.compress(path.read_bytes()))
        with pytest.raises(FileError, match=r"\(\.nii\.gz\) under another name"):
            io.read_volume(path)


class TestMasks:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("factor", [1.0000001, 0.9999999, 1 + 2**-22])
    def test_rounding_noise(self, tmp_path, dtype, factor):
        labels = np.zeros((4, 5, 6), np.uint8)
        labels[1:3, 1:4], labels[3] = 7, 250
        noisy = (labels.astype(np.float64) * factor).astype(dtype)
        noisy[0] = -1e-8
        path = tmp_path / "mask.nii.gz"
        nib.save(nib.Nifti1Image(noisy, AFFINE), path)
        found, grid = io.read_labels(path)
        assert found.dtype == np.uint8
        assert np.array_equal(to_source(found, grid), labels)

    @pytest.mark.parametrize("value", [0.5, 1.001, 1.00001, 1e-5, 100.001])
    def test_real_fractions(self, value):
        with pytest.raises(LabelError, match="not integers"):
            io.as_labels(np.array([0, value, 3]))

    @given(st.integers(-(2**31), 2**31), st.floats(-0.5, 0.5))
    def test_only_rounding_is_rounded(self, value, part):
        array = np.array([value + part, 0.0])
        try:
            found = io.as_labels(array)
        except LabelError:
            assert abs(array[0] - np.rint(array[0])) > 1e-6
        else:
            assert abs(found[0] - array[0]) <= min(1e-3, 1e-6 * max(1, abs(value)))

    def test_a_mask_a_little_off(self, tmp_path, tiny_grid, tiny_labels):
        finest = min(tiny_grid.spacing)

        def off(voxels: float) -> Path:
            affine = tiny_grid.affine.copy()
            affine[0, 3] += voxels * finest
            return io.write_labels(tmp_path / "m.nii", tiny_labels, Grid(tiny_grid.shape, affine))

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            labels, grid = io.read_labels(off(0.0005), tiny_grid)
        assert grid is tiny_grid
        with pytest.warns(UserWarning, match="and is taken to lie on its voxels"):
            labels, grid = io.read_labels(off(0.01), tiny_grid)
        assert grid is tiny_grid
        assert np.array_equal(labels, tiny_labels)
        with pytest.raises(GeometryError, match="mm apart"):
            io.read_labels(off(0.1), tiny_grid)


def inflating_nifti(path: Path, shape: tuple[int, ...], tail: int = 0) -> Path:
    """Write zeros of any size in no memory."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header.set_sform(AFFINE, 1)
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    with gzip.open(path, "wb", 6) as opened:
        opened.write(header.binaryblock + bytes(4))
        for _ in range(int(np.prod(shape)) + tail >> 20):
            opened.write(bytes(2**20))
    return path


class TestInflation:
    def claims(self, path: Path, words: str) -> None:
        tracemalloc.start()
        with pytest.raises(FileError, match=words):
            io.read_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
        tracemalloc.stop()

    def test_gzip(self, tmp_path, monkeypatch):
        path = inflating_nifti(tmp_path / "a.nii.gz", (1024, 1024, 16))
        assert io.read_volume(path).data.max() == 0  # an empty mask
        monkeypatch.setattr("napari_medgs.io._limits.EMPTY_BYTES", 8 * 2**20)
        self.claims(path, r"KiB would become 16.0 MiB, 1,0\d\d times as much")

    def test_a_true_image_of_that_size_is_read(self, tmp_path, monkeypatch, rng):
        monkeypatch.setattr("napari_medgs.io._limits.EMPTY_BYTES", 1000)
        image = rng.normal(100, 10, (20, 20, 20)).astype(np.int16)
        path = tmp_path / "a.nii.gz"
        nib.save(nib.Nifti1Image(image, AFFINE), path)
        assert io.read_volume(path).data.max() == image.max()

    def test_more_than_the_header_says(self, tmp_path):
        path = inflating_nifti(tmp_path / "a.nii.gz", (1024, 1024, 2), tail=2**20)
        io.read_volume(path)
        path = inflating_nifti(tmp_path / "a.nii.gz", (1024, 1024, 2), tail=2**24)
        with pytest.raises(FileError, match=r"much more data follow than the 2\.0 MiB"):
            io.read_volume(path)

    @pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mgz", "a.gipl.gz", "a.tif"])
    def test_other_formats(self, tmp_path, monkeypatch, name):
        path = tmp_path / name
        zeros = np.zeros((16, 1024, 1024), np.uint8)
        if name == "a.mgz":
            nib.save(nib.MGHImage(zeros, AFFINE), path)
        elif name == "a.tif":
            tifffile.imwrite(path, zeros, compression="zlib", photometric="minisblack")
        elif name == "a.gipl.gz":
            image = sitk.GetImageFromArray(zeros)
            sitk.WriteImage(image, str(tmp_path / "a.gipl"))
            path.write_bytes(gzip.compress((tmp_path / "a.gipl").read_bytes()))
        else:
            sitk.WriteImage(sitk.GetImageFromArray(zeros), str(path), useCompression=True)
        options: dict[str, Any] = {"spacing": (1, 1, 1)} if name == "a.tif" else {}
        assert io.read_volume(path, **options).data.max() == 0
        monkeypatch.setattr("napari_medgs.io._limits.EMPTY_BYTES", 8 * 2**20)
        with pytest.raises(FileError, match=r"would become 16\.0 MiB"):
            io.read_volume(path, **options)

    def test_deflated_dicom(self, tmp_path, monkeypatch):
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian

        from napari_medgs.io.dicom.header import read_header

        meta = FileMetaDataset()
        meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3"
        data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        data.SOPClassUID, data.SOPInstanceUID, data.Rows = CTImageStorage, "1.2.3", 4096
        data.PixelData = bytes(2**24)
        data["PixelData"].VR = "OW"
        path = tmp_path / "a.dcm"
        data.save_as(path, enforce_file_format=True)
        assert path.stat().st_size < 2**16
        assert read_header(path).Rows == 4096
        monkeypatch.setattr("napari_medgs.io._limits.EMPTY_BYTES", 8 * 2**20)
        assert read_header(path) is None
        with pytest.raises(FileError):
            io.read_volume(path)

    def test_npz(self, tmp_path, monkeypatch):
        path = tmp_path / "a.npz"
        zeros = np.zeros((16, 1024, 1024), np.uint8)
        np.savez_compressed(path, train_images=zeros, train_labels=np.zeros((16, 1)))
        assert io.read_volume(f"{path}:train:3").data.max() == 0
        monkeypatch.setattr("napari_medgs.io._limits.EMPTY_BYTES", 8 * 2**20)
        with pytest.raises(FileError, match=r"would become 16\.0 MiB"):
            io.read_volume(f"{path}:train:3")

    def test_zlib_stream_longer_than_promised(self, tmp_path):
        path = tmp_path / "a.mha"
        data = zlib.compress(bytes(2**24))
        path.write_bytes(
            b"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\n"
            + f"CompressedData = True\nCompressedDataSize = {len(data)}\n".encode()
            + b"ElementDataFile = LOCAL\n" + data
        )  # fmt: skip
        with pytest.raises(FileError, match="do not have the 64 bytes"):
            check_meta(path)


class TestWhiteIsZero:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
    def test_whole_bytes(self, tmp_path, dtype):
        values = np.arange(2 * 16 * 16).reshape(2, 16, 16).astype(dtype)
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
        found = io.read_volume(tmp_path / "a.tif", spacing=(1, 1, 1)).data[0]
        assert np.array_equal(found, np.iinfo(dtype).max - values)
        tifffile.imwrite(tmp_path / "b.tif", values[0], photometric="miniswhite")
        found = io.read_volume(tmp_path / "b.tif", spacing=(1, 1, 1)).data[0, 0]
        assert np.array_equal(found, np.iinfo(dtype).max - values[0])

    @pytest.mark.parametrize("pages", [1, 3])
    def test_one_bit_as_pillow_reads_it(self, tmp_path, pages):
        from PIL import Image

        values = np.random.default_rng(0).random((pages, 12, 16)) > 0.4
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, values if pages > 1 else values[0], photometric="miniswhite")
        with Image.open(path) as opened:
            expected = np.array(opened)
        found = io.read_volume(path, spacing=(1, 1, 1)).data[0, 0]
        assert np.array_equal(found.astype(bool), expected)

    def test_fewer_bits_than_the_type(self):
        from types import SimpleNamespace

        from napari_medgs.io.image_frame import brightness

        page = SimpleNamespace(photometric=tifffile.PHOTOMETRIC.MINISWHITE, bitspersample=12)
        assert brightness(np.array([0, 4095], np.uint16), page).tolist() == [4095, 0]
        signed = np.array([-5, 5], np.int16)
        assert brightness(signed, page) is signed


def test_volumes_of_one_place_within_rounding(tiny_volume: Volume) -> None:
    from napari_medgs.data.volume import stack_contrasts

    affine = tiny_volume.affine.copy()
    affine[2, 3] += 0.02 * min(tiny_volume.spacing)
    other = Volume(tiny_volume.data, Grid(tiny_volume.shape, affine), ("t2",))
    with pytest.warns(UserWarning, match="'t2' lies up to"):
        stacked = stack_contrasts([tiny_volume, other])
    assert stacked.grid is tiny_volume.grid


@pytest.mark.parametrize(("off", "kept"), [(0.0005, True), (0.02, True), (0.2, False)])
def test_cropped_masks_a_little_off(off: float, kept: bool) -> None:
    from napari_medgs.io._axes import place_on_grid

    like = Grid((4, 6, 8))
    affine = like.affine.copy()
    affine[:3, 3] = like.to_world(np.array([1, 2 + off, 3]))
    labels, grid = np.full((2, 3, 4), 5, np.uint8), Grid((2, 3, 4), affine)
    if not kept:
        with pytest.raises(GeometryError, match="do not coincide"):
            place_on_grid(labels, grid, like)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        placed = place_on_grid(labels, grid, like)
    assert len(caught) == (off > 1e-3)
    assert placed[1:3, 2:5, 3:7].min() == 5
    assert placed.sum() == 5 * 24
