"""Surfaces of known shapes: closed, outward, in place, of the right volume, on any affine."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from napari_medgs.data.field import FieldInfo, GaussianField
from napari_medgs.data.grid import Grid
from napari_medgs.errors import (
    FileError,
    GeometryError,
    ImageError,
    LabelError,
    MemoryEstimateError,
    ParameterError,
)
from napari_medgs.io.meshes import check_mesh_path, load_meshes, save_meshes
from napari_medgs.meshing import (
    MeshParams,
    mesh_from_field,
    mesh_from_image,
    mesh_from_labels,
)
from napari_medgs.meshing.surface import decimate_mesh, march, separate_sheets


def oblique_grid(shape, spacing, seed, mirrored=False):
    matrix = Rotation.random(random_state=seed).as_matrix()
    matrix[:, 0] *= -1 if mirrored else 1
    affine = np.eye(4)
    affine[:3, :3] = matrix * np.asarray(spacing)
    affine[:3, 3] = [-70, 30, 500]
    return Grid(shape, affine)


def radii(grid, center):
    return np.linalg.norm(
        grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)) - center, axis=-1
    )


def ball_volume(radius):
    return 4 / 3 * np.pi * radius**3


def assert_ball(mesh, center, radius, volume=0.01, offset=0.1):
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(ball_volume(radius), rel=volume)
    assert np.linalg.norm(mesh.center_mass - center) < offset
    outward = np.einsum("ij,ij->i", mesh.face_normals, mesh.triangles_center - center)
    assert (outward > 0).all()


@pytest.fixture(scope="module")
def ball():
    """A ball of 18 mm on an oblique, mirrored grid of 2 x 0.7 x 0.9 mm."""
    grid = oblique_grid((26, 68, 54), (2, 0.7, 0.9), seed=5, mirrored=True)
    center = grid.to_world([12.7, 33.1, 26.4])
    return grid, center, 18.0, (radii(grid, center) < 18).astype(np.uint8)


@pytest.fixture(scope="module")
def ball_field(ball):
    """A field fitted to the ball, label 3 at 100 on 20, with a second small ball, label 7."""
    from napari_medgs.data.volume import Volume
    from napari_medgs.fitting import FitParams, fit

    grid, center, radius, mask = ball
    image = 20 + 80 / (1 + np.exp((radii(grid, center) - radius) / 0.8))
    labels = mask.astype(np.int16) * 3
    labels[radii(grid, center) < 7] = 7
    volume = Volume(image[None].astype(np.float32), grid, ("image",))
    return fit(volume, FitParams(gaussians=4000, iterations=60, seed=1), labels).field


def test_ball_of_labels(ball):
    grid, center, radius, mask = ball
    mesh = mesh_from_labels(mask, grid)[1]
    assert_ball(mesh, center, radius)
    assert mesh.volume == pytest.approx(mask.sum() * grid.voxel_volume, rel=2.1e-3)
    assert mesh.metadata["label"] == 1


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    mirrored=st.booleans(),
    sizes=st.tuples(*[st.floats(0.5, 2.5)] * 3),
)
def test_ball_on_random_affines(seed, mirrored, sizes):
    rng = np.random.default_rng(seed)
    radius = 13 * max(sizes)
    shape = tuple(int(2 * radius / s) + 7 for s in sizes)
    grid = oblique_grid(shape, sizes, seed % 10_000, mirrored)
    center = grid.to_world((np.array(shape) - 1) / 2 + rng.uniform(-0.5, 0.5, 3))
    mesh = mesh_from_labels(radii(grid, center) < radius, grid)[1]
    assert_ball(mesh, center, radius)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (-1, -1, -1)])
def test_axis_orders_and_flips_give_the_same_box(order, flips):
    affine = np.zeros((4, 4))
    affine[np.array(order), range(3)] = np.array(flips) * [3.0, 1.0, 0.5]
    affine[:, 3] = [5, -6, 7, 1]
    grid = Grid((10, 20, 30), affine)
    labels = np.zeros(grid.shape, np.int32)
    labels[2:6, 4:16, 10:26] = 1
    mesh = mesh_from_labels(labels, grid, MeshParams(smooth_mm=0))[1]
    corners = grid.to_world([[1.5, 3.5, 9.5], [5.5, 15.5, 25.5]])
    np.testing.assert_allclose(mesh.bounds, np.sort(corners, axis=0), atol=0.2)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(12 * 12 * 8, rel=0.01)


def test_thick_slices_give_slopes_not_terraces():
    grid = Grid((14, 60, 60), np.diag([5.0, 1.0, 1.0, 1.0]))
    center = grid.to_world([6.4, 29.7, 30.2])
    mesh = mesh_from_labels(radii(grid, center) < 25, grid)[1]
    assert_ball(mesh, center, 25)
    radial = (mesh.triangles_center - center) / 25
    cosine = np.einsum("ij,ij->i", mesh.face_normals, radial)
    # Plain marching cubes on the mask: 36 degrees.
    angle = np.degrees(np.arccos(np.clip(cosine / np.linalg.norm(radial, axis=1), -1, 1)))
    assert np.sqrt(np.average(angle**2, weights=mesh.area_faces)) < 12


def test_surfaces_close_at_the_border_of_the_volume():
    grid = Grid((6, 7, 8), np.diag([2.0, 1.0, 1.0, 1.0]))
    mesh = mesh_from_labels(np.ones(grid.shape, bool), grid, MeshParams(smooth_mm=0))[1]
    assert mesh.is_watertight
    np.testing.assert_allclose(mesh.bounds, [[-1, -0.5, -0.5], [11, 6.5, 7.5]], atol=0.2)
    image = mesh_from_image(np.ones(grid.shape), grid, MeshParams(level=0.5))[1]
    assert image.is_watertight
    np.testing.assert_allclose(image.bounds, [[-1, -0.5, -0.5], [11, 6.5, 7.5]], atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), share=st.floats(0.05, 0.95), smooth=st.sampled_from([0, 0.5])
)
def test_noise_is_closed_too(seed, share, smooth):
    rng = np.random.default_rng(seed)
    grid = Grid(tuple(rng.integers(1, 10, 3)), np.diag([1.5, 1.0, 0.8, 1.0]))
    mask = rng.random(grid.shape) < share
    mask.flat[0] = True
    mesh = mesh_from_labels(mask, grid, MeshParams(smooth_mm=smooth))[1]
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    level = mesh_from_image(rng.integers(0, 3, grid.shape), grid, MeshParams(level=-1))[1]
    assert level.is_watertight


def test_sheets_that_touch_are_separated(rng):
    values = np.pad(np.sign(rng.normal(size=(10, 10, 10))), 1, constant_values=-1)
    points, faces = march(values.astype(np.float32), np.eye(4))

    def faces_per_edge(faces):
        edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        return np.unique(edges, axis=0, return_counts=True)[1]

    assert (faces_per_edge(faces) > 2).any()
    split_points, split_faces = separate_sheets(points, faces)
    assert (faces_per_edge(split_faces) == 2).all()

    def volume(points, faces):
        a, b, c = np.moveaxis(points[faces], 1, 0)
        return np.einsum("ij,ij->", a, np.cross(b, c)) / 6

    assert volume(split_points, split_faces) == pytest.approx(volume(points, faces))


def test_smoothing_removes_detail_and_keeps_volume(ball):
    grid, center, radius, mask = ball
    areas = []
    for smooth in (0.0, 0.7, 2.0):
        mesh = mesh_from_labels(mask, grid, MeshParams(smooth_mm=smooth))[1]
        assert_ball(mesh, center, radius)
        areas.append(mesh.area)
    assert areas[0] > areas[1] > areas[2] > 4 * np.pi * radius**2 * 0.99


def test_spacing_sets_the_faces(ball):
    grid, center, radius, mask = ball
    fine = mesh_from_labels(mask, grid, MeshParams(spacing=0.7))[1]
    coarse = mesh_from_labels(mask, grid, MeshParams(spacing=(3, 4, 3)))[1]
    assert len(fine.faces) > 2 * len(mesh_from_labels(mask, grid)[1].faces) > 8 * len(coarse.faces)
    assert_ball(fine, center, radius)
    assert_ball(coarse, center, radius)


@pytest.mark.parametrize("keep", [0.5, 0.1, 200])
def test_decimation(ball, keep):
    grid, center, radius, mask = ball
    whole = mesh_from_labels(mask, grid)[1]
    fewer = mesh_from_labels(mask, grid, MeshParams(decimate=keep))[1]
    wanted = keep if keep > 1 else keep * len(whole.faces)
    assert len(fewer.faces) == pytest.approx(wanted, rel=0.05)
    assert_ball(fewer, center, radius)


def test_decimation_of_intricate_surfaces_stays_closed(rng):
    from scipy.ndimage import gaussian_filter

    grid = Grid((40, 40, 40))
    noise = gaussian_filter(rng.normal(size=grid.shape), 2)
    mesh = mesh_from_image(noise, grid, MeshParams(level=0.02))[1]
    for share in (0.3, 0.05):
        fewer = decimate_mesh(mesh, int(share * len(mesh.faces)))
        assert fewer.is_watertight
        assert len(fewer.faces) < 1.1 * share * len(mesh.faces)
        assert fewer.volume == pytest.approx(mesh.volume, rel=0.01)


def test_largest_part_only():
    grid = Grid((30, 30, 60))
    labels = radii(grid, grid.to_world([15, 15, 15])) < 10
    labels &= ~(radii(grid, grid.to_world([15, 15, 15])) < 5)
    labels |= radii(grid, grid.to_world([15, 15, 45])) < 6
    every = mesh_from_labels(labels, grid)[1]
    assert every.volume == pytest.approx(labels.sum(), rel=0.003)
    largest = mesh_from_labels(labels, grid, MeshParams(largest_only=True))[1]
    shell = (labels & (radii(grid, grid.to_world([15, 15, 15])) < 10)).sum()
    assert largest.volume == pytest.approx(shell, rel=0.005)
    assert largest.is_watertight
    assert largest.is_winding_consistent
    assert largest.body_count == 2


def test_largest_part_keeps_the_cavities_of_its_own():
    """A shell with two cavities, one of them with a ball in it, beside a smaller hollow ball."""
    grid = Grid((34, 34, 60)).with_spacing((1.0, 1.0, 1.0))
    at = {name: radii(grid, grid.to_world(place)) for name, place in {
        "shell": [16, 16, 17], "left": [16, 16, 11], "right": [16, 16, 24], "other": [16, 16, 47]
    }.items()}  # fmt: skip
    shell = (at["shell"] < 15) & (at["left"] > 5) & (at["right"] > 4)
    rest = (at["left"] < 2.5) | ((at["other"] < 9) & (at["other"] > 4))
    outward = []
    for params, rel in [
        (MeshParams(largest_only=True), 0.01),
        (MeshParams(largest_only=True, decimate=0.5), 0.01),
        (MeshParams(largest_only=True, smooth_mm=1.5), 0.01),
        (MeshParams(largest_only=True, spacing=(0.8, 0.8, 0.8)), 0.01),
    ]:
        found = mesh_from_labels(shell | rest, grid, params)[1]
        assert found.is_watertight
        assert found.is_winding_consistent
        assert found.volume == pytest.approx(shell.sum(), rel=rel)
        parts = sorted(part.volume for part in found.split(only_watertight=True, repair=False))
        assert len(parts) == 3
        assert parts[0] < parts[1] < 0 < parts[2]  # cavities look inward
        outward.append(parts[2])
    assert outward[0] == pytest.approx(ball_volume(15), rel=0.02)
    image = np.where(shell | rest, 100.0, 0.0)
    surface = mesh_from_image(image, grid, MeshParams(level=50.0, largest_only=True))[1]
    assert surface.body_count == 3
    assert surface.volume == pytest.approx(shell.sum(), rel=0.02)


def test_touching_corners_do_not_lose_the_cavities():
    """Parts that share a corner are connected in the voxels and not on the surface."""
    labels = np.zeros((14, 14, 14), bool)
    labels[1:8, 1:8, 1:8] = labels[8:13, 8:13, 8:13] = True
    labels[3:6, 3:6, 3:6] = labels[10, 10, 10] = False
    grid = Grid(labels.shape)
    found = mesh_from_labels(labels, grid, MeshParams(largest_only=True, smooth_mm=0.0))[1]
    assert found.is_watertight
    bodies = [part.volume for part in found.split(repair=False)]
    assert min(bodies) < 0 < max(bodies)
    assert found.volume == pytest.approx(labels.sum() if len(bodies) > 2 else 7**3 - 27, rel=0.03)


def test_every_label_has_its_surface(tiny_labels, tiny_grid):
    meshes = mesh_from_labels(tiny_labels.astype(np.int16) * 500 - (tiny_labels == 0), tiny_grid)
    assert list(meshes) == [500, 1000]
    for value, mesh in meshes.items():
        voxels = np.count_nonzero(tiny_labels == value // 500)
        assert mesh.volume == pytest.approx(voxels * tiny_grid.voxel_volume, rel=5e-3)
    chosen = mesh_from_labels(tiny_labels, tiny_grid, MeshParams(labels=(2,)))
    assert list(chosen) == [2]


def test_a_single_voxel():
    grid = Grid((5, 5, 5))
    labels = np.zeros(grid.shape, np.uint8)
    labels[2, 3, 1] = 1
    mesh = mesh_from_labels(labels, grid)[1]
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(1, rel=2.1e-3)
    np.testing.assert_allclose(mesh.center_mass, grid.to_world([2, 3, 1]), atol=0.01)


@pytest.mark.parametrize("spacing", [(2, 1, 0.5), (0.5, 1, 3), (1.2, 0.8, 2.2), (5, 0.7, 0.7)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (3, 1, 1), (1, 2, 5)])
def test_a_few_voxels_of_any_spacing_keep_their_volume(spacing, shape):
    """Small lesions on thick slices; their surfaces were up to 400 times too small."""
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[tuple(slice(3, 3 + n) for n in shape)] = 1
    grid = oblique_grid(labels.shape, spacing, seed=5)
    mesh = mesh_from_labels(labels, grid)[1]
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(labels.sum() * grid.voxel_volume, rel=0.02)
    middle = grid.to_world(np.argwhere(labels).mean(axis=0))
    assert np.linalg.norm(mesh.center_mass - middle) < 0.1


def test_refused_labels(tiny_labels, tiny_grid):
    with pytest.raises(LabelError, match=r"no label 9; it has 1, 2"):
        mesh_from_labels(tiny_labels, tiny_grid, MeshParams(labels=(1, 9)))
    with pytest.raises(LabelError, match="only negative labels"):
        mesh_from_labels(-tiny_labels.astype(np.int16), tiny_grid)
    with pytest.raises(LabelError, match="contains no label"):
        mesh_from_labels(tiny_labels * 0, tiny_grid)
    with pytest.raises(LabelError, match="integers"):
        mesh_from_labels(tiny_labels.astype(float), tiny_grid)
    with pytest.raises(GeometryError, match="shape"):
        mesh_from_labels(tiny_labels[1:], tiny_grid)
    with pytest.raises(ParameterError, match="settings of fields"):
        mesh_from_labels(tiny_labels, tiny_grid, MeshParams(level=0.5))
    with pytest.raises(MemoryEstimateError, match="spacing of"):
        mesh_from_labels(tiny_labels, tiny_grid, MeshParams(spacing=1e-3))


@pytest.mark.parametrize(
    "setting",
    [
        {"spacing": 0},
        {"spacing": (1, -1, 1)},
        {"smooth_mm": -1},
        {"smooth_mm": float("nan")},
        {"decimate": 0},
        {"level": float("inf")},
        {"head": "logits"},
        {"channel": -1},
    ],
)
def test_refused_settings(setting):
    with pytest.raises(ParameterError, match=next(iter(setting))):
        MeshParams(**setting)


def test_classes_of_a_field(ball, ball_field):
    _, center, radius, _ = ball
    meshes = mesh_from_field(ball_field)
    assert list(meshes) == [3, 7]
    assert_ball(meshes[7], center, 7, volume=0.02)
    shell = meshes[3]
    assert shell.is_watertight
    assert shell.volume == pytest.approx(ball_volume(radius) - ball_volume(7), rel=0.01)
    finer = mesh_from_field(ball_field, MeshParams(labels=(3,), spacing=0.6, largest_only=True))
    assert list(finer) == [3]
    assert finer[3].is_watertight
    assert finer[3].volume == pytest.approx(shell.volume, rel=0.01)  # its cavity is kept
    smooth = mesh_from_field(ball_field, MeshParams(labels=(7,), smooth_mm=1.0))[7]
    assert smooth.volume == pytest.approx(meshes[7].volume, rel=3e-3)
    assert smooth.area < meshes[7].area


def test_class_surface_encloses_the_rendered_labels(ball_field):
    from napari_medgs.rendering import render_labels

    labels, grid = render_labels(ball_field), ball_field.info.grid
    for value, mesh in mesh_from_field(ball_field).items():
        voxels = np.count_nonzero(labels == value) * grid.voxel_volume
        assert mesh.volume == pytest.approx(voxels, rel=0.02)


def test_slabs_give_the_surface_of_the_whole(ball_field, monkeypatch):
    from napari_medgs.meshing import class_margins as margins

    whole = mesh_from_field(ball_field)
    monkeypatch.setattr(margins, "SLAB_BYTES", 4 * 3 * 68 * 54 * 5)
    for value, mesh in mesh_from_field(ball_field).items():
        assert mesh.volume == pytest.approx(whole[value].volume, rel=1e-4)
        assert mesh.is_watertight


def test_class_level_moves_the_surface(ball_field):
    volumes = [
        mesh_from_field(ball_field, MeshParams(labels=(7,), level=level))[7].volume
        for level in (0.2, 0.5, 0.8)
    ]
    assert volumes[0] > volumes[1] > volumes[2]


def test_intensity_surface_of_a_field(ball, ball_field):
    _, center, radius, _ = ball
    for spacing in (None, 0.7):
        params = MeshParams(head="image", level=60, spacing=spacing)
        assert_ball(mesh_from_field(ball_field, params)[1], center, radius)
    # The image is 20 + 80 / (1 + exp((r - 18) / 0.8)).
    lower = mesh_from_field(ball_field, MeshParams(head="image", level=40))[1]
    assert_ball(lower, center, radius + 0.8 * np.log(3), volume=0.015)


def test_intensity_surface_of_an_image(ball):
    grid, center, radius, _ = ball
    image = -radii(grid, center)
    for params in (MeshParams(level=-radius), MeshParams(level=-radius, spacing=1.5)):
        assert_ball(mesh_from_image(image, grid, params)[1], center, radius, volume=0.005)


def tiny_field(classes):
    names = ("background", "a", "b")[:classes]
    values = np.array([[1.0, -2, 2, -4]], np.float32)[:, : 1 + classes]
    info = FieldInfo(grid=Grid((8, 8, 8)), class_names=names, label_values=tuple(range(classes)))
    return GaussianField(
        centers=np.array([[4, 4, 4]]),
        log_precision=np.zeros((1, 3)),
        shear=np.zeros(1),
        fold=np.zeros((1, 3, 2)),
        log_weight=np.zeros(1),
        values=values,
        background=np.array([0.0, 2, -2, -2])[: 1 + classes],
        info=info,
    )


def test_refused_fields():
    with pytest.raises(ParameterError, match="needs a level"):
        mesh_from_field(tiny_field(0))
    with pytest.raises(ParameterError, match="no classes"):
        mesh_from_field(tiny_field(0), MeshParams(head="seg"))
    with pytest.raises(ParameterError, match="channels"):
        mesh_from_field(tiny_field(0), MeshParams(level=0.5, channel=1))
    with pytest.raises(ImageError, match="above the level"):
        mesh_from_field(tiny_field(0), MeshParams(level=5))
    with pytest.raises(LabelError, match="no label 5; it has 1"):
        mesh_from_field(tiny_field(2), MeshParams(labels=(5,)))
    with pytest.raises(LabelError, match="Label 2 is nowhere"):
        mesh_from_field(tiny_field(3), MeshParams(labels=(1, 2)))
    with pytest.raises(LabelError, match="background everywhere"):
        mesh_from_field(tiny_field(2), MeshParams(level=0.99))
    assert list(mesh_from_field(tiny_field(3))) == [1]
    with pytest.raises(ParameterError, match="between 0 and 1"):
        mesh_from_field(tiny_field(2), MeshParams(level=60))
    assert mesh_from_field(tiny_field(2))[1].is_watertight


def test_refused_images():
    grid = Grid((4, 4, 4))
    with pytest.raises(ImageError, match="no finite value"):
        mesh_from_image(np.full(grid.shape, np.nan), grid, MeshParams(level=1))
    with pytest.raises(ParameterError, match="needs a level"):
        mesh_from_image(np.ones(grid.shape), grid, MeshParams())
    with pytest.raises(GeometryError, match="shape"):
        mesh_from_image(np.ones((4, 4)), grid, MeshParams(level=1))
    with pytest.raises(ParameterError, match="no labels"):
        mesh_from_image(np.ones(grid.shape), grid, MeshParams(level=0.5, labels=(2,)))


@pytest.fixture
def two_meshes(tiny_labels, tiny_grid):
    return mesh_from_labels(tiny_labels, tiny_grid)


@pytest.mark.parametrize("suffix", [".ply", ".stl", ".obj", ".glb"])
def test_one_file_round_trip(tmp_path, two_meshes, suffix):
    import trimesh

    path = tmp_path / f"scene{suffix}"
    assert save_meshes(path, two_meshes, {1: "left / lung"}) == [path]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    parts = load_meshes(path)
    assert set(parts) == ({"001_left_lung", "label_002"} if suffix == ".glb" else {"scene"})
    volume = sum(mesh.volume for mesh in two_meshes.values())
    back = trimesh.util.concatenate(list(parts.values()))
    back.merge_vertices()
    assert back.volume == pytest.approx(volume, rel=1e-3)
    bounds = np.array([mesh.bounds for mesh in two_meshes.values()])
    np.testing.assert_allclose(back.bounds, [bounds[:, 0].min(0), bounds[:, 1].max(0)], atol=1e-4)


SPACES = {
    ".ply": lambda data, mark: data.replace(b"\nelement", b"\ncomment %s\nelement" % mark, 1),
    ".stl": lambda data, mark: (b"3D Slicer output. " + mark).ljust(80, b"\0") + data[80:],
    ".obj": lambda data, mark: b"# 3D Slicer output. " + mark + b"\n" + data,
    "text": lambda data, mark: b"solid 3D Slicer output. " + mark + data[data.index(b"\n") :],
}


@pytest.mark.parametrize("kind", SPACES)
def test_files_that_say_that_they_lie_in_lps_as_slicer_writes_them(tmp_path, two_meshes, kind):
    import trimesh

    suffix = ".stl" if kind == "text" else kind
    whole = trimesh.util.concatenate(list(two_meshes.values()))
    data = whole.export(file_type="stl_ascii" if kind == "text" else suffix[1:])
    data = data.encode() if isinstance(data, str) else data
    path = tmp_path / f"a{suffix}"
    for mark, sign in ((b"SPACE=LPS", -1), (b"SPACE=RAS", 1), (b"SPACE=?", 1)):
        path.write_bytes(SPACES[kind](data, mark))
        back = load_meshes(path)["a"]
        found = np.sort(back.bounds * (sign, sign, 1), axis=0)
        np.testing.assert_allclose(found, whole.bounds, atol=1e-4)
        back.merge_vertices()
        assert back.volume == pytest.approx(whole.volume, rel=1e-3)


@pytest.mark.parametrize("suffix", [".ply", ".stl", ".obj"])
def test_files_say_that_they_lie_in_ras(tmp_path, two_meshes, suffix):
    # 3D Slicer looks for these words in the comments of the header, and takes LPS without them.
    start = save_meshes(tmp_path / f"a{suffix}", two_meshes)[0].read_bytes()[:100]
    assert b"SPACE=RAS" in start[: 80 if suffix == ".stl" else 100]
    assert not start.startswith(b"solid")


def test_ply_is_binary_coloured_and_closed(tmp_path, two_meshes):
    colors = {1: (1.0, 0.0, 0.0), 2: (0.0, 0.5, 1.0)}
    path = save_meshes(tmp_path / "two.ply", two_meshes, colors=colors)[0]
    assert b"format binary_little_endian" in path.read_bytes()[:100]
    mesh = load_meshes(path)["two"]
    assert {tuple(c) for c in mesh.visual.vertex_colors[:, :3]} == {(255, 0, 0), (0, 128, 255)}
    assert mesh.is_watertight


def test_folder_of_labels(tmp_path, two_meshes):
    folder = tmp_path / "surfaces"
    written = save_meshes(folder, two_meshes, {1: "liver", 2: "../../etc"})
    assert [p.name for p in written] == ["001_liver.ply", "002_etc.ply"]
    assert {p.parent for p in written} == {folder}
    for path, mesh in zip(written, two_meshes.values(), strict=True):
        assert load_meshes(path)[path.stem].volume == pytest.approx(mesh.volume, rel=1e-4)
    with pytest.warns(UserWarning, match="earlier runs beside the new ones: 001_liver.ply, 002"):
        assert save_meshes(folder, two_meshes) != written


def test_file_names_in_a_locale_without_unicode(tmp_path, two_meshes, monkeypatch):
    monkeypatch.setattr("os.fsencode", lambda name: name.encode("ascii"))
    written = save_meshes(tmp_path / "surfaces", two_meshes, {1: "Läsion 1", 2: "影"})
    assert [p.name for p in written] == ["001_Lsion_1.ply", "label_002.ply"]


def test_refused_targets(tmp_path, two_meshes):
    with pytest.raises(FileError, match=r"not as \.vtk"):
        save_meshes(tmp_path / "a.vtk", two_meshes)
    with pytest.raises(FileError, match="does not exist"):
        check_mesh_path(tmp_path / "nowhere" / "a.ply")
    (tmp_path / "taken").write_text("x")
    with pytest.raises(FileError, match="choose another name"):
        check_mesh_path(tmp_path / "taken")
    with pytest.raises(LabelError, match="no mesh"):
        save_meshes(tmp_path / "a.ply", {})
    with pytest.raises(ParameterError, match="color of label 1"):
        save_meshes(tmp_path / "a.ply", two_meshes, colors={1: (300, 0, 0)})
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_a_failed_write_leaves_the_old_file(tmp_path, two_meshes, monkeypatch):
    import trimesh

    path = save_meshes(tmp_path / "a.ply", two_meshes)[0]
    before = path.read_bytes()

    def cut(self, **options):
        return before[: len(before) // 2]

    monkeypatch.setattr(trimesh.Trimesh, "export", cut)
    with pytest.raises(FileError):
        save_meshes(path, two_meshes)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_refused_mesh_files(tmp_path, two_meshes):
    with pytest.raises(FileError, match="no such file"):
        load_meshes(tmp_path / "a.ply")
    path = save_meshes(tmp_path / "a.stl", two_meshes)[0]
    for name, content in (("b.stl", path.read_bytes()[:200]), ("c.ply", b"ply\nnonsense\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileError):
            load_meshes(tmp_path / name)
    (tmp_path / "d.txt").write_text("no mesh")
    with pytest.raises(FileError, match="not a mesh file"):
        load_meshes(tmp_path / "d.txt")


def test_import_is_light():
    code = (
        "import sys, napari_medgs.meshing.api, napari_medgs.metrics.surface_distance;"
        "import napari_medgs.io.splats;"
        "print([m for m in ('trimesh', 'skimage', 'scipy', 'SimpleITK', 'torch', 'numba')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_mesh_takes_every_kind_of_source(ball, ball_field):
    from napari_medgs.data.volume import Volume
    from napari_medgs.meshing import mesh

    grid, center, radius, _ = ball
    mask = radii(grid, center) < radius
    image = -radii(grid, center)
    level = MeshParams(level=-radius)
    for found in (
        mesh(mask, grid),
        mesh(image, grid, level),
        mesh(Volume.from_array(image.astype(np.float32), affine=grid.affine), params=level),
    ):
        assert_ball(found[1], center, radius, volume=0.005)
    assert set(mesh(ball_field)) == set(mesh_from_field(ball_field))
    with pytest.raises(GeometryError, match="pass grid"):
        mesh(mask)


@pytest.mark.data
@pytest.mark.parametrize("width", [2.0, 9.0, 40.0])
def test_smoothing_of_any_width_is_a_gaussian(width):
    grid = Grid((20, 30, 90), np.diag([2.0, 1.0, 0.5, 1.0]))
    image = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    image[:, 8:20, 30:70] += 50
    sizes = [width / s for s in grid.spacing]
    before = gaussian_filter(image, sizes, mode="nearest", truncate=3.0)
    level = float(np.median(before))
    found = mesh_from_image(image, grid, MeshParams(level=level, smooth_mm=width))[1]
    wanted = mesh_from_image(before, grid, MeshParams(level=level))[1]
    assert found.volume == pytest.approx(wanted.volume, rel=1e-4)
    assert found.area == pytest.approx(wanted.area, rel=1e-4)


def test_real_spleen_in_thick_slices(data_dir):
    from napari_medgs.io import read_labels

    labels, grid = read_labels(data_dir / "ct_spleen_msd_crop" / "seg.nii.gz")
    mesh = mesh_from_labels(labels, grid, MeshParams(largest_only=True))[1]
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(np.count_nonzero(labels) * grid.voxel_volume, rel=0.003)
    inside = grid.to_world(np.argwhere(labels))
    np.testing.assert_allclose(mesh.center_mass, inside.mean(axis=0), atol=0.3)
