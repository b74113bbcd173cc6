"""NIfTI in any orientation: out as it came in, and every bad file refused with its reason."""

from __future__ import annotations

import contextlib
import gzip
import json
import tempfile
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medgs import io
from napari_medgs.data.grid import Grid
from napari_medgs.errors import (
    FileError,
    GeometryError,
    ImageError,
    LabelError,
    MedGSError,
    MemoryEstimateError,
)
from napari_medgs.io import formats
from napari_medgs.io.nifti.header import read_header
from tests.strategies import affines

GEOMETRY = (
    *("sform_code", "qform_code", "xyzt_units", "pixdim", "srow_x", "srow_y", "srow_z"),
    *(f"quatern_{c}" for c in "bcd"),
    *(f"qoffset_{c}" for c in "xyz"),
)


def save(path, data, affine=None, *, kind=nib.Nifti1Image, order="<", edit=None):
    header_kind = kind.header_class
    header = header_kind(endianness=order)
    header.set_data_dtype(data.dtype)
    image = kind(data, np.diag([2.0, 3, 4, 1]) if affine is None else affine, header)
    image.set_sform(image.affine, 1)
    if edit:
        edit(image.header)
    nib.save(image, path)
    return path


def patch(path, **fields):
    """Overwrite header fields of a .nii file, whatever nibabel thinks of them."""
    raw = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.binaryblock
    path.write_bytes(bytes(raw))
    return path


def assert_same_geometry(first, second):
    a, b = nib.load(first).header, nib.load(second).header
    for name in GEOMETRY:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    np.testing.assert_array_equal(nib.load(first).affine, nib.load(second).affine)
    assert type(a) is type(b)


@settings(max_examples=60, deadline=None)
@given(
    affine=affines(),
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    kind=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    order=st.sampled_from("<>"),
    dtype=st.sampled_from(["u1", "i2", "u2", "i4", "f4", "f8"]),
    codes=st.sampled_from([(1, 0), (0, 1), (2, 1), (4, 4), (1, 3)]),
    zipped=st.booleans(),
)
def test_read_write_read_is_exact(affine, shape, kind, order, dtype, codes, zipped):
    shape = tuple(shape)
    dtype = np.dtype(dtype).newbyteorder(order)
    data = (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)

    def edit(header):
        header.set_sform(affine, codes[0])
        header.set_qform(affine, codes[1], strip_shears=True)
        header.set_xyzt_units("mm", "sec")

    with tempfile.TemporaryDirectory() as folder:
        suffix = ".nii.gz" if zipped else ".nii"
        first, second = Path(folder) / f"in{suffix}", Path(folder) / f"out{suffix}"
        save(first, data, affine, kind=kind, order=order, edit=edit)
        volume = io.read_volume(first)
        assert volume.data.dtype == dtype.newbyteorder("=")
        assert volume.channels == (shape[3] if len(shape) == 4 else 1)
        io.write_image(second, volume.data, Grid.from_dict(json.loads(as_json(volume.grid))))
        assert_same_geometry(first, second)
        written = nib.load(second)
        assert written.shape == shape
        np.testing.assert_array_equal(np.asanyarray(written.dataobj), data)
        # Every voxel is where the file's affine has it.
        corner = [n - 1 for n in (*shape, 1, 1)[:3]]
        world = nib.load(first).affine @ [*corner, 1]
        at = np.rint(volume.grid.to_voxel(world[:3])).astype(int)
        np.testing.assert_allclose(volume.grid.to_world(at), world[:3], atol=1e-3)
        last = data.reshape((*shape, 1, 1)[: max(3, len(shape))])[tuple(corner)]
        np.testing.assert_array_equal(np.ravel(last), volume.data[(slice(None), *at)])
        again = io.read_volume(second)
        np.testing.assert_array_equal(again.affine, volume.affine)
        np.testing.assert_array_equal(again.data, volume.data)


