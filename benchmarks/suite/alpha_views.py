"""Flat 2D Gaussians composited into several pictures at once, and gradients back.

The rasteriser of the MedGS baseline: our own alpha kernels fed with the splats of every view, the
work shared by threads as (view, band of rows).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs._util.threads import default_threads, run_chunks
from napari_medgs.rendering.cpu.alpha import composite, uncomposite
from napari_medgs.rendering.cpu.kernels import HALF_LOG2E, prepare
from napari_medgs.rendering.parameters import GEOMETRY
from suite.medgs_project import CUTOFF, SPLAT

BUDGET = np.float32(CUTOFF * HALF_LOG2E)


class _Job:
    """One band of one view: its splats, their picture and what is left to see through them."""

    def __init__(
        self, prepared: Floats, values: Floats, rows: tuple[int, int], width: int
    ) -> None:
        first, last = rows
        left = BUDGET - prepared[:, 6]
        reach = np.sqrt(np.maximum(left, 0)) * prepared[:, 15]
        my = prepared[:, 1]
        self.chosen = np.flatnonzero((left > 0) & (my + reach >= first) & (my - reach < last))
        self.prepared, self.values = prepared[self.chosen], values[self.chosen]
        self.prepared[:, 1] -= first
        self.rows = rows
        self.members = np.arange(len(self.chosen), dtype=np.int32)
        self.picture = np.empty((last - first, 1, width), np.float32)
        self.through = np.empty((last - first, width), np.float32)
        self.gradient = np.zeros((0, 0), np.float32)

    def draw(self) -> None:
        composite(self.prepared, self.values, self.members, 0, BUDGET, self.picture, self.through)

    def pull_back(self, slopes: Floats) -> None:
        """Compute gradients of the splats from those of the picture (rows, width)."""
        self.gradient = np.zeros((len(self.chosen), SPLAT), np.float32)
        behind = np.zeros_like(self.through)  # the background is black
        wide = np.ascontiguousarray(slopes[:, None])
        uncomposite(
            self.prepared,
            self.values,
            self.members,
            0,
            BUDGET,
            0,
            wide,
            self.through,
            behind,
            self.gradient,
        )


class AlphaViews:
    """Pictures of several views, composited on black front to back in the splats' order.

    Parameters
    ----------
    splats : list of (M, 15) ndarray
        One table a view, of :func:`~suite.medgs_project.project`.
    shape : (int, int)
        Rows and columns.
    threads : int, optional

    Attributes
    ----------
    pictures : (V, rows, columns) ndarray
    """

    def __init__(
        self, splats: list[Floats], shape: tuple[int, int], threads: int | None = None
    ) -> None:
        rows, width = shape
        self.sizes, self.threads = [len(table) for table in splats], threads
        prepared = [np.empty((len(table), 16), np.float32) for table in splats]

        def ready(view: int) -> None:
            prepare(splats[view], 0, prepared[view], 0, len(splats[view]))

        run_chunks(ready, len(splats), threads)
        workers = threads or default_threads()
        bands = min(max(1, rows // 16), max(2, -(-2 * workers // len(splats))))
        edges = np.linspace(0, rows, bands + 1).astype(int)
        todo = [
            (view, (int(a), int(b))) for view in range(len(splats)) for a, b in pairwise(edges)
        ]
        self.pictures = np.empty((len(splats), rows, width), np.float32)
        self._jobs: list[tuple[int, _Job]] = [None] * len(todo)  # type: ignore[list-item]

        def draw(k: int) -> None:
            view, (first, last) = todo[k]
            colors = np.ascontiguousarray(splats[view][:, GEOMETRY:])
            job = _Job(prepared[view], colors, (first, last), width)
            job.draw()
            self.pictures[view, first:last] = job.picture[:, 0]
            self._jobs[k] = (view, job)

        run_chunks(draw, len(todo), threads)

    def pull_back(self, slopes: Floats) -> list[Floats]:
        """Return gradients (M, 15) of the splats from those of the pictures; once only."""

        def pull(k: int) -> None:
            view, job = self._jobs[k]
            job.pull_back(slopes[view, job.rows[0] : job.rows[1]])

        run_chunks(pull, len(self._jobs), self.threads)
        gradients = [np.zeros((size, SPLAT), np.float32) for size in self.sizes]
        for view, job in self._jobs:
            gradients[view][job.chosen] += job.gradient
        return gradients
