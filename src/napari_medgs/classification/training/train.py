"""Train a classifier on a labeled dataset."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._optional import require
from napari_medgs._util.progress import ProgressCallback, StopCallback, ignore_progress, never_stop
from napari_medgs.classification.card import ModelCard, ModelKind
from napari_medgs.classification.classifier import Classifier
from napari_medgs.classification.data.datasets import LabeledDataset
from napari_medgs.classification.gaussians.settings import FitSettings
from napari_medgs.classification.novelty import FALSE_ALARMS, make_reference
from napari_medgs.classification.training.params import TrainParams
from napari_medgs.errors import Cancelled, FileError, ParameterError
from napari_medgs.io._atomic import note_written

EPOCHS = {
    2: {"hybrid": 50, "resnet8": 50, "edge": 100, "gnn": 100, "inr2vec": 60},
    3: {"hybrid": 16, "resnet8": 10, "edge": 60, "gnn": 60, "inr2vec": 60},
}
SHAPE_EPOCHS = {"edge": 25}
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
CHECKPOINT = "last.ckpt"
# Distances of shapes have a long tail: at 5 %, 7.4 % of new ones would be called unlike.
FALSE_ALARMS_OF_SHAPES = 0.03


@dataclass(frozen=True)
class TrainResult:
    """A trained classifier and its scores.

    Attributes
    ----------
    classifier : Classifier
        Its card has the scores.
    metrics : dict
        test_auc, test_acc and their 95 % intervals, val_auc, val_acc, and model, dataset,
        parameters, bytes_per_input, epochs, seconds_fit, seconds_epoch, seconds, seed.
    probabilities : dict of str to (N, K) ndarray
        Of the splits "val" and "test", where they exist.
    history : list of dict
        val_auc and val_acc of every epoch.
    """

    classifier: Classifier
    metrics: dict[str, Any]
    probabilities: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def make_card(data: LabeledDataset, params: TrainParams) -> ModelCard:
    """Return the card of an untrained classifier for a dataset."""
    from napari_medgs.classification.data.augment import has_lateral_classes
    from napari_medgs.classification.data.preprocess import shape_window
    from napari_medgs.classification.networks.registry import default_network

    ndim, is_shape = len(data.shape), data.is_shape
    lateral = has_lateral_classes(data.class_names)
    preprocessing: dict[str, Any] = {
        "intensity": "shape" if is_shape else data.intensity,
        "tta": params.tta and not lateral and params.model != "inr2vec",
    }
    if is_shape and params.model in ("resnet8", "inr2vec"):
        preprocessing["window"] = list(shape_window(data.scaled_images("train")))
    count = params.gaussians or (128 if ndim == 3 and not is_shape else 64)
    fit: dict[str, Any] = {}
    if ModelKind(params.model).on_gaussians:
        fit = FitSettings(gaussians=count, shape=is_shape).to_dict()
    return ModelCard(
        model=ModelKind(params.model),
        dataset=data.name,
        task=data.task,
        class_names=data.class_names,
        channels=data.channels,
        ndim=ndim,
        shape=data.shape,
        preprocessing=preprocessing,
        fit=fit,
        network=default_network(params.model, ndim, data.shape, is_shape, data.channels),
        training=_recorded(params),
        seed=params.seed,
    )


def _recorded(params: TrainParams) -> dict[str, Any]:
    """Return the settings that decide the weights, without paths of this machine."""
    own = ("log_dir", "cache_dir", "logger", "resume", "threads")
    return {k: v for k, v in params.to_dict().items() if k not in own}


def train(
    data: LabeledDataset,
    params: TrainParams = TrainParams(),  # noqa: B008 (frozen)
    *,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
    inputs: dict[str, Any] | None = None,
    network: Mapping[str, Any] | None = None,
    initial: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train a classifier; the test split is used once, after the last epoch.

    Parameters
    ----------
    data : LabeledDataset
        With a split "train". A split "val" is scored after every epoch, "test" at the end.
    params : TrainParams
    progress : callable, optional
        Receives a :class:`~napari_medgs._util.progress.ProgressEvent` after every epoch.
    should_stop : callable, optional
        Return True to cancel.
    inputs : dict, optional
        Results of :func:`~napari_medgs.classification.inputs.network_inputs` by split,
        to avoid repeated fits.
    network : mapping, optional
        Settings of the network that differ from its defaults.
    initial : mapping of str to tensor, optional
        Initial weights by their names in the network: of an earlier classifier, or of an encoder
        trained without labels. All others are random.

    Returns
    -------
    TrainResult

    Raises
    ------
    FileError, LabelError
        When splits are missing or have one class only.
    ParameterError
        When early stopping is wanted without a validation split, or the network has no such
        settings or weights.
    Cancelled
        When ``should_stop`` returned True.
    MissingPackageError
        When torch or Lightning is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.classification import LabeledDataset, TrainParams, train
    >>> images = np.zeros((32, 1, 8, 8), np.uint8)
    >>> images[::2, :, 2:6, 2:6] = 255
    >>> labels = np.arange(32)[:, None] % 2
    >>> data = LabeledDataset("squares", {"train": images}, {"train": labels}, "binary-class",
    ...                       ("square", "empty"))
    >>> params = TrainParams(model="resnet8", epochs=1, accelerator="cpu", threads=1)
    >>> train(data, params).classifier.card.class_names
    ('square', 'empty')
    """
    require("torch", "lightning", feature="train")
    data.check()
    if params.patience and "val" not in data.images:
        raise ParameterError("Early stopping needs a validation split ('val').")
    import torch

    from napari_medgs.classification.inference import probabilities_of
    from napari_medgs.classification.inputs import (
        default_cache,
        input_bytes,
        network_inputs,
    )
    from napari_medgs.classification.networks.registry import count_parameters, make_network

    started = time.perf_counter()
    if params.threads:
        torch.set_num_threads(params.threads)
    card = make_card(data, params)
    if network:
        card = replace(card, network={**card.network, **network})
    if inputs is None:
        cache = default_cache() if params.cache_dir is None else params.cache_dir
        inputs = {
            split: network_inputs(
                data.scaled_images(split),
                card,
                cache_dir=cache,
                progress=progress,
                should_stop=should_stop,
            )
            for split in data.images
        }
    seconds_fit = time.perf_counter() - started
    labels = {split: torch.from_numpy(values) for split, values in data.labels.items()}
    torch.manual_seed(params.seed)
    untrained = make_network(card)
    if initial:
        _start_from(untrained, initial)
    module, epochs = _run(untrained, card, inputs, labels, params, progress, should_stop)
    kept = module.average.module.cpu()
    predictions: dict[str, NDArray[np.float64]] = {
        s: probabilities_of(kept, inputs[s], card) for s in ("val", "test") if s in inputs
    }
    metrics: dict[str, Any] = {
        "model": card.model,
        "dataset": card.dataset,
        "parameters": count_parameters(untrained),
        "bytes_per_input": input_bytes(inputs["train"]),
        "seconds_fit": seconds_fit,
        "seconds_epoch": float(np.median(module.epoch_seconds)),
        "epochs": epochs,
        "seed": params.seed,
    }
    metrics.update(_scores(data, predictions))
    metrics["seconds"] = time.perf_counter() - started
    scores = {k: v for k, v in metrics.items() if k.startswith(("test_", "val_"))}
    training = {**card.training, "epochs": epochs}
    card = ModelCard.from_dict({
        **card.to_dict(), "metrics": scores, "training": training,
        "parameters": metrics["parameters"], "novelty": _novelty(data, card.is_shape),
    })  # fmt: skip
    return TrainResult(Classifier(card, kept), metrics, predictions, module.history)


