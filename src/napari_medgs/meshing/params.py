"""Settings of surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_medgs.data.grid import Grid
from napari_medgs.errors import ParameterError


@dataclass(frozen=True)
class MeshParams:
    """How surfaces are made.

    Attributes
    ----------
    labels : tuple of int, optional
        Which labels; by default all but background (0) and unlabeled (-1).
    spacing : float or (float, float, float), optional
        Spacing (z, y, x) in mm of the grid for marching cubes; by default that of the mask or
        field. A finer one follows a field more closely, a coarser one makes fewer faces.
    smooth_mm : float, optional
        Standard deviation in mm of the Gaussian that smooths the signed distance. Details
        smaller than about twice this vanish; volumes of labels and classes are kept. By default
        masks are smoothed by 0.7 of their median spacing, fields and intensities not at all; 0
        turns it off.
    decimate : float, optional
        Fraction of the faces to keep if at most 1, else the number of faces per mesh.
    largest_only : bool
        Keep only the largest connected part of each label, with the cavities in it.
    level : float, optional
        Level of the isosurface. For a class: its probability against the most probable other
        class, 0.5 by default. For an image: the intensity in original units, required.
    head : {"seg", "image"}, optional
        Which head of a field becomes a surface; by default its classes if it has them.
    channel : int
        Which image channel, for ``head="image"``.

    Raises
    ------
    ParameterError
        When a value is out of range.

    Examples
    --------
    >>> MeshParams(spacing=2.0).spacing
    (2.0, 2.0, 2.0)
    """

    labels: tuple[int, ...] | None = None
    spacing: float | tuple[float, float, float] | None = None
    smooth_mm: float | None = None
    decimate: float | None = None
    largest_only: bool = False
    level: float | None = None
    head: Literal["seg", "image"] | None = None
    channel: int = 0

    def __post_init__(self) -> None:
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(int(v) for v in self.labels))
        if self.spacing is not None:
            sizes = np.broadcast_to(np.asarray(self.spacing, np.float64), 3)
            if not (np.isfinite(sizes).all() and (sizes > 0).all()):
                raise ParameterError(f"spacing must be positive mm, not {self.spacing}.")
            object.__setattr__(self, "spacing", tuple(float(s) for s in sizes))
        if self.smooth_mm is not None and not 0 <= self.smooth_mm < np.inf:
            raise ParameterError(f"smooth_mm must be 0 or more, not {self.smooth_mm}.")
        if self.decimate is not None and not 0 < self.decimate < np.inf:
            raise ParameterError(
                "decimate must be above 0: a fraction of the faces up to 1, or their number, not "
                f"{self.decimate}."
            )
        if self.level is not None and not np.isfinite(self.level):
            raise ParameterError(f"level must be a finite number, not {self.level}.")
        if self.head not in (None, "seg", "image"):
            raise ParameterError(f"head must be seg or image, not {self.head!r}.")
        if self.channel < 0:
            raise ParameterError(f"channel must be 0 or more, not {self.channel}.")

    def check_extent(self, grid: Grid) -> None:
        """Refuse a spacing or smoothing that is wider than all of the image.

        Parameters
        ----------
        grid : Grid
            Of the mask, image or field.

        Raises
        ------
        ParameterError
        """
        largest = float(np.max(np.asarray(grid.shape) * grid.spacing))
        for name, width in (("spacing", self.spacing), ("smooth_mm", self.smooth_mm)):
            if width is not None and np.max(width) > largest:
                raise ParameterError(
                    f"{name} is {np.max(width):g} mm, and the image {largest:.4g} mm long: choose "
                    "less."
                )

    def grid_over(self, grid: Grid) -> Grid:
        """Return the grid for marching cubes over the extent of another."""
        return grid if self.spacing is None else grid.with_spacing(self.spacing)  # type: ignore[arg-type]
