"""A second opinion: floods from the strokes over the image's lowest passes, many times over.

Sums of small costs let a long way through a quiet region look as expensive as a short one over an
edge. The highest edge on the way (minimax paths, which is what a seeded watershed follows) does
not. But one low pass in a boundary lets all of a flood through, so that the flood is repeated with
every pass raised or lowered by chance, and the share of floods that bring a class somewhere is
what counts. In every second flood a mark holds its basin only from the level of its own voxel on,
as in a seeded watershed; in the others marks are springs at the bottom of their basins, which
saves classes whose only marks lie on edges. Half of the floods run over the basins of a less
smoothed image, where thin walls stand higher.

Source: Angulo and Jeulin 2007, *Stochastic watershed segmentation*, ISMM; here passes are random
instead of the marks.
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
from napari_medgs.segmentation.terms.watershed import Basins, find_root

MEMBERS = 32
FEW_MEMBERS = 8  # enough to find out how far floods are to be trusted
BUDGET = 4_000_000  # basins in all floods together: so many take a fifth of a second on a core
NOISE = np.float32(0.8)  # of the logarithm of a pass's height
LEAST_TOLL = 1.0  # what a class pays where no flood brings it, if left-out slices speak against,
UNKNOWN_TOLL = 2.0  # if there are none, and
MOST_TOLL = 3.0  # if they confirm the floods wholly
POWER = 2.0

_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def flood_basins(
    first: Any, second: Any, heights: Any, springs: Any, classes: Any, starts: Any, label: Any
) -> None:
    """Write the class that reaches each basin over the lowest passes.

    Parameters
    ----------
    first, second : (E,) int32
        Basins on both sides of every pass.
    heights : (E,) float32
        Increasing.
    springs, classes : (S,) int32
        Marked basins and the classes that spring there,
    starts : (S,) float32
        from these heights on, increasing; a basin reached before by another class stays that's.
    label : (N,) int32
        Out.
    """
    parent = np.full(len(label), -1, np.int32)
    label[:] = -1
    s = 0
    for e in range(len(first) + 1):
        while s < len(springs) and (e == len(first) or starts[s] <= heights[e]):
            a = find_root(parent, springs[s])
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
class Flood:
    """What floods say about every voxel, and how far that is to be trusted.

    Attributes
    ----------
    basins : tuple of (Z, Y, X) ndarray of int32
        Of every hierarchy.
    shares : tuple of (N, K) ndarray of float32
        Share of a hierarchy's floods that bring a class to a basin.
    toll : float
        What a class pays where no flood brings it.
    """

    basins: tuple[NDArray[np.int32], ...]
    shares: tuple[Floats, ...]
    toll: float = 1.0

    def at(self, points: NDArray[Any]) -> Floats:
        """Return every class's share of all floods at points (P, 3) in slice-first voxels."""
        most = np.asarray(self.basins[0].shape) - 1
        where = tuple(np.clip(np.round(points).astype(np.int64), 0, most).T)
        total = self.shares[0][self.basins[0][where]]
        for basins, shares in zip(self.basins[1:], self.shares[1:], strict=True):
            total += shares[basins[where]]
        total /= np.float32(len(self.basins))
        return total

    def add_toll(self, points: NDArray[Any], total: Floats) -> None:
        """Add what each class pays at points (P, 3) in slice-first voxels to ``total`` (P, K)."""
        total += np.float32(self.toll) * (np.float32(1) - self.at(points))


class Floods:
    """Random heights of one image's passes, kept from stroke to stroke.

    Parameters
    ----------
    hierarchies : sequence of Basins
        Of the same image, at several scales; floods are shared out among them evenly.
    seed : int

    Attributes
    ----------
    count : int
        Number of floods over each.
    """

    def __init__(self, hierarchies: Sequence[Basins], seed: int = 0) -> None:
        self.hierarchies, self.seed = tuple(hierarchies), seed
        number = len(self.hierarchies)
        total = sum(basins.count for basins in self.hierarchies)
        self.count = int(np.clip(BUDGET // total, FEW_MEMBERS // number, MEMBERS // number))
        rng = np.random.default_rng(seed)
        self._seed = int(rng.integers(2**31))
        draws = rng.integers(2**31, size=number * self.count)
        heights = [np.log(np.maximum(b.heights, 1).astype(np.float32)) for b in self.hierarchies]
        self._members: dict[int, tuple[NDArray[np.int32], NDArray[np.int32], Floats]] = {}

        def draw(m: int) -> None:
            h = m % number
            basins = self.hierarchies[h]
            noise = np.random.default_rng(draws[m]).standard_normal(len(heights[h]), np.float32)
            mine = heights[h] + NOISE * noise
            order = np.argsort(mine, kind="stable")
            self._members[m] = basins.first[order], basins.second[order], mine[order]

        run_chunks(draw, number * self.count)

    def flood(
        self, voxels: NDArray[Any], classes: NDArray[Any], count: int, most: int | None = None
    ) -> Flood:
        """Flood from marks.

        Parameters
        ----------
        voxels : (P, 3) ndarray of int
        classes : (P,) ndarray of int
        count : int
            Number of classes.
        most : int, optional
            Floods over all hierarchies together; all by default.
        """
        number = len(self.hierarchies)
        members = self.count if most is None else min(self.count, most // number)
        where = tuple(np.asarray(voxels).T)
        springs = [_springs(basins, where, classes, count) for basins in self.hierarchies]
        labels = [np.empty((members, basins.count), np.int32) for basins in self.hierarchies]

        def flood(m: int) -> None:
            turn, h = divmod(m, number)
            places, kinds, level = springs[h]
            rng = np.random.default_rng((self._seed, m))
            starts = NOISE * rng.standard_normal(len(places), np.float32)
            if turn % 2:
                starts += level
            order = np.argsort(starts, kind="stable")
            flood_basins(
                *self._members[m], places[order], kinds[order], starts[order], labels[h][turn]
            )

        run_chunks(flood, number * members)
        shares = []
        for h, basins in enumerate(self.hierarchies):
            share = np.zeros((basins.count, count), np.float32)
            every = np.arange(basins.count)
            for label in labels[h]:
                share[every, label] += np.float32(1 / members)
            shares.append(share)
        return Flood(tuple(basins.basins for basins in self.hierarchies), tuple(shares))


def _springs(
    basins: Basins, where: tuple[NDArray[Any], ...], classes: NDArray[Any], count: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], Floats]:
    """Return where classes spring: a basin each, a class, and the level of its lowest mark."""
    key = basins.basins[where].astype(np.int64) * count + classes
    level = np.log(np.maximum(basins.levels[where], 1).astype(np.float32))
    order = np.lexsort((level, key))
    key, lowest = np.unique(key[order], return_index=True)
    return (
        (key // count).astype(np.int32),
        (key % count).astype(np.int32),
        level[order][lowest],
    )
