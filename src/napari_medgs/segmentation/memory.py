"""Will the segmentation fit? An estimate of its peak memory, made before any work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_medgs._util.memory import free_bytes
from napari_medgs.data.field import GaussianField
from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.errors import MemoryEstimateError
from napari_medgs.segmentation.content import find_content
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.term_params import MotionPriorParams
from napari_medgs.segmentation.working_grid import working_grid

# Fitted to peaks measured from 0.5 to 6.3 million voxels, with 1 to 3 contrasts, 3 to 13 classes
# and 2,400 to 32,000 Gaussians: docs/notes/segmentation.md.
BYTES_PER_VOXEL = 52  # watershed hierarchies, best score and margin, labels, voxels of the band
BYTES_PER_VOXEL_AND_CONTRAST = 12  # guide images at two scales, intensities, coarse features
# Of the voxels at most that motion is estimated on: motion, and the places that it leads to, of
# this result and the last.
BYTES_PER_MOTION_VOXEL = 44
BYTES_PER_BAND_VOXEL_AND_CLASS = 48  # path costs, scores and probabilities in the narrow band
BYTES_PER_GAUSSIAN = 500  # edges of the graph
BYTES_PER_GAUSSIAN_AND_CLASS = 16
BYTES_ALWAYS = 16 * 2**20
# Of an image solved on coarser voxels: labels of this result and the last, before the prompts'
# own, and by value; what changed.
BYTES_PER_FULL_VOXEL = 5
LIKELY_GAUSSIANS = 150_000  # of a field that is not fitted yet
FEWEST_VOXELS = 100_000  # that are worth solving on
SHARE = 0.9  # of the free memory may be used


def estimate_bytes(
    shape: tuple[int, int, int],
    contrasts: int,
    classes: int,
    gaussians: int,
    refine_voxels: int = SegmentParams().refine_voxels,
    working_voxels: int = SegmentParams().working_voxels,
    spacing: Sequence[float] | None = None,
) -> int:
    """Return about how many bytes a segmentation needs at its peak, beside image and prompts.

    Parameters
    ----------
    shape : (Z, Y, X)
    contrasts : int
    classes : int
        The background included.
    gaussians : int
    refine_voxels, working_voxels : int
        See :class:`~napari_medgs.segmentation.SegmentParams`.
    spacing : (float, float, float), optional
        Of the image, which says how coarse the voxels are that a large one is solved on; by
        default they are as many as there may be.

    Examples
    --------
    >>> estimate_bytes((100, 512, 512), 1, 3, 50_000) // 2**20
    1813
    """
    full = int(np.prod(shape, dtype=np.int64))
    voxels = min(full, working_voxels)
    if spacing is not None and voxels < full:
        place = working_grid(Grid(shape, np.diag([*spacing, 1.0])), working_voxels)
        voxels = full if place is None else int(np.prod(place.shape, dtype=np.int64))
    more = 0 if voxels == full else full * BYTES_PER_FULL_VOXEL + 4 * contrasts * voxels
    return (
        more
        + voxels * (BYTES_PER_VOXEL + BYTES_PER_VOXEL_AND_CONTRAST * contrasts)
        + min(voxels, MotionPriorParams().voxels) * (BYTES_PER_MOTION_VOXEL + 4 * contrasts)
        + min(refine_voxels, voxels) * classes * BYTES_PER_BAND_VOXEL_AND_CLASS
        + gaussians * (BYTES_PER_GAUSSIAN + BYTES_PER_GAUSSIAN_AND_CLASS * classes)
        + BYTES_ALWAYS
    )


def check_memory(
    volume: Volume,
    params: SegmentParams | None = None,
    *,
    classes: int = 2,
    field: GaussianField | None = None,
    gaussians: int | None = None,
) -> None:
    """Refuse a segmentation that would not fit into the free memory.

    Parameters
    ----------
    volume : Volume
    params : SegmentParams, optional
    classes : int
        The background included.
    field : GaussianField, optional
        If there is one.
    gaussians : int, optional
        Of the field that will be fitted, if it is known.

    Raises
    ------
    MemoryEstimateError
        Saying how much is needed, how much is free and what would fit.
    """
    count = len(field) if field is not None else gaussians or LIKELY_GAUSSIANS
    params = params or SegmentParams()
    content = find_content(volume)
    copied = 0 if content is None else content.copied_bytes(volume)

    def estimate(refined: int, most: int) -> int:
        return copied + estimate_bytes(
            volume.shape, volume.channels, classes, count, refined, most, volume.spacing
        )

    needed = estimate(params.refine_voxels, params.working_voxels)
    free = free_bytes()
    if needed <= SHARE * free:
        return
    says = f"The segmentation needs about {_gib(needed)} GiB and {_gib(free)} GiB are free. "
    if estimate(0, params.working_voxels) <= SHARE * free:
        raise MemoryEstimateError(f"{says}With fewer voxels to refine (refine_voxels) it fits.")
    fewer = int(np.prod(volume.shape, dtype=np.int64)) // 8
    if estimate(params.refine_voxels, fewer) <= SHARE * free and fewer >= FEWEST_VOXELS:
        raise MemoryEstimateError(
            f"{says}Solved on at most {fewer:,} voxels (working_voxels) it fits."
        )
    room = max(0.8 * free - (needed - _of_voxels(volume)), 0.05 * free)
    shrink = (_of_voxels(volume) / room) ** (1 / 3)
    spacing = " x ".join(f"{s * shrink:.2g}" for s in volume.spacing)
    raise MemoryEstimateError(
        f"{says}Resampled to {spacing} mm, or cropped to 1/{shrink**3:.1f} of its voxels, the "
        "image fits."
    )


def _of_voxels(volume: Volume) -> float:
    per_voxel = BYTES_PER_VOXEL + BYTES_PER_VOXEL_AND_CONTRAST * volume.channels
    return float(per_voxel * np.prod(volume.shape, dtype=np.int64))


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f}"
