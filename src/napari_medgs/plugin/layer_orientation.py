"""How a layer's world coordinates relate to the patient: our own record and other readers'.

napari's world has no anatomical directions. A layer's orientation is known where our reader or
another one that is known here left a record in the layer's metadata; else it is assumed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import is_orientation_known, is_usable
from napari_medgs.errors import GeometryError, MedGSError

GRID_KEY = "medgs_grid"
TRANSFORM_KEY = "medgs_transform"
_NIFTI_KEYS = ("affine", "coordinate_system", "header", "spacing", "origin", "direction")
PLACE_KEYS = (GRID_KEY, TRANSFORM_KEY, *_NIFTI_KEYS)
"""Metadata that a layer derived from another one on the same grid must keep."""

Matrix = NDArray[np.float64]


def layer_matrix(layer: Any) -> Matrix:
    """Return the matrix (ndim + 1, ndim + 1) from data to world, all transforms composed."""
    n = layer.ndim
    origin = np.asarray(layer.data_to_world(np.zeros(n)), dtype=np.float64)
    matrix = np.eye(n + 1)
    matrix[:n, n] = origin
    for axis in range(n):
        matrix[:n, axis] = np.asarray(layer.data_to_world(np.eye(n)[axis])) - origin
    return matrix


def axis_units(layer: Any) -> tuple[float, ...] | None:
    """Return millimeters per world unit along each axis; None for pixels and non-lengths."""
    try:
        return tuple(float((1.0 * unit).to("mm").magnitude) for unit in layer.units)
    except (ValueError, TypeError, AttributeError):
        # pint's DimensionalityError is a TypeError.
        return None


def unit_scale(layer: Any) -> float:
    """Return millimeters per world unit of a layer; 1 for pixels and other non-lengths.

    Raises
    ------
    GeometryError
        When the last three axes have different units.
    """
    sizes = axis_units(layer)
    if sizes is None:
        return 1.0
    sizes = sizes[-3:]
    if np.ptp(sizes) > 1e-9 * max(sizes):
        raise GeometryError(
            f"The layer {layer.name!r} has different units along its axes: give it one unit."
        )
    return sizes[-1]


def place_metadata(layer: Any) -> dict[str, Any]:
    """Return the part of a layer's metadata that tells its place in the patient."""
    return {key: layer.metadata[key] for key in PLACE_KEYS if key in layer.metadata}


def napari_nifti_metadata(grid: Grid) -> dict[str, Any]:
    """Return the metadata by which napari-nifti's writer saves a layer of ours at its place.

    That writer transposes the array to (x, y, z) and takes ``affine`` as the matrix from those
    indices to RAS millimeters.
    """
    return {"affine": grid.affine[:, [2, 1, 0, 3]], "header": None, "coordinate_system": None}


def world_to_ras(layer: Any) -> Matrix | None:
    """Return the matrix (4, 4) from a layer's world millimeters to RAS millimeters, if known.

    Parameters
    ----------
    layer : napari.layers.Layer
        With three axes; others are not known.

    Returns
    -------
    (4, 4) ndarray or None
        None where no reader left a record that agrees with the layer.
    """
    if layer.ndim != 3:
        return None
    metadata = layer.metadata
    try:
        if GRID_KEY in metadata and TRANSFORM_KEY in metadata:
            drawn = np.asarray(metadata[TRANSFORM_KEY], dtype=np.float64)
            own: Matrix = Grid.from_dict(metadata[GRID_KEY]).affine @ np.linalg.inv(drawn)
            return own
        return _from_napari_nifti(layer)
    except (MedGSError, KeyError, TypeError, ValueError, np.linalg.LinAlgError):
        return None


def _from_napari_nifti(layer: Any) -> Matrix | None:
    """Return the matrix from world to RAS of a layer that napari-nifti read and nobody moved.

    Its arrays have axes (z, y, x) that grow to superior, anterior, right, and are drawn
    mirrored about their middle; its ``affine`` maps (x, y, z) to RAS.
    """
    metadata = layer.metadata
    if not all(key in metadata for key in ("affine", "coordinate_system", "spacing", "origin")):
        return None
    affine = np.asarray(metadata["affine"], dtype=np.float64)
    if affine.shape != (4, 4) or not is_usable(affine):
        return None
    affine = affine[:, [2, 1, 0, 3]]
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    matrix = layer_matrix(layer)
    # The size of the array follows from where its mirror image begins.
    last = (matrix[:3, 3] - affine[[2, 1, 0], 3]) / sizes
    if type(layer).__name__ in ("Image", "Labels"):
        last = np.asarray((layer.data[0] if layer.multiscale else layer.data).shape) - 1.0
    drawn = np.diag([*-sizes, 1.0])
    drawn[:3, 3] = affine[[2, 1, 0], 3] + np.rint(last) * sizes
    corners = np.array(np.meshgrid(*[(0.0, n) for n in np.rint(last)])).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    off = np.linalg.solve(drawn, matrix @ corners) - corners
    if unit_scale(layer) != 1.0 or np.abs(off).max() > 1e-3 or last.min() < -1e-3:
        return None
    world: Matrix = affine @ np.linalg.inv(drawn)
    return world


def place_source(layer: Any) -> dict[str, Any]:
    """Return the ``Grid.source`` of a layer whose grid is made from its transform.

    Returns
    -------
    dict
        ``assumed`` is True where the orientation is not known; ``sform_code`` is that of the
        layer's NIfTI file where another reader kept it.
    """
    if world_to_ras(layer) is None:
        return {"kind": "layer", "assumed": True}
    if GRID_KEY in layer.metadata:
        record = Grid.from_dict(layer.metadata[GRID_KEY]).source
        return {"kind": "layer", "assumed": True} if record.get("assumed") else {}
    try:
        header = layer.metadata["header"]
        code = int(header["sform_code"]) or int(header["qform_code"])
    except (KeyError, IndexError, TypeError, ValueError):
        return {"kind": "layer"}  # an NRRD file, say
    if not code:  # the file itself has no orientation
        return {"kind": "layer", "assumed": True}
    return {"kind": "layer", "sform_code": code}


def is_assumed(grid: Grid) -> bool:
    """Tell whether a grid's orientation was assumed because its layer has no record of it."""
    return grid.source.get("kind") == "layer" and bool(grid.source.get("assumed"))


def grid_warning(grid: Grid, name: str) -> str | None:
    """Return what to say beside a result on a grid, None where its orientation is known."""
    return None if is_orientation_known(grid) else orientation_warning(name)


def orientation_warning(name: str) -> str:
    """Return the sentence for a result of a layer whose orientation is not known."""
    return (
        f"The orientation of {name!r} is not known: its axes were taken as superior, posterior, "
        "left. The result may be mirrored or displaced in the patient. If the image's file states "
        "its orientation, open it with the Load widget."
    )
