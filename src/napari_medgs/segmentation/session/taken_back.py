"""Clicks that later strokes contradict: of two prompts on one voxel the later one counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.segmentation.prompts.collector import point_ball
from napari_medgs.segmentation.prompts.prompts import Point
from napari_medgs.segmentation.session.changes import Delta
from napari_medgs.segmentation.session.settings import Settings

Painted = Callable[[NDArray[np.int64]], NDArray[Any]]


def painted_by(strokes: Delta, unlabeled: int) -> Painted:
    """Return what tells the values that a change of the strokes gave to voxels.

    Parameters
    ----------
    strokes : Delta
        Of one voxel or more.
    unlabeled : int
        What it tells of voxels that did not change.

    Returns
    -------
    callable
        Flat indices (P,) -> values (P,).

    Examples
    --------
    >>> import numpy as np
    >>> strokes = Delta(np.array([3]), np.array([2]), np.array([0]), np.array([7]))
    >>> painted_by(strokes, 0)(np.array([2, 3, 4, 5])).tolist()
    [0, 7, 7, 0]
    """
    ends = strokes.starts + strokes.lengths

    def values(flat: NDArray[np.int64]) -> NDArray[Any]:
        run = np.searchsorted(strokes.starts, flat, side="right") - 1
        inside = (run >= 0) & (flat < ends[run])
        return np.where(inside, strokes.after[run], unlabeled)

    return values


def without_overpainted(settings: Settings, painted: Painted, grid: Grid) -> Settings:
    """Return settings whose points mark nothing that was painted over with another class.

    A point is removed where its own voxel was painted over; it shrinks where other voxels of its
    ball were.

    Parameters
    ----------
    settings : Settings
    painted : callable
        Flat indices (P,) -> stroke values (P,) of what has just been painted, ``unlabeled`` where
        nothing was. The eraser takes no point back.
    grid : Grid

    Returns
    -------
    Settings
        The same object where no point is contradicted.

    Examples
    --------
    >>> import numpy as np
    >>> settings, grid = Settings(points=(Point((1.0, 1.0, 1.0), 1),)), Grid((3, 3, 3))
    >>> beside = without_overpainted(settings, lambda flat: np.where(flat == 14, 2, 0), grid)
    >>> [point.radius for point in beside.points]
    [0.5]
    """
    points = [_left_of(point, settings, painted, grid) for point in settings.points]
    left = tuple(point for point in points if point is not None)
    return settings if left == settings.points else replace(settings, points=left)


def _left_of(point: Point, settings: Settings, painted: Painted, grid: Grid) -> Point | None:
    """Return what is left of a point, or None."""
    ball, middle = point_ball(point, grid.shape, grid.relative_spacing)
    contradicted = ball[_contradict(point, painted(ball), settings)]
    if not len(contradicted):
        return point
    if middle in contradicted:
        return None
    away = _distances(point, ball, grid)
    nearest = away[np.isin(ball, contradicted)].min()
    # Halfway between voxels: rounding decides nothing.
    return replace(point, radius=float(nearest + away[away < nearest].max(initial=0)) / 2)


def _contradict(point: Point, values: NDArray[Any], settings: Settings) -> NDArray[np.bool_]:
    """Return which stroke values say something else than a point."""
    background = 0 if settings.background is None else settings.background
    label = background if point.label == 0 else point.label
    same = values == label
    if not point.positive:
        return same
    marked: NDArray[np.bool_] = values != settings.unlabeled
    return marked & ~same


def _distances(point: Point, flat: NDArray[np.int64], grid: Grid) -> NDArray[np.float64]:
    """Return how far voxels are from a point, in voxels of the finest axis."""
    voxels = np.stack(np.unravel_index(flat, grid.shape), axis=1)
    away: NDArray[np.float64] = np.linalg.norm(
        (voxels - point.position) * grid.relative_spacing, axis=1
    )
    return away
