"""What each class looks like: densities of its strokes' intensities, and a small forest.

Both answers are probabilities that get trusted only as far as the strokes allow: densities of few
samples are wide and keep a floor, the forest's vote is pulled to "don't know" by n / (n + 40).
How much looks count beside other opinions is found elsewhere (:mod:`opinions`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks

BINS = 128
WIDTH = 0.03  # of the intensity range, for 60 samples
FLOOR = 0.05
SHRINK = 40.0
TREES = 20
LEAF = 2
MOST_SAMPLES = 3000  # per class
CHUNK = 16384

_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz"}}


@njit(**_options)
def _vote(
    features: Any, roots: Any, split: Any, threshold: Any, left: Any, right: Any, share: Any,
    first: int, last: int, out: Any,
) -> None:  # fmt: skip
    """Add every tree's leaf shares for samples first .. last-1."""
    for i in range(first, last):
        row = features[i]
        result = out[i]
        for t in range(len(roots)):
            node = roots[t]
            while split[node] >= 0:
                node = left[node] if row[split[node]] <= threshold[node] else right[node]
            for k in range(share.shape[1]):
                result[k] += share[node, k]


@njit(**_options)
def _add_log_density(
    features: Any, column: int, table: Any, low: Any, scale: Any, first: int, last: int, out: Any
) -> None:
    bins = table.shape[1]
    for i in range(first, last):
        position = (features[i, column] - low) * scale
        position = min(max(position, np.float32(0)), np.float32(bins - 1.001))
        b = int(position)
        f = position - b
        for k in range(len(table)):
            out[i, k] += (np.float32(1) - f) * table[k, b] + f * table[k, b + 1]


@dataclass(frozen=True)
class _Forest:
    roots: NDArray[np.int32]
    split: NDArray[np.int32]
    threshold: Floats
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    share: Floats