def as_json(grid):
    return json.dumps(grid.to_dict(), allow_nan=False)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_labels_come_back_in_the_file_s_orientation(tmp_path, suffix, rng):
    data = rng.integers(0, 4, (5, 6, 7)).astype(np.float64)
    affine = np.array([[0, 2, 0.5, 5], [-3, 0, 0, 6], [0.1, 0, -4, 7], [0, 0, 0, 1]])
    first = save(tmp_path / f"a.b{suffix}", data, affine)
    labels, grid = io.read_labels(first)
    assert labels.dtype == np.uint8
    io.write_labels(tmp_path / f"out{suffix}", labels, grid, {2: "löwe", 1: "spleen"})
    written = nib.load(tmp_path / f"out{suffix}")
    assert written.get_data_dtype() == np.uint8
    assert written.header.get_intent()[0] == "label"
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), data)
    assert_same_geometry(first, tmp_path / f"out{suffix}")
    assert io.read_label_names(tmp_path / f"out{suffix}") == {1: "spleen", 2: "löwe"}
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert record == {"labels": {"1": "spleen", "2": "löwe"}}
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a.b{suffix}", "out.json",
                                                          f"out{suffix}"]  # fmt: skip


@pytest.mark.parametrize(
    ("high", "low", "dtype"),
    [
        (255, 0, "u1"),
        (256, 0, "i2"),
        (255, -1, "i2"),
        (40_000, 0, "u2"),
        (70_000, 0, "i4"),
        (2**40, 0, "i8"),
    ],
)
def test_masks_take_the_smallest_type(tmp_path, tiny_grid, high, low, dtype):
    labels = np.zeros(tiny_grid.shape, np.int64)
    labels[0, 0, 0], labels[1, 1, 1] = high, low
    io.write_labels(tmp_path / "m.nii.gz", labels, tiny_grid)
    assert nib.load(tmp_path / "m.nii.gz").get_data_dtype() == np.dtype(dtype)
    again, grid = io.read_labels(tmp_path / "m.nii.gz", like=tiny_grid)
    np.testing.assert_array_equal(again, labels)
    assert grid is tiny_grid


def test_equal_data_make_equal_files(tmp_path, tiny_grid, tiny_labels):
    for name in ("a.nii.gz", "b.nii.gz"):
        io.write_labels(tmp_path / name, tiny_labels, tiny_grid)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_names_of_an_earlier_mask_do_not_stay_beside_a_new_one(tmp_path, tiny_grid, tiny_labels):
    path, colors = tmp_path / "m.nii.gz", {1: (1.0, 0.0, 0.0), 2: (0.0, 1.0, 0.0)}
    io.write_labels(path, tiny_labels, tiny_grid, {1: "spleen", 2: "liver"}, colors=colors)
    io.write_labels(path, tiny_labels, tiny_grid, {1: "spleen", 2: "kidney"})
    assert list(formats.read_label_colors(path)) == [1]
    with pytest.warns(UserWarning, match="label names of an earlier m.nii.gz were removed"):
        io.write_labels(path, tiny_labels, tiny_grid)
    assert not (tmp_path / "m.json").exists()
    (tmp_path / "m.json").write_text('{"labels": {"1": "spleen"}, "Manual": true}')
    with pytest.warns(UserWarning, match="were removed"):
        io.write_labels(path, tiny_labels, tiny_grid)
    assert json.loads((tmp_path / "m.json").read_text()) == {"Manual": True}
    numbers = '{"labels": {"1": {"volume_ml": 2.5}}}'  # of a command: not ours to remove
    (tmp_path / "m.json").write_text(numbers)
    io.write_labels(path, tiny_labels, tiny_grid)
    assert (tmp_path / "m.json").read_text() == numbers
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert io.read_label_names(path) == {}


