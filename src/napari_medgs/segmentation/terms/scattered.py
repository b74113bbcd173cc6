"""Classes of many components (lesions): those that no stroke touches are found by their look.

A stroke reaches its own component only. Where the annotated slices show that the appearance model
tells a class from everything else in them, places of the same look in the other slices become
markers of the class. It must pass two tests: components are left out one by one, and most must be
recognized by a model that never saw them; and what looks like the class in the annotated slices
must be the class, see :mod:`~napari_medgs.segmentation.terms.annotated_components`.
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
from napari_medgs.segmentation.terms.annotated_components import (
    AnnotatedComponents,
    annotated_components,
    around,
    look_of,
    margins,
    margins_at,
    without_leaks,
)
from napari_medgs.segmentation.terms.annotated_slices import AnnotatedSlices
from napari_medgs.segmentation.terms.appearance import Appearance, learn_appearance
from napari_medgs.segmentation.terms.image_features import ImageFeatures


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
        parts = annotated_components(slices.labels[box] == k, pixel)
        if parts.count < max(own.min_components, own.min_apart * parts.outlines):
            continue
        shown = without_leaks(slices, markers, image, appearance, k)
        parts = annotated_components(shown.labels == k, pixel)
        if parts.count < own.min_components:
            continue
        look = look_of(shown, image, appearance, parts, k, seed, own)
        if look.level <= 0:
            continue
        found = _candidates(
            shown, image, nodes, k, margins(looks, k), look.level,
            parts.diameter, own.max_size,
        )  # fmt: skip
        if look.trusted:
            recall = _held_out_recall(markers, image, shown, parts, k, seed, params)
            if recall >= own.min_recall:
                trusted.add(k)
        precisions[k] = look.precision
        diameters[k] = parts.diameter
        voxels.append(found)
        classes.append(np.full(len(found), k, np.int32))
        extents.append(float(np.sqrt(look.pixels * pixel / parts.outlines)))
    if not voxels or not sum(map(len, voxels)):
        return None
    return Scattered(
        np.concatenate(voxels), np.concatenate(classes), frozenset(trusted), precisions,
        float(np.mean(extents)), diameters, image.relative_spacing,
    )  # fmt: skip


def _denied(points: NDArray[Any], slices: AnnotatedSlices, k: int) -> NDArray[np.bool_]:
    """Return which points lie on annotated slices, apart from the class."""
    rest = [a for a in range(3) if a != slices.axis]
    place = np.round(points).astype(np.int64)
    denied: NDArray[np.bool_] = np.isin(place[:, slices.axis], slices.indices)
    s = np.searchsorted(slices.indices, place[denied, slices.axis])
    limit = np.asarray(slices.labels.shape[1:]) - 1
    rows, columns = np.clip(place[denied][:, rest], 0, limit).T
    denied[denied] = ~around(slices, k)[s, rows, columns]
    return denied


def _held_out_recall(
    markers: Markers,
    image: ImageFeatures,
    slices: AnnotatedSlices,
    parts: AnnotatedComponents,
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
            hits.append(np.median(margins_at(model, features[piece == one], k)) > 0)
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
