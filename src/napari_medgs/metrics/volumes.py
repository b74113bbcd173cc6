"""Sizes and positions of labels and surfaces, in millimeters and milliliters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import GeometryError, LabelError

if TYPE_CHECKING:
    from trimesh import Trimesh

    from napari_medgs.data.grid import Grid

Box = tuple[slice, slice, slice]

_SMALL = 1 << 16


@dataclass(frozen=True)
class LabelMeasure:
    """Size and position of one label.

    Attributes
    ----------
    voxels : int
    volume_ml : float
        Voxels times the volume of one (from the affine's determinant).
    centroid : tuple of float
        Mean of the voxel centers, RAS mm.
    box_voxels : tuple of (int, int)
        First and one past the last voxel along (z, y, x).
    box_mm : tuple of tuple of float
        Smallest and largest R, A and S of the label's voxels, their extent included.
    """

    voxels: int
    volume_ml: float
    centroid: tuple[float, float, float]
    box_voxels: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    box_mm: tuple[tuple[float, float, float], tuple[float, float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON-able values."""
        return {
            "voxels": self.voxels,
            "volume_ml": self.volume_ml,
            "centroid": list(self.centroid),
            "box_voxels": [list(pair) for pair in self.box_voxels],
            "box_mm": [list(corner) for corner in self.box_mm],
        }


def label_values(labels: NDArray[Any], what: str = "mask") -> NDArray[np.int64]:
    """Return the values that occur in a label image, increasing.

    Parameters
    ----------
    labels : (...) integer or boolean ndarray
        Any shape.
    what : str
        Name of the image in the error message.

    Returns
    -------
    (V,) ndarray of int64

    Raises
    ------
    LabelError
        When the image is empty or not made of integers (or booleans).

    Examples
    --------
    >>> import numpy as np
    >>> label_values(np.array([3, 0, 3, -1])).tolist()
    [-1, 0, 3]
    """
    return np.asarray(list(voxel_counts(labels, what)), np.int64)


def voxel_counts(labels: NDArray[Any], what: str = "mask") -> dict[int, int]:
    """Return how many voxels have each value, background and negative values included.

    Parameters
    ----------
    labels : integer or boolean ndarray
        Any shape.
    what : str
        Name of the image in the error message.

    Returns
    -------
    dict of int to int
        Number of voxels by value.

    Raises
    ------
    LabelError
        When the image is empty, not made of integers, or has one above 2^63 - 1.

    Examples
    --------
    >>> import numpy as np
    >>> voxel_counts(np.array([3, 0, 3]))
    {0: 1, 3: 2}
    """
    labels = np.asarray(labels)
    if labels.size == 0:
        raise LabelError(f"The {what} is empty.")
    if labels.dtype == bool:
        labels = labels.view(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise LabelError(f"The {what} has values of type {labels.dtype}: labels are integers.")
    low, high = int(labels.min()), int(labels.max())
    if high > np.iinfo(np.int64).max:
        raise LabelError(f"The {what} holds the label {high}, too large for 64 bits.")
    if high - low >= _SMALL:
        values, numbers = np.unique(labels, return_counts=True)
        return {int(v): int(n) for v, n in zip(values, numbers, strict=True)}
    counts = np.zeros(high - low + 1, np.int64)
    # Plane by plane, as bincount needs 8 bytes per voxel; in the order of memory, for speed.
    labels = labels.transpose(np.argsort(labels.strides)[::-1])
    for plane in labels if labels.ndim > 1 else labels[None]:
        counts += np.bincount(plane.ravel().astype(np.int64) - low, minlength=len(counts))
    return {int(v) + low: int(counts[v]) for v in np.flatnonzero(counts)}


def label_boxes(labels: NDArray[Any], values: Sequence[int] | None = None) -> dict[int, Box]:
    """Return the bounding box of every positive label, as slices along (z, y, x).

    Parameters
    ----------
    labels : (Z, Y, X) integer ndarray
    values : sequence of int, optional
        Which labels; all positive ones by default. Absent ones have no entry.

    Returns
    -------
    dict of int to tuple of slice

    Raises
    ------
    LabelError
        When the labels are not integers.

    Examples
    --------
    >>> import numpy as np
    >>> label_boxes(np.array([[[0, 2, 2]]]))
    {2: (slice(0, 1, None), slice(0, 1, None), slice(1, 3, None))}
    """
    from scipy.ndimage import find_objects

    labels = np.asarray(labels)
    present = [int(v) for v in label_values(labels) if v > 0]
    if not present:
        return {}
    if present[-1] < _SMALL:
        index = labels.astype(np.int32)
        places = [v - 1 for v in present]
    else:
        index = np.searchsorted(present, labels).astype(np.int32) + 1
        index[labels <= 0] = 0
        places = list(range(len(present)))
    found: list[Any] = list(find_objects(index))
    boxes: dict[int, Box] = {v: found[k] for v, k in zip(present, places, strict=True)}
    return boxes if values is None else {v: boxes[v] for v in values if v in boxes}


def volumes_ml(labels: NDArray[Any], grid: Grid) -> dict[int, float]:
    """Return the volume of every positive label in milliliters.

    Parameters
    ----------
    labels : (Z, Y, X) integer ndarray
    grid : Grid
        One voxel has the volume ``|det affine|``, exact for oblique and sheared grids.

    Returns
    -------
    dict of int to float
        Milliliters by label.

    Raises
    ------
    GeometryError
        When shape and grid differ.
    LabelError
        When the labels are not integers.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> volumes_ml(np.ones((10, 10, 10), int), Grid((10, 10, 10)))
    {1: 1.0}
    """
    _check_grid(labels, grid)
    milliliters = grid.voxel_volume / 1000
    return {v: n * milliliters for v, n in voxel_counts(labels).items() if v > 0}


def measure_labels(
    labels: NDArray[Any], grid: Grid, values: Sequence[int] | None = None
) -> dict[int, LabelMeasure]:
    """Return size, centroid and box of every positive label, or of the given ones.

    Parameters
    ----------
    labels : (Z, Y, X) integer ndarray
    grid : Grid
    values : sequence of int, optional
        Which labels; those that do not occur have no entry.

    Returns
    -------
    dict of int to LabelMeasure

    Raises
    ------
    GeometryError, LabelError
        As :func:`volumes_ml`.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> measure_labels(np.ones((2, 2, 2), int), Grid((2, 2, 2)))[1].voxels
    8
    """
    _check_grid(labels, grid)
    measures = {}
    for value, box in label_boxes(labels, values).items():
        inside = np.asarray(labels)[box] == value
        count = int(np.count_nonzero(inside))
        start = np.array([s.start for s in box])
        # Marginal sums: no list of all voxels is made.
        center = [
            float(np.arange(n) @ inside.sum(axis=tuple(b for b in range(3) if b != a))) / count
            for a, n in enumerate(inside.shape)
        ]
        centroid = grid.to_world(start + center)
        edges = np.array([[s.start - 0.5, s.stop - 0.5] for s in box])
        corners = grid.to_world(np.stack(np.meshgrid(*edges, indexing="ij"), -1).reshape(-1, 3))
        measures[value] = LabelMeasure(
            voxels=count,
            volume_ml=count * grid.voxel_volume / 1000,
            centroid=_triple(centroid),
            box_voxels=tuple((s.start, s.stop) for s in box),  # type: ignore[arg-type]
            box_mm=(_triple(corners.min(axis=0)), _triple(corners.max(axis=0))),
        )
    return measures


def surface_areas_mm2(meshes: Mapping[int, Trimesh]) -> dict[int, float]:
    """Return the area of every mesh in square millimeters.

    Parameters
    ----------
    meshes : mapping of int to Trimesh
        By label.

    Returns
    -------
    dict of int to float

    Examples
    --------
    >>> import trimesh
    >>> surface_areas_mm2({1: trimesh.creation.box((1, 2, 3))})
    {1: 22.0}
    """
    return {label: float(mesh.area) for label, mesh in meshes.items()}


def _triple(values: NDArray[Any]) -> tuple[float, float, float]:
    return (float(values[0]), float(values[1]), float(values[2]))


def _check_grid(labels: NDArray[Any], grid: Grid) -> None:
    if np.shape(labels) != grid.shape:
        raise GeometryError(
            f"The labels have shape {np.shape(labels)} and their grid {grid.shape}: they must "
            "agree."
        )


def check_same_shape(
    truth: NDArray[Any], prediction: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two arrays of equal shape.

    Raises
    ------
    GeometryError
        When the shapes differ or the arrays are empty.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape or truth.size == 0:
        raise GeometryError(
            f"Arrays to compare must have equal shapes and not be empty, not {truth.shape} and "
            f"{prediction.shape}."
        )
    return truth, prediction
