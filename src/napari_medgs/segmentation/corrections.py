"""Strokes that correct the mask that all other prompts give.

Who sees a leak strokes it as background, often in a slice without other strokes. Such a stroke
lies just where appearance and watershed are wrong. Learning from it would take away what is right:
the mask of the other prompts is corrected near it instead, as an initial mask is.

Some of these strokes are learned from like all others: those in slices that the mask floods, those
that cover most of what the mask has in a slice past its ends, and all where few other strokes show
what the background looks like.

A stroke of a class that is alone in its slice says that the class goes on there, and is learned
from. Nothing beside it tells where the class ends: where that makes it flood, it corrects as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation.advanced import InitialMaskParams
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.prompts.initial_mask import InitialMask
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.solver.empty_slices import empty_slices


@dataclass(frozen=True)
class CorrectedMask:
    """A mask that strokes correct, and what it was solved from.

    Attributes
    ----------
    mask : InitialMask
        On the canonical grid.
    learned : Markers
    params : SegmentParams
    constrained : bool
        Whether there were voxels that could not have all classes.
    """

    mask: InitialMask
    learned: Markers
    params: SegmentParams
    constrained: bool

    def is_of(self, markers: Markers, params: SegmentParams) -> bool:
        """Return whether these markers and settings, without constraints, give the mask."""
        return not self.constrained and self.params == params and _same(self.learned, markers)


@dataclass(frozen=True)
class SolvedMarkers:
    """Labels of a full solve without a mask or constraints.

    Attributes
    ----------
    markers : Markers
    labels : (Z, Y, X) ndarray of uint8
        Class indices, slice-first.
    params : SegmentParams
    """

    markers: Markers
    labels: NDArray[np.uint8]
    params: SegmentParams

    def is_of(self, markers: Markers, params: SegmentParams) -> bool:
        """Return whether these markers and settings give the labels."""
        return self.params == params and _same(self.markers, markers)


def _same(one: Markers, other: Markers) -> bool:
    return (
        one.values == other.values
        and np.array_equal(one.voxels, other.voxels)
        and np.array_equal(one.classes, other.classes)
        and np.array_equal(one.negative_voxels, other.negative_voxels)
        and np.array_equal(one.negative_classes, other.negative_classes)
        and one.fully_labeled.keys() == other.fully_labeled.keys()
        and all(np.array_equal(v, other.fully_labeled[a]) for a, v in one.fully_labeled.items())
    )


def knows_background(
    markers: Markers, stroke: NDArray[np.int64], params: InitialMaskParams
) -> bool:
    """Return whether other strokes of the background are many beside those of classes."""
    drawn = markers.classes[markers.user_marked & (stroke == 0)]
    background = np.count_nonzero(drawn == 0)
    return bool(background >= params.min_background * (len(drawn) - background))


def correcting_strokes(
    markers: Markers,
    stroke: NDArray[np.int64],
    labels: NDArray[np.uint8],
    params: InitialMaskParams,
) -> NDArray[np.bool_]:
    """Return which markers of the background correct the mask that the others give.

    Parameters
    ----------
    markers : Markers
    stroke : (P,) ndarray of int64
        See :func:`~napari_medgs.segmentation.prompts.lone_strokes.lone_strokes`.
    labels : (Z, Y, X) ndarray of uint8
        Class indices by a solve without these strokes, slice-first.
    params : InitialMaskParams

    Returns
    -------
    (P,) ndarray of bool
    """
    found = np.zeros(len(stroke), np.bool_)
    axis, annotated = markers.annotated_slices()
    stack = np.moveaxis(labels, axis, 0)
    ended = empty_slices(markers, lambda z: stack[z])
    largest = max((int(np.count_nonzero(stack[a])) for a in annotated), default=0)
    for s in np.unique(stroke[(stroke > 0) & (markers.classes == 0)]):
        mine = stroke == s
        voxels = markers.voxels[mine]
        if np.median(labels[tuple(voxels.T)] > 0) < 0.5:
            continue
        z = int(np.median(voxels[:, axis]))
        flooded = np.count_nonzero(stack[z]) > params.max_flood * largest
        found[mine] = not flooded and z not in ended
    return found


def extending_strokes(
    markers: Markers, stroke: NDArray[np.int64], labels: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Return which markers of classes lie outside of their class in the mask of the others.

    Parameters
    ----------
    markers : Markers
    stroke : (P,) ndarray of int64
    labels : (Z, Y, X) ndarray of uint8
        As for :func:`correcting_strokes`.

    Returns
    -------
    (P,) ndarray of bool
    """
    found = np.zeros(len(stroke), np.bool_)
    for s in np.unique(stroke[(stroke > 0) & (markers.classes > 0)]):
        mine = stroke == s
        own = labels[tuple(markers.voxels[mine].T)]
        found[mine] = np.median(own != markers.classes[mine]) >= 0.5
    return found


def flooding_strokes(
    markers: Markers,
    stroke: NDArray[np.int64],
    extending: NDArray[np.bool_],
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    params: InitialMaskParams,
) -> NDArray[np.bool_]:
    """Return which markers make their class flood where they are learned from.

    Strokes that are most of what shows their class, in slices that it does not reach without
    them, may well make it much larger: there all classes together have to flood.

    Parameters
    ----------
    markers : Markers
    stroke : (P,) ndarray of int64
        As for :func:`correcting_strokes`.
    extending : (P,) ndarray of bool
        See :func:`extending_strokes`.
    before, after : (Z, Y, X) ndarray of uint8
        Class indices without and with these strokes, slice-first.
    params : InitialMaskParams

    Returns
    -------
    (P,) ndarray of bool
    """
    axis, annotated = markers.annotated_slices()
    rest = tuple(a for a in range(3) if a != axis)
    found = np.zeros(len(extending), np.bool_)
    area, largest = ((labels > 0).sum(axis=rest) for labels in (after, before))
    floods = area.max() > params.max_flood * largest[annotated].max()
    for k in np.unique(markers.classes[extending]):
        mine = extending & (markers.classes == k)
        old, new = ((labels == k).sum(axis=rest) for labels in (before, after))
        alone = stroke[markers.user_marked & (markers.classes == k)] > 0
        shown = np.count_nonzero(alone) < np.count_nonzero(~alone)
        if not (floods or shown or old[markers.voxels[mine, axis]].all()):
            continue
        # Slices that the mask floods already tell nothing.
        told = old <= (params.max_flood * old[annotated].max() or np.inf)
        old, new = old[told], new[told]
        wider = new.max(initial=0) > params.max_widening * old.max(initial=0)
        if wider and new.sum() > params.max_growth * old.sum():
            found |= mine
    return found
