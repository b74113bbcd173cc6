"""Fewer Gaussians for the same quality: leave out those that change the image least."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_medgs.field import Floats
from napari_medgs.progress import ProgressEvent
from napari_medgs.render.theta import GEOMETRY

if TYPE_CHECKING:
    from napari_medgs.fit.loop import FitLoop

# Measured on CT and MRI: smaller shares end with more Gaussians for the same work.
PRUNE_SHARE, LEAST_SHARE = 0.2, 0.02  # of the Gaussians leave at a time; halved when too many
STEPS = 18  # to get the quality back, before what left is taken back
FIRST_DECAY = 0.6  # of the step sizes, falling to nothing over those steps
RANKING_STEPS = 3  # what a ranking costs, in steps
VOXEL_WORK = 0.05  # work of a voxel in a step, next to that of a Gaussian
WORK_SHARE = 0.35  # of the work of the fit so far: a bound of what pruning takes


def can_prune(loop: FitLoop) -> bool:
    """Tell whether a fit that met its quality may lose Gaussians.

    Not where their number was given, nor with labels, whose need for a Gaussian the image does
    not tell; not with frames between the slices, as the slices would pay for what those gain;
    and only for the normalised blend, where neighbours fill the gap.
    """
    weights = loop.target.image_weights
    return (
        loop.params.quality is not None
        and loop.params.gaussians is None
        and not loop.target.classes
        and loop.problem.info.blend == "normalized"
        and len(np.unique(weights[weights > 0])) == 1
    )


def contributions(loop: FitLoop) -> Floats:
    """Return how much each Gaussian bends the image, (N,).

    The sum over voxels and channels of its share of the blend times the squared difference
    between its value and the image there: where the shares are small, a bound of what leaving
    it out adds to the squared error of a field at its optimum. Gaussians whose neighbours say
    the same count little, however large they are.

    Notes
    -----
    The slope of half the squared error in a value is the sum of share times residual. With the
    residuals 1, the image and its square in turn it gives the three sums that are needed.
    """
    theta, target, engine = loop.state.theta, loop.target, loop.engine
    picture = engine.render(theta)
    weights = (target.image_weights > 0).astype(np.float32)
    values = theta[:, GEOMETRY:].astype(np.float64)

    def sums(aim: Floats) -> NDArray[np.float64]:
        wanted = replace(target, images=aim, image_weights=weights, l1=False)
        gradient: Floats = engine.loss_and_gradient(theta, wanted)[2]
        return gradient[:, GEOMETRY:].astype(np.float64)

    aim = np.subtract(picture, np.float32(1))
    bend = values * values * sums(aim)
    aim.fill(0)
    bend -= 2 * values * sums(aim)
    np.multiply(picture, picture, out=aim)
    np.subtract(picture, aim, out=aim)
    bend += sums(aim)
    return np.maximum(bend.sum(axis=1), 0).astype(np.float32)


def prune(loop: FitLoop) -> None:
    """Remove Gaussians as long as the wanted quality comes back after a few steps.

    On return the loop's state is the smallest field found that meets the quality, even when the
    time was up or the user cancelled in between. What it may cost is counted in Gaussians and
    voxels times steps rather than seconds, so that the same seed gives the same field.
    """
    state, params = loop.state, loop.params
    voxels = VOXEL_WORK * loop.image_voxels
    allowed = WORK_SHARE * sum(entry["gaussians"] + voxels for entry in state.history)
    began, used, done = loop.seconds, 0.0, 0
    share = PRUNE_SHARE
    best, best_psnr = state.theta, state.psnr
    ranking: Floats | None = None

    def report() -> None:
        passed = loop.seconds - began
        remaining = passed / used * max(0.0, allowed - used)
        left = int(max(0.0, allowed - used) / (len(state.theta) + voxels))
        if params.time_limit is not None:
            remaining = min(remaining, max(0.0, params.time_limit - loop.seconds))
        loop.progress(
            ProgressEvent(
                "prune",
                done,
                done + left,
                loop.seconds,
                state.psnr,
                len(state.theta),
                remaining,
            )
        )

    while share >= LEAST_SHARE:
        cost = (STEPS + (RANKING_STEPS if ranking is None else 0)) * (len(best) + voxels)
        count = int(len(best) * share)
        if count < 1 or used + cost > allowed or _must_end(loop):
            return
        if ranking is None:
            ranking = contributions(loop)
            used += RANKING_STEPS * (len(best) + voxels)
        keep = np.sort(np.argpartition(ranking, count)[count:])
        moments = loop.adam.first, loop.adam.second
        state.theta = np.ascontiguousarray(best[keep])
        loop.adam.rearrange(keep, 0)
        good = False
        for step in range(STEPS):
            if _must_end(loop):
                break
            psnr = loop._step(FIRST_DECAY * (1 - step / STEPS))
            used += len(state.theta) + voxels
            done += 1
            report()
            good = loop._is_good(psnr)
            if good:
                break
        if good:
            best, best_psnr, ranking = state.theta, state.psnr, None
        else:
            state.theta, state.psnr = best, best_psnr
            loop.adam.first, loop.adam.second = moments
            share /= 2


def _must_end(loop: FitLoop) -> bool:
    """Tell whether the user cancelled, or the time is up."""
    if loop.state.stopped_by != "cancelled" and loop.should_stop():
        loop.state.stopped_by = "cancelled"
    limit = loop.params.time_limit
    return loop.state.stopped_by == "cancelled" or (limit is not None and loop.seconds >= limit)
