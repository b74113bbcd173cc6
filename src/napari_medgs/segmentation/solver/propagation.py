"""Markers are propagated over the graph of Gaussians: terms, paths, and the shape prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import StageTimer
from napari_medgs.segmentation.params import SegmentParams, SegmentStage
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.prompts.thinning import on_middle_lines
from napari_medgs.segmentation.solver.constraints import Constraints, resolve_negative_points
from napari_medgs.segmentation.solver.extent import estimate_extent, extents_end
from napari_medgs.segmentation.solver.geodesic import GraphSolver
from napari_medgs.segmentation.solver.narrow_band import path_bound
from napari_medgs.segmentation.solver.necks import cut_past_necks
from napari_medgs.segmentation.solver.path_costs import (
    UNREACHABLE,
    GraphSolution,
    LabelPrior,
    PathCosts,
    edge_costs,
)
from napari_medgs.segmentation.solver.taken_sections import give_back_sections
from napari_medgs.segmentation.terms.calibration import fit_terms
from napari_medgs.segmentation.terms.contrast_weights import ContrastWeights
from napari_medgs.segmentation.terms.scattered import Scattered, find_scattered


@dataclass(frozen=True)
class GraphState:
    """What a full solve leaves behind for incremental ones.

    Attributes
    ----------
    markers : Markers
    solution : GraphSolution
    seeds : (N,) ndarray of int32
        Class of every node, -1 where it is no seed.
    costs : PathCosts
    constrained : bool
        Whether there are voxels that cannot have all classes.
    scattered : Scattered or None
    passive : (Q, 3) ndarray of int32
        Marked voxels at which no path begins: areas that are painted up to their border, without
        their middle lines.
    beyond : (R, 3) ndarray of int32
        Voxels around such areas that count as background.
    given_back : tuple of (S, 3) and (S,) ndarray of int32, optional
        Voxels and classes of sections that classes got back, see
        :func:`~napari_medgs.segmentation.solver.taken_sections.give_back_sections`.
    extends : GraphState or None
        The full solve that a mask near new prompts was found from.
    boxes : tuple of tuple of slice
        With it: where voxels may have got another label.
    """

    markers: Markers
    solution: GraphSolution
    seeds: NDArray[np.int32]
    costs: PathCosts
    constrained: bool
    scattered: Scattered | None = None
    passive: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    beyond: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    given_back: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None
    extends: GraphState | None = None
    boxes: tuple[tuple[slice, ...], ...] = ()

    @property
    def known(self) -> Markers:
        """The markers, with those that were inferred: by look, around areas, in sections."""
        known = self.markers
        if len(self.beyond):
            known = known.with_inferred(self.beyond, np.zeros(len(self.beyond), np.int32))
        if self.given_back is not None:
            known = known.with_inferred(*self.given_back)
        return known if self.scattered is None else self.scattered.added_to(known)

    @property
    def sources(self) -> Markers:
        """The known markers at which paths over voxels begin."""
        known = self.known
        if not len(self.passive):
            return known
        shape = np.concatenate([known.voxels, self.passive]).max(axis=0) + 1
        passive = np.ravel_multi_index(tuple(self.passive.T), shape)
        return known.subset(~np.isin(np.ravel_multi_index(tuple(known.voxels.T), shape), passive))


class MarkerPropagation:
    """Finds the class of every Gaussian from markers; keeps the last full solve to extend it.

    Parameters
    ----------
    graph : GraphSolver

    Attributes
    ----------
    graph : GraphSolver
    last : GraphState or None
        What :meth:`extension` starts from; set by whoever takes a solve as the last one.
    """

    def __init__(self, graph: GraphSolver) -> None:
        self.graph = graph
        self.last: GraphState | None = None

    def solve(
        self,
        markers: Markers,
        constraints: Constraints,
        contrasts: ContrastWeights | None,
        params: SegmentParams,
        timer: StageTimer,
        painted: NDArray[np.bool_] | None = None,
    ) -> GraphState:
        """Fit the terms, find paths, and find them again with the shape prior.

        Parameters
        ----------
        markers : Markers
        constraints : Constraints
        contrasts : ContrastWeights or None
            How the contrasts count in the appearance.
        params : SegmentParams
        timer : StageTimer
            In its stage of the terms.
        painted : (P,) ndarray of bool, optional
            Markers of areas that are painted up to their border, where that is known.

        Returns
        -------
        GraphState
        """
        solver = self.graph
        # Strokes keep their labels however thick they are; paths begin at their middle lines.
        middle = on_middle_lines(markers)
        sources = markers.subset(middle)
        # What lies at the border of a class looks like what is around it.
        inner = markers if painted is None else markers.subset(middle | ~painted)
        seeds = solver.seeds(sources.voxels, sources.classes, sources.count)
        watershed = solver.watershed(params.seed)
        appearance, votes = fit_terms(
            inner, solver.image, watershed, params.seed, params.advanced, contrasts, sources
        )
        forbidden = constraints.forbidden_at(np.round(solver.points).astype(np.int32))
        log_probability = appearance.log_probability(solver.features)
        at_nodes = log_probability, appearance.gradient_discount, solver.points
        costs = edge_costs(*at_nodes, None, votes, params.appearance, params.shape)
        timer.end()
        timer.stage(SegmentStage.PATHS)
        distance = solver.propagate(seeds, costs, forbidden)
        if len(markers.negative_voxels):
            markers = resolve_negative_points(markers, solver, distance)
            middle = on_middle_lines(markers)
            sources = markers.subset(middle)
            seeds = solver.seeds(sources.voxels, sources.classes, sources.count)
            distance = solver.propagate(seeds, costs, forbidden)
        timer.end()
        timer.stage(SegmentStage.SHAPE)
        prior: LabelPrior | None = None
        unseeded = np.zeros((0, 3), np.int32)
        back = unseeded, unseeded[:, 0]
        slices, scattered = None, None
        if markers.kept is None:  # an initial mask knows the extent of every class
            markers = solver.with_empty_slices(distance, markers)
            slices = solver.annotated_slices(distance, markers)
            back = give_back_sections(solver, slices, markers, sources, costs, forbidden)
            unseeded = slices.drop_unseeded_components(
                markers, solver.image.relative_spacing, partial(solver.lead, distance)
            )
            bare = solver.slices_without_background(distance, markers)
            found = slices.keep_painted(markers, middle, painted)
            found |= bare.keep_painted(markers, middle, painted)
            if painted is None and found.any():
                timer.end()
                timer.stage(SegmentStage.TERMS)
                several = len(slices.indices) + len(bare.indices) > 1
                beyond = np.concatenate(
                    [part.around_painted(markers, found, several) for part in (slices, bare)]
                )
                more = markers.with_inferred(beyond, np.zeros(len(beyond), np.int32))
                added = np.zeros(len(more.voxels) - len(found), np.bool_)
                # Negative points have become markers above.
                more = replace(
                    more, negative_voxels=markers.negative_voxels[:0],
                    negative_classes=markers.negative_classes[:0],
                )  # fmt: skip
                painted = np.concatenate([found, added])
                state = self.solve(more, constraints, contrasts, params, timer, painted)
                markers = replace(markers, empty=state.markers.empty)
                return replace(state, markers=markers, beyond=beyond)
            scattered = find_scattered(
                markers, slices, solver.image, appearance, solver.nodes(seeds),
                log_probability,
                params.seed, params.advanced,
            )  # fmt: skip
        known = markers if scattered is None else scattered.added_to(markers)
        changed = len(unseeded) + len(back[0]) + len(known.voxels) > len(markers.voxels)
        if changed:
            added = np.ones(len(known.voxels) - len(middle), np.bool_)
            sources = known.subset(np.concatenate([middle, added]))
            voxels = np.concatenate([sources.voxels, unseeded, back[0]])
            none = np.zeros(len(unseeded), np.int32)
            classes = np.concatenate([sources.classes, none, back[1]])
            seeds = solver.seeds(voxels, classes, markers.count)
        weight = params.shape
        apart = frozenset() if scattered is None else scattered.trusted
        if markers.kept is not None:
            prior, weight = markers.kept, params.advanced.initial_mask.prior_weight
        elif slices is not None and params.shape > 0 and params.appearance > 0:
            # Balls around clicks and boxes are no outlines that a class would keep.
            outlined = not (markers.clicked or markers.boxes) and slices.hold_most(markers)
            prior = slices.prior(
                solver.image.relative_spacing, markers.count, apart, solver.motion, outlined
            )
        if prior is not None:
            costs = edge_costs(*at_nodes, prior, votes, params.appearance, weight)
        if prior is not None or changed:
            bound = path_bound(distance.min(axis=0), params.advanced.narrow_band)
            distance = solver.propagate(seeds, costs, forbidden, bound)
        extent = estimate_extent(
            solver.points,
            self._within_slices(distance, markers, costs, forbidden),
            markers,
            params.max_path_ratio,
            float(UNREACHABLE),
            params.advanced.extent_percentile,
            np.inf if slices is None else slices.width(solver.image.relative_spacing),
            params.advanced.extent_gap,
            solver.node_distance,
            apart,
        )
        extent.cut(distance, solver.points, seeds, solver.graph, float(UNREACHABLE))
        axis, annotated = markers.annotated_slices()
        if len(annotated) and not markers.boxes and extents_end(markers, params.max_path_ratio):
            cut_past_necks(
                distance, solver.points[:, axis], known, axis, solver.image.guide.shape[axis + 1],
                params.advanced.neck_ratio, float(solver.node_distance[axis]), float(UNREACHABLE),
            )  # fmt: skip
        timer.end()
        solution = GraphSolution(distance, appearance, prior, votes, extent, weight)
        none = np.zeros((0, 3), np.int32)
        passive = none if painted is None else markers.voxels[painted & ~middle]
        return GraphState(
            markers, solution, seeds, costs, constraints.any, scattered, passive,
            given_back=back if len(back[0]) else None,
        )  # fmt: skip

    def _within_slices(
        self,
        distance: Floats,
        markers: Markers,
        costs: PathCosts,
        forbidden: NDArray[np.bool_] | None,
    ) -> Floats:
        """Return path costs that tell how far classes go within the annotated slices.

        Where one fully labeled slice is all there is, its nodes are seeds and cost nothing: there
        the paths are those from the middle lines of its areas. Strokes on slices of another
        orientation pass through the annotated slices, and shorten the paths in them: then only
        those of the annotated slices count.
        """
        axis, slices = markers.annotated_slices()
        if not len(slices):
            return distance
        on = np.isin(markers.voxels[:, axis], slices)
        if len(slices) == 1 and slices[0] in markers.fully_labeled.get(axis, slices[:0]):
            lines = markers.subset(on_middle_lines(markers, fully_labeled=True))
        elif len(markers.subset(~on).annotated_slices()[1]):
            lines = markers.subset(on & on_middle_lines(markers))
        else:
            return distance
        seeds = self.graph.seeds(lines.voxels, lines.classes, lines.count)
        return self.graph.propagate(seeds, costs, forbidden)

    def extension(
        self, markers: Markers, constraints: Constraints
    ) -> Callable[[], GraphState] | None:
        """Return what extends the last full solve to more markers, or None if nothing can."""
        old = self.last
        if old is None or constraints.any or len(markers.negative_voxels):
            return None
        if old.markers.values != markers.values or old.constrained:
            return None
        shape = self.graph.image.guide.shape[1:]
        if _new_markers(markers, old.markers, shape).any():
            return None

        def extend() -> GraphState:
            distance = self.extended(old, markers)
            known = replace(markers, empty=old.markers.empty)
            return replace(old, markers=known, solution=replace(old.solution, distance=distance))

        return extend

    def extended(self, old: GraphState, markers: Markers) -> Floats:
        """Return the last full solve's path costs after the markers that are new since."""
        solver = self.graph
        fresh = _new_markers(old.markers, markers, solver.image.guide.shape[1:])
        seeds = solver.seeds(markers.voxels[fresh], markers.classes[fresh], markers.count)
        seeds[seeds == old.seeds] = -1
        return solver.add_seeds(old.solution.distance, seeds, old.costs)


def _new_markers(old: Markers, new: Markers, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which markers of ``new`` are not in ``old``."""
    before = np.ravel_multi_index(tuple(old.voxels.T), shape) * old.count + old.classes
    after = np.ravel_multi_index(tuple(new.voxels.T), shape) * new.count + new.classes
    return ~np.isin(after, before)