def _novelty(data: LabeledDataset, is_shape: bool) -> dict[str, Any]:
    """Return what the images are like that a classifier may know: the test split stays unseen."""
    known = [data.scaled_images(split) for split in ("train", "val") if split in data.images]
    share = FALSE_ALARMS_OF_SHAPES if is_shape else FALSE_ALARMS
    reference = make_reference(np.concatenate(known), share)
    return {} if reference is None else reference.to_dict()


def _start_from(network: Any, initial: Mapping[str, Any]) -> None:
    """Copy weights into a network that is still untrained."""
    state = network.state_dict()
    for name, tensor in initial.items():
        if name not in state or state[name].shape != tensor.shape:
            raise ParameterError(f"The network has no weights {name!r} of this shape.")
    network.load_state_dict({**state, **initial})


def _scores(data: LabeledDataset, predictions: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    from napari_medgs.classification.training.scores import accuracy, auc, bootstrap
    from napari_medgs.errors import LabelError

    scores: dict[str, Any] = {}
    for split, prediction in predictions.items():
        truth = data.labels[split]
        try:
            scores[f"{split}_auc"] = auc(truth, prediction, data.task)
        except LabelError:
            scores[f"{split}_auc"] = None  # a class has no image there: no curve
        scores[f"{split}_acc"] = accuracy(truth, prediction, data.task)
        if split == "test" and scores["test_auc"] is not None:
            intervals = bootstrap(truth, prediction, data.task)
            scores["test_auc_ci"] = list(intervals["auc"])
            scores["test_acc_ci"] = list(intervals["acc"])
    return scores


def _default_epochs(card: ModelCard) -> int:
    """Return the number of epochs that cross-validation chose for a network and data."""
    epochs = EPOCHS[card.ndim][card.model]
    return SHAPE_EPOCHS.get(card.model, epochs) if card.is_shape else epochs


def _run(
    network: Any,
    card: ModelCard,
    inputs: dict[str, Any],
    labels: dict[str, Any],
    params: TrainParams,
    progress: ProgressCallback,
    should_stop: StopCallback,
) -> tuple[Any, int]:
    """Train with Lightning; return the module and the number of epochs that were run."""
    import lightning
    import torch
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    from napari_medgs.classification.data.augment import (
        SHAPE_DROP,
        Augmentation,
        has_lateral_classes,
    )
    from napari_medgs.classification.training.module import ClassifierModule, ProgressReporter

    epochs = params.epochs or _default_epochs(card)
    augmentation = Augmentation(flips=not has_lateral_classes(card.class_names))
    if card.is_shape:
        augmentation = replace(augmentation, drop=SHAPE_DROP)
    module = ClassifierModule(network, card, inputs, labels, params, augmentation)
    reporter = ProgressReporter(progress, should_stop, epochs)
    callbacks: list[Any] = [reporter]
    if params.patience:
        callbacks.append(EarlyStopping("val_auc", patience=params.patience, mode="max"))
    checkpoint = Path(params.log_dir) / CHECKPOINT if params.log_dir else None
    if checkpoint is not None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        note_written(checkpoint.parent)
        callbacks.append(ModelCheckpoint(dirpath=checkpoint.parent, save_last=True, save_top_k=0))
    if params.resume and (checkpoint is None or not checkpoint.is_file()):
        raise FileError(f"{checkpoint}: there is no run to resume.")
    gpu = torch.cuda.is_available() and params.accelerator in ("auto", "gpu", "cuda")
    precision = params.precision
    if precision == "auto":
        precision = "16-mixed" if gpu else "32-true"
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", module=r"torch\..*")
        try:
            trainer = lightning.Trainer(
                max_epochs=epochs,
                accelerator=params.accelerator,
                devices=int(params.devices) if params.devices.isdecimal() else params.devices,
                strategy=params.strategy,
                precision=precision,
                gradient_clip_val=module.constants.clip_norm,
                logger=_logger(params),
                callbacks=callbacks,
                enable_checkpointing=checkpoint is not None,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                log_every_n_steps=10,
            )
        except (
            TypeError,
            ValueError,
            RuntimeError,
            lightning.fabric.utilities.exceptions.MisconfigurationException,
        ) as error:
            raise ParameterError(f"These devices cannot be trained on: {error}") from error
        if trainer.precision not in (PRECISIONS if gpu else PRECISIONS[:1]):
            raise ParameterError(
                f"precision {params.precision} cannot be trained in: give 32, or on a GPU "
                "16-mixed or bf16-mixed."
            )
        validation = module.loader("val") if "val" in labels else None
        trainer.fit(
            module, module.loader("train"), validation,
            ckpt_path=str(checkpoint) if params.resume else None,
        )  # fmt: skip
    if reporter.stopped or trainer.interrupted:
        raise Cancelled("Training was canceled; no model was written.")
    return module, int(trainer.current_epoch)


def _logger(params: TrainParams) -> Any:
    from lightning.pytorch import loggers

    if params.logger == "csv":
        return loggers.CSVLogger(str(params.log_dir), name="logs")
    if params.logger == "tensorboard":
        try:
            return loggers.TensorBoardLogger(str(params.log_dir), name="logs")
        except ModuleNotFoundError as error:
            raise ParameterError(
                "TensorBoard logs need the package tensorboard (pip install tensorboard); CSV "
                "logs need nothing."
            ) from error
    return False
