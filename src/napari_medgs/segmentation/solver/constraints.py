"""What classes may not have: locked regions, what lies outside boxes, denied points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.prompts.markers import Evidence
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.solver.geodesic import DISTANT, GraphSolver


class Constraints:
    """Bans per class, slice-first.

    ``locked`` holds the voxels of every locked class by its index.

    Parameters
    ----------
    prompts : Prompts
        Checked.
    evidence : Evidence
    shape : (Z, Y, X) of the canonical grid
    axes : (int, int, int)
        Canonical axes in slice-first order.
    """

    def __init__(
        self,
        prompts: Prompts,
        evidence: Evidence,
        shape: tuple[int, int, int],
        axes: tuple[int, int, int],
    ) -> None:
        self._evidence = evidence
        self.locked: dict[int, NDArray[np.bool_]] = {}
        for value in sorted(prompts.locked):
            if value in evidence.values and prompts.result is not None:
                mine = np.moveaxis(prompts.result == value, axes[0], 0)
                self.locked[evidence.values.index(value)] = mine
        self.any = bool(self.locked or evidence.boxes)

    def banned_at(self, voxels: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return which classes voxels (P, 3) cannot have, (K, P)."""
        evidence = self._evidence
        banned = np.zeros((evidence.count, len(voxels)), np.bool_)
        if not self.any:
            return banned
        for k, boxes in evidence.boxes.items():
            held = np.zeros(len(voxels), np.bool_)
            for start, stop in boxes:
                held |= ((voxels >= start) & (voxels < stop)).all(axis=1)
            banned[k] |= ~held
        for k, mask in self.locked.items():
            limit = np.asarray(mask.shape) - 1
            mine = mask[tuple(np.clip(voxels, 0, limit).T)]
            banned[k] |= ~mine
            banned[:k] |= mine
            banned[k + 1 :] |= mine
        return banned

    def enforce(self, labels: NDArray[np.uint8]) -> None:
        """Put locked classes back exactly; take classes out of where they are banned."""
        for k, boxes in self._evidence.boxes.items():
            mine = labels == k
            for start, stop in boxes:
                mine[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = False
            labels[mine] = 0
        for k, mask in self.locked.items():
            labels[(labels == k) & ~mask] = 0
            labels[mask] = k


def denied_marks(evidence: Evidence, solver: GraphSolver, distance: Floats) -> Evidence:
    """Return the evidence with every denied voxel marked as the next best class there."""
    nodes = solver.nearest_nodes(evidence.denied_voxels)
    there = distance[:, nodes].copy()
    there[evidence.denied_classes, np.arange(len(nodes))] = np.inf
    best = there.argmin(axis=0)
    best[there.min(axis=0) >= DISTANT] = 0
    flat = np.ravel_multi_index(tuple(evidence.voxels.T), solver.image.metric.shape[1:])
    denied = np.ravel_multi_index(tuple(evidence.denied_voxels.T), solver.image.metric.shape[1:])
    kept = ~np.isin(flat, denied)
    denied, first = np.unique(denied, return_index=True)
    return replace(
        evidence,
        voxels=np.concatenate([evidence.voxels[kept], evidence.denied_voxels[first]]),
        classes=np.concatenate([evidence.classes[kept], best[first].astype(np.int32)]),
        hard=np.concatenate([evidence.hard[kept], np.ones(len(first), np.bool_)]),
    )
