"""FreeSurfer volumes, .hdr/.img pairs, multi-page TIFF, OME-TIFF and one-hot masks."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest
import tifffile

from napari_medgs.errors import FileError, GeometryError, ImageError, LabelError, MedGSError
from napari_medgs.io import read_labels, read_volume, write_labels

AFFINE = np.array([[0, -1.2, 0.1, 30], [0.9, 0, 0, -15], [0, 0.3, 2.5, -90], [0, 0, 0, 1.0]])


def check_places(volume, array: np.ndarray, affine: np.ndarray) -> None:
    """Check the place and value of every voxel (i, j, k)."""
    for index in np.ndindex(*array.shape[:3]):
        place = affine[:3, :3] @ index + affine[:3, 3]
        voxel = volume.grid.to_voxel(place)
        nearest = np.rint(voxel).astype(int)
        assert np.abs(voxel - nearest).max() < 1e-4
        np.testing.assert_array_equal(volume.data[(slice(None), *nearest)], array[index])


@pytest.mark.parametrize("name", ["t1.mgz", "t1.mgh", "t1.mgh.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_freesurfer(tmp_path, name, dtype):
    array = np.arange(60).reshape(3, 4, 5).astype(dtype)
    affine = np.array([[-1.0, 0, 0, 30], [0, 0, 1.5, -15], [0, -2, 0, -90], [0, 0, 0, 1]])
    plain = tmp_path / "t1.mgh"
    nib.save(nib.MGHImage(array, affine), plain)
    path = tmp_path / name
    if name != "t1.mgh":
        path.write_bytes(gzip.compress(plain.read_bytes()))
    volume = read_volume(path)
    assert volume.data.dtype == dtype
    assert volume.channel_names == ("t1",)
    check_places(volume, array, nib.load(plain).affine)
    if dtype != np.float32:
        write_labels(tmp_path / "seg.nii.gz", volume.data[0], volume.grid)
        written = nib.load(tmp_path / "seg.nii.gz")
        np.testing.assert_array_equal(np.asarray(written.dataobj), array)  # as FreeSurfer has it
        np.testing.assert_allclose(written.affine, affine, atol=1e-5)


def test_freesurfer_frames_are_channels(tmp_path):
    array = np.arange(120, dtype=np.float32).reshape(3, 4, 5, 2)
    nib.save(nib.MGHImage(array, np.eye(4)), tmp_path / "two.mgz")
    check_places(read_volume(tmp_path / "two.mgz"), array, np.eye(4))


def test_freesurfer_without_orientation(tmp_path):
    path = tmp_path / "t1.mgh"
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nib.save(nib.MGHImage(array, np.diag([2.0, 3.0, 4.0, 1.0])), path)
    data = bytearray(path.read_bytes())
    data[28:30] = b"\0\0"
    path.write_bytes(data)
    with pytest.raises(GeometryError, match="orientation is not valid"):
        read_volume(path)
    with pytest.warns(UserWarning, match="LIA is assumed"):
        volume = read_volume(path, assume_identity=True)
    # FreeSurfer's default: i, j, k run to left, inferior, anterior, by 1 mm.
    affine = [[-1, 0, 0, 1.5], [0, 0, 1, -2.5], [0, -1, 0, 2], [0, 0, 0, 1]]
    check_places(volume, array, np.array(affine))


@pytest.mark.parametrize("name", ["a.mgh", "a.mgz"])
def test_truncated_freesurfer(tmp_path, name):
    path = tmp_path / name
    array = np.random.default_rng(0).integers(0, 99, (8, 9, 10)).astype(np.int16)
    nib.save(nib.MGHImage(array, np.eye(4)), path)
    # The footer of nibabel takes the last bytes.
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FileError, match="truncated"):
        read_volume(path)


@pytest.mark.parametrize("name", ["no.mgz", "no.mgh", "no.hdr", "no.img", "no.tif"])
@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\0" * 400, gzip.compress(b"\0" * 900, mtime=0)],
    ids=["nothing", "text", "zeros", "gzip"],
)
def test_other_content(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MedGSError, match=r"no\."):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("opened", ["scan.hdr", "scan.img"])
def test_nifti_pair(tmp_path, opened):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nib.save(nib.Nifti1Pair(array, AFFINE), tmp_path / "scan.img")
    volume = read_volume(tmp_path / opened)
    assert volume.data.dtype == np.int16
    check_places(volume, array, nib.load(tmp_path / "scan.hdr").affine)
    labels, grid = read_labels(tmp_path / opened, volume.grid)
    write_labels(tmp_path / "out.nii", labels, grid)
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii").affine,
                                  nib.load(tmp_path / "scan.hdr").affine)  # fmt: skip


def test_scaled_pair(tmp_path):
    image = nib.Nifti1Pair(np.linspace(-3, 5, 60).reshape(3, 4, 5), np.eye(4))
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "scan.img")
    volume = read_volume(tmp_path / "scan.hdr")
    assert volume.data.dtype == np.float32
    expected = nib.load(tmp_path / "scan.hdr").get_fdata().astype(np.float32)
    check_places(volume, expected, np.eye(4))


def test_analyze_has_no_orientation(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = nib.AnalyzeImage(array, None)
    image.header.set_zooms((2, 3, 4))
    nib.save(image, tmp_path / "old.img")
    with pytest.raises(GeometryError, match=r"Analyze 7.5 .* Give the spacing"):
        read_volume(tmp_path / "old.hdr")
    with pytest.warns(UserWarning, match="LAS is assumed"):
        volume = read_volume(tmp_path / "old.hdr", assume_identity=True)
    check_places(volume, array, nib.load(tmp_path / "old.hdr").affine)
    assert read_volume(tmp_path / "old.img", spacing=(4, 3, 2)).spacing == (4, 3, 2)


def test_a_pair_that_was_read_does_not_follow_its_file(tmp_path):
    values = np.arange(1, 61, dtype=np.int16).reshape(3, 4, 5)
    nib.save(nib.Nifti1Pair(values, np.diag([-1.0, -1, 1, 1])), tmp_path / "scan.img")
    volume = read_volume(tmp_path / "scan.img")
    before = volume.data.copy()
    size = (tmp_path / "scan.img").stat().st_size
    with (tmp_path / "scan.img").open("r+b") as opened:
        opened.write(bytes(size))  # a shorter file would end the process
    np.testing.assert_array_equal(volume.data, before)


@pytest.mark.parametrize("missing", ["scan.hdr", "scan.img"])
def test_half_a_pair(tmp_path, missing):
    nib.save(nib.Nifti1Pair(np.zeros((3, 4, 5), np.int16), AFFINE), tmp_path / "scan.img")
    (tmp_path / missing).unlink()
    left = "scan.img" if missing.endswith("hdr") else "scan.hdr"
    with pytest.raises(FileError, match="keep both in one folder"):
        read_volume(tmp_path / left)


def test_truncated_pair(tmp_path):
    nib.save(nib.Nifti1Pair(np.zeros((3, 4, 5), np.int16), AFFINE), tmp_path / "scan.img")
    (tmp_path / "scan.img").write_bytes(b"\0" * 50)
    with pytest.raises(FileError, match="its header promises"):
        read_volume(tmp_path / "scan.hdr")


STACK = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)


def test_ome_tiff(tmp_path):
    path = tmp_path / "cells.ome.tif"
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2,
                "PhysicalSizeXUnit": "mm"}  # fmt: skip
    tifffile.imwrite(path, STACK, metadata=metadata)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data[0], STACK)
    np.testing.assert_allclose(volume.spacing, (2e-3, 0.25e-3, 0.5))
    assert volume.channel_names == ("cells",)
    with pytest.raises(GeometryError, match="which the given spacing contradicts"):
        read_volume(path, spacing=(1, 1, 1))


def test_ome_tiff_channels(tmp_path):
    path = tmp_path / "two.ome.tif"
    data = np.stack([STACK, STACK + 100], axis=1)
    metadata = {"axes": "ZCYX", "PhysicalSizeX": 1, "PhysicalSizeY": 1, "PhysicalSizeZ": 1,
                "Channel": {"Name": ["DAPI", "GFP"]}}  # fmt: skip
    tifffile.imwrite(path, data, metadata=metadata)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, data.transpose(1, 0, 2, 3))
    assert volume.channel_names == ("DAPI", "GFP")


def test_the_first_of_several_images_is_read_with_a_warning(tmp_path):
    path = tmp_path / "two.ome.tif"
    sizes = {"axes": "ZYX", "PhysicalSizeX": 1, "PhysicalSizeY": 1, "PhysicalSizeZ": 1}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(STACK, metadata=sizes)
        writer.write(STACK[:, ::-1], metadata=sizes)
    with pytest.warns(UserWarning, match="two.ome.tif: holds 2 images; the first is read"):
        np.testing.assert_array_equal(read_volume(path).data[0], STACK)


def test_time_points_are_refused(tmp_path):
    path = tmp_path / "time.ome.tif"
    tifffile.imwrite(path, np.stack([STACK, STACK]), metadata={"axes": "TZYX"})
    with pytest.raises(ImageError, match="holds 2 volumes along its fourth axis; choose one"):
        read_volume(path, spacing=(1, 1, 1))


def test_imagej_stack(tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, STACK, imagej=True, resolution=(2, 4),
                     metadata={"spacing": 3, "unit": "mm", "axes": "ZYX"})  # fmt: skip
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data[0], STACK)
    np.testing.assert_allclose(volume.spacing, (3, 0.25, 0.5))


@pytest.mark.parametrize("unit", ["micron", r"\u00B5m", r"\u00b5m", "um"])
def test_imagej_s_micrometers(tmp_path, unit):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, STACK, imagej=True, resolution=(2, 4),
                     metadata={"spacing": 3, "unit": unit, "axes": "ZYX"})  # fmt: skip
    np.testing.assert_allclose(read_volume(path).spacing, (3e-3, 0.25e-3, 0.5e-3))


def test_imagej_s_axes_with_units_of_their_own(tmp_path):
    path = tmp_path / "stack.tif"
    more = {"yunit": "cm", "zunit": r"\u00B5m"}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(2, 4),
                     metadata={"spacing": 500, "unit": "mm", "axes": "ZYX", **more})  # fmt: skip
    np.testing.assert_allclose(read_volume(path).spacing, (0.5, 2.5, 0.5))
    more["zunit"] = "pixel"  # of no length
    tifffile.imwrite(path, STACK, imagej=True, resolution=(2, 4),
                     metadata={"spacing": 500, "unit": "mm", "axes": "ZYX", **more})  # fmt: skip
    with pytest.raises(GeometryError, match="does not say how large its voxels are"):
        read_volume(path)


def test_plain_pages_need_a_spacing(tmp_path):
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as writer:
        for page in STACK:
            writer.write(page, contiguous=False)
    with pytest.raises(GeometryError, match="give the spacing"):
        read_volume(path)
    volume = read_volume(path, spacing=(3, 2, 1))
    np.testing.assert_array_equal(volume.data[0], STACK)
    labels, grid = read_labels(path, volume.grid)
    np.testing.assert_array_equal(labels, STACK)
    assert grid is volume.grid


def test_pages_of_several_sizes(tmp_path):
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(STACK[0])
        writer.write(STACK[0, :2])
    with pytest.raises(ImageError, match="differ in size"):
        read_volume(path, spacing=(1, 1, 1))


@pytest.mark.parametrize("shape", [(2, 5, 6, 7), (1, 5, 6, 7), (5, 1, 6, 7)])
def test_pages_in_two_series_of_no_name(tmp_path, shape):
    values = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    tifffile.imwrite(tmp_path / "a.tif", values)
    if shape[0] > 1 and shape[1] > 1:
        with pytest.raises(ImageError, match="has axes"):
            read_volume(tmp_path / "a.tif", spacing=(1, 1, 1))
        return
    data = read_volume(tmp_path / "a.tif", spacing=(1, 1, 1)).data
    np.testing.assert_array_equal(data, values.reshape(1, 5, 6, 7))


def test_complex_pages(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((3, 4, 5), np.complex64))
    with pytest.raises(ImageError, match="complex"):
        read_volume(tmp_path / "a.tif", spacing=(1, 1, 1))


def test_truncated_pages(tmp_path):
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, np.zeros((5, 40, 50), np.uint16), photometric="minisblack")
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(FileError, match="truncated or damaged"):
        read_volume(path, spacing=(1, 1, 1))


def one_hot_file(tmp_path, channels: np.ndarray):
    path = tmp_path / "onehot.nii.gz"
    nib.save(nib.Nifti1Image(np.moveaxis(channels, 0, -1), AFFINE), path)
    return path


def test_one_hot_masks_become_labels(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, (3, 4, 5))
    without = np.stack([labels == k for k in (1, 2, 3)]).astype(np.uint8)
    withal = np.stack([labels == k for k in range(4)]).astype(np.float32)
    for channels in (without, withal):
        path = one_hot_file(tmp_path, channels)
        found, grid = read_labels(path)
        write_labels(tmp_path / "back.nii.gz", found, grid)
        np.testing.assert_array_equal(read_labels(tmp_path / "back.nii.gz", grid)[0], found)
        for index in np.ndindex(*labels.shape):
            affine = nib.load(path).affine
            place = affine[:3, :3] @ index + affine[:3, 3]
            voxel = np.rint(grid.to_voxel(place)).astype(int)
            assert found[tuple(voxel)] == labels[index]


def test_overlapping_one_hot_masks_are_refused(tmp_path):
    channels = np.zeros((2, 3, 4, 5), np.uint8)
    channels[:, 0, 0, :2] = 1
    with pytest.raises(LabelError, match="channels 1 and 2 that overlap in 2 voxels"):
        read_labels(one_hot_file(tmp_path, channels))
    with pytest.raises(LabelError, match="other values than 0 and 1"):
        read_labels(one_hot_file(tmp_path, channels * 2))


@pytest.mark.parametrize("name", ["f.mgh", "f.mgz", "f.hdr", "f.ome.tif"])
def test_random_damages_are_read_or_refused_in_one_line(tmp_path, name):
    path = tmp_path / name
    if name.endswith("tif"):
        tifffile.imwrite(path, STACK, metadata={"axes": "ZYX"})
    elif name.endswith("hdr"):
        nib.save(nib.Nifti1Pair(STACK.astype(np.int16), AFFINE), tmp_path / "f.img")
    else:
        nib.save(nib.MGHImage(STACK.astype(np.int16), np.eye(4)), path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(whole)
        for at in rng.integers(0, min(len(data), 600), rng.integers(1, 9)):
            data[at] = rng.integers(256)
        if rng.random() < 0.1:
            data = data[: rng.integers(len(data))]
        path.write_bytes(data)
        failed = None
        try:
            read_volume(path, spacing=(1, 1, 1))
        except MedGSError as error:
            failed = str(error)
        assert failed is None or "\n" not in failed
