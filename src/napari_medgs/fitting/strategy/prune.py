"""Fewer Gaussians for the same quality: leave out or merge what changes the result least."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs._util.progress import ProgressEvent
from napari_medgs.fitting.strategy.merge import (
    Doubles,
    Pairs,
    choose_reductions,
    merge_rows,
    neighbor_pairs,
)
from napari_medgs.fitting.strategy.sensitivity import removal_sensitivity

if TYPE_CHECKING:
    from napari_medgs.fitting.optim.loop import FitLoop

# Measured on CT and MRI: smaller shares end with more Gaussians for the same work.
PRUNE_SHARE, LEAST_SHARE = 0.2, 0.02  # of the Gaussians leave at a time
SMALLER = 0.5  # times that, when too many left
STEPS = 18  # to get the quality back, before what left is taken back
FIRST_DECAY = 0.6  # of the step sizes, falling to nothing over those steps
RANKING_STEPS = 3  # what a ranking costs, in steps
VOXEL_WORK = 0.05  # work of a voxel in a step, next to that of a Gaussian
WORK_SHARE = 0.35  # of the work of the fit so far: a bound of what pruning takes, one try aside


def can_prune(loop: FitLoop) -> bool:
    """Tell whether a fit that met its quality may lose Gaussians.

    Not where their number was given, and only for the normalized blend, where neighbors fill
    the gap.
    """
    return (
        loop.params.quality is not None
        and loop.params.gaussians is None
        and loop.problem.info.blend == "normalized"
    )


def prune(loop: FitLoop) -> None:
    """Remove Gaussians as long as what the fit had reached comes back after a few steps.

    That is the wanted quality of the image, and labels and frames between the slices that are
    matched no worse than when it was met.

    On return the loop's state is the smallest field found that does so, even when the
    time was up or the user cancelled in between. What it may cost is counted in Gaussians and
    voxels times steps rather than seconds, so that the same seed gives the same field.
    """
    best = loop.snapshot()
    state, params = loop.state, loop.params
    voxels = VOXEL_WORK * loop.image_voxels
    allowed = WORK_SHARE * sum(entry["gaussians"] + voxels for entry in state.history)
    allowed = max(allowed, _cost_of_try(len(state.parameters) + voxels))
    began, used, done = loop.seconds, 0.0, 0
    share = PRUNE_SHARE
    ranking: tuple[Floats, Doubles, Pairs] | None = None
    loop.max_label_error, loop.max_through_plane_error = (
        state.label_error,
        state.through_plane_error,
    )

    def report() -> None:
        nonlocal used, done
        used += len(state.parameters) + voxels
        done += 1
        passed = loop.seconds - began
        remaining = passed / used * max(0.0, allowed - used)
        left = int(max(0.0, allowed - used) / (len(state.parameters) + voxels))
        if params.time_limit is not None:
            remaining = min(remaining, max(0.0, params.time_limit - loop.seconds))
        loop.progress(
            ProgressEvent(
                "prune",
                done,
                done + left,
                loop.seconds,
                state.psnr,
                len(state.parameters),
                remaining,
            )
        )

    while share >= LEAST_SHARE:
        size = len(state.parameters)
        cost = _cost_of_try(size + voxels, ranked=ranking is not None)
        count = int(size * share)
        if count < 1 or used + cost > allowed or loop.must_end():
            break
        if ranking is None:
            ranking = _rank(loop)
            used += RANKING_STEPS * (size + voxels)
        _reduce(loop, count, *ranking)
        if loop.recover(STEPS, FIRST_DECAY, report):
            ranking, best = None, loop.snapshot()
        else:
            loop.restore(best)
            share *= SMALLER
    loop.max_label_error = loop.max_through_plane_error = np.inf


def _cost_of_try(step: float, *, ranked: bool = False) -> float:
    """Return what a try costs at most, in the units of a step's work."""
    return (STEPS + (0 if ranked else RANKING_STEPS)) * step


def _rank(loop: FitLoop) -> tuple[Floats, Doubles, Pairs]:
    """Return what leaving out each Gaussian and merging neighbors would cost."""
    sensitivity, mass = removal_sensitivity(loop)
    degree, threads = loop.problem.info.degree, loop.params.threads
    pairs = neighbor_pairs(
        loop.state.parameters, sensitivity, mass, loop.lower, loop.upper, degree, threads
    )
    return sensitivity, mass, pairs


def _reduce(loop: FitLoop, count: int, sensitivity: Floats, mass: Doubles, pairs: Pairs) -> None:
    """Go on with ``count`` Gaussians less."""
    dropped, merged = choose_reductions(sensitivity, pairs, count)
    first, second = pairs.first[merged], pairs.second[merged]
    parameters = loop.state.parameters.copy()
    parameters[first] = merge_rows(parameters, first, second, mass, loop.problem.info.degree)[0]
    kept = np.flatnonzero(~dropped)
    loop.reindex(np.ascontiguousarray(parameters[kept]), kept)