def test_names_of_another_mask_with_the_same_stem(tmp_path, tiny_grid, tiny_labels):
    first, second = tmp_path / "m.nii.gz", tmp_path / "m.nrrd"
    io.write_labels(first, tiny_labels, tiny_grid, {1: "spleen"})
    io.write_labels(second, tiny_labels, tiny_grid, {1: "spleen"})
    first.unlink()
    with pytest.warns(UserWarning, match="label names of m.nrrd, which count for m.mha"):
        io.write_labels(tmp_path / "m.mha", tiny_labels, tiny_grid)
    assert io.read_label_names(second) == {1: "spleen"}
    with pytest.warns(UserWarning, match="had the label names of m.nrrd"):
        io.write_labels(tmp_path / "m.mha", tiny_labels, tiny_grid, {1: "liver"})


def test_names_are_added_to_a_sidecar_that_is_there(tmp_path, tiny_grid, tiny_labels):
    (tmp_path / "m.json").write_text('{"EchoTime": 0.03, "labels": {"7": "old"}}')
    io.write_labels(tmp_path / "m.nii.gz", tiny_labels, tiny_grid, {1: "a"})
    record = json.loads((tmp_path / "m.json").read_text())
    assert record == {"EchoTime": 0.03, "labels": {"1": "a"}}
    (tmp_path / "m.json").write_text("no json")
    with pytest.raises(FileError, match="no JSON object; move it"):
        io.write_labels(tmp_path / "m.nii.gz", tiny_labels, tiny_grid, {1: "a"})
    with pytest.warns(UserWarning, match="not read"):
        assert io.read_label_names(tmp_path / "m.nii.gz") == {}
    assert io.read_label_names(tmp_path / "other.nii.gz") == {}


def test_a_grid_from_nowhere_is_written_as_lps(tmp_path, tiny_volume):
    path = tmp_path / "v.nii.gz"
    io.write_image(path, tiny_volume.data, tiny_volume.grid)
    image = nib.load(path)
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.header["qform_code"] == image.header["sform_code"] == 1
    np.testing.assert_allclose(image.header.get_qform(), image.affine, atol=1e-5)
    again = io.read_volume(path)
    np.testing.assert_array_equal(again.data, tiny_volume.data)
    np.testing.assert_array_equal(again.affine, tiny_volume.affine)


def test_a_sheared_grid_has_no_qform(tmp_path, tiny_volume):
    affine = tiny_volume.affine.copy()
    affine[1, 0] = 0.7
    grid = Grid(tiny_volume.shape, affine)
    io.write_image(tmp_path / "v.nii", tiny_volume.data, grid)
    assert nib.load(tmp_path / "v.nii").header["qform_code"] == 0
    np.testing.assert_allclose(io.read_volume(tmp_path / "v.nii").affine, affine, atol=1e-6)


def test_resampled_grids_keep_the_world(tmp_path):
    path = save(tmp_path / "a.nii", np.arange(60.0).reshape(3, 4, 5), np.diag([-2.0, 2, 2, 1]))
    grid = io.read_volume(path).grid.with_spacing((1, 1, 1))
    io.write_image(tmp_path / "b.nii", np.zeros(grid.shape, np.float32), grid)
    np.testing.assert_allclose(io.read_volume(tmp_path / "b.nii").affine, grid.affine, atol=1e-6)


def test_channels_and_types(tmp_path, rng):
    data = rng.normal(size=(4, 5, 6, 3)).astype(np.float32)
    volume = io.read_volume(save(tmp_path / "x.nii.gz", data))
    assert volume.channel_names == ("x [0]", "x [1]", "x [2]")
    probability = np.abs(rng.normal(size=(2, *volume.shape)))
    io.write_image(tmp_path / "p.nii.gz", probability, volume.grid, np.float32)
    assert nib.load(tmp_path / "p.nii.gz").shape == (4, 5, 6, 2)
    assert nib.load(tmp_path / "p.nii.gz").get_data_dtype() == np.float32
    io.write_labels(tmp_path / "m.nii.gz", volume.data[0] > 0, volume.grid)
    assert nib.load(tmp_path / "m.nii.gz").shape == (4, 5, 6)
    io.write_image(tmp_path / "i.nii.gz", volume.data * 10, volume.grid, np.int16)
    np.testing.assert_array_equal(
        np.asanyarray(nib.load(tmp_path / "i.nii.gz").dataobj), np.rint(data * 10)
    )
    with pytest.raises(ImageError, match="do not fit into uint8"):
        io.write_image(tmp_path / "i.nii.gz", volume.data, volume.grid, np.uint8)
    with pytest.raises(ImageError, match="not written as complex"):
        io.write_image(tmp_path / "i.nii.gz", volume.data, volume.grid, complex)


