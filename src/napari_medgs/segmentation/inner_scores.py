"""Probabilities and errors of a result on a smaller grid, as those of the whole image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.result.result import SegmentResult
from napari_medgs.segmentation.result.uncertainty import ErrorEstimate
from napari_medgs.segmentation.working_grid import WorkingGrid

Place = tuple[slice, ...]


@dataclass
class SpreadScores:
    """Probabilities and errors of a box on the whole image, slice-first; certain outside.

    Attributes
    ----------
    inner : SegmentResult
    place : tuple of slice
        The box, slice-first.
    """

    inner: SegmentResult
    place: Place

    def probability(self, labels: NDArray[np.uint8]) -> Floats:
        """Return (K, Z, Y, X) probabilities of the classes."""
        out = np.zeros((len(self.inner.values), *labels.shape), np.float32)
        for k, mine in enumerate(out):
            mine[labels == k] = 1
        out[(slice(None), *self.place)] = np.moveaxis(
            self.inner.probability(), self.inner.slice_axis + 1, 1
        )
        return out

    def error_estimate(self, labels: NDArray[np.uint8]) -> ErrorEstimate:
        """Return how likely labels (Z, Y, X) are wrong, and the most likely other classes."""
        error = np.zeros(labels.shape, np.float32)
        other = (labels == 0).astype(np.uint8)
        found = self.inner.error_estimate()
        error[self.place], other[self.place] = found.error_probability, found.runner_up
        return ErrorEstimate(error, other)


@dataclass
class StretchedScores:
    """Probabilities and errors of a result on the working grid, on the full one; slice-first.

    Attributes
    ----------
    coarse : SegmentResult
    place : WorkingGrid
    flat, classes : (P,) ndarray of int64
        Voxels that are drawn, and their class indices: certain.
    locked : dict of int to (Z, Y, X) ndarray of bool
        By class index: certain.
    """

    coarse: SegmentResult
    place: WorkingGrid
    flat: NDArray[np.int64]
    classes: NDArray[np.int64]
    locked: dict[int, NDArray[np.bool_]]

    def probability(self, labels: NDArray[np.uint8]) -> Floats:
        """Return (K, Z, Y, X) probabilities of the classes."""
        coarse, shape = self.coarse.probability(), self.place.full.shape
        out = np.empty((len(coarse), *shape), np.float32)
        for k, values in enumerate(coarse):
            out[k] = self.place.stretched(values)
            out[k].reshape(-1)[self.flat] = self.classes == k
            for own, mask in self.locked.items():
                out[k][mask] = own == k
        return np.moveaxis(out, self.coarse.slice_axis + 1, 1)

    def error_estimate(self, labels: NDArray[np.uint8]) -> ErrorEstimate:
        """Return how likely labels (Z, Y, X) are wrong, and the most likely other classes."""
        estimate, axis = self.coarse.error_estimate(), self.coarse.slice_axis
        error = self.place.stretched(np.moveaxis(estimate.error_probability, 0, axis))
        other = self.place.repeated(np.moveaxis(estimate.runner_up, 0, axis))
        error.reshape(-1)[self.flat] = 0
        for mask in self.locked.values():
            error[mask] = 0
        return ErrorEstimate(np.moveaxis(error, axis, 0), np.moveaxis(other, axis, 0))
