"""Prompts rasterized into markers, with boxes and what stays of an initial mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from napari_medgs.errors import LabelError
from napari_medgs.segmentation.prompts.collector import (
    Alike,
    MarkerCollector,
    Strokes,
    collect_points,
    collect_strokes,
)
from napari_medgs.segmentation.prompts.initial_mask import InitialMask, initial_mask_of
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.prompts.prompts import MOST_CLASSES, Point, Prompts
from napari_medgs.segmentation.prompts.released import ANY_LABEL, ReleasedPart

CORE_SHARE = 0.5  # of a box's core that looks like clicks on its class
BOX_CORE = 0.3  # axes of the ellipsoid that marks a box without strokes, over the box's sides
LOCKED_MARKERS = 1000  # at most, in a locked class that no prompt marks
RING = 2  # voxels, the width of the background that is marked around boxes
RING_GAP = 2  # voxels between a box and that background: borders are blurred, and boxes tight


def rasterize_prompts(
    prompts: Prompts,
    shape: tuple[int, int, int],
    axes: tuple[int, int, int],
    relative_spacing: NDArray[Any],
    initial: InitialMask | None = None,
    alike: Alike | None = None,
    strokes: Strokes | None = None,
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
        ``prompts.initial`` or ``prompts.prior``, prepared, when already known; or another mask
        that the prompts correct.
    alike : callable, optional
        Tells which voxels (flat indices) of a point's ball look like the one that was clicked;
        the others are not marked. All are marked by default, and for the background, which looks
        like many things.
    strokes : Strokes, optional
        Those of the prompts, when already known; they need not have ``labels`` then.

    Returns
    -------
    Markers

    Raises
    ------
    LabelError
        When there are fewer than two classes (the background counts), too many, or negative
        values, or nothing is left of a box.
    """
    if strokes is None:
        strokes = collect_strokes(prompts, shape, axes)
    markers, denied_flat, denied_label = collect_points(
        prompts, strokes, shape, relative_spacing, alike
    )
    background = prompts.background_value
    released: tuple[ReleasedPart, ...] = ()
    if initial is None and (prompts.initial is not None or prompts.prior is not None):
        initial = initial_mask_of(prompts, relative_spacing)
    if initial is not None:
        denied = _joined(denied_flat), _joined(denied_label)
        released = initial.released(*_contradictions(initial, markers, denied, shape))
        drawn = markers
        markers = MarkerCollector(shape)
        markers.add(*initial.markers(released), user_marked=False)
        markers.extend(drawn)
    boxes = _box_markers(prompts, shape, markers, alike, strokes.painted)
    _mark_locked(prompts, markers)
    flat, label, user_marked = markers.result()
    if len(label) and label.min() < 0:
        raise LabelError(f"The label {label.min()} is marked; labels must not be negative.")
    present = np.unique(label)
    if len(present) < 2:
        only = int(present[0]) if len(present) else None
        if initial is not None:
            gone = sorted({int(v) for v in initial.values} - {only})
            raise LabelError(
                f"The prompts leave nothing of the initial mask's label {gone[0]}: mark where it "
                "is, too."
            )
        name = "the background" if only == 0 else only
        if only and bool(_held_by(boxes, shape).all()):
            covering = "box covers" if len(prompts.boxes) == 1 else "boxes cover"
            raise LabelError(
                f"The {covering} the whole image, which leaves no background: keep closer to the "
                "object, or mark background inside."
            )
        raise LabelError(
            ("Nothing is marked" if only is None else f"Only one class is marked ({name})")
            + ": mark at least two classes; the background counts as one"
            + (", but no value is said to mean it." if background is None and only else ".")
        )
    values = (0, *(int(v) for v in present if v > 0))
    if len(values) > MOST_CLASSES:
        raise LabelError(f"{len(values)} classes are marked; at most {MOST_CLASSES} work.")
    unknown = sorted({int(v[0]) for v in denied_label} - set(values))
    if unknown:
        raise LabelError(
            f"A negative point names the class {unknown[0]}, which has no other markers; add some."
        )
    unmarked = sorted(set(boxes) - set(values))
    if unmarked:
        raise LabelError(
            f"Other prompts mark the middle of the box of class {unmarked[0]}: mark where the "
            "class is, too."
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
        strokes.fully_labeled,
        user_marked,
        None if initial is None else initial.kept(values, axes, released),
        initial is None and not strokes.painted,
    )


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _contradictions(
    initial: InitialMask,
    drawn: MarkerCollector,
    denied: tuple[NDArray[np.int64], NDArray[np.int64]],
    shape: tuple[int, int, int],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where prompts say another label than an initial mask, (P, 3), and which (P,)."""
    flat, label, _ = drawn.result()
    before = initial.labels.reshape(-1)
    wrong = before[flat] != label
    refused = denied[0][before[denied[0]] == denied[1]]
    voxels = np.stack(np.unravel_index(np.concatenate([flat[wrong], refused]), shape), axis=1)
    return voxels, np.concatenate([label[wrong], np.full(len(refused), ANY_LABEL, np.int64)])


def _mark_locked(prompts: Prompts, markers: MarkerCollector) -> None:
    """Mark places in locked classes that nothing else marks, as they are classes all the same."""
    if prompts.result is None or not prompts.locked:
        return
    flat, label, _ = markers.result()
    for value in sorted(prompts.locked.difference(np.unique(label).tolist())):
        mine = np.setdiff1d(np.flatnonzero(prompts.result == value), flat)
        step = -(-len(mine) // LOCKED_MARKERS) or 1
        markers.add(mine[::step], value, user_marked=False)


def _box_markers(
    prompts: Prompts,
    shape: tuple[int, int, int],
    markers: MarkerCollector,
    alike: Alike | None,
    painted: bool,
) -> dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]]:
    """Return the boxes by label; mark the cores of empty ones, and background around them.

    Clicks on a class leave the core of its box where that looks like them; it does not in a shell.
    Where the user marks background none is added: so many markers all around the objects would
    outdo the user's, and masks get too small.
    """
    boxes: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
    flat, label, user_marked = markers.result()
    known = bool((user_marked & (label == 0)).any())
    clicks = not known and not painted
    for box in prompts.boxes:
        start = np.maximum(box.start, 0)
        stop = np.minimum(box.stop, shape)
        boxes.setdefault(box.label, []).append((start, stop))
        voxels = np.stack(np.unravel_index(flat[label == box.label], shape), axis=1)
        within = ((voxels >= start) & (voxels < stop)).all(axis=1)
        core = _core_of(start, stop, shape)
        stands = not bool(within.any())
        if clicks and not stands:
            own = [p for p in prompts.points if p.positive and p.label == box.label]
            stands = _looks_like(core, own, shape, alike)
        if stands:
            markers.add(core[~np.isin(core, flat[user_marked])], box.label, user_marked=False)
    if boxes and not known:
        flat, label, _ = markers.result()
        ring = _ring_around(_held_by(boxes, shape))
        ring.reshape(-1)[flat] = False
        markers.add(np.flatnonzero(ring), 0, user_marked=False)
    return boxes


def _held_by(
    boxes: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]],
    shape: tuple[int, int, int],
) -> NDArray[np.bool_]:
    """Return the voxels that are in any box."""
    held = np.zeros(shape, np.bool_)
    for pairs in boxes.values():
        for start, stop in pairs:
            held[tuple(slice(a, b) for a, b in zip(start, stop))] = True
    return held


def _ring_around(held: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return voxels of the background around boxes; nearer to them where the image ends."""
    from scipy.ndimage import binary_dilation

    for gap in range(RING_GAP, 0, -1):
        near = binary_dilation(held, iterations=gap)
        if not near.all():
            far: NDArray[np.bool_] = binary_dilation(near, iterations=RING)
            return far & ~near
    beside: NDArray[np.bool_] = binary_dilation(held, iterations=RING)
    return beside & ~held


def _core_of(
    start: NDArray[np.int64], stop: NDArray[np.int64], shape: tuple[int, int, int]
) -> NDArray[np.int64]:
    """Return the flat indices of a small ellipsoid in the middle of a box."""
    middle, half = (start + stop - 1) / 2, np.maximum((stop - start) * BOX_CORE / 2, 0.9)
    grid = np.stack(
        np.meshgrid(*[np.arange(a, b) for a, b in zip(start, stop)], indexing="ij"), -1
    ).reshape(-1, 3)
    core = grid[(((grid - middle) / half) ** 2).sum(axis=1) <= 1]
    return np.ravel_multi_index(tuple(core.T), shape)


def _looks_like(
    core: NDArray[np.int64],
    points: list[Point],
    shape: tuple[int, int, int],
    alike: Alike | None,
) -> bool:
    """Return whether half of a box's core looks like a clicked voxel: the object is no shell."""
    if alike is None:
        return False
    seen = np.zeros(len(core), np.bool_)
    for point in points:
        middle = np.clip(np.round(point.position), 0, np.asarray(shape) - 1).astype(int)
        seen |= alike(core, int(np.ravel_multi_index(tuple(middle), shape)))
    return bool(seen.mean() >= CORE_SHARE) if len(core) else False


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
    return rasterize_prompts(prompts, volume.shape, (0, 1, 2), volume.grid.relative_spacing)


def check_background(prompts: Prompts, markers: Markers) -> None:
    """Refuse a background value that no prompt has: what was meant as background would be a class.

    The background of an initial mask and around boxes is no prompt. While a user is still
    painting, prompts without background are fine; not in one call.

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
    drawn = set(markers.classes[markers.user_marked].tolist())
    if prompts.background is None or 0 in drawn:
        return
    marked = [markers.values[place] for place in sorted(drawn | set(markers.boxes))]
    shown = ", ".join(map(str, marked[:20])) + (" ..." if len(marked) > 20 else "")
    raise LabelError(
        f"No voxel is marked as background, whose value is {prompts.background}; "
        + (f"the marked values are {shown}. " if marked else "nothing is marked. ")
        + "Mark some background, or choose the value that means it."
    )
