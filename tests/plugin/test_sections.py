"""Sections and surfaces of Gaussians against q evaluated by its definition."""

import numpy as np
import pytest

from napari_medgs.data.field import FieldInfo, GaussianField
from napari_medgs.data.grid import Grid
from napari_medgs.errors import ParameterError
from napari_medgs.rendering import sections


def random_field(n=12, slice_axis=0, degree=3, seed=0, classes=0, shape=(20, 24, 28)):
    rng = np.random.default_rng(seed)
    info = FieldInfo(
        Grid(shape),
        slice_axis=slice_axis,
        degree=degree,
        class_names=tuple(f"class {k}" for k in range(classes)),
        label_values=tuple(range(classes)),
    )
    slices, rows, columns = info.stack_shape
    fold = rng.normal(0, 1, (n, 3, 2)) * np.array([0.4, 0.05, 0.01])[:, None]
    fold[:, degree:] = 0
    return GaussianField(
        centers=rng.uniform(0.2, 0.8, (n, 3)) * [columns, rows, slices],
        log_precision=rng.normal(-1.0, 0.3, (n, 3)),
        shear=rng.normal(0, 0.5, n),
        fold=fold,
        log_weight=np.zeros(n),
        values=rng.uniform(0, 1, (n, 1 + classes)),
        background=np.zeros(1 + classes),
        info=info,
    )


def q_of(field, i, points):
    """q of one Gaussian at canonical voxel coordinates (P, 3), from the definition."""
    z, y, x = points[:, list(field.info.stack_axes)].T
    cx, cy, t = field.centers[i].astype(float)
    r1, r2, rt = np.exp(field.log_precision[i].astype(float))
    d = z - t
    mx, my = cx, cy
    for k in range(field.info.degree):
        mx = mx + field.fold[i, k, 0] * d ** (k + 1)
        my = my + field.fold[i, k, 1] * d ** (k + 1)
    u = x - mx - field.shear[i] * (y - my)
    return (r1 * u) ** 2 + (r2 * (y - my)) ** 2 + (rt * d) ** 2


def in_plane(axis, position, flat):
    return np.insert(flat, axis, position, axis=1)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
