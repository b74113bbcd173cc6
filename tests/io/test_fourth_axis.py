"""Files with a fourth axis: contrasts where there are few, volumes in time otherwise."""

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from napari_medgs.errors import ImageError, LabelError, ParameterError
from napari_medgs.io import read_labels, read_volume, read_volumes, write_image
from napari_medgs.io.fourth_axis import SOURCE_KEY
from napari_medgs.io.reading import read_all_volumes

AFFINE = np.diag([-2.0, -3, 4, 1])  # LPS voxels, as ITK's


def values(count, dtype=np.int16):
    rng = np.random.default_rng(count)
    return rng.integers(0, 900, (5, 4, 3, count)).astype(dtype)


def nifti(path, data, *, step=0.0, units="unknown", intent=0):
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_xyzt_units("mm", units)
    image.header["pixdim"][4] = step
    image.header["intent_code"] = intent
    nib.save(image, path)
    return path


def mha(path, data, **_):
    image = sitk.GetImageFromArray(data.transpose(3, 2, 1, 0), isVector=False)
    image.SetSpacing([2, 3, 4, 1])
    sitk.WriteImage(image, str(path))
    return path


def sequence_nrrd(path, data, kind="list", first=True, **more):
    """Write an NRRD file as 3D Slicer writes sequences (first), or with the entries last."""
    none, steps = [np.nan] * 3, np.diag([2.0, 3, 4]).tolist()
    directions = [none, *steps] if first else [*steps, none]
    kinds = [kind, *["domain"] * 3] if first else [*["domain"] * 3, kind]
    header = {"space": "left-posterior-superior", "kinds": kinds, "space origin": [0, 0, 0],
              "space directions": np.array(directions), **more}  # fmt: skip
    nrrd.write(str(path), np.moveaxis(data, -1, 0) if first else data, header)
    return path


def mgz(path, data, **_):
    nib.save(nib.MGHImage(data.astype(np.float32), AFFINE), path)
    return path


def analyze(path, data, **_):
    nib.save(nib.Nifti1Pair(data, AFFINE), path)
    return path


MAKERS = {
    "a.nii": nifti, "b.nii.gz": nifti, "c.mha": mha, "d.nrrd": sequence_nrrd, "e.mgz": mgz,
    "f.hdr": analyze,
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_few_entries_are_contrasts(tmp_path, name):
    data = values(6)
    volume = read_volume(MAKERS[name](tmp_path / name, data))
    np.testing.assert_array_equal(volume.data, data.transpose(3, 2, 1, 0))
    assert volume.spacing == pytest.approx((4, 3, 2))
    assert SOURCE_KEY not in volume.grid.source
    assert volume.channel_names[1] == f"{name[0]} [1]"


@pytest.mark.parametrize("name", MAKERS)
def test_many_entries_are_volumes_of_which_one_is_read(tmp_path, name):
    data = values(7)
    path = MAKERS[name](tmp_path / name, data)
    with pytest.raises(ImageError, match=r"holds 7 volumes.*from 1 to 7, as in --volume 1"):
        read_volume(path)
    for number in (1, 4, 7):
        volume = read_volume(path, volume=number)
        np.testing.assert_array_equal(volume.data, data.transpose(3, 2, 1, 0)[[number - 1]])
        assert volume.channel_names == (f"{name[0]} volume {number}",)
    with pytest.raises(ParameterError, match="has 7 volumes; there is no volume 8"):
        read_volume(path, volume=8)
    every = read_all_volumes(path)
    np.testing.assert_array_equal(every.data, data.transpose(3, 2, 1, 0))
    assert every.grid.source[SOURCE_KEY]["count"] == 7


@pytest.mark.parametrize("number", [0, -1, 1.0, True])
def test_numbers_that_are_no_volume(tmp_path, number):
    path = nifti(tmp_path / "a.nii", values(8))
    with pytest.raises(ParameterError, match="chosen by its number, from 1"):
        read_volume(path, volume=number)


def test_one_contrast_of_few_can_be_chosen(tmp_path):
    data = values(3)
    volume = read_volumes([nifti(tmp_path / "a.nii", data)], volume=3)
    np.testing.assert_array_equal(volume.data[0], data[..., 2].T)


@pytest.mark.parametrize("name", ["a.nii", "b.mha", "c.mgz"])
def test_a_file_of_one_volume(tmp_path, name):
    data = values(1)[..., 0]
    path = tmp_path / name
    if name == "b.mha":
        sitk.WriteImage(sitk.GetImageFromArray(data.T), str(path))
    else:
        nib.save((nib.MGHImage if name == "c.mgz" else nib.Nifti1Image)(data, AFFINE), path)
    assert read_volume(path, volume=1).shape == (3, 4, 5)
    with pytest.raises(ParameterError, match="has one volume; there is no volume 2"):
        read_volume(path, volume=2)


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({"units": "sec", "step": 2.5}, 2.5),
        ({"units": "msec", "step": 800}, 0.8),
        ({"units": "usec", "step": 5e5}, 0.5),
        ({"intent": 2001}, None),
        ({"units": "ppm", "step": 0.5}, None),
    ],
)
def test_a_nifti_header_says_time(tmp_path, options, step):
    path = nifti(tmp_path / "a.nii", values(3), **options)
    with pytest.raises(ImageError, match="holds 3 volumes"):
        read_volume(path)
    found = read_all_volumes(path).grid.source[SOURCE_KEY]
    assert found["step_s"] == (None if step is None else pytest.approx(step))


