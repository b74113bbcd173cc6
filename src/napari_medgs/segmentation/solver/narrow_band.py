"""Voxel-exact boundaries: the paths go on through the image itself wherever it is undecided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.segmentation.prompts.markers import Evidence
from napari_medgs.segmentation.solver.geodesic import DISTANT, SOFTENING, GraphSolution
from napari_medgs.segmentation.solver.graph import FLOOR
from napari_medgs.segmentation.solver.narrow_band_kernels import (
    clear_band,
    count_below,
    list_band,
    smooth_verdict,
    start_from_shell,
)
from napari_medgs.segmentation.solver.shortest_paths import band_distances
from napari_medgs.segmentation.terms.image_features import ImageFeatures

LEADS = np.array([0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0], np.float32)
LEAST_LEAD = 0.5
FAR = 8.0  # ways that much longer than the winner's are not followed,
NEAR = 1.0  # counting from this
SHARP = 0.7  # finest voxels: smoothing here; thin walls vanish in what the graph looks at
POWER = 2.0  # probability of a class ~ its distance to minus this
STEPS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
CHUNK = 8192


@dataclass
class Band:
    """Undecided voxels and what was found for them.

    Attributes
    ----------
    voxels : (B, 3) ndarray of int32
    scores : (B, K) ndarray of float32
        Minus the logarithm of every class's distance.
    """

    voxels: NDArray[np.int32]
    scores: Floats


def choose_lead(margin: Floats, budget: int) -> float:
    """Return the lead below which voxels are looked at again, so that few enough are."""
    best = float(LEADS[0])
    for lead in LEADS:
        counts = np.zeros(len(margin), np.int64)
        limit = np.float32(lead)

        def count(z: int, counts: NDArray[np.int64] = counts, limit: Any = limit) -> None:
            counts[z] = count_below(margin, limit, z, z + 1)

        run_chunks(count, len(margin))
        if lead > LEAST_LEAD and counts.sum() > budget:
            break
        best = float(lead)
    return best


def follow_until(distance: Floats) -> Floats:
    """Return the path costs up to which other classes' ways are followed, from the winner's."""
    bound: Floats = (distance + np.float32(NEAR)) * np.float32(FAR)
    return bound


class Refiner:
    """Keeps the scratch arrays that refinement needs, for one image.

    Parameters
    ----------
    image : ImageFeatures
    """

    def __init__(self, image: ImageFeatures) -> None:
        self.image = image
        self._metric = image.contrasts(SHARP)
        shape = image.metric.shape[1:]
        self._slot = np.full(shape, -1, np.int32)
        self._steps = STEPS[[shape[a // 2] > 1 for a in range(6)]]
        self._lengths = np.abs(self._steps @ image.units).astype(np.float32)
        # The slope's square times the length: jump^2 / length.
        self._jump_scales = (1 / self._lengths).astype(np.float32)

    def refine(
        self,
        solution: GraphSolution,
        evidence: Evidence,
        weight: float,
        smooth: float,
        labels: NDArray[np.uint8],
        top: Floats,
        margin: Floats,
        lead: float,
        banned: Callable[[NDArray[np.int32]], NDArray[np.bool_]] | None = None,
    ) -> Band:
        """Decide the voxels of small lead anew; ``labels`` are changed in place.

        ``smooth`` is the width of the final smoothing of probabilities, in finest voxels.
        ``banned`` tells for voxels (B, 3) which classes they cannot have, (K, B).
        """
        count = sum(
            int(count_below(margin, np.float32(lead), z, z + 1)) for z in range(len(margin))
        )
        voxels = np.empty((count, 3), np.int32)
        list_band(margin, np.float32(lead), self._slot, voxels)
        try:
            return self._solve(solution, evidence, weight, smooth, labels, top, voxels, banned)
        finally:
            clear_band(self._slot, voxels)

    def _solve(
        self,
        solution: GraphSolution,
        evidence: Evidence,
        weight: float,
        smooth: float,
        labels: NDArray[np.uint8],
        top: Floats,
        voxels: NDArray[np.int32],
        banned: Callable[[NDArray[np.int32]], NDArray[np.bool_]] | None,
    ) -> Band:
        classes, image = evidence.count, self.image
        distance = np.full((classes, len(voxels)), np.inf, np.float32)
        start_from_shell(
            self._metric, self._slot, voxels, self._steps, self._lengths, self._jump_scales,
            FLOOR, labels, top, distance,
        )  # fmt: skip
        marked = self._slot[tuple(evidence.voxels.T)]
        inside = marked >= 0
        distance[evidence.classes[inside], marked[inside]] = 0
        z, y, x = voxels.T
        bound = follow_until(np.exp(-top[z, y, x]))
        due = solution.dues(image.at(voxels), voxels, weight)
        toll, paid = np.ascontiguousarray(due.toll.T), np.ascontiguousarray(due.paid.T)
        if banned is not None:
            toll[banned(voxels)] = DISTANT

        def task(k: int) -> None:
            band_distances(
                self._metric, self._slot, voxels, self._steps, self._lengths, self._jump_scales,
                FLOOR, toll[k], paid[k], bound, distance[k],
            )  # fmt: skip

        run_chunks(task, classes)
        np.minimum(distance, bound, out=distance)
        if banned is not None:
            distance[banned(voxels)] = DISTANT
        np.minimum(distance[0], solution.ends.at(voxels), out=distance[0])
        distance += np.float32(SOFTENING)
        scores = np.ascontiguousarray(-np.log(distance).T)
        np.power(distance, np.float32(-POWER), out=distance)
        distance /= distance.sum(axis=0)
        probability = np.ascontiguousarray(distance.T)
        if smooth > 0:
            probability = self._smooth(voxels, labels, probability, smooth)
        labels[tuple(voxels.T)] = probability.argmax(axis=1)
        return Band(voxels, scores)

    def _smooth(
        self,
        voxels: NDArray[np.int32],
        labels: NDArray[np.uint8],
        scores: Floats,
        sigma: float,
    ) -> Floats:
        """Average probabilities over neighbours, weighted by a Gaussian in mm."""
        radius = [min(2, int(2 * sigma / u)) for u in self.image.units]
        grid = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in radius], indexing="ij"), -1)
        offsets = grid.reshape(-1, 3)
        square = ((offsets * self.image.units) ** 2).sum(axis=1)
        near = square <= (2 * sigma) ** 2 + 1e-6
        offsets = np.ascontiguousarray(offsets[near])
        weights = np.exp(-0.5 * square[near] / sigma**2).astype(np.float32)
        out = np.empty_like(scores)

        def task(block: int) -> None:
            first = block * CHUNK
            last = min(len(voxels), first + CHUNK)
            smooth_verdict(self._slot, voxels, labels, scores, offsets, weights, first, last, out)

        run_chunks(task, -(-len(voxels) // CHUNK))
        return out
