"""Fewer Gaussians for the same quality: leave out or merge what changes the result least."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from napari_medgs._typing import Doubles, Floats
from napari_medgs._util.progress import ProgressEvent
from napari_medgs.fitting.advanced import MergeParams, PruneParams
from napari_medgs.fitting.optim.state import FitStage
from napari_medgs.fitting.strategy.base import Trainer
from napari_medgs.fitting.strategy.merge import (
    Pairs,
    choose_reductions,
    merge_rows,
    neighbor_pairs,
)
from napari_medgs.fitting.strategy.sensitivity import removal_sensitivity


@dataclass(frozen=True)
class Prune:
    """Remove and merge Gaussians while the target quality comes back after a few steps.

    Implements :class:`~napari_medgs.fitting.strategy.base.Strategy`.

    Attributes
    ----------
    settings : PruneParams
    merge : MergeParams
        How pairs of neighbors may be merged instead.
    """

    settings: PruneParams = field(default_factory=PruneParams)
    merge: MergeParams = field(default_factory=MergeParams)

    def applies(self, trainer: Trainer) -> bool:
        """Tell whether a fit that met its quality may lose Gaussians.

        Not where their number was given, and only for the normalized blend, where neighbors fill
        the gap.
        """
        return (
            trainer.params.quality is not None
            and trainer.params.gaussians is None
            and trainer.problem.info.blend == "normalized"
        )

    def apply(self, trainer: Trainer) -> None:
        """Remove Gaussians as long as what the fit had reached comes back after a few steps.

        That is the target quality of the image, and labels and through-plane targets that are
        matched no worse than when it was met.

        On return the trainer's state is the smallest field found that does so, even when the
        time was up or the user cancelled meanwhile. The work allowed is counted in Gaussians and
        voxels times steps rather than seconds, so that the same seed gives the same field.
        """
        settings = self.settings
        best = trainer.snapshot()
        state, params = trainer.state, trainer.params
        voxels = settings.voxel_cost * trainer.image_voxels
        allowed = settings.max_work * sum(entry["gaussians"] + voxels for entry in state.history)
        allowed = max(allowed, self._cost_of_try(len(state.parameters) + voxels))
        began, used, done = trainer.seconds, 0.0, 0
        fraction = settings.fraction
        ranking: tuple[Floats, Doubles, Pairs] | None = None
        trainer.max_label_error, trainer.max_through_plane_error = (
            state.label_error,
            state.through_plane_error,
        )

        def report() -> None:
            nonlocal used, done
            used += len(state.parameters) + voxels
            done += 1
            passed = trainer.seconds - began
            remaining = passed / used * max(0.0, allowed - used)
            left = int(max(0.0, allowed - used) / (len(state.parameters) + voxels))
            if params.time_limit is not None:
                remaining = min(remaining, max(0.0, params.time_limit - trainer.seconds))
            trainer.progress(
                ProgressEvent(
                    FitStage.PRUNE,
                    done,
                    done + left,
                    trainer.seconds,
                    state.psnr,
                    len(state.parameters),
                    remaining,
                )
            )

        while fraction >= settings.min_fraction:
            size = len(state.parameters)
            cost = self._cost_of_try(size + voxels, ranked=ranking is not None)
            count = int(size * fraction)
            if count < 1 or used + cost > allowed or trainer.must_end():
                break
            if ranking is None:
                ranking = self._rank(trainer)
                used += settings.ranking_cost * (size + voxels)
            self._reduce(trainer, count, *ranking)
            if trainer.recover(settings.recovery_iterations, settings.recovery_step, report):
                ranking, best = None, trainer.snapshot()
            else:
                trainer.restore(best)
                fraction *= settings.backoff
        trainer.max_label_error = trainer.max_through_plane_error = np.inf

    def _cost_of_try(self, step: float, *, ranked: bool = False) -> float:
        """Return what a try costs at most, in the units of a step's work."""
        settings = self.settings
        return (settings.recovery_iterations + (0 if ranked else settings.ranking_cost)) * step

    def _rank(self, trainer: Trainer) -> tuple[Floats, Doubles, Pairs]:
        """Return what leaving out each Gaussian and merging neighbors would cost."""
        sensitivity, weight_sums = removal_sensitivity(trainer)
        pairs = neighbor_pairs(
            trainer.state.parameters,
            sensitivity,
            weight_sums,
            trainer.lower,
            trainer.upper,
            trainer.problem.info.degree,
            self.merge,
            trainer.params.threads,
        )
        return sensitivity, weight_sums, pairs

    def _reduce(
        self,
        trainer: Trainer,
        count: int,
        sensitivity: Floats,
        weight_sums: Doubles,
        pairs: Pairs,
    ) -> None:
        """Go on with ``count`` Gaussians less."""
        dropped, merged = choose_reductions(sensitivity, pairs, count)
        first, second = pairs.first[merged], pairs.second[merged]
        parameters = trainer.state.parameters.copy()
        degree = trainer.problem.info.degree
        parameters[first] = merge_rows(parameters, first, second, weight_sums, degree)[0]
        kept = np.flatnonzero(~dropped)
        trainer.reindex(np.ascontiguousarray(parameters[kept]), kept)
