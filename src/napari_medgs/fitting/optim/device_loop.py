"""The fit loop with table, gradient and optimizer on a GPU; the host runs two steps ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.fitting.optim.loop import FitLoop
from napari_medgs.fitting.optim.state import LoopState, Snapshot
from napari_medgs.fitting.problem import UNLABELED
from napari_medgs.rendering.cuda.fit import NEVER, CudaStepper, StepReport
from napari_medgs.rendering.parameters import GEOMETRY


class DeviceFitLoop(FitLoop):
    """A :class:`FitLoop` for :class:`~napari_medgs.rendering.cuda.engine.CudaEngine`.

    The same steps, and the same reasons to stop; numbers of a step are known two steps later.
    ``state.parameters`` is fetched only where something needs it: to add Gaussians, for a snapshot
    or checkpoint, and at the end.

    Parameters
    ----------
    *arguments, **options
        As for :class:`FitLoop`; ``engine`` is a CUDA engine.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cuda: Any = options["engine"]
        self.label_turns = 1  # a step of a GPU is short
        adam = self.params.advanced.optimizer
        self.stepper = CudaStepper(
            self.cuda,
            self.state.parameters,
            self.target,
            self.steps,
            self.lower,
            self.upper,
            betas=(adam.beta1, adam.beta2),
            gradient_floor=adam.gradient_floor,
        )
        self.adam = self.stepper  # type: ignore[assignment]

    def _stop(self) -> tuple[float, float, float]:
        """Return the errors at which :meth:`_target_met` holds: nothing is to move any more."""
        if self.target_psnr is None or not self.image_voxels:
            return NEVER
        squares: float = self.image_voxels * 10 ** (-self.target_psnr / 10)
        return (
            squares - self.problem.error_outside_crop,
            self.max_label_error,
            self.max_through_plane_error,
        )

    def run(self) -> LoopState:
        """Optimize until a stop criterion holds; return the final state.

        Raises
        ------
        Cancelled
            When cancelled before the first step was complete.
        """
        state = super().run()
        self._fetch()
        return state

    def resume(self, missing: float) -> LoopState:
        """Go on after :meth:`run` until the quality is better by so many dB, or not reached."""
        state = super().resume(missing)
        self._fetch()
        return state

    def _fetch(self) -> None:
        """Wait for all steps; take over their numbers and the table."""
        for report in self.stepper.finish():
            self._note(report)
        self.state.parameters = self.stepper.table()

    def _note(self, report: StepReport) -> float | None:
        """Record one step's numbers; return its PSNR in dB."""
        if not report.valid:  # its lists were too short, nothing moved, they are longer now
            return None
        psnr = None
        if self.image_voxels and len(self.target.images):
            squares = report.image_error + self.problem.error_outside_crop
            psnr = -10 * float(np.log10(max(squares / self.image_voxels, 1e-12)))
        self.state.psnr, self.state.label_error = psnr, report.label_error
        self.state.through_plane_error = report.through_plane_error
        self.state.history.append(
            {
                "iteration": report.number,
                "psnr": psnr,
                "label_error": report.label_error,
                "seconds": self.seconds,
                "gaussians": len(self.state.parameters),
            }
        )
        return psnr

    def _step(self, decay: float) -> float | None:
        """Queue one step; return the PSNR before the step two steps ago, in dB."""
        state, params = self.state, self.params
        self.stepper.stop = self._stop()
        report = self.stepper.step(decay)
        state.iteration += 1
        psnr = self._note(report) if report is not None else None
        wanted = [params.positions_every, params.checkpoint_every if self.checkpoint else 0]
        if any(every and state.iteration % every == 0 for every in wanted):
            self._fetch()
            if wanted[0] and state.iteration % wanted[0] == 0:
                state.positions.append((state.iteration, state.parameters[:, :3].copy()))
            if self.checkpoint and wanted[1] and state.iteration % wanted[1] == 0:
                self.checkpoint(state)
            psnr = state.psnr
        return psnr

    def _add(self, count: int) -> None:
        """Drop Gaussians without weight and add new ones where the error is largest."""
        self._fetch()
        if self._target_met(self.state.psnr):
            return  # a step just waited for met the target: the next ones will say so
        super()._add(count)
        self.stepper.restart(self.state.parameters)

    def snapshot(self) -> Snapshot:
        """Return what :meth:`restore` needs to take back all that follows."""
        self._fetch()
        return super().snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot; the history stays."""
        super().restore(snapshot)
        self.stepper.restart(self.state.parameters)

    def reindex(self, parameters: Floats, rows: NDArray[np.int64]) -> None:
        """Go on with another table, which the optimizer knows as ``rows`` of the last one."""
        super().reindex(parameters, rows)
        self.stepper.restart(self.state.parameters)

    def recover(self, steps: int, decay: float, report: Callable[[], None]) -> bool:
        """Take up to so many steps until the target_psnr is met; see :meth:`FitLoop.recover`."""
        good = super().recover(steps, decay, report)
        self._fetch()
        # One of the last steps may have met it, unless the end came before the first of them.
        return good or (not self.must_end() and self._target_met(self.state.psnr))

    def error_density(self) -> Floats:
        """Return the squared error, plus wrong class mass, per voxel (Z, Y, X)."""
        import torch
        from torch.nn.functional import cross_entropy

        target, there = self.target, self.stepper.target
        index = torch.from_numpy(there.active).to(there.images.device)
        rendered = self.cuda.render(self.stepper.parameters, there.active)
        images = len(target.images)
        found = torch.zeros_like(rendered[0])
        for channel in range(images):
            error = (rendered[channel] - there.images[channel, index]).square_()
            found += error.mul_(there.image_weights[channel, index, None, None])
        if target.classes:
            labels = there.labels[index].long()
            costs = cross_entropy(
                rendered[images:].movedim(0, 1), labels, ignore_index=255, reduction="none"
            )
            # A voxel's cross-entropy is minus the log of what the true class is given.
            found -= torch.expm1(-costs) * there.seg_weights[index, None, None]
        here: Floats = found.cpu().numpy()
        if len(here) == self.shape[0]:
            return here
        density = np.zeros(self.shape, np.float32)
        density[there.active] = here
        return density

    def weighted_moments(self) -> list[NDArray[np.float64]]:
        """Return what :func:`~napari_medgs.fitting.optim.moments.weighted_moments` does."""
        import torch

        there, parameters = self.stepper.target, self.stepper.parameters
        index = torch.from_numpy(there.active).to(parameters.device)
        rendered = self.cuda.render(parameters, there.active)
        weights = there.image_weights[:, index]
        residual = torch.ones_like(rendered)
        if there.classes:
            images = len(there.images)
            weights = torch.cat([weights, there.seg_weights[index].expand(there.classes, -1)])
            probabilities = rendered[images:].softmax(dim=0)
            probabilities *= 1 - probabilities
            residual[images:] = probabilities * (there.labels[index] != UNLABELED)
        residual *= weights[:, :, None, None]
        sums = []
        for power in range(3):
            if power:
                residual *= rendered
            gradient = self.cuda.backward(parameters, residual, there.active)
            sums.append(gradient[:, GEOMETRY:].double().cpu().numpy())
        return sums
