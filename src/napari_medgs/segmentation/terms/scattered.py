"""Classes of many components (lesions): those that no stroke touches are found by their look.

A stroke reaches its own component only. Where the annotated slices show that the appearance model
tells a class from everything else in them, places of the same look in the other slices become
markers of the class. It must pass two tests: components are left out one by one, and most must be
recognized by a model that never saw them; and what looks like the class in the annotated slices,
where whoever drew in them has marked all of it, must be the class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.advanced import SolverParams
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.result.suggest import Lacking
from napari_medgs.segmentation.terms.annotated_slices import AnnotatedSlices
from napari_medgs.segmentation.terms.appearance import Appearance, learn_appearance
from napari_medgs.segmentation.terms.image_features import ImageFeatures

PIXELS = 20_000  # most pixels of the annotated slices that the look is tested on
PARTS = 0.9, 0.75, 0.5  # of a class's pixels that its least margin is to leave
LEAST = 0.1  # nats
NEAR = 2  # pixels around a component that are neither of the class nor surely of another


@dataclass(frozen=True)
class Scattered:
    """Places that look like a class of many components, on slices that are not annotated.

    Attributes
    ----------
    voxels : (P, 3) ndarray of int32
        Slice-first.
    classes : (P,) ndarray of int32
    trusted : frozenset of int
        Classes that the look tells apart: their places are markers. Those of the others are
        places to look at only.
    precision : dict of int to float
        How much of what looks like a class in the annotated slices is of it.
    extent : float
        Mean diameter of the annotated components, in voxels of the finest axis.
    diameters : dict of int to float
        Of the largest annotated component of every class, in voxels of the finest axis.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    """

    voxels: NDArray[np.int32]
    classes: NDArray[np.int32]
    trusted: frozenset[int]
    precision: dict[int, float]
    extent: float
    diameters: dict[int, float]
    relative_spacing: NDArray[np.float64]

    def lacking(self, labels: NDArray[np.uint8], axis: int) -> Lacking:
        """Return in which slices a mask lacks places that look like a class.

        Parameters
        ----------
        labels : (Z, Y, X) ndarray of uint8
            Class indices, slice-first.
        axis : int
            Normal of the slices, in slice-first axes.

        Returns
        -------
        Lacking
        """
        weights = np.array([self.precision[int(k)] for k in self.classes])
        missed = labels[tuple(self.voxels.T)] != self.classes
        per_slice = np.bincount(
            self.voxels[missed, axis], weights[missed], minlength=labels.shape[axis]
        )
        extent = self.extent / float(self.relative_spacing[axis])
        return Lacking(per_slice / len(self.classes), extent)

    def markers(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return voxels and classes of the places that are markers."""
        mine = np.isin(self.classes, sorted(self.trusted))
        return self.voxels[mine], self.classes[mine]

    def added_to(self, markers: Markers) -> Markers:
        """Return markers with the places that are markers, as not drawn by the user."""
        return markers.with_inferred(*self.markers())


@dataclass(frozen=True)
class Nodes:
    """Nodes of the graph.

    Attributes
    ----------
    points : (N, 3) ndarray
        Slice-first.
    seeds : (N,) ndarray of int32
        Their classes by the markers, -1 where there is none.
    offsets : (N + 1,) ndarray of int32, neighbors : (E,) ndarray of int32
        Of each node its neighbors, compressed.
    """

    points: NDArray[Any]
    seeds: NDArray[np.int32]
    offsets: NDArray[np.int32]
    neighbors: NDArray[np.int32]


@dataclass(frozen=True)
class _Components:
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


def _components(labels: NDArray[np.bool_], pixel: float) -> _Components:
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
    return _Components(
        order[pieces], count - 1, total, float(np.sqrt(4 / np.pi * largest * pixel))
    )


def _margins(model: Appearance, features: Floats, k: int) -> Floats:
    """Return by how much a class is likelier than the likeliest other one, in nats."""
    return margins(model.log_probability(features), k)


def margins(logs: Floats, k: int) -> Floats:
    """Return by how much log-probabilities (N, K) of a class exceed the largest other ones."""
    margin: Floats = logs[:, k] - np.delete(logs, k, axis=1).max(axis=1)
    return margin


