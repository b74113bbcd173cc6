"""NRRD, MetaImage, GIPL: values and places as SimpleITK and pynrrd have them, and round trips."""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, GeometryError, ImageError, LabelError, MedGSError
from napari_medgs.io import (
    read_label_names,
    read_labels,
    read_volume,
    read_volumes,
    write_image,
    write_labels,
)
from napari_medgs.io.itk.segments import read_segmentation, read_segments
from napari_medgs.io.segmented import segments_by_file

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
WRITTEN = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha")


def rotation(seed: int) -> np.ndarray:
    """Return a random rotation, mirrored for odd seeds."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    q[:, 0] *= np.sign(np.linalg.det(q))
    if seed % 2:
        q[:, 1] *= -1
    return q


def make_image(seed: int = 0, shape: tuple[int, ...] = (4, 5, 6), dtype: type = np.int16):
    """Return a SimpleITK image of random values at a random place."""
    rng = np.random.default_rng(seed)
    image = sitk.GetImageFromArray(rng.integers(0, 100, shape).astype(dtype))
    image.SetDirection(rotation(seed).ravel().tolist())
    image.SetSpacing(rng.uniform(0.3, 4, 3).tolist())
    image.SetOrigin(rng.uniform(-200, 200, 3).tolist())
    return image


def values_at(volume: Volume, image: sitk.Image) -> None:
    """Check that every voxel of an image has the same place and value in a volume."""
    array = sitk.GetArrayFromImage(image)
    for index in np.ndindex(*array.shape):
        place = np.array(image.TransformIndexToPhysicalPoint([int(i) for i in index[::-1]]))
        voxel = volume.grid.to_voxel(place * (-1, -1, 1))
        nearest = np.rint(voxel).astype(int)
        assert np.abs(voxel - nearest).max() < 1e-4
        assert volume.data[(0, *nearest)] == array[index]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_read_places_and_values(tmp_path, suffix, compressed, seed):
    image = make_image(seed)
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(image, str(path), compressed)
    volume = read_volume(path)
    assert volume.data.dtype == np.int16
    assert volume.channel_names == ("scan",)
    values_at(volume, image)


@pytest.mark.parametrize("name", ["scan.gipl", "scan.gipl.gz"])
def test_read_gipl(tmp_path, name):
    image = make_image(2)
    image.SetDirection(np.eye(3).ravel().tolist())
    path = tmp_path / name
    sitk.WriteImage(image, str(path))
    values_at(read_volume(path), sitk.ReadImage(str(path)))


def test_read_agrees_with_pynrrd(tmp_path):
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(make_image(3), str(path))
    array, header = nrrd.read(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(header["space directions"]).T
    affine[:3, 3] = header["space origin"]
    source = read_volume(path).grid.source
    inverse = np.linalg.inv(source["affine"]) @ LPS_TO_RAS @ affine
    np.testing.assert_allclose(inverse, np.eye(4), atol=1e-4)
    assert source["shape"] == list(array.shape)


@pytest.mark.parametrize("space", ["left-anterior-superior", "RAS"])
def test_nrrd_of_other_spaces(tmp_path, space):
    path = tmp_path / "scan.nrrd"
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    fields = {
        "space": space,
        "space directions": np.diag([2.0, 1.5, 3.0]),
        "space origin": np.array([10.0, 20.0, 30.0]),
    }
    nrrd.write(str(path), array, fields)
    signs = np.array([-1, 1, 1]) if space.startswith("left") else np.ones(3)
    volume = read_volume(path)
    place = signs * (np.array([10.0, 20, 30]) + np.array([1, 2, 3]) * (2, 1.5, 3))
    voxel = np.rint(volume.grid.to_voxel(place)).astype(int)
    np.testing.assert_allclose(volume.grid.to_world(voxel), place, atol=1e-4)
    assert volume.data[(0, *voxel)] == array[1, 2, 3]


@pytest.mark.parametrize("fields", [{}, {"space dimension": 3, "space directions": np.eye(3)}])
def test_nrrd_without_orientation(tmp_path, fields):
    path = tmp_path / "scan.nrrd"
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    nrrd.write(str(path), array, fields)
    with pytest.raises(GeometryError, match=r"no patient orientation .* Give the spacing"):
        read_volume(path)
    with pytest.warns(UserWarning, match="orientation LPS and 1 x 1 x 1 mm"):
        assert read_volume(path, assume_identity=True).spacing == (1, 1, 1)
    volume = read_volume(path, spacing=(3, 2, 1))
    assert volume.spacing == (3, 2, 1)
    np.testing.assert_array_equal(volume.data[0], array.transpose(2, 1, 0))
    mask = read_labels(path, volume.grid)[0]  # takes the spacing of its image
    np.testing.assert_array_equal(mask, volume.data[0])


def test_nrrd_without_origin(tmp_path):
    path = tmp_path / "scan.nrrd"
    nrrd.write(str(path), np.ones((2, 3, 4)), {"space": "LPS", "space directions": np.eye(3)})
    with pytest.warns(UserWarning, match="no space origin"):
        assert not read_volume(path).grid.to_world([0, 0, 0]).any()


def test_contradicting_spacing(tmp_path):
    path = tmp_path / "scan.mha"
    sitk.WriteImage(make_image(), str(path))
    with pytest.raises(GeometryError, match="has its own spacing"):
        read_volume(path, spacing=(9, 9, 9))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_channels(tmp_path, suffix):
    path = tmp_path / f"two{suffix}"
    array = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype(np.float32)
    image = sitk.GetImageFromArray(array, isVector=True)
    sitk.WriteImage(image, str(path))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, np.moveaxis(array, -1, 0))
    assert volume.channel_names == ("two [0]", "two [1]")
    written = tmp_path / f"again{suffix}"
    write_image(written, volume.data, volume.grid)
    again = read_volume(written)
    np.testing.assert_array_equal(again.data, volume.data)
    assert again.grid.matches(volume.grid)


def test_fourth_axis_is_channels(tmp_path):
    path = tmp_path / "four.mha"
    array = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
    image = sitk.JoinSeries([sitk.GetImageFromArray(a) for a in array])
    sitk.WriteImage(image, str(path))
    np.testing.assert_array_equal(read_volume(path).data, array)


def test_last_axis_of_nrrd_is_channels(tmp_path):
    path = tmp_path / "four.nrrd"
    array = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5, 2)
    fields = {
        "space": "left-posterior-superior",
        "space directions": np.vstack([np.diag([1.0, 2, 3]), [np.nan] * 3]),
        "kinds": ["domain"] * 3 + ["list"],
    }
    nrrd.write(str(path), array, fields)
    volume = read_volume(path)
    assert volume.spacing == (3, 2, 1)
    np.testing.assert_array_equal(volume.data, array.transpose(3, 2, 1, 0))


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd"])
def test_images_that_itk_converted_from_nifti(tmp_path, suffix):
    """ITK carries the NIfTI header along, as entries such as ``dim[0] = 3``."""
    written = nib.Nifti1Image(
        np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1, 2, 3, 1])
    )
    nib.save(written, tmp_path / "a.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    assert "dim[0]" in image.GetMetaDataKeys()
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    values_at(read_volume(tmp_path / f"a{suffix}"), image)


def test_one_slice(tmp_path):
    path = tmp_path / "flat.mha"
    array = np.arange(20, dtype=np.uint8).reshape(4, 5)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    np.testing.assert_array_equal(read_volume(path).data[0, 0], array)


def test_unknown_type(tmp_path):
    path = tmp_path / "odd.mha"
    sitk.WriteImage(make_image(), str(path), False)
    data = path.read_bytes().replace(b"MET_SHORT", b"MET_SHORTS")
    path.write_bytes(data)
    with pytest.raises(FileError, match="values of MetaImage type"):
        read_volume(path)


@st.composite
def grids(draw) -> Grid:
    """Draw a grid that came from a file with any rotated, mirrored and anisotropic axes."""
    seed = draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = rotation(seed) * rng.uniform(0.3, 5, 3)
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    shape = tuple(draw(st.integers(1, 6)) for _ in range(3))
    data = np.zeros((1, *shape), np.uint8)
    return Volume.from_axes(data, affine, source={"kind": "itk"}).grid


@pytest.mark.parametrize("suffix", WRITTEN)
@given(grid=grids(), top=st.sampled_from([1, 5, 300, 70000]), known=st.booleans())
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_masks_come_back(tmp_path, suffix, grid, top, known):
    labels = np.random.default_rng(top).integers(0, 3, grid.shape) * top // 2
    if not known:
        grid = Grid(grid.shape, grid.affine)
    names = {top // 2: "left kidney", top: "Größe 2"} if top > 1 else {1: "a"}
    path = tmp_path / f"mask{suffix}"
    write_labels(path, labels, grid, names)
    back, place = read_labels(path)
    np.testing.assert_array_equal(back, labels)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape])).reshape(3, -1).T
    apart = np.abs(place.to_world(corners) - grid.to_world(corners)).max()
    assert apart < 1e-3
    assert read_label_names(path) == names
    assert read_labels(path, grid)[0].shape == grid.shape
    if suffix.startswith((".nrrd", ".mha")):
        # Stored as the source has it: ITK finds the same array at the same affine.
        image = sitk.ReadImage(str(path))
        if known:
            assert list(image.GetSize()) == grid.source["shape"]


def test_sheared_affine_comes_back(tmp_path):
    affine = np.array([[-1, 0, 0, 5.0], [0, -1, 0.2, 6], [0, 0, 2, 7], [0, 0, 0, 1]])
    grid = Volume.from_axes(np.zeros((1, 4, 5, 6)), affine, source={"kind": "dicom"}).grid
    for suffix in (".nrrd", ".mha"):
        path = tmp_path / f"tilted{suffix}"
        write_image(path, np.ones(grid.shape, np.float32), grid)
        assert read_volume(path).grid.matches(grid, 1e-4)


def test_masks_overlay_their_nifti_image_in_itk(tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = rotation(5) * (1, 1.2, 2.5)
    affine[:3, 3] = (30, -15, -90)
    nib.save(nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), affine),
             tmp_path / "image.nii.gz")  # fmt: skip
    volume = read_volume(tmp_path / "image.nii.gz")
    mask = (volume.data[0] > 30).astype(np.uint8)
    expected = sitk.ReadImage(str(tmp_path / "image.nii.gz"))
    for suffix in (".nrrd", ".seg.nrrd", ".mha"):
        path = tmp_path / f"mask{suffix}"
        write_labels(path, mask, volume.grid)
        found = sitk.ReadImage(str(path))
        np.testing.assert_allclose(found.GetOrigin(), expected.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(found.GetDirection(), expected.GetDirection(), atol=1e-4)
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected) > 30
        )


def test_written_segmentation_as_pynrrd_reads_it(tmp_path):
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:3, 2:4, 0:2] = 1
    labels[3, 4, 5] = 7
    path = tmp_path / "organs.seg.nrrd"
    write_labels(path, labels, Grid(labels.shape), {1: "liver", 7: "spleen"},
                 colors={7: (0.25, 0.5, 1)})  # fmt: skip
    array, header = nrrd.read(str(path))
    np.testing.assert_array_equal(array.transpose(2, 1, 0), labels)
    assert header["Segment0_Name"] == "liver"
    assert header["Segment0_LabelValue"] == "1"
    assert header["Segment0_Extent"] == "0 1 2 3 1 2"
    assert header["Segment1_Name"] == "spleen"
    assert header["Segment1_LabelValue"] == "7"
    assert header["Segment1_Color"] == "0.25 0.5 1"
    assert header["Segment1_Extent"] == "5 5 4 4 3 3"
    assert header["encoding"] == "gzip"
    assert read_segments(path)[1].color == (0.25, 0.5, 1)
    assert not (tmp_path / "organs.seg.json").exists()


def test_negative_labels_and_segmentations(tmp_path):
    labels = np.full((2, 2, 2), -1)
    with pytest.raises(LabelError, match="no negative labels"):
        write_labels(tmp_path / "a.seg.nrrd", labels, Grid((2, 2, 2)))
    write_labels(tmp_path / "a.nrrd", labels, Grid((2, 2, 2)))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.nrrd")[0], labels)


def write_segmentation(path: Path, layers: np.ndarray, origin=(0, 0, 0), segments=()) -> None:
    """Write (L, Z, Y, X) layers as 3D Slicer does."""
    array = layers[0] if len(layers) == 1 else np.moveaxis(layers, 0, -1)
    image = sitk.GetImageFromArray(array, isVector=len(layers) > 1)
    image.SetOrigin([float(v) for v in origin])
    for k, (name, value, layer) in enumerate(segments):
        image.SetMetaData(f"Segment{k}_ID", f"Segment_{k + 1}")
        image.SetMetaData(f"Segment{k}_Name", name)
        image.SetMetaData(f"Segment{k}_LabelValue", str(value))
        image.SetMetaData(f"Segment{k}_Layer", str(layer))
    sitk.WriteImage(image, str(path))


def image_grid(tmp_path: Path, shape=(6, 7, 8)) -> Grid:
    image = sitk.GetImageFromArray(np.zeros(shape, np.uint8))
    sitk.WriteImage(image, str(tmp_path / "image.mha"))
    return read_volume(tmp_path / "image.mha").grid


def test_cropped_segmentation_is_padded_in_place(tmp_path):
    grid = image_grid(tmp_path)
    path = tmp_path / "s.seg.nrrd"
    write_segmentation(path, np.full((1, 2, 3, 2), 4, np.uint8), (3, 2, 1), [("liver", 4, 0)])
    labels, place = read_labels(path, grid)
    expected = np.zeros(grid.shape, np.uint8)
    expected[1:3, 2:5, 3:5] = 4
    np.testing.assert_array_equal(labels, expected)
    assert place is grid
    assert read_label_names(path) == {4: "liver"}


def test_names_of_segments_and_paths_may_be_arrays(tmp_path):
    grid = image_grid(tmp_path)
    path = tmp_path / "s.seg.nrrd"
    stored = np.full((1, 2, 3, 2), 4, np.uint8)
    stored[0, 0] = 5
    write_segmentation(path, stored, (3, 2, 1), [("liver", 4, 0), ("spleen", 5, 0)])
    labels, _ = read_labels(path, grid, segments=np.array(["liver", "5"]))
    assert np.unique(labels).tolist() == [0, 4, 5]
    assert segments_by_file(np.array(["liver", "5"]), path) == {str(path): ("liver", "5")}
    image = str(tmp_path / "image.mha")
    assert read_volumes(np.array([image, image])).channels == 2


def test_segmentation_beyond_the_image_is_cropped_with_a_warning(tmp_path):
    grid = image_grid(tmp_path)
    path = tmp_path / "s.seg.nrrd"
    write_segmentation(path, np.ones((1, 3, 2, 2), np.uint8), (0, 0, -1), [("a", 1, 0)])
    with pytest.warns(UserWarning, match="4 labeled voxels lie outside the image"):
        labels, _ = read_labels(path, grid)
    assert labels.sum() == 8
    assert labels[:2, :2, :2].all()


def test_segmentation_between_voxels_is_refused(tmp_path):
    grid = image_grid(tmp_path)
    path = tmp_path / "s.seg.nrrd"
    write_segmentation(path, np.ones((1, 2, 2, 2), np.uint8), (0.4, 0, 0), [("a", 1, 0)])
    with pytest.raises(GeometryError, match=r"do not coincide .*--resample"):
        read_labels(path, grid)


def test_overlapping_segments(tmp_path):
    layers = np.zeros((2, 3, 4, 5), np.uint8)
    layers[0, 0], layers[0, 2] = 1, 2
    layers[1, 0:2] = 1
    path = tmp_path / "s.seg.nrrd"
    segments = [("liver", 1, 0), ("spleen", 2, 0), ("tumor", 1, 1)]
    write_segmentation(path, layers, segments=segments)
    with pytest.raises(LabelError, match=r"'liver' and 'tumor' overlap in 20 voxels.*Choose"):
        read_labels(path)
    labels, _ = read_labels(path, segments=["tumor"])
    np.testing.assert_array_equal(labels, layers[1])
    labels, _, found = read_segmentation(path, segments=["spleen", "tumor"])
    np.testing.assert_array_equal(labels, np.where(layers[1] == 1, 1, layers[0] // 2 * 2))
    assert {s.name: s.value for s in found} == {"spleen": 2, "tumor": 1}
    with pytest.raises(LabelError, match=r"no segment 'heart'\. There are: 'liver', 'spleen'"):
        read_labels(path, segments=["heart"])


def test_layers_that_do_not_overlap_become_one_label_image(tmp_path):
    layers = np.zeros((2, 3, 4, 5), np.uint8)
    layers[0, 0], layers[1, 1] = 1, 1
    path = tmp_path / "s.seg.nrrd"
    write_segmentation(path, layers, segments=[("a", 1, 0), ("b", 1, 1)])
    labels, _ = read_labels(path)
    assert [np.unique(z).tolist() for z in labels] == [[1], [2], [0]]
    assert read_label_names(path) == {1: "a", 2: "b"}


def test_segmentation_survives_a_second_write(tmp_path):
    path = tmp_path / "s.seg.nrrd"
    labels = np.arange(24).reshape(2, 3, 4) % 3
    write_labels(path, labels, Grid((2, 3, 4)), {1: "a", 2: "b", 9: "empty"})
    found, grid = read_labels(path)
    write_labels(path, found, grid, read_label_names(path))
    assert read_label_names(path) == {1: "a", 2: "b", 9: "empty"}
    np.testing.assert_array_equal(read_labels(path)[0], labels)


@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd", "a.gipl", "a.mgz", "a.img", "a.seg.nii.x"])
def test_formats_that_are_not_written(tmp_path, name):
    with pytest.raises(FileError, match=r"ends in \.nii, \.nii\.gz, \.nrrd, \.mha, "):
        write_labels(tmp_path / name, np.zeros((2, 2, 2), np.uint8), Grid((2, 2, 2)))
    assert not list(tmp_path.iterdir())


def test_images_are_no_segmentations(tmp_path):
    with pytest.raises(FileError, match=r"\.seg\.nrrd holds masks"):
        write_image(tmp_path / "a.seg.nrrd", np.zeros((2, 2, 2)), Grid((2, 2, 2)))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd", ".gipl", ".gipl.gz"])
@pytest.mark.parametrize("compressed", [True, False])
def test_truncated(tmp_path, suffix, compressed):
    path = tmp_path / f"cut{suffix}"
    sitk.WriteImage(make_image(0, (16, 17, 18)), str(path), compressed)
    data = next((p for p in (tmp_path / "cut.zraw", tmp_path / "cut.raw") if p.exists()), path)
    data.write_bytes(data.read_bytes()[:-50])
    with pytest.raises(FileError, match="cut"):
        read_volume(path)


def test_wrong_checksum(tmp_path):
    # ITK itself only prints that it cannot inflate such data, and returns other values.
    path = tmp_path / "flip.mha"
    sitk.WriteImage(make_image(0, (16, 17, 18)), str(path), True)
    data = bytearray(path.read_bytes())
    data[-60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(FileError, match="truncated or damaged"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_sizes_that_the_file_cannot_hold(tmp_path, suffix):
    path = tmp_path / f"huge{suffix}"
    sitk.WriteImage(make_image(), str(path), False)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"6 5 4", b"60000 50000 40000"))
    with pytest.raises(FileError, match="its header promises"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
def test_missing_data_file(tmp_path, suffix):
    path = tmp_path / f"pair{suffix}"
    sitk.WriteImage(make_image(), str(path), False)
    (tmp_path / "pair.raw").unlink()
    with pytest.raises(FileError, match=r"its data file 'pair.raw' is missing"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".gipl", ".gipl.gz", ".seg.nrrd"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 400, b"NRRD0004\n", b"NDims = 3\n"])
def test_other_content(tmp_path, suffix, content):
    path = tmp_path / f"no{suffix}"
    path.write_bytes(content)
    with pytest.raises(FileError, match="no"):
        read_labels(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".gipl", ".seg.nrrd"])
@pytest.mark.parametrize("seed", range(3))
def test_random_damages_are_read_or_refused_in_one_line(tmp_path, suffix, seed):
    path = tmp_path / f"fuzz{suffix}"
    sitk.WriteImage(make_image(seed), str(path), bool(seed % 2))
    whole = path.read_bytes()
    rng = np.random.default_rng(seed)
    for _ in range(70):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), rng.integers(1, 9)):
            data[at] = rng.integers(256)
        if rng.random() < 0.1:
            data = data[: rng.integers(len(data))]
        path.write_bytes(data)
        failed = None
        try:
            read_volume(path)
        except MedGSError as error:
            failed = str(error)
        assert failed is None or "\n" not in failed


def test_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.mha"
    packed = zlib.compress(b"\0" * 10**7)
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = True\n"
        f"CompressedDataSize = {len(packed)}\nDimSize = 4 4 4\nElementType = MET_UCHAR\n"
        "ElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + packed)
    with pytest.raises(FileError, match="truncated or damaged"):
        read_volume(path)


def test_image_of_wrong_shape(tmp_path):
    with pytest.raises(GeometryError, match="The data have shape"):
        write_image(tmp_path / "a.mha", np.zeros((2, 2, 3)), Grid((2, 2, 2)))
    with pytest.raises(ImageError, match="cannot be written"):
        write_image(tmp_path / "a.mha", np.zeros((2, 2)), Grid((1, 2, 2)))
    assert not list(tmp_path.iterdir())


def test_segments_of_old_slicers_have_a_layer_each(tmp_path):
    layers = np.zeros((2, 3, 4, 5), np.uint8)
    layers[0, 1, 1:3, 1], layers[1, 2, 2:, 2:] = 1, 1
    write_segmentation(tmp_path / "full.seg.nrrd", layers, segments=[("a", 1, 0), ("b", 1, 1)])
    data, header = nrrd.read(str(tmp_path / "full.seg.nrrd"))
    old = {k: v for k, v in header.items() if not k.endswith(("_LabelValue", "_Layer"))}
    nrrd.write(str(tmp_path / "old.seg.nrrd"), data, old)
    labels, _ = read_labels(tmp_path / "old.seg.nrrd")
    np.testing.assert_array_equal(labels, layers[0] + 2 * layers[1])
    assert read_label_names(tmp_path / "old.seg.nrrd") == {1: "a", 2: "b"}


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ([("a", 1, 0), ("b", 1, 0)], "overlap in 8 voxels"),
        ([("a", 1, 2)], "in no layer"),
        ([("a", 0, 0)], "Segment0_LabelValue is '0'"),
        ([("a", "x", 0)], "Segment0_LabelValue is 'x'"),
        ([("a", 1, "-1")], "Segment0_Layer is '-1'"),
    ],
)
def test_segments_that_name_no_voxels_of_their_own(tmp_path, segments, words):
    write_segmentation(tmp_path / "s.seg.nrrd", np.ones((1, 2, 2, 2), np.uint8), segments=segments)
    with pytest.raises(MedGSError, match=words):
        read_labels(tmp_path / "s.seg.nrrd")


@pytest.mark.parametrize(
    ("unit", "factor"), [("mm", 1), ("cm", 10), ("um", 1e-3), ("Microns", 1e-3), ("", 1)]
)
def test_units_of_nrrd_and_metaimage(tmp_path, unit, factor):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    header = {"space": "LPS", "space directions": np.diag([1.0, 2, 3]), "space origin": [5, 6, 7]}
    if unit:
        header["space units"] = [unit] * 3
    nrrd.write(str(tmp_path / "a.nrrd"), data, header)
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nrrd")), str(tmp_path / "a.mha"))
    stored = (tmp_path / "a.mha").read_bytes()
    line = f"DistanceUnits = {unit}\n".encode() if unit else b""
    (tmp_path / "a.mha").write_bytes(stored.replace(b"ElementSpacing", line + b"ElementSpacing"))
    for name in ("a.nrrd", "a.mha"):
        volume = read_volume(tmp_path / name)
        assert volume.spacing == pytest.approx(np.array([3, 2, 1]) * factor)
        ends = volume.grid.to_world([[0, 0, 0], np.array(volume.grid.shape) - 1])
        wanted = np.array([[-5, -6, 7], [-6, -10, 16]]) * factor
        np.testing.assert_allclose(np.sort(ends, axis=0), np.sort(wanted, axis=0), atol=1e-9)


def test_units_that_are_not_known(tmp_path):
    header = {"space": "LPS", "space directions": np.eye(3), "space origin": [0, 0, 0]}
    for units in (["furlong"] * 3, ["mm", "mm", "cm"]):
        nrrd.write(str(tmp_path / "a.nrrd"), np.zeros((2, 3, 4)), {**header, "space units": units})
        with pytest.raises(GeometryError, match="measures lengths in"):
            read_volume(tmp_path / "a.nrrd")


@pytest.mark.parametrize("name", ["full.nrrd", "full.seg.nrrd"])
@pytest.mark.parametrize("left", [0, 300, -4])
def test_a_disk_that_is_full(tmp_path, monkeypatch, name, left):
    """The writer of NRRD files says nothing of it; an older file stays."""
    write = sitk.WriteImage

    def truncated(image, path, **options):
        write(image, path, **options)
        content = Path(path).read_bytes()
        Path(path).write_bytes(content[:left])

    labels = np.random.default_rng(0).integers(0, 3, (6, 20, 20)).astype(np.uint8)
    grid = Grid(labels.shape)
    write_labels(tmp_path / name, labels, grid)
    before = (tmp_path / name).read_bytes()
    monkeypatch.setattr(sitk, "WriteImage", truncated)
    with pytest.raises(FileError, match="not written completely"):
        write_labels(tmp_path / name, labels, grid)
    assert (tmp_path / name).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]
