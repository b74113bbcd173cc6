"""Writers: Labels and Image layers to image files, Surface layers to mesh files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_medgs.plugin.layer_frame import (
    GRID_KEY,
    LayerFrame,
    array_of,
    frame_of,
    layer_to_ras,
    same_place,
)
from napari_medgs.plugin.layer_metadata import COLORS_KEY, NAMES_KEY
from napari_medgs.plugin.report import show_failure


def write_labels_layer(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a Labels layer as a mask with the geometry of the image it was drawn on.

    Parameters
    ----------
    path : str
        .nii, .nii.gz, .nrrd or .mha; .seg.nrrd for masks.
    data : ndarray
        The layer's array.
    meta : dict
        The layer's options, as napari passes them.

    Returns
    -------
    list of str
        The file written; empty after an error, which is shown as a notification.
    """
    return _reported(path, lambda: save_labels(path, _layer(data, meta, "labels")))


def write_image_layer(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write an Image layer with the geometry of its source file; see :func:`write_labels_layer`.

    Parameters
    ----------
    path : str
        .nii, .nii.gz, .nrrd or .mha; .seg.nrrd for masks.
    data : ndarray
        The layer's array.
    meta : dict
        The layer's options, as napari passes them.

    Returns
    -------
    list of str
        The file written; empty after an error, which is shown as a notification.
    """
    return _reported(path, lambda: save_image(path, _layer(data, meta, "image")))


def write_surface_layer(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a Surface layer as a mesh in RAS millimeters; see :func:`write_labels_layer`.

    Parameters
    ----------
    path : str
        .ply, .stl, .obj or .glb.
    data : tuple of ndarray
        Vertices, faces and values.
    meta : dict
        The layer's options, as napari passes them.

    Returns
    -------
    list of str
        The file written; empty after an error, which is shown as a notification.
    """
    return _reported(path, lambda: save_surface(path, _layer(data, meta, "surface")))


def _reported(path: str, write: Callable[[], Path]) -> list[str]:
    try:
        return [str(write())]
    except Exception as error:
        show_failure(error, f"Saving {Path(path).name}")
        return []


def _layer(data: Any, meta: dict[str, Any], kind: str) -> Any:
    from napari.layers import Layer

    return Layer.create(data, dict(meta), kind)


def frame_for_saving(layer: Any) -> LayerFrame:
    """Return a layer's frame, from an image at its place if it has no file's grid itself.

    A Labels layer that was made in the viewer has no metadata; the image below it has.
    """
    frame = frame_of(layer)
    if GRID_KEY in layer.metadata:
        return frame
    from napari import current_viewer

    viewer = current_viewer()
    for other in viewer.layers if viewer is not None else ():
        is_image = hasattr(other, "multiscale") and not getattr(other, "rgb", False)
        if is_image and GRID_KEY in other.metadata and same_place(layer, other):
            return frame_of(other)
    return frame


def save_labels(path: str | Path, layer: Any) -> Path:
    """Write a Labels layer as a mask, with the label names and colors that it has.

    Raises
    ------
    MedGSError
        When the layer is no 2D or 3D mask, or the file cannot be written.
    """
    from napari_medgs.io import write_labels

    frame = frame_for_saving(layer)
    names = layer.metadata.get(NAMES_KEY) or None
    array = np.ascontiguousarray(frame.to_canonical(array_of(layer)))
    colors = layer.metadata.get(COLORS_KEY)
    write_labels(path, array, frame.grid, names, colors=colors)
    return Path(path)


def save_image(path: str | Path, layer: Any) -> Path:
    """Write an Image layer in its own type.

    Raises
    ------
    MedGSError
        When the layer is no 2D or 3D gray image, or the file cannot be written.
    """
    from napari_medgs.io import write_image

    frame = frame_for_saving(layer)
    array = np.ascontiguousarray(frame.to_canonical(array_of(layer)))
    write_image(path, array[None], frame.grid)
    return Path(path)


def save_surface(path: str | Path, layer: Any) -> Path:
    """Write a Surface layer as a mesh in RAS millimeters, with its vertex colors.

    Raises
    ------
    MedGSError
        When the surface is not in space, or the file cannot be written.
    """
    import trimesh

    from napari_medgs.errors import GeometryError
    from napari_medgs.io._atomic import atomic_path
    from napari_medgs.io.meshes import check_mesh_path, save_meshes

    path = check_mesh_path(path)
    vertices, faces = np.asarray(layer.data[0]), np.asarray(layer.data[1])
    if vertices.shape[1] != 3:
        raise GeometryError(
            f"The surface {layer.name!r} is flat: only surfaces in 3D are saved as meshes."
        )
    matrix = layer_to_ras(layer)
    vertices = vertices @ matrix[:3, :3].T + matrix[:3, 3]
    if np.linalg.det(matrix[:3, :3]) < 0:  # a mirror turns the surface inside out
        faces = faces[:, ::-1]
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    colors = layer.vertex_colors
    if colors is None or np.ndim(colors) != 2:
        save_meshes(path, {1: mesh}, {1: layer.name})
        return path
    # One color per vertex: save_meshes takes one per label.
    mesh.visual.vertex_colors = np.round(np.asarray(colors) * 255).astype(np.uint8)
    with atomic_path(path) as temporary:
        mesh.export(temporary, file_type=path.suffix.lower()[1:])
    return path
