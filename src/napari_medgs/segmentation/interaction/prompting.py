"""Prompts of an interactive segmenter: every method is one step of its history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.segmentation.interaction.state import SegmenterState
from napari_medgs.segmentation.prompts.coordinates import (
    labels_as_int32,
    marked_voxels,
    to_voxels,
)
from napari_medgs.segmentation.prompts.kinds import as_number, check_label, is_whole
from napari_medgs.segmentation.prompts.prompts import Box, Point, Prompts

if TYPE_CHECKING:
    pass


class Prompting(SegmenterState):
    """Scribbles, points, boxes, and masks and probabilities to begin with.

    What marks a class outside of its boxes becomes background; a warning says so once.
    """

    def add_scribble(self, label: int, where: ArrayLike, *, world: bool = False) -> bool:
        """Mark voxels as one class, or as background.

        Earlier points that say something else are taken back on these voxels: a point is removed
        where its own voxel is marked, and shrinks where others of its ball are.

        Parameters
        ----------
        label : int
            A class, or 0 for background.
        where : (Z, Y, X) boolean array, or (N, 3) array
            The marked voxels; or the corners of a line through places (z, y, x), with
            ``world`` RAS millimeters (x, y, z).
        world : bool

        Returns
        -------
        bool
            False where all of it was marked so already.

        Raises
        ------
        GeometryError
            When the mask has another shape than the image, or a line leaves it.
        LabelError
            When the label is negative or nothing is marked.
        """
        session = self._need()
        value, voxels = self._stroke_value(label), marked_voxels(session.grid, where, world)
        with self._lock:
            painted = session.paint(voxels, value)
        if painted:
            self._warn_of_boxes()
        return painted

    def _stroke_value(self, label: int) -> int:
        """Return what stands for a label in the stroke image; the viewer's has values of its own.

        Raises
        ------
        LabelError, ParameterError
            When there is no such value.
        """
        label, settings = check_label(label), self._need().settings
        if label == 0:
            background = self._need().prompts().background_value
            if background is None:
                raise ParameterError(
                    "This session has no value for background scribbles; choose one with "
                    "update_settings(background=...)."
                )
            return background
        if label == settings.unlabeled:
            raise LabelError(f"Label {label} means unlabeled in this session; choose another one.")
        return label

    def erase(self, where: ArrayLike, *, world: bool = False) -> bool:
        """Take scribbles away; see :meth:`add_scribble` for ``where``."""
        session = self._need()
        voxels = marked_voxels(session.grid, where, world)
        with self._lock:
            return session.paint(voxels, session.settings.unlabeled)

    def set_scribbles(self, labels: NDArray[Any], box: tuple[slice, ...] | None = None) -> bool:
        """Replace all scribbles, or those in a box, by a label image, as one step.

        Parameters
        ----------
        labels : (Z, Y, X) array of int
            Of the box's shape. Unlabeled and background voxels have the values of
            ``session.settings``, by default -1 and 0.
        box : tuple of slice, optional
            Part of the image; all of it by default.

        Returns
        -------
        bool
            False where all of it was so already.

        Raises
        ------
        GeometryError
            When it has another shape.
        LabelError
            When a value is no integer, or none that 32 bits hold.
        """
        session = self._need()
        labels = labels_as_int32(labels)
        part = box or (slice(None),) * 3
        before = session.strokes[part]
        if labels.shape != before.shape:
            raise GeometryError(
                f"The scribbles have shape {labels.shape}, the image or box {before.shape}."
            )
        if np.array_equal(labels, before):
            return False
        with self._lock:
            session.write_strokes(part, labels)
            painted = session.record_strokes(box)
        self._warn_of_boxes()
        return painted

    def correct(self, edited: NDArray[Any], box: tuple[slice, ...] | None = None) -> bool:
        """Take over a mask that was painted over: what differs from :attr:`labels` is a scribble.

        Parameters
        ----------
        edited : (Z, Y, X) array of int
            0 is background.
        box : tuple of slice, optional
            Where to look; everywhere by default.

        Returns
        -------
        bool
            False where nothing differs.

        Raises
        ------
        ParameterError
            When background was painted and the session has no value for it.
        LabelError
            When a new value is no integer, or none that 32 bits hold.
        """
        with self._lock:
            corrected = self._need().correct(edited, box)
        if corrected:
            self._warn_of_boxes()
        return corrected

    def add_point(
        self,
        label: int,
        position: Sequence[float],
        *,
        positive: bool = True,
        radius: float = 1.0,
        world: bool = False,
    ) -> bool:
        """Click: this place belongs to a class, or (``positive=False``) does not.

        Parameters
        ----------
        label : int
        position : (z, y, x) in voxels, or (x, y, z) in RAS mm with ``world``
        positive : bool
        radius : float
            Of the marked ball, in voxels of the finest axis.
        world : bool

        Returns
        -------
        bool
            False where the very same point was there, and none of another class on its voxel
            since.

        Raises
        ------
        GeometryError
            When it lies outside of the image.
        """
        z, y, x = to_voxels(self._need().grid, [position], world)[0]
        point = Point(
            (float(z), float(y), float(x)), check_label(label), positive, as_number(radius)
        )
        points = self._need().settings.points
        if point in points:
            place = points.index(point)
            if not any(_are_on_one_voxel(point, later) for later in points[place + 1 :]):
                return False
            points = (*points[:place], *points[place + 1 :])
        changed = self._change(points=(*points, point))
        self._warn_of_boxes()
        return changed

    def add_box(
        self, label: int, start: Sequence[float], stop: Sequence[float], *, world: bool = False
    ) -> bool:
        """Say that all of a class lies in a box.

        Parameters
        ----------
        label : int
        start, stop : (z, y, x) in voxels, or (x, y, z) in RAS mm with ``world``
            First voxel and one past the last; in millimeters two opposite corners.
        world : bool

        Returns
        -------
        bool
            False where the very same box was there.

        Raises
        ------
        GeometryError
            When it is empty or outside of the image.
        """
        grid = self._need().grid
        low, high = (to_voxels(grid, [corner], world, inside=False)[0] for corner in (start, stop))
        if world:
            low, high = np.minimum(low, high), np.maximum(low, high)
            low, high = np.floor(low + 0.5), np.floor(high + 1.5)
        first, last = np.asarray(low, int).tolist(), np.asarray(high, int).tolist()
        session = self._need()
        box = Box((first[0], first[1], first[2]), (last[0], last[1], last[2]), check_label(label))
        if box in session.settings.boxes:
            return False
        changed = self._change(boxes=(*session.settings.boxes, box))
        self._warn_of_boxes()
        return changed

    def set_complete(self, axis: int, index: int, complete: bool = True) -> bool:
        """Say that all of a slice is labeled, as one step: what is unlabeled in it is background.

        Parameters
        ----------
        axis, index : int
            Of the slice, on the canonical grid; axis 0 is z.
        complete : bool
            False takes it back.

        Returns
        -------
        bool
            Whether anything was different.

        Raises
        ------
        ParameterError
            When the image has no such slice.
        """
        session = self._need()
        shape = session.grid.shape
        if axis not in range(3) or not is_whole(index) or not 0 <= index < shape[axis]:
            raise ParameterError(
                f"There is no slice {index} along axis {axis} of an image of {shape} voxels."
            )
        return self._change(
            fully_labeled=session.settings.with_complete(axis, int(index), complete)
        )

    def set_initial(self, mask: ArrayLike | None, *, margin: float | None = None) -> None:
        """Start from a mask, which stays except near prompts that contradict it.

        Parameters
        ----------
        mask : (Z, Y, X) array of int, or None for none
            0 is background.
        margin : float, optional
            Voxels nearer than this to another label may change without a prompt, too, in voxels
            of the finest axis; the setting's present value otherwise (1, none, at first). More
            than 1 only helps masks that are too small or too large and whose borders are clear
            edges; see :class:`~napari_medgs.segmentation.Prompts`.

        Raises
        ------
        GeometryError, LabelError
            When the mask has another shape, or values are not integers from 0.
        """
        session = self._need()
        initial = None
        if mask is not None:
            initial = self._mask_of(np.asarray(mask))
        self._check_margin(margin)
        with self._lock:
            session.set_initial(initial)
        if margin is not None:
            self._change(initial_margin=as_number(margin))

    def set_prior(self, probabilities: NDArray[Any], *, margin: float | None = None) -> bool:
        """Start from class probabilities, such as a network's, as one step.

        The most likely classes are the present mask at once. They stay except near prompts that
        contradict them and where no class is likely. A mask to refine is dropped.

        Parameters
        ----------
        probabilities : (K, Z, Y, X) array of float
            From 0 on, with sum 1 in every voxel; background first. Kept in steps of 1/255.
        margin : float, optional
            See :meth:`set_initial`.

        Returns
        -------
        bool
            False where just these were set.

        Raises
        ------
        GeometryError, LabelError
            When they have another shape than the image, or are no probabilities.

        Examples
        --------
        >>> import numpy as np
        >>> import napari_medgs as mg
        >>> segmenter = mg.InteractiveSegmenter()
        >>> segmenter.set_image(np.random.default_rng(0).random((4, 6, 8), np.float32))
        >>> p = np.zeros((2, 4, 6, 8), np.float32)
        >>> p[1, 1:3, 2:4, 2:6] = 0.9
        >>> p[0] = 1 - p[1]
        >>> segmenter.set_prior(p)
        True
        >>> int(segmenter.labels.sum())
        16
        """
        from napari_medgs.segmentation.session.priors import quantize

        session = self._need()
        given = np.asarray(probabilities)
        Prompts(prior=given).check(session.grid.shape)
        prior = quantize(given)
        self._check_margin(margin)
        with self._lock:
            changed = session.set_prior(prior)
        if margin is not None:
            changed |= self._change(initial_margin=as_number(margin))
        return changed

    def _check_margin(self, margin: float | None) -> None:
        """Refuse a margin before a mask is set, so that both are or none."""
        if margin is not None:
            Prompts(initial_margin=as_number(margin)).check(self._need().grid.shape)


def _are_on_one_voxel(one: Point, other: Point) -> bool:
    """Return whether the voxel of two points is the same."""
    return bool((np.round(one.position) == np.round(other.position)).all())
