"""Interpolation of labels between fully labeled slices."""

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
    """

    def __init__(
        self, guide: Floats, relative_spacing: NDArray[np.float64], max_gap: float = 16.0
    ) -> None:
        self._max_gap = max_gap
        self._guide = guide
        self._relative_spacing = relative_spacing
        self._key = b""
        self._filled: NDArray[np.uint8] | None = None

    def fill(self, labels: NDArray[np.uint8], markers: Markers) -> int:
        """Overwrite slices of narrow gaps by interpolated labels, in place.

        Gaps with markers of their own are left to the solver.

        Returns
        -------
        int
            Slices written.
        """
        written = 0
        for axis, slices in markers.fully_labeled.items():
            gaps = []
            for first, last in itertools.pairwise(slices):
                place = markers.voxels[markers.user_marked, axis]
                own = ((place > first) & (place < last)).any()
                if (
                    1 < last - first <= max(self._max_gap / self._relative_spacing[axis], 2)
                    and not own
                ):
                    gaps.append((int(first), int(last)))
            if not gaps:
                continue
            filled = self._interpolate(labels.shape, markers, axis, slices)
            for first, last in gaps:
                box = [slice(None)] * 3
                box[axis] = slice(first + 1, last)
                labels[tuple(box)] = filled[tuple(box)]
                written += last - first - 1
        return written

    def _interpolate(
        self,
        shape: tuple[int, ...],
        markers: Markers,
        axis: int,
        slices: NDArray[np.int64],
    ) -> NDArray[np.uint8]:
        on = np.isin(markers.voxels[:, axis], slices)
        voxels, classes = markers.voxels[on], markers.classes[on]
        digest = hashlib.blake2b(voxels.tobytes())
        digest.update(classes.tobytes())
        digest.update(np.asarray([axis, *slices]).tobytes())
        if digest.digest() != self._key or self._filled is None:
            given = np.zeros(shape, np.uint8)
            given[tuple(voxels.T)] = classes
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
