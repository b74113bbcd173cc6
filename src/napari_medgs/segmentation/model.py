"""The interactive model: what is kept between updates, and what one more marker changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
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
from napari_medgs.rendering import score_renderer
from napari_medgs.segmentation.advanced import SolverParams
from napari_medgs.segmentation.params import SegmentParams, SegmentStage
from napari_medgs.segmentation.postprocess.class_edits import intensity_mask
from napari_medgs.segmentation.postprocess.components import drop_islands, fill_holes
from napari_medgs.segmentation.postprocess.full_slices import FullSliceInterpolator
from napari_medgs.segmentation.prompts.initial_mask import initial_mask_of
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.prompts.rasterize import rasterize_prompts
from napari_medgs.segmentation.result.result import SegmentResult, SolvedScores, count_labels
from napari_medgs.segmentation.result.suggest import Suggestion, suggest_slices
from napari_medgs.segmentation.solver.band_limits import BandLimits, band_limits
from napari_medgs.segmentation.solver.constraints import Constraints, resolve_negative_points
from napari_medgs.segmentation.solver.extent import estimate_extent
from napari_medgs.segmentation.solver.geodesic import (
    UNREACHABLE,
    GraphSolution,
    GraphSolver,
    LabelPrior,
    PathCosts,
    edge_costs,
    path_scores,
)
from napari_medgs.segmentation.solver.narrow_band import (
    NarrowBand,
    NarrowBandRefiner,
    grown,
    path_bound,
)
from napari_medgs.segmentation.terms.calibration import fit_terms
from napari_medgs.segmentation.terms.contrast_weights import learn_contrast_weights
from napari_medgs.segmentation.terms.image_features import image_features
from napari_medgs.segmentation.terms.scattered import Scattered, find_scattered

NOISE_SAMPLES = 1e6  # voxels that noise is measured on
CHANGE_REACH = 4  # voxels around what new strokes change in which paths are sought anew
LIKE_NOISE = 4.0  # differences of neighbors (their median) up to which voxels look alike


@dataclass(frozen=True)
class PromptSnapshot:
    """Prompts as they were when :meth:`SegmentModel.snapshot` was called, rasterized.

    It shares no array with them, so that they may change while a solve runs.

    Attributes
    ----------
    values : tuple of int
        Label value of every class that is marked, background (0) first.
    """

    _markers: Markers
    _constraints: Constraints

    @property
    def values(self) -> tuple[int, ...]:
        """Label value of every class, background (0) first."""
        return self._markers.values


@dataclass(frozen=True)
class _State:
    """What a full solve leaves behind for incremental ones."""

    markers: Markers
    solution: GraphSolution
    seeds: NDArray[np.int32]
    costs: PathCosts
    constrained: bool
    scattered: Scattered | None = None

    @property
    def known(self) -> Markers:
        """The markers, with those that were found by the look of their class."""
        return self.markers if self.scattered is None else self.scattered.added_to(self.markers)


@dataclass(frozen=True)
class _VoxelState:
    """What an update leaves on voxels for quick ones: scores, and labels before postprocessing."""

    scores: Floats
    labels: NDArray[np.uint8]
    limits: BandLimits | None
    band: NarrowBand
    params: SegmentParams


class SegmentModel:
    """Computes masks from prompts on one image with one field, again and again.

    Use it from one thread at a time. A full result depends on the prompts and settings alone,
    not on earlier updates.

    Parameters
    ----------
    volume : Volume
        One or more image channels.
    field : GaussianField
        Fitted to the volume; the geometry of its Gaussians is used, not their values.
    params : SegmentParams, optional
    progress, should_stop : callable, optional

    Attributes
    ----------
    volume : Volume
    field : GaussianField
    params : SegmentParams
        May be replaced; new settings count from the next call on.
    last : SegmentResult or None
        Of the last update.

    Raises
    ------
    MedGSError
        For an unusable image, or a field of another grid; ``Cancelled``.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.volume import Volume
    >>> from napari_medgs.fitting import FitParams
    >>> from napari_medgs.segmentation import Prompts, SegmentModel, fit_for_segmentation
    >>> image = np.zeros((4, 12, 12), np.float32)
    >>> image[:, 3:9, 3:9] = 100
    >>> volume = Volume.from_array(image)
    >>> field = fit_for_segmentation(volume, FitParams(gaussians=60, iterations=5))
    >>> strokes = np.zeros(image.shape, int)
    >>> strokes[1, 6, 4:8], strokes[1, 1, 1:11], strokes[1, 10, 1:11] = 1, 2, 2
    >>> model = SegmentModel(volume, field)
    >>> result = model.update(Prompts(labels=strokes, background=2))
    >>> result.values, result.incremental, int(result.labels[2, 6, 6])
    ((0, 1), False, 1)
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
        volume = volume.prepared()
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
        self._relative_spacing = spacing / spacing.min()
        self._best = np.empty(field.info.stack_shape, np.float32)
        self._margin = np.empty(field.info.stack_shape, np.float32)
        self._initial: tuple[int, float, Any] | None = None
        self._prepare(StageTimer("segmentation", progress, should_stop, 4))

    def _prepare(self, timer: StageTimer) -> None:
        """Compute all that depends on the image, the field and the advanced settings only."""
        advanced = self.params.advanced
        spacing = np.asarray(self.volume.spacing)
        with limit_threads(self.params.threads):
            timer.stage(SegmentStage.FEATURES)
            data = np.moveaxis(self.volume.data, self.field.info.slice_axis + 1, 1)
            features = image_features(data, spacing[list(self._axes)], advanced.features)
            self._contrasts: tuple[float, ...] | None = ()
            timer.stage(SegmentStage.RENDERER)
            self._renderer = score_renderer(self.field)
            timer.stage(SegmentStage.GRAPH)
            self._solver = GraphSolver(
                self.field, features, self._renderer, self.params.seed, advanced
            )
            timer.stage(SegmentStage.BUFFERS)
            self._refiner = NarrowBandRefiner(features, advanced)
        self._interpolator = FullSliceInterpolator(
            features.guide, features.relative_spacing, advanced.shape.max_gap
        )
        self._state: _State | None = None
        self._voxels: _VoxelState | None = None
        self._prepared: SolverParams = advanced

    def _refresh(self, timer: StageTimer) -> None:
        """Prepare anew where the advanced settings have changed since."""
        if self._prepared != self.params.advanced:
            self._prepare(timer)

    def snapshot(self, prompts: Prompts) -> PromptSnapshot:
        """Check prompts and rasterize them into a copy that no longer depends on them.

        Call it under the lock that guards the prompts' arrays, and :meth:`update` without it.

        Parameters
        ----------
        prompts : Prompts

        Returns
        -------
        PromptSnapshot

        Raises
        ------
        MedGSError
            When the prompts do not fit the image, or mark fewer than two classes.
        """
        shape = self.volume.shape
        prompts.check(shape)
        initial = None
        source = prompts.initial if prompts.prior is None else prompts.prior
        if source is not None:
            key = (id(source), prompts.initial_margin)
            if self._initial is None or self._initial[:2] != key:
                prepared = initial_mask_of(
                    prompts, self._relative_spacing, self.params.advanced.initial_mask
                )
                self._initial = (*key, (source, prepared))
            initial = self._initial[2][1]
        # Clicks that correct a mask mean all of their balls.
        alike = self._alike if initial is None else None
        rasterized = rasterize_prompts(
            prompts, shape, self._axes, self._relative_spacing, initial, alike
        )
        return PromptSnapshot(rasterized, Constraints(prompts, rasterized, shape, self._axes))

    @cached_property
    def _contrast(self) -> NDArray[np.float64]:
        """Largest difference of two voxels of one tissue by noise, per channel."""
        longest = int(np.argmax(self.volume.shape))
        step = max(1, int(np.sqrt(np.prod(self.volume.shape) / NOISE_SAMPLES)))
        found = []
        for channel in self.volume.data:
            part = np.moveaxis(channel, longest, 2)[::step, ::step].astype(np.float64)
            steps = np.abs(np.diff(part, axis=2)).reshape(-1)
            steps = steps[steps > 0]
            found.append(LIKE_NOISE * float(np.median(steps)) if len(steps) else 0.0)
        return np.array(found)

    def _alike(self, flat: NDArray[np.int64], middle: int) -> NDArray[np.bool_]:
        """Return which voxels do not differ from one by more than noise does."""
        values = self.volume.data.reshape(len(self.volume.data), -1)
        away = np.abs(values[:, flat].astype(np.float64) - values[:, [middle]].astype(np.float64))
        near: NDArray[np.bool_] = np.logical_and.reduce(away <= self._contrast[:, None], axis=0)
        return near

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
        """Compute the mask for prompts.

        Parameters
        ----------
        prompts : Prompts or PromptSnapshot
        quick : bool
            Only propagate the markers that are new since the last full update, with the terms
            fitted then: a fast result while drawing goes on, to be followed by a full update.
            Where markers were removed, or classes are new, this is a full update;
            ``incremental`` of the result tells which it was.
        progress, should_stop : callable, optional
            ``stage`` of the reports is a :class:`SegmentStage`.

        Returns
        -------
        SegmentResult
            Also kept as ``last``.

        Raises
        ------
        MedGSError
            When the prompts cannot be used, before work starts; ``Cancelled`` between stages
            once ``should_stop`` returns True, ``last`` stays.
        """
        timer = StageTimer("segmentation", progress, should_stop, 6)
        with limit_threads(self.params.threads):
            self._refresh(timer)
            return self._update(prompts, quick, timer)

    def _update(
        self, prompts: Prompts | PromptSnapshot, quick: bool, timer: StageTimer
    ) -> SegmentResult:
        timer.stage(SegmentStage.PROMPTS)
        snapshot = self._snapshot_of(prompts)
        markers, constraints = snapshot._markers, snapshot._constraints
        extend = self._extension(markers, constraints) if quick else None
        timer.end()
        if extend is None:
            state = self._solve_graph(markers, constraints, timer)
        else:
            timer.stage(SegmentStage.PATHS)
            state = extend()
            timer.end()
        labels, scores = self._solve_voxels(state, constraints, timer, extend is not None)
        if extend is None:
            self._state = state
        self.last = self._result(labels, state.markers, scores, timer, extend is not None)
        return self.last

    def _extension(
        self, markers: Markers, constraints: Constraints
    ) -> Callable[[], _State] | None:
        """Return what extends the last full solve to more markers, or None if nothing can."""
        old = self._state
        if old is None or constraints.any or len(markers.negative_voxels):
            return None
        if old.markers.values != markers.values or old.constrained:
            return None
        shape = self._solver.image.guide.shape[1:]
        if _new_markers(markers, old.markers, shape).any():
            return None

        def extend() -> _State:
            distance = self._extended(old, markers)
            return replace(old, markers=markers, solution=replace(old.solution, distance=distance))

        return extend

    def _extended(self, old: _State, markers: Markers) -> Floats:
        """Return the last full solve's path costs after the markers that are new since."""
        solver = self._solver
        fresh = _new_markers(old.markers, markers, solver.image.guide.shape[1:])
        seeds = solver.seeds(markers.voxels[fresh], markers.classes[fresh], markers.count)
        seeds[seeds == old.seeds] = -1
        return solver.add_seeds(old.solution.distance, seeds, old.costs)

    def _weigh(self, strengths: Floats | None) -> None:
        """Let contrasts count differently in gradients; what depends on them is made anew."""
        key = () if strengths is None or (strengths == 1).all() else tuple(strengths.tolist())
        if key == self._contrasts:
            return
        # Without it no quick update would start from the gradients of before.
        self._state = self._voxels = None
        self._contrasts = None  # until all is done: memory may not suffice
        features = self._solver.image.weighed(strengths if key else None)
        self._solver.weigh(features)
        self._refiner = NarrowBandRefiner(features, self.params.advanced)
        self._contrasts = key

    def _solve_graph(
        self, markers: Markers, constraints: Constraints, timer: StageTimer
    ) -> _State:
        """Solve on the Gaussians: fit the terms, find paths, and again with the shape prior."""
        params, solver = self.params, self._solver
        timer.stage(SegmentStage.TERMS)
        seeds = solver.seeds(markers.voxels, markers.classes, markers.count)
        contrasts = None
        if params.weigh_contrasts:
            contrasts = learn_contrast_weights(markers, solver.image, params.seed, params.advanced)
        self._weigh(None if contrasts is None else contrasts.edges)
        watershed = solver.watershed(params.seed)
        appearance, votes = fit_terms(
            markers, solver.image, watershed, params.seed, params.advanced, contrasts
        )
        forbidden = constraints.forbidden_at(np.round(solver.points).astype(np.int32))
        at_nodes = appearance, solver.features, solver.points
        costs = edge_costs(*at_nodes, None, votes, params.appearance, params.shape)
        timer.end()
        timer.stage(SegmentStage.PATHS)
        distance = solver.propagate(seeds, costs, forbidden)
        if len(markers.negative_voxels):
            markers = resolve_negative_points(markers, solver, distance)
            seeds = solver.seeds(markers.voxels, markers.classes, markers.count)
            distance = solver.propagate(seeds, costs, forbidden)
        timer.end()
        timer.stage(SegmentStage.SHAPE)
        prior: LabelPrior | None = None
        unseeded = np.zeros((0, 3), np.int32)
        slices, scattered, known = None, None, markers
        if markers.kept is None:  # an initial mask knows the extent of every class
            slices = solver.annotated_slices(distance, markers)
            unseeded = slices.drop_unseeded_components(markers, solver.image.relative_spacing)
            scattered = find_scattered(
                markers, slices, solver.image, appearance, solver.nodes(seeds), params.seed,
                params.advanced,
            )  # fmt: skip
        if scattered is not None:
            known = scattered.added_to(markers)
        changed = len(unseeded) + len(known.voxels) > len(markers.voxels)
        if changed:
            voxels = np.concatenate([known.voxels, unseeded])
            classes = np.concatenate([known.classes, np.zeros(len(unseeded), np.int32)])
            seeds = solver.seeds(voxels, classes, markers.count)
        weight = params.shape
        if markers.kept is not None:
            prior, weight = markers.kept, params.advanced.initial_mask.prior_weight
        elif slices is not None and params.shape > 0 and params.appearance > 0:
            apart = frozenset() if scattered is None else scattered.trusted
            prior = slices.prior(solver.image.relative_spacing, markers.count, apart)
        if prior is not None:
            costs = edge_costs(*at_nodes, prior, votes, params.appearance, weight)
        if prior is not None or changed:
            bound = path_bound(distance.min(axis=0), params.advanced.narrow_band)
            distance = solver.propagate(seeds, costs, forbidden, bound)
        extent = estimate_extent(
            solver.points,
            distance,
            markers,
            params.max_path_ratio,
            float(UNREACHABLE),
            params.advanced.extent_percentile,
            np.inf if slices is None else slices.width(solver.image.relative_spacing),
            params.advanced.extent_gap,
        )
        extent.cut(distance, solver.points, seeds, solver.graph, float(UNREACHABLE))
        timer.end()
        solution = GraphSolution(distance, appearance, prior, votes, extent, weight)
        return _State(markers, solution, seeds, costs, constraints.any, scattered)

    def _solve_voxels(
        self, state: _State, constraints: Constraints, timer: StageTimer, quick: bool
    ) -> tuple[NDArray[np.uint8], SolvedScores]:
        """Render the graph's solution, refine voxels of small margin, postprocess."""
        params, markers, solution = self.params, state.markers, state.solution
        scores = path_scores(solution.distance, len(self.field))
        known, self._voxels = self._voxels, None  # an update that is cancelled leaves nothing
        windows = self._changed_windows(known, scores) if quick and known is not None else None
        timer.stage(SegmentStage.RENDER)
        if windows is None or known is None:
            labels = np.empty(self._margin.shape, np.uint8)
            self._renderer.argmax(scores, labels, self._best, self._margin)
        else:
            labels = known.labels
            self._renderer.argmax(scores, labels, self._best, self._margin, windows)
        timer.end()
        timer.stage(SegmentStage.REFINE)
        band = NarrowBand(np.zeros((0, 3), np.int32), np.zeros((0, markers.count), np.float32))
        limits: BandLimits | None = None
        if params.refine_voxels:
            arguments = (
                solution, state.known, params.appearance, params.smooth, labels, self._best,
                self._margin,
            )  # fmt: skip
            if windows is None or known is None:
                limits = band_limits(
                    labels, self._margin, state.known, self._solver.image.relative_spacing,
                    params.refine_voxels, params.advanced.narrow_band,
                )  # fmt: skip
                forbidden = constraints.forbidden_at if constraints.any else None
                band = self._refiner.refine(*arguments, limits, forbidden)
            else:
                assert known.limits is not None  # the settings are the same
                limits = known.limits.extended(labels, state.known, windows)
                band = self._refiner.refine_windows(*arguments, limits, known.band, windows)
        self._voxels = _VoxelState(scores, labels.copy(), limits, band, params)
        timer.end()
        timer.stage(SegmentStage.POSTPROCESS)
        self._interpolator.fill(labels, markers)
        if markers.kept is not None:
            markers.kept.enforce(labels)
        else:
            axis, _ = markers.annotated_slices()
            labels[(slice(None),) * axis + (markers.empty_slices(),)] = 0
        self._limit(labels, 0)
        drawn = markers.voxels[markers.user_marked], markers.classes[markers.user_marked]
        labels[tuple(drawn[0].T)] = drawn[1]
        constraints.enforce(labels)
        drop_islands(labels, state.known, params.islands)
        if params.fill_holes:
            fill_holes(labels, markers)
        constraints.enforce(labels)  # parts of locked classes are no islands
        timer.end()
        return labels, SolvedScores(
            self._renderer,
            self._solver.image.relative_spacing,
            scores,
            partial(solution.appearance.log_probability, self._solver.features[: len(scores)]),
            band.voxels,
            band.scores,
            *drawn,
            constraints.locked,
            markers.kept,
            params.threads,
            params.advanced.uncertainty,
        )

    def _changed_windows(self, known: _VoxelState, scores: Floats) -> NDArray[np.int32] | None:
        """Return rows and columns that changed scores reach; None where all is to be solved."""
        if known.params != self.params or known.scores.shape != scores.shape:
            return None
        windows = self._renderer.windows((known.scores != scores).any(axis=1))
        return grown(windows, CHANGE_REACH, self._margin.shape)

    def _limit(self, labels: NDArray[np.uint8], axis: int, index: int | None = None) -> None:
        """Make voxels outside the range of intensities background, in place; slice-first."""
        low, high = self.params.lowest, self.params.highest
        if low is None and high is None:
            return
        image = np.moveaxis(self.volume.channel(0), self.field.info.slice_axis, 0)
        image = np.moveaxis(image, axis, 0)
        for k, plane in enumerate(labels if index is None else labels[None]):
            plane[~intensity_mask(image[k if index is None else index], low, high)] = 0

    def preview_slice(
        self, axis: int, index: int, prompts: Prompts | PromptSnapshot
    ) -> NDArray[Any]:
        """Return the labels of one slice of the canonical grid, from the graph alone.

        Markers that are new since the last :meth:`update` are propagated with the terms fitted
        then. Without an earlier update of the same classes the whole graph is solved.

        Parameters
        ----------
        axis, index : int
            The slice.
        prompts : Prompts or PromptSnapshot

        Returns
        -------
        (rows, columns) ndarray of integers

        Raises
        ------
        MedGSError
            When the prompts cannot be used.
        """
        timer = StageTimer("preview", ignore_progress, never_stop, 0)
        with limit_threads(self.params.threads):
            self._refresh(timer)
            return self._preview(axis, index, self._snapshot_of(prompts), timer)

    def _preview(
        self, axis: int, index: int, snapshot: PromptSnapshot, timer: StageTimer
    ) -> NDArray[Any]:
        markers, solver, state = snapshot._markers, self._solver, self._state
        if state is not None and state.markers.values == markers.values:
            distance = self._extended(state, markers)
        else:
            solved = self._solve_graph(markers, snapshot._constraints, timer)
            distance = solved.solution.distance
        stack_axis = self._axes.index(axis)
        plane = solver.labels_in_plane(path_scores(distance, len(self.field)), stack_axis, index)
        on = markers.user_marked & (markers.voxels[:, stack_axis] == index)
        if markers.kept is not None:
            place = (slice(None),) * stack_axis + (index,)
            np.copyto(plane, markers.kept.classes[place], where=markers.kept.where[place])
        self._limit(plane, stack_axis, index)
        rest = [a for a in range(3) if a != stack_axis]
        rows, columns = markers.voxels[on][:, rest].T
        plane[rows, columns] = markers.classes[on]
        if [self._axes[a] for a in rest] != sorted(self._axes[a] for a in rest):
            plane = plane.T
        values = np.asarray(markers.values)
        return values.astype(_smallest(markers.values))[plane]

    def suggest(self, count: int = 1, axis: int | None = None) -> list[Suggestion]:
        """Return the slices to annotate next after the last update, best first.

        Parameters
        ----------
        count : int
        axis : int, optional
            Orientation of the slices on the canonical grid; that of the markers by default.

        Returns
        -------
        list of Suggestion

        Raises
        ------
        ParameterError
            Before the first update.
        """
        if self.last is None or self._state is None:
            raise ParameterError("There is no result yet; draw strokes and update first.")
        markers = self._state.markers
        if axis is None:
            axis = self._axes[markers.annotated_slices()[0]]
        estimate, to = self.last.error_estimate(), self.field.info.slice_axis
        lacking, scattered = None, self._state.scattered
        if scattered is not None:
            lacking = scattered.lacking(self.last._indices, self._axes.index(axis))
        return suggest_slices(
            np.moveaxis(estimate.error_probability, 0, to),
            np.moveaxis(self.last._indices, 0, to),
            np.moveaxis(estimate.runner_up, 0, to),
            axis,
            markers.marked_slices(self._axes.index(axis)),
            self.volume.spacing,
            count,
            self.params.advanced.suggestion,
            lacking,
        )

    def _result(
        self,
        labels: NDArray[np.uint8],
        markers: Markers,
        scores: SolvedScores,
        timer: StageTimer,
        incremental: bool,
    ) -> SegmentResult:
        counts = count_labels(labels, markers.count)
        values = markers.values
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
            scores,
        )


def _smallest(values: tuple[int, ...]) -> Any:
    return np.min_scalar_type(max(values))


def _new_markers(old: Markers, new: Markers, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which markers of ``new`` are not in ``old``."""
    before = np.ravel_multi_index(tuple(old.voxels.T), shape) * old.count + old.classes
    after = np.ravel_multi_index(tuple(new.voxels.T), shape) * new.count + new.classes
    return ~np.isin(after, before)
