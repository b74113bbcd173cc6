"""Score a trained classifier on a split of a labeled dataset."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, StopCallback, ignore_progress, never_stop
from napari_medgs.classification.classifier import Classifier
from napari_medgs.classification.data.datasets import LabeledDataset
from napari_medgs.errors import FileError, ImageError, LabelError


@dataclass(frozen=True)
class Evaluation:
    """Scores of a classifier on one split.

    Attributes
    ----------
    metrics : dict
        auc, acc, their 95 % bootstrap intervals auc_ci and acc_ci, images, seconds.
    probabilities : (N, K) ndarray
    """

    metrics: dict[str, Any]
    probabilities: NDArray[np.float64]


def evaluate_classifier(
    classifier: Classifier,
    data: LabeledDataset,
    split: str = "test",
    *,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> Evaluation:
    """Score a classifier as MedMNIST's evaluator does.

    Parameters
    ----------
    classifier : Classifier
    data : LabeledDataset
    split : str
    progress, should_stop : callable, optional
        As :func:`~napari_medgs.classification.train`.

    Returns
    -------
    Evaluation

    Raises
    ------
    FileError
        When the split is missing.
    LabelError
        When the classes differ from the classifier's, or one of them has no image.
    ImageError
        When the images have other channels or dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.classification import LabeledDataset, bundled_models, load_classifier
    >>> classifier = load_classifier(bundled_models()["breastmnist"])
    >>> images = np.random.default_rng(0).integers(0, 255, (4, 1, 28, 28), np.uint8)
    >>> labels = np.arange(4)[:, None] % 2
    >>> card = classifier.card
    >>> data = LabeledDataset("x", {"test": images}, {"test": labels}, card.task, card.class_names)
    >>> evaluate_classifier(classifier, data).metrics["images"]
    4
    """
    from napari_medgs.classification.data.preprocess import resize_image
    from napari_medgs.classification.inference import probabilities_of
    from napari_medgs.classification.inputs import network_inputs
    from napari_medgs.classification.training.scores import accuracy, auc, bootstrap

    card = classifier.card
    if split not in data.images:
        raise FileError(f"{data.name}: there is no '{split}' split.")
    if data.class_names != card.class_names or data.multi_label != card.multi_label:
        raise LabelError(
            f"{data.name} has the classes {', '.join(data.class_names)}, the classifier "
            f"{', '.join(card.class_names)}."
        )
    images = data.scaled_images(split)
    if images.shape[1] != card.channels or images.ndim - 2 != card.ndim:
        raise ImageError(
            f"{data.name} has {images.ndim - 2}D images of {images.shape[1]} channel(s), the "
            f"classifier reads {card.ndim}D images of {card.channels}."
        )
    started = time.perf_counter()
    if images.shape[2:] != card.shape:
        flat = images if card.ndim == 3 else images[:, :, None]
        kind = "shape" if card.is_shape else "uint8"
        images = np.stack([resize_image(i, card.shape, kind) for i in flat])
    inputs = network_inputs(images, card, progress=progress, should_stop=should_stop)
    probabilities = probabilities_of(classifier.network, inputs, card)
    truth = data.labels[split]
    intervals = bootstrap(truth, probabilities, data.task)
    metrics = {
        "auc": auc(truth, probabilities, data.task),
        "acc": accuracy(truth, probabilities, data.task),
        "auc_ci": list(intervals["auc"]),
        "acc_ci": list(intervals["acc"]),
        "images": len(images),
        "seconds": time.perf_counter() - started,
    }
    return Evaluation(metrics, probabilities)
