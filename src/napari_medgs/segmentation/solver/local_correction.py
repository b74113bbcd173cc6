"""A solve near what prompts newly set free of a mask, while all else stays as it was.

A full solve with a mask learns from it, and propagates everywhere what it keeps. One more prompt
changes what is free near it, and next to nothing elsewhere: there the mask stays. So the paths of
the last full solve go on into what is free now, with the appearance that was learned then and the
votes of a watershed from the present markers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.prompts.kept_labels import KeptLabels
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.solver.constraints import Constraints
from napari_medgs.segmentation.solver.extent import ExtentLimits
from napari_medgs.segmentation.solver.geodesic import GraphSolver
from napari_medgs.segmentation.solver.narrow_band import path_bound
from napari_medgs.segmentation.solver.path_costs import UNREACHABLE, PathCosts
from napari_medgs.segmentation.solver.propagation import GraphState

NODES = 2.0  # distances of nodes around what is free in which nodes are solved anew
SEEDS = 4.0  # the same, in which markers count
LAYER = 3.0  # voxels around what is free in which markers of a mask depend on it
MARGIN = 8.0  # finest voxels around strokes in the margin of a mask
Box = tuple[slice, ...]


def correction_of(
    graph: GraphSolver,
    last: GraphState | None,
    markers: Markers,
    constraints: Constraints,
    params: SegmentParams,
) -> Callable[[], GraphState] | None:
    """Return what corrects the last full solve near new prompts; None where that cannot be.

    Parameters
    ----------
    graph : GraphSolver
    last : GraphState or None
        Of the last full solve.
    markers : Markers
        With a mask that they correct.
    constraints : Constraints
    params : SegmentParams

    Returns
    -------
    callable or None
        () -> GraphState. None where classes or the mask are others, drawn markers are gone, or
        there are constraints.
    """
    kept = markers.kept
    if last is None or kept is None or constraints.any or last.constrained:
        return None
    before = last.markers
    if before.values != markers.values or len(markers.negative_voxels):
        return None
    # A mask that was not kept before is what the full solve gave.
    boxes = [p.box for p in kept.parts] if before.kept is None else kept.changed_since(before.kept)
    shape = kept.where.shape
    drawn, drawn_before = _drawn(markers, shape), _drawn(before, shape)
    if boxes is None or not np.isin(drawn_before, drawn).all():
        return None
    fresh = markers.voxels[markers.user_marked][~np.isin(drawn, drawn_before)]
    fresh = fresh[~kept.where[tuple(fresh.T)]]
    boxes += kept.parts_at(fresh)
    if kept.free is not None and kept.free[tuple(fresh.T)].any():
        boxes.append(_box_around(fresh, MARGIN / graph.image.relative_spacing, shape))
    return lambda: _corrected(graph, last, markers, kept, boxes, params)


def near_corrections(markers: Markers, kept: KeptLabels) -> Markers:
    """Return what is drawn, and the markers of a mask around what prompts set free of it."""
    boxes = [part.box for part in kept.parts]
    layer = np.full(3, LAYER)
    return markers.subset(markers.user_marked | _within(markers.voxels, boxes, layer))


def _drawn(markers: Markers, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return a number for every drawn voxel and its class."""
    voxels, classes = markers.voxels[markers.user_marked], markers.classes[markers.user_marked]
    number: NDArray[np.int64] = np.ravel_multi_index(tuple(voxels.T), shape) * markers.count
    return number + classes


def _corrected(
    graph: GraphSolver,
    last: GraphState,
    markers: Markers,
    kept: KeptLabels,
    boxes: Sequence[Box],
    params: SegmentParams,
) -> GraphState:
    if not boxes:
        return replace(last, markers=markers, extends=last)
    old = last.solution
    votes = graph.watershed(params.seed).vote(markers.voxels, markers.classes, markers.count)
    votes = replace(votes, weight=params.advanced.watershed.default_weight)
    solution = replace(
        old, prior=kept, votes=votes, shape=params.advanced.initial_mask.prior_weight,
        extent=ExtentLimits(float(UNREACHABLE), float(UNREACHABLE)),
    )  # fmt: skip
    nodes = np.flatnonzero(_within(graph.points, boxes, NODES * graph.node_distance))
    own = solution.costs(graph.features[nodes], graph.points[nodes], params.appearance)
    costs = PathCosts(last.costs.unary.copy(), last.costs.gradient_weight.copy())
    costs.unary[nodes], costs.gradient_weight[nodes] = own.unary, own.gradient_weight
    near = markers.subset(_within(markers.voxels, boxes, SEEDS * graph.node_distance))
    seeds = last.seeds.copy()
    seeds[nodes] = graph.seeds(near.voxels, near.classes, near.count)[nodes]
    distance = _propagate_within(graph, old.distance, nodes, seeds, costs)
    bound = path_bound(distance[:, nodes].min(axis=0), params.advanced.narrow_band)
    distance[:, nodes] = np.minimum(distance[:, nodes], bound)
    solution = replace(solution, distance=distance)
    return GraphState(
        markers, solution, seeds, costs, constrained=False, extends=last, boxes=tuple(boxes)
    )


def _box_around(voxels: NDArray[Any], margin: NDArray[np.float64], shape: tuple[int, ...]) -> Box:
    low = np.maximum(voxels.min(axis=0) - margin, 0).astype(int).tolist()
    high = np.minimum(voxels.max(axis=0) + 1 + margin, shape).astype(int).tolist()
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))


def _propagate_within(
    graph: GraphSolver,
    distance: Floats,
    nodes: NDArray[np.int64],
    seeds: NDArray[np.int32],
    costs: PathCosts,
) -> Floats:
    """Return path costs (K, N), found anew at some nodes from those around them."""
    distance = distance.copy()
    unary = np.ascontiguousarray(costs.unary.T)
    weight = np.ascontiguousarray(costs.gradient_weight.T)
    offsets, neighbors = graph.graph.offsets, graph.graph.neighbors
    around = [neighbors[offsets[n] : offsets[n + 1]] for n in nodes]
    rim = np.setdiff1d(np.concatenate(around), nodes) if around else nodes
    bound = np.full(len(graph.points), -1, np.float32)  # nothing changes elsewhere
    bound[nodes] = UNREACHABLE

    def task(k: int) -> None:
        mine = distance[k]
        mine[nodes] = UNREACHABLE
        own = nodes[seeds[nodes] == k]
        mine[own] = 0
        graph.relax(unary[k], weight[k], np.concatenate([own, rim]), mine, bound)

    run_chunks(task, len(unary))
    return distance


def _within(
    points: NDArray[Any], boxes: Sequence[Box], margin: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return which points (P, 3) lie in one of some boxes, or nearer to it than a margin."""
    found = np.zeros(len(points), np.bool_)
    for box in boxes:
        inside = np.ones(len(points), np.bool_)
        for axis, s, m in zip(points.T, box, margin, strict=True):
            inside &= (axis >= s.start - m) & (axis <= s.stop - 1 + m)
        found |= inside
    return found
