"""Training of a small network for a fixed number of steps, with Lightning."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
import torch

from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.errors import Cancelled


class CaseBatches(torch.utils.data.IterableDataset[list[int]]):
    """Numbers of the cases of every step: all of them in turn, in a new order each time.

    Parameters
    ----------
    cases : int
    steps : int
    batch : int
        Cases a step; at most all of them.
    seed : int
        Of all random choices.
    """

    def __init__(self, cases: int, steps: int, batch: int, seed: int) -> None:
        self.steps = steps
        self._cases, self._batch, self._seed = cases, min(batch, cases), seed

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self._seed, 1])
        left: list[int] = []
        for _ in range(self.steps):
            while len(left) < self._batch:
                left += random.permutation(self._cases).tolist()
            chosen, left = left[: self._batch], left[self._batch :]
            yield chosen


class StepsModule(lightning.LightningModule):
    """A module that Adam trains, with a rate that falls to zero along a cosine.

    Parameters
    ----------
    learning_rate : float
        The first rate.
    steps : int
        After which it is zero.
    """

    def __init__(self, learning_rate: float, steps: int) -> None:
        super().__init__()
        self._learning_rate, self._steps = learning_rate, steps

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule."""
        optimizer = torch.optim.Adam(self.parameters(), self._learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def train_steps(
    module: lightning.LightningModule,
    batches: CaseBatches,
    *,
    progress: ProgressCallback,
    should_stop: StopCallback,
) -> None:
    """Train a module in place on one CPU process.

    Parameters
    ----------
    module : lightning.LightningModule
    batches : CaseBatches
    progress, should_stop : callable
        Called after every step.

    Raises
    ------
    Cancelled
        When stopped.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    watch = _Watch(batches.steps, progress, should_stop)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning: loaders without workers, no logger
        trainer = lightning.Trainer(
            max_steps=batches.steps, max_epochs=1, accelerator="cpu", devices=1, logger=False,
            callbacks=[watch], enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, gradient_clip_val=1.0,
        )  # fmt: skip
        trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    if trainer.interrupted:
        raise KeyboardInterrupt
    if watch.stopped:
        raise Cancelled("Training was canceled; no model was written.")


class _Watch(lightning.Callback):
    """Reports every step, and stops when asked."""

    def __init__(self, steps: int, progress: ProgressCallback, should_stop: StopCallback) -> None:
        self._steps, self._progress, self._stop = steps, progress, should_stop
        self._started, self.stopped = time.perf_counter(), False

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        done, spent = trainer.global_step, time.perf_counter() - self._started
        left = spent / max(done, 1) * (self._steps - done)
        self._progress(ProgressEvent("training", done, self._steps, spent, remaining=left))
        if self._stop():
            self.stopped = trainer.should_stop = True
