"""The voxels that strokes, fully labeled slices and points mark, in canonical order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.arrays import sorted_unique
from napari_medgs.segmentation.prompts.prompts import Point, Prompts

Alike = Callable[[NDArray[np.int64], int], NDArray[np.bool_]]
CLICK = 1.0  # largest radius of a click in finest voxels; larger points mark all of their ball


class MarkerCollector:
    """Collects markers; later ones override earlier ones."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.flat: list[NDArray[np.int64]] = []
        self.label: list[NDArray[np.int64]] = []
        self.user_marked: list[NDArray[np.bool_]] = []

    def add(self, flat: NDArray[Any], label: Any, user_marked: bool) -> None:
        """Mark flat canonical indices with label values (or one value)."""
        if len(flat):
            self.flat.append(np.asarray(flat, np.int64))
            self.label.append(np.broadcast_to(np.asarray(label, np.int64), len(flat)))
            self.user_marked.append(np.full(len(flat), user_marked))

    def extend(self, other: MarkerCollector) -> None:
        """Add all of another collector."""
        self.flat += other.flat
        self.label += other.label
        self.user_marked += other.user_marked

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return indices, labels and whether the user drew them, every voxel once."""
        if not self.flat:
            empty = np.zeros(0, np.int64)
            return empty, empty, np.zeros(0, np.bool_)
        flat = np.concatenate(self.flat)[::-1]
        label, user_marked = (
            np.concatenate(self.label)[::-1],
            np.concatenate(self.user_marked)[::-1],
        )
        if len(self.flat) > 1:
            flat, first = np.unique(flat, return_index=True)
            label, user_marked = label[first], user_marked[first]
        return flat, label, user_marked


def labeled_voxels(labels: NDArray[Any], unlabeled: int) -> NDArray[np.int64]:
    """Return the flat indices of the voxels that are not unlabeled.

    Slice by slice, as a comparison of all voxels at once does not stay in the processor's cache.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of int
    unlabeled : int

    Returns
    -------
    (P,) ndarray of int64
    """
    found = [np.zeros(0, np.int64)]
    for z, plane in enumerate(labels):
        marked = plane != unlabeled
        if marked.any():
            found.append(np.flatnonzero(marked) + z * marked.size)
    return np.concatenate(found)


def find_full_slices(labels: NDArray[Any], unlabeled: int, axis: int) -> NDArray[np.int64]:
    """Return the slices of a label image that have no unlabeled voxel and several labels."""
    stack = np.moveaxis(labels, axis, 0)
    if stack.shape[0] < 2 or min(stack.shape[1:]) < 2:
        return np.zeros(0, np.int64)
    # A few voxels of each slice rule most others out.
    probe = stack[:, :: max(1, stack.shape[1] // 4), :: max(1, stack.shape[2] // 4)]
    likely = np.flatnonzero((probe != unlabeled).all(axis=(1, 2)))
    return np.array(
        [s for s in likely if (stack[s] != unlabeled).all() and np.ptp(stack[s]) > 0], np.int64
    )


def _ball(
    position: tuple[float, float, float],
    radius: float,
    relative_spacing: NDArray[Any],
    shape: tuple[int, int, int],
) -> NDArray[np.int64]:
    """Return flat indices of the voxels in a ball; at least the nearest voxel."""
    center = np.asarray(position)
    extent = np.floor(radius / relative_spacing).astype(int) + 1
    low = np.maximum(np.floor(center).astype(int) - extent, 0)
    high = np.minimum(np.ceil(center).astype(int) + extent + 1, shape)
    grid = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high)], indexing="ij"), -1)
    voxels = grid.reshape(-1, 3)
    near = (((voxels - center) * relative_spacing) ** 2).sum(axis=1) <= radius**2
    flat = np.ravel_multi_index(tuple(voxels[near].T), shape)
    return sorted_unique(np.append(flat, _middle(position, shape)))


def _middle(position: tuple[float, float, float], shape: tuple[int, int, int]) -> int:
    """Return the flat index of the voxel nearest to a place."""
    nearest = np.clip(np.round(position).astype(int), 0, np.asarray(shape) - 1)
    return int(np.ravel_multi_index(tuple(nearest), shape))


@dataclass(frozen=True)
class Strokes:
    """What a label image marks.

    Attributes
    ----------
    flat : tuple of (P,) ndarray of int64
        Flat canonical indices; later ones override earlier ones.
    label : tuple of (P,) ndarray of int64
        0 is background.
    fully_labeled : dict of int to (S,) ndarray of int64
        By slice-first axis: slices that are fully labeled.
    painted : bool
        Whether anything is marked.
    """

    flat: tuple[NDArray[np.int64], ...] = ()
    label: tuple[NDArray[np.int64], ...] = ()
    fully_labeled: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    painted: bool = False


def collect_strokes(
    prompts: Prompts, shape: tuple[int, int, int], axes: tuple[int, int, int]
) -> Strokes:
    """Collect strokes and fully labeled slices; the result shares no memory with the prompts.

    Parameters
    ----------
    prompts : Prompts
        Checked.
    shape : (Z, Y, X) of the canonical grid
    axes : (int, int, int)
        Canonical axes in slice-first order.

    Returns
    -------
    Strokes
    """
    labels = prompts.labels
    if labels is None:
        return Strokes()
    background = prompts.background_value
    flat = labeled_voxels(labels, prompts.unlabeled)
    fully_labeled: dict[int, NDArray[np.int64]] = {}
    places = []
    for axis in range(3):
        full = find_full_slices(labels, prompts.unlabeled, axis).tolist() if len(flat) else []
        named = {index for a, index in prompts.fully_labeled if a == axis}
        for index in sorted(named):
            plane = np.moveaxis(np.arange(labels.size).reshape(shape), axis, 0)[index]
            empty = np.moveaxis(labels, axis, 0)[index] == prompts.unlabeled
            places.append(np.asarray(plane[empty], np.int64))
        if full or named:
            fully_labeled[axes.index(axis)] = np.array(sorted({*full, *named}), np.int64)
    drawn = labels.reshape(-1)[flat].astype(np.int64)
    if background:
        drawn = np.where(drawn == background, 0, drawn)
    kinds = [*(np.zeros(len(place), np.int64) for place in places), drawn]
    painted = bool(prompts.fully_labeled) or len(flat) > 0
    return Strokes((*places, flat), tuple(kinds), fully_labeled, painted)


def collect_points(
    prompts: Prompts,
    strokes: Strokes,
    shape: tuple[int, int, int],
    relative_spacing: NDArray[Any],
    alike: Alike | None = None,
) -> tuple[MarkerCollector, list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Collect strokes and points; return also what negative points deny: voxels and labels."""
    markers = MarkerCollector(shape)
    for flat, label in zip(strokes.flat, strokes.label, strict=True):
        markers.add(flat, label, user_marked=True)
    denied_flat, denied_label = [], []
    middles = np.array([_middle(point.position, shape) for point in prompts.points], np.int64)
    for middle, point in zip(middles.tolist(), prompts.points, strict=True):
        ball = _ball(point.position, point.radius, relative_spacing, shape)
        if point.radius <= CLICK:
            # What was clicked itself stays, however near to it another class is clicked.
            ball = ball[(ball == middle) | ~np.isin(ball, middles)]
        background_point = point.positive and prompts.is_background(point.label)
        if alike is not None and len(ball) > 1 and not background_point:
            ball = ball[alike(ball, middle)]
        if point.positive:
            value = 0 if prompts.is_background(point.label) else point.label
            markers.add(ball, value, user_marked=True)
        else:
            denied_flat.append(ball)
            denied_label.append(np.full(len(ball), point.label))
    return markers, denied_flat, denied_label


