"""One object, corrected prompt by prompt: an answer after each, its background inferred.

The first prompt chooses a part of the image: where it does not say what is background, the tree of
parts does. Every further one corrects the mask that there is: it stays as it is except within a
margin along its borders and around prompts that contradict it, which are solved anew in a box
around them. The answers are provisional: :meth:`InteractiveSegmenter.result` solves the same
prompts in the whole image, where two classes are marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import StopCallback, never_stop
from napari_medgs._util.threads import limit_threads
from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.segmentation.local import Box as Window
from napari_medgs.segmentation.local import LocalSolver, bounds
from napari_medgs.segmentation.local import window as window_of
from napari_medgs.segmentation.prompts.inferred import (
    best_part,
    ellipsoid,
    fit_stroke,
    lasso_strokes,
)
from napari_medgs.segmentation.prompts.prompts import Box, Point, Prompts

if TYPE_CHECKING:
    from napari_medgs.hierarchy import PartSelection, PartTree
    from napari_medgs.segmentation.interactive import InteractiveSegmenter
    from napari_medgs.segmentation.session.history import Delta
    from napari_medgs.segmentation.session.session import Session

Mask = NDArray[np.bool_]
RADIUS = 1.5  # of a click, in finest voxels
MARGIN = 0.3  # along borders, over the largest depth of the mask
LARGEST_MARGIN = 8.0  # finest voxels
RELEASE = 6.0  # radius around a prompt that contradicts the mask, over its depth there
ROOM = 0.2  # around the mask, over its sides
LEAST_ROOM = 8.0  # finest voxels


class ObjectTool:
    """Segments one object of a segmenter's image, with an answer after every prompt.

    Reached as ``segmenter.object``. Prompts are those of the segmenter: undo, the log and a solve
    of the whole image know them.

    Parameters
    ----------
    segmenter : InteractiveSegmenter
    lock : context manager
        Guards its prompts.

    Attributes
    ----------
    label : int
        Class of the object, from 1.
    part : PartSelection or None
        What the first click chose, as long as nothing came after it.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> image = np.random.default_rng(0).normal(size=(12, 24, 24)).astype(np.float32)
    >>> image[3:9, 6:18, 6:18] += 20
    >>> segmenter = mg.InteractiveSegmenter()
    >>> segmenter.set_image(mg.Volume.from_array(image))
    >>> segmenter.object.add_point((6, 12, 12))
    >>> delta = segmenter.object.answer()
    >>> bool(segmenter.labels[6, 12, 12]), bool(segmenter.labels[0, 0, 0])
    (True, False)
    """

    def __init__(self, segmenter: InteractiveSegmenter, lock: AbstractContextManager[Any]) -> None:
        self._segmenter, self._lock = segmenter, lock
        self._solver: LocalSolver | None = None
        self._volume: Any = None
        self._new: list[Window] = []  # where prompts came since the last answer
        self._first: tuple[str, Any] | None = None
        self.label = 1
        self.part: PartSelection | None = None

    @property
    def _session(self) -> Session:
        return self._segmenter.session

    # Prompts

    def add_point(self, position: Sequence[float], positive: bool = True) -> None:
        """Click on a voxel of the object, or on one that is not of it.

        Parameters
        ----------
        position : (z, y, x)
        positive : bool

        Raises
        ------
        GeometryError
            When it lies outside of the image.
        """
        place = _voxel(position, self._session.grid.shape)
        label = self.label if positive else 0
        z, y, x = place
        # A later click on the same place wins: the earlier one goes.
        points = [p for p in self._session.settings.points if _near(p.position) != place]
        point = Point((float(z), float(y), float(x)), label, radius=RADIUS)
        with self._lock:
            self._session.update_settings(points=(*points, point))
        if positive:
            self._begin("points", None)
        self._new.append((slice(z, z + 1), slice(y, y + 1), slice(x, x + 1)))

    def add_scribble(self, where: Mask, positive: bool = True) -> None:
        """Mark voxels of the object, or of its background.

        Parameters
        ----------
        where : (Z, Y, X) ndarray of bool
        positive : bool

        Raises
        ------
        GeometryError, LabelError
            When the shape is not the image's, or nothing is marked.
        """
        window = self._window(where)
        self._paint(window, where[window], self.label if positive else 0)
        if positive:
            self._begin("scribble", np.argwhere(where[window]) + [s.start for s in window])

    def add_lasso(self, where: Mask, positive: bool = True) -> None:
        """Draw around the object, or around what is not of it; roughly is enough.

        Well inside of a positive one is object, a little outside, in its slice, is background.

        Parameters
        ----------
        where : (Z, Y, X) ndarray of bool
            All that is inside, of one slice or of several.
        positive : bool

        Raises
        ------
        GeometryError, LabelError
            When the shape is not the image's, or nothing is marked.
        """
        window = self._window(where)
        if not positive:
            self._paint(window, where[window], 0)
            return
        axis = int(np.argmin([s.stop - s.start for s in window]))
        wide, inside, outside = lasso_strokes(where, window, axis, self._relative_spacing)
        self._paint(wide, inside, self.label, ((outside, 0),))
        self._begin("region", (window, where[window], axis))

    def add_box(self, start: Sequence[int], stop: Sequence[int], positive: bool = True) -> None:
        """Draw a box around the object in space or in one slice, or around what is not of it.

        Parameters
        ----------
        start, stop : (z, y, x)
            First voxel and one past the last; one slice along an axis for a box in that slice.
        positive : bool

        Raises
        ------
        GeometryError
            When it is empty or outside of the image.
        """
        shape = self._session.grid.shape
        low, high = np.maximum(start, 0), np.minimum(stop, shape)
        if (high <= low).any():
            raise GeometryError(f"The box from {list(start)} to {list(stop)} holds no voxel.")
        window = window_of(low, high)
        if not positive:
            self._paint(window, np.ones(high - low, np.bool_), 0)
            return
        flat = np.flatnonzero((high - low == 1) & (np.asarray(shape) > 1))
        if len(flat):
            full = np.zeros(shape, np.bool_)
            full[window] = True
            wide, _, outside = lasso_strokes(full, window, int(flat[0]), self._relative_spacing)
            self._paint(wide, outside, 0)
        else:
            (a, b, c), (d, e, f) = low.tolist(), high.tolist()
            box = Box((a, b, c), (d, e, f), self.label)
            boxes = [b for b in self._session.settings.boxes if b != box]
            with self._lock:
                self._session.update_settings(boxes=(*boxes, box))
            self._new.append(window)
        axis = int(flat[0]) if len(flat) else None
        self._begin("region", (window, ellipsoid(high - low), axis))

    def set_mask(self, mask: NDArray[Any]) -> None:
        """Begin with a mask; strokes that contradict it go.

        Parameters
        ----------
        mask : (Z, Y, X) ndarray
            Not 0 where the object is.

        Raises
        ------
        GeometryError
            When the shape is not the image's.
        """
        if mask.shape != self._session.grid.shape:
            raise GeometryError(
                f"The mask has shape {mask.shape}, the image {self._session.grid.shape}."
            )
        labels = np.zeros(mask.shape, np.int32)
        labels[mask != 0] = self.label
        with self._lock:
            self._session.set_mask(labels)

    def _begin(self, kind: str, what: Any) -> None:
        self.part = None
        if self._first is None or kind == "points":
            self._first = (kind, what)

    def _paint(
        self, window: Window, where: Mask, value: int, more: tuple[tuple[Mask, int], ...] = ()
    ) -> None:
        session = self._session
        with self._lock:
            part = session.strokes[window]
            for marked, label in ((where, value), *more):
                part[marked] = label
            session.record_strokes(window)
        self._new.append(window)

    def _window(self, where: Mask) -> Window:
        if where.shape != self._session.grid.shape:
            raise GeometryError(
                f"The prompt has shape {where.shape}, the image {self._session.grid.shape}."
            )
        window = bounds(where)
        if window is None:
            raise LabelError("The prompt marks no voxel.")
        return window

    @property
    def _relative_spacing(self) -> NDArray[np.float64]:
        spacing = np.asarray(self._session.grid.spacing)
        return spacing / spacing.min()

    def forget(self) -> None:
        """Forget what was added since the last answer; for after an undo."""
        self._new, self._first = [], None

    # Answers

    def answer(self, *, should_stop: StopCallback = never_stop) -> Delta:
        """Return what the prompts since the last answer change, and make it the current mask.

        Parameters
        ----------
        should_stop : callable, optional

        Returns
        -------
        Delta
            Voxels of ``segmenter.labels`` that changed; undo brings them back with the prompt.

        Raises
        ------
        MedGSError
            When the image cannot be used; ``Cancelled``.
        """
        segmenter, session = self._segmenter, self._session
        with limit_threads(segmenter.threads):
            mask = session.labels == self.label
            there = bounds(mask)
            if there is None:
                mask = self._start()
            else:
                self.part = None
                mask = self._corrected(mask, there, should_stop)
            after = session.labels.copy()
            after[session.labels == self.label] = 0
            after[mask] = self.label
        self.forget()
        with self._lock:
            return session.set_result(after, is_current=False)

    def choose(self, part: PartSelection) -> Delta:
        """Take another size of the part that the first click chose; undone with the click.

        Parameters
        ----------
        part : PartSelection
            Of :attr:`part`, larger or smaller.

        Returns
        -------
        Delta
            Voxels of ``segmenter.labels`` that changed.

        Raises
        ------
        ParameterError
            When other prompts came since.
        """
        if self.part is None:
            raise ParameterError("Another size needs a first click, and no prompt after it.")
        session = self._session
        mask = self._marked(self._segmenter.parts.tree().mask(part.nodes))
        after = session.labels.copy()
        after[session.labels == self.label] = 0
        after[mask] = self.label
        self.part = part
        with self._lock:
            return session.set_result(after, is_current=False)

    def _start(self) -> Mask:
        """Return the part of the image that the first prompts choose; empty without any."""
        shape = self._session.grid.shape
        mask: Mask = np.zeros(shape, np.bool_)
        positive, negative = self._places()
        if self._first is None:
            return mask
        tree = self._segmenter.parts.tree()
        kind, what = self._first
        if kind == "points":
            part = _part_at(tree, positive, negative)
            self.part = part if len(self._new) == 1 else None
            mask = tree.mask(part.nodes)
        elif kind == "scribble":
            mask = tree.mask(fit_stroke(tree, what))
        else:
            window, inside, axis = what
            mask = tree.mask(best_part(tree, window, inside, axis))
            mask &= self._held(window, axis)
        return self._marked(mask)

    def _held(self, window: Window, axis: int | None) -> Mask:
        """Return where a mask can be that a box or a lasso begins."""
        held: Mask = np.ones(self._session.grid.shape, np.bool_)
        if axis is None:
            held[:] = False
            held[window] = True
        else:
            plane = [slice(None)] * 3
            plane[axis] = window[axis]
            held[tuple(plane)] = False
            held[window] = True
        return held

    def _marked(self, mask: Mask) -> Mask:
        """Return a mask with what is drawn in it."""
        session = self._session
        mask[session.strokes == self.label] = True
        mask[session.strokes == 0] = False
        for point in session.settings.points:
            mask[_near(point.position)] = point.label == self.label
        return mask

    def _places(self) -> tuple[list[Any], list[Any]]:
        points = self._session.settings.points
        positive = [p.position for p in points if p.label == self.label]
        return positive, [p.position for p in points if p.label != self.label]

    def _corrected(self, mask: Mask, there: Window, should_stop: StopCallback) -> Mask:
        """Return a mask corrected by the prompts since the last answer."""
        segmenter, session = self._segmenter, self._session
        relative = self._relative_spacing
        low = np.min([[s.start for s in w] for w in (there, *self._new)], axis=0)
        high = np.max([[s.stop for s in w] for w in (there, *self._new)], axis=0)
        if self._solver is None or self._volume is not segmenter.volume:
            self._solver, self._volume = LocalSolver(segmenter.volume), segmenter.volume
        margin = np.maximum(ROOM * (high - low), LEAST_ROOM / relative)
        box = self._solver.box_for(low, high, margin)
        part = mask[box]
        if part.all() or not part.any():
            return self._marked(mask)
        prompts = self._prompts(part, box, _margin_of(part, relative))
        params = session.settings.params
        released = replace(params.advanced.initial_mask, release_factor=RELEASE)
        params = replace(params, advanced=replace(params.advanced, initial_mask=released))
        field = segmenter.fit_field()
        try:
            result = self._solver.solve(box, field, prompts, params, should_stop=should_stop)
        except (LabelError, ParameterError):  # one class alone is marked in the box
            result = None
        if result is None:
            return self._marked(mask)
        out = mask.copy()
        out[box] = result.labels == 1
        return out

    def _prompts(self, part: Mask, box: Window, margin: float) -> Prompts:
        """Return the prompts of a box, with 1 for the object."""
        session, label = self._session, self.label
        strokes = session.strokes[box]
        marks = np.full(strokes.shape, -1, np.int32)
        marks[strokes == label] = 1
        marks[(strokes != label) & (strokes != session.settings.unlabeled)] = 0
        low = np.array([s.start for s in box])
        size = np.array(part.shape)
        points = []
        for point in session.settings.points:
            place = np.asarray(point.position) - low
            if (place >= 0).all() and (place <= size - 1).all():
                z, y, x = place.tolist()
                points.append(Point((z, y, x), int(point.label == label), radius=point.radius))
        boxes = []
        for held in session.settings.boxes:
            first, last = np.asarray(held.start) - low, np.asarray(held.stop) - low
            if held.label == label and (np.minimum(last, size) > np.maximum(first, 0)).all():
                (a, b, c), (d, e, f) = first.tolist(), last.tolist()
                boxes.append(Box((a, b, c), (d, e, f), 1))
        if any(p.label == 1 and not _in_boxes(p.position, boxes) for p in points):
            boxes = []  # who clicks outside of the box wants more than it
        return Prompts(
            labels=marks,
            unlabeled=-1,
            background=0,
            points=tuple(points),
            boxes=tuple(boxes),
            initial=part.astype(np.uint8),
            initial_margin=margin,
        )


def _voxel(position: Sequence[float], shape: tuple[int, int, int]) -> tuple[int, int, int]:
    place = np.asarray(position, np.float64)
    if place.shape != (3,) or not np.isfinite(place).all():
        raise GeometryError("A place is three finite numbers.")
    if ((place < -0.5) | (place > np.asarray(shape) - 0.5)).any():
        raise GeometryError(f"The place {place.tolist()} lies outside of the image of {shape}.")
    z, y, x = np.clip(np.floor(place + 0.5), 0, np.asarray(shape) - 1).astype(int).tolist()
    return z, y, x


def _near(position: Sequence[float]) -> tuple[int, int, int]:
    z, y, x = (int(p + 0.5) for p in position)
    return z, y, x


def _in_boxes(place: Sequence[float], boxes: list[Box]) -> bool:
    return any(
        all(a <= p < b for p, a, b in zip(place, box.start, box.stop, strict=True))
        for box in boxes
    )


def _part_at(tree: PartTree, positive: list[Any], negative: list[Any]) -> PartSelection:
    """Return the part at clicks; at the last positive one alone where they contradict."""
    for places in ((positive, negative), (positive[-1:], negative), (positive[-1:], [])):
        try:
            return tree.at(*places[0], negative=places[1])
        except ParameterError:  # two places in one cell
            continue
    raise AssertionError("a place alone has a part")


def _margin_of(part: Mask, relative: NDArray[np.float64]) -> float:
    from scipy.ndimage import distance_transform_edt

    window = bounds(part)
    assert window is not None
    inner = part[window]
    step = max(1, round((inner.size / 200_000) ** (1 / 3)))  # the depth needs no fine grid
    coarse = np.pad(inner[::step, ::step, ::step], 1)
    depth = float(distance_transform_edt(coarse, sampling=relative * step).max())
    return min(max(1.0, MARGIN * depth), LARGEST_MARGIN)
