"""Weights of the data terms by cross-validation over annotated slices (leave-one-slice-out).

The skill of the stochastic watershed on held-out slices sets its weight. The temperature of the
appearance model is the one of highest likelihood on held-out slices, alone or together with the
watershed, whichever leaves less of it: appearance that misleads (two tissues in one class, say)
counts less where the watershed is right. The appearance model also tells edges within a class from
its boundary, more so after cross-validation.

Strokes on one slice leave no slice to hold out. There parts of every class's strokes are, which
can tell that a term is wrong, but not that it holds in other slices: weights only fall by them,
that of the watershed's votes for each class alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.arrays import sorted_unique
from napari_medgs.segmentation.advanced import SolverParams
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.term_params import CalibrationParams, WatershedParams
from napari_medgs.segmentation.terms.appearance import Appearance, learn_appearance
from napari_medgs.segmentation.terms.contrast_weights import ContrastWeights
from napari_medgs.segmentation.terms.image_features import ImageFeatures
from napari_medgs.segmentation.terms.stochastic_watershed import (
    StochasticWatershed,
    WatershedVotes,
)

MOST_LIKELY = 0.7  # probability of a class up to which a random place counts as background


@dataclass(frozen=True)
class HeldOutPredictions:
    """Predictions for markers on slices that were held out of training.

    Attributes
    ----------
    classes : (P,) ndarray of int
        True classes.
    log_probability : (P, K) ndarray of float32
        Of the appearance model.
    fractions : (P, K) ndarray of float32
        Vote fractions of the stochastic watershed.
    params : CalibrationParams
    """

    classes: NDArray[Any]
    log_probability: Floats
    fractions: Floats
    params: CalibrationParams = field(default_factory=CalibrationParams)

    def skill(self) -> float:
        """Return the chance-corrected, class-balanced accuracy of the watershed, 0 to 1.

        With K classes and mean vote fraction a of the true class, it is
        max(0, (K a - 1) / (K - 1)).
        """
        count = self.fractions.shape[1]
        accuracy = float(np.nanmean(self._accuracies()))
        return max(0.0, (accuracy * count - 1) / (count - 1))

    def skills(self) -> NDArray[np.float64]:
        """Return the skill of the watershed for every class, (K,); NaN where none was held out."""
        count = self.fractions.shape[1]
        return np.maximum(0.0, (self._accuracies() * count - 1) / (count - 1))

    def _accuracies(self) -> NDArray[np.float64]:
        """Return the mean vote fraction of the true class, by class, (K,); NaN without markers."""
        count = self.fractions.shape[1]
        right = self.fractions[np.arange(len(self.classes)), self.classes]
        hits = np.bincount(self.classes, right, count)
        number = np.bincount(self.classes, minlength=count)
        accuracy: NDArray[np.float64] = np.full(count, np.nan)
        accuracy[number > 0] = hits[number > 0] / number[number > 0]
        return accuracy

    def inverse_temperature(self, watershed_weight: float) -> float:
        """Return the inverse temperature of the appearance model of highest likelihood.

        Parameters
        ----------
        watershed_weight : float
            Weight of the watershed's vote fractions beside it, in nats; 0 for appearance alone.

        Returns
        -------
        float
            One of ``params.inverse_temperatures``.
        """
        count = self.log_probability.shape[1]
        number = np.bincount(self.classes, minlength=count)
        # Classes count alike, however long their strokes are.
        weight = 1 / number[self.classes]
        outliers = self.params.outlier_probability
        likelihoods = []
        for beta in self.params.inverse_temperatures:
            logits = beta * self.log_probability + watershed_weight * self.fractions
            probability = np.exp(logits - logits.max(axis=1, keepdims=True))
            probability /= probability.sum(axis=1, keepdims=True)
            mine = probability[np.arange(len(probability)), self.classes]
            likelihoods.append((weight * np.log((1 - outliers) * mine + outliers / count)).sum())
        return self.params.inverse_temperatures[int(np.argmax(likelihoods))]


def leave_one_slice_out(
    markers: Markers,
    image: ImageFeatures,
    features: Floats,
    watershed: StochasticWatershed,
    seed: int,
    params: SolverParams | None = None,
    contrasts: ContrastWeights | None = None,
    of_strokes: bool = False,
) -> HeldOutPredictions | None:
    """Predict the markers of annotated slices from those of the others.

    Parameters
    ----------
    markers : Markers
    image : ImageFeatures
    features : (P, F) ndarray of float32
        At the markers' voxels.
    watershed : StochasticWatershed
    seed : int
        Of the choice of samples and of the appearance models.
    params : SolverParams, optional
    contrasts : ContrastWeights, optional
    of_strokes : bool
        Leave out parts of each class's strokes instead of slices.

    Returns
    -------
    HeldOutPredictions or None
        None where fewer than two slices are annotated, or have fewer than two classes in common:
        predictions of the background alone say nothing of the classes.
    """
    params = params or SolverParams()
    own = params.calibration
    forest = replace(params.appearance, max_samples=own.max_samples, trees=own.trees)
    classes, count = markers.classes, markers.count
    groups = markers.stroke_parts(own.folds) if of_strokes else markers.slice_groups()
    slices = np.unique(groups[groups >= 0])
    if len(slices) < 2:
        return None
    fold = np.where(groups >= 0, np.searchsorted(slices, groups) % own.folds, -1)
    rng = np.random.default_rng(seed)
    parts: list[tuple[NDArray[Any], Floats, Floats]] = []
    for f in range(min(own.folds, len(slices))):
        train, test = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        model = learn_appearance(
            features[train], classes[train], count, image.density_columns, image.value_ranges,
            seed, forest, **_of_contrasts(contrasts),
        )  # fmt: skip
        # A class that the other slices do not show cannot be predicted.
        test = test[np.isin(classes[test], model.present)]
        if len(model.present) < 2 or not len(test):
            continue
        if len(test) > own.max_samples * count:
            test = rng.choice(test, own.max_samples * count, replace=False)
        votes = watershed.vote(
            markers.voxels[train], classes[train], count, params.watershed.held_out_realizations
        )
        fractions = votes.at(markers.voxels[test])
        parts.append((classes[test], model.log_probability(features[test]), fractions))
    if not parts:
        return None
    truth, log_probability, fractions = (np.concatenate(part) for part in zip(*parts, strict=True))
    if len(sorted_unique(truth)) < 2:
        return None
    return HeldOutPredictions(truth, log_probability, fractions, own)


def _anywhere(markers: Markers, image: ImageFeatures, seed: int, params: SolverParams) -> Floats:
    """Return the features of random places that look like no class; none without background.

    An initial mask says better what the background looks like, and so do two slices.
    """
    count, own = params.appearance.image_samples, params.calibration
    several = len(markers.annotated_slices()[1]) > 1
    if markers.kept is not None or several or not (markers.classes == 0).any():
        count = 0
    shape = image.guide.shape[1:]
    places = np.random.default_rng([seed, 3]).integers(0, shape, (count, 3))
    features = image.at(places)
    if not count:
        return features
    model = learn_appearance(
        image.at(markers.voxels),
        markers.classes,
        markers.count,
        image.density_columns,
        image.value_ranges,
        seed,
        replace(params.appearance, max_samples=own.max_samples, trees=own.trees),
    )
    likely = np.exp(model.log_probability(features)[:, 1:].max(axis=1, initial=-np.inf))
    return features[likely <= MOST_LIKELY]


def _with_background(
    features: Floats, classes: NDArray[Any], more: Floats
) -> tuple[Floats, NDArray[Any]]:
    """Return samples with more of the background."""
    background = np.zeros(len(more), classes.dtype)
    return np.concatenate([features, more]), np.concatenate([classes, background])


class _Weights(TypedDict, total=False):
    """Arguments of :func:`learn_appearance`."""

    weights: Floats
    draws: Floats
    joint: float


def _of_contrasts(contrasts: ContrastWeights | None) -> _Weights:
    if contrasts is None:
        return {}
    return {
        "weights": contrasts.by_class,
        "draws": contrasts.edges,
        "joint": contrasts.joint,
    }


def _on_one_slice(markers: Markers) -> bool:
    """Return whether strokes on one slice are all that is known of classes: no areas, no clicks.

    Strokes of a class elsewhere, without background beside them, are no slice to hold out, but
    they show what parts of one slice cannot: that a term holds in other slices.
    """
    if markers.clicked or markers.boxes or markers.kept is not None:
        return False
    axis, slices = markers.annotated_slices()
    if len(slices) != 1 or slices[0] in markers.fully_labeled.get(axis, ()):
        return False
    drawn = markers.user_marked & (markers.classes > 0)
    return bool((markers.voxels[drawn, axis] == slices[0]).all())


def _weights_by_class(skills: NDArray[np.float64], params: WatershedParams) -> Floats:
    """Return the weight of the watershed's votes against every class, (K,).

    Parts of a stroke lie in the slice of the others: that they are found says little of other
    slices, and raises no weight. That they are not found tells a class thinner than the basins, or
    without borders, whose votes elsewhere say nothing; so does a single marker, of which nothing
    can be held out. The background has basins of all kinds.
    """
    sure = np.clip(np.nan_to_num(skills, nan=0.0) / params.sure_skill, 0, 1)
    weights = params.unsure_weight + (params.default_weight - params.unsure_weight) * sure
    weights[0] = params.default_weight
    return weights.astype(np.float32)


def fit_terms(
    markers: Markers,
    image: ImageFeatures,
    watershed: StochasticWatershed,
    seed: int,
    params: SolverParams | None = None,
    contrasts: ContrastWeights | None = None,
    sources: Markers | None = None,
) -> tuple[Appearance, WatershedVotes]:
    """Fit the appearance model and the watershed to markers, and weight both.

    Parameters
    ----------
    markers : Markers
    image : ImageFeatures
    watershed : StochasticWatershed
    seed : int
        Of all random choices.
    params : SolverParams, optional
    contrasts : ContrastWeights, optional
        How much every contrast counts; all alike by default.
    sources : Markers, optional
        Those from which the watershed floods; ``markers`` by default.

    Returns
    -------
    appearance : Appearance
    votes : WatershedVotes
    """
    params = params or SolverParams()
    features = image.at(markers.voxels)
    anywhere = _anywhere(markers, image, seed, params)
    appearance = learn_appearance(
        *_with_background(features, markers.classes, anywhere),
        markers.count,
        image.density_columns,
        image.value_ranges,
        seed,
        params.appearance,
        **_of_contrasts(contrasts),
    )
    # Corrections of an initial mask lie where it is wrong; they do not stand for its slices.
    held_out = (
        leave_one_slice_out(markers, image, features, watershed, seed, params, contrasts)
        if markers.kept is None
        else None
    )
    own, calibration = params.watershed, params.calibration
    weight = own.default_weight
    by_class: Floats | None = None
    appearance.gradient_discount = calibration.default_gradient_discount
    if held_out is not None:
        span = own.max_weight - own.min_weight
        weight = own.min_weight + span * held_out.skill() ** own.skill_exponent
        appearance.gradient_discount = calibration.gradient_discount
        appearance.inverse_temperature = min(
            held_out.inverse_temperature(0.0), held_out.inverse_temperature(weight)
        )
    elif _on_one_slice(markers):
        held_out = leave_one_slice_out(
            markers, image, features, watershed, seed, params, contrasts, of_strokes=True
        )
        if held_out is not None:
            appearance.inverse_temperature = min(
                held_out.inverse_temperature(0.0), held_out.inverse_temperature(weight)
            )
            by_class = _weights_by_class(held_out.skills(), own)
    sources = sources or markers
    votes = watershed.vote(sources.voxels, sources.classes, sources.count)
    return appearance, replace(votes, weight=weight if by_class is None else by_class)