@pytest.mark.parametrize("degree", [0, 1, 3])
@pytest.mark.parametrize("sigmas", [0.7, 2.0])
def test_outline_across_the_slice_axis_is_where_q_is_the_level(slice_axis, degree, sigmas):
    field = random_field(slice_axis=slice_axis, degree=degree)
    position = field.info.stack_shape[0] / 2 + 0.25
    found = sections.cut(field, slice_axis, position, sigmas)
    assert len(found) > 0
    flat, _ = sections.disc_mesh(found, 12)
    outlines = flat.reshape(len(found), 13, 2)[:, 1:]
    for k, i in enumerate(found.index):
        q = q_of(field, i, in_plane(slice_axis, position, outlines[k].astype(float)))
        np.testing.assert_allclose(q, sigmas**2, rtol=2e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_section_of_plain_gaussians_equals_brute_force(axis, slice_axis):
    """Degree 1 is a 3D Gaussian: every plane must cut exactly {q <= level}."""
    field = random_field(n=6, slice_axis=slice_axis, degree=1)
    position, sigmas = field.voxel_centers()[0, axis] + 0.3, 1.7
    found = sections.cut(field, axis, position, sigmas)
    plane = [a for a in range(3) if a != axis]
    size = np.asarray(field.info.grid.shape)[plane]
    grid = np.stack(np.meshgrid(*[np.arange(-8, n + 8, 0.1) for n in size], indexing="ij"), -1)
    flat = grid.reshape(-1, 2)
    seen = set(found.index.tolist())
    assert 0 in seen
    for i in range(len(field)):
        inside = q_of(field, i, in_plane(axis, position, flat)) <= sigmas**2
        assert (i in seen) == bool(inside.any())
        if i in seen:
            k = found.index.tolist().index(i)
            local = np.linalg.solve(found.axes[k], (flat - found.center[k]).T)
            np.testing.assert_array_equal((local**2).sum(0) <= 1, inside)
            assert found.area()[k] == pytest.approx(inside.sum() * 0.01, rel=0.02)


def test_folded_sections_across_other_axes_are_those_of_the_touching_gaussian():
    """At the center's own plane the first-order ellipsoid agrees with q near the center."""
    field = random_field(n=1, degree=3)
    center = field.voxel_centers()[0]
    found = sections.cut(field, 1, center[1], 0.05)
    flat, _ = sections.disc_mesh(found, 8)
    q = q_of(field, 0, in_plane(1, center[1], flat[1:].astype(float)))
    np.testing.assert_allclose(q, 0.05**2, rtol=0.05)


def test_nothing_reaches_beyond_the_cutoff():
    field = random_field()
    assert sections.level_of(field, 100) == field.info.cutoff
    far = field.info.stack_shape[0] * 10
    assert len(sections.cut(field, 0, far, 3)) == 0
    assert len(sections.cut(field, 1, far, 3)) == 0
    empty, faces = sections.disc_mesh(sections.cut(field, 0, far, 3))
    assert empty.shape == (0, 2)
    assert faces.shape == (0, 3)


def test_remaining_level_falls_to_zero_at_the_ends():
    field = random_field(n=1, degree=0)
    t, rt = float(field.centers[0, 2]), float(np.exp(field.log_precision[0, 2]))
    middle = sections.cut(field, 0, t, 1.0)
    end = sections.cut(field, 0, t + 0.999 / rt, 1.0)
    assert middle.remaining[0] == pytest.approx(1.0)
    assert end.remaining[0] == pytest.approx(1 - 0.999**2, rel=1e-3)
    assert end.area()[0] < 0.01 * middle.area()[0]
    assert len(sections.cut(field, 0, t + 1.001 / rt, 1.0)) == 0


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_surfaces_lie_where_q_is_the_level_and_face_outwards(slice_axis):
    field = random_field(n=5, slice_axis=slice_axis)
    chosen = np.array([1, 4])
    vertices, faces = sections.surfaces(field, chosen, 1.5)
    parts = vertices.reshape(2, -1, 3).astype(float)
    assert faces.shape == (2 * 80, 3)
    for k, i in enumerate(chosen):
        np.testing.assert_allclose(q_of(field, i, parts[k]), 1.5**2, rtol=1e-3)
    corner = vertices[faces[:80]].astype(float)
    volume = np.einsum("ij,ij->i", corner[:, 0], np.cross(corner[:, 1], corner[:, 2])).sum() / 6
    expected = 4 / 3 * np.pi * 1.5**3 * np.exp(-field.log_precision[1].sum())
    assert volume == pytest.approx(expected, rel=0.15)  # positive: outward; 80 flat faces


def test_disc_rings_are_closed():
    field = random_field(n=1)
    found = sections.cut(field, 0, float(field.centers[0, 2]), 1.0)
    vertices, faces = sections.disc_mesh(found, 20, (0.5, 1.0))
    assert vertices.shape == (41, 2)
    corner = vertices[faces].astype(float)
    edge1, edge2 = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    area = np.abs(edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]).sum() / 2
    assert area == pytest.approx(found.area()[0], rel=0.03)


def test_largest_takes_volume_times_weight():
    field = random_field(n=30)
    mass = np.exp(field.log_weight - field.log_precision.sum(1))
    chosen = sections.largest(field, 7)
    assert set(chosen) == set(np.argsort(mass)[-7:])
    np.testing.assert_array_equal(sections.largest(field, 99), np.arange(30))


def test_center_values_and_labels():
    field = random_field(n=9, slice_axis=1, classes=3)
    image = np.arange(np.prod(field.info.grid.shape)).reshape(field.info.grid.shape)
    got = sections.center_values(field, image)
    z, y, x = np.round(field.voxel_centers()).astype(int).T
    np.testing.assert_array_equal(got, image[z, y, x])
    np.testing.assert_array_equal(sections.label_values(field), field.values[:, 1:].argmax(axis=1))
    with pytest.raises(ParameterError, match="shape"):
        sections.center_values(field, image[1:])


@pytest.mark.parametrize(("axis", "sigmas"), [(3, 1.0), (0, 0.0), (0, -1.0)])
def test_bad_arguments(axis, sigmas):
    with pytest.raises(ParameterError):
        sections.cut(random_field(), axis, 1.0, sigmas)
