"""AUC and accuracy by MedMNIST's definitions, with bootstrap intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import LabelError

Array = NDArray[Any]


def auc(labels: Array, probabilities: Array, task: str) -> float:
    """Return the area under the ROC curve as MedMNIST's evaluator computes it.

    Binary tasks: of the second class. Multi-class and ordinal: the mean of one-against-rest over
    all classes. Multi-label: the mean over labels. Computed by torchmetrics.

    Parameters
    ----------
    labels : (N, L) ndarray of int
    probabilities : (N, K) ndarray
    task : str

    Raises
    ------
    LabelError
        When a class has no example, or nothing else has: no curve exists.
    """
    import torch
    from torchmetrics.functional.classification import binary_auroc

    total = []
    for positive, score in _columns(labels, probabilities, task):
        if positive.all() or not positive.any():
            raise LabelError("The AUC needs examples with and without each class; one lacks them.")
        # In float64: float32 makes ties of the scores of confident networks.
        guess = torch.from_numpy(np.ascontiguousarray(score, np.float64))
        total.append(float(binary_auroc(guess, torch.from_numpy(positive.astype(np.int64)))))
    return float(np.mean(total))


def accuracy(labels: Array, probabilities: Array, task: str) -> float:
    """Return the accuracy as MedMNIST's evaluator computes it.

    Multi-label: the share of right yes or no answers at 0.5. Otherwise the share of images whose
    most probable class is right (binary: at 0.5 of the second class). Computed by torchmetrics.
    """
    import torch
    from torchmetrics.functional.classification import binary_accuracy, multiclass_accuracy

    if task.startswith("multi-label"):
        parts = [
            float(binary_accuracy(torch.tensor(p > 0.5, dtype=torch.int64), torch.tensor(t)))
            for p, t in zip(probabilities.T, labels.T, strict=True)
        ]
        return float(np.mean(parts))
    if task == "binary-class":
        guess = (probabilities[:, -1] > 0.5).astype(np.int64)
    else:
        guess = probabilities.argmax(1)
    return float(
        multiclass_accuracy(
            torch.from_numpy(guess), torch.from_numpy(labels[:, 0]),
            num_classes=max(2, probabilities.shape[1]), average="micro",
        )
    )  # fmt: skip


def _columns(labels: Array, probabilities: Array, task: str) -> list[tuple[Array, Array]]:
    """Return pairs of (N,) truth and score, one a curve."""
    if task.startswith("multi-label"):
        return [(labels[:, k] > 0, probabilities[:, k]) for k in range(labels.shape[1])]
    if task == "binary-class":
        return [(labels[:, 0] == 1, probabilities[:, -1])]
    return [(labels[:, 0] == k, probabilities[:, k]) for k in range(probabilities.shape[1])]


def resampled_aucs(labels: Array, probabilities: Array, task: str, counts: Array) -> Array:
    """Return (R,) AUCs of resamples given by how often each image is in them, (R, N).

    A curve that lacks examples in a resample is left out of its mean.
    """
    curves = []
    for positive, score in _columns(labels, probabilities, task):
        order = np.argsort(score, kind="stable")
        ranked, truth = score[order], positive[order]
        weight = counts[:, order].astype(np.float64)
        starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        ups = np.add.reduceat(weight * truth, starts, axis=1)
        downs = np.add.reduceat(weight * ~truth, starts, axis=1)
        below = np.cumsum(downs, 1) - downs
        pairs = ups.sum(1) * downs.sum(1)
        won = (ups * (below + 0.5 * downs)).sum(1)
        curves.append(np.where(pairs > 0, won / np.maximum(pairs, 1e-12), np.nan))
    stacked = np.stack(curves)
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)


def draws(count: int, resamples: int = 1000, seed: int = 0) -> Array:
    """Return (R, N) how often each of N images is drawn into each resample."""
    chance = np.full(count, 1 / count)
    return np.random.default_rng(seed).multinomial(count, chance, size=resamples)


def bootstrap(
    labels: Array, probabilities: Array, task: str, *, resamples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return 95 % percentile intervals of "auc" and "acc" over resampled images."""
    counts = draws(len(labels), resamples, seed)
    if task.startswith("multi-label"):
        right = ((probabilities > 0.5) == (labels > 0)).mean(1)
    elif task == "binary-class":
        right = (probabilities[:, -1] > 0.5) == (labels[:, 0] == 1)
    else:
        right = probabilities.argmax(1) == labels[:, 0]
    areas = resampled_aucs(labels, probabilities, task, counts)
    shares = counts @ right.astype(np.float64) / len(labels)
    return {"auc": _interval(areas), "acc": _interval(shares)}


def paired_difference(
    labels: Array, ours: Array, theirs: Array, task: str, *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the AUC difference of two models on the same images and its 95 % interval."""
    counts = draws(len(labels), resamples, seed)
    difference = resampled_aucs(labels, ours, task, counts) - resampled_aucs(
        labels, theirs, task, counts
    )
    low, high = _interval(difference)
    return auc(labels, ours, task) - auc(labels, theirs, task), low, high


def _interval(values: Array) -> tuple[float, float]:
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)
