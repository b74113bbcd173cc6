"""Splat files: the names viewers look for, and the same Gaussians when read back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_medgs.data.field import FieldInfo, GaussianField
from napari_medgs.data.grid import Grid
from napari_medgs.errors import FileError, ParameterError
from napari_medgs.io.meshes import label_color
from napari_medgs.io.splats import PROPERTIES, SH_C0, save_splat_ply


def random_field(rng, count=30, slice_axis=0, classes=3, mirrored=False):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=int(rng.integers(1 << 30))).as_matrix() * [
        4,
        0.8,
        0.6,
    ]
    affine[:3, 0] *= -1 if mirrored else 1
    affine[:3, 3] = [100, -50, 20]
    info = FieldInfo(
        grid=Grid((20, 30, 40), affine),
        slice_axis=slice_axis,
        degree=3,
        class_names=("background", "a", "b")[:classes],
        label_values=(0, 4, 9)[:classes],
    )
    return GaussianField(
        centers=rng.uniform(0, 20, (count, 3)),
        log_precision=rng.normal(0, 0.5, (count, 3)),
        shear=rng.normal(0, 0.5, count),
        fold=rng.normal(0, 0.3, (count, 3, 2)),
        log_weight=rng.normal(0, 0.5, count),
        values=np.column_stack([rng.uniform(0.2, 1, count), rng.normal(0, 3, (count, classes))]),
        background=np.zeros(1 + classes),
        info=info,
    )


def read_back(path):
    header, body = path.read_bytes().split(b"end_header\n", 1)
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    names = [line.split()[2] for line in lines if line.startswith("property float ")]
    assert tuple(names) == PROPERTIES
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    table = np.frombuffer(body, [(name, "<f4") for name in names])
    assert len(table) == count
    return table


def columns(table, stem, count):
    return np.stack([table[f"{stem}{k}"] for k in range(count)], axis=1).astype(np.float64)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), slice_axis=st.integers(0, 2), mirrored=st.booleans())
def test_centres_and_covariances_come_back(tmp_path_factory, seed, slice_axis, mirrored):
    field = random_field(np.random.default_rng(seed), slice_axis=slice_axis, mirrored=mirrored)
    path = tmp_path_factory.mktemp("splats") / "field.ply"
    assert save_splat_ply(path, field, opacity=0.8) == len(field)
    table = read_back(path)
    positions = np.stack([table[k] for k in "xyz"], axis=1)
    np.testing.assert_allclose(positions, field.world_centers(), rtol=1e-5, atol=1e-4)
    quaternion = columns(table, "rot_", 4)
    np.testing.assert_allclose(np.linalg.norm(quaternion, axis=1), 1, atol=1e-5)
    # R diag(s^2) R^T as the viewers build it.
    w, x, y, z = quaternion.T
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)
    scales = np.exp(columns(table, "scale_", 3))
    covariance = turn @ (scales[:, :, None] ** 2 * turn.transpose(0, 2, 1))
    expected = field.world_covariances()
    size = np.abs(expected).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(covariance / size, expected / size, atol=2e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-table["opacity"])), 0.8, atol=1e-5)


def test_grey_is_the_intensity(tmp_path, rng):
    field = random_field(rng)
    field.values[:, 0] = np.linspace(0, 1, len(field))
    written = save_splat_ply(tmp_path / "gray.ply", field)
    table = read_back(tmp_path / "gray.ply")
    assert written == len(table) < len(field)
    color = 0.5 + SH_C0 * columns(table, "f_dc_", 3)
    np.testing.assert_allclose(color, np.repeat(field.values[-written:, :1], 3, 1), atol=1e-5)
    opacity = 1 / (1 + np.exp(-table["opacity"]))
    assert (np.diff(opacity) > 0).mean() > 0.9
    assert opacity.max() > 0.9


def test_classes_have_the_colours_of_their_meshes(tmp_path, rng):
    field = random_field(rng)
    save_splat_ply(tmp_path / "class.ply", field, color="class")
    table = read_back(tmp_path / "class.ply")
    best = field.values[:, 1:].argmax(axis=1)
    expected = np.array([label_color((0, 4, 9)[k]) for k in best[best > 0]])
    np.testing.assert_allclose(0.5 + SH_C0 * columns(table, "f_dc_", 3), expected, atol=1e-5)


def test_trimesh_reads_the_points(tmp_path, rng):
    import trimesh

    field = random_field(rng)
    save_splat_ply(tmp_path / "field.ply", field, opacity=0.5)
    cloud = trimesh.load(tmp_path / "field.ply", process=False)
    np.testing.assert_allclose(cloud.vertices, field.world_centers(), rtol=1e-5, atol=1e-4)


def test_refusals(tmp_path, rng):
    field = random_field(rng, classes=0)
    with pytest.raises(FileError, match=r"as \.ply"):
        save_splat_ply(tmp_path / "a.splat", field)
    with pytest.raises(ParameterError, match="no classes"):
        save_splat_ply(tmp_path / "a.ply", field, color="class")
    with pytest.raises(ParameterError, match="not 'red'"):
        save_splat_ply(tmp_path / "a.ply", field, color="red")
    with pytest.raises(ParameterError, match="channels"):
        save_splat_ply(tmp_path / "a.ply", field, channel=1)
    with pytest.raises(ParameterError, match="opacity"):
        save_splat_ply(tmp_path / "a.ply", field, opacity=1.0)
    field.values[:] = 0
    with pytest.raises(ParameterError, match="nothing would be visible"):
        save_splat_ply(tmp_path / "a.ply", field)
    assert not list(tmp_path.iterdir())
