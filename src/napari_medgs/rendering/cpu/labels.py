"""Class labels of fields with many classes, without a volume of logits for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.data.field import GaussianField
from napari_medgs.rendering.cpu.kernels import (
    P_INV2,
    P_RT,
    center_y,
    splat_kernel,
)
from napari_medgs.rendering.cpu.residual import blend_rows
from napari_medgs.rendering.cpu.simd import LANES
from napari_medgs.rendering.cpu.slice_members import SliceMembers

ROWS = 16  # in a band
STEP = 8  # channels are rendered in multiples of this, since each number needs a kernel

_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def _reach_band(
    prepared: Any, members: Any, z: int, row0: int, row1: int, log2_cutoff: Any, out: Any
) -> int:
    """Write the Gaussians of a slice that reach rows row0 .. row1 - 1; return how many."""
    count = 0
    for index in range(len(members)):
        p = prepared[members[index]]
        d = np.float32(z) - p[2]
        left = log2_cutoff - p[P_RT] * d * d
        if left <= 0:
            continue
        my = center_y(p, d)
        half = np.sqrt(left) * p[P_INV2] + np.float32(1)
        if my + half >= row0 and my - half <= row1 - 1:
            out[count] = members[index]
            count += 1
    return count


@njit(**_options)
def _any_of(flags: Any, rows: Any, out: Any) -> None:
    for index in range(len(rows)):
        row = flags[rows[index]]
        for k in range(len(row)):
            if row[k]:
                out[k] = True


@njit(**_options)
def _largest(logits: Any, names: Any, out: Any) -> None:
    """Write the name of the largest channel; the first of several."""
    channels, rows, width = logits.shape
    best = np.empty(width, np.float32)
    for y in range(rows):
        for x in range(width):
            best[x] = logits[0, y, x]
            out[y, x] = names[0]
        for c in range(1, channels):
            row = logits[c, y]
            for x in range(width):
                if row[x] > best[x]:
                    best[x] = row[x]
                    out[y, x] = names[c]


def label_stack(field: GaussianField, threads: int | None = None) -> NDArray[np.uint8]:
    """Render the index of the class with the largest logit.

    A class can be the largest only where some Gaussian prefers it over background: in every
    band of rows only such classes are rendered.

    Parameters
    ----------
    field : GaussianField
        With at most 255 classes, of the normalized or the sum blend.
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    (slices, rows, columns) ndarray of uint8
        On the slice-first grid: the argmax of all logits.
    """
    info = field.info
    depth, height, width = info.stack_shape
    logits = np.ascontiguousarray(field.values[:, field.head_channels("seg")], np.float32)
    background = field.background[field.head_channels("seg")]
    preferred = logits > logits[:, :1]
    always = background > background[0]
    always[0] = True
    slices = SliceMembers.of_field(field)
    prepared, log2_cutoff = slices.prepared, slices.log2_cutoff
    offsets, members = slices.offsets, slices.members
    out = np.empty((depth, height, width), np.uint8)
    normalized, eps = info.blend == "normalized", np.float32(info.eps)

    def band(z: int, y0: int, y1: int) -> None:
        mine = members[offsets[z] : offsets[z + 1]]
        here = np.empty_like(mine)
        here = here[: _reach_band(prepared, mine, z, y0, y1, log2_cutoff, here)]
        wanted = always.copy()
        _any_of(preferred, here, wanted)
        names = np.flatnonzero(wanted)
        if len(names) == 1:
            out[z, y0:y1] = names[0]
            return
        channels = -(-len(names) // STEP) * STEP
        names = np.concatenate([names, np.zeros(channels - len(names), names.dtype)])
        values: Floats = logits[here[:, None], names]
        buffer = np.zeros((y1 - y0, channels + 1, width + LANES), np.float32)
        few, every = prepared[here], np.arange(len(here), dtype=np.int32)
        splat_kernel(channels)(
            few, values, every, z, y0, y1, width, log2_cutoff, buffer.reshape(-1)
        )
        rendered = np.empty((channels, y1 - y0, width), np.float32)
        blend_rows(buffer, normalized, eps, background[names], rendered)
        _largest(rendered, names.astype(np.uint8), out[z, y0:y1])

    def task(z: int) -> None:
        for y0 in range(0, height, ROWS):
            band(z, y0, min(height, y0 + ROWS))

    run_chunks(task, depth, threads)
    return out
