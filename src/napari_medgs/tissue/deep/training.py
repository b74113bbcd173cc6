"""Training of tissue networks on images without any labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs._util.training import CaseBatches, StepsModule, train_steps
from napari_medgs.tissue.deep.card import TissueCard, TissueNetwork
from napari_medgs.tissue.deep.inputs import GraphCase, SliceCase
from napari_medgs.tissue.deep.losses import negative_log_likelihood
from napari_medgs.tissue.deep.networks import build
from napari_medgs.tissue.deep.params import TissueTrainParams
from napari_medgs.tissue.prepare import Layout, Prepared

WARM_UP = 0.25  # of the steps, in which the network learns the classes of k-means


class TissueModule(StepsModule):
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
        super().__init__(params.learning_rate, params.steps)
        self.network, self._cases, self._params = network, cases, params
        self._generator = np.random.default_rng([params.seed, 2])
        self.losses: list[float] = []

    def training_step(self, numbers: list[int], step: int) -> Tensor:
        """Return the loss of one image."""
        logits, samples, first = self._cases[numbers[0]].logits(self.network, self._generator)
        if step < WARM_UP * self._params.steps:
            each = nn.functional.cross_entropy(logits, first, reduction="none")
            loss = (each * samples.mass).sum() / samples.mass.sum()
        else:
            loss = negative_log_likelihood(samples, logits, self._params.loss)
            self.losses.append(float(loss.detach()))
        return loss


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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        module = TissueModule(build(card), cases, params)
        batches = CaseBatches(len(cases), params.steps, 1, params.seed)
        train_steps(module, batches, progress=progress, should_stop=should_stop)
    last = module.losses[-max(1, params.steps // 10) :]
    card = replace(card, seconds=time.perf_counter() - started, loss_value=float(np.mean(last)))
    return TissueNetwork(card, module.network.eval())