def test_scaled_values(tmp_path):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)

    def edit(header):
        header.set_slope_inter(2, -1024)

    image = nib.Nifti1Image(data, np.eye(4))
    image.header.set_slope_inter(2, -1024)
    with (tmp_path / "s.nii").open("wb") as opened:
        # What nibabel would write scales the data back; here the stored values matter.
        image.header["sform_code"] = 1
        image.header.write_to(opened)
        opened.write(data.tobytes("F"))
    volume = io.read_volume(tmp_path / "s.nii")
    assert volume.data.dtype == np.float32
    expected = nib.load(tmp_path / "s.nii").get_fdata()
    assert expected[0, 0, 1] == -1022
    np.testing.assert_array_equal(
        volume.data[0], expected.transpose(2, 1, 0)[:, ::-1, ::-1].astype(np.float32)
    )
    labels, _ = io.read_labels(tmp_path / "s.nii")
    assert labels.min() == -1024
    assert labels.dtype == np.int16


def test_large_scaled_integers_keep_their_low_bits(tmp_path):
    data = np.array([2**30, 2**30 + 1, 2**30 + 2, 2**30 + 3], np.int32).reshape(2, 2, 1)
    path = save(tmp_path / "s.nii", data)
    patch(path, scl_slope=1, scl_inter=-(2.0**30))
    np.testing.assert_array_equal(np.unique(io.read_volume(path).data), [0, 1, 2, 3])


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e3), ("mm", 1), ("micron", 1e-3)])
def test_units_of_length(tmp_path, unit, factor):
    path = save(
        tmp_path / "u.nii",
        np.arange(24.0).reshape(2, 3, 4),
        np.diag([10.0, 20, 30, 1]),
        edit=lambda h: h.set_xyzt_units(unit),
    )
    volume = io.read_volume(path)
    np.testing.assert_allclose(volume.spacing, np.array([30, 20, 10]) * factor)
    io.write_image(tmp_path / "out.nii", volume.data, volume.grid)
    assert_same_geometry(path, tmp_path / "out.nii")


def test_qform_stands_in_for_a_singular_sform(tmp_path):
    path = save(tmp_path / "q.nii", np.arange(24.0).reshape(2, 3, 4))
    affine = np.array([[0, 2, 0, 5], [3, 0, 0, 6], [0, 0, -4, 7], [0, 0, 0, 1]], float)
    image = nib.load(path)
    image.header.set_qform(affine, 1)
    fields = {n: image.header[n] for n in GEOMETRY if n.startswith("q") or n == "pixdim"}
    patch(path, **fields, srow_x=0)
    with pytest.warns(UserWarning, match="qform is used"):
        volume = io.read_volume(path)
    np.testing.assert_allclose(sorted(volume.spacing), (2, 3, 4), atol=1e-6)
    with pytest.warns(UserWarning, match="qform is used"):
        io.read_labels(path)


# Without a usable affine


@pytest.fixture(params=["unset", "singular", "infinite"])
def placeless(request, tmp_path):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = save(tmp_path / "p.nii", data)
    codes = {"sform_code": 0, "qform_code": 0, "pixdim": [1, 2, 3, 4, 0, 0, 0, 0]}
    fields = {
        "unset": codes,
        "singular": {"srow_z": 0, "qform_code": 0},
        "infinite": {"srow_z": np.inf, "qform_code": 0},
    }
    return patch(path, **fields[request.param])


