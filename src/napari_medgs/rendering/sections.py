"""Where folded Gaussians meet a slice, and the surfaces they have in space, for drawing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.field import GaussianField
from napari_medgs.errors import ParameterError

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Ellipses:
    """Ellipses in one plane of the canonical grid.

    Attributes
    ----------
    index : (M,) ndarray of int
        Which Gaussian of the field each one belongs to.
    center : (M, 2) ndarray
        In voxels along the two axes of the plane, in rising order.
    axes : (M, 2, 2) ndarray
        The outline is ``center + axes @ (cos a, sin a)``.
    remaining : (M,) ndarray
        What the slice leaves of the level: 0 at the ends of a Gaussian, the level at its middle.
    """

    index: Indices
    center: Reals
    axes: Reals
    remaining: Reals

    def __len__(self) -> int:
        return len(self.index)

    def area(self) -> Reals:
        """Areas in square voxels (M,)."""
        area: Reals = np.pi * np.abs(np.linalg.det(self.axes))
        return area

    def subset(self, which: NDArray[Any]) -> Ellipses:
        """Return the ellipses chosen by an index or boolean array."""
        return Ellipses(
            self.index[which], self.center[which], self.axes[which], self.remaining[which]
        )


def level_of(field: GaussianField, sigmas: float) -> float:
    """Return the value of q on the surface ``sigmas`` standard deviations from the centers.

    Never beyond the field's cutoff, where its Gaussians end.
    """
    if not sigmas > 0:
        raise ParameterError(f"The size of Gaussians must be positive, not {sigmas}.")
    return min(float(sigmas) ** 2, float(field.info.cutoff))


def cut(
    field: GaussianField,
    axis: int,
    position: float,
    sigmas: float = 1.0,
    precisions: Reals | None = None,
) -> Ellipses:
    """Intersect the Gaussians' surfaces with a plane across one axis of the canonical grid.

    Parameters
    ----------
    field : GaussianField
    axis : int
        Axis 0, 1 or 2 of (z, y, x) that the plane is perpendicular to.
    position : float
        Where the plane is, in voxels.
    sigmas : float
        Size of the surfaces in standard deviations: the sets q <= sigmas^2.
    precisions : (N, 3, 3) ndarray, optional
        ``field.voxel_precisions()``, when the caller keeps it.

    Returns
    -------
    Ellipses
        Of the Gaussians that reach the plane.

    Notes
    -----
    Across the field's slice axis the sections of folded Gaussians are exact at every fold
    degree: ellipses about (my(z), mx(z)). Across the others they are those of the 3D
    Gaussian that touches at the center (fold of degree 1), by the Schur complement of its
    precision; degrees 2 and 3 bend away from it far from the center.
    """
    if axis not in (0, 1, 2):
        raise ParameterError(f"The axis of a section must be 0, 1 or 2, not {axis}.")
    level = level_of(field, sigmas)
    if axis == field.info.slice_axis:
        return _cut_fold(field, position, level)
    if precisions is None:
        precisions = field.voxel_precisions()
    return _cut_ellipsoids(field.voxel_centers(), precisions, axis, position, level)


def _cut_fold(field: GaussianField, position: float, level: float) -> Ellipses:
    d = position - field.centers[:, 2].astype(np.float64)
    remaining = level - (np.exp(field.log_precision[:, 2].astype(np.float64)) * d) ** 2
    index = np.flatnonzero(remaining > 0)
    d, remaining = d[index], remaining[index]
    radius = np.sqrt(remaining)
    axes = np.zeros((len(index), 2, 2))
    sigma1, sigma2 = np.exp(-field.log_precision[index, :2].astype(np.float64)).T
    axes[:, 0, 0] = radius * sigma2
    axes[:, 1, 0] = radius * sigma2 * field.shear[index]
    axes[:, 1, 1] = radius * sigma1
    return Ellipses(index, _folded_centers(field, index, d), axes, remaining)


def _folded_centers(field: GaussianField, index: Indices, d: Reals) -> Reals:
    """Return (row, column) of the chosen Gaussians, d (M,) or (M, V) slices from their middle."""
    shape = (len(index),) + (1,) * (d.ndim - 1)
    column = field.centers[index, 0].astype(np.float64).reshape(shape)
    row = field.centers[index, 1].astype(np.float64).reshape(shape)
    for k in range(field.info.degree):
        power = d ** (k + 1)
        column = column + field.fold[index, k, 0].reshape(shape) * power
        row = row + field.fold[index, k, 1].reshape(shape) * power
    return np.stack([np.broadcast_to(row, d.shape), np.broadcast_to(column, d.shape)], axis=-1)


def _cut_ellipsoids(
    centers: Reals, precisions: Reals, axis: int, position: float, level: float
) -> Ellipses:
    plane = [a for a in range(3) if a != axis]
    e = position - centers[:, axis]
    inside = precisions[:, plane][:, :, plane]
    across = precisions[:, plane, axis]
    # 2 x 2 inverses and Cholesky factors in closed form: this runs on every slice change.
    a, b, c = inside[:, 0, 0], inside[:, 0, 1], inside[:, 1, 1]
    determinant = a * c - b * b
    shift = np.stack(
        [
            (c * across[:, 0] - b * across[:, 1]) / determinant,
            (a * across[:, 1] - b * across[:, 0]) / determinant,
        ],
        axis=1,
    )
    schur = precisions[:, axis, axis] - (across * shift).sum(axis=1)
    remaining = level - schur * e**2
    index = np.flatnonzero(remaining > 0)
    remaining = remaining[index]
    radius = np.sqrt(remaining)
    # L L^T = inside, with L = [[l, 0], [m, n]]; the outline is radius * L^-T (cos, sin).
    low = np.sqrt(a[index])
    middle = b[index] / low
    high = np.sqrt(determinant[index] / a[index])
    axes = np.zeros((len(index), 2, 2))
    axes[:, 0, 0] = radius / low
    axes[:, 0, 1] = -radius * middle / (low * high)
    axes[:, 1, 1] = radius / high
    center = centers[index][:, plane] - e[index, None] * shift[index]
    return Ellipses(index, center, axes, remaining)


def disc_mesh(
    ellipses: Ellipses, segments: int = 16, radii: tuple[float, ...] = (1.0,)
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Triangulate ellipses as discs: a middle vertex and one ring of vertices per radius.

    Parameters
    ----------
    ellipses : Ellipses
        M of them.
    segments : int
        Vertices of a ring.
    radii : tuple of float
        Rising; 1 is the outline.

    Returns
    -------
    vertices : (M * (1 + R * segments), 2) ndarray
        In the order of the ellipses: middle, first ring, second ring ..
    faces : (M * (2 R - 1) * segments, 3) ndarray
    """
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    unit = np.concatenate([np.zeros((1, 2)), *[radius * circle for radius in radii]])
    vertices = ellipses.center[:, None] + np.einsum("mij,vj->mvi", ellipses.axes, unit)
    here = 1 + np.arange(segments)
    after = 1 + (np.arange(segments) + 1) % segments
    parts = [np.stack([np.zeros_like(here), here, after], axis=1)]
    for ring in range(len(radii) - 1):
        inner, outer = ring * segments, (ring + 1) * segments
        parts.append(np.stack([here + inner, here + outer, after + outer], axis=1))
        parts.append(np.stack([here + inner, after + outer, after + inner], axis=1))
    one = np.concatenate(parts)
    faces = one[None] + (np.arange(len(ellipses)) * len(unit))[:, None, None]
    return vertices.reshape(-1, 2).astype(np.float32), faces.reshape(-1, 3).astype(np.int32)


