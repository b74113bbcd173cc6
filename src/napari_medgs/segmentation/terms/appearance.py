"""Appearance of each class: densities of intensities, and a small random forest.

Where a contrast has no value, a model that was learned from the others alone decides. Both
estimates are shrunk when samples are few: densities of few samples are wide and keep a floor,
the forest's vote is mixed with the uniform distribution, with weight n / (n + 40). The temperature
of the model is found by cross-validation (:mod:`~napari_medgs.segmentation.terms.calibration`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.segmentation.term_params import AppearanceParams
from napari_medgs.segmentation.terms.densities import add_log_density, log_densities
from napari_medgs.segmentation.terms.forest import Forest, add_leaf_fractions, train_forest
from napari_medgs.segmentation.terms.joint_densities import (
    JointDensities,
    learn_joint_densities,
)

CHUNK = 16384
FEWEST, SHARE = 20, 0.5  # samples of a class that a model needs, or that part of its own


@dataclass
class Appearance:
    """Class probabilities from features, learned from markers.

    Attributes
    ----------
    classes : int
    present : tuple of int
        Classes with samples; the others are neither preferred nor excluded.
    inverse_temperature : float
        Power to which probabilities are raised: 1 leaves them as they are, 0 makes them uniform.
    gradient_discount : float
        Part of the image gradient's cost that a class is spared where it is certain.
    joint : float
        Share of the densities over all contrasts beside those of single contrasts.
    """

    classes: int
    present: tuple[int, ...] = ()
    inverse_temperature: float = 1.0
    gradient_discount: float = 0.0
    joint: float = 0.0
    _tables: list[tuple[int, Floats, float, float]] = field(default_factory=list)
    _joint_densities: JointDensities | None = None
    _forest: Forest | None = None
    _forest_weight: float = 0.0
    _density_columns: tuple[int, ...] = ()
    _learn_part: Callable[[tuple[int, ...]], _Part] | None = None
    _parts: dict[tuple[int, ...], _Part] = field(default_factory=dict)

    def log_probability(self, features: Floats) -> Floats:
        """Return log-probabilities of the classes.

        Parameters
        ----------
        features : (N, F) ndarray of float32
            NaN for contrasts without a value.

        Returns
        -------
        (N, K) ndarray of float32
        """
        known = ~np.isnan(features[:, list(self._density_columns)])
        if known.all() and (self._tables or self._learn_part is None):
            return self._log_probability(features, self.inverse_temperature)
        out = np.empty((len(features), self.classes), np.float32)
        kinds, kind = np.unique(known, axis=0, return_inverse=True)
        for number, there in enumerate(kinds):
            rows = np.flatnonzero(kind.reshape(-1) == number)
            part = self._part(tuple(np.flatnonzero(there).tolist()))
            mine = np.ascontiguousarray(features[rows][:, part.columns])
            out[rows] = part.model._log_probability(mine, self.inverse_temperature)
        return out

    def _part(self, contrasts: tuple[int, ...]) -> _Part:
        """Return the model of samples that have these contrasts."""
        if contrasts not in self._parts:
            assert self._learn_part is not None
            self._parts[contrasts] = self._learn_part(contrasts)
        return self._parts[contrasts]

    def _log_probability(self, features: Floats, inverse_temperature: float) -> Floats:
        count, total = len(features), self.classes
        log_density = np.zeros((count, total), np.float32)
        votes = np.zeros((count, total), np.float32)
        forest = self._forest
        present = list(self.present)
        forest_weight = np.float32(self._forest_weight)
        power = np.float32(inverse_temperature)

        def task(block: int) -> None:
            first, last = block * CHUNK, min(count, (block + 1) * CHUNK)
            for column, table, low, scale in self._tables:
                add_log_density(
                    features, column, table, np.float32(low), np.float32(scale),
                    first, last, log_density,
                )  # fmt: skip
            part = log_density[first:last]
            if self._joint_densities is not None and self.joint:
                part *= np.float32(1 - self.joint)
                self._joint_densities.add_log_density(features[first:last], self.joint, part)
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
            add_leaf_fractions(features, forest, first, last, votes)
            vote *= forest_weight / len(forest.roots)
            vote[:, present] += (1 - forest_weight) / len(present)
            # The geometric mean of both estimates.
            part += np.log(np.maximum(vote, 1e-6))
            part *= 0.5
            part -= part.max(axis=1, keepdims=True)
            part -= np.log(np.exp(part).sum(axis=1, keepdims=True))

        run_chunks(task, -(-count // CHUNK))
        return log_density


@dataclass(frozen=True)
class _Part:
    """A model of some contrasts.

    Attributes
    ----------
    model : Appearance
    columns : (F,) ndarray of int64
        The features that it knows.
    """

    model: Appearance
    columns: NDArray[np.int64]


def learn_appearance(
    features: Floats,
    classes: NDArray[Any],
    count: int,
    density_columns: tuple[int, ...],
    value_ranges: Floats,
    seed: int = 0,
    params: AppearanceParams | None = None,
    weights: Floats | None = None,
    draws: Floats | None = None,
    joint: float = 0.0,
) -> Appearance:
    """Learn the appearance of classes from samples.

    Parameters
    ----------
    features : (P, F) ndarray of float32
        NaN for contrasts without a value.
    classes : (P,) ndarray of int
    count : int
        Number of classes, with or without samples.
    density_columns : tuple of int
        Features whose densities are estimated (one per image channel).
    value_ranges : (F, 2) ndarray
        Range of every feature over the whole image.
    seed : int
        Of the choice of samples and of the forest.
    params : AppearanceParams, optional
    weights : (C, K) ndarray of float32, optional
        Of the densities, by channel and class; 1 by default.
    draws : (C,) ndarray of float32, optional
        How often the forest draws the features of every channel, in multiples of 1 / 4; all
        alike by default.
    joint : float, optional
        Share of the densities over all contrasts; none by default.

    Returns
    -------
    Appearance
    """
    classes = np.asarray(classes)
    how = count, seed, params or AppearanceParams(), weights, draws, joint
    samples = _Samples(features, classes, density_columns, value_ranges)
    every = tuple(range(len(density_columns)))
    if samples.lacking.any():
        model = Appearance(count, tuple(int(k) for k in np.unique(classes)))
    else:
        model = _learn(samples, *how)
        model._parts[every] = _Part(model, np.arange(features.shape[1]))
    model._density_columns = density_columns
    model._learn_part = partial(_learn_part, samples, *how)
    return model


@dataclass(frozen=True)
class _Samples:
    """Features of samples with their classes; see :func:`learn_appearance`."""

    features: Floats
    classes: NDArray[Any]
    density_columns: tuple[int, ...]
    value_ranges: Floats

    @property
    def lacking(self) -> NDArray[np.bool_]:
        """Which contrasts samples lack, (P, C)."""
        return np.isnan(self.features[:, list(self.density_columns)])

    def columns(self, contrasts: list[int]) -> NDArray[np.int64]:
        """Return the columns of the features of contrasts."""
        per = self.features.shape[1] // len(self.density_columns)
        return np.concatenate([np.arange(c * per, (c + 1) * per) for c in contrasts])

    def of(self, contrasts: list[int]) -> _Samples:
        """Return the samples that have all of these contrasts, with their features alone."""
        rows = ~self.lacking[:, contrasts].any(axis=1)
        columns = self.columns(contrasts)
        return _Samples(
            self.features[rows][:, columns],
            self.classes[rows],
            self.density_columns[: len(contrasts)],
            self.value_ranges[: len(columns)],
        )


def enough_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how many samples of every class a model of some contrasts needs."""
    return np.minimum(SHARE * counts, FEWEST)


