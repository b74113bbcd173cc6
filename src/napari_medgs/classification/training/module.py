"""The Lightning module: loss, moving average of the weights, learning rates, data."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import lightning
import numpy as np
import torch
from torch import nn

from napari_medgs._util.moving_average import moving_average
from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.classification.card import ModelCard
from napari_medgs.classification.data.augment import Augmentation, augment, drop
from napari_medgs.classification.gaussians.set import GaussianSet
from napari_medgs.classification.inference import probabilities_of
from napari_medgs.classification.training.params import TrainParams
from napari_medgs.classification.training.scores import accuracy, auc
from napari_medgs.errors import LabelError


@dataclass(frozen=True)
class TrainConstants:
    """Hyper-parameters of training that an ablation may vary.

    Attributes
    ----------
    warm_up : float
        Fraction of the steps in which the learning rate rises linearly.
    ordinal_smoothing : float
        Label weight of each neighboring grade in ordinal regression.
    clip_norm : float
        Largest norm of the gradient.
    """

    warm_up: float = 0.08
    ordinal_smoothing: float = 0.1
    clip_norm: float = 1.0


class IndexDataset(torch.utils.data.Dataset[int]):
    """Indices of images: a batch is taken from the tensors of all images at once."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class ClassifierModule(lightning.LightningModule):
    """A network, its moving average and the data of a training run.

    Parameters
    ----------
    network : torch.nn.Module
    card : ModelCard
    inputs, labels : dict
        By split: what the network reads, and (N, L) integer tensors.
    params : TrainParams
    augmentation : Augmentation
    constants : TrainConstants
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        inputs: dict[str, Any],
        labels: dict[str, torch.Tensor],
        params: TrainParams,
        augmentation: Augmentation,
        constants: TrainConstants = TrainConstants(),
    ) -> None:
        super().__init__()
        self.network, self.card, self.params, self.constants = network, card, params, constants
        self.inputs, self.labels, self.augmentation = inputs, labels, augmentation
        self.average = moving_average(network, params.ema)
        self.random = torch.Generator().manual_seed(params.seed)
        self.epoch_seconds: list[float] = []
        self.history: list[dict[str, float]] = []
        self._started = time.perf_counter()
        self._steps_end = self._started
        self._predictions: list[tuple[np.ndarray, np.ndarray]] = []
        self._losses: list[torch.Tensor] = []

    def training_step(self, index: torch.Tensor, number: int) -> torch.Tensor:
        """Return the loss of one batch of augmented images."""
        index = index.cpu()
        inputs = augment(self.inputs["train"][index], self.augmentation, self.random)
        if isinstance(inputs, GaussianSet) and self.card.model != "hybrid":
            inputs = drop(inputs, self.augmentation.drop, self.random)
        labels = self.labels["train"][index].to(self.device)
        loss = self._loss(self.network(inputs.to(self.device)), labels)
        self._losses.append(loss.detach())  # logged once per epoch: the steps are short
        return loss

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        f = nn.functional
        if self.card.multi_label:
            return f.binary_cross_entropy_with_logits(logits, labels.float())
        if self.card.task == "ordinal-regression":
            grades = torch.arange(logits.shape[1], device=logits.device)
            away = (grades[None] - labels).abs()
            near = self.constants.ordinal_smoothing
            soft = torch.where(away == 0, 1 - 2 * near, torch.where(away == 1, near, 0.0))
            return f.cross_entropy(logits, soft / soft.sum(1, keepdim=True))
        return f.cross_entropy(logits, labels[:, 0], label_smoothing=self.params.smoothing)

    def on_train_batch_end(self, *_: Any) -> None:
        """Update the moving average of the weights."""
        self.average.update_parameters(self.network)
        self._steps_end = time.perf_counter()

    def on_train_epoch_start(self) -> None:
        """Start to measure the epoch."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        """Record the time up to the epoch's last step: validation is not training."""
        self.epoch_seconds.append(self._steps_end - self._started)
        self.log("train_loss", torch.stack(self._losses).mean(), sync_dist=True)
        self._losses = []

    def validation_step(self, index: torch.Tensor, number: int) -> None:
        """Collect the predictions of the averaged network for one batch."""
        index = index.cpu()
        inputs = self.inputs["val"][index]
        self.average.to(self.device)
        # Without test-time augmentation, which would cost more than the training.
        plain = replace(self.card, preprocessing={**self.card.preprocessing, "tta": False})
        prediction = probabilities_of(self.average.module, inputs, plain)
        self._predictions.append((prediction, self.labels["val"][index].numpy()))

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores."""
        if not self._predictions:
            return
        prediction = np.concatenate([g for g, _ in self._predictions])
        truth = np.concatenate([t for _, t in self._predictions])
        self._predictions = []
        task = self.card.task
        try:
            area = auc(truth, prediction, task)
        except LabelError:  # Lightning's sanity check may see a few images only
            area = math.nan
        scores = {"val_auc": area, "val_acc": accuracy(truth, prediction, task)}
        self.log_dict(scores, sync_dist=True)
        if not self.trainer.sanity_checking:
            self.history.append(scores)

    def configure_optimizers(self) -> Any:
        """Return AdamW, without decay of biases and norms, and its learning-rate schedule."""
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        rest = [p for p in self.network.parameters() if p.ndim <= 1]
        p = self.params
        groups = [
            {"params": decayed, "weight_decay": p.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        # One kernel for all weights; on CUDA it does not work with clipped, scaled gradients.
        optimizer = torch.optim.AdamW(groups, lr=p.learning_rate, fused=self.device.type == "cpu")
        total = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = warm_up_cosine(optimizer, total, self.constants.warm_up)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def loader(self, split: str) -> Any:
        """Return the data loader of a split: batches of indices."""
        training = split == "train"
        data = IndexDataset(len(self.labels[split]))
        return torch.utils.data.DataLoader(
            data,
            batch_size=self.params.batch_size,
            shuffle=training,
            # A last batch of one would break batch normalization.
            drop_last=training and len(data) > self.params.batch_size,
            generator=torch.Generator().manual_seed(self.params.seed) if training else None,
        )


class ProgressReporter(lightning.Callback):
    """Reports every epoch to the caller and stops training when asked to."""

    def __init__(self, progress: ProgressCallback, should_stop: StopCallback, epochs: int) -> None:
        self.progress, self.should_stop, self.epochs = progress, should_stop, epochs
        self.started = time.perf_counter()
        self.stopped = False

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Report an epoch."""
        done = trainer.current_epoch + 1
        spent = time.perf_counter() - self.started
        left = spent / done * (self.epochs - done)
        self.progress(ProgressEvent("train", done, self.epochs, spent, remaining=left))

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Stop between steps."""
        if self.should_stop():
            self.stopped = trainer.should_stop = True


def warm_up_cosine(
    optimizer: torch.optim.Optimizer, steps: int, fraction: float
) -> torch.optim.lr_scheduler.SequentialLR:
    """Return a schedule that rises linearly from near zero, then falls by half a cosine.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    steps : int
        Steps of the whole training.
    fraction : float
        Part of them in which the learning rate rises.
    """
    rising = max(1, int(fraction * steps))
    scheduler = torch.optim.lr_scheduler
    return scheduler.SequentialLR(
        optimizer,
        [
            scheduler.LinearLR(optimizer, 1 / rising, 1.0, max(1, rising - 1)),
            scheduler.CosineAnnealingLR(optimizer, max(1, steps - rising)),
        ],
        [rising],
    )
