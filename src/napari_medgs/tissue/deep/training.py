"""Training of tissue networks on images without any labels."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.errors import Cancelled
from napari_medgs.tissue.deep.card import TissueCard
from napari_medgs.tissue.deep.inputs import GraphCase, SliceCase
from napari_medgs.tissue.deep.losses import negative_log_likelihood
from napari_medgs.tissue.deep.networks import build
from napari_medgs.tissue.deep.params import TissueTrainParams
from napari_medgs.tissue.prepare import Layout, Prepared

WARM_UP = 0.25  # of the steps, in which the network learns the classes of k-means


@dataclass(frozen=True)
class TissueNetwork:
    """A trained network with its card.

    Attributes
    ----------
    card : TissueCard
    network : torch.nn.Module
    """

    card: TissueCard
    network: Any


class _Steps(torch.utils.data.IterableDataset[int]):
    """The number of the case of every step: all of them in turn, in a new order each time."""

    def __init__(self, cases: int, steps: int, seed: int) -> None:
        self._cases, self._steps, self._seed = cases, steps, seed

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self._seed, 1])
        done = 0
        while done < self._steps:
            for number in generator.permutation(self._cases)[: self._steps - done]:
                yield int(number)
                done += 1


class TissueModule(lightning.LightningModule):
    """A network and the likelihood of the mixtures that it describes.

    Parameters
    ----------
    network : torch.nn.Module
    cases : sequence of GraphCase or SliceCase
    params : TissueTrainParams
    """

    def __init__(
        self, network: Any, cases: Sequence[GraphCase | SliceCase], params: TissueTrainParams
    ) -> None:
        super().__init__()
        self.network, self._cases, self._params = network, cases, params
        self._generator = np.random.default_rng([params.seed, 2])
        self.losses: list[float] = []

    def training_step(self, number: int, step: int) -> Tensor:
        """Return the loss of one image."""
        logits, samples, first = self._cases[number].logits(self.network, self._generator)
        if step < WARM_UP * self._params.steps:
            each = nn.functional.cross_entropy(logits, first, reduction="none")
            loss = (each * samples.mass).sum() / samples.mass.sum()
        else:
            loss = negative_log_likelihood(samples, logits, self._params.loss)
            self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> Any:
        """Return Adam with a rate that falls to zero along a cosine."""
        optimizer = torch.optim.Adam(self.parameters(), self._params.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._params.steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class _Watch(lightning.Callback):
    """Reports every step, and stops when asked."""

    def __init__(self, steps: int, progress: ProgressCallback, should_stop: StopCallback) -> None:
        self._steps, self._progress, self._stop = steps, progress, should_stop
        self._started, self.stopped = time.perf_counter(), False

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        spent = time.perf_counter() - self._started
        self._progress(ProgressEvent("training", trainer.global_step, self._steps, spent))
        if self._stop():
            self.stopped = trainer.should_stop = True


def train_network(
    images: Sequence[Layout | Prepared],
    names: Sequence[str],
    params: TissueTrainParams,
    *,
    progress: ProgressCallback,
    should_stop: StopCallback,
) -> TissueNetwork:
    """Train a network on images that are ready.

    Parameters
    ----------
    images : sequence of Prepared, or of Layout for slices
        At least one.
    names : sequence of str
    params : TissueTrainParams
    progress, should_stop : callable

    Returns
    -------
    TissueNetwork

    Raises
    ------
    Cancelled
        When stopped.
    """
    started = time.perf_counter()
    first = images[0].volume
    card = TissueCard(
        architecture=params.architecture,
        loss=params.loss,
        classes=params.classes,
        contrasts=first.channels,
        width=params.width,
        channel_names=first.channel_names,
        cases=tuple(names),
        steps=params.steps,
    )
    cases: list[GraphCase | SliceCase] = [
        GraphCase(one, card, params.seed)
        if isinstance(one, Prepared) and card.architecture == "graph"
        else SliceCase(one, card, params.seed)
        for one in images
    ]
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning: loaders without workers, no logger
        torch.manual_seed(params.seed)
        module = TissueModule(build(card), cases, params)
        watch = _Watch(params.steps, progress, should_stop)
        trainer = lightning.Trainer(
            max_steps=params.steps, max_epochs=1, accelerator="cpu", devices=1, logger=False,
            callbacks=[watch], enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, gradient_clip_val=1.0,
        )  # fmt: skip
        steps = _Steps(len(cases), params.steps, params.seed)
        trainer.fit(module, torch.utils.data.DataLoader(steps, batch_size=None))
    if trainer.interrupted:
        raise KeyboardInterrupt
    if watch.stopped:
        raise Cancelled("Training was canceled; nothing was written.")
    last = module.losses[-max(1, params.steps // 10) :]
    card = replace(card, seconds=time.perf_counter() - started, loss_value=float(np.mean(last)))
    return TissueNetwork(card, module.network.eval())
