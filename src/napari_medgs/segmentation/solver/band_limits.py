"""Which voxels the narrow band holds: those of small margin at the classes.

Margins are small far from all strokes, too, where nothing is decided, and large around a class
that is as thin as the Gaussians are wide: between these it is lost, and found on voxels only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.segmentation.advanced import NarrowBandParams
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.solver.narrow_band_kernels import count_in_blocks, mark_in_windows

AROUND = np.ones((3, 3, 3), np.bool_)


@dataclass(frozen=True)
class BandLimits:
    """Margins below which voxels belong to the band, one per block of voxels.

    Attributes
    ----------
    size : (3,) ndarray of int64
        Voxels of a block along every axis.
    values : (z, y, x) ndarray of float32
        Of every block.
    near : float
        Of blocks that show a class, unless it is thin.
    count : int
        Voxels in the band.
    """

    size: NDArray[np.int64]
    values: Floats
    near: float
    count: int

    def extended(
        self, labels: NDArray[np.uint8], markers: Markers, windows: NDArray[np.int32]
    ) -> BandLimits:
        """Return limits that are as high near what classes have new in windows.

        Parameters
        ----------
        labels : (Z, Y, X) ndarray of uint8
        markers : Markers
        windows : (Z, 2, 2) ndarray of int32
            Rows and columns of every slice.

        Returns
        -------
        BandLimits
            ``count`` stays that of the whole image before.
        """
        from scipy.ndimage import binary_dilation

        shown = np.zeros(self.values.shape, np.bool_)
        mark_in_windows(labels, self.size, windows, shown)
        shown[_blocks_of(markers, self.size)] = True
        near = binary_dilation(shown, AROUND)
        raised = np.where(near, np.float32(self.near), 0)
        return replace(self, values=np.maximum(raised, self.values))


def band_limits(
    labels: NDArray[np.uint8],
    margin: Floats,
    markers: Markers,
    relative_spacing: NDArray[np.float64],
    max_voxels: int,
    params: NarrowBandParams | None = None,
) -> BandLimits:
    """Choose the margins below which voxels belong to the band.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of uint8
        Classes of the best score.
    margin : (Z, Y, X) ndarray of float32
        Margin of the best score over the second.
    markers : Markers
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    max_voxels : int
    params : NarrowBandParams, optional

    Returns
    -------
    BandLimits
        At and beside blocks that show a class, the largest of ``params.thresholds`` for which
        the band has at most ``max_voxels`` voxels, and at least the ``params.min_threshold`` of
        all other blocks. Above ``params.thick_threshold`` only where the class is thin, that is,
        fills no block: a thicker one is found on Gaussians, too. Between thick slices that are
        fully labeled all blocks count alike: there paths over Gaussians are better than those
        over voxels.
    """
    from scipy.ndimage import binary_dilation

    params = params or NarrowBandParams()
    size = np.maximum(1, np.round(params.block / relative_spacing)).astype(np.int64)
    size = np.minimum(size, labels.shape)
    thresholds = np.asarray(params.thresholds, np.float32)
    blocks = tuple(-(-np.asarray(labels.shape) // size))
    present = np.zeros((*blocks, 4), np.uint64)
    below = np.zeros((*blocks, len(thresholds)), np.int32)

    def count(block: int) -> None:
        first = block * int(size[0])
        last = min(len(labels), first + int(size[0]))
        count_in_blocks(labels, margin, thresholds, size, first, last, present, below)

    run_chunks(count, int(blocks[0]))
    below = np.cumsum(below, axis=3)
    complete = tuple(slice(n) for n in np.asarray(labels.shape) // size)
    shown, thin = _blocks_with_classes(present, present[complete])
    shown[_blocks_of(markers, size)] = True
    near = binary_dilation(shown, AROUND)
    thin = binary_dilation(thin, AROUND)
    alike = any(relative_spacing[a] >= params.thick_slices for a in markers.fully_labeled)
    if alike:
        near[:] = True
    least, most = (
        max(int(np.searchsorted(thresholds, limit, side="right")) - 1, 0)
        for limit in (params.min_threshold, params.thick_threshold)
    )
    most = max(least, most)
    if alike or below[..., -1].sum() <= max_voxels:
        most = len(thresholds) - 1
    counts = (
        below[~near][:, least].sum()
        + below[near & ~thin].sum(axis=0)[np.minimum(np.arange(len(thresholds)), most)]
        + below[thin].sum(axis=0)
    )
    level = least
    while level + 1 < len(thresholds) and counts[level + 1] <= max_voxels:
        level += 1
    thick = thresholds[min(level, most)]
    values = np.where(thin, thresholds[level], np.where(near, thick, thresholds[least]))
    return BandLimits(size, values, float(thick), int(counts[level]))


def _blocks_with_classes(
    present: NDArray[np.uint64], complete: NDArray[np.uint64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which blocks (z, y, x) show a class, and which of them one that fills no block.

    Parameters
    ----------
    present : (z, y, x, 4) ndarray of uint64
        A bit for each class.
    complete : (z', y', x', 4) ndarray of uint64
        Those of the blocks that are not cut by the border of the image.
    """
    classes = present.copy()
    classes[..., 0] &= ~np.uint64(1)  # the background
    at_most_one = ((complete & (complete - np.uint64(1))) == 0).all(axis=-1)  # bit of each word
    filled = complete[at_most_one & (np.count_nonzero(complete, axis=-1) == 1)]
    thick = np.bitwise_or.reduce(filled, axis=0, initial=0)
    return np.any(classes, axis=-1), np.any(classes & ~thick, axis=-1)


def _blocks_of(markers: Markers, size: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
    """Return the blocks in which classes other than the background are marked."""
    return tuple((markers.voxels[markers.classes > 0] // size).T)
