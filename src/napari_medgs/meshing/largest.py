"""The largest connected part of a region, and of the surface around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats

if TYPE_CHECKING:
    from trimesh import Trimesh


def largest_part(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the connected part of the most voxels; corners connect, as surfaces may.

    Parameters
    ----------
    inside : (Z, Y, X) ndarray of bool
        Something in it is True.
    """
    from scipy.ndimage import label

    parts, count = label(inside, np.ones((3, 3, 3), np.bool_))
    if count < 2:
        return inside
    sizes = np.bincount(parts.reshape(-1))
    sizes[0] = 0
    largest: NDArray[np.bool_] = parts == sizes.argmax()
    return largest


def keep_largest_positive(values: Floats) -> None:
    """Negate the positive regions except the largest one, in place."""
    positive = values > 0
    if positive.any():
        positive &= ~largest_part(positive)
        values[positive] *= -1


def keep_largest(mesh: Trimesh) -> Trimesh:
    """Return the closed part that encloses the most, with the cavities in it.

    Parameters
    ----------
    mesh : Trimesh
        Closed, with outward normals: the faces around cavities look into them.
    """
    import trimesh
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.asarray(mesh.edges)
    count = len(mesh.vertices)
    graph = coo_matrix((np.ones(len(edges), bool), edges.T), shape=(count, count))
    parts, of_vertex = connected_components(graph, directed=False)
    if parts == 1:
        return mesh
    a, b, c = np.moveaxis((mesh.vertices - mesh.vertices.mean(axis=0))[mesh.faces], 1, 0)
    of_face = of_vertex[mesh.faces[:, 0]]
    enclosed = np.bincount(of_face, np.einsum("ij,ij->i", a, np.cross(b, c)), minlength=parts)
    largest = int(enclosed.argmax())
    kept = {largest}
    triangles = np.asarray(mesh.vertices)[mesh.faces]
    by_part = np.split(triangles[np.argsort(of_face, kind="stable")], np.cumsum(
        np.bincount(of_face, minlength=parts))[:-1])  # fmt: skip
    first = np.zeros(parts, np.int64)
    first[of_vertex[::-1]] = np.arange(count)[::-1]
    solids = np.flatnonzero(enclosed > 0)
    order = solids[np.argsort(enclosed[solids])]  # the smallest solid around a cavity has it
    for cavity in np.flatnonzero(enclosed < 0):
        point = mesh.vertices[first[cavity]]
        if next((s for s in order if _encloses(by_part[s], point)), None) == largest:
            kept.add(int(cavity))
    used, index = np.unique(mesh.faces[np.isin(of_face, list(kept))], return_inverse=True)
    return trimesh.Trimesh(mesh.vertices[used], index.reshape(-1, 3), process=False)


def _encloses(triangles: NDArray[Any], point: NDArray[Any]) -> bool:
    """Tell whether closed triangles (F, 3, 3) enclose a point, by their solid angle from it.

    Van Oosterom and Strackee, "The solid angle of a plane triangle", IEEE Trans. Biomed. Eng. 30,
    1983.
    """
    if (triangles.min(axis=(0, 1)) > point).any() or (triangles.max(axis=(0, 1)) < point).any():
        return False
    a, b, c = np.moveaxis(triangles - point, 1, 0)
    la, lb, lc = (np.linalg.norm(v, axis=1) for v in (a, b, c))
    over = np.einsum("ij,ij->i", a, np.cross(b, c))
    under = (
        la * lb * lc
        + np.einsum("ij,ij->i", a, b) * lc
        + np.einsum("ij,ij->i", b, c) * la
        + np.einsum("ij,ij->i", c, a) * lb
    )
    return bool(np.arctan2(over, under).sum() > np.pi)  # 2 pi inside, 0 outside
