"""A second opinion: floods from the strokes over the image's lowest passes, many times over.

Sums of small costs let a long way through a quiet region look as expensive as a short one over an
edge. The highest edge on the way (minimax paths, which is what a seeded watershed follows) does
not. But one low pass in a boundary lets all of a flood through, so that the flood is repeated with
every pass raised or lowered by chance, and the share of floods that bring a class somewhere is
what counts. In every second flood a mark holds its basin only from the level of its own voxel on,
as in a seeded watershed; in the others marks are springs at the bottom of their basins, which
saves classes whose only marks lie on edges.

Source: Angulo and Jeulin 2007, *Stochastic watershed segmentation*, ISMM; here passes are random
instead of the marks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs.field import Floats
from napari_medgs.parallel import run_chunks
from napari_medgs.segment.basins import Basins, find_root

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
    """What floods say about every basin, and how far that is to be trusted.

    Attributes
    ----------
    basins : (Z, Y, X) ndarray of int32
    shares : (N, K) ndarray of float32
        Share of the floods that bring a class to a basin.
    toll : float
        What a class pays where no flood brings it.
    """

    basins: NDArray[np.int32]
    shares: Floats
    toll: float

    def add_toll(self, points: NDArray[Any], total: Floats) -> None:
        """Add what each class pays at points (P, 3) in slice-first voxels to ``total`` (P, K)."""
        most = np.asarray(self.basins.shape) - 1
        z, y, x = np.clip(np.round(points).astype(np.int64), 0, most).T
        total += np.float32(self.toll) * (np.float32(1) - self.shares[self.basins[z, y, x]])


class Floods:
    """Random heights of one image's passes, kept from stroke to stroke.

    Parameters
    ----------
    basins : Basins
    seed : int

    Attributes
    ----------
    count : int
        Number of floods.
    """

    def __init__(self, basins: Basins, seed: int = 0) -> None:
        self.basins = basins
        rng = np.random.default_rng(seed)
        heights = np.log(np.maximum(basins.heights, 1).astype(np.float32))
        self._seed = int(rng.integers(2**31))
        self.count = int(np.clip(BUDGET // basins.count, FEW_MEMBERS, MEMBERS))
        draws = rng.integers(2**31, size=self.count)
        self._members: list[tuple[NDArray[np.int32], NDArray[np.int32], Floats]] = [
            (basins.first, basins.second, heights)
        ] * self.count

        def draw(m: int) -> None:
            noise = np.random.default_rng(draws[m]).standard_normal(len(heights), np.float32)
            mine = heights + NOISE * noise
            order = np.argsort(mine, kind="stable")
            self._members[m] = basins.first[order], basins.second[order], mine[order]

        run_chunks(draw, self.count)

    def shares(
        self, voxels: NDArray[Any], classes: NDArray[Any], count: int, floods: int | None = None
    ) -> Floats:
        """Return the share of floods from marks that bring each class to each basin.

        Parameters
        ----------
        voxels : (P, 3) ndarray of int
        classes : (P,) ndarray of int
        count : int
            Number of classes.
        floods : int, optional
            At most that many; all by default.

        Returns
        -------
        (N, count) ndarray of float32
        """
        members = min(floods or self.count, self.count)
        basins = self.basins
        where = tuple(np.asarray(voxels).T)
        # A class springs in a basin once, at its lowest mark there.
        key = basins.basins[where].astype(np.int64) * count + classes
        level = np.log(np.maximum(basins.levels[where], 1).astype(np.float32))
        order = np.lexsort((level, key))
        key, lowest = np.unique(key[order], return_index=True)
        level = level[order][lowest]
        springs, kinds = (key // count).astype(np.int32), (key % count).astype(np.int32)
        noise = np.random.default_rng(self._seed).standard_normal((members, len(key)), np.float32)
        labels = np.empty((members, basins.count), np.int32)

        def flood(m: int) -> None:
            starts = NOISE * noise[m] + (level if m % 2 else np.float32(0))
            turn = np.argsort(starts, kind="stable")
            flood_basins(*self._members[m], springs[turn], kinds[turn], starts[turn], labels[m])

        run_chunks(flood, members)
        shares = np.zeros((basins.count, count), np.float32)
        every = np.arange(basins.count)
        for label in labels:
            shares[every, label] += np.float32(1 / members)
        return shares