def surfaces(
    field: GaussianField, index: NDArray[Any], sigmas: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Triangulate the surfaces q = sigmas^2 of some Gaussians, bent as the fold bends them.

    Parameters
    ----------
    field : GaussianField
    index : (M,) ndarray of int
        Which Gaussians.
    sigmas : float
        Size in standard deviations, at most up to the field's cutoff.

    Returns
    -------
    vertices : (M * 42, 3) ndarray
        In voxels (z, y, x) of the canonical grid, Gaussian after Gaussian.
    faces : (M * 80, 3) ndarray
        Outward by the right-hand rule in those coordinates.
    """
    index = np.asarray(index, dtype=np.int64)
    points, triangles = _icosphere()
    radius = np.sqrt(level_of(field, sigmas))
    sigma1, sigma2, sigma_t = radius * np.exp(-field.log_precision[index].astype(np.float64)).T
    d = sigma_t[:, None] * points[:, 0]
    row = sigma2[:, None] * points[:, 1]
    column = sigma1[:, None] * points[:, 2] + field.shear[index, None] * row
    stack = np.empty((len(index), len(points), 3))
    stack[..., 0] = field.centers[index, 2, None] + d
    stack[..., 1:] = _folded_centers(field, index, d) + np.stack([row, column], axis=-1)
    order = list(field.info.stack_axes)
    vertices = np.empty_like(stack)
    vertices[..., order] = stack
    if np.linalg.det(np.eye(3)[order]) < 0:  # an odd swap of axes turns meshes inside out
        triangles = triangles[:, ::-1]
    faces = triangles[None] + (np.arange(len(index)) * len(points))[:, None, None]
    return vertices.reshape(-1, 3).astype(np.float32), faces.reshape(-1, 3).astype(np.int32)


@lru_cache(maxsize=1)
def _icosphere() -> tuple[Reals, Indices]:
    """Return an icosahedron divided once: 42 unit vectors and 80 outward triangles."""
    golden = (1 + np.sqrt(5)) / 2
    corners: list[Any] = []
    for a in (-1, 1):
        for b in (-golden, golden):
            corners += [(0, a, b), (a, b, 0), (b, 0, a)]
    points = np.array(corners, dtype=np.float64)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = np.isclose(distance, 2)
    coarse = [
        (i, j, k)
        for i in range(12)
        for j in range(i + 1, 12)
        for k in range(j + 1, 12)
        if near[i, j] and near[j, k] and near[i, k]
    ]
    vertices = [tuple(p) for p in points]
    middles: dict[tuple[int, int], int] = {}

    def middle(i: int, j: int) -> int:
        key = (min(i, j), max(i, j))
        if key not in middles:
            middles[key] = len(vertices)
            vertices.append(tuple((points[i] + points[j]) / 2))
        return middles[key]

    fine: list[tuple[int, int, int]] = []
    for i, j, k in coarse:
        ij, jk, ki = middle(i, j), middle(j, k), middle(k, i)
        fine += [(i, ij, ki), (ij, j, jk), (ki, jk, k), (ij, jk, ki)]
    sphere = np.array(vertices)
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    triangles = np.array(fine, dtype=np.int64)
    corner = sphere[triangles]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    inward = (normal * corner.sum(axis=1)).sum(axis=1) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return sphere, triangles


def largest(field: GaussianField, count: int) -> Indices:
    """Return the indices of the ``count`` Gaussians of largest volume times weight."""
    if count >= len(field):
        return np.arange(len(field))
    mass = field.log_weight - field.log_precision.sum(axis=1)
    return np.sort(np.argpartition(mass, len(field) - count)[len(field) - count :])


def center_values(field: GaussianField, image: NDArray[Any]) -> Reals:
    """Sample an image (Z, Y, X) on the field's grid at the voxels nearest the centers, (N,)."""
    shape = np.asarray(field.info.grid.shape)
    if image.shape != tuple(shape):
        raise ParameterError(
            f"The image has shape {image.shape}, the field's grid {field.info.grid.shape}."
        )
    voxels = np.clip(np.round(field.voxel_centers()).astype(np.int64), 0, shape - 1)
    return np.asarray(image)[tuple(voxels.T)].astype(np.float64)


def intensities(field: GaussianField, channel: int = 0) -> Reals:
    """Return the Gaussians' intensities in the units of the image, (N,)."""
    scale, offset = field.info.intensity_scale[channel], field.info.intensity_offset[channel]
    return field.values[:, channel].astype(np.float64) * scale + offset


def label_values(field: GaussianField) -> Indices:
    """Return the label value of every Gaussian's likeliest class, (N,); 0 without classes."""
    if not field.info.class_names:
        return np.zeros(len(field), dtype=np.int64)
    logits = field.values[:, field.head_channels("seg")]
    return np.asarray(field.info.label_values, dtype=np.int64)[logits.argmax(axis=1)]
