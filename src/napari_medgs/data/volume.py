"""An image on a grid: the data, where it lies, and how to write it back as it came."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_medgs._text import well_formed
from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import (
    canonical_axes,
    from_source,
    grid_of_axes,
    spacing_affine,
    to_canonical,
    to_source,
)
from napari_medgs.errors import GeometryError, ImageError

CLOSE = 0.05
"""Voxels by which two grids may differ and still be taken as one, with a warning: rounding of
headers and of conversions between formats, far less than what an outline is known to."""

__all__ = [
    "Volume",
    "check_same_grid",
    "from_source",
    "spacing_affine",
    "stack_contrasts",
    "to_source",
]


@dataclass(frozen=True)
class Volume:
    """An image of one or several channels on one grid.

    Attributes
    ----------
    data : (C, Z, Y, X) ndarray
        Intensities in the file's dtype, or float32 where the file rescales them.
    grid : Grid
        Shape, affine and the file's own orientation.
    channel_names : tuple of str
        One name a channel.
    units : str
        Unit of the intensities (``"HU"``), empty where unknown.
    missing : (C, Z, Y, X) ndarray of bool, optional
        Where a channel has no value and another one has: ``data`` holds the background there, and
        a segmentation goes by the others. :meth:`prepared` makes it of NaN.

    Raises
    ------
    ImageError
        When the data are not (C, Z, Y, X), or not numbers, or the names do not fit.
    GeometryError
        When data and grid differ in shape.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs import Volume
    >>> volume = Volume.from_array(np.zeros((20, 64, 64), np.int16), spacing=(3.0, 0.5, 0.5))
    >>> volume.data.shape, volume.spacing, volume.channel_names
    ((1, 20, 64, 64), (3.0, 0.5, 0.5), ('image',))
    """

    data: NDArray[Any]
    grid: Grid
    channel_names: tuple[str, ...] = ()
    units: str = ""
    missing: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        data = np.asarray(self.data)
        if data.dtype.kind == "b":
            data = data.view(np.uint8)
        if data.dtype.kind not in "biufc":
            kind = "colors or records" if data.dtype.names else f"values of type {data.dtype}"
            raise ImageError(f"The image holds {kind}; plain gray values are needed.")
        if data.ndim != 4:
            raise ImageError(
                f"The image has shape {data.shape}; four axes (channel, z, y, x) are needed."
            )
        if data.size == 0:
            raise ImageError(f"The image is empty: its shape is {data.shape}.")
        if self.missing is not None and self.missing.shape != data.shape:
            raise ImageError(
                f"The image has shape {data.shape} and what is missing {self.missing.shape}."
            )
        if data.shape[1:] != self.grid.shape:
            raise GeometryError(
                f"The image has shape {data.shape[1:]} and its grid {self.grid.shape}."
            )
        names = tuple(well_formed(str(n)) for n in self.channel_names)
        if not names:
            count = len(data)
            names = ("image",) if count == 1 else tuple(f"channel {c}" for c in range(count))
        if len(names) != len(data):
            raise ImageError(f"The image has {len(data)} channels and {len(names)} names.")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "channel_names", names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        return self.grid.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimeters between voxel centers along (z, y, x)."""
        return self.grid.spacing

    @property
    def affine(self) -> NDArray[np.float64]:
        """The 4 x 4 matrix from voxel (z, y, x, 1) to RAS millimeters."""
        return self.grid.affine

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.data.shape[0])

    def channel(self, index: int) -> NDArray[Any]:
        """Return one channel, (Z, Y, X)."""
        return self.data[index]

    def subset(self, channels: Sequence[int]) -> Volume:
        """Return some of the channels, in this order.

        Examples
        --------
        >>> import numpy as np
        >>> from napari_medgs import Volume
        >>> Volume.from_array(np.zeros((3, 4, 5, 6))).subset([2]).channel_names
        ('channel 2',)
        """
        chosen = list(channels)
        return Volume(
            self.data[chosen],
            self.grid,
            tuple(self.channel_names[c] for c in chosen),
            self.units,
            None if self.missing is None else self.missing[chosen],
        )

    @classmethod
    def from_array(
        cls,
        data: ArrayLike,
        spacing: Sequence[float] | None = None,
        affine: ArrayLike | None = None,
        *,
        channel_names: Sequence[str] = (),
        units: str = "",
        source: dict[str, Any] | None = None,
    ) -> Volume:
        """Make a volume of an array, whose axes stay as they are.

        Parameters
        ----------
        data : (Y, X), (Z, Y, X) or (C, Z, Y, X) array
            A 2D image becomes one slice.
        spacing : three floats, optional
            Millimeters along (z, y, x); 1 where neither spacing nor affine is given. The axes
            are then taken to point to superior, posterior and left.
        affine : (4, 4) array, optional
            Maps (z, y, x, 1) to RAS millimeters.
        channel_names, units
            See :class:`Volume`.
        source : dict, optional
            ``Grid.source`` of the file that the array came from.

        Raises
        ------
        ImageError
            When the array has another number of axes, or is empty, masked, or holds no numbers.
        GeometryError
            When both or an unusable spacing or affine are given.
        """
        if np.ma.isMaskedArray(data) and np.ma.getmaskarray(data).any():
            raise ImageError(
                "The image is a masked array, whose masked values would count; fill them first, "
                "as in array.filled(0)."
            )
        array = np.asarray(data)
        if array.ndim not in (2, 3, 4):
            raise ImageError(
                f"The image has {array.ndim} axes {array.shape}; 2 (y, x), 3 (z, y, x) or "
                "4 (channel, z, y, x) are needed."
            )
        if array.size == 0:
            raise ImageError(f"The image is empty: its shape is {array.shape}.")
        array = array.reshape((1,) * (4 - array.ndim) + array.shape)
        if spacing is not None and affine is not None:
            raise GeometryError("Give a spacing or an affine, not both.")
        if affine is None:
            matrix = spacing_affine((1, 1, 1) if spacing is None else spacing)
        else:
            matrix = np.asarray(affine)
        shape = array.shape[1:]
        grid = Grid((shape[0], shape[1], shape[2]), np.asarray(matrix, float), source or {})
        return cls(array, grid, tuple(channel_names), units)

    @classmethod
    def from_axes(
        cls,
        data: NDArray[Any],
        affine: NDArray[Any],
        *,
        channel_names: Sequence[str] = (),
        units: str = "",
        source: dict[str, Any] | None = None,
    ) -> Volume:
        """Make a canonical volume of an array in any axis order, by permuting and flipping.

        Parameters
        ----------
        data : (C, A, B, C') ndarray
            Channels first, then three spatial axes in any order and direction.
        affine : (4, 4) ndarray
            Maps an index (a, b, c', 1) to RAS millimeters; may be oblique or sheared.
        channel_names, units
            See :class:`Volume`.
        source : dict, optional
            More entries for ``Grid.source`` beside the axis order and flips.
        """
        grid = grid_of_axes(data.shape[1:], affine, source)
        order, flip = canonical_axes(affine)
        canonical = np.ascontiguousarray(to_canonical(data, order, flip))
        if not canonical.dtype.isnative:
            canonical = canonical.astype(canonical.dtype.newbyteorder("="))
        return cls(canonical, grid, tuple(channel_names), units)

    def fill_nan(self, value: float | None = None) -> Volume:
        """Return the image with finite values in place of NaN and infinite ones.

        A warning says how many voxels were filled and with what, and how many of them other
        values enclose. Where another channel has a value, what is filled with the background is
        ``missing``.

        Parameters
        ----------
        value : float, optional
            What stands for NaN. By default the background: 0, or the lowest finite value of the
            channel where that is negative. Infinite values become the lowest or highest finite
            value of their channel.

        Returns
        -------
        Volume
            This one where all values are finite.

        Raises
        ------
        ImageError
            When a channel has no finite value.
        ParameterError
            When the value does not fit the image's type.

        Examples
        --------
        >>> import warnings
        >>> import numpy as np
        >>> from napari_medgs import Volume
        >>> image = np.ones((2, 3, 4), np.float32)
        >>> image[:, 0] = np.nan
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     filled = Volume.from_array(image).fill_nan()
        >>> filled.data[0, 0, :, 0].tolist()
        [0.0, 1.0, 1.0]
        """
        from napari_medgs.data.intensities import fill_nan

        return fill_nan(self, value)

    def prepared(self) -> Volume:
        """Return the image as fits and segmentations take it: finite values, and checked.

        Returns
        -------
        Volume
            See :meth:`fill_nan` for what becomes of NaN, and its warning.

        Raises
        ------
        ImageError
            When the image cannot be used; see :meth:`check_image`.
        """
        if self.data.dtype.kind == "c":
            self.check_image()
        volume = self.fill_nan()
        volume.check_image()
        return volume

    def check_image(self) -> None:
        """Refuse data that cannot be fitted.

        Raises
        ------
        ImageError
            When the image is complex, one-dimensional, not finite or constant.
        """
        if self.data.dtype.kind == "c":
            raise ImageError("The image is complex; take its magnitude first.")
        if sum(n > 1 for n in self.shape) < 2:
            raise ImageError(
                f"The image has shape {self.shape}: a single row of voxels. At least two axes "
                "need more than one."
            )
        for name, channel in zip(self.channel_names, self.data, strict=True):
            where = "The image" if self.channels == 1 else f"The image's channel '{name}'"
            low, high = channel.min(), channel.max()
            if not (np.isfinite(low) and np.isfinite(high)):
                bad = int(channel.size - np.isfinite(channel).sum())
                raise ImageError(
                    f"{where} holds {bad:,} values that are not finite (NaN or infinite); "
                    "replace them first."
                )
            if low == high:
                raise ImageError(f"{where} is constant ({low:g}): there is nothing to fit.")


