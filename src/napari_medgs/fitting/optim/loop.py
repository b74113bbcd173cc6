"""The optimization loop: full-batch Adam, densification where errors are large, stopping."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.data.field import morton_order
from napari_medgs.errors import Cancelled
from napari_medgs.fitting.advanced import DensificationParams
from napari_medgs.fitting.init.place import place, sample_voxels
from napari_medgs.fitting.optim.adam import Adam, step_sizes
from napari_medgs.fitting.optim.density import error_density
from napari_medgs.fitting.optim.moments import weighted_moments
from napari_medgs.fitting.optim.state import FitStage, LoopState, Snapshot, StopReason
from napari_medgs.fitting.optim.turns import label_turns, target_of_turn
from napari_medgs.fitting.params import FitParams
from napari_medgs.fitting.problem import FitProblem
from napari_medgs.rendering.api import MANY_CLASSES
from napari_medgs.rendering.engine import Engine
from napari_medgs.rendering.parameters import LOG_R1, LOG_R2, LOG_RT, LOG_W, T, X, Y


def largest_sigma(
    foreground: int, gaussians: int, classes: int, settings: DensificationParams
) -> float:
    """Return the largest sigma (voxels) that so many Gaussians may have on a foreground."""
    many = classes > MANY_CLASSES
    spacings = settings.max_sigma_spacings_many if many else settings.max_sigma_spacings
    spacing: float = (foreground / max(gaussians, 1)) ** (1 / 3)
    return max(settings.min_max_sigma, spacings * spacing)


class FitLoop:
    """Runs rounds of optimization over one problem.

    Parameters
    ----------
    problem : FitProblem
    params : FitParams
    parameters : (N, 14 + C) ndarray
        The start.
    budget : int
        Gaussians to end the first round with.
    smallest_slice_sigma : float
        Floor of the extent along the slice axis, in slices.
    foreground : int
        Voxels that hold anything; with the budget it bounds the Gaussians' size.
    align_to_motion : callable, optional
        Gives new Gaussians (N, 14 + C) their slopes.
    """

    def __init__(
        self,
        problem: FitProblem,
        params: FitParams,
        parameters: Floats,
        budget: int,
        *,
        smallest_slice_sigma: float,
        foreground: int,
        started: float,
        rng: np.random.Generator,
        progress: ProgressCallback,
        should_stop: StopCallback,
        checkpoint: Callable[[LoopState], None] | None = None,
        trainable: Floats | None = None,
        align_to_motion: Callable[[Floats], Floats] | None = None,
        engine: Engine,
    ) -> None:
        self.problem, self.params, self.budget = problem, params, budget
        self.target = problem.target
        self.state = LoopState(parameters)
        self.started, self.rng = started, rng
        self.progress, self.should_stop, self.checkpoint = progress, should_stop, checkpoint
        self.align_to_motion = align_to_motion
        self.shape = problem.shape
        self.channels = parameters.shape[1] - 14
        self.settings = params.advanced.densification
        self.adam = Adam(len(parameters), parameters.shape[1], params.advanced.optimizer)
        flat = self.shape[0] == 1
        self.steps = step_sizes(
            len(self.target.images),
            self.target.classes,
            problem.info.degree,
            params.advanced.optimizer,
            flat=flat,
        )
        if trainable is not None:
            self.steps *= trainable
        self.largest_sigma = largest_sigma(
            foreground, budget, len(problem.info.class_names), self.settings
        )
        self.lower, self.upper = self._limits(smallest_slice_sigma)
        if trainable is not None:  # what stays must not be moved into limits either
            self.lower[trainable == 0], self.upper[trainable == 0] = -1e6, 1e6
        self.engine = engine
        _, rows, columns = problem.info.stack_shape
        weighted = (self.target.image_weights[:, self.target.counted] > 0).sum()
        self.image_voxels = float(weighted) * rows * columns
        self.target_psnr = self._initial_target_psnr()
        # With more of these (see LoopState) the target_psnr does not count as met.
        self.max_label_error = self.max_through_plane_error = np.inf
        self.label_turns = label_turns(problem, params)

    def _limits(self, smallest_slice_sigma: float) -> tuple[Floats, Floats]:
        columns = self.state.parameters.shape[1]
        lower = np.full(columns, -1e6, np.float32)
        upper = np.full(columns, 1e6, np.float32)
        for column, size in ((X, self.shape[2]), (Y, self.shape[1]), (T, self.shape[0])):
            lower[column], upper[column] = -2.0, size + 1.0
        largest = np.log(self.largest_sigma)
        for column in (LOG_R1, LOG_R2, LOG_RT):
            lower[column], upper[column] = -largest, -np.log(0.3)
        upper[LOG_RT] = -np.log(smallest_slice_sigma)
        lower[LOG_W], upper[LOG_W] = -8.0, 8.0
        return lower, upper

    @property
    def seconds(self) -> float:
        """Wall time since the fit began."""
        return time.perf_counter() - self.started

    def run(self) -> LoopState:
        """Optimize until a stop criterion holds; return the final state.

        Raises
        ------
        Cancelled
            When cancelled before the first step was complete.
        """
        params, state = self.params, self.state
        self._round(params.iterations, len(state.parameters), self.budget)
        self._grow_to_target()
        if state.stopped_by == StopReason.CANCELLED and state.iteration == 0:
            raise Cancelled("The fit was canceled before its first step.")
        return state

    def resume(self, missing: float) -> LoopState:
        """Go on after :meth:`run` until the quality is better by so many dB, or not reached."""
        if self.target_psnr is None:
            raise ValueError("The fit has no quality to reach.")
        self.target_psnr += missing
        self.state.stopped_by = StopReason.ITERATIONS
        self.adam.taken = 0
        count = len(self.state.parameters)
        self._round(self.settings.resume_iterations, count, count)
        self._grow_to_target()
        return self.state

    def _grow_to_target(self) -> None:
        """Run rounds with more and more Gaussians until the quality is met or cannot be."""
        params, state = self.params, self.state
        while (
            params.quality is not None
            and state.stopped_by == StopReason.ITERATIONS
            and params.gaussians is None
            and len(self.target.images)
            and len(state.parameters) < self.settings.max_per_voxel * self.image_voxels
        ):
            count = len(state.parameters)
            self.adam.taken = 0
            self._round(
                max(self.settings.resume_iterations, params.iterations // 2),
                count,
                int(count * self._growth()) + 1,
            )

    def _round(self, iterations: int, count_from: int, count_to: int) -> None:
        params, state = self.params, self.state
        grows = count_to > count_from
        moments = (
            [int(iterations * fraction) for fraction in self.settings.add_at] if grows else []
        )
        if grows and state.iteration > 0:
            moments = [0]
        since = self.seconds
        done, added = 0, state.iteration
        while done < iterations:
            if self.should_stop():
                state.stopped_by = StopReason.CANCELLED
                return
            if moments and done >= moments[0]:
                self._add((count_to - len(state.parameters)) // len(moments))
                del moments[0]
                added = state.iteration
            psnr = self._step(1.0 - done / iterations)
            if self._target_met(psnr):
                state.stopped_by = StopReason.QUALITY
                return
            if params.time_limit is not None and self.seconds >= params.time_limit:
                state.stopped_by = StopReason.TIME
                return
            done += self._pace(added)
            self._report(min(done, iterations), iterations, since)
            if done == 1:  # what it loads and reserves is no measure of the steps that follow
                since = self.seconds

    def _pace(self, added: int) -> int:
        """Return how far a step brings the round: twice as far where the image gains no more."""
        history, settings = self.state.history, self.settings
        before = len(history) - 1 - settings.gain_steps
        if self.label_turns <= 1 or before < max(added, 1):
            return 1
        now, then = history[-1]["psnr"], history[before]["psnr"]
        return 1 if now is None or now - then >= settings.least_gain else 2

    def must_end(self) -> bool:
        """Tell whether the user canceled, or the time is up."""
        if self.state.stopped_by != StopReason.CANCELLED and self.should_stop():
            self.state.stopped_by = StopReason.CANCELLED
        limit = self.params.time_limit
        return self.state.stopped_by == StopReason.CANCELLED or (
            limit is not None and self.seconds >= limit
        )

    def snapshot(self) -> Snapshot:
        """Return what :meth:`restore` needs to take back all that follows."""
        state = self.state
        known = state.psnr, state.label_error, state.through_plane_error
        return Snapshot(state.parameters, self.adam.first, self.adam.second, *known)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot; the history stays."""
        state = self.state
        state.parameters, state.psnr = snapshot.parameters, snapshot.psnr
        state.label_error, state.through_plane_error = (
            snapshot.label_error,
            snapshot.through_plane_error,
        )
        self.adam.first, self.adam.second = snapshot.first, snapshot.second

    def reindex(self, parameters: Floats, rows: NDArray[np.int64]) -> None:
        """Go on with another table, which the optimizer knows as ``rows`` of the last one."""
        self.state.parameters = parameters
        self.adam.rearrange(rows, 0)

    def recover(self, steps: int, decay: float, report: Callable[[], None]) -> bool:
        """Take up to so many steps, from ``decay`` times their full size to nothing.

        Returns
        -------
        bool
            Whether the target_psnr was met.
        """
        for step in range(steps):
            if self.must_end():
                return False
            psnr = self._step(decay * (1 - step / steps))
            report()
            if self._target_met(psnr):
                return True
        return False

    def _step(self, decay: float) -> float | None:
        """Take one step; return the PSNR of the field before it, in dB."""
        state = self.state
        target, share = target_of_turn(self.target, self.label_turns, state.iteration)
        squares, label_error, gradient, through_plane_error = self.engine.loss_and_gradient(
            state.parameters, target
        )
        label_error /= share
        psnr = None
        if self.image_voxels and len(self.target.images):
            squares += self.problem.error_outside_crop
            psnr = -10 * float(np.log10(max(squares / self.image_voxels, 1e-12)))
        state.psnr, state.label_error = psnr, label_error
        state.through_plane_error = through_plane_error
        if not self._target_met(psnr):  # the field that met the target is the one to keep
            self.adam.step(
                state.parameters,
                gradient,
                self.steps * np.float32(decay),
                self.lower,
                self.upper,
                self.params.threads,
            )
        state.iteration += 1
        state.history.append(
            {
                "iteration": state.iteration,
                "psnr": psnr,
                "label_error": label_error,
                "seconds": self.seconds,
                "gaussians": len(state.parameters),
            }
        )
        every = self.params.positions_every
        if every and state.iteration % every == 0:
            state.positions.append((state.iteration, state.parameters[:, :3].copy()))
        every = self.params.checkpoint_every
        if every and state.iteration % every == 0 and self.checkpoint is not None:
            self.checkpoint(state)
        return psnr

    def _growth(self) -> float:
        """Return the factor by which Gaussians should grow to reach the wanted quality."""
        missing = (self.target_psnr or 0.0) - (self.state.psnr or 0.0)
        return float(
            np.clip(
                2 ** (missing / self.settings.db_per_doubling),
                self.settings.min_growth,
                self.settings.max_growth,
            )
        )

    def _initial_target_psnr(self) -> float | None:
        """Return the PSNR (dB) to reach: the wanted one, with an allowance for a crop's rim."""
        if self.params.quality is None or not len(self.target.images):
            return None
        cropped = self.problem.error_outside_crop > 0 or self.problem.origin != (0, 0)
        return self.params.quality + self.settings.crop_allowance * cropped

    def _target_met(self, psnr: float | None) -> bool:
        """Tell whether what the fit is to reach is met."""
        if psnr is None or self.target_psnr is None:
            return False
        state = self.state
        held = (
            state.label_error <= self.max_label_error
            and state.through_plane_error <= self.max_through_plane_error
        )
        return psnr >= self.target_psnr and held

    def _report(self, done: int, total: int, since: float) -> None:
        """Tell of a step; ``since`` is when the second one began, or the first if it is that."""
        elapsed = self.seconds
        remaining = (elapsed - since) / max(1, done - 1) * (total - done)
        if self.params.time_limit is not None:
            remaining = min(remaining, max(0.0, self.params.time_limit - elapsed))
        self.progress(
            ProgressEvent(
                FitStage.FIT,
                done,
                total,
                elapsed,
                self.state.psnr,
                len(self.state.parameters),
                remaining,
            )
        )

    def _add(self, count: int) -> None:
        """Drop Gaussians without weight and add new ones where the error is largest."""
        state, target = self.state, self.target
        alive = state.parameters[:, LOG_W] > self.settings.min_log_weight
        count += int(len(alive) - np.count_nonzero(alive))
        density = self.error_density()
        indices = sample_voxels(density, count, self.rng, self.params.threads)
        rows = np.flatnonzero(alive)
        fresh = place(
            indices,
            target.images,
            target.labels,
            target.classes,
            self.rng,
            others=state.parameters[rows, :3],
            largest=self.largest_sigma,
            settings=self.params.advanced.initialization,
        )
        if self.align_to_motion is not None:
            fresh = self.align_to_motion(fresh)
        joined = np.concatenate([state.parameters[rows], fresh])
        order = morton_order(joined[:, :3])
        keep = np.concatenate([rows, len(alive) + np.arange(len(fresh))])[order]
        state.parameters = np.ascontiguousarray(joined[order])
        self.adam.rearrange(keep, len(fresh))

    def weighted_moments(self) -> list[NDArray[np.float64]]:
        """Return what :func:`~napari_medgs.fitting.optim.moments.weighted_moments` does."""
        return weighted_moments(
            self.engine, self.state.parameters, self.target, self.params.threads
        )

    def error_density(self) -> Floats:
        """Return the squared error, plus wrong class mass, per voxel (Z, Y, X)."""
        return error_density(self.engine, self.state.parameters, self.target, self.params.threads)
