"""Adam over a growing table, and MedGS's rules for cloning, splitting and pruning."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks

THRESHOLD = 2e-4
SMALL, LARGE = 0.011, 0.11  # of the positions' unit: clone below, prune above
LEAST_OPACITY = 0.01
CHILD_SHRINK = 1.6
S1, S2, TURN, OPACITY, SIGMA = 2, 3, 4, 5, 8
CHUNK = 4096


@njit(nogil=True, cache=True)
def _adam(
    table: Any,
    gradient: Any,
    first: Any,
    second: Any,
    rates: Any,
    bias1: Any,
    bias2: Any,
    start: int,
    stop: int,
) -> None:
    for i in range(start, stop):
        for k in range(len(rates)):
            g = gradient[i, k]
            first[i, k] += np.float32(0.1) * (g - first[i, k])
            second[i, k] += np.float32(0.001) * (g * g - second[i, k])
            # MedGS adds 1e-15: below float32's smallest square, but never 0 / 0.
            size = np.sqrt(second[i, k] / bias2) + np.float32(1e-15)
            table[i, k] -= rates[k] * (first[i, k] / bias1) / size


class Densifier:
    """State of the optimizer and of the gradients that decide who is cloned or split.

    Parameters
    ----------
    shape : (int, int)
        Of the table; columns as in :mod:`suite.medgs_recipe`.
    rng : numpy Generator
    """

    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        self.rng, self.taken = rng, 0
        self.first = np.zeros(shape, np.float32)
        self.second = np.zeros(shape, np.float32)
        self._restart(shape[0])

    def _restart(self, count: int) -> None:
        self.pulls = np.zeros(count)
        self.moments = np.zeros(count)
        self.seen = np.zeros(count, np.int64)

    def adam(self, table: Floats, gradient: Floats, rates: Floats, threads: int | None) -> None:
        """Take one step of Adam (0.9, 0.999) with a rate per column, in place."""
        self.taken += 1
        bias1, bias2 = np.float32(1 - 0.9**self.taken), np.float32(1 - 0.999**self.taken)
        count = len(table)

        def task(k: int) -> None:
            stop = min(count, (k + 1) * CHUNK)
            _adam(
                table,
                gradient,
                self.first,
                self.second,
                rates,
                bias1,
                bias2,
                k * CHUNK,
                stop,
            )

        run_chunks(task, -(-count // CHUNK), threads)

    def count(self, pulls: Floats, moments: Floats, visible: NDArray[np.bool_]) -> None:
        """Take note of one iteration's gradients: on the screen, and along the slices."""
        self.pulls[visible] += pulls[visible]
        self.moments[visible] += moments[visible]
        self.seen += visible

    def densify(self, table: Floats, *, prune_large: bool) -> Floats:
        """Clone, split and prune; return the new table (the optimiser's state follows)."""
        seen = np.maximum(self.seen, 1)
        pulled = self.pulls / seen >= THRESHOLD
        moved = self.moments / seen >= THRESHOLD
        size = np.exp(table[:, [S1, S2]].max(axis=1))
        long = table[:, SIGMA] >= 0  # sigma of one: the whole stack
        clone = (pulled & (size <= SMALL)) | (moved & ~long)
        split = (pulled & (size > SMALL)) | (moved & long)
        clones = table[clone]
        children = self._children(np.repeat(table[split], 2, axis=0))
        kept = np.flatnonzero(~split)
        joined = np.concatenate([table[kept], clones, children])
        added = len(clones) + len(children)
        good = joined[:, OPACITY] >= math.log(LEAST_OPACITY / (1 - LEAST_OPACITY))
        if prune_large:
            good &= np.exp(joined[:, [S1, S2]].max(axis=1)) <= LARGE
        zeros = np.zeros((added, table.shape[1]), np.float32)
        self.first = np.concatenate([self.first[kept], zeros])[good]
        self.second = np.concatenate([self.second[kept], zeros])[good]
        self._restart(int(good.sum()))
        return np.ascontiguousarray(joined[good])

    def _children(self, parents: Floats) -> Floats:
        """Scatter copies within their parents and make them smaller."""
        offset = self.rng.standard_normal((len(parents), 2)) * np.exp(parents[:, [S1, S2]])
        angle = 2 * np.pi / (1 + np.exp(-parents[:, TURN]))
        cos, sin = np.cos(angle), np.sin(angle)
        parents[:, 0] += cos * offset[:, 0] - sin * offset[:, 1]
        parents[:, 1] += sin * offset[:, 0] + cos * offset[:, 1]
        parents[:, [S1, S2]] -= math.log(CHILD_SHRINK)
        return parents

    def reset_opacity(self, table: Floats) -> None:
        """Lower all opacities to 0.01 at most, in place."""
        limit = math.log(LEAST_OPACITY / (1 - LEAST_OPACITY))
        np.minimum(table[:, OPACITY], limit, out=table[:, OPACITY])
        self.first[:, OPACITY] = self.second[:, OPACITY] = 0
