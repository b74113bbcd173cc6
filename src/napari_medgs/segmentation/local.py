"""A solve in a box of the image: what one prompt changes is found in a fraction of the time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import StopCallback, never_stop
from napari_medgs.data.field import GaussianField
from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.voxel_model import VoxelModel

if TYPE_CHECKING:
    from napari_medgs.segmentation.result.result import SegmentResult

Box = tuple[slice, slice, slice]
SPARE = 0.25  # of a box's sides, by which a new one is larger than asked for
WASTE = 6.0  # a box this many times larger than asked for is given up
FEWEST = 8  # Gaussians of a field that can be solved on


def box_around(
    low: NDArray[Any], high: NDArray[Any], margin: NDArray[Any], shape: tuple[int, ...]
) -> Box:
    """Return a box (stop excluded) with a margin, within an image.

    Parameters
    ----------
    low, high : (3,) ndarray of int
        First voxel, and one past the last.
    margin : (3,) ndarray
        Voxels.
    shape : tuple of int

    Returns
    -------
    tuple of slice

    Examples
    --------
    >>> import numpy as np
    >>> box = box_around(np.array([1, 5, 5]), np.array([3, 7, 7]), np.full(3, 2.0), (4, 20, 20))
    >>> [(s.start, s.stop) for s in box]
    [(0, 4), (3, 9), (3, 9)]
    """
    first = np.maximum(np.asarray(low) - np.ceil(margin).astype(int), 0)
    last = np.minimum(np.asarray(high) + np.ceil(margin).astype(int), shape)
    return window(first, last)


def crop(volume: Volume, field: GaussianField, box: Box) -> tuple[Volume, GaussianField]:
    """Return the part of an image and of its field in a box.

    Parameters
    ----------
    volume : Volume
    field : GaussianField
        On the volume's grid.
    box : tuple of slice

    Returns
    -------
    Volume, GaussianField
        The contrasts that have values in the box, and the Gaussians with their centers in it, on
        its grid.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> head = mg.make_phantom(spacing=8.0)
    >>> volume = mg.Volume(head.image[None], head.grid)
    >>> field = mg.fit(volume, mg.FitParams(iterations=2)).field
    >>> part, inside = crop(volume, field, np.s_[2:10, 4:16, 4:16])
    >>> part.shape, inside.info.grid.shape, len(inside) < len(field)
    ((8, 12, 12), (8, 12, 12), True)
    """
    low = np.array([s.start for s in box])
    high = np.array([s.stop for s in box])
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.to_world(low)
    size = high - low
    grid = Grid((int(size[0]), int(size[1]), int(size[2])), affine)
    place, missing = (slice(None), *box), volume.missing
    data = np.ascontiguousarray(volume.data[place])
    if missing is not None:
        missing = np.ascontiguousarray(missing[place])
    part = Volume(data, grid, volume.channel_names, volume.units, missing)
    if missing is not None:
        part = part.subset(np.flatnonzero(~missing.all(axis=(1, 2, 3))).tolist())
    centers = field.voxel_centers()
    inside = ((centers >= low - 0.5) & (centers < high - 0.5)).all(axis=1)
    return part, field.subset(np.flatnonzero(inside)).on_grid(grid)


def bounds(mask: NDArray[np.bool_]) -> Box | None:
    """Return the smallest box of a mask; None where it is empty.

    Parameters
    ----------
    mask : (Z, Y, X) ndarray of bool

    Returns
    -------
    tuple of slice or None

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((4, 5, 6), bool)
    >>> mask[1, 2:4, 3] = True
    >>> [(s.start, s.stop) for s in bounds(mask)]
    [(1, 2), (2, 4), (3, 4)]
    """
    z = np.flatnonzero(mask.any(axis=(1, 2)))
    if not len(z):
        return None
    plane: NDArray[np.bool_] = np.logical_or.reduce(mask, axis=0)
    y, x = (np.flatnonzero(np.logical_or.reduce(plane, axis=a)) for a in (1, 0))
    return window([z[0], y[0], x[0]], [z[-1] + 1, y[-1] + 1, x[-1] + 1])


def window(low: Any, high: Any) -> Box:
    """Return the box from a first voxel to one past the last."""
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


@dataclass
class _Kept:
    box: Box
    field: GaussianField
    advanced: Any
    model: VoxelModel


class LocalSolver:
    """Solves prompts in a box around them; the box and its model are kept as long as they fit.

    Parameters
    ----------
    volume : Volume
        Prepared.
    """

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._kept: _Kept | None = None

    def box_for(self, low: NDArray[Any], high: NDArray[Any], margin: NDArray[Any]) -> Box:
        """Return the box that will be solved in: the kept one where it fits, else a new one.

        Parameters
        ----------
        low, high : (3,) ndarray of int
            Of what must lie in it, stop excluded.
        margin : (3,) ndarray
            Voxels around that.

        Returns
        -------
        tuple of slice
        """
        shape = self._volume.shape
        needed = box_around(low, high, margin, shape)
        if self._kept is not None:
            old = self._kept.box
            holds = all(a.start <= b.start and a.stop >= b.stop for a, b in zip(old, needed))
            if holds and _volume(old) <= WASTE * _volume(needed):
                return old
        spare = SPARE * (np.asarray(high) - np.asarray(low))
        return box_around(low, high, margin + spare, shape)

    def solve(
        self,
        box: Box,
        field: GaussianField,
        prompts: Prompts,
        params: SegmentParams,
        *,
        should_stop: StopCallback = never_stop,
    ) -> SegmentResult | None:
        """Solve prompts of a box.

        Parameters
        ----------
        box : tuple of slice
            Of :meth:`box_for`.
        field : GaussianField
            Of the whole image.
        prompts : Prompts
            In the voxels of the box.
        params : SegmentParams
        should_stop : callable, optional
            Asked between steps whether to stop.

        Returns
        -------
        SegmentResult or None
            None where the box holds too few Gaussians.
        """
        model = self.prepare(box, field, params, should_stop=should_stop)
        return None if model is None else model.update(prompts, should_stop=should_stop)

    def prepare(
        self,
        box: Box,
        field: GaussianField,
        params: SegmentParams,
        *,
        should_stop: StopCallback = never_stop,
    ) -> VoxelModel | None:
        """Do what needs no prompts; see :meth:`solve`.

        Returns
        -------
        VoxelModel or None
            None where the box holds too few Gaussians.
        """
        kept = self._kept
        if (
            kept is None
            or kept.box != box
            or kept.field is not field
            or kept.advanced != params.advanced
        ):
            self._kept = None
            volume, inside = crop(self._volume, field, box)
            if len(inside) < FEWEST:
                return None
            model = VoxelModel(volume, inside, params, should_stop=should_stop)
            kept = self._kept = _Kept(box, field, params.advanced, model)
        kept.model.params = replace(params)
        return kept.model


def _volume(box: Box) -> int:
    return int(np.prod([s.stop - s.start for s in box], dtype=np.int64))
