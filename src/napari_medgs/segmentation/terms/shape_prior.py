"""A shape prior from the outlines in annotated slices, along the motion of structures.

Between two slices signed distances are interpolated, where they are followed from slice to slice
(:mod:`~napari_medgs.segmentation.terms.slice_motion`). Past the outermost slices the outline of
the nearest one is followed: it tells which places lie outside of a class, not where it ends.

References
----------
Raya and Udupa 1990, *Shape-based interpolation of multidimensional objects*, IEEE TMI 9(1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.interpolation.kernels import bilinear
from napari_medgs.segmentation.term_params import ShapeParams
from napari_medgs.segmentation.terms.oblique_parts import MOVED, UNKNOWN, oblique_parts
from napari_medgs.segmentation.terms.slice_motion import Trajectories

MIN_PROBABILITY = 1e-3
NOWHERE = np.zeros((2, 1, 2, 1, 1), np.float32)

_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz"}}


@njit(**_options)
def _place(places: Any, y: Any, x: Any, side: Any) -> tuple[Any, Any]:
    """Return the row and column that a pixel comes from; ``places`` are those of blocks."""
    half = np.float32(0.5)
    by, bx = (y + half) / side - half, (x + half) / side - half
    row, column = bilinear(places[0], by, bx), bilinear(places[1], by, bx)
    return (row + half) * side - half, (column + half) * side - half


@njit(**_options)
def _add_outside(
    distances: Any, shown: Any, y: Any, x: Any, inverse: Any, most: Any, weight: Any, mix: Any,
    cost: Any,
) -> None:  # fmt: skip
    """Add to one point's costs what the outlines of the nearest slice speak against.

    They cannot tell where a class ends, so that the background never costs more, and a class only
    so much: outlines that were found too small do not take it away.
    """
    classes = len(distances)
    for k in range(classes):
        mix[k] = bilinear(distances[k], y, x) * inverse
    for k in range(1, classes):
        if not shown[k]:
            mix[k] = max(mix[k], mix[0])
    peak, total = mix.max(), np.float32(0)
    for k in range(classes):
        mix[k] = np.exp(mix[k] - peak)
        total += mix[k]
    least = np.float32(MIN_PROBABILITY)
    background = np.log(max(mix[0] / total, least))
    for k in range(1, classes):
        against = background - np.log(max(mix[k] / total, least))
        cost[k] += weight * min(max(against, np.float32(0)), most)


@njit(**_options)
def _add_prior(
    distances: Any,
    moves: Any,
    kinds: Any,
    shown: Any,
    positions: Any,
    followed: Any,
    places: Any,
    block: Any,
    plane_axis: int,
    slice_spacing: Any,
    edge_width: float,
    edge_growth: float,
    points: Any,
    first: int,
    last: int,
    cost: Any,
    weight: Any,
    outside_weight: Any,
    outside_most: Any,
) -> None:
    """Add the prior's cost at points first .. last-1.

    ``followed`` says whether there are ``places`` along the motion; without them, there is no
    cost before the first and after the last slice.
    """
    slices, classes = distances.shape[:2]
    one = np.float32(1)
    row_axis = 1 if plane_axis == 0 else 0
    column_axis = 1 if plane_axis == 2 else 2
    mix = np.empty(classes, np.float32)
    for i in range(first, last):
        z = points[i, plane_axis]
        near = min(max(int(np.round(z)), 0), places.shape[1] - 1)
        y, x = points[i, row_axis], points[i, column_axis]
        before, after = z <= positions[0], z >= positions[slices - 1]
        if before or after:
            if not followed or outside_weight == 0:
                continue
            s, side = (0, 1) if before else (slices - 1, 0)
            if near == positions[s]:
                continue
            py, px = _place(places[side, near], y, x, block)
            away = abs(z - positions[s]) * slice_spacing
            inverse = one / np.float32(edge_width + edge_growth * away)
            _add_outside(
                distances[s], shown[s], py, px, inverse, outside_most, weight * outside_weight,
                mix, cost[i],
            )  # fmt: skip
            continue
        above = 1
        while positions[above] < z:
            above += 1
        if followed and (near == positions[above - 1] or near == positions[above]):
            continue  # an annotated slice has its own markers
        t = np.float32((z - positions[above - 1]) / (positions[above] - positions[above - 1]))
        away = min(z - positions[above - 1], positions[above] - z) * slice_spacing
        inverse = one / np.float32(edge_width + edge_growth * away)
        if followed:
            ya, xa = _place(places[0, near], y, x, block)
            yb, xb = _place(places[1, near], y, x, block)
        peak = np.float32(-1e30)
        for k in range(classes):
            moved = kinds[above - 1, k] == MOVED
            value = np.float32(-1e30)
            if moved or not followed:
                move = moves[above - 1, k]
                a = bilinear(distances[above - 1, k], y - t * move[0], x - t * move[1])
                b = bilinear(distances[above, k], y + (one - t) * move[0], x + (one - t) * move[1])
                value = (one - t) * a + t * b
            if followed:
                a = bilinear(distances[above - 1, k], ya, xa)
                b = bilinear(distances[above, k], yb, xb)
                value = max(value, (one - t) * a + t * b)
            mix[k] = value * inverse
        for k in range(1, classes):
            if kinds[above - 1, k] == MOVED:  # the background is what surrounds it
                mix[0] = min(mix[0], -mix[k])
        for k in range(classes):
            if kinds[above - 1, k] == UNKNOWN:
                mix[k] = max(mix[k], mix[0])
            peak = max(peak, mix[k])
        total = np.float32(0)
        for k in range(classes):
            mix[k] = np.exp(mix[k] - peak)
            total += mix[k]
        for k in range(classes):
            cost[i, k] -= weight * np.log(max(mix[k] / total, np.float32(MIN_PROBABILITY)))


@dataclass(frozen=True)
class ShapePrior:
    """Signed distances of every class in the annotated slices of one orientation.

    Between two slices distances are interpolated linearly; class probabilities are their softmax
    over a width that grows with the distance from the nearer slice. Thin parts move from slice to
    slice, where they would be lost between them. Past the first and the last slice only classes
    that are less likely than the background cost anything, and only where motion is known.

    Attributes
    ----------
    axis : int
        Normal of the slices, in slice-first axes.
    positions : (S,) ndarray of float32
        Of the slices, increasing.
    distances : (S, K, rows, columns) ndarray of float32
        In finest voxels, positive inside.
    slice_spacing : float
        Distance of neighboring slices in finest voxels.
    moves : (S - 1, K, 2) ndarray of float32, kinds : (S - 1, K) ndarray of uint8
        See :func:`~napari_medgs.segmentation.terms.oblique_parts.oblique_parts`.
    params : ShapeParams
    shown : (S, K) ndarray of bool
        Classes whose outlines count past the slices.
    trajectories : Trajectories or None
        Along which outlines go; straight lines without them.
    outside : bool
        Whether the prior goes on past the outermost slices.
    """

    axis: int
    positions: Floats
    distances: Floats
    slice_spacing: float
    moves: Floats
    kinds: NDArray[np.uint8]
    params: ShapeParams
    shown: NDArray[np.bool_]
    trajectories: Trajectories | None = None
    outside: bool = True

    def add_cost(self, points: NDArray[Any], cost: Floats, weight: float) -> None:
        """Add the prior's weighted negative log-probability to the costs of points.

        Parameters
        ----------
        points : (P, 3) ndarray
            In slice-first voxels.
        cost : (P, K) ndarray of float32
            Changed in place.
        weight : float
        """
        ways = self.trajectories
        if len(self.positions) < (2 if ways is None else 1):
            return
        places = NOWHERE if ways is None else ways.places
        outside = np.float32(self.params.outside_weight if self.outside else 0)
        points = np.ascontiguousarray(points, np.float32)
        chunk = 16384

        def task(block: int) -> None:
            first = block * chunk
            _add_prior(
                self.distances,
                self.moves,
                self.kinds,
                self.shown,
                self.positions,
                ways is not None,
                places,
                np.float32(1 if ways is None else ways.reduction),
                self.axis,
                np.float32(self.slice_spacing),
                self.params.edge_width,
                self.params.edge_growth,
                points,
                first,
                min(len(points), first + chunk),
                cost,
                np.float32(weight),
                outside,
                np.float32(self.params.outside_most),
            )

        run_chunks(task, -(-len(points) // chunk))


def shape_prior(
    labels: NDArray[np.uint8],
    indices: NDArray[Any],
    axis: int,
    relative_spacing: NDArray[Any],
    classes: int,
    params: ShapeParams | None = None,
    scattered: frozenset[int] = frozenset(),
    shown: NDArray[np.bool_] | None = None,
    trajectories: Trajectories | None = None,
    outside: bool = True,
) -> ShapePrior:
    """Compute the prior of labeled slices.

    Parameters
    ----------
    labels : (S, rows, columns) ndarray of uint8
    indices : (S,) ndarray of int
        Increasing indices of the slices.
    axis : int
        Normal of the slices.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    classes : int
    params : ShapeParams, optional
    scattered : frozenset of int
        Classes whose components begin and end between slices: nowhere less likely than the
        background.
    shown : (S, K) ndarray of bool, optional
        Classes whose outlines count past the slices; all by default.
    trajectories : Trajectories, optional
        To these slices.
    outside : bool
        Whether the prior goes on past the outermost slices, along the trajectories.

    Returns
    -------
    ShapePrior
    """
    from scipy.ndimage import distance_transform_edt

    params = params or ShapeParams()
    most = params.max_distance
    sampling = [float(relative_spacing[a]) for a in range(3) if a != axis]
    distances = np.full((len(labels), classes, *labels.shape[1:]), -most, np.float32)
    margin = [int(most / spacing) + 1 for spacing in sampling]

    def measure(index: int) -> None:
        s, k = divmod(index, classes)
        mask = labels[s] == k
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        if not rows.any():
            return
        if mask.all():
            distances[s, k] = most
            return
        box: list[slice] = []
        for hits, pad in ((rows, margin[0]), (columns, margin[1])):
            where = np.flatnonzero(hits)
            box.append(slice(max(0, where[0] - pad), where[-1] + pad + 1))
        part = mask[tuple(box)]
        inner = distance_transform_edt(part, sampling=sampling)
        outer = distance_transform_edt(~part, sampling=sampling)
        distances[s, k][tuple(box)] = np.clip(inner - outer, -most, most)

    run_chunks(measure, len(labels) * classes)
    for k in scattered:
        np.maximum(distances[:, k], distances[:, 0], out=distances[:, k])
    return ShapePrior(
        axis,
        np.asarray(indices, np.float32),
        distances,
        float(relative_spacing[axis]),
        *oblique_parts(labels, distances, params.oblique_depth, scattered),
        params,
        np.ones((len(labels), classes), np.bool_) if shown is None else shown,
        trajectories,
        outside,
    )
