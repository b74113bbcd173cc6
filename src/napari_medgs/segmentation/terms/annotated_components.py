"""Components of a class in the annotated slices, and whether their look tells the class.

Whoever drew in a slice has marked all of a class in it: what looks like the class there, but is
not, says how far its look can be trusted elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.term_params import ScatterParams
from napari_medgs.segmentation.terms.annotated_slices import AnnotatedSlices
from napari_medgs.segmentation.terms.appearance import Appearance
from napari_medgs.segmentation.terms.image_features import ImageFeatures

PIXELS = 20_000  # most pixels of the annotated slices that the look is tested on
PARTS = 0.9, 0.75, 0.5  # of a class's pixels that its least margin is to leave
LEAST = 0.1  # nats
MOST_PIXELS = 300_000  # of the annotated slices in which pieces are counted
NEAR = 2  # pixels around a component that are neither of the class nor surely of another


@dataclass(frozen=True)
class AnnotatedComponents:
    """Components of one class in the annotated slices, those of overlapping outlines joined.

    Attributes
    ----------
    pieces : (S, rows, columns) ndarray of int
        0, or the component from 1 on.
    count : int
    outlines : int
        Number of components in all slices before those of overlapping outlines were joined.
    diameter : float
        Of a circle as large as the largest one in a slice, in voxels of the finest axis.
    """

    pieces: NDArray[np.int64]
    count: int
    outlines: int
    diameter: float


def annotated_components(labels: NDArray[np.bool_], pixel: float) -> AnnotatedComponents:
    """Return the components of masks (S, rows, columns) with pixels of an area."""
    from scipy.ndimage import label
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pieces = np.zeros(labels.shape, np.int64)
    total, largest = 0, 0
    for s, plane in enumerate(labels):
        parts, number = label(plane)
        pieces[s][parts > 0] = parts[parts > 0] + total
        total += number
        largest = max(largest, int(np.bincount(parts[parts > 0], minlength=1).max(initial=0)))
    first, second = pieces[:-1].reshape(-1), pieces[1:].reshape(-1)
    both = (first > 0) & (second > 0)
    links = coo_matrix((np.ones(both.sum()), (first[both], second[both])), (total + 1, total + 1))
    count, joined = connected_components(links, directed=False)
    order = np.concatenate([[0], np.unique(joined[1:], return_inverse=True)[1] + 1])
    return AnnotatedComponents(
        order[pieces], count - 1, total, float(np.sqrt(4 / np.pi * largest * pixel))
    )


def margins_at(model: Appearance, features: Floats, k: int) -> Floats:
    """Return by how much a class is likelier than the likeliest other one, in nats."""
    return margins(model.log_probability(features), k)


def margins(logs: Floats, k: int) -> Floats:
    """Return by how much log-probabilities (N, K) of a class exceed the largest other ones."""
    margin: Floats = logs[:, k] - np.delete(logs, k, axis=1).max(axis=1)
    return margin


def without_leaks(
    slices: AnnotatedSlices, markers: Markers, image: ImageFeatures, appearance: Appearance, k: int
) -> AnnotatedSlices:
    """Return annotated slices without the leaks of a class.

    A component that the first solve leaked through would hide how large and of what look the
    class is. Where most of one looks unlike the class, only what looks like it and what is marked
    stays.
    """
    from scipy.ndimage import label, median

    labels = slices.labels.copy()
    for s, plane in enumerate(labels):
        parts, number = label(plane == k)
        if not number:
            continue
        own = np.argwhere(parts)
        place = voxels_of(np.column_stack([np.full(len(own), s), own]), slices)
        margin, part = margins_at(appearance, image.at(place), k), parts[tuple(own.T)]
        leaked = np.append(False, median(margin, part, np.arange(1, number + 1)) <= 0)
        plane[tuple(own[leaked[part] & (margin <= 0)].T)] = 0
    on = np.isin(markers.voxels[:, slices.axis], slices.indices)
    on &= (markers.classes == k) & markers.user_marked
    s = np.searchsorted(slices.indices, markers.voxels[on, slices.axis])
    rows, columns = np.delete(markers.voxels[on], slices.axis, axis=1).T
    labels[s, rows, columns] = k
    return replace(slices, labels=labels)


@dataclass(frozen=True)
class Look:
    """How well the look of a class tells it from all else in the annotated slices.

    Attributes
    ----------
    pixels : int
        Of the class.
    level : float
        Margin over the other classes, in nats, that most of them have; 0 where nothing tells.
    precision : float
        How much of what has this margin is of the class.
    trusted : bool
        Whether that is enough.
    """

    pixels: int
    level: float
    precision: float
    trusted: bool


def look_of(
    slices: AnnotatedSlices,
    image: ImageFeatures,
    appearance: Appearance,
    components: AnnotatedComponents,
    k: int,
    seed: int,
    params: ScatterParams,
) -> Look:
    """Measure how well the look of a class tells it from all else in the annotated slices.

    Parameters
    ----------
    slices : AnnotatedSlices
    image : ImageFeatures
    appearance : Appearance
    components : AnnotatedComponents
        Of the class.
    k : int
        The class.
    seed : int
        Of the pixels of other classes that are drawn where there are too many.
    params : ScatterParams

    Returns
    -------
    Look
    """
    own, others = np.argwhere(components.pieces > 0), np.argwhere(~around(slices, k))
    total = len(others)
    drawn = others
    if total > PIXELS:
        drawn = others[np.random.default_rng([seed, 5]).choice(total, PIXELS, replace=False)]
    inside = margins_at(appearance, image.at(voxels_of(own, slices)), k)
    outside = margins_at(appearance, image.at(voxels_of(drawn, slices)), k)
    level, precision = 0.0, 0.0
    for part in PARTS:
        least = max(float(np.quantile(inside, 1 - part)), LEAST)
        right = np.count_nonzero(inside >= least)
        wrong = np.count_nonzero(outside >= least) * (total / max(len(drawn), 1))
        reached = right / max(right + wrong, 1)
        if reached > precision:
            level, precision = least, float(reached)
        if reached >= params.min_precision:
            break
    trusted = precision >= params.min_precision
    if not trusted and precision >= params.min_precision_few and total <= MOST_PIXELS:
        like = np.zeros(slices.labels.shape, np.bool_)
        place = voxels_of(others, slices)
        like[tuple(others.T)] = margins_at(appearance, image.at(place), k) >= level
        trusted = _count_pieces(like) <= components.outlines
    return Look(len(own), level, precision, trusted)


def _count_pieces(mask: NDArray[np.bool_]) -> int:
    """Return the number of components of two or more pixels in masks (S, rows, columns)."""
    from scipy.ndimage import label

    sizes = [np.bincount(label(plane)[0].reshape(-1))[1:] for plane in mask]
    return int(sum(np.count_nonzero(s > 1) for s in sizes))


def around(slices: AnnotatedSlices, k: int) -> NDArray[np.bool_]:
    """Return the pixels of a class in the annotated slices and those close to them."""
    from scipy.ndimage import binary_dilation

    return np.stack([binary_dilation(plane == k, iterations=NEAR) for plane in slices.labels])


def voxels_of(pixels: NDArray[Any], slices: AnnotatedSlices) -> NDArray[np.int64]:
    """Return slice-first voxels of pixels (slice, row, column) of the annotated slices."""
    voxels = np.empty((len(pixels), 3), np.int64)
    voxels[:, slices.axis] = slices.indices[pixels[:, 0]]
    voxels[:, [a for a in range(3) if a != slices.axis]] = pixels[:, 1:]
    return voxels