def test_no_usable_affine(placeless):
    with pytest.raises(GeometryError, match=r"(no affine|singular).*Give the spacing"):
        io.read_volume(placeless)
    with pytest.raises(GeometryError, match=r"(no affine|singular).*Give the spacing"):
        io.read_labels(placeless)


def test_no_usable_affine_with_spacing(placeless, tmp_path):
    volume = io.read_volume(placeless, spacing=(5, 4, 3))
    assert volume.spacing == (5, 4, 3)
    stored = np.asanyarray(nib.load(placeless).dataobj)
    np.testing.assert_array_equal(volume.data[0], stored.transpose(2, 1, 0)[:, ::-1, ::-1])
    labels, grid = io.read_labels(placeless, like=volume.grid)
    np.testing.assert_array_equal(labels, volume.data[0])
    io.write_labels(tmp_path / "out.nii", labels, grid)
    np.testing.assert_array_equal(np.asanyarray(nib.load(tmp_path / "out.nii").dataobj), stored)
    raw = [read_header(p).header for p in (placeless, tmp_path / "out.nii")]
    assert raw[0]["sform_code"] == raw[1]["sform_code"]
    np.testing.assert_array_equal(raw[0]["srow_y"], raw[1]["srow_y"])


def test_no_usable_affine_assumed(placeless):
    with pytest.warns(UserWarning, match="orientation RAS and 2 x 3 x 4 mm voxels are assumed"):
        volume = io.read_volume(placeless, assume_identity=True)
    assert volume.spacing == (4, 3, 2)


def test_a_spacing_must_not_contradict_the_file(tmp_path):
    path = save(tmp_path / "a.nii", np.arange(24.0).reshape(2, 3, 4))
    assert io.read_volume(path, spacing=(4, 3, 2)).spacing == (4, 3, 2)
    with pytest.raises(GeometryError, match="2 x 3 x 4 mm, which the spacing 1 x 1 x 1"):
        io.read_volume(path, spacing=(1, 1, 1))


# Bad files


def packed(path, raw):
    path.write_bytes(gzip.compress(raw))
    return path


def good(tmp_path, name="good.nii", shape=(20, 21, 22)):
    return save(tmp_path / name, np.random.default_rng(0).normal(size=shape).astype(np.float32))


def bad_missing(tmp):
    return tmp / "none.nii.gz"


def bad_empty(tmp):
    (tmp / "empty.nii.gz").write_bytes(b"")
    return tmp / "empty.nii.gz"


def bad_text(tmp):
    (tmp / "text.nii").write_text("hello " * 200)
    return tmp / "text.nii"


def bad_short(tmp):
    path = good(tmp)
    path.write_bytes(path.read_bytes()[:347])
    return path


def bad_not_gzip(tmp):
    path = good(tmp)
    (tmp / "x.nii.gz").write_bytes(path.read_bytes())
    return tmp / "x.nii.gz"


def bad_truncated(tmp):
    path = good(tmp)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def bad_truncated_gz(tmp):
    path = good(tmp, "t.nii.gz")
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def bad_short_gz(tmp):
    path = good(tmp)
    return packed(tmp / "s.nii.gz", path.read_bytes()[:-100])


def bad_checksum(tmp):
    path = good(tmp, "c.nii.gz")
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1
    path.write_bytes(raw)
    return path


def bad_bomb(tmp):
    path = patch(good(tmp), dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    return packed(tmp / "bomb.nii.gz", path.read_bytes())


def bad_size(tmp):
    return patch(good(tmp), dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])


def bad_dims(tmp):
    return patch(good(tmp), dim=[3, -5, 21, 22, 1, 1, 1, 1])


def bad_bits(tmp):
    return patch(good(tmp), bitpix=16)


def bad_type(tmp):
    return patch(good(tmp), datatype=77)


def bad_offset(tmp):
    return patch(good(tmp), vox_offset=1e30)


def bad_far_offset(tmp):
    return patch(good(tmp), vox_offset=2e9)


