"""One object, corrected prompt by prompt: an answer after each, its background inferred.

The first prompt chooses a part of the image: where it does not say what is background, the tree of
parts does. Every further one corrects the mask that there is: it stays as it is except within a
margin along its borders and around prompts that contradict it, which are solved anew in a box
around them. A mask of the user or of a model is corrected near the prompts alone. The answers are
provisional: :meth:`InteractiveSegmenter.result` solves the same prompts in the whole image, where
two classes are marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import StopCallback, never_stop
from napari_medgs._util.threads import limit_threads
from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.segmentation.local import Box as Window
from napari_medgs.segmentation.local import bounds
from napari_medgs.segmentation.local import window as window_of
from napari_medgs.segmentation.prompts.coordinates import to_voxels
from napari_medgs.segmentation.prompts.inferred import (
    ellipsoid,
    lasso_strokes,
)
from napari_medgs.segmentation.prompts.kinds import as_place
from napari_medgs.segmentation.prompts.prompts import Box, Point
from napari_medgs.segmentation.provisional import Beginning, Provisional, near

if TYPE_CHECKING:
    from napari_medgs.data.grid import Grid
    from napari_medgs.hierarchy import PartSelection
    from napari_medgs.segmentation.interactive import InteractiveSegmenter
    from napari_medgs.segmentation.session.changes import Delta
    from napari_medgs.segmentation.session.session import Session

Mask = NDArray[np.bool_]
RADIUS = 1.5  # of a click, in finest voxels


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
    hints : (Z, Y, X) ndarray of int, optional
        A mask of other origin, such as a trained segmenter's: a first click on one of its classes
        takes the connected piece there in place of a part.
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
        self._answers: Provisional | None = None
        self._new: list[Window] = []  # where prompts came since the last answer
        self._first: Beginning | None = None
        self._begun: Beginning | None = None  # what the mask began with
        self._trusted = False  # whether the mask comes from the user or a model
        self.label = 1
        self.hints: NDArray[Any] | None = None
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
        place = _voxel(position, self._session.grid)
        label = self.label if positive else 0
        z, y, x = place
        # A later click on the same place wins: the earlier one goes.
        points = [p for p in self._session.settings.points if near(p.position) != place]
        point = Point((float(z), float(y), float(x)), label, radius=RADIUS)
        with self._lock:
            self._session.update_settings(points=(*points, point))
        if positive:
            self._begin(Beginning("points"))
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
        where = self._mask_of(where)
        window = self._window(where)
        self._paint(window, where[window], self.label if positive else 0)
        if positive:
            self._begin(
                Beginning("stroke", voxels=np.argwhere(where[window]) + [s.start for s in window])
            )

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
        where = self._mask_of(where)
        window = self._window(where)
        if not positive:
            self._paint(window, where[window], 0)
            return
        axis = int(np.argmin([s.stop - s.start for s in window]))
        relative = self._session.grid.relative_spacing
        wide, inside, outside = lasso_strokes(where, window, axis, relative)
        self._paint(wide, inside, self.label, ((outside, 0),))
        self._begin(Beginning("region", window, where[window], axis))

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
        name = f"The box from {start} to {stop}"
        first, last = (as_place(corner, name, whole=True) for corner in (start, stop))
        low, high = np.maximum(first, 0), np.minimum(last, shape)
        if (high <= low).any():
            raise GeometryError(f"{name} holds no voxel.")
        window = window_of(low, high)
        if not positive:
            self._paint(window, np.ones(high - low, np.bool_), 0)
            return
        flat = np.flatnonzero((high - low == 1) & (np.asarray(shape) > 1))
        if len(flat):
            full = np.zeros(shape, np.bool_)
            full[window] = True
            relative = self._session.grid.relative_spacing
            wide, _, outside = lasso_strokes(full, window, int(flat[0]), relative)
            self._paint(wide, outside, 0)
        else:
            (a, b, c), (d, e, f) = low.tolist(), high.tolist()
            box = Box((a, b, c), (d, e, f), self.label)
            boxes = [b for b in self._session.settings.boxes if b != box]
            with self._lock:
                self._session.update_settings(boxes=(*boxes, box))
            self._new.append(window)
        axis = int(flat[0]) if len(flat) else None
        self._begin(Beginning("region", window, ellipsoid(high - low), axis))

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
        where = self._mask_of(mask)
        labels = np.zeros(where.shape, np.int32)
        labels[where] = self.label
        with self._lock:
            self._session.set_mask(labels)
        self._trusted, self._begun = True, None

    def _begin(self, first: Beginning) -> None:
        self.part = None
        if self._first is None or first.kind == "points":
            self._first = first

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

    def _mask_of(self, where: object) -> Mask:
        """Return a mask as booleans, whose integers are not 0 where the object is."""
        array = np.asarray(where)
        if array.shape != self._session.grid.shape:
            raise GeometryError(
                f"The mask has shape {array.shape}, the image {self._session.grid.shape}."
            )
        if array.dtype.kind not in "biuf":
            raise LabelError(f"The mask holds values of type {array.dtype}; give booleans.")
        return array if array.dtype == bool else array != 0

    def _window(self, where: Mask) -> Window:
        window = bounds(where)
        if window is None:
            raise LabelError("The prompt marks no voxel.")
        return window

    def forget(self) -> None:
        """Forget what was added since the last answer; for after an undo."""
        self._new, self._first = [], None

    # Answers

    def answer(self, *, should_stop: StopCallback = never_stop) -> Delta:
        """Return what the prompts since the last answer change, and make it the current mask.

        Parameters
        ----------
        should_stop : callable, optional
            Asked between steps whether to stop.

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
                mask = self._start(should_stop)
            else:
                self.part = None
                mask = self._provisional().correct(
                    mask, there, self._new, should_stop,
                    careful=self._trusted, first=self._begun,
                )  # fmt: skip
            after = session.labels_with(self.label, mask)
        self.forget()
        with self._lock:
            return session.set_result(after, is_current=False)

    def prepare(self, *, should_stop: StopCallback = never_stop) -> None:
        """Do ahead what the next correction needs, while the user looks at the answer.

        Parameters
        ----------
        should_stop : callable, optional
            Asked between steps whether to stop.

        Raises
        ------
        Cancelled
            When stopped.
        """
        there = bounds(self._session.labels == self.label)
        if there is not None:
            with limit_threads(self._segmenter.threads):
                self._provisional().prepare(there, should_stop)

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
        mask = self._provisional().marked(self._segmenter.parts.tree().mask(part.nodes))
        after = session.labels_with(self.label, mask)
        self.part = part
        with self._lock:
            return session.set_result(after, is_current=False)

    def _provisional(self) -> Provisional:
        if self._answers is None or self._answers.label != self.label:
            self._answers = Provisional(self._segmenter, self.label)
        return self._answers

    def _start(self, should_stop: StopCallback) -> Mask:
        """Return the part of the image that the first prompts choose; empty without any."""
        if self._first is None:
            empty: Mask = np.zeros(self._session.grid.shape, np.bool_)
            return empty
        answers = self._provisional()
        self._trusted, self._begun = False, self._first
        if self._first.kind != "points":
            return answers.begin(self._first, should_stop)
        hinted = answers.hinted(self.hints)
        if hinted is not None:
            self._trusted = True
            return hinted
        part = answers.part()
        self.part = part if len(self._new) == 1 else None
        return answers.marked(self._segmenter.parts.tree().mask(part.nodes))


def _voxel(position: Sequence[float], grid: Grid) -> tuple[int, int, int]:
    place = to_voxels(grid, [position])[0]
    z, y, x = np.clip(np.floor(place + 0.5), 0, np.asarray(grid.shape) - 1).astype(int).tolist()
    return z, y, x
