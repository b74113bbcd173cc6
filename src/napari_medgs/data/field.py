"""The field of folded Gaussians: what a fit makes and everything else reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.records import checked_record
from napari_medgs._util.settings import check, setting
from napari_medgs.data.grid import Grid
from napari_medgs.errors import GeometryError, ParameterError

Blend = Literal["normalized", "sum", "alpha"]
Head = Literal["image", "seg"]

MAX_FOLD = 3

LIMITS = {
    "centers": 1e6,
    "log_precision": 40.0,
    "shear": 1e6,
    "fold": 1e6,
    "log_weight": 80.0,
    "values": 1e15,
    "background": 1e15,
}
"""Largest magnitude in each tensor: renderers in float32 overflow beyond; fits stay far below."""
_LARGEST_INTENSITY = 1e38  # rendered images are float32


@dataclass(frozen=True)
class FieldInfo:
    """All about a field that is not one number per Gaussian.

    Attributes
    ----------
    grid : Grid
        The canonical grid (z, y, x) that the field was fitted on.
    slice_axis : int
        Axis of ``grid`` along which the Gaussians fold. Parameters live in voxels of the
        slice-first grid: that axis first, the other two in order behind it.
    blend : {"normalized", "sum", "alpha"}
        How overlapping Gaussians combine.
    degree : int
        Highest power of the fold polynomial in use, 0 to 3.
    image_channels : tuple of str
        Names of the image head's channels (contrasts).
    intensity_scale, intensity_offset : tuple of float
        Original units = rendered value x scale + offset, one pair an image channel.
    class_names : tuple of str
        Names of the seg head's classes; class 0 is background. Empty without a seg head.
    label_values : tuple of int
        The value that each class has in label images; background first.
    cutoff : float
        Compact support: a Gaussian is zero where q > cutoff.
    eps : float
        Weight of the background in the normalized blend.
    params, metrics : dict
        JSON-able record of the fit that made the field.
    """

    grid: Grid
    slice_axis: int = setting(0, low=0, high=2)
    blend: Blend = setting("normalized")
    degree: int = setting(1, low=0, high=MAX_FOLD)
    image_channels: tuple[str, ...] = ("image",)
    intensity_scale: tuple[float, ...] = (1.0,)
    intensity_offset: tuple[float, ...] = (0.0,)
    class_names: tuple[str, ...] = ()
    label_values: tuple[int, ...] = ()
    cutoff: float = setting(9.0, above=0, high=1e4)
    eps: float = setting(1e-3, low=0, high=1e6)
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, record: Any) -> FieldInfo:
        """Make the description of a field from JSON; unknown keys are ignored.

        Parameters
        ----------
        record : dict
            Of :func:`dataclasses.asdict`, with ``grid`` as :meth:`Grid.to_dict` returns it.

        Raises
        ------
        ParameterError, GeometryError
            When an entry is missing, of another type or out of its range.
        """
        return checked_record(cls, record)

    @property
    def channels(self) -> int:
        """Image channels plus classes."""
        return len(self.image_channels) + len(self.class_names)

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """Shape of the slice-first grid: (slices, rows, columns)."""
        shape = self.grid.shape
        rest = [shape[a] for a in range(3) if a != self.slice_axis]
        return (shape[self.slice_axis], rest[0], rest[1])

    @property
    def stack_axes(self) -> tuple[int, int, int]:
        """Axes of the canonical grid in slice-first order."""
        rest = [a for a in range(3) if a != self.slice_axis]
        return (self.slice_axis, rest[0], rest[1])


@dataclass
class GaussianField:
    r"""N folded Gaussians with channels on a canonical grid.

    With d = z - t, in voxels of the slice-first grid (z slice, Y row, X column)::

        mx(z) = x + a1 d + a2 d^2 + a3 d^3        my(z) = y + b1 d + b2 d^2 + b3 d^3
        q     = (r1 ((X - mx) - s (Y - my)))^2 + (r2 (Y - my))^2 + (rt d)^2
        g     = exp(-q / 2), zero where q > cutoff

    Attributes
    ----------
    centers : (N, 3) ndarray of float32
        x, y, t in voxels.
    log_precision : (N, 3) ndarray of float32
        log r1, log r2, log rt.
    shear : (N,) ndarray of float32
        s.
    fold : (N, 3, 2) ndarray of float32
        a_k, b_k for k = 1, 2, 3; zero above the field's degree.
    log_weight : (N,) ndarray of float32
        log w.
    values : (N, C) ndarray of float32
        Image channels, scaled to about [0, 1], then class logits.
    background : (C,) ndarray of float32
        Values where no Gaussian reaches.
    info : FieldInfo
        Grid, names and settings.

    Raises
    ------
    ParameterError
        When the arrays do not describe a field.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs import GaussianField, Grid
    >>> from napari_medgs.data.field import FieldInfo
    >>> field = GaussianField(
    ...     centers=np.array([[4.0, 5.0, 1.0]]),  # column, row, slice
    ...     log_precision=np.log([[0.5, 0.5, 1.0]]),
    ...     shear=np.zeros(1),
    ...     fold=np.zeros((1, 3, 2)),
    ...     log_weight=np.zeros(1),
    ...     values=np.ones((1, 1)),
    ...     background=np.zeros(1),
    ...     info=FieldInfo(Grid((3, 8, 8))),
    ... )
    >>> len(field), field.voxel_centers().tolist()
    (1, [[1.0, 5.0, 4.0]])
    """

    centers: Floats
    log_precision: Floats
    shear: Floats
    fold: Floats
    log_weight: Floats
    values: Floats
    background: Floats
    info: FieldInfo

    def __post_init__(self) -> None:
        for name in self.tensor_names():
            setattr(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.float32))
        self.validate()

    @staticmethod
    def tensor_names() -> tuple[str, ...]:
        """Names of the arrays, in the order of the file format."""
        return ("centers", "log_precision", "shear", "fold", "log_weight", "values", "background")

    def validate(self) -> None:
        """Check shapes, finiteness and settings.

        Raises
        ------
        ParameterError
            When the arrays do not describe a field.
        """
        n, c = len(self.centers), self.info.channels
        expected = {
            "centers": (n, 3),
            "log_precision": (n, 3),
            "shear": (n,),
            "fold": (n, MAX_FOLD, 2),
            "log_weight": (n,),
            "values": (n, c),
            "background": (c,),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise ParameterError(
                    f"The field's {name} have shape {array.shape}, expected {shape}."
                )
            if not np.isfinite(array).all():
                raise ParameterError(f"The field's {name} hold values that are not finite.")
            if array.size and max(-array.min(), array.max()) > LIMITS[name]:
                raise ParameterError(
                    f"The field's {name} hold values beyond {LIMITS[name]:g}, which cannot be "
                    "rendered."
                )
        check(self.info)
        names = len(self.info.image_channels)
        if not len(self.info.intensity_scale) == len(self.info.intensity_offset) == names:
            raise ParameterError("Every image channel needs one intensity scale and offset.")
        scaling = (*self.info.intensity_scale, *self.info.intensity_offset)
        if not all(abs(number) <= _LARGEST_INTENSITY for number in scaling):
            raise ParameterError(
                f"The field's intensity scales and offsets must be at most {_LARGEST_INTENSITY:g}."
            )
        if len(self.info.class_names) != len(self.info.label_values):
            raise ParameterError("Every class needs one label value.")

    def check_grid(self, grid: Grid) -> None:
        """Refuse an image of another grid than the one that the field was fitted on.

        Parameters
        ----------
        grid : Grid
            Of the image.

        Raises
        ------
        GeometryError
        """
        if not self.info.grid.matches(grid):
            raise GeometryError(
                "The field was fitted on another grid than the image's; fit it to this image."
            )

    def __len__(self) -> int:
        return len(self.centers)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return int(sum(getattr(self, name).nbytes for name in self.tensor_names()))

    def head_channels(self, head: Head) -> slice:
        """Return the columns of ``values`` that belong to a head, "image" or "seg"."""
        images = len(self.info.image_channels)
        return slice(0, images) if head == "image" else slice(images, self.info.channels)

    def subset(self, which: NDArray[Any]) -> GaussianField:
        """Return the field of the Gaussians chosen by an index or boolean array (N,)."""
        arrays = {
            name: getattr(self, name) if name == "background" else getattr(self, name)[which]
            for name in self.tensor_names()
        }
        return GaussianField(**arrays, info=self.info)

    def copy(self) -> GaussianField:
        """Return an independent copy of all arrays."""
        arrays = {name: getattr(self, name).copy() for name in self.tensor_names()}
        return GaussianField(**arrays, info=self.info)

    def with_info(self, **changes: Any) -> GaussianField:
        """Return the same Gaussians with some of :class:`FieldInfo` replaced."""
        arrays = {name: getattr(self, name) for name in self.tensor_names()}
        return GaussianField(**arrays, info=replace(self.info, **changes))

    def voxel_centers(self) -> NDArray[np.float64]:
        """Centers in voxels of the canonical grid, (N, 3) in (z, y, x) order."""
        stack = self.centers[:, [2, 1, 0]].astype(np.float64)
        canonical = np.empty_like(stack)
        canonical[:, list(self.info.stack_axes)] = stack
        return canonical

    def world_centers(self) -> NDArray[np.float64]:
        """Centers in RAS millimeters, (N, 3)."""
        return self.info.grid.to_world(self.voxel_centers())

    def voxel_precisions(self) -> NDArray[np.float64]:
        """3D precision matrices at the centers (fold to first order), (N, 3, 3).

        In voxels of the canonical grid, axes (z, y, x): q = p^T P p to second order, p the
        offset from the center. Folds of degree 2 and 3 bend the Gaussian away from it.
        """
        r1, r2, rt = np.exp(self.log_precision.astype(np.float64)).T
        s, (a, b) = self.shear.astype(np.float64), self.fold[:, 0].astype(np.float64).T
        zero = np.zeros_like(s)
        # Rows of a square root R of the precision in slice-first order (d, Y, X).
        root = np.stack(
            [
                np.stack([rt, zero, zero], -1),
                np.stack([-r2 * b, r2, zero], -1),
                np.stack([r1 * (s * b - a), -r1 * s, r1], -1),
            ],
            axis=1,
        )
        canonical = np.empty_like(root)
        canonical[:, :, list(self.info.stack_axes)] = root
        precision: NDArray[np.float64] = np.swapaxes(canonical, 1, 2) @ canonical
        return precision

    def voxel_covariances(self) -> NDArray[np.float64]:
        """3D covariance matrices (N, 3, 3) in voxels, axes (z, y, x); see voxel_precisions."""
        return np.asarray(np.linalg.inv(self.voxel_precisions()), np.float64)

    def world_covariances(self) -> NDArray[np.float64]:
        """3D covariance matrices (N, 3, 3) in RAS square millimeters."""
        matrix = self.info.grid.affine[:3, :3]
        covariance: NDArray[np.float64] = matrix @ self.voxel_covariances() @ matrix.T
        return covariance

    def on_grid(self, grid: Grid) -> GaussianField:
        """Return the same field in the voxels of another grid over the same world.

        Exact. Only grids whose axes are parallel to the field's, in the same order, can be
        reached so (finer, coarser, shifted, flipped); anything else is rendered at points.

        Raises
        ------
        ParameterError
            When the axes of the grids are not parallel.
        """
        to_new = np.linalg.inv(grid.affine) @ self.info.grid.affine
        linear = to_new[:3, :3]
        scale, offset = np.diag(linear), to_new[:3, 3]
        if np.abs(linear - np.diag(scale)).max() > 1e-4 * np.abs(scale).max():
            raise ParameterError("The grids' axes are not parallel: render at points instead.")
        sz, sy, sx = scale[list(self.info.stack_axes)]
        centers = self.centers * [sx, sy, sz] + offset[list(self.info.stack_axes)][::-1]
        log_precision = self.log_precision - np.log(np.abs([sx, sy, sz]))
        powers = np.array([sz, sz**2, sz**3])[:, None]
        arrays = {name: getattr(self, name) for name in self.tensor_names()}
        arrays.update(
            centers=centers,
            log_precision=log_precision,
            shear=self.shear * (sx / sy),
            fold=self.fold * np.array([sx, sy]) / powers,
        )
        return GaussianField(**arrays, info=replace(self.info, grid=grid))

    def morton_order(self) -> NDArray[np.int64]:
        """Indices that sort the Gaussians along a Z-order curve of their centers (N,)."""
        return morton_order(self.centers)


def morton_order(points: NDArray[Any]) -> NDArray[np.int64]:
    """Return the order of points (N, 3) along a Z-order curve, 10 bits an axis."""
    low = points.min(axis=0, initial=0)
    span = max(float((points - low).max(initial=1e-6)), 1e-6)
    cells = np.clip((points - low) * (1023.0 / span), 0, 1023).astype(np.uint64)
    code = np.zeros(len(points), dtype=np.uint64)
    for axis in range(3):
        bits = cells[:, axis]
        for mask, shift in ((0x30000FF, 16), (0x300F00F, 8), (0x30C30C3, 4), (0x9249249, 2)):
            bits = (bits | (bits << np.uint64(shift))) & np.uint64(mask)
        code |= bits << np.uint64(axis)
    return np.argsort(code, kind="stable")


def concatenate(fields: Sequence[GaussianField]) -> GaussianField:
    """Join fields that share one ``info`` and background; the first one's are kept."""
    first = fields[0]
    arrays = {
        name: first.background
        if name == "background"
        else np.concatenate([getattr(f, name) for f in fields])
        for name in first.tensor_names()
    }
    return GaussianField(**arrays, info=first.info)
