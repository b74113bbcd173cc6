"""What a segmentation gives back; probabilities and uncertainty are made when asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import limit_threads, run_chunks
from napari_medgs.data.field import GaussianField
from napari_medgs.data.grid import Grid
from napari_medgs.rendering.engine import ScoreRenderer
from napari_medgs.segmentation.result.uncertainty import Depth, Doubt, chance_of, lead_of

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
    """What probabilities and doubt of one result are made of, slice-first.

    Attributes
    ----------
    renderer : ScoreRenderer
    units : (3,) ndarray
        Voxel sizes over the finest one.
    scores : (N, K) ndarray of float32
    looks : callable
        () -> (N, K) log-probabilities of the classes by looks.
    band_voxels : (B, 3) ndarray of int32, band_scores : (B, K) ndarray of float32
    sure_voxels : (S, 3) ndarray of int32, sure_classes : (S,) ndarray of int32
        Marks that are certain.
    locked : dict of int to (Z, Y, X) ndarray of bool
        Where the locked classes are.
    threads : int, optional
        Most CPU threads to use.
    """

    renderer: ScoreRenderer
    units: NDArray[np.float64]
    scores: Floats
    looks: Callable[[], Floats]
    band_voxels: NDArray[np.int32]
    band_scores: Floats
    sure_voxels: NDArray[np.int32]
    sure_classes: NDArray[np.int32]
    locked: dict[int, NDArray[np.bool_]] = dataclasses.field(default_factory=dict)
    threads: int | None = None

    def probability(self, labels: NDArray[np.uint8]) -> Floats:
        """Return (K, Z, Y, X) probabilities of the classes."""
        depth, height, width = labels.shape
        classes = self.scores.shape[1]
        out = np.empty((classes, depth, height, width), np.float32)

        def task(z: int) -> None:
            blended, empty = self.renderer.render_plane(self.scores, 0, z)
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
        if self.locked:
            run_chunks(lambda z: self._lock(out[:, z], z), depth)
        return out

    def _lock(self, probability: Floats, z: int) -> None:
        """Make locked classes certain in one slice: there, and nowhere else."""
        for k, mask in self.locked.items():
            probability[:, mask[z]] = 0
            probability[k] = mask[z]
        total = probability.sum(axis=0)
        nothing = total <= 0
        probability[0, nothing] = total[nothing] = 1
        probability /= total

    def doubt(self, labels: NDArray[np.uint8]) -> Doubt:
        """Return how likely labels (Z, Y, X) are wrong, and what they would be instead."""
        settled = None
        for mask in self.locked.values():
            settled = mask if settled is None else settled | mask
        closed = np.zeros(self.scores.shape[1], np.bool_)
        closed[list(self.locked)] = True
        depth = Depth(labels, self.units, settled)
        looks = self.looks()
        lead = np.empty(labels.shape, np.float32)
        rival = np.empty(labels.shape, np.uint8)

        def render(z: int) -> None:
            own = labels[z].reshape(-1)
            blended, empty = self.renderer.render_plane(self.scores, 0, z)
            lead_of(_flat(blended), own, closed, lead[z].reshape(-1), rival[z].reshape(-1))
            lead[z][empty] = np.inf

        run_chunks(render, len(labels))
        if len(self.band_voxels):
            place = tuple(self.band_voxels.T)
            found, other = np.empty(len(place[0]), np.float32), np.empty(len(place[0]), np.uint8)
            scores = np.ascontiguousarray(self.band_scores.T)
            lead_of(scores, labels[place], closed, found, other)
            lead[place], rival[place] = found, other

        def weigh(z: int) -> None:
            # In place of the lead, slice by slice.
            own, plane = labels[z].reshape(-1), labels[z].shape
            liked, unused = np.empty(own.size, np.float32), np.empty(own.size, np.uint8)
            blended, _ = self.renderer.render_plane(looks, 0, z)
            lead_of(_flat(blended), own, closed, liked, unused)
            certain = np.isinf(lead[z])
            lead[z] = chance_of(lead[z], depth.in_slice(z, plane), -liked.reshape(plane))
            lead[z][certain] = 0
            if settled is not None:
                lead[z][settled[z]] = 0

        run_chunks(weigh, len(labels))
        lead[tuple(self.sure_voxels.T)] = 0
        return Doubt(lead, rival)


def _flat(scores: Floats) -> Floats:
    return scores.reshape(len(scores), -1)


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
        Seconds of the solve's stages (:class:`SegmentStage`).
    incremental : bool
        Whether a quick solve only extended the last full one: a full solve of the same prompts
        may still change the mask.
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
    incremental: bool = False
    _indices: NDArray[np.uint8] = dataclasses.field(
        default_factory=lambda: np.zeros((0, 0, 0), np.uint8), repr=False
    )
    _snapshot: Snapshot | None = dataclasses.field(default=None, repr=False)
    _doubt: Doubt | None = dataclasses.field(default=None, repr=False)

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
        assert self._snapshot is not None
        with limit_threads(self._snapshot.threads):
            stack = self._snapshot.probability(self._indices)
        return np.moveaxis(stack, 1, self.slice_axis + 1)

    def uncertainty(self) -> Floats:
        """Return the chance that each voxel's label is wrong, (Z, Y, X), 0 to 1.

        Kept after the first call. See :mod:`napari_medgs.segmentation.result.uncertainty`.
        """
        return np.moveaxis(self.doubt().chance, 0, self.slice_axis)

    def doubt(self) -> Doubt:
        """Return what may be wrong and what it would be then, slice-first; kept."""
        if self._doubt is None:
            assert self._snapshot is not None
            with limit_threads(self._snapshot.threads):
                self._doubt = self._snapshot.doubt(self._indices)
        return self._doubt