def bad_intercept(tmp):
    return patch(good(tmp), scl_slope=1, scl_inter=np.nan)


def bad_analyze(tmp):
    return patch(good(tmp), magic=b"")


def bad_pair(tmp):
    return patch(good(tmp), magic=b"ni1")


def bad_folder(tmp):
    (tmp / "f.nii").mkdir()
    return tmp / "f.nii"


def bad_suffix(tmp):
    (tmp / "x.mp4").write_bytes(b"1234" * 100)
    return tmp / "x.mp4"


def bad_1d(tmp):
    return patch(good(tmp), dim=[1, 20, 1, 1, 1, 1, 1, 1])


def bad_5d(tmp):
    return save(tmp / "5.nii", np.zeros((3, 4, 5, 2, 2), np.float32))


def bad_no_voxels(tmp):
    return patch(good(tmp), dim=[3, 20, 0, 22, 1, 1, 1, 1])


def bad_rgb(tmp):
    return save(tmp / "rgb.nii", np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")]))


def bad_complex(tmp):
    return save(tmp / "c.nii", np.zeros((3, 4, 5), np.complex64))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (bad_missing, FileError, "no such file"),
        (bad_empty, FileError, "is empty"),
        (bad_text, FileError, "not a NIfTI image"),
        (bad_short, FileError, "(not a NIfTI image|truncated)"),
        (bad_not_gzip, FileError, "not a gzip file"),
        (bad_truncated, FileError, "truncated or damaged"),
        (bad_truncated_gz, FileError, "truncated or damaged"),
        (bad_short_gz, FileError, "truncated or damaged"),
        (bad_checksum, FileError, "damaged"),
        (bad_bomb, FileError, "promises .*TiB and the file can hold at most"),
        (bad_size, FileError, "promises .*TiB and the file can hold at most"),
        (bad_dims, FileError, "its dimensions are"),
        (bad_bits, FileError, "16 bits a voxel"),
        (bad_type, FileError, "unknown data type 77"),
        (bad_offset, FileError, "cannot start at byte"),
        (bad_far_offset, FileError, "truncated or damaged"),
        (bad_intercept, FileError, "scl_inter is nan"),
        (bad_analyze, FileError, "Analyze"),
        (bad_pair, FileError, "lies in another file"),
        (bad_folder, FileError, "neither DICOM slices nor"),
        (bad_suffix, FileError, "not an image that can be read"),
        (bad_1d, ImageError, "1 axes"),
        (bad_5d, ImageError, r"5 axes \(3, 4, 5, 2, 2\).*one more of contrasts or time"),
        (bad_no_voxels, ImageError, "is empty"),
        (bad_rgb, ImageError, "RGB colors; convert it to gray"),
        (bad_complex, ImageError, "complex"),
    ],
)
def test_bad_files(tmp_path, make, error, words):
    path = make(tmp_path)
    with pytest.raises(error, match=words) as caught:
        io.read_volume(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(MedGSError):
        io.read_labels(path)


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 351), byte=st.integers(0, 255))
def test_a_damaged_header_never_crashes(position, byte):
    with tempfile.TemporaryDirectory() as folder:
        path = save(Path(folder) / "d.nii", np.arange(24, dtype=np.int16).reshape(2, 3, 4))
        raw = bytearray(path.read_bytes())
        raw[position] = byte
        path.write_bytes(bytes(raw))
        with contextlib.suppress(MedGSError):
            io.read_volume(path).check_image()


def test_little_memory(tmp_path, monkeypatch):
    import psutil

    path = good(tmp_path)
    free = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(MemoryEstimateError, match=r"needs about .* KiB and 1000 B of memory"):
        io.read_volume(path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 1, 1.5], r"not integers \(1.5 for one\)"),
        ([0, 1, np.nan], "not finite"),
        ([0, 1, 1e30], "no labels"),
    ],
)
def test_masks_that_are_none(tmp_path, values, words):
    data = np.resize(values, (3, 4, 5)).astype(np.float64)
    path = save(tmp_path / "m.nii", data)
    with pytest.raises(LabelError, match=words):
        io.read_labels(path)
    with pytest.raises(LabelError, match=words):
        io.write_labels(tmp_path / "o.nii", data, io.read_volume(path).grid)
    assert not (tmp_path / "o.nii").exists()