@pytest.mark.parametrize(
    "options",
    [
        {"units": "sec", "step": 0},  # as in the Medical Segmentation Decathlon
        {"units": "sec", "step": 1},
        {"step": 2.5},
        {"intent": 1007, "units": "sec", "step": 2.5},
    ],
)
def test_a_nifti_header_that_does_not_say_time(tmp_path, options):
    assert read_volume(nifti(tmp_path / "a.nii", values(4), **options)).channels == 4


def test_axes_of_length_1_and_components(tmp_path):
    data = values(1)
    path = nifti(tmp_path / "a.nii", data.reshape(5, 4, 3, 1, 1))
    np.testing.assert_array_equal(read_volume(path).data[0], data[..., 0].T)
    many = values(9)
    path = nifti(tmp_path / "b.nii", many.reshape(5, 4, 3, 1, 9), intent=1007)
    np.testing.assert_array_equal(read_volume(path).data, many.transpose(3, 2, 1, 0))
    mask = (data > 400).astype(np.uint8)
    path = nifti(tmp_path / "c.nii", mask.reshape(5, 4, 3, 1, 1))
    np.testing.assert_array_equal(read_labels(path)[0], mask[..., 0].T)


def test_what_an_nrrd_header_says(tmp_path):
    data = values(3)
    slicer = sequence_nrrd(tmp_path / "a.nrrd", data, **{"axis 0 index type": "time"})
    timed = sequence_nrrd(tmp_path / "b.nrrd", data, "time", first=False)
    for path in (slicer, timed):
        with pytest.raises(ImageError, match="holds 3 volumes"):
            read_volume(path)
        np.testing.assert_array_equal(read_volume(path, volume=2).data[0], data[..., 1].T)
    vector = sequence_nrrd(tmp_path / "c.nrrd", values(9), "vector")
    assert read_volume(vector).channels == 9


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_our_own_channels_come_back_as_channels(tmp_path, suffix):
    grid = read_volume(nifti(tmp_path / "a.nii", values(1)[..., 0])).grid
    data = np.random.default_rng(0).random((12, *grid.shape)).astype(np.float32)
    path = write_image(tmp_path / f"probability{suffix}", data, grid)
    np.testing.assert_array_equal(read_volume(path).data, data)


def test_channels_of_an_image_in_time_are_no_time(tmp_path):
    source = nifti(tmp_path / "a.nii", values(40), units="sec", step=2)
    grid = read_volume(source, volume=3).grid
    data = np.zeros((3, *grid.shape), np.float32)
    assert read_volume(write_image(tmp_path / "b.nii", data, grid)).channels == 3


@pytest.mark.parametrize("kind", ["ome", "imagej", "imagej in minutes"])
def test_time_in_tiff(tmp_path, kind):
    data = np.arange(4 * 3 * 4 * 5, dtype=np.uint16).reshape(4, 3, 4, 5)
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    sizes = {"axes": "TZYX"}
    if kind == "ome":
        sizes |= {f"PhysicalSize{a}": 2000.0 for a in "XYZ"}
        tifffile.imwrite(path, data, metadata=sizes | {"TimeIncrement": 1.5})
    else:
        sizes |= {"unit": "mm", "spacing": 2.0, "finterval": 1.5}
        if kind != "imagej":
            sizes |= {"finterval": 0.025, "tunit": "min"}
        tifffile.imwrite(path, data, imagej=True, resolution=(0.5, 0.5), metadata=sizes)
    with pytest.raises(ImageError, match=r"holds 4 volumes .*1\.5 s apart"):
        read_volume(path)
    volume = read_volume(path, volume=3)
    np.testing.assert_array_equal(volume.data[0], data[2])
    assert volume.spacing == pytest.approx((2, 2, 2))
    every = read_all_volumes(path)
    np.testing.assert_array_equal(every.data, data)
    assert every.grid.source[SOURCE_KEY] == {"count": 4, "step_s": 1.5}


def test_time_and_channels_in_ome_tiff(tmp_path):
    data = np.arange(3 * 3 * 2 * 4 * 5, dtype=np.uint8).reshape(3, 3, 2, 4, 5)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, data, metadata={"axes": "TZCYX", "Channel": {"Name": ["r", "g"]}})
    volume = read_volume(path, volume=2, spacing=(1, 1, 1))
    np.testing.assert_array_equal(volume.data, data[1].transpose(1, 0, 2, 3))
    assert volume.channel_names == ("r", "g")


def test_many_channels_in_ome_tiff_stay_channels(tmp_path):
    data = np.arange(9 * 3 * 4 * 5, dtype=np.uint16).reshape(9, 3, 4, 5)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, data, metadata={"axes": "CZYX"})
    assert read_volume(path, spacing=(1, 1, 1)).channels == 9
    np.testing.assert_array_equal(read_volume(path, volume=9, spacing=(1, 1, 1)).data[0], data[8])


def test_masks(tmp_path):
    classes = values(1)[..., 0] % 9
    one_hot = np.stack([classes == k for k in range(9)], -1).astype(np.uint8)
    path = nifti(tmp_path / "onehot.nii", one_hot)
    np.testing.assert_array_equal(read_labels(path)[0], classes.T)
    series = nifti(tmp_path / "series.nii", values(8, np.uint8))
    with pytest.raises(LabelError, match="8 channels"):
        read_labels(series)
    labels, _ = read_labels(series, volume=5)
    np.testing.assert_array_equal(labels, values(8, np.uint8)[..., 4].T)


def test_frames_have_one_volume(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), np.uint8))
    assert read_volume(tmp_path, spacing=(1, 1, 1), volume=1).shape == (1, 4, 5)
    with pytest.raises(ParameterError, match="has one volume"):
        read_volume(tmp_path, spacing=(1, 1, 1), volume=2)
