"""Refinement on voxels: geodesic distances go on through the image where the margin is small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.segmentation.advanced import NarrowBandParams, SolverParams
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.solver.geodesic import (
    SOFTENING,
    UNREACHABLE,
    GraphSolution,
)
from napari_medgs.segmentation.solver.narrow_band_kernels import (
    clear_band,
    count_below,
    list_band,
    smooth_probabilities,
    start_from_shell,
)
from napari_medgs.segmentation.solver.shortest_paths import band_distances
from napari_medgs.segmentation.terms.image_features import ImageFeatures

STEPS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
CHUNK = 8192


@dataclass
class NarrowBand:
    """Voxels of small margin and their scores.

    Attributes
    ----------
    voxels : (B, 3) ndarray of int32
    scores : (B, K) ndarray of float32
        Minus the logarithm of every class's path cost.
    """

    voxels: NDArray[np.int32]
    scores: Floats


def choose_threshold(
    margin: Floats, max_voxels: int, params: NarrowBandParams | None = None
) -> float:
    """Return the margin below which voxels belong to the band.

    Parameters
    ----------
    margin : (Z, Y, X) ndarray of float32
        Margin of the best score over the second.
    max_voxels : int
    params : NarrowBandParams, optional

    Returns
    -------
    float
        The largest of ``params.thresholds`` with at most ``max_voxels`` voxels below, or
        ``params.min_threshold``.
    """
    params = params or NarrowBandParams()
    thresholds = np.array(params.thresholds, np.float32)
    best = float(thresholds[0])
    for threshold in thresholds:
        counts = np.zeros(len(margin), np.int64)
        limit = threshold

        def count(z: int, counts: NDArray[np.int64] = counts, limit: Any = limit) -> None:
            counts[z] = count_below(margin, limit, z, z + 1)

        run_chunks(count, len(margin))
        if threshold > params.min_threshold and counts.sum() > max_voxels:
            break
        best = float(threshold)
    return best


def path_bound(distance: Floats, params: NarrowBandParams | None = None) -> Floats:
    """Return the path costs up to which other classes' paths are followed, from the winner's."""
    params = params or NarrowBandParams()
    bound: Floats = (distance + np.float32(params.bound_offset)) * np.float32(params.bound_factor)
    return bound


class NarrowBandRefiner:
    """Solves on the voxels of the band; keeps the arrays that this needs for one image.

    Parameters
    ----------
    image : ImageFeatures
    params : SolverParams, optional
    """

    def __init__(self, image: ImageFeatures, params: SolverParams | None = None) -> None:
        params = params or SolverParams()
        self.image, self._params = image, params.narrow_band
        self._base_cost = np.float32(params.graph.base_cost)
        # Thin walls vanish in the smoother guide image of the graph.
        self._guide = image.guide_at_scale(self._params.sigma)
        shape = image.guide.shape[1:]
        self._slot = np.full(shape, -1, np.int32)
        self._steps = STEPS[[shape[a // 2] > 1 for a in range(6)]]
        self._lengths = np.abs(self._steps @ image.relative_spacing).astype(np.float32)
        # The squared gradient times the length: difference^2 / length.
        self._difference_scales = (1 / self._lengths).astype(np.float32)

    def refine(
        self,
        solution: GraphSolution,
        markers: Markers,
        weight: float,
        smooth: float,
        labels: NDArray[np.uint8],
        best: Floats,
        margin: Floats,
        threshold: float,
        forbidden: Callable[[NDArray[np.int32]], NDArray[np.bool_]] | None = None,
    ) -> NarrowBand:
        """Label the voxels of small margin anew; ``labels`` are changed in place.

        Parameters
        ----------
        solution : GraphSolution
        markers : Markers
        weight : float
            Of the data cost.
        smooth : float
            Standard deviation of the final smoothing of probabilities, in finest voxels.
        labels : (Z, Y, X) ndarray of uint8
        best, margin : (Z, Y, X) ndarray of float32
            The highest score and its margin over the second.
        threshold : float
            Voxels of smaller margin belong to the band.
        forbidden : callable, optional
            Returns for voxels (B, 3) which classes they cannot have, (K, B).

        Returns
        -------
        NarrowBand
        """
        count = sum(
            int(count_below(margin, np.float32(threshold), z, z + 1)) for z in range(len(margin))
        )
        voxels = np.empty((count, 3), np.int32)
        list_band(margin, np.float32(threshold), self._slot, voxels)
        try:
            return self._solve(solution, markers, weight, smooth, labels, best, voxels, forbidden)
        finally:
            clear_band(self._slot, voxels)

    def _solve(
        self,
        solution: GraphSolution,
        markers: Markers,
        weight: float,
        smooth: float,
        labels: NDArray[np.uint8],
        best: Floats,
        voxels: NDArray[np.int32],
        forbidden: Callable[[NDArray[np.int32]], NDArray[np.bool_]] | None,
    ) -> NarrowBand:
        classes, image = markers.count, self.image
        distance = np.full((classes, len(voxels)), np.inf, np.float32)
        start_from_shell(
            self._guide, self._slot, voxels, self._steps, self._lengths, self._difference_scales,
            self._base_cost, labels, best, distance,
        )  # fmt: skip
        marked = self._slot[tuple(markers.voxels.T)]
        inside = marked >= 0
        distance[markers.classes[inside], marked[inside]] = 0
        z, y, x = voxels.T
        bound = path_bound(np.exp(-best[z, y, x]), self._params)
        costs = solution.costs(image.at(voxels), voxels, weight)
        unary, gradient_weight = (
            np.ascontiguousarray(costs.unary.T),
            np.ascontiguousarray(costs.gradient_weight.T),
        )
        if forbidden is not None:
            unary[forbidden(voxels)] = UNREACHABLE

        def task(k: int) -> None:
            band_distances(
                self._guide, self._slot, voxels, self._steps, self._lengths,
                self._difference_scales,
                self._base_cost, unary[k], gradient_weight[k], bound, distance[k],
            )  # fmt: skip

        run_chunks(task, classes)
        np.minimum(distance, bound, out=distance)
        if forbidden is not None:
            distance[forbidden(voxels)] = UNREACHABLE
        np.minimum(distance[0], solution.extent.at(voxels), out=distance[0])
        distance += np.float32(SOFTENING)
        scores = np.ascontiguousarray(-np.log(distance).T)
        np.power(distance, np.float32(-self._params.exponent), out=distance)
        distance /= distance.sum(axis=0)
        probability = np.ascontiguousarray(distance.T)
        if smooth > 0:
            probability = self._smooth(voxels, labels, probability, smooth)
        labels[tuple(voxels.T)] = probability.argmax(axis=1)
        return NarrowBand(voxels, scores)

    def _smooth(
        self,
        voxels: NDArray[np.int32],
        labels: NDArray[np.uint8],
        scores: Floats,
        sigma: float,
    ) -> Floats:
        """Average probabilities over neighbors, weighted by a Gaussian in mm."""
        radius = [min(2, int(2 * sigma / s)) for s in self.image.relative_spacing]
        grid = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in radius], indexing="ij"), -1)
        offsets = grid.reshape(-1, 3)
        square = ((offsets * self.image.relative_spacing) ** 2).sum(axis=1)
        near = square <= (2 * sigma) ** 2 + 1e-6
        if np.count_nonzero(near) == 1:  # the square of a tiny width may be zero
            return scores
        offsets = np.ascontiguousarray(offsets[near])
        weights = np.exp(-0.5 * square[near] / sigma**2).astype(np.float32)
        out = np.empty_like(scores)

        def task(block: int) -> None:
            first = block * CHUNK
            last = min(len(voxels), first + CHUNK)
            smooth_probabilities(
                self._slot, voxels, labels, scores, offsets, weights, first, last, out
            )

        run_chunks(task, -(-len(voxels) // CHUNK))
        return out