def find_scattered(
    markers: Markers,
    slices: AnnotatedSlices,
    image: ImageFeatures,
    appearance: Appearance,
    nodes: Nodes,
    looks: Floats,
    seed: int,
    params: SolverParams,
) -> Scattered | None:
    """Find unmarked places that look like a class of many components.

    Parameters
    ----------
    markers : Markers
    slices : AnnotatedSlices
        Their labels after components without markers were dropped.
    image : ImageFeatures
    appearance : Appearance
        Of the markers.
    nodes : Nodes
    looks : (N, K) ndarray of float32
        Log-probabilities of the classes at the nodes, by appearance.
    seed : int
        Of all random choices.
    params : SolverParams

    Returns
    -------
    Scattered or None
        None where no class has many components, or nothing was found.
    """
    from scipy.ndimage import find_objects

    own = params.scatter
    if not own.min_components or markers.boxes or not (markers.classes == 0).any():
        return None
    voxels, classes, trusted, extents = [], [], set(), []
    precisions: dict[int, float] = {}
    diameters: dict[int, float] = {}
    pixel = float(np.prod(np.delete(image.relative_spacing, slices.axis)))
    for k, box in enumerate(find_objects(slices.labels, max_label=markers.count - 1), 1):
        if box is None:
            continue
        parts = _components(slices.labels[box] == k, pixel)
        if parts.count < max(own.min_components, own.min_apart * parts.outlines):
            continue
        shown = _without_leaks(slices, markers, image, appearance, k)
        parts = _components(shown.labels == k, pixel)
        if parts.count < own.min_components:
            continue
        inside, level, precision = _look(
            shown, image, appearance, parts, k, seed, own.min_precision
        )
        if level <= 0:
            continue
        found = _candidates(
            shown, image, nodes, k, margins(looks, k), level,
            parts.diameter, own.max_size,
        )  # fmt: skip
        if precision >= own.min_precision:
            recall = _held_out_recall(markers, image, shown, parts, k, seed, params)
            if recall >= own.min_recall:
                trusted.add(k)
        precisions[k] = precision
        diameters[k] = parts.diameter
        voxels.append(found)
        classes.append(np.full(len(found), k, np.int32))
        extents.append(float(np.sqrt(inside * pixel / parts.outlines)))
    if not voxels or not sum(map(len, voxels)):
        return None
    return Scattered(
        np.concatenate(voxels), np.concatenate(classes), frozenset(trusted), precisions,
        float(np.mean(extents)), diameters, image.relative_spacing,
    )  # fmt: skip


