"""Prompts rasterized into marked voxels with class indices, slice axis first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.arrays import sorted_unique
from napari_medgs.data.volume import Volume
from napari_medgs.errors import LabelError
from napari_medgs.segmentation.prompts.initial_mask import InitialMask, initial_mask_of
from napari_medgs.segmentation.prompts.prompts import MOST_CLASSES, Prompts

# A slice counts as drawn in from these many markers on, and from this fraction of those on the
# slice with most of them; strokes of another orientation cross many slices with a few voxels each.
MIN_MARKERS = 4
MIN_FRACTION = 0.05
MIN_FRACTION_ACROSS = 0.2
NO_CLASS = 255
Alike = Callable[[NDArray[np.int64], int], NDArray[np.bool_]]
EMPTY_FRACTION = 0.5  # least background markers of a slice past the ends of everything
BOX_CORE = 0.3  # axes of the ellipsoid that marks a box without strokes, over the box's sides


@dataclass(frozen=True)
class KeptLabels:
    """An initial mask, slice-first: what stays of it, and what prompts contradict.

    Attributes
    ----------
    where : (Z, Y, X) ndarray of bool
        Voxels that keep their class.
    classes : (Z, Y, X) ndarray of uint8
        Of the mask; 255 for a class that has no marker any more.
    nearness : (Z, Y, X) ndarray of float32
        Distance to the nearest prompt that contradicts the mask over the depth of that prompt in
        the wrong label; infinite where there is none near.
    """

    where: NDArray[np.bool_]
    classes: NDArray[np.uint8]
    nearness: Floats

    def enforce(self, labels: NDArray[np.uint8]) -> None:
        """Write the labels that stay into a label image, in place."""
        np.copyto(labels, self.classes, where=self.where)

    def add_cost(self, points: NDArray[Any], cost: Floats, weight: float) -> None:
        """Add the cost of other classes than the mask's near prompts that contradict it.

        That the mask is wrong has the probability ``exp(-nearness) / 2``.

        Parameters
        ----------
        points : (P, 3) ndarray
            In slice-first voxels.
        cost : (P, K) ndarray of float32
            Changed in place.
        weight : float
        """
        limit = np.asarray(self.classes.shape) - 1
        place = tuple(np.clip(np.round(points).astype(np.int64), 0, limit).T)
        nearness, own = self.nearness[place], self.classes[place]
        there = np.flatnonzero(np.isfinite(nearness) & (own < cost.shape[1]))
        wrong = 0.5 * np.exp(-nearness[there])
        more = (np.float32(weight) * np.log((1 - wrong) / wrong)).astype(np.float32)
        cost[there] += more[:, None]
        cost[there, own[there]] -= more


@dataclass(frozen=True)
class Markers:
    """Marked voxels; class 0 is the background.

    Attributes
    ----------
    values : tuple of int
        The label value of every class; 0 for the background.
    voxels : (P, 3) ndarray of int32
        Slice-first indices, each at most once.
    classes : (P,) ndarray of int32
    negative_voxels : (Q, 3) ndarray of int32, negative_classes : (Q,) ndarray of int32
        Voxels that are not of a class.
    boxes : dict
        For boxed classes the boxes (start, stop) that hold them, slice-first.
    fully_labeled : dict
        For every axis the fully labeled slices, increasing.
    user_marked : (P,) ndarray of bool
        Markers that were drawn by the user: the result has exactly these labels.
    kept : KeptLabels or None
        What stays of an initial mask.
    clicked : bool
        There are points only: the slices of one ball tell nothing about each other.
    """

    values: tuple[int, ...]
    voxels: NDArray[np.int32]
    classes: NDArray[np.int32]
    negative_voxels: NDArray[np.int32]
    negative_classes: NDArray[np.int32]
    boxes: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = field(
        default_factory=dict
    )
    fully_labeled: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    user_marked: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    kept: KeptLabels | None = None
    clicked: bool = False

    @property
    def count(self) -> int:
        """Number of classes, the background included."""
        return len(self.values)

    def annotated_slices(self) -> tuple[int, NDArray[np.int64]]:
        """Return the orientation and indices of slices with markers of two classes or more.

        Returns
        -------
        axis : int
            The orientation whose slices hold the most markers each.
        indices : (S,) ndarray of int64
        """
        best, chosen = 0, np.zeros(0, np.int64)
        most = 0.0
        for axis in range(3):
            place = self.voxels[self.user_marked, axis]
            if not len(place):
                continue
            hits = np.zeros((self.count, int(place.max()) + 1), np.int64)
            np.add.at(hits, (self.classes[self.user_marked], place), 1)
            total = hits.sum(axis=0)
            several = ((hits > 0).sum(axis=0) >= 2) & (total >= MIN_MARKERS)
            # Strokes of another orientation cross many slices with a few voxels each.
            several &= total >= MIN_FRACTION_ACROSS * total.max()
            mean = len(place) / max(int(np.count_nonzero(total)), 1)
            if several.any() and mean > most:
                best, chosen, most = axis, np.flatnonzero(several), mean
                if self.clicked:
                    chosen = np.array([int(np.where(several, total, 0).argmax())])
        return best, chosen

    def empty_slices(self) -> NDArray[np.int64]:
        """Return the slices past the annotated ones in which only background is marked.

        Someone who marks nothing but background there says that the structures have ended. Each
        needs half as many background markers as the annotated slices have (their median): a
        short stroke against a leak says nothing of the whole slice.

        Returns
        -------
        (S,) ndarray of int64
            Of the orientation of :meth:`annotated_slices`.
        """
        axis, annotated = self.annotated_slices()
        none = np.zeros(0, np.int64)
        if not len(annotated):
            return none
        place, classes = self.voxels[self.user_marked, axis], self.classes[self.user_marked]
        length = int(place.max()) + 1
        background = np.bincount(place[classes == 0], minlength=length)
        others = np.bincount(place[classes > 0], minlength=length)
        shown = np.flatnonzero(others)
        least = max(MIN_MARKERS, EMPTY_FRACTION * float(np.median(background[annotated])))
        found = np.flatnonzero((others == 0) & (background >= least))
        return found[(found < shown[0]) | (found > shown[-1])] if len(shown) else none

    def marked_slices(self, axis: int) -> NDArray[np.int64]:
        """Return the slices of one orientation that were drawn in, be it with one class only.

        Parameters
        ----------
        axis : int

        Returns
        -------
        (S,) ndarray of int64
        """
        voxels = self.voxels[self.user_marked]
        if not len(voxels):
            return np.zeros(0, np.int64)
        counts = [np.bincount(voxels[:, a]) for a in range(3)]
        most = max(int(c.max()) for c in counts)
        own = axis == self.annotated_slices()[0]
        fraction = MIN_FRACTION if own else MIN_FRACTION_ACROSS
        return np.flatnonzero(counts[axis] >= max(MIN_MARKERS, fraction * most))

    def slice_groups(self) -> NDArray[np.int64]:
        """Return the annotated slice of every marker, -1 where it lies on none."""
        axis, places = self.annotated_slices()
        place = self.voxels[:, axis].astype(np.int64)
        return np.where(np.isin(place, places), place, -1)


class _MarkerCollector:
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

    def extend(self, other: _MarkerCollector) -> None:
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
    nearest = np.clip(np.round(center).astype(int), 0, np.asarray(shape) - 1)
    voxels = np.concatenate([voxels[near], nearest[None]])
    flat = np.ravel_multi_index(tuple(voxels.T), shape)
    return sorted_unique(flat)


def _collect_drawn(
    prompts: Prompts,
    shape: tuple[int, int, int],
    axes: tuple[int, int, int],
    relative_spacing: NDArray[Any],
    alike: Alike | None = None,
) -> tuple[
    _MarkerCollector,
    dict[int, NDArray[np.int64]],
    list[NDArray[np.int64]],
    list[NDArray[np.int64]],
]:
    """Collect strokes and points; return also the fully labeled slices and negative points."""
    markers = _MarkerCollector(shape)
    fully_labeled: dict[int, NDArray[np.int64]] = {}
    background = prompts.background_value

    def as_value(label: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(label == background, 0, label) if background else label

    if prompts.labels is not None:
        labels = prompts.labels
        flat = np.flatnonzero(labels.reshape(-1) != prompts.unlabeled)
        for axis in range(3):
            full = (
                set(find_full_slices(labels, prompts.unlabeled, axis).tolist())
                if len(flat)
                else {}
            )
            named = {index for a, index in prompts.fully_labeled if a == axis}
            for index in sorted(named):
                plane = np.moveaxis(np.arange(labels.size).reshape(shape), axis, 0)[index]
                empty = np.moveaxis(labels, axis, 0)[index] == prompts.unlabeled
                markers.add(plane[empty], 0, user_marked=True)
            if full or named:
                fully_labeled[axes.index(axis)] = np.array(sorted({*full, *named}), np.int64)
        markers.add(flat, as_value(labels.reshape(-1)[flat].astype(np.int64)), user_marked=True)
    denied_flat, denied_label = [], []
    for point in prompts.points:
        ball = _ball(point.position, point.radius, relative_spacing, shape)
        background_point = point.positive and prompts.is_background(point.label)
        if alike is not None and len(ball) > 1 and not background_point:
            middle = np.clip(np.round(point.position), 0, np.asarray(shape) - 1).astype(int)
            ball = ball[alike(ball, int(np.ravel_multi_index(tuple(middle), shape)))]
        if point.positive:
            value = 0 if prompts.is_background(point.label) else point.label
            markers.add(ball, value, user_marked=True)
        else:
            denied_flat.append(ball)
            denied_label.append(np.full(len(ball), point.label))
    return markers, fully_labeled, denied_flat, denied_label


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
    flat, label, _ = _collect_drawn(prompts, shape, (0, 1, 2), relative_spacing)[0].result()
    order = np.argsort(flat, kind="stable")
    return flat[order], label[order]


def rasterize_prompts(
    prompts: Prompts,
    shape: tuple[int, int, int],
    axes: tuple[int, int, int],
    relative_spacing: NDArray[Any],
    initial: InitialMask | None = None,
    alike: Alike | None = None,
) -> Markers:
    """Rasterize checked prompts into marked voxels.

    Parameters
    ----------
    prompts : Prompts
    shape : (Z, Y, X) of the canonical grid
    axes : (int, int, int)
        Canonical axes in slice-first order.
    relative_spacing : (3,) ndarray
        Canonical voxel sizes over the finest one.
    initial : optional
        ``prompts.initial`` or ``prompts.prior``, prepared, when already known.
    alike : callable, optional
        Tells which voxels (flat indices) of a point's ball look like the one that was clicked;
        the others are not marked. All are marked by default, and for the background, which looks
        like many things.

    Returns
    -------
    Markers

    Raises
    ------
    LabelError
        When there are fewer than two classes (the background counts), too many, or negative
        values.
    """
    markers, fully_labeled, denied_flat, denied_label = _collect_drawn(
        prompts, shape, axes, relative_spacing, alike
    )
    background = prompts.background_value
    kept: NDArray[np.bool_] | None = None
    nearness = np.zeros(0, np.float32)
    if prompts.initial is not None or prompts.prior is not None:
        if initial is None:
            initial = initial_mask_of(prompts, relative_spacing)
        denied = _joined(denied_flat), _joined(denied_label)
        nearness = initial.released(_contradictions(initial, markers, denied, shape))
        free = initial.free | np.isfinite(nearness)
        drawn = markers
        markers = _MarkerCollector(shape)
        markers.add(*initial.markers(free), user_marked=False)
        markers.extend(drawn)
        kept = ~free
    boxes = _box_markers(prompts, shape, markers)
    flat, label, user_marked = markers.result()
    if len(label) and label.min() < 0:
        raise LabelError(f"The label {label.min()} is marked; labels must not be negative.")
    present = np.unique(label)
    if len(present) < 2:
        raise LabelError(
            (f"Only one class is marked ({present[0]})" if len(present) else "Nothing is marked")
            + ": mark at least two; the background counts as one"
            + (", but no value is said to mean it." if background is None else ".")
        )
    values = (0, *(int(v) for v in present if v > 0))
    if len(values) > MOST_CLASSES:
        raise LabelError(f"{len(values)} classes are marked; at most {MOST_CLASSES} work.")
    unknown = sorted({int(v[0]) for v in denied_label} - set(values))
    if unknown:
        raise LabelError(
            f"A negative point names the class {unknown[0]}, which has no other markers; add some."
        )
    ordered = np.asarray(values)
    order = list(axes)

    def to_stack(flat_indices: NDArray[np.int64]) -> NDArray[np.int32]:
        voxels = np.stack(np.unravel_index(flat_indices, shape), axis=1)[:, order]
        return np.ascontiguousarray(voxels, np.int32)

    negative, denied_values = _joined(denied_flat), _joined(denied_label)
    return Markers(
        values,
        to_stack(flat),
        np.searchsorted(ordered, label).astype(np.int32),
        to_stack(negative),
        np.searchsorted(ordered, denied_values).astype(np.int32),
        {values.index(k): [(a[order], b[order]) for a, b in pairs] for k, pairs in boxes.items()},
        fully_labeled,
        user_marked,
        None if kept is None or initial is None else _kept(initial, kept, nearness, ordered, axes),
        kept is None and not _is_painted(prompts),
    )


def _kept(
    initial: InitialMask,
    kept: NDArray[np.bool_],
    nearness: Floats,
    values: NDArray[Any],
    axes: tuple[int, int, int],
) -> KeptLabels:
    """Return an initial mask with the classes of the markers, slice-first."""
    place = np.minimum(np.searchsorted(values, initial.labels), len(values) - 1)
    classes = np.where(values[place] == initial.labels, place, NO_CLASS).astype(np.uint8)
    return KeptLabels(kept.transpose(axes), classes.transpose(axes), nearness.transpose(axes))


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _contradictions(
    initial: InitialMask,
    drawn: _MarkerCollector,
    denied: tuple[NDArray[np.int64], NDArray[np.int64]],
    shape: tuple[int, int, int],
) -> NDArray[np.int64]:
    """Return the voxels (P, 3) where prompts say another label than an initial mask."""
    flat, label, _ = drawn.result()
    before = initial.labels.reshape(-1)
    wrong = np.concatenate(
        [flat[before[flat] != label], denied[0][before[denied[0]] == denied[1]]]
    )
    return np.stack(np.unravel_index(wrong, shape), axis=1)


def _is_painted(prompts: Prompts) -> bool:
    """Return whether there are strokes or labeled slices, not clicks and boxes only."""
    labels = prompts.labels
    return labels is not None and (
        bool(prompts.fully_labeled) or bool((labels != prompts.unlabeled).any())
    )


def _box_markers(
    prompts: Prompts, shape: tuple[int, int, int], markers: _MarkerCollector
) -> dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]]:
    """Return the boxes by label; mark the cores of empty ones, and background around them.

    Where the user marks background none is added: so many markers all around the objects would
    outdo the user's, and masks get too small.
    """
    boxes: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
    flat, label, user_marked = markers.result()
    known = bool((user_marked & (label == 0)).any())
    held = np.zeros(shape, np.bool_) if prompts.boxes and not known else None
    for box in prompts.boxes:
        start = np.maximum(box.start, 0)
        stop = np.minimum(box.stop, shape)
        boxes.setdefault(box.label, []).append((start, stop))
        if held is not None:
            held[tuple(slice(a, b) for a, b in zip(start, stop))] = True
        voxels = np.stack(np.unravel_index(flat[label == box.label], shape), axis=1)
        within = ((voxels >= start) & (voxels < stop)).all(axis=1)
        if not bool(within.any()):
            middle, half = (start + stop - 1) / 2, np.maximum((stop - start) * BOX_CORE / 2, 0.9)
            grid = np.stack(
                np.meshgrid(*[np.arange(a, b) for a, b in zip(start, stop)], indexing="ij"), -1
            ).reshape(-1, 3)
            core = grid[(((grid - middle) / half) ** 2).sum(axis=1) <= 1]
            markers.add(np.ravel_multi_index(tuple(core.T), shape), box.label, user_marked=False)
    if held is not None:
        from scipy.ndimage import binary_dilation

        flat, label, _ = markers.result()
        ring = binary_dilation(held, iterations=2) & ~held
        ring.reshape(-1)[flat] = False
        markers.add(np.flatnonzero(ring), 0, user_marked=False)
    return boxes


def check_prompts(prompts: Prompts, volume: Volume) -> Markers:
    """Refuse prompts that :func:`~napari_medgs.segmentation.segment` could not use.

    It needs no field and does no work that could be spared later.

    Parameters
    ----------
    prompts : Prompts
    volume : Volume
        The image.

    Returns
    -------
    Markers

    Raises
    ------
    GeometryError, LabelError, ParameterError
        See :class:`~napari_medgs.segmentation.Prompts`.
    """
    prompts.check(volume.shape)
    spacing = np.asarray(volume.spacing)
    return rasterize_prompts(prompts, volume.shape, (0, 1, 2), spacing / spacing.min())


def check_background(prompts: Prompts, markers: Markers) -> None:
    """Refuse a background value that no prompt has: what was meant as background would be a class.

    While a user is still painting, prompts without background are fine; not in one call.

    Parameters
    ----------
    prompts : Prompts
    markers : Markers
        Of the prompts.

    Raises
    ------
    LabelError
        With the values that are there.
    """
    if prompts.background is None or (markers.classes == 0).any():
        return
    marked = markers.values[1:]
    shown = ", ".join(map(str, marked[:20])) + (" ..." if len(marked) > 20 else "")
    raise LabelError(
        f"No voxel is marked as background, whose value is {prompts.background}; the marked "
        f"values are {shown}. Mark some background, or choose the value that means it."
    )
