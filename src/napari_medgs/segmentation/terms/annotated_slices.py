"""What annotated slices say as a whole.

Who strokes a slice strokes every part of a class that it shows. A part that a first solve finds
there, far from every stroke of its class in that slice, has come round through other slices: it is
taken for background. Slices with few marks are left alone, they may hold a correction only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation.prompts.markers import Evidence
from napari_medgs.segmentation.terms.shape_prior import ShapePrior, shape_prior

RICH = 0.5  # marks of a slice over those of the slice that has most
FAR = 6.0  # finest voxels between a part and the strokes of its class
RIM = 1  # pixels of a part's outline that are not held against it


@dataclass
class LabelledSlices:
    """Labels of annotated slices.

    Attributes
    ----------
    axis : int
        Normal of the slices, in slice-first axes.
    places : (S,) ndarray of int
        Increasing.
    planes : (S, rows, columns) ndarray of uint8
        Classes, the marks' own where there are any.
    """

    axis: int
    places: NDArray[np.int64]
    planes: NDArray[np.uint8]

    def drop_untouched(self, evidence: Evidence, units: NDArray[np.float64]) -> NDArray[np.int32]:
        """Turn parts of classes far from every stroke of theirs into background, in place.

        Parameters
        ----------
        evidence : Evidence
        units : (3,) ndarray
            Voxel sizes over the finest one.

        Returns
        -------
        (P, 3) ndarray of int32
            Their voxels but for their rims.
        """
        from scipy.ndimage import binary_erosion, distance_transform_edt, label

        found = [np.zeros((0, 3), np.int32)]
        if not (evidence.classes == 0).any():
            return found[0]
        rest = [a for a in range(3) if a != self.axis]
        place = evidence.voxels[:, self.axis]
        marks = np.array([np.count_nonzero(evidence.hard & (place == z)) for z in self.places])
        for s in np.flatnonzero(marks >= RICH * marks.max(initial=0)):
            plane, on = self.planes[s], place == self.places[s]
            rows, columns = evidence.voxels[on][:, rest].T
            classes = evidence.classes[on]
            for k in range(1, evidence.count):
                mine = plane == k
                if not mine.any():
                    continue
                parts, _ = label(mine)
                stroke = np.zeros(plane.shape, np.bool_)
                stroke[rows[classes == k], columns[classes == k]] = True
                near = stroke
                if stroke.any():
                    near = distance_transform_edt(~stroke, sampling=units[rest]) <= FAR
                lost = mine & ~np.isin(parts, np.unique(parts[near & mine]))
                plane[lost] = 0
                inner = np.argwhere(binary_erosion(lost, iterations=RIM))
                voxels = np.empty((len(inner), 3), np.int32)
                voxels[:, self.axis] = self.places[s]
                voxels[:, rest] = inner
                found.append(voxels)
        return np.concatenate(found)

    def prior(self, units: NDArray[np.float64], classes: int) -> ShapePrior | None:
        """Return the shape prior between the slices; None for fewer than two."""
        if len(self.places) < 2:
            return None
        return shape_prior(self.planes, self.places, self.axis, units, classes)
