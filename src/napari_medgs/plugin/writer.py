"""Writers: Labels and Image layers to image files, Surface layers to mesh files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_medgs.data.orientation import is_orientation_known
from napari_medgs.errors import MedGSError
from napari_medgs.plugin.file_names import refuse_open_files
from napari_medgs.plugin.layer_frame import (
    LayerFrame,
    array_of,
    frame_in_world,
    frame_of,
    layer_to_ras,
)
from napari_medgs.plugin.layer_metadata import CODES_KEY, COLORS_KEY, NAMES_KEY
from napari_medgs.plugin.layer_orientation import (
    Matrix,
    is_assumed,
    orientation_warning,
    unit_scale,
    world_to_ras,
)
from napari_medgs.plugin.report import show_failure


def write_labels_layer(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a Labels layer as a mask with the geometry of the image it was drawn on.

    Parameters
    ----------
    path : str
        .nii, .nii.gz, .nrrd, .seg.nrrd or .mha; .dcm (DICOM segmentation) or .rtstruct.dcm
        (contours) where the DICOM series of the image is open.
    data : ndarray
        The layer's array.
    meta : dict
        The layer's options, as napari passes them.

    Returns
    -------
    list of str
        The file written; empty after an error, which is shown as a notification.
    """
    return _reported(path, save_labels, _layer(data, meta, "labels"))


def write_image_layer(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write an Image layer with the geometry of its source file; see :func:`write_labels_layer`.

    Parameters
    ----------
    path : str
        .nii, .nii.gz, .nrrd or .mha.
    data : ndarray
        The layer's array.
    meta : dict
        The layer's options, as napari passes them.

    Returns
    -------
    list of str
        The file written; empty after an error, which is shown as a notification.
    """
    return _reported(path, save_image, _layer(data, meta, "image"))


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
    return _reported(path, save_surface, _layer(data, meta, "surface"))


def _reported(path: str, write: Callable[[str, Any], Path], layer: Any) -> list[str]:
    from napari import current_viewer
    from napari.utils.notifications import show_warning

    viewer = current_viewer()
    others = [] if viewer is None else [x for x in viewer.layers if x.name != layer.name]
    try:
        refuse_open_files(others, [Path(path)])
        written = str(write(path, layer))
        if not has_known_place(layer):
            show_warning(orientation_warning(layer.name))
        return [written]
    except Exception as error:
        show_failure(error, f"Saving {Path(path).name}")
        return []


def _layer(data: Any, meta: dict[str, Any], kind: str) -> Any:
    from napari.layers import Layer

    return Layer.create(data, dict(meta), kind)


def frame_for_saving(layer: Any) -> LayerFrame:
    """Return a layer's frame, from the images beside it if it has no record of a file itself.

    A Labels layer that was made in the viewer has no metadata. It takes the grid of an image of
    known orientation whose voxels are the same, in whatever axis order and direction; else its
    place among the images, where these agree.
    """
    frame = frame_of(layer)
    if layer.ndim != 3 or not is_assumed(frame.grid):
        return frame
    for other, world in _placed_images(layer):
        try:
            reference = frame_of(other).grid
            found = frame_in_world(layer, world, {}, unit=unit_scale(other))
        except MedGSError:
            continue
        if found.grid.matches(reference):
            return replace(found, grid=reference)
    return _frame_among_images(layer) or frame


def _frame_among_images(layer: Any) -> LayerFrame | None:
    world = common_world(layer)
    return None if world is None else frame_in_world(layer, world, {"kind": "layer"})


def _placed_images(layer: Any | None) -> list[tuple[Any, Matrix]]:
    """Return the viewer's other Image and Labels layers of known orientation, with it."""
    from napari import current_viewer

    viewer = current_viewer()
    found = []
    for other in viewer.layers if viewer is not None else ():
        if other is layer or not _is_array(other) or other.ndim != 3 or getattr(other, "rgb", 0):
            continue
        world = world_to_ras(other)
        if world is not None and not is_assumed(frame_of(other).grid):
            found.append((other, world))
    return found


def common_world(layer: Any | None) -> Matrix | None:
    """Return the matrix from world to RAS on which the images beside a layer agree.

    Parameters
    ----------
    layer : napari.layers.Layer or None
        None for all images in the viewer.
    """
    worlds = [world for _, world in _placed_images(layer)]
    agree = worlds and all(np.allclose(w, worlds[0], rtol=1e-4, atol=1e-3) for w in worlds)
    return worlds[0] if agree else None


def _is_array(layer: Any) -> bool:
    from napari.layers import Image, Labels

    return isinstance(layer, Image | Labels)


def has_known_place(layer: Any) -> bool:
    """Tell whether it is known where in the patient a layer lies."""
    if layer.ndim != 3:
        return False
    if _is_array(layer):
        return is_orientation_known(frame_for_saving(layer).grid)
    return world_to_ras(layer) is not None or common_world(layer) is not None


def save_labels(path: str | Path, layer: Any) -> Path:
    """Write a Labels layer as a mask, with the label names and colors that it has.

    Raises
    ------
    MedGSError
        When the layer is no 2D or 3D mask, or the file cannot be written.
    """
    from napari_medgs.io import write_labels
    from napari_medgs.io.formats import is_dicom_output
    from napari_medgs.plugin.dicom_source import series_options

    frame = frame_for_saving(layer)
    series = series_options(layer, frame.grid) if is_dicom_output(path) else {}
    names = layer.metadata.get(NAMES_KEY) or None
    array = np.ascontiguousarray(frame.to_canonical(array_of(layer)))
    colors = layer.metadata.get(COLORS_KEY)
    codes = layer.metadata.get(CODES_KEY)
    write_labels(path, array, frame.grid, names, colors=colors, codes=codes, **series)
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
    world = world_to_ras(layer)
    matrix = layer_to_ras(layer, common_world(layer) if world is None else world)
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
