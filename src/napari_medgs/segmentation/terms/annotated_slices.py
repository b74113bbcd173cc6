"""Annotated slices as a whole: components without markers, and the shape prior between them.

In an annotated slice every component of a class gets a marker. A component that a first solve
finds there, far from every marker of its class in that slice, was reached through other slices:
it is taken for background. Slices with few markers are left alone, they may hold a correction
only. So are classes that are not marked in a slice because they are marked in others: many people
annotate each structure where it shows best. And so are components about as large as the marked
one that are clearly reached by their class first: a short stroke marks a part of a structure only.
Whoever marks several components marks all of them. What is much larger than all that the class
shows in marked components is a leak in every annotated slice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.term_params import ShapeParams
from napari_medgs.segmentation.terms.shape_prior import ShapePrior, shape_prior
from napari_medgs.segmentation.terms.slice_motion import SliceMotion
from napari_medgs.segmentation.terms.slice_parts import SlicePart, slice_parts

RIM = 1  # pixels of a component's outline that do not become markers
BEYOND = 3  # pixels from a painted area to the background that is marked around it
MARKED_TOGETHER = 2  # times as often as not: a class that is not marked is not there
MOST = 0.75  # of the markers lie in annotated slices whose outlines count past them
# A component without a marker stays if
SHORT = 0.3  # strokes cover at most this part of the only marked component,
AS_LARGE = 0.4  # its area is at least this part of that one's,
LEAD = 1.75  # and its class leads any other there by at least this.

Lead = Callable[[int, NDArray[np.int32]], float]


@dataclass
class AnnotatedSlices:
    """Labels of annotated slices.

    Attributes
    ----------
    axis : int
        Normal of the slices, in slice-first axes.
    indices : (S,) ndarray of int
        Increasing.
    labels : (S, rows, columns) ndarray of uint8
        Classes; those of the markers where there are any.
    params : ShapeParams
    empty : (E,) ndarray of int
        Those of the slices that show background only.
    shown : (S, K) ndarray of bool, optional
        Classes that the solve shows at their markers in a slice; all by default.
    """

    axis: int
    indices: NDArray[np.int64]
    labels: NDArray[np.uint8]
    params: ShapeParams = field(default_factory=ShapeParams)
    empty: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    shown: NDArray[np.bool_] | None = None

    def drop_unseeded_components(
        self,
        markers: Markers,
        relative_spacing: NDArray[np.float64],
        lead: Lead | None = None,
    ) -> NDArray[np.int32]:
        """Turn components far from every marker of their class into background, in place.

        Parameters
        ----------
        markers : Markers
        relative_spacing : (3,) ndarray
            Voxel sizes over the finest one.
        lead : callable, optional
            Of a class and (P, 3) voxels: cost of the cheapest paths of any other class there, over
            that of the class's own. Without it no component stays for its lead.

        Returns
        -------
        (P, 3) ndarray of int32
            Voxels of these components, their rims left out.
        """
        from scipy.ndimage import binary_erosion

        found = [np.zeros((0, 3), np.int32)]
        if not (markers.classes == 0).any():
            return found[0]
        rest = [a for a in range(3) if a != self.axis]
        position = markers.voxels[:, self.axis]
        counts = np.array(
            [np.count_nonzero(markers.user_marked & (position == z)) for z in self.indices]
        )
        rich = counts >= self.params.rich_fraction * counts.max(initial=0)
        empty = np.isin(self.indices, self.empty)
        rich |= empty
        told = self._classes_told(markers, rich) | empty[:, None]
        parts = [
            list(slice_parts(plane, markers, self.axis, int(z)))
            for plane, z in zip(self.labels, self.indices, strict=True)
        ]
        shown = self._marked_areas(parts, markers.count)
        for s in range(len(parts)):
            elsewhere = np.delete(shown, s, axis=0).max(axis=0, initial=0)
            for part in parts[s]:
                lost = part.flooded(int(shown[s, part.k]), int(elsewhere[part.k]))
                if rich[s] and told[s, part.k]:
                    lost |= self._far(part, relative_spacing[rest], lead)
                if lost.any():
                    part.labels[lost] = 0
                    found.append(part.voxels(binary_erosion(lost, iterations=RIM)))
        return np.concatenate(found)

    def _marked_areas(self, parts: list[list[SlicePart]], classes: int) -> NDArray[np.int64]:
        """Return the area of every class's components with a marker in it, (S, K), in pixels.

        0 for classes that the solve does not show at their markers: they are thinner than the
        Gaussians, and a component beside the markers may well be theirs.
        """
        areas = np.zeros((len(parts), classes), np.int64)
        for s in range(len(parts)):
            for part in parts[s]:
                if self.shown is None or self.shown[s, part.k]:
                    areas[s, part.k] = part.marked_area()
        return areas

    def _far(
        self, part: SlicePart, sampling: NDArray[np.float64], lead: Lead | None
    ) -> NDArray[np.bool_]:
        """Return the components of a class in a slice that lie far from its markers there."""
        from scipy.ndimage import distance_transform_edt

        components = part.components
        mine = components > 0
        near = np.zeros(mine.shape, np.bool_)
        near[part.strokes] = True
        count = np.count_nonzero(near)
        if count:
            near = distance_transform_edt(~near, sampling=sampling) <= self.params.seed_distance
        marked = np.unique(components[near & mine])
        lost: NDArray[np.bool_] = mine & ~np.isin(components, marked)
        area = np.count_nonzero(mine & ~lost)
        if lead is not None and len(marked) == 1 and count <= SHORT * area:
            sizes = np.bincount(components[lost])
            for number in np.flatnonzero(sizes >= AS_LARGE * area):
                pixels = components == number
                if lead(part.k, part.voxels(pixels)) >= LEAD:
                    lost &= ~pixels
        return lost

    def _classes_told(self, markers: Markers, rich: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return of which classes the markers of a slice tell where they are not, (S, K).

        Of a marked class they do. Of one that is not marked they do if it is marked as a rule in
        slices that show one of the classes marked here: at least ``MARKED_TOGETHER`` times as
        often as it is shown by the solve and not marked.
        """
        position = markers.voxels[markers.user_marked, self.axis]
        classes = markers.classes[markers.user_marked]
        there = np.isin(position, self.indices)
        marked = np.zeros((len(self.indices), markers.count), np.bool_)
        marked[np.searchsorted(self.indices, position[there]), classes[there]] = True
        shown = np.stack([(self.labels == k).any(axis=(1, 2)) for k in range(markers.count)], 1)
        left_out = shown & ~marked & rich[:, None]
        objects = marked[:, 1:].astype(np.int64)
        company = (objects @ objects.T > 0).astype(np.int64)  # slices that share a class
        often = company @ marked >= MARKED_TOGETHER * (company @ left_out)
        told: NDArray[np.bool_] = marked | often
        return told

    def keep_painted(
        self,
        markers: Markers,
        middle: NDArray[np.bool_],
        painted: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.bool_]:
        """Take areas that are painted up to their border for outlines of their classes, in place.

        Around a stroke the solve shows more of its class. Where it shows hardly more than a thick
        stroke, the stroke has the border of the class.

        Parameters
        ----------
        markers : Markers
        middle : (P,) ndarray of bool
            See :func:`~napari_medgs.segmentation.prompts.thinning.on_middle_lines`.
        painted : (P,) ndarray of bool, optional
            The markers of these areas, where they are known.

        Returns
        -------
        (P,) ndarray of bool
            The markers of these areas.
        """
        found = np.zeros(len(markers.voxels), np.bool_)
        if middle.all():
            return found
        rest = [a for a in range(3) if a != self.axis]
        position = markers.voxels[:, self.axis]
        for plane, z in zip(self.labels, self.indices, strict=True):
            on_slice = np.flatnonzero(position == z)
            for k in range(1, markers.count):
                on = on_slice[markers.classes[on_slice] == k]
                if middle[on].all():
                    continue
                more = plane == k
                more[tuple(markers.voxels[on][:, rest].T)] = False
                known = painted is not None and painted[on].any()
                if known or np.count_nonzero(more) <= self.params.most_unpainted * len(on):
                    plane[more] = 0
                    found[on] = True
        return found

    def around_painted(
        self, markers: Markers, painted: NDArray[np.bool_], several: bool
    ) -> NDArray[np.int32]:
        """Return voxels around areas that are painted up to their border: background.

        With a single slice there are none: how far a class may go would be learned from its
        border with them.

        Parameters
        ----------
        markers : Markers
        painted : (P,) ndarray of bool
            The markers of these areas, see :meth:`keep_painted`.
        several : bool
            Whether classes are marked in several slices.

        Returns
        -------
        (Q, 3) ndarray of int32
            A line in the slice, some pixels away from the areas, where no class is.
        """
        from scipy.ndimage import distance_transform_edt

        rest = [a for a in range(3) if a != self.axis]
        position = markers.voxels[:, self.axis]
        found = [np.zeros((0, 3), np.int32)]
        for plane, z in zip(self.labels, self.indices, strict=True):
            on = position == z
            rows, columns = markers.voxels[on & painted][:, rest].T
            if not several or not len(rows):
                continue
            outside = np.ones(plane.shape, np.bool_)
            outside[rows, columns] = False
            distance = distance_transform_edt(outside)
            line = (distance >= BEYOND) & (distance < BEYOND + 1) & (plane == 0)
            places = np.argwhere(line)
            voxels = np.empty((len(places), 3), np.int32)
            voxels[:, self.axis], voxels[:, rest] = z, places
            found.append(voxels)
        return np.concatenate(found)

    def hold_most(self, markers: Markers) -> bool:
        """Return whether most of the user's markers lie in these slices.

        Strokes of another orientation cross slices that nobody looked at as a whole.
        """
        position = markers.voxels[markers.user_marked, self.axis]
        return bool(np.isin(position, self.indices).mean() >= MOST) if len(position) else False

    def width(self, relative_spacing: NDArray[np.float64]) -> float:
        """Return the diameter of a circle as large as the largest class within the slices.

        Parameters
        ----------
        relative_spacing : (3,) ndarray
            Voxel sizes over the finest one.

        Returns
        -------
        float
            In units of the slices' distance; the mean over the slices that show the class.
        """
        pixel = float(np.prod(np.delete(relative_spacing, self.axis)))
        widest = 0.0
        for k in range(1, int(self.labels.max(initial=0)) + 1):
            areas = np.count_nonzero(self.labels == k, axis=(1, 2)) * pixel
            if areas.any():
                widest = max(widest, float(np.sqrt(4 / np.pi * areas[areas > 0]).mean()))
        return widest / float(relative_spacing[self.axis])

    def prior(
        self,
        relative_spacing: NDArray[np.float64],
        classes: int,
        scattered: frozenset[int] = frozenset(),
        motion: SliceMotion | None = None,
        outside: bool = True,
    ) -> ShapePrior | None:
        """Return the shape prior of the slices.

        Parameters
        ----------
        relative_spacing : (3,) ndarray
            Voxel sizes over the finest one.
        classes : int
        scattered : frozenset of int
            See :func:`~napari_medgs.segmentation.terms.shape_prior.shape_prior`.
        motion : SliceMotion, optional
            Of the image, along which outlines go; in straight lines without it.
        outside : bool
            Whether the prior goes on past the outermost slices, along the motion.

        Returns
        -------
        ShapePrior or None
            None where nothing is to be said: without a slice that shows a class, and with one
            slice if outlines do not go on past it.
        """
        used = ~np.isin(self.indices, self.empty)
        outside = outside and motion is not None and self.params.outside_weight > 0
        if np.count_nonzero(used) < (1 if outside else 2):
            return None
        slices = self.indices[used]
        return shape_prior(
            self.labels[used],
            slices,
            self.axis,
            relative_spacing,
            classes,
            self.params,
            scattered,
            None if self.shown is None else self.shown[used],
            None if motion is None else motion.trajectories(self.axis, slices),
            outside,
        )
