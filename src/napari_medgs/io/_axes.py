"""Arrays in the axis order in which a file stores them: the source's, or LPS."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import source_axes, to_source
from napari_medgs.errors import GeometryError

PLACED_SOURCES = ("nifti", "dicom", "itk", "freesurfer")
"""Kinds of source files whose own axis order is kept when a result is written."""


def file_axes(data: NDArray[Any], grid: Grid) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return canonical data in a file's axis order (i, j, k), with the affine of that order.

    Parameters
    ----------
    data : (C, Z, Y, X) ndarray
    grid : Grid
        Where they lie. If it was read from a file with its own geometry, that file's axes are
        used, else i, j, k run to left, posterior and superior.

    Returns
    -------
    array : (C, I, J, K) ndarray
        A view.
    affine : (4, 4) ndarray
        Maps (i, j, k, 1) to RAS millimeters.

    Raises
    ------
    GeometryError
        When data and grid differ in shape.
    """
    if data.shape[1:] != grid.shape:
        raise GeometryError(f"The data have shape {data.shape[1:]}, their grid {grid.shape}.")
    if source_axes(grid) is not None and grid.source.get("kind") in PLACED_SOURCES:
        return to_source(data, grid), np.asarray(grid.source["affine"], dtype=np.float64)
    return data.transpose(0, 3, 2, 1), grid.affine[:, [2, 1, 0, 3]]
