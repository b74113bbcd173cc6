"""The fit loop with table, gradient and optimiser on a GPU; the host runs two steps ahead."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_medgs.field import Floats
from napari_medgs.fit.adam import BETA1, BETA2, QUIET
from napari_medgs.fit.loop import FitLoop, LoopState
from napari_medgs.render.cuda_fit import CudaStepper, StepReport


class DeviceFitLoop(FitLoop):
    """A :class:`FitLoop` for :class:`~napari_medgs.render.cuda.CudaEngine`.

    The same steps, and the same reasons to stop; numbers of a step are known two steps later.
    ``state.theta`` is fetched only where something needs it: to add Gaussians, for a snapshot
    or checkpoint, and at the end.

    Parameters
    ----------
    As for :class:`FitLoop`; ``engine`` is needed.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        goal = None
        if self.params.quality is not None and self.image_voxels:
            goal = self.image_voxels * 10 ** (-self.params.quality / 10)
            goal -= self.problem.outside_squares
        self.cuda: Any = options["engine"]
        self.stepper = CudaStepper(
            self.cuda,
            self.state.theta,
            self.target,
            self.steps,
            self.lower,
            self.upper,
            betas=(BETA1, BETA2),
            quiet=QUIET,
            stop_squares=goal,
        )
        self.adam = self.stepper  # type: ignore[assignment]

    def run(self) -> LoopState:
        """Optimise until a stop criterion holds; return the final state.

        Raises
        ------
        Cancelled
            When cancelled before the first step was complete.
        """
        state = super().run()
        self._fetch()
        return state

    def _fetch(self) -> None:
        """Wait for all steps; take over their numbers and the table."""
        for report in self.stepper.finish():
            self._note(report)
        self.state.theta = self.stepper.table()

    def _note(self, report: StepReport) -> float | None:
        """Record one step's numbers; return its PSNR in dB."""
        if not report.valid:  # its lists were too short, nothing moved, they are longer now
            return None
        psnr = None
        if self.image_voxels and len(self.target.images):
            squares = report.squares + self.problem.outside_squares
            psnr = -10 * float(np.log10(max(squares / self.image_voxels, 1e-12)))
        self.state.psnr = psnr
        self.state.history.append(
            {
                "iteration": report.number,
                "psnr": psnr,
                "miss": report.miss,
                "seconds": self.seconds,
                "gaussians": len(self.state.theta),
            }
        )
        return psnr

    def _step(self, decay: float) -> float | None:
        """Queue one step; return the PSNR before the step two steps ago, in dB."""
        state, params = self.state, self.params
        report = self.stepper.step(decay)
        state.iteration += 1
        psnr = self._note(report) if report is not None else None
        wanted = [params.positions_every, params.checkpoint_every if self.checkpoint else 0]
        if any(every and state.iteration % every == 0 for every in wanted):
            self._fetch()
            if wanted[0] and state.iteration % wanted[0] == 0:
                state.positions.append((state.iteration, state.theta[:, :3].copy()))
            if self.checkpoint and wanted[1] and state.iteration % wanted[1] == 0:
                self.checkpoint(state)
            psnr = state.psnr
        return psnr

    def _add(self, count: int) -> None:
        """Drop Gaussians without weight and add new ones where the error is largest."""
        self._fetch()
        state, quality = self.state, self.params.quality
        if quality is not None and state.psnr is not None and state.psnr >= quality:
            return  # one of the steps just waited for met the goal: the next ones will say so
        super()._add(count)
        self.stepper.restart(self.state.theta)

    def _prune(self) -> None:
        """Leave the field as it is: a step's quality is known too late to try and take back."""

    def error_density(self) -> Floats:
        """Return the squared error, plus wrong class mass, per voxel (Z, Y, X)."""
        import torch
        from torch.nn.functional import cross_entropy

        target, there = self.target, self.stepper.target
        index = torch.from_numpy(there.active).to(there.images.device)
        rendered = self.cuda.render(self.stepper.theta, there.active)
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
        density = np.zeros(self.shape, np.float32)
        density[there.active] = found.cpu().numpy()
        return density
