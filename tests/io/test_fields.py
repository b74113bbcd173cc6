"""Field files: complete round trips, and clear refusals of everything else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from napari_medgs.compression import decompress, unpack
from napari_medgs.data.grid import Grid
from napari_medgs.errors import FileError, FormatVersionError
from napari_medgs.io import write_image
from napari_medgs.io.fields import load_field, save_field
from napari_medgs.learning import load_segmenter
from tests.test_field import make_field


@pytest.fixture
def saved(tmp_path):
    affine = np.array([[0.1, 0.2, -0.7, 5], [0, -0.9, 0.1, 7], [3.3, 0, 0, 9], [0, 0, 0, 1]])
    field = make_field(25, classes=3, slice_axis=1, affine=affine)
    field = field.with_info(
        params={"fold": 3, "percentiles": (0.5, 99.5)}, metrics={"psnr": np.float32(31.5)}
    )
    path = tmp_path / "a.medgs.safetensors"
    return field, save_field(path, field)


def test_round_trip_is_exact(saved):
    field, path = saved
    again = load_field(path)
    for name in field.tensor_names():
        np.testing.assert_array_equal(getattr(again, name), getattr(field, name))
    np.testing.assert_array_equal(again.info.grid.affine, field.info.grid.affine)
    assert again.info.class_names == field.info.class_names
    assert again.info.label_values == field.info.label_values
    assert again.info.slice_axis == 1
    assert again.info.metrics == {"psnr": 31.5}
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file is left


def rewrite(path, **changes):
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as opened:
        header = dict(opened.metadata())
    tensors = load_file(path)
    header.update(changes.pop("header", {}))
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, path, metadata=header)


def test_newer_version_is_refused(saved):
    _, path = saved
    rewrite(path, header={"format_version": "7"})
    with pytest.raises(FormatVersionError, match=r"version 7.*Update napari-medgs"):
        load_field(path)


def test_missing_tensor_is_named(saved):
    _, path = saved
    rewrite(path, shear=None)
    with pytest.raises(FileError, match="lacks shear"):
        load_field(path)


def test_nan_is_refused(saved):
    field, path = saved
    rewrite(path, shear=np.full(len(field), np.nan, np.float32))
    with pytest.raises(FileError, match="not finite"):
        load_field(path)


def test_truncated_file_is_refused(saved):
    _, path = saved
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileError, match="damaged or truncated"):
        load_field(path)


def test_huge_header_is_not_believed(tmp_path):
    path = tmp_path / "a.medgs.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(FileError, match="header is larger"):
        load_field(path)


def test_other_safetensors_are_no_fields(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(FileError, match="not a field"):
        load_field(path)


@pytest.mark.parametrize(
    ("name", "read", "said"),
    [
        ("a.nii.gz", load_field, r"is a NIfTI image \(\.nii\.gz\), not a field; run fit on"),
        ("a.mha", load_field, r"is a MetaImage file \(\.mha\), not a field; run fit on"),
        ("a.nii", decompress, "is a NIfTI image .*, not a compressed field; run fit .* compress"),
        ("a.nii", unpack, "is a NIfTI image .*, not a cohort of fields; run fit-many .* pack"),
        ("a.nii", load_segmenter, "is a NIfTI image .*, not a segmenter; give the file of a"),
    ],
)
def test_an_image_in_place_of_a_field_is_named(tmp_path, name, read, said):
    image = np.random.default_rng(0).random((4, 8, 8), np.float32)
    path = write_image(tmp_path / name, image, Grid(image.shape))
    with pytest.raises(FileError, match=said):
        read(path, *([tmp_path / "out"] if read is unpack else []))


def test_missing_file_and_wrong_suffix(tmp_path, saved):
    with pytest.raises(FileError, match="no such file"):
        load_field(tmp_path / "none.medgs.safetensors")
    with pytest.raises(FileError, match="must end in"):
        save_field(tmp_path / "field.bin", saved[0])


def test_damaged_info_is_refused(saved):
    _, path = saved
    rewrite(path, header={"info": json.dumps({"blend": "sum"})})
    with pytest.raises(FileError, match="damaged"):
        load_field(path)