@dataclass
class Appearance:
    """Class probabilities from features, learned from strokes.

    Attributes
    ----------
    classes : int
    present : tuple of int
        Classes with samples; the others are never preferred nor excluded.
    confidence : float
        Power to which probabilities are raised: 1 takes them as they are, 0 says nothing.
    discount : float
        Share of the image's slopes that a class need not pay where everything looks like it.
    """

    classes: int
    present: tuple[int, ...] = ()
    confidence: float = 1.0
    discount: float = 0.0
    _tables: list[tuple[int, Floats, float, float]] = field(default_factory=list)
    _forest: _Forest | None = None
    _trust: float = 0.0

    def log_probability(self, features: Floats) -> Floats:
        """Return (N, classes) log-probabilities for features (N, F)."""
        count, total = len(features), self.classes
        log_density = np.zeros((count, total), np.float32)
        votes = np.zeros((count, total), np.float32)
        forest = self._forest
        present = list(self.present)
        trust = np.float32(self._trust)
        power = np.float32(self.confidence)

        def task(block: int) -> None:
            first, last = block * CHUNK, min(count, (block + 1) * CHUNK)
            for column, table, low, scale in self._tables:
                _add_log_density(
                    features, column, table, np.float32(low), np.float32(scale),
                    first, last, log_density,
                )  # fmt: skip
            part = log_density[first:last]
            part -= part.max(axis=1, keepdims=True)
            part -= np.log(np.exp(part).sum(axis=1, keepdims=True))
            if forest is not None:
                join(part, first, last)
            if power != 1:
                part *= power
                part -= np.log(np.exp(part).sum(axis=1, keepdims=True))

        def join(part: Floats, first: int, last: int) -> None:
            assert forest is not None
            vote = votes[first:last]
            _vote(
                features, forest.roots, forest.split, forest.threshold, forest.left,
                forest.right, forest.share, first, last, votes,
            )  # fmt: skip
            vote *= trust / len(forest.roots)
            vote[:, present] += (1 - trust) / len(present)
            # The geometric mean of both opinions.
            part += np.log(np.maximum(vote, 1e-6))
            part *= 0.5
            part -= part.max(axis=1, keepdims=True)
            part -= np.log(np.exp(part).sum(axis=1, keepdims=True))

        run_chunks(task, -(-count // CHUNK))
        return log_density


def _densities(
    values: Floats, classes: NDArray[Any], count: int, low: float, high: float, temper: float
) -> tuple[Floats, float, float]:
    """Return smoothed, tempered log-densities (count, BINS) of one feature."""
    from scipy.ndimage import gaussian_filter1d

    scale = (BINS - 1) / max(high - low, 1e-12)
    bins = np.clip(np.round((values - low) * scale), 0, BINS - 1).astype(int)
    table = np.empty((count, BINS), np.float32)
    for k in range(count):
        mine = bins[classes == k]
        if not len(mine):
            table[k] = 1.0 / BINS
            continue
        histogram = np.bincount(mine, minlength=BINS) / len(mine)
        width = max(WIDTH * BINS * max(1.0, 60.0 / len(mine)) ** 0.2, 1.0)
        histogram = gaussian_filter1d(histogram, width, mode="constant")
        table[k] = histogram * (1 - FLOOR) + FLOOR / BINS
    return (temper * np.log(table)).astype(np.float32), float(low), float(scale)


def learn_appearance(
    features: Floats,
    classes: NDArray[Any],
    count: int,
    density_columns: tuple[int, ...],
    limits: Floats,
    seed: int = 0,
    most: int = MOST_SAMPLES,
    trees: int = TREES,
) -> Appearance:
    """Learn from samples.

    Parameters
    ----------
    features : (P, F) ndarray of float32
    classes : (P,) ndarray of int
    count : int
        Number of classes, with or without samples.
    density_columns : tuple of int
        Features whose densities are compared (one a contrast).
    limits : (F, 2) ndarray
        Range of every feature over the whole image.
    seed : int
    most : int
        Samples that are used of every class.
    trees : int
    """
    classes = np.asarray(classes)
    present = tuple(int(k) for k in np.unique(classes))
    model = Appearance(count, present)
    if len(present) < 2:
        return model
    rng = np.random.default_rng(seed)
    picked = []
    for k in present:
        mine = np.flatnonzero(classes == k)
        if len(mine) > most:
            mine = rng.choice(mine, most, replace=False)
        picked.append(mine)
    chosen = np.concatenate(picked)
    features, classes = np.ascontiguousarray(features[chosen]), classes[chosen]
    temper = 1.0 / np.sqrt(len(density_columns))
    for column in density_columns:
        low, high = limits[column]
        table, low, scale = _densities(
            features[:, column], classes, count, float(low), float(high), temper
        )
        model._tables.append((column, table, low, scale))
    smallest = min(int((classes == k).sum()) for k in present)
    model._trust = smallest / (smallest + SHRINK)
    model._forest = _grow(features, classes, count, seed, trees)
    return model


def _grow(features: Floats, classes: NDArray[Any], count: int, seed: int, number: int) -> _Forest:
    """Grow extremely randomised trees and flatten them into one table."""
    from sklearn.ensemble import ExtraTreesClassifier

    trees = ExtraTreesClassifier(
        number, min_samples_leaf=LEAF, class_weight="balanced", random_state=seed, n_jobs=1
    )
    trees.fit(features, classes)
    columns = trees.classes_.astype(int)
    roots, split, threshold, left, right, share = [], [], [], [], [], []
    start = 0
    for estimator in trees.estimators_:
        tree = estimator.tree_
        roots.append(start)
        leaf = tree.children_left < 0
        split.append(np.where(leaf, -1, tree.feature))
        threshold.append(tree.threshold)
        left.append(tree.children_left + start)
        right.append(tree.children_right + start)
        counts = tree.value[:, 0, :]
        whole = np.zeros((len(counts), count), np.float32)
        whole[:, columns] = counts / counts.sum(axis=1, keepdims=True)
        share.append(whole)
        start += tree.node_count
    return _Forest(
        np.asarray(roots, np.int32),
        np.concatenate(split).astype(np.int32),
        np.concatenate(threshold).astype(np.float32),
        np.concatenate(left).astype(np.int32),
        np.concatenate(right).astype(np.int32),
        np.concatenate(share),
    )
