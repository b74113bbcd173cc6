"""What a segmentation gives back; probabilities and uncertainty are made when asked for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs.field import Floats, GaussianField
from napari_medgs.geometry import Grid
from napari_medgs.parallel import run_chunks
from napari_medgs.segment.rendering import ScoreRenderer

POWER = np.float32(1.0)  # probability of a class ~ its distance to minus this: calibrated
_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def _count(labels: Any, z: int, out: Any) -> None:
    for y in range(labels.shape[1]):
        for x in range(labels.shape[2]):
            out[labels[z, y, x]] += 1


def count_labels(labels: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count the voxels of every class in slice-first class indices."""
    counts = np.zeros((len(labels), max(classes, 256)), np.int64)
    run_chunks(lambda z: _count(labels, z, counts[z]), len(labels))
    total: NDArray[np.int64] = counts.sum(axis=0)[:classes]
    return total


def softmax(scores: Floats) -> Floats:
    """Turn scores (K, ...) into probabilities in place."""
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return scores


@dataclass
class Snapshot:
    """What the probabilities of one result are made of, slice-first.

    Attributes
    ----------
    renderer : ScoreRenderer
    scores : (N, K) ndarray of float32
    band_voxels : (B, 3) ndarray of int32, band_scores : (B, K) ndarray of float32
    known : list of (axis, indices, planes)
        Slices whose labels were given.
    sure_voxels : (S, 3) ndarray of int32, sure_classes : (S,) ndarray of int32
        Marks that are certain.
    """

    renderer: ScoreRenderer
    scores: Floats
    band_voxels: NDArray[np.int32]
    band_scores: Floats
    sure_voxels: NDArray[np.int32]
    sure_classes: NDArray[np.int32]

    def probability(self, labels: NDArray[np.uint8]) -> Floats:
        """Return (K, Z, Y, X) probabilities of the classes."""
        depth, height, width = labels.shape
        classes = self.scores.shape[1]
        out = np.empty((classes, depth, height, width), np.float32)

        def task(z: int) -> None:
            blended, empty = self.renderer.blend(self.scores, z)
            blended *= POWER
            softmax(blended)
            blended[:, empty] = 0
            blended[0, empty] = 1
            out[:, z] = blended

        run_chunks(task, depth)
        if len(self.band_voxels):
            out[(slice(None), *self.band_voxels.T)] = softmax(POWER * self.band_scores.T)
        if len(self.sure_voxels):
            z, y, x = self.sure_voxels.T
            out[:, z, y, x] = 0
            out[self.sure_classes, z, y, x] = 1
        return out


@dataclass
class SegmentResult:
    """The mask and all about it.

    Attributes
    ----------
    labels : (Z, Y, X) ndarray of integers
        On the image's canonical grid; 0 is background, classes keep the values of the prompts.
    grid : Grid
    values : tuple of int
        Label value of every class, background (0) first.
    voxels : dict of int to int
        Voxels of every class, the background left out.
    volumes_ml : dict of int to float
    field : GaussianField
        The field that the mask was found with.
    seconds, seconds_fit, seconds_solve : float
        Wall time altogether, of fitting the field (0 when it was there), of the solve.
    timings : dict of str to float
        Seconds of the solve's stages.
    """

    labels: NDArray[Any]
    grid: Grid
    values: tuple[int, ...]
    voxels: dict[int, int]
    field: GaussianField
    seconds: float
    seconds_fit: float
    seconds_solve: float
    timings: dict[str, float] = dataclasses.field(default_factory=dict)
    _indices: NDArray[np.uint8] = dataclasses.field(
        default_factory=lambda: np.zeros((0, 0, 0), np.uint8), repr=False
    )
    _snapshot: Snapshot | None = dataclasses.field(default=None, repr=False)
    _uncertainty: Floats | None = dataclasses.field(default=None, repr=False)

    @property
    def volumes_ml(self) -> dict[int, float]:
        """Volume of every class in millilitres."""
        return {k: n * self.grid.voxel_volume / 1000 for k, n in self.voxels.items()}

    @property
    def slice_axis(self) -> int:
        """The field's slice axis."""
        return self.field.info.slice_axis

    def probability(self) -> Floats:
        """Return how likely every class is, (K, Z, Y, X) in the order of ``values``.

        Made anew at every call: K volumes of float32.
        """
        if self._snapshot is None:
            raise RuntimeError("This result was read back and holds no probabilities.")
        stack = self._snapshot.probability(self._indices)
        return np.moveaxis(stack, 1, self.slice_axis + 1)

    def uncertainty(self) -> Floats:
        """Return the entropy of the probabilities over its largest value, (Z, Y, X), 0 to 1."""
        if self._uncertainty is None:
            probability = self.probability()
            self._uncertainty = entropy(probability)
        return self._uncertainty


def entropy(probability: Floats) -> Floats:
    """Return the entropy over classes (K, ...) divided by its maximum, 0 to 1."""
    classes = len(probability)
    total = np.zeros(probability.shape[1:], np.float32)
    for part in probability:
        total -= part * np.log(np.maximum(part, np.float32(1e-7)))
    total /= np.float32(np.log(max(classes, 2)))
    return np.clip(total, 0, 1, out=total)
