"""MedGS's training recipe on the CPU, as a baseline: our own implementation.

Folded Gaussians (Sokolova et al. 2025) as published: polynomial motion of degree 7, scales that
shrink away from the center slice while the opacity stays, alpha compositing in index order, three
neighboring slices a step, L1 + SSIM + in-between-frame + sigma losses, learning rates by group,
clone, split, prune and opacity reset, 100,000 random Gaussians to begin with.

Three things are left out that change no result and cost it time: the mirrored second camera (the
same planar picture again), two of three equal color channels, and Gaussians that a slice cannot
see are not computed for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.rendering.parameters import X, Y
from suite.alpha_views import AlphaViews
from suite.medgs_densify import Densifier
from suite.medgs_project import (
    COLOR,
    MOMENT,
    MOTION,
    OPACITY,
    PX,
    PZ,
    S1,
    S2,
    SH,
    SIGMA,
    SPAN,
    SPLAT,
    TURN,
    project,
    pull_back,
    see,
)

if TYPE_CHECKING:
    from torch import Tensor

RATES = {S1: 5e-3, S2: 5e-3, TURN: 1e-3, OPACITY: 0.025, COLOR: 2.5e-3, MOMENT: 1e-3, SIGMA: 1e-3}
RATE_MOTION = 1e-3
RATE_POSITION = (1.6e-4 * 1.1, 1.6e-6 * 1.1)


@dataclass(frozen=True)
class Schedule:
    """When things happen; the published numbers, or the same shares of another length."""

    iterations: int = 30_000
    frames_from: int = 10_000
    sigma_until: int = 20_000
    densify_from: int = 500
    densify_until: int = 20_000
    densify_every: int = 100
    reset_every: int = 3_000
    prune_large_from: int = 3_000

    def scaled(self, iterations: int) -> Schedule:
        """Return the schedule shrunk to so many iterations; densification keeps its period."""
        share = iterations / self.iterations
        return Schedule(
            iterations,
            int(self.frames_from * share),
            int(self.sigma_until * share),
            int(self.densify_from * share),
            int(self.densify_until * share),
            self.densify_every,
            max(1, int(self.reset_every * share)),
            int(self.prune_large_from * share),
        )


class MedGSRecipe:
    """Trains MedGS's image head on one stack of slices.

    Parameters
    ----------
    images : (F, H, W) ndarray
        Slices in [0, 1] on black.
    gaussians : int
        To begin with.
    degree : int
        Of the motion; 7 for images.
    schedule : Schedule
    seed : int
    threads : int, optional
    """

    def __init__(
        self,
        images: Floats,
        *,
        gaussians: int = 100_000,
        degree: int = 7,
        schedule: Schedule | None = None,
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        import torch

        self.schedule = schedule or Schedule()
        self.rng = np.random.default_rng(seed)
        self.images = torch.from_numpy(np.ascontiguousarray(images, np.float32))
        self.frames, self.height, self.width = images.shape
        self.degree, self.threads, self.iteration = degree, threads, 0
        self.table = self._start(gaussians)
        self.rates = np.zeros(self.table.shape[1], np.float32)
        self.rates[list(RATES)] = list(RATES.values())
        self.rates[MOTION:] = RATE_MOTION
        self.densifier = Densifier(self.table.shape, self.rng)

    def _start(self, count: int) -> Floats:
        from scipy.spatial import cKDTree

        rng = self.rng
        table = np.zeros((count, MOTION + 2 * self.degree), np.float32)
        table[:, PX] = rng.uniform(-SPAN / 2, SPAN / 2, count)
        table[:, PZ] = rng.uniform(-1, 1, count) * SPAN / 2 * self.height / self.width
        tree = cKDTree(table[:, :2])
        distance = np.asarray(tree.query(table[:, :2], k=min(4, count))[0])
        scale = np.sqrt(np.square(distance[:, 1:]).mean(axis=1).clip(min=1e-7))
        table[:, S1] = table[:, S2] = np.log(scale)
        table[:, OPACITY] = math.log(0.1 / 0.9)
        table[:, COLOR] = (0.498 - 0.5) / SH
        moment = rng.uniform(1e-4, 1 - 1e-4, (2, count))
        table[:, TURN], table[:, MOMENT] = np.log(moment / (1 - moment))
        table[:, SIGMA] = np.log(rng.uniform(0.01, 1, count))
        table[:, MOTION:] = rng.uniform(-1, 1, table[:, MOTION:].shape)
        return table

    def splats(self, times: list[float]) -> tuple[list[NDArray[np.int64]], list[Floats]]:
        """Return, for every time, the Gaussians seen and their 2D splats (M, 15)."""
        seen: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(times)
        splats = [np.empty((0, SPLAT), np.float32)] * len(times)

        def task(k: int) -> None:
            time = np.float32(times[k])
            index = np.empty(len(self.table), np.int64)
            index = index[: see(self.table, time, index)]
            seen[k], splats[k] = index, np.empty((len(index), SPLAT), np.float32)
            project(self.table, index, time, self.height, self.width, splats[k])

        run_chunks(task, len(times), self.threads)
        return seen, splats

    def step(self) -> float:
        """Take one iteration; return its loss."""
        import torch

        table, schedule = self.table, self.schedule
        middle = int(self.rng.integers(self.frames))
        views = [k for k in (middle - 1, middle, middle + 1) if 0 <= k < self.frames]
        times = [k / self.frames for k in views]
        between: list[Tensor] = []
        if self.iteration >= schedule.frames_from:
            for first, second in pairwise(views):
                share = float(self.rng.uniform(0.2, 0.8))
                times.append((first + share) / self.frames)
                between.append((1 - share) * self.images[first] + share * self.images[second])
        seen, splats = self.splats(times)
        drawn = AlphaViews(splats, (self.height, self.width), self.threads)
        pictures = torch.from_numpy(drawn.pictures).requires_grad_(True)
        shown, goal = pictures[: len(views)], self.images[views]
        loss = 2.0 * (shown - goal).abs().mean() + 0.25 * (1 - structural_similarity(shown, goal))
        if between:
            loss = loss + 0.5 * (pictures[len(views) :] - torch.stack(between)).abs().mean()
        torch.autograd.backward(loss)
        assert pictures.grad is not None
        slopes = drawn.pull_back(pictures.grad.numpy())
        gradients = np.zeros((len(times), *table.shape), np.float32)

        def task(k: int) -> None:
            time = np.float32(times[k])
            pull_back(table, seen[k], time, self.width, slopes[k], gradients[k])

        run_chunks(task, len(times), self.threads)
        gradient = gradients.sum(axis=0)
        total = float(loss.detach())
        if self.iteration < schedule.sigma_until:
            total += self._add_sigma_loss(gradient)
        self._watch(seen, slopes, gradient)
        share = min(1.0, self.iteration / schedule.iterations)
        start, end = RATE_POSITION
        self.rates[[PX, PZ]] = math.exp((1 - share) * math.log(start) + share * math.log(end))
        self.densifier.adam(table, gradient, self.rates, self.threads)
        self.iteration += 1
        self._change(schedule)
        return total

    def _add_sigma_loss(self, gradient: Floats) -> float:
        """Add a quarter of the mean excess beyond [1 / frames, 1] of those beyond it."""
        sigma = np.exp(self.table[:, SIGMA])
        loss = 0.0
        for excess, sign in ((1 / self.frames - sigma, -1), (sigma - 1, 1)):
            beyond = excess > 0
            count = int(np.count_nonzero(beyond))
            if count:
                loss += 0.25 * float(excess[beyond].mean())
                gradient[beyond, SIGMA] += sign * 0.25 / count * sigma[beyond]
        return loss

    def _watch(
        self, seen: list[NDArray[np.int64]], slopes: list[Floats], gradient: Floats
    ) -> None:
        """Tell the densifier the strongest pull of any view, on a screen from -1 to 1."""
        size = np.array([self.width / 2, self.height / 2], np.float32)
        strongest = np.zeros(len(self.table), np.float32)
        visible = np.zeros(len(self.table), np.bool_)
        for index, slope in zip(seen, slopes):
            pulls = np.hypot(slope[:, X] * size[0], slope[:, Y] * size[1])
            strongest[index] = np.maximum(strongest[index], pulls)
            visible[index] = True
        self.densifier.count(strongest, np.abs(gradient[:, MOMENT]), visible)

    def _change(self, schedule: Schedule) -> None:
        """Clone, split, prune and reset when it is time to."""
        done = self.iteration
        if done >= schedule.densify_until:
            return
        if done > schedule.densify_from and done % schedule.densify_every == 0:
            large = done > schedule.prune_large_from
            self.table = self.densifier.densify(self.table, prune_large=large)
        if done % schedule.reset_every == 0:
            self.densifier.reset_opacity(self.table)

    def render(self, frame: float) -> Floats:
        """Return the picture (H, W) at a slice, or between two."""
        _, splats = self.splats([frame / self.frames])
        return AlphaViews(splats, (self.height, self.width), self.threads).pictures[0]

    def squared_error(self) -> float:
        """Return the squared error of all slices, rendered values clipped to [0, 1]."""
        total = 0.0
        for frame in range(self.frames):
            difference = self.render(frame).clip(0, 1) - self.images[frame].numpy()
            total += float(np.square(difference, dtype=np.float64).sum())
        return total


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean SSIM of pictures (V, H, W): 11 x 11 Gaussian of 1.5 pixels, zeros outside.

    The blur is two products with banded matrices, several times faster here than convolutions.
    """
    import torch

    stack = torch.stack([a, b, a * a, b * b, a * b])
    stack = _blur(a.shape[1]) @ stack @ _blur(a.shape[2])
    ma, mb, aa, bb, ab = stack.unbind(0)
    va, vb, cov = aa - ma * ma, bb - mb * mb, ab - ma * mb
    top = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4)
    score: Tensor = top / ((ma * ma + mb * mb + 1e-4) * (va + vb + 9e-4))
    return score.mean()


@lru_cache(maxsize=8)
def _blur(size: int) -> Tensor:
    import torch

    distance = torch.arange(size)[:, None] - torch.arange(size)
    line = torch.exp(-0.5 * (torch.arange(-5, 6) / 1.5) ** 2).sum()
    return torch.where(distance.abs() <= 5, torch.exp(-0.5 * (distance / 1.5) ** 2), 0.0) / line
