"""Closed surfaces in millimeters at the zero level of an array, and operations on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._optional import require

if TYPE_CHECKING:
    from trimesh import Trimesh

Faces = NDArray[np.int64]
Points = NDArray[np.float64]
Surface = tuple[Points, Faces]

# Nearer to a voxel than this fraction of an edge, a vertex makes slivers or vanishes in float32.
_NEAREST = 0.01


def close_border(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pad an array (Z, Y, X) so that its positive region ends half a voxel outside it."""
    padded = np.pad(values, 1, mode="edge")
    for axis in range(3):
        for end in (0, -1):
            face = np.moveaxis(padded, axis, 0)[end]
            # The mirrored value puts the zero crossing half way to the padding.
            np.minimum(face, -face, out=face)
    padded[padded == 0] = -np.finfo(np.float32).tiny
    return padded


def march(values: NDArray[np.float32], affine: NDArray[np.float64]) -> Surface:
    """Return the surface around the positive region of an array, faces wound outward.

    Parameters
    ----------
    values : (Z, Y, X) ndarray of float32
        Not positive on the border; changed in place very near to zero.
    affine : (4, 4) ndarray
        Maps indices (z, y, x) of ``values`` to RAS mm.

    Returns
    -------
    points : (V, 3) ndarray
    faces : (F, 3) ndarray of int
        Both empty where nothing is positive.

    Notes
    -----
    Marching cubes of Lewiner et al. 2003 (scikit-image). Sheets may touch along an edge: see
    :func:`separate_sheets`.
    """
    from skimage.measure import marching_cubes

    if not values.max() > 0:
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    _keep_off_zero(values)
    mirrored = np.linalg.det(affine[:3, :3]) < 0
    vertices, faces, _, _ = marching_cubes(
        values, 0.0, gradient_direction="descent" if mirrored else "ascent"
    )
    points = vertices.astype(np.float64) @ affine[:3, :3].T + affine[:3, 3]
    return points, faces.astype(np.int64)


def volume_and_area(points: Points, faces: Faces) -> tuple[float, float]:
    """Return the volume (mm^3) that closed faces enclose, and their area (mm^2)."""
    if not len(faces):
        return 0.0, 0.0
    a, b, c = np.moveaxis((points - points.mean(axis=0))[faces], 1, 0)
    volume = float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6
    return volume, float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2


def closed_mesh(points: Points, faces: Faces) -> Trimesh:
    """Return faces as a mesh in which every edge has two faces."""
    import trimesh

    points, faces = separate_sheets(points, faces)
    return trimesh.Trimesh(points, faces, process=False)


def _keep_off_zero(values: NDArray[np.float32]) -> None:
    """Move values that are tiny compared with a neighbor away from zero, keeping the sign."""
    flat = values.reshape(-1)
    largest = float(np.abs(values).max())
    small = np.flatnonzero(np.abs(flat) < _NEAREST * largest)
    if not len(small):
        return
    around = np.zeros(len(small), np.float32)
    for step in np.array(values.strides) // values.itemsize:
        for sign in (-1, 1):
            neighbor = (small + sign * step).clip(0, flat.size - 1)
            np.maximum(around, np.abs(flat[neighbor]), out=around)
    floor = np.maximum(_NEAREST * around, np.float32(1e-30))
    near = flat[small]
    flat[small] = np.where(near > 0, np.maximum(near, floor), np.minimum(near, -floor))


