"""How much every contrast counts for every class: Shapley values on the user's own markers.

An appearance model that knows some of the contrasts predicts markers that it has not seen; its
value for a class is the Dice of these predictions. What a contrast adds to it, averaged over all
orders in which contrasts can be added, is its Shapley value. No truth and no other model is
needed, and the values are exact: all subsets of the contrasts are tried. The same markers tell
how much densities over all contrasts count beside those of single ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.metrics.contrasts import contrast_subsets, shapley_of
from napari_medgs.segmentation.advanced import SolverParams
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.terms.appearance import Appearance, enough_of, learn_appearance
from napari_medgs.segmentation.terms.image_features import ImageFeatures

MOST_CONTRASTS = 5  # 31 subsets; more take seconds per update
JOINT_SHARES = 0.0, 0.5, 1.0  # of the densities over all contrasts
STEPS = 4  # levels of a contrast's weight in gradients: hierarchies are kept while these stay


@dataclass(frozen=True)
class ContrastWeights:
    """Weights of the contrasts.

    Attributes
    ----------
    by_class : (C, K) ndarray of float32
        For the densities of every class; their mean over the contrasts is 1.
    edges : (C,) ndarray of float32
        For gradients and for the choice of features in the forest: multiples of 1 / 4, the
        largest is 1.
    joint : float
        Share of the densities over all contrasts beside those of single contrasts.
    """

    by_class: Floats
    edges: Floats
    joint: float = 0.0


def learn_contrast_weights(
    markers: Markers, image: ImageFeatures, seed: int, params: SolverParams | None = None
) -> ContrastWeights | None:
    """Learn from markers how much every contrast counts.

    Parameters
    ----------
    markers : Markers
    image : ImageFeatures
    seed : int
        Of all random choices.
    params : SolverParams, optional

    Returns
    -------
    ContrastWeights or None
        None for one contrast, for more than five, for an initial mask (corrections lie where it
        is wrong), for too few markers (with values of all contrasts), and where no contrast tells
        classes apart.
    """
    params = params or SolverParams()
    channels = len(image.guide)
    if not 2 <= channels <= MOST_CONTRASTS or markers.kept is not None:
        return None
    fold = _folds(markers, params.calibration.folds)
    if fold is None:
        return None
    own = params.calibration
    features = image.at(markers.voxels)
    complete: NDArray[np.bool_] = np.logical_and.reduce(~np.isnan(features), axis=1)
    predicted = _predicted(markers, fold >= 0, complete)
    if not (predicted[0] and predicted[1:].any()):
        return None
    complete &= predicted[markers.classes]
    tested = np.flatnonzero(complete & (fold >= 0))
    rng = np.random.default_rng([seed, 4])
    tested = tested[_at_most(markers.classes[tested], own.max_samples, rng)]
    forest = replace(params.appearance, max_samples=own.max_samples, trees=own.trees)
    per = image.count // channels
    known = {}
    # Classes count alike, however long their strokes are.
    balanced = 1 / np.bincount(markers.classes[tested], minlength=markers.count).clip(1)
    likelihood = np.zeros(len(JOINT_SHARES))
    for subset in contrast_subsets(channels):
        columns = [c * per + f for c in subset for f in range(per)]
        part = np.ascontiguousarray(features[:, columns])
        # Without any contrast all classes are as likely.
        probability = np.full((len(tested), markers.count), 1 / markers.count, np.float32)
        for f in np.unique(fold[tested]) if subset else ():
            train = np.flatnonzero(complete & (fold != f))
            held_out = fold[tested] == f
            model = learn_appearance(
                part[train],
                markers.classes[train],
                markers.count,
                image.density_columns[: len(subset)],
                image.value_ranges[: len(columns)],
                seed,
                forest,
                joint=float(len(subset) == channels),
            )
            if len(subset) == channels:
                truth, test = markers.classes[tested[held_out]], part[tested[held_out]]
                likelihood += _likelihoods(
                    model, test, truth, balanced[truth], own.outlier_probability
                )
                model = replace(model, joint=0.0)
            probability[held_out] = np.exp(model.log_probability(part[tested[held_out]]))
        known[subset] = _balanced_dice(probability, markers.classes[tested])
    values = np.maximum(shapley_of(known, channels), 0)
    values[:, ~predicted[1:]] = 0
    weights = _weights_from(values)
    if weights is None:
        return None
    return replace(weights, joint=JOINT_SHARES[int(likelihood.argmax())])


def _likelihoods(
    model: Appearance, features: Floats, truth: NDArray[Any], weight: Floats, outliers: float
) -> NDArray[np.float64]:
    """Return the log-likelihood of samples for every share of the joint densities."""
    out = np.empty(len(JOINT_SHARES))
    for j, share in enumerate(JOINT_SHARES):
        logs = replace(model, joint=share).log_probability(features)
        right = np.exp(logs[np.arange(len(truth)), truth])
        out[j] = weight @ np.log((1 - outliers) * right + outliers / model.classes)
    return out


def _weights_from(values: NDArray[np.float64]) -> ContrastWeights | None:
    """Return weights in proportion to Shapley values (C, K - 1)."""
    told = values.max(axis=0) > 0
    if not told.any():
        return None
    weights = np.ones_like(values)
    weights[:, told] = values[:, told] / values[:, told].max(axis=0)
    # Classes that no contrast predicts follow the others.
    weights[:, ~told] = weights[:, told].mean(axis=1, keepdims=True)
    edges = weights.mean(axis=1)
    edges = np.round(edges / edges.max() * STEPS) / STEPS
    by_class = weights / weights.mean(axis=0)
    every = np.column_stack([by_class.mean(axis=1), by_class])
    return ContrastWeights(every.astype(np.float32), edges.astype(np.float32))


def _folds(markers: Markers, most: int) -> NDArray[np.int64] | None:
    """Return the fold of every marker: whole slices, or parts of the strokes of one slice.

    None where a class has fewer markers than folds.
    """
    groups, classes = markers.slice_groups(), markers.classes
    slices = np.unique(groups[groups >= 0])
    if len(slices) > 1:
        return np.where(groups >= 0, np.searchsorted(slices, groups) % most, -1)
    if np.bincount(classes, minlength=markers.count).min(initial=most) < most:
        return None
    return markers.stroke_parts(most)


def _predicted(
    markers: Markers, tested: NDArray[np.bool_], complete: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Tell which classes have enough tested markers that lack no contrast, or all of theirs."""
    own, every = (
        np.bincount(markers.classes[these], minlength=markers.count)
        for these in (tested & complete, tested)
    )
    enough: NDArray[np.bool_] = own >= enough_of(every)
    return enough


def _at_most(classes: NDArray[Any], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return indices of so many samples of every class."""
    picked = []
    for k in np.unique(classes):
        mine = np.flatnonzero(classes == k)
        picked.append(rng.choice(mine, count, replace=False) if len(mine) > count else mine)
    return np.sort(np.concatenate(picked))


def _balanced_dice(probability: Floats, classes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the Dice of every class but the background, all classes being as large."""
    count = probability.shape[1]
    number = np.bincount(classes, minlength=count)
    weight = 1 / np.maximum(number, 1)[classes]
    out = np.empty(count - 1)
    for k in range(1, count):
        found = weight * probability[:, k]
        mine = classes == k
        out[k - 1] = 2 * found[mine].sum() / (found.sum() + (number[k] > 0))
    return out