def test_mask_of_several_channels(tmp_path):
    path = save(tmp_path / "m.nii", np.full((3, 4, 5, 2), 3, np.uint8))
    with pytest.raises(LabelError, match="2 channels that hold other values than 0 and 1"):
        io.read_labels(path)


def test_mask_on_another_grid(tmp_path):
    image = io.read_volume(save(tmp_path / "i.nii", np.arange(24.0).reshape(2, 3, 4)))
    between = np.diag([2.0, 3, 4, 1])
    between[2, 3] = 1.5
    other = save(tmp_path / "m.nii", np.zeros((2, 3, 5), np.uint8), between)
    with pytest.raises(GeometryError, match="must share one grid"):
        io.read_labels(other, like=image.grid)
    moved = save(tmp_path / "n.nii", np.zeros((2, 3, 4), np.uint8), np.diag([2.0, 3, 4.5, 1]))
    with pytest.raises(GeometryError, match="mm apart"):
        io.read_labels(moved, like=image.grid)
    # the same grid in another axis order is the same grid
    turned = nib.load(save(tmp_path / "t.nii", np.arange(24, dtype=np.uint8).reshape(2, 3, 4)))
    nib.save(turned.as_reoriented(nib.io_orientation(np.diag([-1, 1, -1, 1]))), tmp_path / "u.nii")
    labels, _ = io.read_labels(tmp_path / "u.nii", like=image.grid)
    np.testing.assert_array_equal(labels, image.data[0])


def test_contrasts(tmp_path):
    for name in ("t1", "t2"):
        save(tmp_path / f"{name}.nii.gz", np.arange(24.0).reshape(2, 3, 4))
    volume = io.read_volumes([tmp_path / "t1.nii.gz", str(tmp_path / "t2.nii.gz")])
    assert volume.channel_names == ("t1", "t2")
    save(tmp_path / "t3.nii.gz", np.arange(24.0).reshape(2, 4, 3))
    with pytest.raises(GeometryError, match=r"'t1' has shape \(4, 3, 2\) and 't3' \(3, 4, 2\)"):
        io.read_volumes([tmp_path / "t1.nii.gz", tmp_path / "t3.nii.gz"])
    with pytest.raises(MedGSError, match="No image"):
        io.read_volumes([])


# Writing


def test_failed_writes_leave_the_old_file(tmp_path, tiny_volume, monkeypatch):
    path = tmp_path / "v.nii.gz"
    io.write_image(path, tiny_volume.data, tiny_volume.grid)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nibabel.volumeutils.array_to_file", fail)
    with pytest.raises(FileError, match="No space left"):
        io.write_image(path, tiny_volume.data * 2, tiny_volume.grid)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["v.nii.gz"]


def test_writes_refused(tmp_path, tiny_volume):
    data, grid = tiny_volume.data, tiny_volume.grid
    with pytest.raises(FileError, match=r"does not exist; make it first"):
        io.write_image(tmp_path / "none" / "v.nii", data, grid)
    with pytest.raises(FileError, match=r"ends in \.nii, \.nii\.gz, \.nrrd or \.mha"):
        io.write_image(tmp_path / "v.tif", data, grid)
    with pytest.raises(GeometryError, match="their grid"):
        io.write_image(tmp_path / "v.nii", data[:, 1:], grid)
    with pytest.raises(ImageError, match="cannot be written"):
        io.write_image(tmp_path / "v.nii", data[0, 0], grid)
    with pytest.raises(LabelError, match="three axes"):
        io.write_labels(tmp_path / "v.nii", data.astype(int), grid)
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(FileError, match="choose another name"):
        io.write_image(tmp_path / "folder.nii", data, grid)


