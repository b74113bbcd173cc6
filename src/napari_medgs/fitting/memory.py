"""Will the fit fit? An estimate of the peak memory, made before any work."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.memory import free_bytes
from napari_medgs.data.volume import Volume
from napari_medgs.errors import MemoryEstimateError
from napari_medgs.fitting.params import FitParams
from napari_medgs.fitting.problem import choose_slice_axis, make_problem
from napari_medgs.fitting.through_plane import through_plane_factor
from napari_medgs.rendering.api import MANY_CLASSES

BYTES_PER_GAUSSIAN = 4 * 14 * 8
SHARE = 0.9  # of the free memory may be used
USUAL_SLOTS = 32  # of many classes at most: 13 to 23 of 59 and 188 were needed


def estimate_bytes(shape: tuple[int, int, int], images: int, classes: int, gaussians: int) -> int:
    """Return about how many bytes a fit of a (Z, Y, X) grid needs at its peak.

    Target and rendering of every channel, one residual with the weights, tables of Gaussians.
    """
    voxels = int(np.prod(shape))
    channels = images + classes
    padding = 1 + 8 / shape[2]
    per_voxel = 4 * images + 4 * (channels + 1) * padding + 4 * channels + 2 * (classes > 0)
    return int(voxels * per_voxel) + gaussians * (BYTES_PER_GAUSSIAN + 16 * channels)


def check_memory(volume: Volume, params: FitParams, mask: NDArray[Any] | None) -> None:
    """Refuse a fit that would not fit into the free memory.

    Raises
    ------
    MemoryEstimateError
        Saying how much is needed, how much is free and what would fit.
    """
    classes = 0
    if mask is not None and mask.size and np.asarray(mask).dtype.kind in "iub":
        sample = np.unique(np.asarray(mask).reshape(-1)[:: max(1, mask.size // 1_000_000)])
        classes = len(sample) + 1
        if classes > MANY_CLASSES:
            classes = min(classes, USUAL_SLOTS)
    axis = choose_slice_axis(volume, params.slice_axis)
    factor = through_plane_factor(params, volume.grid, axis)

    def estimate(shape: tuple[int, int, int]) -> int:
        images = len(volume.data)
        needed = estimate_bytes(shape, images, classes, params.gaussians or 150_000)
        if params.quality is not None and params.gaussians is None:  # one to rank Gaussians by
            needed += 4 * (images + classes) * int(np.prod(shape))
        if factor:  # a finer stack, the motion in it and one more estimate of it
            needed = needed * factor + 4 * (4 + images) * int(np.prod(shape))
        return needed

    free = free_bytes()
    needed = estimate(volume.grid.shape)
    # What is plain background all along the slices is left away, which costs a copy to know.
    if needed > SHARE * free and 4 * volume.data.nbytes < SHARE * free:
        needed = estimate(make_problem(volume, params, mask, {}).shape)
    if needed > SHARE * free:
        shrink = (needed / (0.8 * free)) ** (1 / 3)
        spacing = " x ".join(f"{s * shrink:.2g}" for s in volume.grid.spacing)
        raise MemoryEstimateError(
            f"The fit needs about {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free. "
            f"Resampled to {spacing} mm, or cropped to 1/{shrink**3:.1f} of its voxels, it fits."
        )
