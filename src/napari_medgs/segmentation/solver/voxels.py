"""The graph's solution on voxels: rendered, refined where classes are close, cleaned up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import StageTimer
from napari_medgs.segmentation.advanced import SolverParams
from napari_medgs.segmentation.params import SegmentParams, SegmentStage
from napari_medgs.segmentation.postprocess.class_edits import clear_outside_range
from napari_medgs.segmentation.postprocess.components import drop_islands, fill_holes
from napari_medgs.segmentation.postprocess.full_slices import FullSliceInterpolator
from napari_medgs.segmentation.result.result import SolvedScores
from napari_medgs.segmentation.solver.band_limits import BandLimits, band_limits
from napari_medgs.segmentation.solver.constraints import Constraints
from napari_medgs.segmentation.solver.geodesic import GraphSolver
from napari_medgs.segmentation.solver.leaked_components import trim_leaked_components
from napari_medgs.segmentation.solver.narrow_band import (
    NarrowBand,
    NarrowBandRefiner,
    grown,
    windows_of,
)
from napari_medgs.segmentation.solver.propagation import GraphState
from napari_medgs.segmentation.terms.image_features import ImageFeatures

CHANGE_REACH = 4  # voxels around what new strokes change in which paths are sought anew


class VoxelSolution(NamedTuple):
    """Paths on the graph, class indices (Z, Y, X) of uint8, and scores."""

    graph: GraphState
    labels: NDArray[np.uint8]
    scores: SolvedScores


@dataclass(frozen=True)
class VoxelState:
    """What an update leaves on voxels for quick ones: scores, and labels before postprocessing."""

    graph: GraphState
    scores: Floats
    labels: NDArray[np.uint8]
    limits: BandLimits | None
    band: NarrowBand
    params: SegmentParams


@dataclass(frozen=True)
class _Change:
    """Rows and columns of every slice that other scores reach, and what was known there."""

    known: VoxelState
    windows: NDArray[np.int32]


class VoxelSolver:
    """Labels voxels; keeps the arrays that this needs for one image, and the last labels.

    Everything is slice-first.

    Parameters
    ----------
    image : (Z, Y, X) ndarray
        The first channel, for ranges of intensities.
    features : ImageFeatures
    graph : GraphSolver
        Of the same image.
    params : SolverParams
    """

    def __init__(
        self,
        image: NDArray[Any],
        features: ImageFeatures,
        graph: GraphSolver,
        params: SolverParams,
    ) -> None:
        self._image, self._graph, self._params = image, graph, params
        self._relative_spacing = features.relative_spacing
        self._best = np.empty(image.shape, np.float32)
        self._margin = np.empty(image.shape, np.float32)
        self._refiner = NarrowBandRefiner(features, params)
        self._interpolator = FullSliceInterpolator(
            features.guide, features.relative_spacing, params.shape.max_gap,
            params.shape.min_overlap,
        )  # fmt: skip
        self._state: VoxelState | None = None

    def weigh(self, features: ImageFeatures) -> None:
        """Refine on the same features with other strengths of the channels."""
        self._refiner = NarrowBandRefiner(features, self._params)

    def forget(self) -> None:
        """Drop the last labels: the next solve is a full one."""
        self._state = None

    def solve(
        self,
        state: GraphState,
        constraints: Constraints,
        params: SegmentParams,
        timer: StageTimer,
        quick: bool,
    ) -> VoxelSolution:
        """Render the graph's solution, refine voxels of small margin, postprocess.

        Parameters
        ----------
        state : GraphState
        constraints : Constraints
        params : SegmentParams
        timer : StageTimer
        quick : bool
            Only where scores differ from those of the last solve.

        Returns
        -------
        VoxelSolution
        """
        scores = self._graph.scores(state.solution.distance)
        renderer = self._graph.renderer(scores)
        change = self._change(state, scores, params) if quick else None
        self._state = None  # an update that is canceled leaves nothing
        timer.stage(SegmentStage.RENDER)
        if change is None:
            labels, windows = np.empty(self._margin.shape, np.uint8), None
        else:
            labels, windows = change.known.labels, change.windows
        renderer.argmax(scores, labels, self._best, self._margin, windows)
        timer.end()
        timer.stage(SegmentStage.REFINE)
        limits, band = self._refine(labels, state, constraints, params, change)
        self._state = VoxelState(state, scores, labels.copy(), limits, band, params)
        timer.end()
        timer.stage(SegmentStage.POSTPROCESS)
        markers = state.markers
        drawn = markers.voxels[markers.user_marked], markers.classes[markers.user_marked]
        self._postprocess(labels, state, drawn, constraints, params)
        timer.end()
        solved = SolvedScores(
            renderer,
            self._relative_spacing,
            scores,
            partial(
                state.solution.appearance.log_probability, self._graph.features[: len(scores)]
            ),
            band.voxels,
            band.scores,
            *drawn,
            constraints.locked,
            markers.kept,
            params.threads,
            params.advanced.uncertainty,
        )
        return VoxelSolution(state, labels, solved)

    def _change(self, state: GraphState, scores: Floats, params: SegmentParams) -> _Change | None:
        """Return what other scores change of the last labels; None where all is to be solved."""
        known = self._state
        if known is None or known.params != params or known.scores.shape != scores.shape:
            return None
        if state.extends is not None and any(
            state.extends is s for s in (known.graph, known.graph.extends)
        ):
            # All else keeps the labels of a mask.
            return _Change(known, windows_of(state.boxes + known.graph.boxes, self._margin.shape))
        windows = self._graph.renderer(scores).windows((known.scores != scores).any(axis=1))
        return _Change(known, grown(windows, CHANGE_REACH, self._margin.shape))

    def _refine(
        self,
        labels: NDArray[np.uint8],
        state: GraphState,
        constraints: Constraints,
        params: SegmentParams,
        change: _Change | None,
    ) -> tuple[BandLimits | None, NarrowBand]:
        """Label voxels of small margin anew, in place."""
        if not params.refine_voxels:
            none = np.zeros((0, state.markers.count), np.float32)
            every = np.ones(state.markers.count, np.bool_)
            return None, NarrowBand(np.zeros((0, 3), np.int32), none, every)
        arguments = (
            state.solution, state.sources, params.appearance, params.smooth, labels, self._best,
            self._margin,
        )  # fmt: skip
        if change is None:
            limits = band_limits(
                labels, self._margin, state.known, self._relative_spacing, params.refine_voxels,
                params.advanced.narrow_band,
            )  # fmt: skip
            forbidden = constraints.forbidden_at if constraints.any else None
            return limits, self._refiner.refine(*arguments, limits, forbidden)
        known = change.known
        assert known.limits is not None  # the settings are the same
        limits = known.limits.extended(labels, state.known, change.windows)
        band = self._refiner.refine_windows(*arguments, limits, known.band, change.windows)
        return limits, band

    def _postprocess(
        self,
        labels: NDArray[np.uint8],
        state: GraphState,
        drawn: tuple[NDArray[np.int32], NDArray[np.int32]],
        constraints: Constraints,
        params: SegmentParams,
    ) -> None:
        """Make labels agree with the prompts, and drop islands and holes, in place."""
        markers = state.markers
        self._interpolator.fill(labels, markers)
        if markers.kept is not None:
            markers.kept.enforce(labels)
        else:
            axis, _ = markers.annotated_slices()
            labels[(slice(None),) * axis + (markers.empty,)] = 0
        clear_outside_range(labels, self._image, params.lowest, params.highest)
        labels[tuple(drawn[0].T)] = drawn[1]
        constraints.enforce(labels)
        if state.scattered is not None:
            trim_leaked_components(
                labels, state.scattered, state.known,
                lambda at: state.solution.appearance.log_probability(self._graph.image.at(at)),
                params.advanced.scatter,
            )  # fmt: skip
        drop_islands(labels, state.known, params.islands)
        if params.fill_holes:
            fill_holes(labels, markers)
        constraints.enforce(labels)  # parts of locked classes are no islands
