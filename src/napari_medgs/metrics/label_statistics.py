"""What a radiologist asks of a mask: volume, intensities, diameters and pieces of each label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import StopCallback, never_stop
from napari_medgs.errors import Cancelled, GeometryError
from napari_medgs.metrics.volumes import label_boxes

if TYPE_CHECKING:
    from napari_medgs.data.grid import Grid

AXIAL = 0  # the axis of the canonical grid that runs nearest to superior
CHUNK = 512


@dataclass(frozen=True)
class LabelStatistics:
    """Numbers of one label.

    Attributes
    ----------
    voxels : int
    volume_ml : float
    components : int
        Pieces whose voxels touch with their faces.
    longest_mm : float
        Largest distance of two points of the surface (maximum 3D diameter).
    axial_longest_mm : float
        Largest distance within one axial slice of the grid.
    axial_short_mm : float
        Width across it, perpendicular to that distance, in the same slice.
    surface_mm2 : float or None
        None where no surface was given.
    mean, sd, minimum, maximum : float or None
        Intensities, in the image's units; NaN is left out. ``sd`` is the sample's (divided by
        n - 1). None without an image, or without finite values.
    """

    voxels: int
    volume_ml: float
    components: int
    longest_mm: float
    axial_longest_mm: float
    axial_short_mm: float
    surface_mm2: float | None = None
    mean: float | None = None
    sd: float | None = None
    minimum: float | None = None
    maximum: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers by name, JSON-able."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def label_statistics(
    labels: NDArray[Any],
    grid: Grid,
    image: NDArray[Any] | None = None,
    *,
    values: Sequence[int] | None = None,
    areas_mm2: Mapping[int, float] | None = None,
    should_stop: StopCallback = never_stop,
) -> dict[int, LabelStatistics]:
    """Return the statistics of every positive label, or of the given ones.

    Parameters
    ----------
    labels : (Z, Y, X) integer ndarray
    grid : Grid
        Of any affine.
    image : (Z, Y, X) ndarray, optional
        Intensities on the same grid.
    values : sequence of int, optional
        Which labels; those that do not occur have no entry.
    areas_mm2 : mapping of int to float, optional
        Of :func:`~napari_medgs.metrics.surface_areas_mm2`.
    should_stop : callable, optional
        Asked between steps whether to stop.

    Returns
    -------
    dict of int to LabelStatistics

    Raises
    ------
    GeometryError
        When shapes and grid differ.
    LabelError
        When the labels are not integers.
    Cancelled
        When stopped.

    Notes
    -----
    Diameters are taken between the middles of the outer faces of voxels, which is where marching
    cubes puts the surface of a mask. They are exact for oblique grids.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> ball = (np.indices((21, 21, 21)) - 10.0) ** 2
    >>> found = label_statistics((ball.sum(axis=0) <= 64).astype(int), Grid((21, 21, 21)))[1]
    >>> found.components, round(found.longest_mm), round(found.axial_longest_mm)
    (1, 17, 17)
    """
    from scipy.ndimage import label as find_components

    labels = np.asarray(labels)
    for array, what in ((labels, "labels have"), (image, "image has")):
        if array is not None and np.shape(array) != grid.shape:
            raise GeometryError(
                f"The {what} shape {np.shape(array)} and the grid {grid.shape}: they must agree."
            )
    found = {}
    for value, box in label_boxes(labels, values).items():
        if should_stop():
            raise Cancelled
        inside = labels[box] == value
        count = int(np.count_nonzero(inside))
        start = np.array([part.start for part in box], float)
        axial, short = axial_diameters(inside, grid.affine)
        found[value] = LabelStatistics(
            voxels=count,
            volume_ml=count * grid.voxel_volume / 1000,
            components=int(find_components(inside)[1]),
            # A flat image has no diameter along the thickness of its slice.
            longest_mm=axial
            if grid.shape[0] == 1
            else _longest(grid.to_world(_outer(inside) + start))[0],
            axial_longest_mm=axial,
            axial_short_mm=short,
            surface_mm2=None if areas_mm2 is None else areas_mm2.get(value),
            **({} if image is None else _intensities(np.asarray(image)[box][inside])),
        )
    return found


def axial_diameters(inside: NDArray[np.bool_], affine: NDArray[np.float64]) -> tuple[float, float]:
    """Return the longest diameter within a slice across axis 0, and the width across it.

    Parameters
    ----------
    inside : (Z, Y, X) ndarray of bool
        With at least one voxel.
    affine : (4, 4) ndarray
        Maps (z, y, x, 1) to mm; only its directions count.

    Returns
    -------
    longest, across : float
        In mm, of the slice with the longest one.
    """
    # Coordinates in the plane of the slices: no rotation out of it changes a distance.
    y, x = affine[:3, 1], affine[:3, 2]
    first = y / np.linalg.norm(y)
    second = x - (x @ first) * first
    second /= np.linalg.norm(second)
    to_plane = np.array([[y @ first, x @ first], [y @ second, x @ second]])
    longest, across = 0.0, 0.0
    for plane in inside[inside.any(axis=(1, 2))]:
        points = _outer(plane[None], flat=True)[:, 1:] @ to_plane.T
        if np.linalg.norm(np.ptp(points, axis=0)) <= longest:
            continue
        length, ends = _longest(points)
        if length > longest:
            along = (points[ends[1]] - points[ends[0]]) / length
            longest, across = length, float(np.ptp(points @ (-along[1], along[0])))
    return longest, across


def _outer(inside: NDArray[np.bool_], *, flat: bool = False) -> NDArray[np.float64]:
    """Return the middles of outer faces that a convex hull can touch, in voxels (P, 3).

    Of the faces across an axis, only the first and the last one of each line can.
    """
    points = []
    for axis in range(1 if flat else 0, 3):
        lines = np.moveaxis(inside, axis, -1)
        rows = np.argwhere(lines.any(axis=-1))
        hit = lines[tuple(rows.T)]
        first = hit.argmax(axis=1) - 0.5
        last = hit.shape[1] - 0.5 - hit[:, ::-1].argmax(axis=1)
        for edge in (first, last):
            points.append(np.insert(rows.astype(float), axis, edge, axis=1))
    return np.concatenate(points)


def _longest(points: NDArray[np.float64]) -> tuple[float, tuple[int, int]]:
    """Return the largest distance of two points, and which they are."""
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import cdist

    corners = ConvexHull(points).vertices
    best, ends = 0.0, (0, 0)
    for start in range(0, len(corners), CHUNK):
        part = corners[start : start + CHUNK]
        distances = cdist(points[part], points[corners])
        i, j = np.unravel_index(int(distances.argmax()), distances.shape)
        if distances[i, j] > best:
            best, ends = float(distances[i, j]), (int(part[i]), int(corners[j]))
    return best, ends


def _intensities(values: NDArray[Any]) -> dict[str, float | None]:
    values = values.astype(np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return {}
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        "minimum": float(values.min()),
        "maximum": float(values.max()),
    }
