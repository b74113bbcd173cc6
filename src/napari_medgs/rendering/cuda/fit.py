"""The fit's inner loop on the device: loss, gradient and Adam without waiting for any of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.rendering.cuda.driver import ERRORS
from napari_medgs.rendering.cuda.engine import CudaEngine
from napari_medgs.rendering.cuda.plan import THREADS, ceil_div

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medgs.rendering.engine import StackTarget

SAMPLE = 2048  # rows that tell the usual slope of a column
NEVER = (-1.0, -1.0, -1.0)
LAG = 2  # steps the host runs ahead of the numbers it reads


@dataclass(frozen=True)
class StepReport:
    """What one step found before it moved.

    Attributes
    ----------
    number : int
        The step, from 1.
    image_error, label_error, through_plane_error : float
        See :class:`~napari_medgs.rendering.engine.LossAndGradient`.
    moved : bool
        False when the goal had been reached, or when lists overflowed and the numbers of this
        step are not to be believed (they have grown since).
    valid : bool
        Whether the numbers can be believed.
    """

    number: int
    image_error: float
    label_error: float
    through_plane_error: float
    moved: bool
    valid: bool


@dataclass
class _Pending:
    number: int
    stop: tuple[float, float, float]
    flags: Tensor
    totals: Tensor
    event: Any


class CudaStepper:
    """Adam on a table that stays on the device, with a step size per column.

    The same steps as :class:`napari_medgs.fitting.optim.adam.Adam`. The host never waits for the
    step it
    has just queued: it reads the numbers of two steps ago.

    Parameters
    ----------
    engine : CudaEngine
    parameters : (N, 14 + C) ndarray or tensor
        The start; copied.
    target : StackTarget
    steps, lower, upper : (14 + C,) ndarray
        Largest step, and bounds, of every column.
    betas : (float, float)
        Memories of the first and second moment.
    gradient_floor : float
        Slopes below this share of a column's root mean square move little.

    Attributes
    ----------
    stop : (float, float, float)
        Nothing moves any more once squared error, missed class mass and squared error of the
        frames between are all down to these; never by default.
    """

    def __init__(
        self,
        engine: CudaEngine,
        parameters: Any,
        target: StackTarget,
        steps: Floats,
        lower: Floats,
        upper: Floats,
        *,
        betas: tuple[float, float],
        gradient_floor: float,
    ) -> None:
        import torch

        self.engine, self.betas, self.gradient_floor = engine, betas, gradient_floor
        self.stop = NEVER
        self.target = engine.device_target(target)
        tensor = engine._tensor
        self._columns = {"steps": tensor(steps), "lower": tensor(lower), "upper": tensor(upper)}
        self.parameters = tensor(parameters).clone()
        self.first = torch.zeros_like(self.parameters)
        self.second = torch.zeros_like(self.parameters)
        self.gradient = torch.zeros_like(self.parameters)
        self.totals = torch.zeros(ERRORS, dtype=torch.float64, device=engine.device)
        self.number = 0
        self.taken = 0  # since the step sizes last began to decay
        self._pending: deque[_Pending] = deque()
        self._fits = False

    def step(self, decay: float = 1.0) -> StepReport | None:
        """Queue one step, with all step sizes times ``decay``.

        Returns
        -------
        StepReport or None
            Of the step before the last; None for the first two after a (re)start.
        """
        engine = self.engine
        if not self._fits:
            # Only here, where nothing is queued, may the lists be made to fit by waiting.
            engine._until_it_fits(self._accumulate)
            self._fits = True
        task = self._accumulate()
        self.taken += 1
        self.number += 1
        keep1, keep2 = self.betas
        bias1, bias2 = 1 - keep1**self.taken, 1 - keep2**self.taken
        quiet = self._quiet()
        engine.set_pointers(
            task, {**self._columns, "first": self.first, "second": self.second, "quiet": quiet}
        )
        task.keep1, task.keep2 = keep1, keep2
        task.scale = decay * float(np.sqrt(bias2)) / bias1
        task.stop[:] = self.stop
        engine.kernels.launch("adam", ceil_div(self.parameters.numel(), THREADS), THREADS, task)
        self._pending.append(self._read_back())
        return self._report() if len(self._pending) > LAG else None

    def _accumulate(self) -> Any:
        return self.engine.accumulate(self.parameters, self.target, self.gradient, self.totals)

    def _quiet(self) -> Tensor:
        """Return what Adam's denominators get at least, from a sample of rows."""
        sample = self.gradient[:: max(1, len(self.gradient) // SAMPLE)]
        return (self.gradient_floor * sample.square().mean(dim=0).sqrt() + 1e-12).contiguous()

    def _read_back(self) -> _Pending:
        """Ask for this step's numbers without waiting for them."""
        import torch

        tensors = (self.engine._flags, self.totals)
        if self.engine.device.type != "cuda":
            flags, totals = (tensor.clone() for tensor in tensors)
            return _Pending(self.number, self.stop, flags, totals, None)
        flags, totals = (torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors)
        for here, there in ((flags, tensors[0]), (totals, tensors[1])):
            here.copy_(there, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.engine.device))
        return _Pending(self.number, self.stop, flags, totals, event)

    def _report(self) -> StepReport:
        """Return the oldest step's numbers; make room if its lists were nearly full."""
        pending = self._pending.popleft()
        if pending.event is not None:
            pending.event.synchronize()
        overflow, needed = pending.flags.tolist()
        totals = pending.totals.tolist()
        self.engine.make_room(int(needed))
        moved = not overflow and any(a > b for a, b in zip(totals, pending.stop))
        image, label, through_plane = totals
        return StepReport(pending.number, image, label, through_plane, moved, not overflow)

    def finish(self) -> list[StepReport]:
        """Wait for all queued steps; return the reports not yet given out."""
        reports = []
        while self._pending:
            reports.append(self._report())
        return reports

    def table(self) -> Floats:
        """Return the table (N, 14 + C) on the host, waiting for all queued steps."""
        return self.parameters.cpu().numpy().astype(np.float32)

    def rearrange(self, order: NDArray[Any], added: int) -> None:
        """Append ``added`` fresh rows to the moments, then reorder (or drop) rows by index.

        :meth:`restart` with the table that goes with them must follow.
        """
        import torch

        index = torch.from_numpy(np.asarray(order, np.int64)).to(self.engine.device)

        def moved(state: Tensor) -> Tensor:
            fresh = torch.zeros((added, state.shape[1]), dtype=state.dtype, device=state.device)
            return torch.cat([state, fresh])[index].contiguous()

        self.first, self.second = moved(self.first), moved(self.second)

    def restart(self, parameters: Any) -> None:
        """Go on with another table (N, 14 + C), whose rows the moments already match."""
        import torch

        self.parameters = self.engine._tensor(parameters).clone()
        self.gradient = torch.zeros_like(self.parameters)
        self._fits = False
