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
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.segmentation.advanced import WatershedParams
from napari_medgs.segmentation.terms.basin_kernels import find_root
from napari_medgs.segmentation.terms.watershed import CatchmentBasins

_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def flood_basins(
    first: Any, second: Any, heights: Any, markers: Any, classes: Any, starts: Any, label: Any
) -> None:
    """Assign to each basin the class that reaches it over the lowest saddles.

    Parameters
    ----------
    first, second : (E,) int32
        Basins on both sides of every saddle.
    heights : (E,) float32
        Of the saddles, increasing.
    markers, classes : (S,) int32
        Marked basins and their classes.
    starts : (S,) float32
        Levels at which markers begin to flood, increasing; a basin that another class reached
        before keeps that.
    label : (N,) int32
        Out.
    """
    parent = np.full(len(label), -1, np.int32)
    label[:] = -1
    s = 0
    for e in range(len(first) + 1):
        while s < len(markers) and (e == len(first) or starts[s] <= heights[e]):
            a = find_root(parent, markers[s])
            if label[a] < 0:
                label[a] = classes[s]
            s += 1
        if e == len(first):
            break
        a, b = find_root(parent, first[e]), find_root(parent, second[e])
        if a == b or (label[a] >= 0 and label[b] >= 0):
            continue
        if parent[a] > parent[b]:
            a, b = b, a
        parent[a] += parent[b]
        parent[b] = a
        label[a] = max(label[a], label[b])
    for i in range(len(label)):
        label[i] = label[find_root(parent, i)]


@dataclass(frozen=True)
class WatershedVotes:
    """Votes of all realizations.

    Attributes
    ----------
    basins : tuple of (Z, Y, X) ndarray of int32
        Basin of every voxel, per hierarchy.
    fractions : tuple of (N, K) ndarray of float32
        Fraction of a hierarchy's realizations that assign a class to a basin.
    weight : float
        Data cost, in nats, of a class that no realization assigns.
    """

    basins: tuple[NDArray[np.int32], ...]
    fractions: tuple[Floats, ...]
    weight: float = 1.0

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

    def add_cost(self, points: NDArray[Any], cost: Floats) -> None:
        """Add ``weight`` times one minus the vote fraction to costs (P, K) of points (P, 3)."""
        cost += np.float32(self.weight) * (np.float32(1) - self.at(points))


class StochasticWatershed:
    """Randomly perturbed saddle heights of one image, kept from update to update.

    Parameters
    ----------
    hierarchies : sequence of CatchmentBasins
        Of the same image at several scales; realizations are divided evenly among them.
    seed : int
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
        self._saddles: dict[int, tuple[NDArray[np.int32], NDArray[np.int32], Floats]] = {}

        def draw(m: int) -> None:
            h = m % number
            basins = self.hierarchies[h]
            noise = np.random.default_rng(draws[m]).standard_normal(len(heights[h]), np.float32)
            perturbed = heights[h] + self._noise * noise
            order = np.argsort(perturbed, kind="stable")
            self._saddles[m] = basins.first[order], basins.second[order], perturbed[order]

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
        labels = [np.empty((realizations, basins.count), np.int32) for basins in self.hierarchies]

        def flood(m: int) -> None:
            turn, h = divmod(m, number)
            basins, kinds, level = markers[h]
            rng = np.random.default_rng((self._marker_seed, m))
            starts = self._noise * rng.standard_normal(len(basins), np.float32)
            if turn % 2:
                starts += level
            order = np.argsort(starts, kind="stable")
            flood_basins(
                *self._saddles[m], basins[order], kinds[order], starts[order], labels[h][turn]
            )

        run_chunks(flood, number * realizations)
        fractions = []
        for h, basins in enumerate(self.hierarchies):
            fraction = np.zeros((basins.count, count), np.float32)
            every = np.arange(basins.count)
            for label in labels[h]:
                fraction[every, label] += np.float32(1 / realizations)
            fractions.append(fraction)
        return WatershedVotes(tuple(b.labels for b in self.hierarchies), tuple(fractions))


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
