"""What Lightning trains: the loss, the moving average, the schedule, the data."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from typing import Any

import lightning
import numpy as np
import torch
from torch import nn

from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.classification.card import ModelCard
from napari_medgs.classification.data.augment import Augmentation, augment, drop
from napari_medgs.classification.gaussians.set import GaussianSet
from napari_medgs.classification.inference import probabilities_of
from napari_medgs.classification.training.params import TrainParams
from napari_medgs.classification.training.scores import accuracy, auc
from napari_medgs.errors import LabelError

WARM_UP = 0.08  # share of the steps
ORDINAL = 0.1  # what each neighbouring grade gets of a grade's label


class Indices(torch.utils.data.Dataset[int]):
    """Numbers of images: a batch is cut from the whole tensors at once."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class Training(lightning.LightningModule):
    """A network in training.

    Parameters
    ----------
    network : torch.nn.Module
    card : ModelCard
    inputs, labels : dict
        By split: what the network reads, and (N, L) integer tensors.
    params : TrainParams
    augmentation : Augmentation
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        inputs: dict[str, Any],
        labels: dict[str, torch.Tensor],
        params: TrainParams,
        augmentation: Augmentation,
    ) -> None:
        super().__init__()
        self.network, self.card, self.params = network, card, params
        self.inputs, self.labels, self.augmentation = inputs, labels, augmentation
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.random = torch.Generator().manual_seed(params.seed)
        self.epoch_seconds: list[float] = []
        self.history: list[dict[str, float]] = []
        self._started = time.perf_counter()
        self._steps_end = self._started
        self._guesses: list[tuple[np.ndarray, np.ndarray]] = []
        self._losses: list[torch.Tensor] = []

    def training_step(self, index: torch.Tensor, number: int) -> torch.Tensor:
        """Return the loss of one batch of moved images."""
        index = index.cpu()
        some = augment(self.inputs["train"][index], self.augmentation, self.random)
        if isinstance(some, GaussianSet) and self.card.model != "hybrid":
            some = drop(some, self.augmentation.drop, self.random)
        labels = self.labels["train"][index].to(self.device)
        loss = self._loss(self.network(some.to(self.device)), labels)
        self._losses.append(loss.detach())  # logged once an epoch: small steps are quick
        return loss

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        f = nn.functional
        if self.card.multi_label:
            return f.binary_cross_entropy_with_logits(logits, labels.float())
        if self.card.task == "ordinal-regression":
            grades = torch.arange(logits.shape[1], device=logits.device)
            away = (grades[None] - labels).abs()
            soft = torch.where(away == 0, 1 - 2 * ORDINAL, torch.where(away == 1, ORDINAL, 0.0))
            return f.cross_entropy(logits, soft / soft.sum(1, keepdim=True))
        return f.cross_entropy(logits, labels[:, 0], label_smoothing=self.params.smoothing)

    def on_train_start(self) -> None:
        """Pair the average's tensors with the network's, once both are on their device."""
        current, kept = self.network.state_dict(), self.average.state_dict()
        moving = [name for name, tensor in kept.items() if tensor.dtype.is_floating_point]
        self._kept = [kept[name] for name in moving]
        self._current = [current[name] for name in moving]
        self._counts = [(kept[n], current[n]) for n in kept.keys() - set(moving)]

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the average towards the weights; slowly once there are many steps."""
        self.updates += 1
        steps = int(self.updates)
        decay = min(self.params.ema, (1 + steps) / (10 + steps)) if self.params.ema else 0.0
        with torch.no_grad():
            torch._foreach_lerp_(self._kept, self._current, 1 - decay)
            for old, new in self._counts:
                old.copy_(new)
        self._steps_end = time.perf_counter()

    def on_train_epoch_start(self) -> None:
        """Start the epoch's clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        """Keep the epoch's time up to its last step: validation is not training."""
        self.epoch_seconds.append(self._steps_end - self._started)
        self.log("train_loss", torch.stack(self._losses).mean(), sync_dist=True)
        self._losses = []

    def validation_step(self, index: torch.Tensor, number: int) -> None:
        """Collect what the average says of one batch."""
        index = index.cpu()
        some = self.inputs["val"][index]
        self.average.to(self.device)
        # Without mirrored copies: the course of training is to be followed cheaply.
        plain = replace(self.card, preprocessing={**self.card.preprocessing, "tta": False})
        guess = probabilities_of(self.average, some, plain)
        self._guesses.append((guess, self.labels["val"][index].numpy()))

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores."""
        if not self._guesses:
            return
        guess = np.concatenate([g for g, _ in self._guesses])
        truth = np.concatenate([t for _, t in self._guesses])
        self._guesses = []
        task = self.card.task
        try:
            area = auc(truth, guess, task)
        except LabelError:  # Lightning's sanity check may see a few images only
            area = math.nan
        scores = {"val_auc": area, "val_acc": accuracy(truth, guess, task)}
        self.log_dict(scores, sync_dist=True)
        if not self.trainer.sanity_checking:
            self.history.append(scores)

    def configure_optimizers(self) -> Any:
        """AdamW without decay of biases and norms; warm-up, then half a cosine."""
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        rest = [p for p in self.network.parameters() if p.ndim <= 1]
        p = self.params
        groups = [
            {"params": decayed, "weight_decay": p.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        # One kernel for all weights; on CUDA it cannot go with clipped, scaled gradients.
        optimizer = torch.optim.AdamW(groups, lr=p.rate, fused=self.device.type == "cpu")
        total = max(1, int(self.trainer.estimated_stepping_batches))
        warm = max(1, int(WARM_UP * total))

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def loader(self, split: str) -> Any:
        """Return the loader of a split's numbers."""
        training = split == "train"
        data = Indices(len(self.labels[split]))
        return torch.utils.data.DataLoader(
            data,
            batch_size=self.params.batch,
            shuffle=training,
            # A last batch of one would break batch normalisation.
            drop_last=training and len(data) > self.params.batch,
            generator=torch.Generator().manual_seed(self.params.seed) if training else None,
        )


class Watch(lightning.Callback):
    """Tells the caller how far it is, and stops when asked to."""

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
