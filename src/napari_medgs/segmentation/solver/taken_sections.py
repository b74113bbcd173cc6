"""Sections of classes in annotated slices that background of other slices takes away.

Who sees that a structure has ended strokes the slices past it as background. Where its tissue goes
on there, nothing holds paths from these strokes: they come back to the annotated slices, and take
the outer part of the section from a short stroke in its middle. But what the background is there,
the strokes of the slice itself say. Where a class would have far more of its slice without the
background of slices that show nothing else, it has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.solver.geodesic import GraphSolver
from napari_medgs.segmentation.solver.path_costs import PathCosts
from napari_medgs.segmentation.terms.annotated_slices import AnnotatedSlices

FAR_MORE = 0.5  # of what the class has left
RIM = 1  # pixels of a section's outline that do not become markers


def give_back_sections(
    graph: GraphSolver,
    slices: AnnotatedSlices,
    markers: Markers,
    sources: Markers,
    costs: PathCosts,
    forbidden: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Label what a class has without the background of slices that show nothing else, in place.

    Parameters
    ----------
    graph : GraphSolver
    slices : AnnotatedSlices
        After a first solve.
    markers, sources : Markers
        All of them, and those at which paths begin.
    costs : PathCosts
        Of the first solve.
    forbidden : (K, N) ndarray of bool or None
        Nodes that a class cannot have.

    Returns
    -------
    voxels : (P, 3) ndarray of int32
        Of what is given back, without its rim.
    classes : (P,) ndarray of int32
    """
    from scipy.ndimage import binary_erosion

    axis = slices.axis
    voxels, classes = [np.zeros((0, 3), np.int32)], [np.zeros(0, np.int32)]
    few = _without_lone_background(sources, markers, axis)
    own = [s for s, z in enumerate(slices.indices) if _shows_both(markers, axis, int(z))]
    if few is None or not own or markers.clicked or markers.boxes:
        return voxels[0], classes[0]
    distance = graph.propagate(graph.seeds(few.voxels, few.classes, few.count), costs, forbidden)
    scores = graph.scores(distance)
    for s in own:
        z, labels = int(slices.indices[s]), slices.labels[s]
        plane = graph.labels_in_plane(scores, axis, z)
        on = markers.voxels[:, axis] == z
        plane[tuple(np.delete(markers.voxels[on], axis, axis=1).T)] = 0
        for k in np.unique(markers.classes[on & (markers.classes > 0)]):
            more = (labels == 0) & (plane == k)
            if np.count_nonzero(more) < max(FAR_MORE * np.count_nonzero(labels == k), 1):
                continue
            labels[more] = k
            places = np.argwhere(binary_erosion(labels == k, iterations=RIM) & more)
            voxels.append(np.insert(places, axis, z, axis=1).astype(np.int32))
            classes.append(np.full(len(places), k, np.int32))
    return np.concatenate(voxels), np.concatenate(classes)


def _without_lone_background(sources: Markers, markers: Markers, axis: int) -> Markers | None:
    """Return sources without those in slices of background alone; None where there are none."""
    shown = markers.voxels[markers.user_marked & (markers.classes > 0), axis]
    kept = np.isin(sources.voxels[:, axis], shown) | (sources.classes > 0)
    return None if kept.all() or not (sources.classes[kept] == 0).any() else sources.subset(kept)


def _shows_both(markers: Markers, axis: int, position: Any) -> bool:
    """Return whether strokes, no full labels, show classes and background in a slice."""
    if position in markers.fully_labeled.get(axis, ()):
        return False
    classes = markers.classes[markers.user_marked & (markers.voxels[:, axis] == position)]
    return bool((classes == 0).any() and (classes > 0).any())
