"""What the user said, as marked voxels with class indices, slice axis first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from napari_medgs.errors import LabelError
from napari_medgs.segmentation.prompts.prompts import MOST_CLASSES, Prompts

LEAST_ON_PLANE = 4
STROKED = 0.05  # of the marks on the slice that has most: a slice that was worked on,
CROSSED = 0.2  # or in another orientation than most strokes have
SHELL = 1.5  # finest voxels: thickness of the marked layer of an initial mask
BOX_CORE = 0.3  # share of a box's sides that is taken for its class when nothing else is


@dataclass(frozen=True)
class Evidence:
    """Marked voxels; class 0 is the background.

    Attributes
    ----------
    values : tuple of int
        The label value of every class; 0 for the background.
    voxels : (P, 3) ndarray of int32
        Slice-first indices, each at most once.
    classes : (P,) ndarray of int32
    denied_voxels : (Q, 3) ndarray of int32, denied_classes : (Q,) ndarray of int32
        What is not of a class.
    boxes : dict
        For boxed classes the boxes (start, stop) that hold them, slice-first.
    painted : dict
        For every axis the slices that are labelled in full, increasing.
    hard : (P,) ndarray of bool
        Marks that the result must have exactly (drawn by the user, not guessed).
    """

    values: tuple[int, ...]
    voxels: NDArray[np.int32]
    classes: NDArray[np.int32]
    denied_voxels: NDArray[np.int32]
    denied_classes: NDArray[np.int32]
    boxes: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = field(
        default_factory=dict
    )
    painted: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    hard: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    @property
    def count(self) -> int:
        """Number of classes, the background included."""
        return len(self.values)

    def annotated_planes(self) -> tuple[int, NDArray[np.int64]]:
        """Return the orientation and indices of slices with strokes of two classes or more.

        The orientation is the one whose slices hold the most strokes each.
        """
        best, chosen = 0, np.zeros(0, np.int64)
        crowd = 0.0
        for axis in range(3):
            place = self.voxels[self.hard, axis]
            if not len(place):
                continue
            hits = np.zeros((self.count, int(place.max()) + 1), np.int64)
            np.add.at(hits, (self.classes[self.hard], place), 1)
            total = hits.sum(axis=0)
            several = ((hits > 0).sum(axis=0) >= 2) & (total >= LEAST_ON_PLANE)
            # Strokes of another orientation cross many slices with a few voxels each.
            several &= total >= 0.2 * total.max()
            mean = len(place) / max(int(np.count_nonzero(total)), 1)
            if several.any() and mean > crowd:
                best, chosen, crowd = axis, np.flatnonzero(several), mean
        return best, chosen

    def stroked_planes(self, axis: int) -> NDArray[np.int64]:
        """Return the slices of one orientation that were stroked in, be it by one class only.

        Strokes in slices of another orientation cross many of these with a few voxels each.
        """
        voxels = self.voxels[self.hard]
        if not len(voxels):
            return np.zeros(0, np.int64)
        counts = [np.bincount(voxels[:, a]) for a in range(3)]
        most = max(int(c.max()) for c in counts)
        own = axis == self.annotated_planes()[0]
        share = STROKED if own else CROSSED
        return np.flatnonzero(counts[axis] >= max(LEAST_ON_PLANE, share * most))

    def slice_groups(self) -> NDArray[np.int64]:
        """Return the annotated plane of every mark, -1 where it lies on none."""
        axis, places = self.annotated_planes()
        place = self.voxels[:, axis].astype(np.int64)
        return np.where(np.isin(place, places), place, -1)


class _Collector:
    """Collects marks in the order of their authority; later ones win."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.flat: list[NDArray[np.int64]] = []
        self.label: list[NDArray[np.int64]] = []
        self.hard: list[NDArray[np.bool_]] = []

    def add(self, flat: NDArray[Any], label: Any, hard: bool) -> None:
        """Mark flat canonical indices with label values (or one value)."""
        if len(flat):
            self.flat.append(np.asarray(flat, np.int64))
            self.label.append(np.broadcast_to(np.asarray(label, np.int64), len(flat)))
            self.hard.append(np.full(len(flat), hard))

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return indices, labels and hardness, every voxel once."""
        if not self.flat:
            empty = np.zeros(0, np.int64)
            return empty, empty, np.zeros(0, np.bool_)
        flat = np.concatenate(self.flat)[::-1]
        label, hard = np.concatenate(self.label)[::-1], np.concatenate(self.hard)[::-1]
        if len(self.flat) > 1:
            flat, first = np.unique(flat, return_index=True)
            label, hard = label[first], hard[first]
        return flat, label, hard


def full_slices(labels: NDArray[Any], unlabeled: int, axis: int) -> NDArray[np.int64]:
    """Return the slices of a label image that have no unlabeled voxel and several labels."""
    stack = np.moveaxis(labels, axis, 0)
    if stack.shape[0] < 2 or min(stack.shape[1:]) < 2:
        return np.zeros(0, np.int64)
    # A few voxels of each slice tell most that are not full apart.
    probe = stack[:, :: max(1, stack.shape[1] // 4), :: max(1, stack.shape[2] // 4)]
    likely = np.flatnonzero((probe != unlabeled).all(axis=(1, 2)))
    return np.array(
        [s for s in likely if (stack[s] != unlabeled).all() and np.ptp(stack[s]) > 0], np.int64
    )


def _ball(
    position: tuple[float, float, float],
    radius: float,
    units: NDArray[Any],
    shape: tuple[int, int, int],
) -> NDArray[np.int64]:
    """Return flat indices of the voxels in a ball; at least the nearest voxel."""
    center = np.asarray(position)
    reach = np.floor(radius / units).astype(int) + 1
    low = np.maximum(np.floor(center).astype(int) - reach, 0)
    high = np.minimum(np.ceil(center).astype(int) + reach + 1, shape)
    grid = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high)], indexing="ij"), -1)
    voxels = grid.reshape(-1, 3)
    near = (((voxels - center) * units) ** 2).sum(axis=1) <= radius**2
    nearest = np.clip(np.round(center).astype(int), 0, np.asarray(shape) - 1)
    voxels = np.concatenate([voxels[near], nearest[None]])
    flat = np.ravel_multi_index(tuple(voxels.T), shape)
    return np.unique(flat)


def initial_marks(
    mask: NDArray[Any], margin: float, units: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return flat indices and labels of a layer inside each class, ``margin`` from its border.

    Classes thinner than that are marked along their middle.
    """
    from scipy.ndimage import distance_transform_edt

    flats, labels = [], []
    for value in np.unique(mask):
        mine = mask == value
        if mine.all():
            break
        box = tuple(
            slice(max(0, int(w[0]) - 1), int(w[-1]) + 2)
            for w in (
                np.flatnonzero(mine.any(axis=tuple(b for b in range(3) if b != a)))
                for a in range(3)
            )
        )
        depth = distance_transform_edt(mine[box], sampling=units)
        wanted = min(margin, 0.7 * float(depth.max()))
        layer = np.argwhere((depth >= wanted) & (depth < wanted + SHELL))
        layer += [s.start for s in box]
        flats.append(np.ravel_multi_index(tuple(layer.T), mask.shape))
        labels.append(np.full(len(layer), int(value)))
    if not flats:
        raise LabelError("The initial mask has one value everywhere: there is nothing to refine.")
    return np.concatenate(flats), np.concatenate(labels)


