"""AUC and accuracy by MedMNIST's definitions, with bootstrap intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import LabelError

Array = NDArray[Any]


def auc(labels: Array, probabilities: Array, task: str) -> float:
    """Return the area under the ROC curve as MedMNIST's evaluator computes it.

    Binary tasks: of the second class. Multi-class and ordinal: the mean of one-versus-rest over
    all classes. Multi-label: the mean over labels.

    Parameters
    ----------
    labels : (N, L) ndarray of int
        L is 1 except for multi-label tasks.
    probabilities : (N, K) ndarray
    task : str
        As :class:`~napari_medgs.classification.Task`.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    LabelError
        When a class has no positive or no negative example: its curve is undefined.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.array([[0], [0], [1], [1]])
    >>> scores = np.array([0.1, 0.4, 0.35, 0.8])
    >>> auc(labels, np.stack([1 - scores, scores], 1), "binary-class")
    0.75
    """
    from sklearn.metrics import roc_auc_score

    areas = []
    for positive, score in _columns(labels, probabilities, task):
        if positive.all() or not positive.any():
            raise LabelError("The AUC needs examples with and without each class; one lacks them.")
        # In float64: float32 makes ties of the scores of confident networks.
        areas.append(float(roc_auc_score(positive, np.asarray(score, np.float64))))
    return float(np.mean(areas))


def accuracy(labels: Array, probabilities: Array, task: str) -> float:
    """Return the accuracy as MedMNIST's evaluator computes it.

    Multi-label: the fraction of right answers at a threshold of 0.5. Otherwise the fraction of
    images whose most probable class is right (binary: second class above 0.5).

    Parameters
    ----------
    labels : (N, L) ndarray of int
    probabilities : (N, K) ndarray
    task : str
        As :class:`~napari_medgs.classification.Task`.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> accuracy(np.array([[0], [2]]), np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]]), "multi-class")
    0.5
    """
    return float(_correct(labels, probabilities, task).mean())


def _correct(labels: Array, probabilities: Array, task: str) -> NDArray[np.float64]:
    """Return (N,) fraction of right answers per image."""
    if task.startswith("multi-label"):
        return np.asarray(((probabilities > 0.5) == (labels > 0)).mean(1), np.float64)
    if task == "binary-class":
        predicted = (probabilities[:, -1] > 0.5).astype(np.int64)
    else:
        predicted = probabilities.argmax(1)
    return np.asarray(predicted == labels[:, 0], np.float64)


def _columns(labels: Array, probabilities: Array, task: str) -> list[tuple[Array, Array]]:
    """Return pairs of (N,) truth and score, one per ROC curve."""
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


def resample_counts(count: int, resamples: int = 1000, seed: int = 0) -> Array:
    """Return (R, N) how often each of N images is drawn into each bootstrap resample."""
    chance = np.full(count, 1 / count)
    return np.random.default_rng(seed).multinomial(count, chance, size=resamples)


def bootstrap(
    labels: Array, probabilities: Array, task: str, *, resamples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return 95 % percentile bootstrap intervals of "auc" and "acc" over resampled images.

    Not by :func:`scipy.stats.bootstrap`, whose interval is NaN as soon as one resample has only
    one class, as happens with small test sets; such resamples are left out here. All resamples
    share one sorting of the scores, which makes 1,000 AUCs as fast as a few.

    Parameters
    ----------
    labels : (N, L) ndarray of int
    probabilities : (N, K) ndarray
    task : str
    resamples, seed : int

    Returns
    -------
    dict of str to (float, float)

    References
    ----------
    .. [1] Efron and Tibshirani, "An introduction to the bootstrap", 1993.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.arange(40)[:, None] % 2
    >>> perfect = np.stack([1 - labels[:, 0], labels[:, 0]], 1)
    >>> bootstrap(labels, perfect, "binary-class")["auc"]
    (1.0, 1.0)
    """
    counts = resample_counts(len(labels), resamples, seed)
    correct = _correct(labels, probabilities, task)
    areas = resampled_aucs(labels, probabilities, task, counts)
    return {"auc": _interval(areas), "acc": _interval(counts @ correct / len(labels))}


def paired_difference(
    labels: Array, first: Array, second: Array, task: str, *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the AUC difference of two models on the same images and its 95 % interval.

    Parameters
    ----------
    labels : (N, L) ndarray of int
    first, second : (N, K) ndarray
        Probabilities of both models.
    task : str
    resamples, seed : int

    Returns
    -------
    difference, low, high : float

    Raises
    ------
    LabelError
        As :func:`auc`.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.arange(40)[:, None] % 2
    >>> perfect = np.stack([1 - labels[:, 0], labels[:, 0]], 1)
    >>> paired_difference(labels, perfect, 1 - perfect, "binary-class")
    (1.0, 1.0, 1.0)
    """
    counts = resample_counts(len(labels), resamples, seed)
    difference = resampled_aucs(labels, first, task, counts) - resampled_aucs(
        labels, second, task, counts
    )
    low, high = _interval(difference)
    return auc(labels, first, task) - auc(labels, second, task), low, high


def _interval(values: Array) -> tuple[float, float]:
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)