def test_a_damaged_record_is_refused(tmp_path):
    volume = io.read_volume(save(tmp_path / "a.nii", np.arange(24.0).reshape(2, 3, 4)))
    record = {**volume.grid.source, "header": {"version": 1, "sform_code": "x"}}
    grid = Grid(volume.shape, volume.affine, record)
    with pytest.raises(GeometryError, match="record of the source file is damaged"):
        io.write_image(tmp_path / "b.nii", volume.data, grid)


# Real volumes


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("ct_vertebra_tptbox/ct", "PIR"),
        ("mr_spinalcord_t2/t2", "PSR"),
        ("noseg_cinema/mnms_sax_ed", "PIL"),
        ("noseg_cinema/mnms2_sax_ed", "IRA"),
        ("mr_spinalcord_t2s_gm/t2s", "LAS"),
        ("ct_aorta_totalseg/ct", "LPS"),
        ("ct_spleen_msd_crop/ct", "RAS"),
        ("mr_brain_freesurfer/norm", "LIA"),
    ],
)
def test_real_images_come_back(data_dir, tmp_path, name, codes):
    path = data_dir / f"{name}.nii.gz"
    original = nib.load(path)
    assert "".join(nib.aff2axcodes(original.affine)) == codes
    volume = io.read_volume(path)
    volume.check_image()
    # (z, y, x) indices grow to superior, posterior, left: the affine in x, y, z order is LPS.
    assert nib.aff2axcodes(volume.affine[:, [2, 1, 0, 3]]) == ("L", "P", "S")
    io.write_image(tmp_path / "out.nii.gz", volume.data, volume.grid)
    assert_same_geometry(path, tmp_path / "out.nii.gz")
    stored = np.asanyarray(original.dataobj)
    written = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), stored)
    assert written.get_data_dtype() == original.get_data_dtype()
    at = np.array(stored.shape) // 3
    world = original.affine @ [*at, 1]
    index = np.rint(volume.grid.to_voxel(world[:3])).astype(int)
    assert volume.data[(0, *index)] == stored[tuple(at)]


@pytest.mark.data
@pytest.mark.parametrize(
    ("image", "mask", "count"),
    [
        ("ct_totalseg_example/ct", "ct_totalseg_example/seg_ml", 60),
        ("mr_spinalcord_t2/t2", "mr_spinalcord_t2/seg", 2),
        ("mr_brats4_glioma/t1c", "mr_brats4_glioma/seg_brats23", 4),
        ("ct_vertebra_tptbox/ct", "ct_vertebra_tptbox/seg_vert", None),
        ("mr_ms_lesions_patient07/FLAIR", "mr_ms_lesions_patient07/lesions_gold", 2),
        ("mr_brain_freesurfer/norm", "mr_brain_freesurfer/aparc_aseg", None),
    ],
)
def test_real_masks_lie_on_their_images(data_dir, tmp_path, image, mask, count):
    volume = io.read_volume(data_dir / f"{image}.nii.gz")
    labels, grid = io.read_labels(data_dir / f"{mask}.nii.gz", like=volume.grid)
    assert labels.dtype.kind in "iu"
    assert grid is volume.grid
    assert count is None or len(np.unique(labels)) == count
    io.write_labels(tmp_path / "out.nii.gz", labels, grid)
    assert_same_geometry(data_dir / f"{image}.nii.gz", tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(
        np.asanyarray(nib.load(tmp_path / "out.nii.gz").dataobj),
        np.asanyarray(nib.load(data_dir / f"{mask}.nii.gz").dataobj),
    )


@pytest.mark.data
def test_real_contrasts(data_dir):
    folder = data_dir / "mr_brats4_glioma"
    volume = io.read_volumes([folder / f"{n}.nii.gz" for n in ("t1c", "t1n", "t2f", "t2w")])
    assert volume.data.shape == (4, 155, 240, 240)
    assert volume.channel_names == ("t1c", "t1n", "t2f", "t2w")
