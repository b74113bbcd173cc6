"""Interpolation of labels between fully labeled slices, of classes whose sections overlap.

Where the sections of a class in both slices overlap, what lies between is their interpolation. A
section that has moved, or is in one of the slices only, is followed better through the image.
"""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.interpolation import interpolate_labels
from napari_medgs.segmentation.prompts.markers import Markers


class FullSliceInterpolator:
    """Fills the gaps between fully labeled slices; keeps the last interpolation.

    Parameters
    ----------
    guide : (C, Z, Y, X) ndarray of float32
        The guide image, along whose motion labels are interpolated.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    max_gap : float
        Distance of slices, in finest voxels, up to which labels are interpolated.
    min_overlap : float
        Dice of a class's sections in both slices from which it is interpolated. Where a single
        slice lies between, it is enough that both show the class.
    """

    def __init__(
        self,
        guide: Floats,
        relative_spacing: NDArray[np.float64],
        max_gap: float = 16.0,
        min_overlap: float = 0.65,
    ) -> None:
        self._max_gap, self._min_overlap = max_gap, min_overlap
        self._guide = guide
        self._relative_spacing = relative_spacing
        self._key = b""
        self._filled: NDArray[np.uint8] | None = None

    def fill(self, labels: NDArray[np.uint8], markers: Markers) -> int:
        """Overwrite classes in narrow gaps by interpolated labels, in place.

        Gaps with markers of their own are left to the solver, and so are classes whose sections
        do not overlap.

        Returns
        -------
        int
            Slices in which classes were interpolated.
        """
        written = 0
        for axis, slices in markers.fully_labeled.items():
            sections = _sections(labels.shape, markers, axis, slices)
            gaps = []
            for n, (first, last) in enumerate(itertools.pairwise(slices)):
                place = markers.voxels[markers.user_marked, axis]
                own = ((place > first) & (place < last)).any()
                if (
                    1 < last - first <= max(self._max_gap / self._relative_spacing[axis], 2)
                    and not own
                ):
                    least = self._min_overlap if last - first > 2 else 0.0
                    steady = steady_classes(sections[n], sections[n + 1], markers.count, least)
                    if steady[1:].any():
                        gaps.append((int(first), int(last), steady))
            if not gaps:
                continue
            filled = self._interpolate(labels.shape, sections, axis, slices)
            for first, last, steady in gaps:
                box = [slice(None)] * 3
                box[axis] = slice(first + 1, last)
                between, solved = filled[tuple(box)], labels[tuple(box)]
                np.copyto(solved, between, where=steady[between] & steady[solved])
                written += last - first - 1
        return written

    def _interpolate(
        self,
        shape: tuple[int, ...],
        sections: NDArray[np.uint8],
        axis: int,
        slices: NDArray[np.int64],
    ) -> NDArray[np.uint8]:
        digest = hashlib.blake2b(np.ascontiguousarray(sections).tobytes())
        digest.update(np.asarray([axis, *slices]).tobytes())
        if digest.digest() != self._key or self._filled is None:
            given = np.zeros(shape, np.uint8)
            np.moveaxis(given, axis, 0)[slices] = sections
            relative_spacing = self._relative_spacing
            self._filled = interpolate_labels(
                given,
                slices,
                slice_axis=axis,
                image=self._guide,
                spacing=(
                    float(relative_spacing[0]),
                    float(relative_spacing[1]),
                    float(relative_spacing[2]),
                ),
            )
            self._key = digest.digest()
        return self._filled


def steady_classes(
    first: NDArray[np.uint8], last: NDArray[np.uint8], count: int, min_overlap: float
) -> NDArray[np.bool_]:
    """Return the classes whose sections in two slices overlap; the background is one of them.

    Parameters
    ----------
    first, last : (Y, X) ndarray of uint8
        Class indices.
    count : int
    min_overlap : float
        Dice of the sections; at 0 it is enough that both slices show the class.

    Returns
    -------
    (count,) ndarray of bool

    Examples
    --------
    >>> first, last = np.array([[1, 1, 0, 2]], np.uint8), np.array([[0, 1, 1, 0]], np.uint8)
    >>> steady_classes(first, last, 3, 0.5).tolist()
    [True, True, False]
    >>> steady_classes(first, last, 3, 0.6).tolist()
    [True, False, False]
    """
    sizes = [np.bincount(plane.ravel(), minlength=count) for plane in (first, last)]
    both = np.bincount(first[first == last], minlength=count)
    steady: NDArray[np.bool_] = (sizes[0] > 0) & (sizes[1] > 0)
    steady &= 2 * both >= min_overlap * (sizes[0] + sizes[1])
    steady[0] = True
    return steady


def _sections(
    shape: tuple[int, ...], markers: Markers, axis: int, slices: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return the labels of the fully labeled slices, (S, rows, columns)."""
    on = np.isin(markers.voxels[:, axis], slices)
    voxels = np.moveaxis(markers.voxels[on], 1, 0)
    plane = tuple(np.delete(np.arange(3), axis))
    sections = np.zeros((len(slices), *(shape[a] for a in plane)), np.uint8)
    row = np.searchsorted(slices, voxels[axis])
    sections[row, voxels[plane[0]], voxels[plane[1]]] = markers.classes[on]
    return sections
