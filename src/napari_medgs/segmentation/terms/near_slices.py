"""Slices that lie far apart and look alike: whether what is drawn goes on through them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.terms.image_features import ImageFeatures

MOST_SLICES = 16  # that are compared with their neighbors
LEAST_REACH = 6.0  # finest voxels around strokes that are looked at, at least
REACH = 0.25  # over the side of the square that is as large as the box around the strokes


def slices_are_near(image: ImageFeatures, markers: Markers, share: float) -> bool:
    """Tell whether annotated slices look like their neighbors around the strokes.

    They do where they differ less from the neighboring slices than from themselves, moved within
    the slice by ``share`` of the distance of slices. Noise from voxel to voxel adds as much to
    both differences.

    Parameters
    ----------
    image : ImageFeatures
    markers : Markers
    share : float

    Returns
    -------
    bool
        False for slices of another orientation, or closer than ``1 / share`` finest voxels, and
        for an initial mask: corrections lie where it is wrong.
    """
    spacing = image.relative_spacing
    shifts = share * spacing[0] / spacing[1:]
    if spacing[0] < spacing.max() or shifts.max() < 1 or markers.kept is not None:
        return False
    axis, slices = markers.annotated_slices()
    if axis != 0 or not len(slices):
        return False
    chosen = slices[np.linspace(0, len(slices) - 1, min(len(slices), MOST_SLICES)).astype(int)]
    own = markers.classes > 0
    across, within = np.zeros(2), np.zeros(2)
    for z in chosen.tolist():
        strokes = markers.voxels[own & (markers.voxels[:, 0] == z), 1:]
        if not len(strokes):
            continue
        box, near = _surroundings(strokes, image.guide.shape[2:], spacing[1:])
        plane, there = _plane(image, z, box)
        there &= near
        for other in (z - 1, z + 1):
            if 0 <= other < image.guide.shape[1]:
                next_plane, next_there = _plane(image, other, box)
                across += _differences(plane, next_plane, there & next_there)
        for a, shift in enumerate(shifts.tolist()):
            for pixels, part in ((int(shift), 1 - shift % 1), (int(shift) + 1, shift % 1)):
                if int(shift) >= 1 and pixels < there.shape[a]:
                    values, mask = np.moveaxis(plane, a + 1, 1), np.moveaxis(there, a, 0)
                    both = mask[pixels:] & mask[:-pixels]
                    within += part * _differences(values[:, pixels:], values[:, :-pixels], both)
    if not (across[1] and within[1]):
        return False
    return bool(across[0] / across[1] < within[0] / within[1])


def _surroundings(
    strokes: NDArray[np.int32], shape: tuple[int, ...], spacing: NDArray[np.float64]
) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Return a part of a slice, and which of its pixels are near strokes (P, 2)."""
    from scipy.ndimage import distance_transform_edt

    low, high = strokes.min(axis=0), strokes.max(axis=0) + 1
    reach = max(LEAST_REACH, REACH * float(np.sqrt(np.prod((high - low) * spacing))))
    margin = np.ceil(reach / spacing).astype(np.int64)
    start = np.maximum(low - margin, 0)
    stop = np.minimum(high + margin, shape)
    away = np.ones(stop - start, np.bool_)
    away[tuple((strokes - start).T)] = False
    near = distance_transform_edt(away, sampling=spacing) <= reach
    return (slice(int(start[0]), int(stop[0])), slice(int(start[1]), int(stop[1]))), near


def _plane(
    image: ImageFeatures, z: int, box: tuple[slice, slice]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return a part of a slice (C, Y, X), and where no contrast lacks a value in it."""
    plane = image.sharp[(slice(None), z, *box)].astype(np.float32)
    if image.missing is None:
        return plane, np.ones(plane.shape[1:], np.bool_)
    lacks: NDArray[np.bool_] = np.logical_or.reduce(image.missing[(slice(None), z, *box)])
    return plane, ~lacks


def _differences(one: Floats, other: Floats, where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the sum of absolute differences of all contrasts, and the number of pixels."""
    total = np.abs(one - other).sum(axis=0)[where].sum(dtype=np.float64)
    return np.array([total, np.count_nonzero(where)])
