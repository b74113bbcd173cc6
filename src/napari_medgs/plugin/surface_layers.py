"""Mesh files as Surface layers, placed in the viewer as the images are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import SPL
from napari_medgs.plugin.layer_orientation import GRID_KEY, TRANSFORM_KEY
from napari_medgs.plugin.writer import common_world

LayerData = tuple[Any, ...]


def read_surface_layers(path: Path) -> list[LayerData]:
    """Read a mesh file, or a folder with one per label, as one Surface layer per part.

    The vertices are taken as RAS millimeters, as meshes are written here. They are drawn in the
    world of the images in the viewer where these agree (an oblique image is drawn straight), else
    in superior, posterior, left millimeters.

    Parameters
    ----------
    path : Path
        A ``.ply``, ``.stl``, ``.obj`` or ``.glb`` file, or a folder of such.

    Returns
    -------
    list of layer data

    Raises
    ------
    FileError
        When a file is damaged or holds no faces.
    """
    from napari_medgs.io.meshes import load_meshes

    world = common_world(None)
    if world is None:
        world = SPL
    from_ras = np.linalg.inv(world)
    mirrored = np.linalg.det(world[:3, :3]) < 0
    metadata = {
        GRID_KEY: Grid((1, 1, 1), world).to_dict(),
        TRANSFORM_KEY: np.eye(4).tolist(),
        "path": str(path),
    }
    layers: list[LayerData] = []
    for name, part in load_meshes(path).items():
        vertices = np.asarray(part.vertices) @ from_ras[:3, :3].T + from_ras[:3, 3]
        faces = np.asarray(part.faces)
        if mirrored:  # a mirror turns the surface inside out
            faces = faces[:, ::-1]
        options: dict[str, Any] = {
            "name": name,
            "units": ("mm", "mm", "mm"),
            "axis_labels": ("z", "y", "x"),
            "metadata": dict(metadata),
        }
        colors = vertex_colors(part)
        if colors is not None:
            options["vertex_colors"] = colors
        layers.append(((vertices, np.ascontiguousarray(faces)), options, "surface"))
    return layers


def vertex_colors(mesh: Any) -> NDArray[np.float64] | None:
    """Return the colors (V, 4) from 0 to 1 of a mesh's vertices, None where it has none.

    Parameters
    ----------
    mesh : trimesh.Trimesh
    """
    visual = mesh.visual
    if not getattr(visual, "defined", False):
        return None
    if visual.kind == "texture":  # one material for the whole mesh
        color = getattr(visual.material, "main_color", None)
        if color is None:
            return None
        rgba = np.tile(np.asarray(color, np.float64).ravel()[:4], (len(mesh.vertices), 1))
    else:
        rgba = np.asarray(visual.vertex_colors, dtype=np.float64)
    if rgba.shape != (len(mesh.vertices), 4):
        return None
    return rgba / 255.0
