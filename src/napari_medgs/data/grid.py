"""The canonical voxel grid and its place in the patient's world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.records import checked
from napari_medgs.errors import GeometryError

_MOST_VOXELS_OF_AN_AXIS = 2**31 - 1
_Row = tuple[float, float, float, float]
_Affine = tuple[_Row, _Row, _Row, _Row]
_Axis = Literal[0, 1, 2]


class HeaderRecord(TypedDict, total=False):
    """What of a NIfTI header must come back, in ``Grid.source``."""

    version: int
    dims: int
    sform_code: int
    qform_code: int
    xyzt_units: int
    pixdim: list[float]
    srow_x: list[float]
    srow_y: list[float]
    srow_z: list[float]


class SourceRecord(TypedDict, total=False):
    """Entries of ``Grid.source`` that are read; files may hold others."""

    kind: str
    order: tuple[_Axis, _Axis, _Axis]
    flip: tuple[bool, bool, bool]
    shape: tuple[int, int, int]
    affine: _Affine
    header: HeaderRecord | None
    names: list[str] | None
    dtype: str | None
    assumed: bool
    sform_code: int


class GridRecord(TypedDict):
    """A grid as JSON: see :meth:`Grid.to_dict`."""

    shape: tuple[int, int, int]
    affine: _Affine


def _one_millimeter() -> NDArray[np.float64]:
    """Canonical axes (superior, posterior, left) with 1 mm voxels at the origin."""
    return np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)


@dataclass(frozen=True)
class Grid:
    """A regular grid of voxels (z, y, x) in RAS millimeters.

    Attributes
    ----------
    shape : tuple of int
        Voxels along (z, y, x).
    affine : (4, 4) ndarray of float64
        Maps a voxel index (z, y, x, 1) to RAS millimeters.
    source : dict
        JSON-able record of how the file's own grid relates to this one (axis order, flips,
        header codes), empty when the data did not come from a file.

    Raises
    ------
    GeometryError
        For a shape or an affine that makes no grid.

    Examples
    --------
    >>> from napari_medgs import Grid
    >>> grid = Grid((10, 64, 64)).with_spacing((5.0, 1.0, 1.0))
    >>> grid.shape, grid.spacing
    ((2, 64, 64), (5.0, 1.0, 1.0))
    >>> grid.coarsest_axis()
    0
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64] = field(default_factory=_one_millimeter)
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"A grid needs three sizes of at least 1, not {self.shape}.")
        if max(shape) > _MOST_VOXELS_OF_AN_AXIS:
            raise GeometryError(
                f"A grid has at most {_MOST_VOXELS_OF_AN_AXIS:,} voxels along an axis, not "
                f"{max(shape):,}."
            )
        affine = np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError("The affine must be a finite 4 x 4 matrix.")
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            sizes = np.linalg.norm(affine[:3, :3], axis=0)
            turned = abs(np.linalg.det(affine[:3, :3] / sizes)) if sizes.all() else 0.0
        if not np.isfinite(sizes).all():
            raise GeometryError("The affine's voxel sizes are too large for a number.")
        if not turned >= 1e-6:  # NaN is not
            raise GeometryError(
                "The affine is singular: it squeezes the volume flat. Give a usable affine or "
                "set the spacing by hand."
            )
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimeters between voxel centers along (z, y, x)."""
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(sizes[0]), float(sizes[1]), float(sizes[2]))

    @property
    def relative_spacing(self) -> NDArray[np.float64]:
        """Voxel sizes (3,) along (z, y, x) over the finest one; no unit.

        A length in finest voxels, divided by it, counts in voxels of each axis.

        Examples
        --------
        >>> Grid((2, 64, 64)).with_spacing((2.0, 0.5, 1.0)).relative_spacing.tolist()
        [4.0, 1.0, 2.0]
        """
        spacing = np.asarray(self.spacing)
        relative: NDArray[np.float64] = spacing / spacing.min()
        return relative

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in cubic millimeters."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def to_world(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Map voxel coordinates to world coordinates.

        Parameters
        ----------
        points : (..., 3) array_like
            (z, y, x) in voxels.

        Returns
        -------
        (..., 3) ndarray of float64
            (right, anterior, superior) in millimeters.
        """
        points = np.asarray(points, dtype=np.float64)
        world: NDArray[np.float64] = points @ self.affine[:3, :3].T + self.affine[:3, 3]
        return world

    def to_voxel(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Map world coordinates to voxel coordinates.

        Parameters
        ----------
        points : (..., 3) array_like
            (right, anterior, superior) in millimeters.

        Returns
        -------
        (..., 3) ndarray of float64
            (z, y, x) in voxels.
        """
        inverse = np.linalg.inv(self.affine)
        points = np.asarray(points, dtype=np.float64)
        voxels: NDArray[np.float64] = points @ inverse[:3, :3].T + inverse[:3, 3]
        return voxels

    def with_spacing(self, spacing: tuple[float, float, float]) -> Grid:
        """Return a grid over the same physical box with another spacing.

        Parameters
        ----------
        spacing : (float, float, float)
            Millimeters along (z, y, x).

        Returns
        -------
        Grid
            Of the nearest whole number of voxels.

        Raises
        ------
        GeometryError
            When the spacing is not three positive numbers, or too small for a grid.
        """
        old = np.asarray(self.spacing)
        new = np.asarray(spacing, dtype=np.float64)
        if new.shape != (3,) or not (np.isfinite(new).all() and (new > 0).all()):
            raise GeometryError(f"The spacing must be three positive numbers, not {spacing}.")
        extent = np.asarray(self.shape) * old
        with np.errstate(over="ignore"):
            shape = np.maximum(1, np.round(extent / new))
        if shape.max() > _MOST_VOXELS_OF_AN_AXIS:
            raise GeometryError(
                f"A spacing of {' x '.join(f'{s:g}' for s in new)} mm makes more than "
                f"{_MOST_VOXELS_OF_AN_AXIS:,} voxels along an axis; choose a larger one."
            )
        ratio = new / old
        # The boxes share their lower corner, half a voxel before the first center.
        start = 0.5 * ratio - 0.5
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, :3] * ratio
        affine[:3, 3] = self.affine[:3, :3] @ start + self.affine[:3, 3]
        return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)

    def matches(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Tell whether two grids have equal shapes and corners within ``tolerance`` voxels."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1).T
        offset = self.to_voxel(other.to_world(corners)) - corners
        return bool(np.abs(offset).max() <= tolerance)

    def coarsest_axis(self) -> int:
        """Return the axis of coarsest spacing; ties go to axis 0 (superior-inferior)."""
        spacing = np.asarray(self.spacing)
        return int(np.flatnonzero(spacing >= spacing.max() * (1 - 1e-3))[0])

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description (floats survive the round trip exactly)."""
        return {
            "shape": list(self.shape),
            "affine": self.affine.tolist(),
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Grid:
        """Make a grid from :meth:`to_dict`.

        Raises
        ------
        ParameterError
            When an entry is missing or of another type, such as a shape of two numbers.
        GeometryError
            For a shape or an affine that makes no grid.
        """
        checked(GridRecord, record, "grid")
        source = record.get("source", {})
        checked(SourceRecord, source, "grid.source")
        shape = checked(tuple[int, int, int], record["shape"], "grid.shape")
        return cls(shape, np.asarray(record["affine"], dtype=np.float64), dict(source))
