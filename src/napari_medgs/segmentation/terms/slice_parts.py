"""A class in an annotated slice: its components, and which of them hold markers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation.prompts.markers import Markers

# A component without a marker is a leak if it is so many times as large as those with one
FLOOD_HERE = 2.0  # in its slice, and
FLOOD_ELSEWHERE = 1.5  # in any other one.


@dataclass(frozen=True)
class SlicePart:
    """A class in a slice, within the smallest box that holds it.

    Attributes
    ----------
    k : int
        The class.
    labels : (rows, columns) ndarray of uint8
        Of the slice in the box, a view.
    components : (rows, columns) ndarray of int
        Numbers of the class's components, from 1 on.
    strokes : tuple of (P,) ndarray of int
        Rows and columns of the class's markers.
    corner : (2,) ndarray of int
        Where the box begins.
    axis, position : int
        The slice.
    """

    k: int
    labels: NDArray[np.uint8]
    components: NDArray[Any]
    strokes: tuple[NDArray[Any], ...]
    corner: NDArray[np.int64]
    axis: int
    position: int

    def voxels(self, pixels: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Return the voxels (P, 3) of a mask of the box."""
        places = np.argwhere(pixels) + self.corner
        return np.insert(places, self.axis, self.position, axis=1).astype(np.int32)

    def marked_area(self) -> int:
        """Return how many pixels the components have that hold a marker."""
        marked = np.unique(self.components[self.strokes])
        return int(np.isin(self.components, marked).sum())

    def flooded(self, here: int, elsewhere: int) -> NDArray[np.bool_]:
        """Return the components that are too large to be of the class.

        Parameters
        ----------
        here, elsewhere : int
            The :meth:`marked_area` of the class in the slice, and the largest in another one; 0
            where none is known.

        Returns
        -------
        (rows, columns) ndarray of bool
        """
        if not (here and elsewhere):
            return np.zeros(self.components.shape, np.bool_)
        sizes = np.bincount(self.components.ravel())
        sizes[self.components[self.strokes]] = 0
        sizes[0] = 0
        least = max(FLOOD_HERE * here, FLOOD_ELSEWHERE * elsewhere)
        flooded: NDArray[np.bool_] = np.isin(self.components, np.flatnonzero(sizes > least))
        return flooded


def slice_parts(
    labels: NDArray[np.uint8], markers: Markers, axis: int, position: int
) -> Iterator[SlicePart]:
    """Iterate over the classes that a slice shows, the background left out.

    Parameters
    ----------
    labels : (rows, columns) ndarray of uint8
        Classes; those of the markers where there are any.
    markers : Markers
    axis, position : int
        The slice, in slice-first axes.

    Yields
    ------
    SlicePart
    """
    from scipy.ndimage import find_objects, label

    on = markers.voxels[:, axis] == position
    pixels, classes = np.delete(markers.voxels[on], axis, axis=1), markers.classes[on]
    there = labels[tuple(pixels.T)] == classes
    for k, box in enumerate(find_objects(labels, max_label=markers.count - 1), 1):
        if box is None:
            continue
        corner = np.array([side.start for side in box])
        strokes = tuple((pixels[there & (classes == k)] - corner).T)
        components, _ = label(labels[box] == k)
        yield SlicePart(k, labels[box], components, strokes, corner, axis, position)