def separate_sheets(points: Points, faces: Faces) -> Surface:
    """Split edges that four or more faces share, so that every edge has just two faces.

    Marching cubes and decimation leave such edges where two sheets of a surface touch. All
    faces but one pair get a vertex of their own on the edge; faces that lie back to back go.
    The surface stays where it was.

    Parameters
    ----------
    points : (V, 3) ndarray
    faces : (F, 3) ndarray of int
        Consistently wound: each edge runs as often one way as the other.

    Returns
    -------
    points, faces : ndarray
        With vertices and faces added; the given arrays where nothing was to be done.
    """
    while True:
        faces = _without_folds(faces)
        start, end = faces.ravel(), faces[:, [1, 2, 0]].ravel()
        key = np.minimum(start, end) * len(points) + np.maximum(start, end)
        order = np.argsort(key, kind="stable")
        first = np.flatnonzero(np.diff(key[order], prepend=-1))
        counts = np.diff(first, append=len(order))
        touched: set[int] = set()
        added: list[Points] = []
        new_faces: list[tuple[int, int, int]] = []
        removed: list[int] = []
        for where, count in zip(first[counts > 2], counts[counts > 2], strict=True):
            edges = order[where : where + count]
            forth = [e for e in edges if start[e] < end[e]]
            back = [e for e in edges if start[e] > end[e]]
            pairs = list(zip(forth, back, strict=False))[1:]
            for k, pair in enumerate(pairs, start=1):
                if touched & {int(e) // 3 for e in pair}:
                    continue
                a, b = int(start[pair[0]]), int(end[pair[0]])
                fraction = k / (len(pairs) + 1)
                middle = len(points) + len(added)
                added.append(points[a] * (1 - fraction) + points[b] * fraction)
                for edge in pair:
                    face, corner = divmod(int(edge), 3)
                    i, j, k3 = (int(faces[face, (corner + c) % 3]) for c in range(3))
                    new_faces += [(i, middle, k3), (middle, j, k3)]
                    removed.append(face)
                    touched.add(face)
        if not removed:
            return points, faces
        points = np.vstack([points, added])
        faces = np.vstack([np.delete(faces, removed, axis=0), new_faces])


def _without_folds(faces: Faces) -> Faces:
    """Drop pairs of faces that have the same corners and look opposite ways."""
    corners = np.sort(faces, axis=1)
    order = np.lexsort(corners.T)
    same = (corners[order][1:] == corners[order][:-1]).all(axis=1)
    if not same.any():
        return faces
    # The parity of the corners' order: even ones look one way, odd ones the other.
    parity = np.sign(faces - np.roll(faces, 1, axis=1)).prod(axis=1)
    gone = np.zeros(len(faces), bool)
    for k in np.flatnonzero(same):
        one, other = order[k], order[k + 1]
        if parity[one] != parity[other] and not gone[one]:
            gone[[one, other]] = True
    return faces[~gone]


def decimate_mesh(mesh: Trimesh, faces: int) -> Trimesh:
    """Return the mesh with about so many faces, by quadric error (fast-simplification).

    Closed meshes stay closed. The volume is kept by moving the vertices along their normals.
    """
    require("fast_simplification", feature="decimate")
    from fast_simplification import simplify

    if faces >= len(mesh.faces):
        return mesh
    center = mesh.vertices.mean(axis=0)
    points, triangles = simplify(
        np.ascontiguousarray(mesh.vertices - center, np.float32),
        np.ascontiguousarray(mesh.faces, np.int32),
        target_count=max(faces, 4),
    )
    triangles = triangles.astype(np.int64)
    corners = np.sort(triangles, axis=1)
    whole = (corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2])
    points, triangles = separate_sheets(points.astype(np.float64), triangles[whole])
    smaller = _compact(points + center, triangles)
    if len(smaller.faces) < 4 or not smaller.is_watertight or smaller.volume <= 0:
        return mesh
    return restore_volume(smaller, float(mesh.volume))


def restore_volume(mesh: Trimesh, volume: float) -> Trimesh:
    """Return the mesh, moved along its normals until it encloses the given volume."""
    import trimesh

    for _ in range(3):
        missing = volume - float(mesh.volume)
        if abs(missing) < 1e-4 * volume:
            break
        moved = mesh.vertices + mesh.vertex_normals * (missing / float(mesh.area))
        mesh = trimesh.Trimesh(moved, mesh.faces, process=False)
    return mesh


def _compact(points: NDArray[Any], faces: NDArray[Any]) -> Trimesh:
    """A mesh of the vertices that faces use."""
    import trimesh

    used, index = np.unique(faces, return_inverse=True)
    return trimesh.Trimesh(points[used], index.reshape(-1, 3), process=False)
