"""The result of a segmentation; probabilities and uncertainty are computed when asked for."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import limit_threads, run_chunks
from napari_medgs.data.field import GaussianField
from napari_medgs.data.grid import Grid
from napari_medgs.rendering.engine import ScoreRenderer
from napari_medgs.segmentation.advanced import UncertaintyParams
from napari_medgs.segmentation.prompts.kept_labels import KeptLabels
from napari_medgs.segmentation.result.uncertainty import (
    ErrorEstimate,
    RelativeBoundaryDistance,
    compute_margins,
    predict_error,
)

EXPONENT = np.float32(1.0)  # probability is proportional to path cost to minus this: calibrated
COUNTED = 1 << 16  # words of eight voxels that a thread counts at a time
_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def _count(words: Any, out: Any) -> None:
    """Count bytes in words of eight; words of one value, which most are, at once."""
    for word in words:
        value = word & np.uint64(255)
        if word == value * np.uint64(0x0101010101010101):
            out[value] += 8
            continue
        for _ in range(8):
            out[word & np.uint64(255)] += 1
            word >>= np.uint64(8)


def count_labels(labels: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Return the number of voxels per class.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of uint8
        Class indices.
    classes : int

    Returns
    -------
    (classes,) ndarray of int64
    """
    flat = labels.ravel(order="K")  # no copy, whichever axis comes first
    whole = len(flat) // 8 * 8
    words = flat[:whole].view(np.uint64)
    chunks = -(-len(words) // COUNTED)
    counts = np.zeros((chunks + 1, 256), np.int64)
    run_chunks(lambda k: _count(words[k * COUNTED : (k + 1) * COUNTED], counts[k]), chunks)
    counts[chunks] = np.bincount(flat[whole:], minlength=256)
    total: NDArray[np.int64] = counts.sum(axis=0)[:classes]
    return total


def value_table(values: tuple[int, ...]) -> NDArray[Any]:
    """Return the label value of every class index, in the smallest type that holds them."""
    return np.asarray(values).astype(np.min_scalar_type(max(values)))


def softmax(scores: Floats) -> Floats:
    """Turn scores (K, ...) into probabilities over the first axis, in place."""
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return scores


class Scores(Protocol):
    """What gives the probabilities and errors of one result; all slice-first."""

    def probability(self, labels: NDArray[np.uint8]) -> Floats:
        """Return (K, Z, Y, X) probabilities of the classes."""
        ...

    def error_estimate(self, labels: NDArray[np.uint8]) -> ErrorEstimate:
        """Return how likely labels (Z, Y, X) are wrong, and the most likely other classes."""
        ...


@dataclass
class SolvedScores:
    """What probabilities and errors of one result are computed from, slice-first.

    Attributes
    ----------
    renderer : ScoreRenderer
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    scores : (N, K) ndarray of float32
    appearance : callable
        () -> (N, K) log-probabilities of the appearance model at the Gaussians.
    band_voxels : (B, 3) ndarray of int32, band_scores : (B, K) ndarray of float32
    marked_voxels : (S, 3) ndarray of int32, marked_classes : (S,) ndarray of int32
        The user's markers, which are certain.
    locked : dict of int to (Z, Y, X) ndarray of bool
        Where the locked classes are.
    kept : KeptLabels, optional
        What stays of an initial mask: its class is the most likely one there.
    threads : int, optional
        Most CPU threads to use.
    params : UncertaintyParams
    """

    renderer: ScoreRenderer
    relative_spacing: NDArray[np.float64]
    scores: Floats
    appearance: Callable[[], Floats]
    band_voxels: NDArray[np.int32]
    band_scores: Floats
    marked_voxels: NDArray[np.int32]
    marked_classes: NDArray[np.int32]
    locked: dict[int, NDArray[np.bool_]] = dataclasses.field(default_factory=dict)
    kept: KeptLabels | None = None
    threads: int | None = None
    params: UncertaintyParams = dataclasses.field(default_factory=UncertaintyParams)

    def probability(self, labels: NDArray[np.uint8]) -> Floats:
        """Return (K, Z, Y, X) probabilities of the classes."""
        with limit_threads(self.threads):
            return self._probability(labels)

    def _probability(self, labels: NDArray[np.uint8]) -> Floats:
        depth, height, width = labels.shape
        classes = self.scores.shape[1]
        out = np.empty((classes, depth, height, width), np.float32)

        def task(z: int) -> None:
            rendered, empty = self.renderer.render_plane(self.scores, 0, z)
            rendered *= EXPONENT
            softmax(rendered)
            rendered[:, empty] = 0
            rendered[0, empty] = 1
            out[:, z] = rendered

        run_chunks(task, depth)
        if len(self.band_voxels):
            out[(slice(None), *self.band_voxels.T)] = softmax(EXPONENT * self.band_scores.T)
        if self.kept is not None:
            run_chunks(lambda z: self._keep(out[:, z], z), depth)
        if len(self.marked_voxels):
            z, y, x = self.marked_voxels.T
            out[:, z, y, x] = 0
            out[self.marked_classes, z, y, x] = 1
        if self.locked:
            run_chunks(lambda z: self._lock(out[:, z], z), depth)
        return out

    def _keep(self, probability: Floats, z: int) -> None:
        """Exchange the highest probability in one slice with that of the class that stays."""
        assert self.kept is not None
        where = self.kept.where[z]
        values = np.ascontiguousarray(probability[:, where])
        column = np.arange(values.shape[1])
        top, own = values.argmax(axis=0), self.kept.classes[z][where]
        highest = values[top, column]
        values[top, column] = values[own, column]
        values[own, column] = highest
        probability[:, where] = values

    def _lock(self, probability: Floats, z: int) -> None:
        """Make locked classes certain in one slice: there, and nowhere else."""
        for k, mask in self.locked.items():
            probability[:, mask[z]] = 0
            probability[k] = mask[z]
        total = probability.sum(axis=0)
        nothing = total <= 0
        probability[0, nothing] = total[nothing] = 1
        probability /= total

    def error_estimate(self, labels: NDArray[np.uint8]) -> ErrorEstimate:
        """Return how likely labels (Z, Y, X) are wrong, and the most likely other classes."""
        with limit_threads(self.threads):
            return self._error_estimate(labels)

    def _error_estimate(self, labels: NDArray[np.uint8]) -> ErrorEstimate:
        certain = None
        for mask in self.locked.values():
            certain = mask if certain is None else certain | mask
        excluded = np.zeros(self.scores.shape[1], np.bool_)
        excluded[list(self.locked)] = True
        distance = RelativeBoundaryDistance(labels, self.relative_spacing, certain)
        appearance = self.appearance()
        margin = np.empty(labels.shape, np.float32)
        runner_up = np.empty(labels.shape, np.uint8)

        def render(z: int) -> None:
            rendered, empty = self.renderer.render_plane(self.scores, 0, z)
            compute_margins(
                _flat(rendered), labels[z].reshape(-1), excluded,
                margin[z].reshape(-1), runner_up[z].reshape(-1),
            )  # fmt: skip
            margin[z][empty] = np.inf

        run_chunks(render, len(labels))
        if len(self.band_voxels):
            where = tuple(self.band_voxels.T)
            found, other = np.empty(len(where[0]), np.float32), np.empty(len(where[0]), np.uint8)
            scores = np.ascontiguousarray(self.band_scores.T)
            compute_margins(scores, labels[where], excluded, found, other)
            margin[where], runner_up[where] = found, other
        probability = margin  # written over it, slice by slice, to spare a volume

        def predict(z: int) -> None:
            own, plane = labels[z].reshape(-1), labels[z].shape
            by_appearance, unused = np.empty(own.size, np.float32), np.empty(own.size, np.uint8)
            rendered, _ = self.renderer.render_plane(appearance, 0, z)
            compute_margins(_flat(rendered), own, excluded, by_appearance, unused)
            empty = np.isinf(margin[z])
            probability[z] = predict_error(
                margin[z], distance.in_slice(z, plane), -by_appearance.reshape(plane), self.params
            )
            probability[z][empty] = 0
            if certain is not None:
                probability[z][certain[z]] = 0

        run_chunks(predict, len(labels))
        probability[tuple(self.marked_voxels.T)] = 0
        return ErrorEstimate(probability, runner_up)


def _flat(scores: Floats) -> Floats:
    return scores.reshape(len(scores), -1)


@dataclass
class SegmentResult:
    """A label image with volumes, probabilities and uncertainty.

    Attributes
    ----------
    labels : (Z, Y, X) ndarray of integers
        On the image's canonical grid; 0 is background, classes keep the values of the prompts.
    grid : Grid
    values : tuple of int
        Label value of every class, background (0) first.
    voxels : dict of int to int
        Number of voxels per class, without the background.
    volumes_ml : dict of int to float
    field : GaussianField
        The field that the mask was found with.
    seconds, seconds_fit, seconds_solve : float
        Wall time in all, of fitting the field (0 when it was given), and of the solve.
    timings : dict of str to float
        Seconds per stage of the solve (:class:`SegmentStage`).
    incremental : bool
        Whether a quick solve only extended the last full one: a full solve of the same prompts
        may still change the mask.
    has_background : bool
        Whether anything is known to be background: marked, around a box, or in an initial mask.
        Otherwise the classes divide the whole image between them.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> image = np.zeros((6, 24, 24), np.float32)
    >>> image[:, 8:16, 8:16] = 100
    >>> strokes = np.full(image.shape, -1)
    >>> strokes[3, 10:14, 10:14], strokes[3, :4] = 1, 0
    >>> volume = mg.Volume.from_array(image, spacing=(2, 1, 1))
    >>> result = mg.segment(volume, mg.Prompts(labels=strokes, unlabeled=-1))
    >>> sorted(result.voxels), result.labels.shape == image.shape
    ([1], True)
    >>> result.probability().shape, result.uncertainty().shape
    ((2, 6, 24, 24), (6, 24, 24))
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
    has_background: bool = True
    _indices: NDArray[np.uint8] = dataclasses.field(
        default_factory=lambda: np.zeros((0, 0, 0), np.uint8), repr=False
    )
    _scores: Scores | None = dataclasses.field(default=None, repr=False)
    _error_estimate: ErrorEstimate | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def of_classes(
        cls,
        classes: NDArray[np.uint8],
        values: tuple[int, ...],
        grid: Grid,
        field: GaussianField,
        scores: Scores,
        started: float,
        **about: Any,
    ) -> SegmentResult:
        """Make a result of class indices.

        Parameters
        ----------
        classes : (slices, rows, columns) ndarray of uint8
            Class indices along the field's slice axis; kept, not copied.
        values : tuple of int
            Label value of every class, background (0) first.
        grid : Grid
            Of the image.
        field : GaussianField
        scores : Scores
        started : float
            When the solve began, of :func:`time.perf_counter`.
        **about
            ``timings``, ``incremental`` and ``has_background``; see the class.

        Returns
        -------
        SegmentResult
        """
        counts = count_labels(classes, len(values))
        named: NDArray[Any] = classes
        if values != tuple(range(len(values))):
            named = value_table(values)[classes]
        seconds = time.perf_counter() - started
        return cls(
            labels=np.moveaxis(named, 0, field.info.slice_axis),
            grid=grid,
            values=values,
            voxels={value: int(counts[k]) for k, value in enumerate(values) if k},
            field=field,
            seconds=seconds,
            seconds_fit=0.0,
            seconds_solve=seconds,
            _indices=classes,
            _scores=scores,
            **about,
        )

    @property
    def volumes_ml(self) -> dict[int, float]:
        """Volume of every class in milliliters."""
        return {k: n * self.grid.voxel_volume / 1000 for k, n in self.voxels.items()}

    @property
    def slice_axis(self) -> int:
        """The field's slice axis."""
        return self.field.info.slice_axis

    def probability(self) -> Floats:
        """Return the probability of every class.

        It is computed at every call: K volumes of float32.

        Returns
        -------
        (K, Z, Y, X) ndarray of float32
            In the order of ``values``, with sum 1.
        """
        assert self._scores is not None
        stack = self._scores.probability(self._indices)
        return np.moveaxis(stack, 1, self.slice_axis + 1)

    def uncertainty(self) -> Floats:
        """Return the probability that each voxel's label is wrong, 0 to 1.

        Kept after the first call; see :mod:`napari_medgs.segmentation.result.uncertainty`.

        Returns
        -------
        (Z, Y, X) ndarray of float32
        """
        return np.moveaxis(self.error_estimate().error_probability, 0, self.slice_axis)

    def error_estimate(self) -> ErrorEstimate:
        """Return the probability of errors and the most likely other classes, slice-first.

        Kept after the first call.

        Returns
        -------
        ErrorEstimate
        """
        if self._error_estimate is None:
            assert self._scores is not None
            self._error_estimate = self._scores.error_estimate(self._indices)
        return self._error_estimate
