"""Refinement on voxels: geodesic distances go on through the image where the margin is small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.segmentation.advanced import NarrowBandParams, SolverParams
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.solver.band_limits import BandLimits
from napari_medgs.segmentation.solver.boundary_smoothing import RING, smooth_boundaries
from napari_medgs.segmentation.solver.narrow_band_kernels import (
    clear_band,
    count_in_windows,
    list_band,
    list_in_windows,
    number_band,
    start_from_shell,
)
from napari_medgs.segmentation.solver.off_borders import off_borders
from napari_medgs.segmentation.solver.path_costs import SOFTENING, UNREACHABLE, GraphSolution
from napari_medgs.segmentation.solver.region_growing import (
    CalmImage,
    GrownLabels,
    grow_regions,
    shown_classes,
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
    shown : (K,) ndarray of bool
        Classes that the Gaussians show at their markers.
    voxel_limit : float
        Limit of path cost that voxels in the annotated slices set, 0 where none.
    """

    voxels: NDArray[np.int32]
    scores: Floats
    shown: NDArray[np.bool_]
    voxel_limit: float = 0.0


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
        self._growing, self._calm = params.region_growing, CalmImage(image)
        self._base_cost = np.float32(params.graph.base_cost)
        self._extent_percentile = params.extent_percentile
        # Thin walls vanish in the smoother guide image of the graph.
        self._guide = image.guide_at_scale(self._params.sigma, self._params.clean_sigma)
        shape = image.guide.shape[1:]
        self._slot = np.full(shape, -1, np.int32)
        self._steps = STEPS[[shape[a // 2] > 1 for a in range(6)]]
        self._lengths = np.abs(self._steps @ image.path_spacing).astype(np.float32)
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
        limits: BandLimits,
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
        limits : BandLimits
            Of the margin: voxels below belong to the band.
        forbidden : callable, optional
            Returns for voxels (B, 3) which classes they cannot have, (K, B).

        Returns
        -------
        NarrowBand
        """
        count = limits.count
        shown = shown_classes(
            labels, markers.voxels, markers.classes, markers.count, self._growing.min_shown
        )
        voxels = np.empty((count, 3), np.int32)
        list_band(margin, limits.values, limits.size, self._slot, voxels)
        try:
            distance = np.full((markers.count, count), np.inf, np.float32)
            scores, voxel_limit = self._solve(
                solution, markers, weight, smooth, labels, best, voxels, forbidden, distance,
                count, shown,
            )  # fmt: skip
        finally:
            clear_band(self._slot, voxels)
        return NarrowBand(voxels, scores, shown, voxel_limit)

    def refine_windows(
        self,
        solution: GraphSolution,
        markers: Markers,
        weight: float,
        smooth: float,
        labels: NDArray[np.uint8],
        best: Floats,
        margin: Floats,
        limits: BandLimits,
        before: NarrowBand,
        windows: NDArray[np.int32],
    ) -> NarrowBand:
        """Refine some rows and columns of every slice, and keep the rest of a band.

        Paths begin at the decided voxels of these windows, and with what is known of the band
        around them. The other parameters are those of :meth:`refine`.

        Parameters
        ----------
        solution : GraphSolution
        markers : Markers
        weight, smooth : float
        labels : (Z, Y, X) ndarray of uint8
            Those of the Gaussians in the windows, the last result elsewhere.
        best, margin : (Z, Y, X) ndarray of float32
        limits : BandLimits
            Those of the last result.
        before : NarrowBand
            Of the last result.
        windows : (Z, 2, 2) ndarray of int32
            See :meth:`~napari_medgs.rendering.engine.ScoreRenderer.windows`.

        Returns
        -------
        NarrowBand
        """
        below = limits.values, limits.size, windows
        inner = np.empty((count_in_windows(margin, *below), 3), np.int32)
        list_in_windows(margin, *below, inner)
        inside = within(before.voxels, windows)
        near = within(before.voxels, grown(windows, RING, self._slot.shape)) & ~inside
        voxels = np.concatenate([inner, before.voxels[near]])
        number_band(self._slot, voxels)
        try:
            distance = np.full((markers.count, len(voxels)), np.inf, np.float32)
            distance[:, len(inner) :] = np.exp(-before.scores[near].T) - np.float32(SOFTENING)
            np.maximum(distance, 0, out=distance)
            scores, _ = self._solve(
                solution, markers, weight, smooth, labels, best, voxels, None, distance,
                len(inner), before.shown, before.voxel_limit,
            )  # fmt: skip
        finally:
            clear_band(self._slot, voxels)
        return NarrowBand(
            np.concatenate([before.voxels[~inside], inner]),
            np.concatenate([before.scores[~inside], scores]),
            before.shown,
            before.voxel_limit,
        )

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
        distance: Floats,
        count: int,
        shown: NDArray[np.bool_],
        voxel_limit: float | None = None,
    ) -> tuple[Floats, float]:
        """Label the first ``count`` numbered voxels in place; return their scores.

        ``distance`` (K, B) holds what is known of the others, infinity for the first ones. Without
        ``voxel_limit``, it is estimated from voxels in the annotated slices, and returned, too.
        """
        classes, image = markers.count, self.image
        starts = np.full((classes, count), np.inf, np.float32)
        start_from_shell(
            self._guide, self._slot, voxels[:count], self._steps, self._lengths,
            self._difference_scales, self._base_cost, labels, best, starts,
        )  # fmt: skip
        distance[:, :count] = starts
        marked = self._slot[tuple(markers.voxels.T)]
        inside = marked >= 0
        distance[markers.classes[inside], marked[inside]] = 0
        z, y, x = voxels.T
        bound = path_bound(np.exp(-best[z, y, x]), self._params)
        grown = self._grow(markers, labels, best, voxels[:count], marked[inside], inside, shown)
        seen = image.at(off_borders(self._guide, voxels, image.path_spacing))
        costs = solution.costs(seen, voxels, weight, grown)
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
        extent = solution.extent
        if voxel_limit is None:
            voxel_limit = extent.limit_of_voxels(voxels, distance, self._extent_percentile)
        extent.end_voxels(distance, voxels, voxel_limit)
        distance += np.float32(SOFTENING)
        scores = np.ascontiguousarray(-np.log(distance[:, :count]).T)
        np.power(distance, np.float32(-self._params.exponent), out=distance)
        distance /= distance.sum(axis=0)
        probability = np.ascontiguousarray(distance.T)
        sharp = probability[:count].argmax(axis=1).astype(np.uint8)
        labels[tuple(voxels[:count].T)] = sharp
        if smooth > 0:
            smooth_boundaries(
                self._slot, voxels, count, labels, probability, sharp, smooth,
                self.image.relative_spacing, self._params.thin_part,
            )  # fmt: skip
        return scores, voxel_limit

    def _grow(
        self,
        markers: Markers,
        labels: NDArray[np.uint8],
        best: Floats,
        voxels: NDArray[np.int32],
        marked: NDArray[np.int32],
        inside: NDArray[np.bool_],
        shown: NDArray[np.bool_],
    ) -> GrownLabels | None:
        """Grow regions over the first voxels of the band; None where a mask is refined."""
        own, several = self._growing, len(markers.annotated_slices()[1]) > 1
        weight, fraction = own.default_weight, own.default_watershed_fraction
        if several:
            weight, fraction = own.weight, own.watershed_fraction
        if markers.kept is not None or weight == 0:
            return None
        first = marked < len(voxels)
        image, classes = self.image, markers.classes[inside][first]
        # Structures that the Gaussians miss may be no wider than the smoothing.
        levels = self._calm.near(voxels) if several and shown.all() else image.sharp
        found = grow_regions(
            levels, image.strengths, self._slot, voxels, marked[first], classes, labels, best,
            own.leak_factor, shown,
        )  # fmt: skip
        return GrownLabels(*found, weight, fraction)


def within(voxels: NDArray[np.int32], windows: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return which voxels (B, 3) lie in rows and columns (Z, 2, 2)."""
    z, y, x = voxels.T
    box = windows[z]
    inside: NDArray[np.bool_] = (y >= box[:, 0, 0]) & (y < box[:, 0, 1])
    inside &= (x >= box[:, 1, 0]) & (x < box[:, 1, 1])
    return inside


def windows_of(boxes: Sequence[tuple[slice, ...]], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return rows and columns (Z, 2, 2) around boxes, with the reach of the smoothing.

    Examples
    --------
    >>> windows_of([np.s_[3:4, 4:6, 1:8]], (9, 9, 9))[:2].tolist()
    [[[9, 0], [9, 0]], [[2, 8], [0, 9]]]
    """
    out = np.empty((shape[0], 2, 2), np.int32)
    out[..., 0], out[..., 1] = shape[1:], 0
    for box in boxes:
        z, *rest = (slice(max(s.start - RING, 0), s.stop + RING) for s in box)
        for axis, (s, n) in enumerate(zip(rest, shape[1:], strict=True)):
            np.minimum(out[z, axis, 0], s.start, out=out[z, axis, 0])
            np.maximum(out[z, axis, 1], min(s.stop, n), out=out[z, axis, 1])
    return out


def grown(windows: NDArray[np.int32], reach: int, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return rows and columns (Z, 2, 2) with so many voxels more on all sides.

    Slices without a window get that of their neighbors.

    Examples
    --------
    >>> windows = np.array([[[3, 5], [2, 4]], [[9, 0], [9, 0]], [[9, 0], [9, 0]]], np.int32)
    >>> grown(windows, 1, (3, 9, 9)).tolist()
    [[[2, 6], [1, 5]], [[2, 6], [1, 5]], [[9, 0], [9, 0]]]
    """
    empty = (windows[..., 0] >= windows[..., 1]).any(axis=1)
    low, high = windows[..., 0].copy(), windows[..., 1].copy()
    low[empty], high[empty] = shape[1:], 0
    out = np.stack([low, high], axis=-1)
    for k in range(1, reach + 1):
        for here, there in ((np.s_[k:], np.s_[:-k]), (np.s_[:-k], np.s_[k:])):
            np.minimum(out[here, :, 0], low[there], out=out[here, :, 0])
            np.maximum(out[here, :, 1], high[there], out=out[here, :, 1])
    some = out[:, 0, 0] < out[:, 0, 1]
    out[some, :, 0] = np.maximum(out[some, :, 0] - reach, 0)
    out[some, :, 1] = np.minimum(out[some, :, 1] + reach, shape[1:])
    return out.astype(np.int32)
