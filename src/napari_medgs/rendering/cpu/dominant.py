"""Which Gaussian has the largest share of the blend at every voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._util.threads import default_threads, run_chunks
from napari_medgs.data.field import GaussianField
from napari_medgs.rendering.cpu.engine import row_bands
from napari_medgs.rendering.cpu.kernels import (
    center_x,
    center_y,
    first_index,
    last_index,
)
from napari_medgs.rendering.cpu.simd import fast_sqrt
from napari_medgs.rendering.cpu.slice_members import SliceMembers

NOBODY = -1  # no Gaussian reaches the voxel

_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz", "arcp"}}


@njit(**_options)
def _dominant_band(
    prepared: Any,
    members: Any,
    z: int,
    row0: int,
    row1: int,
    log2_cutoff: Any,
    best: Any,
    winner: Any,
) -> None:
    """Write the winners of one band of a slice; exponents are compared, not exponentials."""
    width = winner.shape[1]
    for index in range(len(members)):
        i = members[index]
        p = prepared[i]
        d = np.float32(z) - p[2]
        left = log2_cutoff - p[6] * d * d
        if left <= 0:
            continue
        my = center_y(p, d)
        mx = center_x(p, d)
        half_height = fast_sqrt(left / p[5])
        for y in range(
            first_index(my - half_height, row0), last_index(my + half_height, row1 - 1) + 1
        ):
            dy = np.float32(y) - my
            room = left - p[5] * dy * dy
            if room < 0:
                continue
            center = mx + p[4] * dy
            half = fast_sqrt(room / p[3])
            top = p[7] + room
            for x in range(
                first_index(center - half, 0), last_index(center + half, width - 1) + 1
            ):
                u = np.float32(x) - center
                exponent = top - p[3] * u * u
                if exponent > best[y - row0, x]:
                    best[y - row0, x] = exponent
                    winner[y - row0, x] = i


def dominant_gaussians(field: GaussianField, threads: int | None = None) -> NDArray[np.int32]:
    """Return the Gaussian with the largest weight at every voxel.

    Parameters
    ----------
    field : GaussianField
        Its geometry and weights count, not its values; the blend does not matter.
    threads : int, optional
        CPU threads; the limit in force by default.

    Returns
    -------
    (Z, Y, X) ndarray of int32
        On the field's canonical grid; -1 where no Gaussian reaches. The lower index wins a tie.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs import GaussianField, Grid
    >>> from napari_medgs.data.field import FieldInfo
    >>> field = GaussianField(
    ...     centers=np.array([[1.0, 0.0, 0.0], [4.0, 0.0, 0.0]]),  # column, row, slice
    ...     log_precision=np.zeros((2, 3)),
    ...     shear=np.zeros(2),
    ...     fold=np.zeros((2, 3, 2)),
    ...     log_weight=np.zeros(2),
    ...     values=np.ones((2, 1)),
    ...     background=np.zeros(1),
    ...     info=FieldInfo(Grid((1, 1, 9))),
    ... )
    >>> dominant_gaussians(field)[0, 0].tolist()
    [0, 0, 0, 1, 1, 1, 1, 1, -1]
    """
    info = field.info
    depth, height, width = info.stack_shape
    slices = SliceMembers.of_field(field)
    prepared, log2_cutoff = slices.prepared, slices.log2_cutoff
    offsets, members = slices.offsets, slices.members
    winner = np.full((depth, height, width), NOBODY, np.int32)
    bands = row_bands(depth, height, threads or default_threads())

    def task(k: int) -> None:
        z, band = divmod(k, len(bands))
        y0, y1 = bands[band]
        best = np.full((y1 - y0, width), -np.inf, np.float32)
        present = members[offsets[z] : offsets[z + 1]]
        _dominant_band(prepared, present, z, y0, y1, log2_cutoff, best, winner[z, y0:y1])

    run_chunks(task, depth * len(bands), threads)
    return np.ascontiguousarray(np.moveaxis(winner, 0, info.slice_axis))