def collect_evidence(
    prompts: Prompts,
    shape: tuple[int, int, int],
    axes: tuple[int, int, int],
    units: NDArray[Any],
    initial: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> Evidence:
    """Turn checked prompts into marked voxels.

    Parameters
    ----------
    prompts : Prompts
    shape : (Z, Y, X) of the canonical grid
    axes : (int, int, int)
        Canonical axes in slice-first order.
    units : (3,) ndarray
        Canonical voxel sizes over the finest one.
    initial : optional
        :func:`initial_marks` of ``prompts.initial``, when already known.

    Raises
    ------
    LabelError
        When there are fewer than two classes (the background counts), too many, or negative
        values.
    """
    marks = _Collector(shape)
    painted: dict[int, NDArray[np.int64]] = {}
    background = prompts.background_value

    def as_value(label: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(label == background, 0, label) if background else label

    if prompts.initial is not None:
        if initial is None:
            initial = initial_marks(prompts.initial, prompts.initial_margin, units)
        marks.add(*initial, hard=False)
    if prompts.labels is not None:
        labels = prompts.labels
        flat = np.flatnonzero(labels.reshape(-1) != prompts.unlabeled)
        for axis in range(3):
            full = set(full_slices(labels, prompts.unlabeled, axis).tolist()) if len(flat) else {}
            named = {index for a, index in prompts.fully_labeled if a == axis}
            for index in sorted(named):
                plane = np.moveaxis(np.arange(labels.size).reshape(shape), axis, 0)[index]
                empty = np.moveaxis(labels, axis, 0)[index] == prompts.unlabeled
                marks.add(plane[empty], 0, hard=True)
            if full or named:
                painted[axes.index(axis)] = np.array(sorted({*full, *named}), np.int64)
        marks.add(flat, as_value(labels.reshape(-1)[flat].astype(np.int64)), hard=True)
    denied_flat, denied_label = [], []
    for point in prompts.points:
        ball = _ball(point.position, point.radius, units, shape)
        if point.positive:
            value = 0 if prompts.is_background(point.label) else point.label
            marks.add(ball, value, hard=True)
        else:
            denied_flat.append(ball)
            denied_label.append(np.full(len(ball), point.label))
    boxes = _box_marks(prompts, shape, marks)
    flat, label, hard = marks.result()
    if len(label) and label.min() < 0:
        raise LabelError(f"The prompts hold the label {label.min()}; labels start at 0.")
    present = np.unique(label)
    if len(present) < 2:
        raise LabelError(
            "The prompts mark "
            + ("nothing" if not len(present) else f"one class only ({present[0]})")
            + "; strokes of at least two classes are needed (the background counts as one"
            + (": say which value means background)." if background is None else ").")
        )
    values = (0, *(int(v) for v in present if v > 0))
    if len(values) > MOST_CLASSES:
        raise LabelError(f"The prompts hold {len(values)} classes; at most {MOST_CLASSES} work.")
    unknown = sorted({int(v[0]) for v in denied_label} - set(values))
    if unknown:
        raise LabelError(f"A negative point denies the class {unknown[0]}, which has no strokes.")
    ordered = np.asarray(values)
    order = list(axes)

    def to_stack(flat_indices: NDArray[np.int64]) -> NDArray[np.int32]:
        voxels = np.stack(np.unravel_index(flat_indices, shape), axis=1)[:, order]
        return np.ascontiguousarray(voxels, np.int32)

    denied = np.concatenate(denied_flat) if denied_flat else np.zeros(0, np.int64)
    denied_values = np.concatenate(denied_label) if denied_label else np.zeros(0, np.int64)
    return Evidence(
        values,
        to_stack(flat),
        np.searchsorted(ordered, label).astype(np.int32),
        to_stack(denied),
        np.searchsorted(ordered, denied_values).astype(np.int32),
        {values.index(k): [(a[order], b[order]) for a, b in pairs] for k, pairs in boxes.items()},
        painted,
        hard,
    )


def _box_marks(
    prompts: Prompts, shape: tuple[int, int, int], marks: _Collector
) -> dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]]:
    """Return the boxes by label; mark background around them and, if need be, their cores."""
    boxes: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
    flat, label, _ = marks.result()
    held = np.zeros(shape, np.bool_) if prompts.boxes else None
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
            marks.add(np.ravel_multi_index(tuple(core.T), shape), box.label, hard=False)
    if held is not None:
        from scipy.ndimage import binary_dilation

        flat, label, _ = marks.result()
        ring = binary_dilation(held, iterations=2) & ~held
        where = np.flatnonzero(ring)
        marks.add(np.setdiff1d(where, flat), 0, hard=False)
    return boxes


def check_prompts(prompts: Prompts, volume: Volume) -> None:
    """Refuse prompts that :func:`~napari_medgs.segmentation.segment` could not use.

    It needs no field and does no work that could be spared later.

    Parameters
    ----------
    prompts : Prompts
    volume : Volume
        The image.

    Raises
    ------
    GeometryError, LabelError, ParameterError
        See :class:`~napari_medgs.segmentation.Prompts`.
    """
    prompts.check(volume.shape)
    spacing = np.asarray(volume.spacing)
    collect_evidence(prompts, volume.shape, (0, 1, 2), spacing / spacing.min())
