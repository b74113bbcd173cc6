"""Shaded pictures of surfaces by a software rasterizer with a depth buffer; needs no GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from trimesh import Trimesh

Floats = NDArray[np.float64]

LIGHT = (-0.45, 0.55, 0.70)  # right, up, towards the viewer


@dataclass(frozen=True)
class Part:
    """A surface in a picture.

    Attributes
    ----------
    mesh : Trimesh
    color : str
        Any color that matplotlib knows.
    transparent : bool
        Drawn transparent, silhouettes brighter than faces.
    """

    mesh: Trimesh
    color: str
    transparent: bool


def draw_parts(
    parts: list[Part], azimuth: float, elevation: float, pixels: int = 600
) -> tuple[Floats, float]:
    """Draw surfaces seen from far away.

    Parameters
    ----------
    parts : list of Part
        In RAS mm.
    azimuth : float
        Degrees that the viewer goes around the patient, 0: in front.
    elevation : float
        Degrees above.
    pixels : int
        Height and width of the picture.

    Returns
    -------
    picture : (pixels, pixels, 4) ndarray
        RGBA in [0, 1].
    millimeters : float
        Size of a pixel.

    Notes
    -----
    Needs no OpenGL, so it works the same on a cluster node as on a laptop.
    """
    import matplotlib.colors

    axes = _camera(azimuth, elevation)
    corners = np.concatenate([part.mesh.vertices for part in parts]) @ axes.T
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = 2 * pixels  # drawn twice as large, then averaged
    step = float(max(high[:2] - low[:2])) * 1.06 / size
    middle = (low + high)[:2] / 2
    picture = np.zeros((size, size, 4))
    solid_depth = np.full((size, size), -np.inf)
    for part in sorted(parts, key=lambda p: p.transparent):
        rgb = np.array(matplotlib.colors.to_rgb(part.color))
        points = np.asarray(part.mesh.vertices) @ axes.T
        points[:, 0] = (points[:, 0] - middle[0]) / step + size / 2
        points[:, 1] = size / 2 - (points[:, 1] - middle[1]) / step
        depth = np.full((size, size), -np.inf)
        normal = np.zeros((size, size, 3))
        normals = np.ascontiguousarray(np.asarray(part.mesh.vertex_normals) @ axes.T)
        _rasterize()(np.asarray(part.mesh.faces, np.int64), points, normals, depth, normal)
        hit = depth > solid_depth
        if part.transparent:
            _lay_transparent(picture, hit & np.isfinite(depth), normal, rgb)
        else:
            span = max(float(high[2] - low[2]), 1e-6)
            near = ((depth - low[2]) / span).clip(0, 1)
            picture[hit] = _shade(normal[hit], near[hit], rgb)
            solid_depth[hit] = depth[hit]
    return picture.reshape(pixels, 2, pixels, 2, 4).mean(axis=(1, 3)), 2 * step


def _camera(azimuth: float, elevation: float) -> Floats:
    """Return unit vectors (right, up, towards the viewer) in RAS, as rows."""
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    towards = np.array([-np.sin(a) * np.cos(e), np.cos(a) * np.cos(e), np.sin(e)])
    right = np.cross([0.0, 0.0, 1.0], towards)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(towards, right), towards])


@cache
def _rasterize() -> Callable[..., None]:
    """Return the compiled loop over triangles; numba is loaded when it is needed first."""
    import numba

    @numba.njit(nogil=True)
    def rasterize(faces: Any, points: Any, normals: Any, depth: Any, normal: Any) -> None:
        rows, columns = depth.shape
        for a, b, c in faces:
            xa, ya = points[a, 0], points[a, 1]
            xb, yb = points[b, 0], points[b, 1]
            xc, yc = points[c, 0], points[c, 1]
            area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
            if area == 0:
                continue
            for y in range(max(0, int(min(ya, yb, yc))), min(rows, int(max(ya, yb, yc)) + 1)):
                for x in range(
                    max(0, int(min(xa, xb, xc))), min(columns, int(max(xa, xb, xc)) + 1)
                ):
                    px, py = x + 0.5, y + 0.5
                    u = ((xb - px) * (yc - py) - (xc - px) * (yb - py)) / area
                    v = ((xc - px) * (ya - py) - (xa - px) * (yc - py)) / area
                    w = 1 - u - v
                    if u < 0 or v < 0 or w < 0:
                        continue
                    z = u * points[a, 2] + v * points[b, 2] + w * points[c, 2]
                    if z > depth[y, x]:
                        depth[y, x] = z
                        for k in range(3):
                            normal[y, x, k] = (
                                u * normals[a, k] + v * normals[b, k] + w * normals[c, k]
                            )

    return rasterize


def _shade(normals: Floats, near: Floats, rgb: Floats) -> Floats:
    """Return RGBA of an opaque surface: soft light, a highlight, darker far away."""
    light = np.array(LIGHT) / np.linalg.norm(LIGHT)
    half = light + np.array([0.0, 0.0, 1.0])
    half /= np.linalg.norm(half)
    diffuse = 0.5 + 0.5 * (normals @ light)
    shine = np.clip(normals @ half, 0, 1) ** 40
    strength = (0.22 + 0.78 * diffuse**1.5) * (0.65 + 0.35 * near)
    color = (strength[:, None] * rgb + 0.28 * shine[:, None]).clip(0, 1)
    return np.concatenate([color, np.ones((len(color), 1))], axis=1)


def _lay_transparent(
    picture: Floats, hit: NDArray[np.bool_], normals: Floats, rgb: Floats
) -> None:
    """Lay a see-through surface over the picture: clear where seen face on, bright at rims."""
    facing = np.abs(normals[hit][:, 2])
    alpha = 0.07 + 0.55 * (1 - facing) ** 2.2
    below = picture[hit]
    color = (rgb * (0.55 + 0.45 * (1 - facing[:, None]))).clip(0, 1)
    total = alpha + below[:, 3] * (1 - alpha)
    mixed = color * alpha[:, None] + below[:, :3] * (below[:, 3] * (1 - alpha))[:, None]
    picture[hit] = np.concatenate([mixed / total[:, None], total[:, None]], axis=1)
