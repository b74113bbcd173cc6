"""Marks of a class outside of its boxes, which become background all the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from napari_medgs.segmentation.prompts.collector import labeled_voxels
from napari_medgs.segmentation.prompts.prompts import Prompts


def find_outside_boxes(prompts: Prompts, shape: tuple[int, int, int]) -> dict[int, int]:
    """Return how many voxels are marked as a class outside of all of its boxes.

    Of a click the voxel itself counts, not the ball around it.

    Parameters
    ----------
    prompts : Prompts
        Checked.
    shape : (Z, Y, X) of the canonical grid

    Returns
    -------
    dict of int to int
        Voxels by class, for the classes that have some.

    Examples
    --------
    >>> from napari_medgs.segmentation import Box, Point
    >>> box, clicks = Box((0, 2, 2), (4, 6, 6), 1), (Point((1, 3, 3), 1), Point((1, 7, 3), 1))
    >>> find_outside_boxes(Prompts(boxes=(box,), points=clicks), (4, 8, 8))
    {1: 1}
    """
    if not prompts.boxes:
        return {}
    flat = np.zeros(0, np.int64)
    values = np.zeros(0, np.int64)
    if prompts.labels is not None:
        flat = labeled_voxels(prompts.labels, prompts.unlabeled)
        values = prompts.labels.reshape(-1)[flat].astype(np.int64)
    found = {}
    for label in sorted({box.label for box in prompts.boxes}):
        marked = np.stack(np.unravel_index(flat[values == label], shape), axis=1)
        clicked = [p.position for p in prompts.points if p.positive and p.label == label]
        places = np.round(np.reshape(clicked, (-1, 3))).astype(np.int64)
        places = np.clip(places, 0, np.asarray(shape) - 1)
        marked = np.unique(np.concatenate([marked, places]), axis=0)
        held = np.zeros(len(marked), np.bool_)
        for box in prompts.boxes:
            if box.label == label:
                held |= ((marked >= box.start) & (marked < box.stop)).all(axis=1)
        if not held.all():
            found[label] = int((~held).sum())
    return found


def describe_outside_boxes(
    found: Mapping[int, int], names: Mapping[int, str] | None = None
) -> str:
    """Return a sentence on marks outside of the boxes of their classes, and what to do.

    Parameters
    ----------
    found : dict of int to int
        Of :func:`find_outside_boxes`; one class or more.
    names : dict of int to str, optional

    Returns
    -------
    str

    Examples
    --------
    >>> describe_outside_boxes({3: 12}, {3: "tumor"}).partition(":")[0]
    '12 voxels marked as class 3 (tumor) lie outside of its boxes and become background'
    """
    names = names or {}
    parts = []
    for label, count in found.items():
        title, name = f"class {label}", names.get(label)
        title += f" ({name})" if name and name != title else ""
        parts.append(f"{count:,} voxel{'' if count == 1 else 's'} marked as {title}")
    lie = "lies" if list(found.values()) == [1] else "lie"
    becomes = "becomes" if lie == "lies" else "become"
    whose = "its boxes" if len(found) == 1 else "the boxes of their classes"
    return (
        f"{' and '.join(parts)} {lie} outside of {whose} and {becomes} background: make the boxes "
        "larger, or take the marks away."
    )
