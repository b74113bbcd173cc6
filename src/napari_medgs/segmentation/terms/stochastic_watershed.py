"""Stochastic watershed: seeded watersheds over randomly perturbed saddles, and their votes.

Sums of small costs let a long path through a homogeneous region cost as much as a short one across
an edge. The highest edge on the path (minimax paths, which a seeded watershed follows) does not.
But one low saddle in a boundary lets a whole flood through; therefore the watershed is repeated
with randomly perturbed saddle heights, and the fraction of realizations that assign a class to a
basin counts. In every second realization a marker floods only from the level of its own voxel on,
as in a seeded watershed of the pixels; in the others it floods from the bottom of its basin, which
saves classes whose only markers lie on edges. Half of the realizations use the basins of a less
smoothed image, in which thin walls are higher.

References
----------
Angulo and Jeulin 2007, *Stochastic watershed segmentation*, ISMM; here saddles are random instead
of markers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.segmentation.term_params import WatershedParams
from napari_medgs.segmentation.terms.basin_tree import (
    BasinTree,
    count_votes,
    flood_tree,
    ordered_levels,
)
from napari_medgs.segmentation.terms.watershed import CatchmentBasins

CHUNK = 1 << 16  # basins whose votes a thread counts at a time


@dataclass(frozen=True)
class WatershedVotes:
    """Votes of all realizations.

    Attributes
    ----------
    basins : tuple of (Z, Y, X) ndarray of int32
        Basin of every voxel, per hierarchy.
    fractions : tuple of (N, K) ndarray of float32
        Fraction of a hierarchy's realizations that assign a class to a basin.
    weight : float or (K,) ndarray of float32
        Data cost, in nats, of a class that no realization assigns; of each class its own, or one
        for all.
    """

    basins: tuple[NDArray[np.int32], ...]
    fractions: tuple[Floats, ...]
    weight: float | Floats = 1.0

    def at(self, points: NDArray[Any]) -> Floats:
        """Return every class's fraction of all votes at points.

        Parameters
        ----------
        points : (P, 3) ndarray
            In slice-first voxels.

        Returns
        -------
        (P, K) ndarray of float32
        """
        most = np.asarray(self.basins[0].shape) - 1
        where = tuple(np.clip(np.round(points).astype(np.int64), 0, most).T)
        total = self.fractions[0][self.basins[0][where]]
        for basins, fractions in zip(self.basins[1:], self.fractions[1:], strict=True):
            total += fractions[basins[where]]
        total /= np.float32(len(self.basins))
        return total

    def add_cost(self, points: NDArray[Any], cost: Floats, factor: float = 1.0) -> None:
        """Add to the costs (P, K) of points (P, 3) what the votes speak against.

        Parameters
        ----------
        points : (P, 3) ndarray
        cost : (P, K) ndarray of float32
            ``weight`` times ``factor`` times one minus the vote fraction is added.
        factor : float
        """
        weight = np.float32(factor) * np.asarray(self.weight, np.float32)
        cost += weight * (np.float32(1) - self.at(points))


class StochasticWatershed:
    """Randomly perturbed saddle heights of one image, kept from update to update.

    Parameters
    ----------
    hierarchies : sequence of CatchmentBasins
        Of the same image at several scales; realizations are divided evenly among them.
    seed : int
        Of all random choices.
    params : WatershedParams, optional

    Attributes
    ----------
    count : int
        Number of realizations per hierarchy.
    """

    def __init__(
        self,
        hierarchies: Sequence[CatchmentBasins],
        seed: int = 0,
        params: WatershedParams | None = None,
    ) -> None:
        self.hierarchies, self.seed = tuple(hierarchies), seed
        params = params or WatershedParams()
        number = len(self.hierarchies)
        total = sum(basins.count for basins in self.hierarchies)
        self.count = int(
            np.clip(
                params.max_basins // total,
                params.held_out_realizations // number,
                params.realizations // number,
            )
        )
        rng = np.random.default_rng(seed)
        self._noise = np.float32(params.noise)
        self._marker_seed = int(rng.integers(2**31))
        draws = rng.integers(2**31, size=number * self.count)
        heights = [
            np.log(np.maximum(b.saddle_heights, 1).astype(np.float32)) for b in self.hierarchies
        ]
        self._trees = [BasinTree.of_saddles(b.count, b.first, b.second) for b in self.hierarchies]
        self._levels: dict[int, NDArray[np.int32]] = {}

        def draw(m: int) -> None:
            h = m % number
            noise = np.random.default_rng(draws[m]).standard_normal(len(heights[h]), np.float32)
            levels = ordered_levels(heights[h] + self._noise * noise)
            self._levels[m] = np.append(levels, np.int32(0))[self._trees[h].edge]  # the root's: -1

        run_chunks(draw, number * self.count)

    def vote(
        self, voxels: NDArray[Any], classes: NDArray[Any], count: int, most: int | None = None
    ) -> WatershedVotes:
        """Flood from markers in all realizations.

        Parameters
        ----------
        voxels : (P, 3) ndarray of int
        classes : (P,) ndarray of int
        count : int
            Number of classes.
        most : int, optional
            Most realizations over all hierarchies together; all by default.

        Returns
        -------
        WatershedVotes
        """
        number = len(self.hierarchies)
        realizations = self.count if most is None else min(self.count, most // number)
        where = tuple(np.asarray(voxels).T)
        markers = [_basin_markers(basins, where, classes, count) for basins in self.hierarchies]
        # What nothing reaches, because nothing is marked, is of the last class.
        labels = [
            np.full((realizations, basins.count), count - 1, np.uint8)
            for basins in self.hierarchies
        ]

        def flood(m: int) -> None:
            turn, h = divmod(m, number)
            basins, kinds, level = markers[h]
            rng = np.random.default_rng((self._marker_seed, m))
            starts = self._noise * rng.standard_normal(len(basins), np.float32)
            if turn % 2:
                starts += level
            tree = self._trees[h]
            best = np.empty(len(tree.parent), np.int64)
            flood_tree(
                tree.parent, tree.edge, self._levels[m], tree.node[basins], kinds,
                ordered_levels(starts), best, labels[h][turn],
            )  # fmt: skip

        run_chunks(flood, number * realizations)
        table = np.zeros(realizations + 1, np.float32)
        np.cumsum(np.full(realizations, 1 / realizations, np.float32), out=table[1:])
        fractions = [np.empty((basins.count, count), np.float32) for basins in self.hierarchies]
        for label, tree, fraction in zip(labels, self._trees, fractions, strict=True):
            self._count(label, tree, table, fraction)
        return WatershedVotes(tuple(b.labels for b in self.hierarchies), tuple(fractions))

    @staticmethod
    def _count(
        labels: NDArray[np.uint8], tree: BasinTree, table: Floats, fraction: Floats
    ) -> None:
        """Write the fractions of the votes of all realizations, labels (R, N)."""

        def task(block: int) -> None:
            first = block * CHUNK
            last = min(len(fraction), first + CHUNK)
            count_votes(labels, tree.basin, table, first, last, fraction)

        run_chunks(task, -(-len(fraction) // CHUNK))


def _basin_markers(
    basins: CatchmentBasins,
    where: tuple[NDArray[Any], ...],
    classes: NDArray[Any],
    count: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32], Floats]:
    """Return marked basins, their classes, and the log-level of their lowest marked voxels."""
    key = basins.labels[where].astype(np.int64) * count + classes
    level = np.log(np.maximum(basins.gradient_levels[where], 1).astype(np.float32))
    order = np.lexsort((level, key))
    key, lowest = np.unique(key[order], return_index=True)
    return (
        (key // count).astype(np.int32),
        (key % count).astype(np.int32),
        level[order][lowest],
    )
