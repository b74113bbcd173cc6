"""The interactive model: everything kept between strokes, and what one more stroke changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import (
    ProgressCallback,
    StageTimer,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs._util.threads import limit_threads
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.errors import GeometryError, ParameterError
from napari_medgs.rendering.registry import score_renderer
from napari_medgs.segmentation.params import SegmentParams, SegmentStage
from napari_medgs.segmentation.postprocess.components import drop_islands, fill_holes
from napari_medgs.segmentation.postprocess.full_slices import PaintedSlices
from napari_medgs.segmentation.prompts.markers import Evidence, collect_evidence, initial_marks
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.result.result import SegmentResult, Snapshot, count_labels
from napari_medgs.segmentation.result.suggest import Suggestion, suggest_slices
from napari_medgs.segmentation.solver.constraints import Constraints, denied_marks
from napari_medgs.segmentation.solver.extent import find_ends
from napari_medgs.segmentation.solver.geodesic import (
    DISTANT,
    Dues,
    GraphSolution,
    GraphSolver,
    dues,
    scores_of,
)
from napari_medgs.segmentation.solver.narrow_band import Refiner, choose_lead, follow_until
from napari_medgs.segmentation.terms.calibration import opinions
from napari_medgs.segmentation.terms.image_features import image_features


@dataclass(frozen=True)
class PromptSnapshot:
    """Prompts as they were when :meth:`SegmentModel.snapshot` was called, rasterized.

    It shares no array with them, so that they may change while a solve runs.

    Attributes
    ----------
    values : tuple of int
        Label value of every class that is marked, background (0) first.
    """

    _evidence: Evidence
    _constraints: Constraints

    @property
    def values(self) -> tuple[int, ...]:
        """Label value of every class, background (0) first."""
        return self._evidence.values


@dataclass(frozen=True)
class _State:
    """What a full solve leaves behind for quick ones."""

    evidence: Evidence
    solution: GraphSolution
    seeds: NDArray[np.int32]
    due: Dues
    constrained: bool


class SegmentModel:
    """Turns prompts into masks on one image with one field, again and again.

    One thread at a time. The answer depends on the prompts and settings alone, not on what was
    asked before.

    Parameters
    ----------
    volume : Volume
    field : GaussianField
        Fitted to the volume (its image head is not used, its Gaussians are).
    params : SegmentParams, optional
    progress, should_stop : callable, optional

    Raises
    ------
    MedGSError
        For an unusable image, or a field of another grid; ``Cancelled``.
    """

    def __init__(
        self,
        volume: Volume,
        field: GaussianField,
        params: SegmentParams | None = None,
        *,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> None:
        volume.check_image()
        if not field.info.grid.matches(volume.grid):
            raise GeometryError(
                "The field was fitted on another grid than the image's; fit it to this image."
            )
        if not len(field):
            raise ParameterError("The field holds no Gaussians; fit it again.")
        self.volume, self.field = volume, field
        self.params = params or SegmentParams()
        self.last: SegmentResult | None = None
        self._axes = field.info.stack_axes
        spacing = np.asarray(volume.spacing)
        self._units = spacing / spacing.min()
        timer = StageTimer("segmentation", progress, should_stop, 4)
        with limit_threads(self.params.threads):
            timer.stage(SegmentStage.FEATURES)
            data = np.moveaxis(volume.data, field.info.slice_axis + 1, 1)
            features = image_features(data, spacing[list(self._axes)])
            timer.stage(SegmentStage.RENDERER)
            self._renderer = score_renderer(field)
            timer.stage(SegmentStage.GRAPH)
            self._solver = GraphSolver(field, features, self._renderer, self.params.seed)
            timer.stage(SegmentStage.BUFFERS)
            self._refiner = Refiner(features)
        self._painted = PaintedSlices(features.metric, features.units)
        self._top = np.empty(field.info.stack_shape, np.float32)
        self._margin = np.empty(field.info.stack_shape, np.float32)
        self._initial: tuple[int, float, Any] | None = None
        self._state: _State | None = None

    def snapshot(self, prompts: Prompts) -> PromptSnapshot:
        """Check prompts and rasterize them into a copy that no longer depends on them.

        Call it under the lock that guards the prompts' arrays, and :meth:`update` without it.

        Raises
        ------
        MedGSError
            When the prompts do not fit the image, or mark fewer than two classes.
        """
        shape = self.volume.shape
        prompts.check(shape)
        initial = None
        if prompts.initial is not None:
            key = (id(prompts.initial), prompts.initial_margin)
            if self._initial is None or self._initial[:2] != key:
                marks = initial_marks(prompts.initial, prompts.initial_margin, self._units)
                self._initial = (*key, (prompts.initial, marks))
            initial = self._initial[2][1]
        evidence = collect_evidence(prompts, shape, self._axes, self._units, initial)
        return PromptSnapshot(evidence, Constraints(prompts, evidence, shape, self._axes))

    def _snapshot_of(self, prompts: Prompts | PromptSnapshot) -> PromptSnapshot:
        return prompts if isinstance(prompts, PromptSnapshot) else self.snapshot(prompts)

    def update(
        self,
        prompts: Prompts | PromptSnapshot,
        *,
        quick: bool = False,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> SegmentResult:
        """Find the mask for prompts.

        Parameters
        ----------
        prompts : Prompts or PromptSnapshot
        quick : bool
            Only follow the marks that are new since the last full update, under what was learned
            then: a fast answer while painting goes on, to be followed by a full update. Where
            marks were taken away, or classes are new, this is a full update; ``incremental`` of
            the result tells which it was.
        progress, should_stop : callable, optional

        Returns
        -------
        SegmentResult
            Also kept as ``last``.

        Raises
        ------
        MedGSError
            When the prompts cannot be used, before work starts; ``Cancelled`` between stages
            once ``should_stop`` says so, ``last`` stays.
        """
        with limit_threads(self.params.threads):
            return self._update(
                prompts, quick, StageTimer("segmentation", progress, should_stop, 6)
            )

    def _update(
        self, prompts: Prompts | PromptSnapshot, quick: bool, timer: StageTimer
    ) -> SegmentResult:
        timer.stage(SegmentStage.PROMPTS)
        snapshot = self._snapshot_of(prompts)
        evidence, constraints = snapshot._evidence, snapshot._constraints
        follow = self._follow(evidence, constraints) if quick else None
        timer.end()
        if follow is None:
            state = self._solve_graph(evidence, constraints, timer)
        else:
            timer.stage(SegmentStage.PATHS)
            state = follow()
            timer.end()
        labels, scored = self._solve_voxels(state, constraints, timer)
        if follow is None:
            self._state = state
        self.last = self._result(labels, state.evidence, scored, timer, follow is not None)
        return self.last

    def _follow(self, evidence: Evidence, constraints: Constraints) -> Callable[[], _State] | None:
        """Return what extends the last full solve to more marks, or None where nothing can."""
        old = self._state
        if old is None or constraints.any or len(evidence.denied_voxels):
            return None
        if old.evidence.values != evidence.values or old.constrained:
            return None
        shape = self._solver.image.metric.shape[1:]
        if _new_marks(evidence, old.evidence, shape).any():
            return None

        def extend() -> _State:
            distance = self._extended(old, evidence)
            return replace(
                old, evidence=evidence, solution=replace(old.solution, distance=distance)
            )

        return extend

    def _extended(self, old: _State, evidence: Evidence) -> Floats:
        """Return the last full solve's path costs after the marks that are new since."""
        solver = self._solver
        fresh = _new_marks(old.evidence, evidence, solver.image.metric.shape[1:])
        seeds = solver.seeds(evidence.voxels[fresh], evidence.classes[fresh], evidence.count)
        seeds[seeds == old.seeds] = -1
        return solver.add_seeds(old.solution.distance, seeds, old.due)

    def _solve_voxels(
        self, state: _State, constraints: Constraints, timer: StageTimer
    ) -> tuple[NDArray[np.uint8], Snapshot]:
        """Render the graph's solution, look at undecided voxels again, clean up."""
        params, evidence, solution = self.params, state.evidence, state.solution
        timer.stage(SegmentStage.RENDER)
        labels = np.empty(self._margin.shape, np.uint8)
        scores = scores_of(solution.distance, len(self.field))
        self._renderer.argmax(scores, labels, self._top, self._margin)
        timer.end()
        timer.stage(SegmentStage.REFINE)
        band_voxels = np.zeros((0, 3), np.int32)
        band_scores = np.zeros((0, evidence.count), np.float32)
        if params.refine_voxels:
            lead = choose_lead(self._margin, params.refine_voxels)
            band = self._refiner.refine(
                solution,
                evidence,
                params.appearance,
                params.smooth,
                labels,
                self._top,
                self._margin,
                lead,
                constraints.banned_at if constraints.any else None,
            )
            band_voxels, band_scores = band.voxels, band.scores
        timer.end()
        timer.stage(SegmentStage.POSTPROCESS)
        self._painted.fill(labels, evidence)
        hard = evidence.voxels[evidence.hard], evidence.classes[evidence.hard]
        labels[tuple(hard[0].T)] = hard[1]
        constraints.enforce(labels)
        drop_islands(labels, evidence, params.islands)
        if params.fill_holes:
            fill_holes(labels, evidence)
        constraints.enforce(labels)  # parts of locked classes are no islands
        timer.end()
        return labels, Snapshot(
            self._renderer,
            self._solver.image.units,
            scores,
            partial(solution.appearance.log_probability, self._solver.features[: len(scores)]),
            band_voxels,
            band_scores,
            *hard,
            constraints.locked,
            params.threads,
        )

    def _solve_graph(
        self, evidence: Evidence, constraints: Constraints, timer: StageTimer
    ) -> _State:
        """Solve on the Gaussians: learn, spread, and spread again knowing the shape."""
        params, solver = self.params, self._solver
        timer.stage(SegmentStage.TERMS)
        seeds = solver.seeds(evidence.voxels, evidence.classes, evidence.count)
        appearance, flood = opinions(
            evidence, solver.image, solver.floods(params.seed), params.seed
        )
        banned = constraints.banned_at(np.round(solver.points).astype(np.int32))
        look = appearance, solver.features, solver.points
        due = dues(*look, None, flood, params.appearance, params.shape)
        timer.end()
        timer.stage(SegmentStage.PATHS)
        distance = solver.propagate(seeds, due, banned)
        if len(evidence.denied_voxels):
            evidence = denied_marks(evidence, solver, distance)
            seeds = solver.seeds(evidence.voxels, evidence.classes, evidence.count)
            distance = solver.propagate(seeds, due, banned)
        timer.end()
        timer.stage(SegmentStage.SHAPE)
        prior = None
        slices = solver.annotated_slices(distance, evidence)
        untouched = slices.drop_untouched(evidence, solver.image.units)
        if len(untouched):
            voxels = np.concatenate([evidence.voxels, untouched])
            classes = np.concatenate([evidence.classes, np.zeros(len(untouched), np.int32)])
            seeds = solver.seeds(voxels, classes, evidence.count)
        if params.shape > 0 and params.appearance > 0:
            prior = slices.prior(solver.image.units, evidence.count)
        if prior is not None:
            due = dues(*look, prior, flood, params.appearance, params.shape)
        if prior is not None or len(untouched):
            bound = follow_until(distance.min(axis=0))
            distance = solver.propagate(seeds, due, banned, bound)
        ends = find_ends(solver.points, distance, evidence, params.max_path_ratio, float(DISTANT))
        np.minimum(distance[0], ends.at(solver.points), out=distance[0])
        timer.end()
        solution = GraphSolution(distance, appearance, prior, flood, ends, params.shape)
        return _State(evidence, solution, seeds, due, constraints.any)

    def preview_slice(
        self, axis: int, index: int, prompts: Prompts | PromptSnapshot
    ) -> NDArray[Any]:
        """Return the labels of one slice of the canonical grid at once, from the graph alone.

        Marks that are new since the last :meth:`update` spread from there under what was learned
        then. Without an earlier update of the same classes the whole graph is solved.

        Returns
        -------
        (rows, columns) ndarray of integers
        """
        with limit_threads(self.params.threads):
            return self._preview(axis, index, self._snapshot_of(prompts))

    def _preview(self, axis: int, index: int, snapshot: PromptSnapshot) -> NDArray[Any]:
        evidence, solver, state = snapshot._evidence, self._solver, self._state
        if state is not None and state.evidence.values == evidence.values:
            distance = self._extended(state, evidence)
        else:
            timer = StageTimer("segmentation", ignore_progress, never_stop, 0)
            solved = self._solve_graph(evidence, snapshot._constraints, timer)
            distance = solved.solution.distance
        stack_axis = self._axes.index(axis)
        plane = solver.labels_in_plane(scores_of(distance, len(self.field)), stack_axis, index)
        on = evidence.hard & (evidence.voxels[:, stack_axis] == index)
        rest = [a for a in range(3) if a != stack_axis]
        rows, columns = evidence.voxels[on][:, rest].T
        plane[rows, columns] = evidence.classes[on]
        if [self._axes[a] for a in rest] != sorted(self._axes[a] for a in rest):
            plane = plane.T
        values = np.asarray(evidence.values)
        return values.astype(_smallest(evidence.values))[plane]

    def suggest(self, count: int = 1, axis: int | None = None) -> list[Suggestion]:
        """Return where one more stroke helps most after the last update, best first.

        Parameters
        ----------
        count : int
        axis : int, optional
            Orientation of the slices on the canonical grid; that of the strokes by default.

        Raises
        ------
        ParameterError
            Before the first update.
        """
        if self.last is None or self._state is None:
            raise ParameterError("There is no result yet; draw strokes and update first.")
        evidence = self._state.evidence
        if axis is None:
            axis = self._axes[evidence.annotated_planes()[0]]
        doubt, to = self.last.doubt(), self.field.info.slice_axis
        return suggest_slices(
            np.moveaxis(doubt.chance, 0, to),
            np.moveaxis(self.last._indices, 0, to),
            np.moveaxis(doubt.rival, 0, to),
            axis,
            evidence.stroked_planes(self._axes.index(axis)),
            self.volume.spacing,
            count,
        )

    def _result(
        self,
        labels: NDArray[np.uint8],
        evidence: Evidence,
        snapshot: Snapshot,
        timer: StageTimer,
        incremental: bool,
    ) -> SegmentResult:
        counts = count_labels(labels, evidence.count)
        values = evidence.values
        if values == tuple(range(len(values))):
            named: NDArray[Any] = labels
        else:
            named = np.asarray(values).astype(_smallest(values))[labels]
        seconds = time.perf_counter() - timer.started
        return SegmentResult(
            np.moveaxis(named, 0, self.field.info.slice_axis),
            self.volume.grid,
            values,
            {value: int(counts[k]) for k, value in enumerate(values) if k},
            self.field,
            seconds,
            0.0,
            seconds,
            timer.seconds,
            incremental,
            labels,
            snapshot,
        )


def _smallest(values: tuple[int, ...]) -> Any:
    return np.min_scalar_type(max(values))


def _new_marks(old: Evidence, new: Evidence, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which marks of ``new`` are not in ``old``."""
    before = np.ravel_multi_index(tuple(old.voxels.T), shape) * old.count + old.classes
    after = np.ravel_multi_index(tuple(new.voxels.T), shape) * new.count + new.classes
    return ~np.isin(after, before)
