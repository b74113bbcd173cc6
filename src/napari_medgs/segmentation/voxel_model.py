"""The model of all voxels: what is kept between updates, and what one more marker changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from napari_medgs.errors import ParameterError
from napari_medgs.segmentation.first_masks import FirstMasks
from napari_medgs.segmentation.params import SegmentParams, SegmentStage
from napari_medgs.segmentation.postprocess.class_edits import clear_outside_range
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.result.result import SegmentResult, value_table
from napari_medgs.segmentation.result.suggest import Suggestion, suggest_slices
from napari_medgs.segmentation.snapshots import PromptSnapshot, SnapshotMaker
from napari_medgs.segmentation.solver.local_correction import correction_of, near_corrections
from napari_medgs.segmentation.solver.propagation import GraphState
from napari_medgs.segmentation.solver.setup import SolverSetup
from napari_medgs.segmentation.solver.voxels import VoxelSolution
from napari_medgs.segmentation.terms.contrast_weights import (
    ContrastWeights,
    learn_contrast_weights,
)
from napari_medgs.segmentation.terms.near_slices import slices_are_near


class VoxelModel:
    """Computes masks on all voxels of an image as it is; :class:`SegmentModel` chooses these.

    Parameters
    ----------
    volume : Volume
        One or more image channels.
    field : GaussianField
        Fitted to the volume; the geometry of its Gaussians is used, not their values.
    params : SegmentParams, optional
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

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
    >>> from napari_medgs.segmentation import Prompts, fit_for_segmentation
    >>> from napari_medgs.segmentation.voxel_model import VoxelModel
    >>> image = np.zeros((4, 12, 12), np.float32)
    >>> image[:, 3:9, 3:9] = 100
    >>> volume = Volume.from_array(image)
    >>> field = fit_for_segmentation(volume, FitParams(gaussians=60, iterations=5))
    >>> strokes = np.zeros(image.shape, int)
    >>> strokes[1, 6, 4:8], strokes[1, 1, 1:11], strokes[1, 10, 1:11] = 1, 2, 2
    >>> model = VoxelModel(volume, field)
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
        field.check_grid(volume.grid)
        if not len(field):
            raise ParameterError("The field holds no Gaussians; fit it again.")
        self.volume, self.field = volume, field
        self.params = params or SegmentParams()
        self.last: SegmentResult | None = None
        self._axes = field.info.stack_axes
        self._snapshots = SnapshotMaker(volume, self._axes)
        self._first = FirstMasks(self._axes, volume.grid.relative_spacing)
        timer = StageTimer("segmentation", progress, should_stop, 5)
        with limit_threads(self.params.threads):
            self._setup = SolverSetup(volume, field, self.params, timer)

    @contextmanager
    def _solving(self, timer: StageTimer) -> Iterator[SolverSetup]:
        """Limit the threads and give what is computed once, anew for new advanced settings."""
        with limit_threads(self.params.threads):
            if self._setup.advanced != self.params.advanced:
                self._setup = SolverSetup(self.volume, self.field, self.params, timer)
            yield self._setup

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
        return self._snapshots.make(prompts, self.params.advanced.initial_mask)

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
        with self._solving(timer) as setup:
            return self._update(setup, prompts, quick, timer)

    def _update(
        self,
        setup: SolverSetup,
        prompts: Prompts | PromptSnapshot,
        quick: bool,
        timer: StageTimer,
    ) -> SegmentResult:
        timer.stage(SegmentStage.PROMPTS)
        given = self._snapshot_of(prompts)
        snapshot = self._first.known(given, self.params) if quick else given
        extend = self._extension(setup, snapshot) if quick else None
        timer.end()
        corrected = quick and self._first.corrects(given)
        if extend is None:
            trials: list[tuple[PromptSnapshot, VoxelSolution]] = []

            def labels_of(some: PromptSnapshot) -> NDArray[np.uint8]:
                trials[:] = [(some, self._solve(setup, some, timer))]
                return trials[0][1].labels

            if not corrected:
                snapshot = self._first.found(given, labels_of, self.params)
            # What was solved last may be what is asked for.
            if trials and trials[0][0].gives_the_same(snapshot):
                state, labels, scores = trials[0][1]
            else:
                state, labels, scores = self._solve(setup, snapshot, timer)
        else:
            timer.stage(SegmentStage.PATHS)
            state = extend()
            timer.end()
            _, labels, scores = setup.voxels.solve(
                state, snapshot.constraints, self.params, timer, True
            )
        if extend is None and not corrected:
            setup.propagation.last = state
            self._first.remember(snapshot, labels, self.params)
        self.last = SegmentResult.of_classes(
            labels,
            state.markers.values,
            self.volume.grid,
            self.field,
            scores,
            timer.started,
            timings=timer.seconds,
            incremental=extend is not None or corrected,
            has_background=bool((state.markers.classes == 0).any()),
        )
        return self.last

    def _extension(
        self, setup: SolverSetup, snapshot: PromptSnapshot
    ) -> Callable[[], GraphState] | None:
        """Return what extends the last full solve to other prompts; None if nothing can."""
        markers, constraints = snapshot.markers, snapshot.constraints
        if markers.kept is None:
            return setup.propagation.extension(markers, constraints)
        last = setup.propagation.last
        return correction_of(setup.graph, last, markers, constraints, self.params)

    def _solve(
        self, setup: SolverSetup, snapshot: PromptSnapshot, timer: StageTimer
    ) -> VoxelSolution:
        state = self._solve_graph(setup, snapshot, timer)
        return setup.voxels.solve(state, snapshot.constraints, self.params, timer, False)

    def _solve_graph(
        self, setup: SolverSetup, snapshot: PromptSnapshot, timer: StageTimer
    ) -> GraphState:
        """Learn how contrasts count, and solve on the Gaussians."""
        params = self.params
        timer.stage(SegmentStage.TERMS)
        contrasts = self._contrasts(setup, snapshot.markers)
        graph, image = params.advanced.graph, setup.graph.image
        near = slices_are_near(image, snapshot.markers, graph.near_slices)
        edges = None if contrasts is None else contrasts.edges
        setup.weigh(edges, graph.near_slice_distance if near else np.inf)
        return setup.propagation.solve(
            snapshot.markers, snapshot.constraints, contrasts, params, timer
        )

    def _contrasts(self, setup: SolverSetup, markers: Markers) -> ContrastWeights | None:
        params = self.params
        if not params.weigh_contrasts:
            return None
        return learn_contrast_weights(markers, setup.graph.image, params.seed, params.advanced)

    def contrast_weights(self, prompts: Prompts | PromptSnapshot) -> Floats | None:
        """Return how much every contrast counts for every class, as learned from prompts.

        Parameters
        ----------
        prompts : Prompts or PromptSnapshot

        Returns
        -------
        (C, K) ndarray of float32 or None
            Background first; the mean over the contrasts is 1. None where all count alike.

        Raises
        ------
        MedGSError
            When the prompts cannot be used.
        """
        with self._solving(_unseen("contrasts")) as setup:
            weights = self._contrasts(setup, self._snapshot_of(prompts).markers)
        return None if weights is None else weights.by_class

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
        timer = _unseen("preview")
        with self._solving(timer) as setup:
            snapshot = self._first.known(self._snapshot_of(prompts), self.params)
            return self._preview(setup, axis, index, snapshot, timer)

    def _preview(
        self,
        setup: SolverSetup,
        axis: int,
        index: int,
        snapshot: PromptSnapshot,
        timer: StageTimer,
    ) -> NDArray[Any]:
        markers, state = snapshot.markers, setup.propagation.last
        if state is not None and state.markers.values == markers.values:
            kept = markers.kept
            near = markers if kept is None else near_corrections(markers, kept)
            distance = setup.propagation.extended(state, near)
        else:
            distance = self._solve_graph(setup, snapshot, timer).solution.distance
        stack_axis = self._axes.index(axis)
        scores = setup.graph.scores(distance)
        plane = setup.graph.labels_in_plane(scores, stack_axis, index)
        on = markers.user_marked & (markers.voxels[:, stack_axis] == index)
        if markers.kept is not None:
            place = (slice(None),) * stack_axis + (index,)
            np.copyto(plane, markers.kept.classes[place], where=markers.kept.where[place])
        stack = np.moveaxis(self.volume.channel(0), self._axes[0], 0)
        image = np.moveaxis(stack, stack_axis, 0)[index]
        clear_outside_range(plane[None], image[None], self.params.lowest, self.params.highest)
        rest = [a for a in range(3) if a != stack_axis]
        rows, columns = markers.voxels[on][:, rest].T
        plane[rows, columns] = markers.classes[on]
        if [self._axes[a] for a in rest] != sorted(self._axes[a] for a in rest):
            plane = plane.T
        labels: NDArray[Any] = value_table(markers.values)[plane]
        return labels

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
        state = self._setup.propagation.last
        if self.last is None or state is None:
            raise ParameterError("There is no result yet; draw strokes and update first.")
        markers = state.markers
        if axis is None:
            axis = self._axes[markers.annotated_slices()[0]]
        estimate, to = self.last.error_estimate(), self.field.info.slice_axis
        lacking, scattered = None, state.scattered
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


def _unseen(what: str) -> StageTimer:
    """Return the timer of a short computation, which reports nothing and is not stopped."""
    return StageTimer(what, ignore_progress, never_stop, 0)
