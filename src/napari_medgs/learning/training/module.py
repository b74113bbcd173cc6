"""The Lightning module of a segmenter: loss, moving average, learning rate, checks."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import nn

from napari_medgs._util.moving_average import moving_average
from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.errors import Cancelled
from napari_medgs.learning.data.prepare import PreparedCase
from napari_medgs.learning.networks.segmenter import SegmenterNetwork
from napari_medgs.learning.networks.slots import SegmenterConfig
from napari_medgs.learning.supervision.registry import build_supervision
from napari_medgs.learning.tiles import tiled_probabilities
from napari_medgs.learning.training.params import LearnParams

CLIP_NORM = 12.0
WARM_UP = 0.03
MOST_CHECKED = 8
"""Cases on which a network is measured while it trains."""
RECENT = 10
"""Steps whose mean loss is reported between checks."""
LEARNED_RATE = 10.0
"""Learning rate of a supervision's own weights over that of the network's."""


class SegmenterModule(lightning.LightningModule):
    """A network, its moving average and its loss.

    Parameters
    ----------
    network : SegmenterNetwork
        With what its supervision needs.
    config : SegmenterConfig
    params : LearnParams
    fraction : callable
        () -> how much of the training is done, 0 to 1: the learning rate follows it.
    cases : sequence of PreparedCase
        On which the network is measured.
    tile : tuple of int
        Of that measurement.
    """

    def __init__(
        self,
        network: SegmenterNetwork,
        config: SegmenterConfig,
        params: LearnParams,
        fraction: Callable[[], float],
        cases: Sequence[PreparedCase] = (),
        tile: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.network, self.config, self.params = network, config, params
        self.supervision = build_supervision(config)
        self.average = moving_average(network, params.ema)
        self.fraction, self.cases, self.tile = fraction, tuple(cases), tile
        self.losses: list[torch.Tensor] = []
        self.best: tuple[float, dict[str, Any]] | None = None

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        """Return the loss of a batch of patches."""
        image, target = batch
        logits = self.network.multi_scale(image, self.config.supervision.multi_scale)
        loss: torch.Tensor = self.supervision(logits, target)
        self.losses.append(loss.detach())
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, and update the moving average before any checkpoint is written."""
        super().optimizer_step(*args, **kwargs)
        self.average.update_parameters(self.network)

    def mean_loss(self) -> float:
        """Return the mean loss since the last call."""
        losses, self.losses = self.losses, []
        return float(torch.stack(losses).mean()) if losses else math.nan

    def recent_loss(self) -> float | None:
        """Return the mean loss of the last few steps, None before the first."""
        recent = self.losses[-RECENT:]
        return float(torch.stack(recent).mean()) if recent else None

    def check(self, should_stop: StopCallback) -> float:
        """Return the mean Dice of the averaged network on its cases; keep the best weights."""
        network = self.average.module
        found = [
            dice_of(network, case, self.config, self.tile, self.device, should_stop)
            for case in self.cases[:MOST_CHECKED]
        ]
        score = float(np.nanmean(found)) if found else math.nan
        if self.best is None or score > self.best[0]:
            self.best = score, copy.deepcopy(self.average.module.state_dict())
        return score

    def configure_optimizers(self) -> Any:
        """Return AdamW, without decay of biases and norms, and its schedule."""
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        rest = [p for p in self.network.parameters() if p.ndim <= 1]
        rate = self.params.learning_rate
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": self.params.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        if own := list(self.supervision.parameters()):
            groups.append({"params": own, "weight_decay": 0.0, "lr": LEARNED_RATE * rate})
        # Not fused: mixed precision would refuse to clip the gradients.
        optimizer = torch.optim.AdamW(groups, lr=rate)

        def factor(step: int) -> float:
            done = min(1.0, self.fraction())
            if done < WARM_UP:
                return max(done / WARM_UP, 0.02)
            cosine = math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))
            return 0.5 * (1 + cosine)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class Conductor(lightning.Callback):
    """Reports, checks, and ends a training by steps, time, patience or the user.

    Parameters
    ----------
    stage : str
        For the reports.
    steps : int
        Most steps.
    seconds : float, optional
        Most wall time.
    every : int
        Steps between checks.
    patience : int, optional
        Checks without a better Dice.
    progress, should_stop : callable
    """

    def __init__(
        self,
        stage: str,
        steps: int,
        seconds: float | None,
        every: int,
        patience: int | None,
        progress: ProgressCallback,
        should_stop: StopCallback,
    ) -> None:
        self.stage, self.steps, self.seconds, self.every = stage, steps, seconds, every
        self.patience, self.progress, self.should_stop = patience, progress, should_stop
        self.started = time.perf_counter()
        self.spent_before = 0.0  # by an earlier run that this one continues
        self.done = 0
        self.canceled = False
        self.history: list[dict[str, float]] = []
        self._since_best, self._reported = 0, 0.0

    @property
    def spent(self) -> float:
        """Seconds of the training so far."""
        return self.spent_before + time.perf_counter() - self.started

    def fraction(self) -> float:
        """Return how much is done, 0 to 1."""
        by_time = self.spent / self.seconds if self.seconds else 0.0
        return max((self.done + 1) / self.steps, by_time)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Count from where an earlier run ended."""
        self.done = int(trainer.global_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Report, check, and stop if it is time."""
        self.done = int(trainer.global_step)
        over = self.done >= self.steps or bool(self.seconds and self.spent >= self.seconds)
        score = None
        if self.should_stop():
            self.canceled = over = True
        elif self.done % self.every == 0 or over:
            loss = pl_module.mean_loss()
            entry = {"step": float(self.done), "loss": loss, "seconds": self.spent}
            if pl_module.cases:
                best = pl_module.best[0] if pl_module.best else -math.inf
                try:
                    entry["dice"] = score = pl_module.check(self.should_stop)
                except Cancelled:
                    self.canceled = over = True
                else:
                    self._since_best = 0 if score > best else self._since_best + 1
                    over = over or bool(self.patience and self._since_best >= self.patience)
            self.history.append(entry)
            if trainer.logger is not None:
                trainer.logger.log_metrics(
                    {k: v for k, v in entry.items() if k != "step"}, step=self.done
                )
                trainer.logger.save()
            self._report(loss, score)
        elif time.perf_counter() - self._reported > 0.5:
            self._report(pl_module.recent_loss(), None)
        if over:
            trainer.should_stop = True

    def _report(self, loss: float | None, dice: float | None) -> None:
        self._reported = time.perf_counter()
        part = max(self.fraction(), 1e-6)
        left = max(0.0, self.spent * (1 - part) / part)
        total = self.steps if not self.seconds else max(self.done, round(self.done / part))
        event = ProgressEvent(
            self.stage, self.done, total, self.spent, remaining=left, loss=loss, dice=dice
        )
        self.progress(event)

    def state_dict(self) -> dict[str, Any]:
        """Return what a later run continues from."""
        return {"spent": self.spent, "history": self.history, "since_best": self._since_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what an earlier run left."""
        self.spent_before = float(state_dict["spent"])
        self.history = list(state_dict["history"])
        self._since_best = int(state_dict["since_best"])


def dice_of(
    network: nn.Module,
    case: PreparedCase,
    config: SegmenterConfig,
    tile: tuple[int, ...],
    device: Any,
    should_stop: StopCallback,
) -> float:
    """Return the mean Dice of the classes of a prepared case; NaN where it has none."""
    image, truth = case.image, case.labels
    found = np.empty(truth.shape, np.uint8)
    planes = range(len(truth)) if config.ndim == 2 else (None,)
    for z in planes:
        part = image if z is None else image[:, z]
        for first, last, probability in tiled_probabilities(
            network, part, tile, least=tuple(n // 2 for n in tile), device=device,
            should_stop=should_stop,
        ):  # fmt: skip
            where = slice(first, last) if z is None else (z, slice(first, last))
            found[where] = probability.argmax(0)
    scores = []
    for k in case.points:
        ours, theirs = found == k, truth == k
        scores.append(2 * np.count_nonzero(ours & theirs) / max(1, ours.sum() + theirs.sum()))
    return float(np.mean(scores)) if scores else math.nan