def drawn_voxels(
    prompts: Prompts, shape: tuple[int, int, int], relative_spacing: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the voxels that strokes, fully labeled slices and points give a label.

    Parameters
    ----------
    prompts : Prompts
        Checked.
    shape : (Z, Y, X) of the canonical grid
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.

    Returns
    -------
    flat : (P,) ndarray of int64
        Flat indices, each once, increasing.
    label : (P,) ndarray of int64
        0 is background.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.full((2, 3, 4), -1)
    >>> labels[1, 0, :2], labels[1, 2, 3] = 5, 0
    >>> drawn_voxels(Prompts(labels=labels, unlabeled=-1), (2, 3, 4), np.ones(3))
    (array([12, 13, 23]), array([5, 5, 0]))
    """
    strokes = collect_strokes(prompts, shape, (0, 1, 2))
    flat, label, _ = collect_points(prompts, strokes, shape, relative_spacing)[0].result()
    order = np.argsort(flat, kind="stable")
    return flat[order], label[order]


def point_ball(
    point: Point, shape: tuple[int, int, int], relative_spacing: NDArray[Any]
) -> tuple[NDArray[np.int64], int]:
    """Return the voxels that a point can mark, and its own one.

    Parameters
    ----------
    point : Point
    shape : (Z, Y, X) of the canonical grid
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.

    Returns
    -------
    ball : (P,) ndarray of int64
        Flat indices, each once, increasing.
    middle : int
        Flat index of the voxel that was clicked.
    """
    ball = _ball(point.position, point.radius, relative_spacing, shape)
    return ball, _middle(point.position, shape)