def _learn_part(
    samples: _Samples,
    count: int,
    seed: int,
    params: AppearanceParams,
    weights: Floats | None,
    draws: Floats | None,
    joint: float,
    contrasts: tuple[int, ...],
) -> _Part:
    """Learn from some contrasts: without those for which a class has hardly any samples."""
    kept = list(contrasts)
    needed = enough_of(np.bincount(samples.classes, minlength=count))
    lacking = samples.lacking
    while kept:
        rows = ~lacking[:, kept].any(axis=1)
        if (np.bincount(samples.classes[rows], minlength=count) >= needed).all():
            break
        kept.remove(max(kept, key=lambda c: int(lacking[:, c].sum())))
    if not kept:  # nothing is known
        return _Part(Appearance(count), np.zeros(0, np.int64))
    if weights is not None:
        mean = weights[kept].mean(axis=0)
        weights = np.where(mean > 0, weights[kept] / np.where(mean > 0, mean, 1), 1)
        weights = weights.astype(np.float32)
    if draws is not None:
        most = draws[kept].max()
        draws = draws[kept] / most if most > 0 else None
    model = _learn(samples.of(kept), count, seed, params, weights, draws, joint)
    return _Part(model, samples.columns(kept))


def _learn(
    samples: _Samples,
    count: int,
    seed: int,
    params: AppearanceParams,
    weights: Floats | None,
    draws: Floats | None,
    joint: float,
) -> Appearance:
    """Learn from samples that lack nothing."""
    features, classes = samples.features, samples.classes
    density_columns, value_ranges = samples.density_columns, samples.value_ranges
    present = tuple(int(k) for k in np.unique(classes))
    model = Appearance(count, present)
    if len(present) < 2:
        return model
    rng = np.random.default_rng(seed)
    picked = []
    for k in present:
        mine = np.flatnonzero(classes == k)
        if len(mine) > params.max_samples:
            mine = rng.choice(mine, params.max_samples, replace=False)
        picked.append(mine)
    chosen = np.concatenate(picked)
    features, classes = np.ascontiguousarray(features[chosen]), classes[chosen]
    power = 1.0 / np.sqrt(len(density_columns))
    for channel, column in enumerate(density_columns):
        low, high = value_ranges[column]
        table, low, scale = log_densities(
            features[:, column], classes, count, float(low), float(high), power, params
        )
        if weights is not None:
            # Over the classes' mean density: nothing speaks for a class where all are as dense.
            mean = np.exp(table[list(present)] / power).mean(axis=0)
            table = (weights[channel][:, None] * (table - power * np.log(mean))).astype(np.float32)
        model._tables.append((column, table, low, scale))
    if joint and len(density_columns) > 1:
        model.joint = joint
        model._joint_densities = learn_joint_densities(
            features, classes, np.asarray(density_columns), seed
        )
    smallest = min(int((classes == k).sum()) for k in present)
    model._forest_weight = smallest / (smallest + params.shrinkage)
    columns = None
    if draws is not None:
        often = np.repeat(np.round(4 * draws).astype(np.int64), features.shape[1] // len(draws))
        columns = np.repeat(np.arange(features.shape[1]), often)
        features = np.ascontiguousarray(features[:, columns])
    model._forest = train_forest(features, classes, count, seed, params, columns)
    return model
