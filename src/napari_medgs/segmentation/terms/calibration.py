"""How far looks and floods are to be trusted: what they say about annotated slices left out.

Looks that mislead (two tissues in one class, say) are trusted less where the floods know better:
the power of the looks' probabilities is the one that foretells left-out slices best alone, or the
one that does so together with the floods, whichever is lower. They also tell edges within a class
from its boundary, more so if left-out slices could be asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.prompts.markers import Evidence
from napari_medgs.segmentation.terms.appearance import Appearance, learn_appearance
from napari_medgs.segmentation.terms.image_features import ImageFeatures
from napari_medgs.segmentation.terms.stochastic_watershed import (
    FEW_MEMBERS,
    LEAST_TOLL,
    MOST_TOLL,
    POWER,
    UNKNOWN_TOLL,
    Flood,
    Floods,
)

FOLDS = 4  # slices, or groups of slices, that are foretold from the others
FOLD_SAMPLES = 400  # per class
FOLD_TREES = 8
CONFIDENCES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
DISCOUNT = 0.8  # of slopes between what looks like one class,
UNKNOWN_DISCOUNT = 0.5  # if nothing was foretold
DOUBT = 0.02  # chance of a stroke that nothing explains


@dataclass(frozen=True)
class Foretold:
    """What was said about marks that had been left out.

    Attributes
    ----------
    classes : (P,) ndarray of int
        What they are.
    looks : (P, K) ndarray of float32
        Log-probabilities of the appearance model.
    shares : (P, K) ndarray of float32
        Shares of the floods.
    """

    classes: NDArray[Any]
    looks: Floats
    shares: Floats

    def trust(self) -> float:
        """Return how much better than chance the floods are, 1 for never wrong."""
        count = self.shares.shape[1]
        right = self.shares[np.arange(len(self.classes)), self.classes]
        hits = np.bincount(self.classes, right, count)
        number = np.bincount(self.classes, minlength=count)
        share = float((hits[number > 0] / number[number > 0]).mean())
        return max(0.0, (share * count - 1) / (count - 1))

    def confidence(self, toll: float) -> float:
        """Return the power of the looks that foretells best beside floods of some toll."""
        count = self.looks.shape[1]
        number = np.bincount(self.classes, minlength=count)
        # Classes count alike, whatever their strokes' lengths.
        weight = 1 / number[self.classes]
        scores = []
        for power in CONFIDENCES:
            logits = power * self.looks + toll * self.shares
            chance = np.exp(logits - logits.max(axis=1, keepdims=True))
            chance /= chance.sum(axis=1, keepdims=True)
            mine = chance[np.arange(len(chance)), self.classes]
            scores.append((weight * np.log((1 - DOUBT) * mine + DOUBT / count)).sum())
        return CONFIDENCES[int(np.argmax(scores))]


def foretell(
    evidence: Evidence, image: ImageFeatures, features: Floats, floods: Floods, seed: int
) -> Foretold | None:
    """Leave annotated slices out by turns and ask the others about them.

    ``features`` (P, F) are those of the evidence's voxels.

    Returns
    -------
    Foretold or None
        None where fewer than two slices are annotated, or show no class in common.
    """
    groups, classes, count = evidence.slice_groups(), evidence.classes, evidence.count
    places = np.unique(groups[groups >= 0])
    if len(places) < 2:
        return None
    fold = np.where(groups >= 0, np.searchsorted(places, groups) % FOLDS, -1)
    rng = np.random.default_rng(seed)
    told: list[tuple[NDArray[Any], Floats, Floats]] = []
    for f in range(min(FOLDS, len(places))):
        known, asked = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        model = learn_appearance(
            features[known], classes[known], count, image.density_columns, image.limits, seed,
            FOLD_SAMPLES, FOLD_TREES,
        )  # fmt: skip
        # A class that the other slices do not show cannot be foretold.
        asked = asked[np.isin(classes[asked], model.present)]
        if len(model.present) < 2 or not len(asked):
            continue
        if len(asked) > FOLD_SAMPLES * count:
            asked = rng.choice(asked, FOLD_SAMPLES * count, replace=False)
        flood = floods.flood(evidence.voxels[known], classes[known], count, FEW_MEMBERS)
        shares = flood.at(evidence.voxels[asked])
        told.append((classes[asked], model.log_probability(features[asked]), shares))
    if not told:
        return None
    return Foretold(*(np.concatenate(parts) for parts in zip(*told, strict=True)))


def opinions(
    evidence: Evidence, image: ImageFeatures, floods: Floods, seed: int
) -> tuple[Appearance, Flood]:
    """Learn what classes look like and flood from their marks, each with its trust."""
    features = image.at(evidence.voxels)
    arguments = evidence.classes, evidence.count, image.density_columns, image.limits, seed
    appearance = learn_appearance(features, *arguments)
    foretold = foretell(evidence, image, features, floods, seed)
    toll, appearance.discount = UNKNOWN_TOLL, UNKNOWN_DISCOUNT
    if foretold is not None:
        toll = LEAST_TOLL + (MOST_TOLL - LEAST_TOLL) * foretold.trust() ** POWER
        appearance.discount = DISCOUNT
        appearance.confidence = min(foretold.confidence(0.0), foretold.confidence(toll))
    flood = floods.flood(evidence.voxels, evidence.classes, evidence.count)
    return appearance, replace(flood, toll=toll)