def _without_leaks(
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
        place = _place(np.column_stack([np.full(len(own), s), own]), slices)
        margin, part = _margins(appearance, image.at(place), k), parts[tuple(own.T)]
        leaked = np.append(False, median(margin, part, np.arange(1, number + 1)) <= 0)
        plane[tuple(own[leaked[part] & (margin <= 0)].T)] = 0
    on = np.isin(markers.voxels[:, slices.axis], slices.indices)
    on &= (markers.classes == k) & markers.user_marked
    s = np.searchsorted(slices.indices, markers.voxels[on, slices.axis])
    rows, columns = np.delete(markers.voxels[on], slices.axis, axis=1).T
    labels[s, rows, columns] = k
    return replace(slices, labels=labels)


def _look(
    slices: AnnotatedSlices,
    image: ImageFeatures,
    appearance: Appearance,
    parts: _Components,
    k: int,
    seed: int,
    wanted: float,
) -> tuple[int, float, float]:
    """Return pixels of the class, the margin most of them have, and its precision there."""
    own, others = np.argwhere(parts.pieces > 0), np.argwhere(~_around(slices, k))
    total = len(others)
    rng = np.random.default_rng([seed, 5])
    if total > PIXELS:
        others = others[rng.choice(total, PIXELS, replace=False)]
    inside = _margins(appearance, image.at(_place(own, slices)), k)
    outside = _margins(appearance, image.at(_place(others, slices)), k)
    best = 0.0, 0.0
    for part in PARTS:
        level = max(float(np.quantile(inside, 1 - part)), LEAST)
        right = np.count_nonzero(inside >= level)
        wrong = np.count_nonzero(outside >= level) * (total / max(len(outside), 1))
        precision = right / max(right + wrong, 1)
        if precision > best[1]:
            best = level, float(precision)
        if precision >= wanted:
            break
    return len(own), *best


def _around(slices: AnnotatedSlices, k: int) -> NDArray[np.bool_]:
    """Return the pixels of a class in the annotated slices and those close to them."""
    from scipy.ndimage import binary_dilation

    return np.stack([binary_dilation(plane == k, iterations=NEAR) for plane in slices.labels])


def _denied(points: NDArray[Any], slices: AnnotatedSlices, k: int) -> NDArray[np.bool_]:
    """Return which points lie on annotated slices, apart from the class."""
    rest = [a for a in range(3) if a != slices.axis]
    place = np.round(points).astype(np.int64)
    denied: NDArray[np.bool_] = np.isin(place[:, slices.axis], slices.indices)
    s = np.searchsorted(slices.indices, place[denied, slices.axis])
    limit = np.asarray(slices.labels.shape[1:]) - 1
    rows, columns = np.clip(place[denied][:, rest], 0, limit).T
    denied[denied] = ~_around(slices, k)[s, rows, columns]
    return denied


def _place(pixels: NDArray[Any], slices: AnnotatedSlices) -> NDArray[np.int64]:
    """Return slice-first voxels of pixels (slice, row, column) of the annotated slices."""
    voxels = np.empty((len(pixels), 3), np.int64)
    voxels[:, slices.axis] = slices.indices[pixels[:, 0]]
    voxels[:, [a for a in range(3) if a != slices.axis]] = pixels[:, 1:]
    return voxels


def _held_out_recall(
    markers: Markers,
    image: ImageFeatures,
    slices: AnnotatedSlices,
    parts: _Components,
    k: int,
    seed: int,
    params: SolverParams,
) -> float:
    """Return the fraction of components that a model of the others recognizes by their markers."""
    own = params.calibration
    piece = np.zeros(len(markers.voxels), np.int64)
    s = np.searchsorted(slices.indices, markers.voxels[:, slices.axis])
    on = np.isin(markers.voxels[:, slices.axis], slices.indices) & (markers.classes == k)
    rest = [a for a in range(3) if a != slices.axis]
    rows, columns = markers.voxels[on][:, rest].T
    piece[on] = parts.pieces[s[on], rows, columns]
    known = np.unique(piece[piece > 0])
    if len(known) < 2:
        return 0.0
    features = image.at(markers.voxels)
    forest = replace(params.appearance, max_samples=own.max_samples, trees=own.trees)
    hits = []
    for f in range(min(own.folds, len(known))):
        out = known[f :: own.folds]
        train = ~np.isin(piece, out)
        model = learn_appearance(
            features[train], markers.classes[train], markers.count, image.density_columns,
            image.value_ranges, seed, forest,
        )  # fmt: skip
        if k not in model.present:
            return 0.0
        for one in out:
            hits.append(np.median(_margins(model, features[piece == one], k)) > 0)
    return float(np.mean(hits))


def _candidates(
    slices: AnnotatedSlices,
    image: ImageFeatures,
    nodes: Nodes,
    k: int,
    margin: Floats,
    level: float,
    diameter: float,
    max_size: float,
) -> NDArray[np.int32]:
    """Return voxels of nodes that look like the class, away from the annotated slices.

    What strokes of another class touch is not of the class, as far as a component reaches; nor is
    what annotated slices show elsewhere.
    """
    from scipy.ndimage import maximum, minimum
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    points, count = nodes.points, len(nodes.points)
    like = np.flatnonzero(margin > 0)
    ones = np.ones(len(nodes.neighbors), np.int8)
    links = csr_matrix((ones, nodes.neighbors, nodes.offsets), (count, count))
    number, part = connected_components(links[like][:, like], directed=False)
    every = np.arange(number)
    places = points[like] * image.relative_spacing
    sides = [maximum(p, part, every) - minimum(p, part, every) for p in places.T]
    small = np.max(sides, axis=0) <= max_size * diameter
    clear = maximum(margin[like], part, every) >= level
    marked = nodes.seeds[like]
    others = (marked >= 0) & (marked != k)
    others |= _denied(points[like], slices, k)
    others &= margin[like] >= np.median(margin[like])
    refused = np.zeros(len(like), np.bool_)
    if others.any():
        reach = cKDTree(places[others]).query(places)[0] <= diameter
        refused = reach & np.isin(part, part[others])
    good = (small & clear)[part] & ~refused & (margin[like] >= level)
    limit = np.asarray(image.guide.shape[1:]) - 1
    voxels = np.clip(np.round(points[like[good]]), 0, limit).astype(np.int32)
    voxels = voxels[~np.isin(voxels[:, slices.axis], slices.indices)]
    return np.unique(voxels, axis=0)
