"""Which Gaussians reach into a box of voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.field import GaussianField
from napari_medgs.errors import ParameterError
from napari_medgs.io.codec.container import Chunk, reach

if TYPE_CHECKING:
    from napari_medgs.data.field import FieldInfo

Box = tuple[tuple[float, float, float], tuple[float, float, float]]


def in_stack(box: Box, info: FieldInfo) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return first and last voxel of a box along x, y, t."""
    start, stop = (np.asarray(corner, np.float64) for corner in box)
    if start.shape != (3,) or stop.shape != (3,) or not (start < stop).all():
        raise ParameterError(
            "A box has a first and a last corner, (z, y, x) each, the first before the last."
        )
    axes = list(info.stack_axes)
    return start[axes][::-1], stop[axes][::-1] - 1


def meets(chunk: Chunk, region: Any) -> bool:
    """Tell whether Gaussians of a chunk can reach into a region of the slice-first grid."""
    return bool((chunk.high >= region[0]).all() and (chunk.low <= region[1]).all())


def within(field: GaussianField, region: Any) -> NDArray[np.bool_]:
    """Return which Gaussians can reach into a region of the slice-first grid, (N,)."""
    low, high = reach(field, field.info.cutoff)
    inside: NDArray[np.bool_] = ((high >= region[0]) & (low <= region[1])).all(axis=1)
    return inside


def field_within(field: GaussianField, box: Box) -> GaussianField:
    """Return the Gaussians of a field that reach into a box of its canonical grid."""
    return field.subset(within(field, in_stack(box, field.info)))
