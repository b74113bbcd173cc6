"""Hard constraints: locked classes, bounding boxes, negative points, and walls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.solver.geodesic import GraphSolver
from napari_medgs.segmentation.solver.path_costs import UNREACHABLE


class Constraints:
    """Where classes are forbidden, slice-first.

    Parameters
    ----------
    prompts : Prompts
        Checked.
    markers : Markers
    shape : (Z, Y, X) of the canonical grid
    axes : (int, int, int)
        Canonical axes in slice-first order.
    walls : dict of int to (Z, Y, X) ndarray of bool, optional
        By label value: canonical voxels that a class cannot have.

    Attributes
    ----------
    locked : dict of int to (Z, Y, X) ndarray of bool
        Voxels of every locked class by its index.
    any : bool
        Whether there is any constraint.
    """

    def __init__(
        self,
        prompts: Prompts,
        markers: Markers,
        shape: tuple[int, int, int],
        axes: tuple[int, int, int],
        walls: Mapping[int, NDArray[np.bool_]] | None = None,
    ) -> None:
        self._markers = markers
        self._walls = {
            markers.values.index(value): np.moveaxis(wall, axes[0], 0)
            for value, wall in (walls or {}).items()
        }
        self.locked: dict[int, NDArray[np.bool_]] = {}
        for value in sorted(prompts.locked):
            if value in markers.values and prompts.result is not None:
                mine = np.moveaxis(prompts.result == value, axes[0], 0)
                self.locked[markers.values.index(value)] = mine
        self.any = bool(self.locked or markers.boxes or self._walls)

    def forbidden_at(self, voxels: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return which classes voxels cannot have.

        Parameters
        ----------
        voxels : (P, 3) ndarray of int

        Returns
        -------
        (K, P) ndarray of bool
        """
        markers = self._markers
        forbidden = np.zeros((markers.count, len(voxels)), np.bool_)
        if not self.any:
            return forbidden
        for k, boxes in markers.boxes.items():
            held = np.zeros(len(voxels), np.bool_)
            for start, stop in boxes:
                held |= ((voxels >= start) & (voxels < stop)).all(axis=1)
            forbidden[k] |= ~held
        for k, wall in self._walls.items():
            limit = np.asarray(wall.shape) - 1
            forbidden[k] |= wall[tuple(np.clip(voxels, 0, limit).T)]
        for k, mask in self.locked.items():
            limit = np.asarray(mask.shape) - 1
            mine = mask[tuple(np.clip(voxels, 0, limit).T)]
            forbidden[k] |= ~mine
            forbidden[:k] |= mine
            forbidden[k + 1 :] |= mine
        return forbidden

    def enforce(self, labels: NDArray[np.uint8]) -> None:
        """Restore locked classes and make classes background outside of their boxes, in place."""
        for k, boxes in self._markers.boxes.items():
            mine = labels == k
            for start, stop in boxes:
                mine[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = False
            labels[mine] = 0
        for k, mask in self.locked.items():
            labels[(labels == k) & ~mask] = 0
            labels[mask] = k


def resolve_negative_points(markers: Markers, solver: GraphSolver, distance: Floats) -> Markers:
    """Return the markers with every negative voxel marked as the next nearest class there."""
    nodes = solver.nearest_nodes(markers.negative_voxels)
    there = distance[:, nodes].copy()
    there[markers.negative_classes, np.arange(len(nodes))] = np.inf
    best = there.argmin(axis=0)
    best[there.min(axis=0) >= UNREACHABLE] = 0
    flat = np.ravel_multi_index(tuple(markers.voxels.T), solver.image.guide.shape[1:])
    negative = np.ravel_multi_index(tuple(markers.negative_voxels.T), solver.image.guide.shape[1:])
    kept = ~np.isin(flat, negative)
    negative, first = np.unique(negative, return_index=True)
    return replace(
        markers,
        voxels=np.concatenate([markers.voxels[kept], markers.negative_voxels[first]]),
        classes=np.concatenate([markers.classes[kept], best[first].astype(np.int32)]),
        user_marked=np.concatenate([markers.user_marked[kept], np.ones(len(first), np.bool_)]),
    )
