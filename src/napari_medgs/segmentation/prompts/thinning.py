"""Middle lines of thick strokes.

A thick brush marks a class nearly up to its border. Were all of it seeds, a class would begin at
its border and the background far away: the class would grow out of itself. Catchment basins at the
border belong to both sides, and no place in the slice is far from a marker, so that path costs
there say nothing of how far the class goes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation.prompts.markers import Markers

THICK = 2.5  # markers per pixel of the middle line from which on a stroke is thick
THICK_ALONE = 4.0  # the same where one slice alone is annotated: each marker counts more there
LEAST = 8  # markers of a class in a slice


def on_middle_lines(markers: Markers, *, fully_labeled: bool = False) -> NDArray[np.bool_]:
    """Return which markers lie on the middle lines of thick strokes, or in no thick stroke.

    Strokes are looked at slice by slice, each class of an annotated slice as a whole. Points,
    boxes and initial masks hold no strokes.

    Parameters
    ----------
    markers : Markers
    fully_labeled : bool
        Whether areas in fully labeled slices count as strokes, too.

    Returns
    -------
    (P,) ndarray of bool

    References
    ----------
    Zhang and Suen 1984, *A fast parallel algorithm for thinning digital patterns*,
    Communications of the ACM 27.

    Examples
    --------
    A class of 9 rows and 12 columns beside a line of the background:

    >>> thick = [(0, y, x) for y in range(9) for x in range(12)]
    >>> thin = [(0, 11, x) for x in range(12)]
    >>> classes = np.repeat([1, 0], [len(thick), len(thin)]).astype(np.int32)
    >>> none = np.zeros((0, 3), np.int32), np.zeros(0, np.int32)
    >>> drawn = np.ones(len(classes), bool)
    >>> voxels = np.array(thick + thin, np.int32)
    >>> middle = on_middle_lines(Markers((0, 1), voxels, classes, *none, user_marked=drawn))
    >>> bool(middle[classes == 0].all()), bool(middle[classes == 1].mean() < 0.25)
    (True, True)
    """
    from skimage.morphology import skeletonize

    found = np.ones(len(markers.voxels), np.bool_)
    if markers.kept is not None or markers.clicked:
        return found
    axis, slices = markers.annotated_slices()
    rest = [a for a in range(3) if a != axis]
    thick = THICK if len(slices) > 1 else THICK_ALONE
    place = np.where(markers.user_marked, markers.voxels[:, axis], -1)
    none = slices[:0]
    full = none if fully_labeled else markers.fully_labeled.get(axis, none)
    for z in np.setdiff1d(np.union1d(slices, markers.slices_without_background()), full):
        on_slice = np.flatnonzero(place == z)
        for k in range(markers.count):
            on = on_slice[markers.classes[on_slice] == k]
            if len(on) < LEAST:
                continue
            pixels = markers.voxels[on][:, rest]
            pixels = pixels - pixels.min(axis=0) + 1
            where = tuple(pixels.T)
            plane = np.zeros(pixels.max(axis=0) + 2, np.bool_)
            plane[where] = True
            lines = skeletonize(plane)
            if len(on) >= thick * np.count_nonzero(lines):
                found[on] = lines[where]
    return found