def stack_contrasts(volumes: Sequence[Volume]) -> Volume:
    """Join several contrasts of one grid into one volume with all their channels.

    Raises
    ------
    GeometryError
        When the grids differ.
    """
    if not len(volumes):
        raise ImageError("No image was given.")
    first = volumes[0]
    if len(volumes) == 1:
        return first
    for other in volumes[1:]:
        check_same_grid(first.grid, other.grid, first.channel_names[0], other.channel_names[0])
    dtypes = {v.data.dtype for v in volumes}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
    data = np.concatenate([v.data.astype(dtype, copy=False) for v in volumes])
    names: list[str] = []
    for name in (n for v in volumes for n in v.channel_names):
        count = sum(n == name or n.startswith(f"{name} (") for n in names)
        names.append(f"{name} ({count + 1})" if count else name)
    units = {v.units for v in volumes}
    return Volume(data, first.grid, tuple(names), units.pop() if len(units) == 1 else "")


def check_same_grid(grid: Grid, other: Grid, name: str, other_name: str) -> None:
    """Refuse two grids that differ, saying how.

    Raises
    ------
    GeometryError
        When shapes differ, or corners by more than a twentieth of a voxel.

    Warns
    -----
    UserWarning
        When corners differ by more than a thousandth of a voxel. The second grid's data are then
        taken to lie on the first.
    """
    if grid.shape != other.shape:
        raise GeometryError(
            f"'{name}' has shape {grid.shape} and '{other_name}' {other.shape} (z, y, x): they "
            "must share one grid. Resample one onto the other first."
        )
    if not grid.matches(other):
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape])).reshape(3, -1).T
        apart = np.linalg.norm(grid.to_world(corners) - other.to_world(corners), axis=1).max()
        if grid.matches(other, CLOSE):
            warnings.warn(
                f"'{other_name}' lies up to {apart:.3g} mm (less than {CLOSE:g} voxels) from "
                f"'{name}' and is taken to lie on its voxels.",
                stacklevel=3,
            )
            return
        raise GeometryError(
            f"'{name}' and '{other_name}' have the same shape but lie up to {apart:.3g} mm apart: "
            "they must share one grid. Resample one onto the other first."
        )
