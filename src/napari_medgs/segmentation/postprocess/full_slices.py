"""Between slices that are labelled in full the shape itself is interpolated."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.interpolation import interpolate_labels
from napari_medgs.segmentation.prompts.markers import Evidence

WIDEST_GAP = 16.0  # finest voxels between slices up to which interpolation is believed


class PaintedSlices:
    """Fills the gaps between fully labelled slices; remembers the last answer."""

    def __init__(self, metric: Floats, units: NDArray[np.float64]) -> None:
        self._metric = metric
        self._units = units
        self._key = b""
        self._filled: NDArray[np.uint8] | None = None

    def fill(self, labels: NDArray[np.uint8], evidence: Evidence) -> int:
        """Overwrite slices of narrow gaps by interpolated labels, in place.

        Gaps with marks of their own are left to the solver, which knows those and the shape.

        Returns
        -------
        int
            Slices written.
        """
        written = 0
        for axis, places in evidence.painted.items():
            gaps = []
            for first, last in itertools.pairwise(places):
                place = evidence.voxels[evidence.hard, axis]
                own = ((place > first) & (place < last)).any()
                if 1 < last - first <= max(WIDEST_GAP / self._units[axis], 2) and not own:
                    gaps.append((int(first), int(last)))
            if not gaps:
                continue
            filled = self._interpolate(labels.shape, evidence, axis, places)
            for first, last in gaps:
                box = [slice(None)] * 3
                box[axis] = slice(first + 1, last)
                labels[tuple(box)] = filled[tuple(box)]
                written += last - first - 1
        return written

    def _interpolate(
        self,
        shape: tuple[int, ...],
        evidence: Evidence,
        axis: int,
        places: NDArray[np.int64],
    ) -> NDArray[np.uint8]:
        on = np.isin(evidence.voxels[:, axis], places)
        voxels, classes = evidence.voxels[on], evidence.classes[on]
        digest = hashlib.blake2b(voxels.tobytes())
        digest.update(classes.tobytes())
        digest.update(np.asarray([axis, *places]).tobytes())
        if digest.digest() != self._key or self._filled is None:
            given = np.zeros(shape, np.uint8)
            given[tuple(voxels.T)] = classes
            units = self._units
            self._filled = interpolate_labels(
                given,
                places,
                slice_axis=axis,
                image=self._metric,
                spacing=(float(units[0]), float(units[1]), float(units[2])),
            )
            self._key = digest.digest()
        return self._filled
