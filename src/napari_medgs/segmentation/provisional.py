"""Answers to prompts on one object: a part to begin with, then corrections in a box around them.

The first prompt chooses a part of the image: where it does not say what is background, the tree of
parts does. Every further one corrects the mask that there is: it stays as it is except within a
margin along its borders and around prompts that contradict it, which are solved anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import StopCallback
from napari_medgs.errors import LabelError, ParameterError
from napari_medgs.segmentation.borders import changed_near, distance_to, in_the_middle, margin_of
from napari_medgs.segmentation.local import Box as Window
from napari_medgs.segmentation.local import LocalSolver, bounds
from napari_medgs.segmentation.local import window as window_of
from napari_medgs.segmentation.prompts.inferred import best_part, fit_stroke, part_at
from napari_medgs.segmentation.prompts.prompts import Box, Point, Prompts

if TYPE_CHECKING:
    from napari_medgs.hierarchy import PartSelection
    from napari_medgs.segmentation.interactive import InteractiveSegmenter
    from napari_medgs.segmentation.params import SegmentParams
    from napari_medgs.segmentation.session.session import Session

Mask = NDArray[np.bool_]
RELEASE = 6.0  # radius around a prompt that contradicts the mask, over its depth there
LESS_RELEASE = 1.0  # the same, where that would leave nothing of the mask
CAREFUL_RELEASE = 2.0  # the same, where the mask is trusted
FAR = 1.0  # distance of a click from the mask over its radius from which its part joins
REACH = 3.0  # radius of a part that joins, as a ball, over that distance
ROOM = 0.2  # around the mask, over its sides
LEAST_ROOM = 8.0  # finest voxels
POOR = 0.3  # Dice of a part with the ellipsoid of a box below which the box is solved instead


@dataclass(frozen=True)
class Beginning:
    """What a first prompt says of the object.

    Attributes
    ----------
    kind : str
        "points", "stroke" or "region".
    window : tuple of slice, optional
        Around the region.
    inside : ndarray of bool, optional
        The region, in the window.
    axis : int, optional
        Normal of the region's slices; None where it is known in space.
    voxels : (P, 3) ndarray of int, optional
        Of the stroke.
    """

    kind: str
    window: Window | None = None
    inside: Mask | None = None
    axis: int | None = None
    voxels: NDArray[Any] | None = None


class Provisional:
    """Finds provisional masks of one object from a segmenter's prompts.

    Parameters
    ----------
    segmenter : InteractiveSegmenter
    label : int
        Class of the object.
    """

    def __init__(self, segmenter: InteractiveSegmenter, label: int) -> None:
        self._segmenter, self.label = segmenter, label
        self._solver = LocalSolver(segmenter.volume)

    @property
    def _session(self) -> Session:
        return self._segmenter.session

    def part(self) -> PartSelection:
        """Return the part at the clicks."""
        return part_at(self._segmenter.parts.tree(), *self._places())

    def hinted(self, hints: NDArray[Any] | None) -> Mask | None:
        """Return the connected piece of a class of a mask at the last positive click.

        Parameters
        ----------
        hints : (Z, Y, X) ndarray of int, optional

        Returns
        -------
        (Z, Y, X) ndarray of bool, or None
            None where there is no mask, or background at the click.
        """
        positive, _ = self._places()
        if hints is None or not positive or not hints[near(positive[-1])]:
            return None
        from scipy.ndimage import label

        place = near(positive[-1])
        pieces, _ = label(hints == hints[place])
        return self.marked(pieces == pieces[place])

    def begin(self, first: Beginning, should_stop: StopCallback) -> Mask:
        """Return the mask that a stroke or a region begins.

        Parameters
        ----------
        first : Beginning
        should_stop : callable

        Returns
        -------
        (Z, Y, X) ndarray of bool
        """
        tree = self._segmenter.parts.tree()
        if first.voxels is not None:
            return self.marked(tree.mask(fit_stroke(tree, first.voxels)))
        window, inside, axis = first.window, first.inside, first.axis
        assert window is not None
        assert inside is not None
        node = best_part(tree, window, inside, axis)
        assert node is not None
        mask = tree.mask(node) & self._held(window, axis)
        if axis is None:
            shared = np.count_nonzero(mask[window] & inside)
            total = np.count_nonzero(mask) + np.count_nonzero(inside)
            solved = None
            if 2 * shared < POOR * total:
                solved = self._solve_box(window, should_stop)
            mask = mask if solved is None else solved
        return self.marked(mask)

    def _solve_box(self, window: Window, should_stop: StopCallback) -> Mask | None:
        """Return what a solve finds in a box: its middle is object, what is around it is not."""
        low = np.array([s.start for s in window])
        high = np.array([s.stop for s in window])
        margin = np.maximum(ROOM * (high - low), LEAST_ROOM / self._session.grid.relative_spacing)
        around = self._solver.box_for(low, high, margin)
        corner = [s.start for s in around]
        (a, b, c), (d, e, f) = (low - corner).tolist(), (high - corner).tolist()
        prompts = replace(
            self._prompts(np.zeros(0, np.bool_), around, 1.0),
            initial=None,
            boxes=(Box((a, b, c), (d, e, f), 1),),
        )
        found = self._solve(around, prompts, should_stop)
        if found is None or not found.any():
            return None
        mask: Mask = np.zeros(self._session.grid.shape, np.bool_)
        mask[around] = found
        return mask

    def correct(
        self,
        mask: Mask,
        there: Window,
        new: list[Window],
        should_stop: StopCallback,
        *,
        careful: bool = False,
        first: Beginning | None = None,
    ) -> Mask:
        """Return a mask corrected by new prompts.

        A prompt lies in an error: where the mask is trusted, all that changes hangs together with
        the prompt, and nothing changes that is much farther from it than the prompt is deep.

        Parameters
        ----------
        mask : (Z, Y, X) ndarray of bool
        there : tuple of slice
            The smallest box of the mask.
        new : list of tuple of slice
            Where prompts are new.
        should_stop : callable
        careful : bool
            Whether the mask is trusted.
        first : Beginning, optional
            What the mask began with: where a prompt is against all of it, a box takes another
            part.

        Returns
        -------
        (Z, Y, X) ndarray of bool
        """
        relative = self._session.grid.relative_spacing
        if not careful:
            mask = self._with_parts(mask, there, new)
        there = bounds(mask) or there
        low = np.min([[s.start for s in w] for w in (there, *new)], axis=0)
        high = np.max([[s.stop for s in w] for w in (there, *new)], axis=0)
        margin = np.maximum(ROOM * (high - low), LEAST_ROOM / relative)
        box = self._solver.box_for(low, high, margin)
        part = mask[box]
        if part.all() or not part.any():
            return self.marked(mask)
        free = margin_of(part, relative, [_within(w, box) for w in new] if careful else None)
        release = CAREFUL_RELEASE if careful else RELEASE
        prompts = self._prompts(part, box, free)
        found = self._solve(box, prompts, should_stop, release)
        if found is None:
            about_all = in_the_middle(part, [_within(w, box) for w in new], relative)
            other = self._other_part(first) if about_all else None
            if other is not None:
                return other
            found = self._solve(box, prompts, should_stop, LESS_RELEASE)
        if found is None:
            return self.marked(mask)
        if careful:
            found = changed_near(part, found, [_within(w, box) for w in new], relative)
        out = mask.copy()
        out[box] = found
        return self._within_boxes(out)

    def prepare(self, there: Window, should_stop: StopCallback) -> None:
        """Do ahead what a first correction of a mask needs.

        Parameters
        ----------
        there : tuple of slice
            The smallest box of the mask.
        should_stop : callable
        """
        low, high = np.array([s.start for s in there]), np.array([s.stop for s in there])
        margin = np.maximum(ROOM * (high - low), LEAST_ROOM / self._session.grid.relative_spacing)
        box = self._solver.box_for(low, high, margin)
        field = self._segmenter.fit_field()
        self._solver.prepare(box, field, self._params(), should_stop=should_stop)

    def _params(self, release: float = RELEASE) -> SegmentParams:
        params = self._session.settings.params
        released = replace(params.advanced.initial_mask, release_factor=release)
        return replace(params, advanced=replace(params.advanced, initial_mask=released))

    def _solve(
        self,
        box: Window,
        prompts: Prompts,
        should_stop: StopCallback,
        release: float = RELEASE,
    ) -> Mask | None:
        """Return the object in a box; None where one class alone is marked, or nothing fitted."""
        field = self._segmenter.fit_field()
        params = self._params(release)
        try:
            result = self._solver.solve(box, field, prompts, params, should_stop=should_stop)
        except (LabelError, ParameterError):  # such a large ball leaves nothing of the mask
            return None
        return None if result is None else result.labels == 1

    def _other_part(self, first: Beginning | None) -> Mask | None:
        """Return the part of a box without negative clicks; None where there is none."""
        if first is None or first.window is None or first.inside is None:
            return None
        tree = self._segmenter.parts.tree()
        negative = [near(p) for p in self._places()[1]]
        node = best_part(tree, first.window, first.inside, first.axis, negative)
        if node is None:
            return None
        mask = self.marked(tree.mask(node) & self._held(first.window, first.axis))
        return mask if mask.any() else None

    def _prompts(self, part: Mask, box: Window, margin: float) -> Prompts:
        """Return the prompts of a box, with 1 for the object."""
        session, label = self._session, self.label
        strokes = session.strokes[box]
        marks = np.full(strokes.shape, -1, np.int32)
        marks[strokes == label] = 1
        marks[(strokes != label) & (strokes != session.settings.unlabeled)] = 0
        low = np.array([s.start for s in box])
        size = np.array(strokes.shape)
        points = []
        for point in session.settings.points:
            place = np.asarray(point.position) - low
            if (place >= 0).all() and (place <= size - 1).all():
                z, y, x = place.tolist()
                points.append(Point((z, y, x), int(point.label == label), radius=point.radius))
        return Prompts(
            labels=marks,
            unlabeled=-1,
            background=0,
            points=tuple(points),
            initial=part.astype(np.uint8),
            initial_margin=margin,
        )

    def _with_parts(self, mask: Mask, there: Window, new: list[Window]) -> Mask:
        """Return a mask with the part at a new click that lies far from it, where that is small.

        How far decides what is small: an error that reaches the mask has its middle about as far
        from it as from its own border.
        """
        positive, negative = self._places()
        clicks = [p for p in positive if any(_in_window(p, w) for w in new)]
        if len(clicks) != 1 or mask[near(clicks[0])]:
            return mask
        relative = self._session.grid.relative_spacing
        depth = distance_to(mask, there, near(clicks[0]), relative)
        cell = float(np.prod(relative))
        radius = (mask.sum() * cell * 3 / 4 / np.pi) ** (1 / 3)
        if depth < FAR * radius:
            return mask
        tree = self._segmenter.parts.tree()
        part = part_at(tree, clicks, negative)
        most = 4 / 3 * np.pi * (REACH * depth) ** 3 / cell
        sizes = [sum(int(tree.voxels[n]) for n in nodes) for nodes in part.levels]
        level = part.level
        while level and sizes[level] > most:
            level -= 1
        if sizes[level] > most:
            return mask
        return self.marked(mask | tree.mask(part.at_level(level).nodes))

    def _within_boxes(self, mask: Mask) -> Mask:
        """Return a mask without what is outside of the boxes, unless a click is."""
        settings = self._session.settings
        boxes = [b for b in settings.boxes if b.label == self.label]
        clicks = [p.position for p in settings.points if p.label == self.label]
        if not boxes or not all(_in_boxes(place, boxes) for place in clicks):
            return mask
        held: Mask = np.zeros(mask.shape, np.bool_)
        for box in boxes:
            held[window_of(box.start, box.stop)] = True
        return mask & held

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

    def marked(self, mask: Mask) -> Mask:
        """Return a mask with what is drawn in it."""
        session = self._session
        mask[session.strokes == self.label] = True
        mask[session.strokes == 0] = False
        for point in session.settings.points:
            mask[near(point.position)] = point.label == self.label
        return mask

    def _places(self) -> tuple[list[Any], list[Any]]:
        points = self._session.settings.points
        positive = [p.position for p in points if p.label == self.label]
        return positive, [p.position for p in points if p.label != self.label]


def near(position: Sequence[float]) -> tuple[int, int, int]:
    """Return the voxel at a place."""
    z, y, x = (int(p + 0.5) for p in position)
    return z, y, x


def _in_window(place: Sequence[float], window: Window) -> bool:
    return all(s.start <= p < s.stop for p, s in zip(near(place), window, strict=True))


def _in_boxes(place: Sequence[float], boxes: list[Box]) -> bool:
    return any(
        all(a <= p < b for p, a, b in zip(place, box.start, box.stop, strict=True))
        for box in boxes
    )


def _within(window: Window, box: Window) -> Window:
    """Return a window in the voxels of a box."""
    low = [w.start - b.start for w, b in zip(window, box, strict=True)]
    return window_of(low, [w.stop - b.start for w, b in zip(window, box, strict=True)])
