"""How many classes: by the likelihood of Gaussians that a mixture was not fitted to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from napari_medgs._typing import Doubles, Indices
from napari_medgs.tissue.mixture import Bags, bag_scores, fit_mixture, responsibilities

FOLDS, BOXES = 4, 4
MOST_CLASSES = 8
GAIN = 0.1  # log-likelihood per voxel that one more class must bring


def folds_of(places: Doubles, seed: int) -> Indices:
    """Return the fold of every place (N, 3): boxes of the image, dealt out at random.

    Neighbors look alike, so that single Gaussians left out would tell nothing.
    """
    low, high = places.min(axis=0), places.max(axis=0)
    box = ((places - low) / np.maximum(high - low, 1e-9) * BOXES).astype(int).clip(0, BOXES - 1)
    numbers = box @ np.array([BOXES * BOXES, BOXES, 1])
    present, rank = np.unique(numbers, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(present))
    fold: Indices = order[rank] % FOLDS
    return fold


def choose_classes(
    bags: Bags,
    places: Doubles,
    seed: int = 0,
    step: Callable[[int, float], None] = lambda done, value: None,
) -> tuple[int, dict[int, float]]:
    """Choose the number of classes.

    The smallest number that one more class does not improve by more than :data:`GAIN` in
    log-likelihood per held-out voxel, in the mean over the folds. Real tissues are no Gaussian
    distributions: the likelihood itself would grow with every class.

    Parameters
    ----------
    bags : Bags
    places : (N, 3) ndarray
        Where the bags lie.
    seed : int
        Of all random choices.
    step : callable
        As for :func:`~napari_medgs.tissue.mixture.fit_mixture`.

    Returns
    -------
    classes : int
    scores : dict of int to float
        Log-likelihood per held-out voxel, for every number that was tried.
    """
    fold = folds_of(places, seed)
    scores: dict[int, float] = {}
    for classes in range(2, MOST_CLASSES + 1):
        values = []
        for k in range(FOLDS):
            known, left_out = bags.subset(fold != k), bags.subset(fold == k)
            if len(known) < classes or not len(left_out):
                continue
            mixture, _, _ = fit_mixture(known, classes, seed, 60, step)
            _, value = responsibilities(bag_scores(left_out, mixture))
            values.append(value / left_out.mass.sum())
        if not values:
            break
        scores[classes] = float(np.mean(values))
        before = scores.get(classes - 1)
        if before is not None and scores[classes] - before <= GAIN:
            return classes - 1, scores
    return max(scores, default=2), scores
