"""Which contrast of a case drives an answer: exact Shapley values of the contrasts.

A value function says how good an answer from some of the contrasts is, for instance its Dice with
the truth, or with the answer from all of them. The Shapley value of a contrast is what it adds to
that value, averaged over all orders in which contrasts can be added [1]_. The comparison with a
clinician's ranking and the variance of ranks over folds follow [2]_.

References
----------
.. [1] Shapley, "A value for n-person games", Contributions to the Theory of Games 2, 1953.
.. [2] Ren et al., contrast-level Shapley values for glioma segmentation, arXiv:2512.07224, 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_medgs.errors import ParameterError
from napari_medgs.metrics.volumes import check_same_shape

MOST_CONTRASTS = 10
"""Their subsets are counted one by one: 1,024 answers."""

Subset = tuple[int, ...]


def contrast_subsets(count: int) -> list[Subset]:
    """Return all subsets of contrasts, from none to all, smaller ones first.

    Parameters
    ----------
    count : int
        Number of contrasts.

    Returns
    -------
    list of tuple of int
        Indices from 0, increasing in every subset.

    Raises
    ------
    ParameterError
        When there are none, or more than ten.

    Examples
    --------
    >>> contrast_subsets(2)
    [(), (0,), (1,), (0, 1)]
    """
    if not 1 <= count <= MOST_CONTRASTS:
        raise ParameterError(
            f"Shapley values are computed for 1 to {MOST_CONTRASTS} contrasts, not {count}."
        )
    return [s for size in range(count + 1) for s in combinations(range(count), size)]


def shapley_values(value: Callable[[Subset], ArrayLike], count: int) -> NDArray[np.float64]:
    """Return the Shapley value of every contrast, exact over all subsets.

    Parameters
    ----------
    value : callable
        Takes a subset of the indices 0 to ``count - 1``, increasing; returns how good the answer
        from these contrasts is, as a number or as an array of numbers (one per class) of one
        shape. It is called once per subset, with the empty one first and all contrasts last.
    count : int
        Number of contrasts.

    Returns
    -------
    (count, ...) ndarray of float64
        They add up to ``value(all) - value(none)``.

    Raises
    ------
    ParameterError
        When there are no contrasts, too many, or a value is not finite.

    References
    ----------
    .. [1] Shapley, "A value for n-person games", Contributions to the Theory of Games 2, 1953.

    Examples
    --------
    >>> def value(subset):
    ...     return 0.8 * (0 in subset) + 0.1 * (1 in subset)
    >>> shapley_values(value, 2).round(3).tolist()
    [0.8, 0.1]
    """
    known: dict[Subset, NDArray[np.float64]] = {}
    for subset in contrast_subsets(count):
        known[subset] = np.asarray(value(subset), np.float64)
        if not np.isfinite(known[subset]).all():
            raise ParameterError(
                f"The value of the contrasts {subset} is not finite: {known[subset]}."
            )
    return shapley_of(known, count)


def shapley_of(known: dict[Subset, NDArray[np.float64]], count: int) -> NDArray[np.float64]:
    """Return the Shapley values of contrasts from the values of all subsets.

    Parameters
    ----------
    known : dict of tuple of int to ndarray
        Value of every subset that :func:`contrast_subsets` lists, all of one shape.
    count : int

    Returns
    -------
    (count, ...) ndarray of float64

    Examples
    --------
    >>> import numpy as np
    >>> values = {(): 0.0, (0,): 0.6, (1,): 0.2, (0, 1): 0.8}
    >>> shapley_of({s: np.asarray(v) for s, v in values.items()}, 2).round(3).tolist()
    [0.6, 0.2]
    """
    shapley = []
    for contrast in range(count):
        others = [c for c in range(count) if c != contrast]
        total = np.zeros_like(known[()], dtype=np.float64)
        for size in range(count):
            # |S|! (n - |S| - 1)! / n!
            weight = 1 / (count * comb(count - 1, size))
            for subset in combinations(others, size):
                joined = tuple(sorted((*subset, contrast)))
                total = total + weight * (known[joined] - known[subset])
        shapley.append(total)
    return np.stack(shapley)


def contrast_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Return the rank of every contrast, 1 for the largest value; equal ones share a mean rank.

    Parameters
    ----------
    values : (..., M) array-like
        Shapley values; ranked along the last axis.

    Returns
    -------
    (..., M) ndarray of float64

    Examples
    --------
    >>> contrast_ranks([0.1, 0.7, 0.1]).tolist()
    [2.5, 1.0, 2.5]
    """
    from scipy.stats import rankdata

    # Values that differ by rounding alone are equal.
    rounded = np.round(np.asarray(values, np.float64), 9)
    return np.asarray(rankdata(-rounded, axis=-1), np.float64)


def ranking_agreement(values: ArrayLike, clinical: Sequence[float]) -> float:
    """Return how well contrasts' values agree with a clinician's ranking (NSF).

    The normalized Spearman footrule of [1]_: one minus the sum of the ranks' differences over the
    largest possible sum, ``floor(M^2 / 2)``.

    Parameters
    ----------
    values : (M,) array-like
        Shapley values of the contrasts.
    clinical : sequence of M numbers
        Rank of every contrast for the clinician, 1 is the most important one.

    Returns
    -------
    float
        From 0, the opposite order, to 1, the same order.

    Raises
    ------
    ParameterError
        When there are fewer than two contrasts, or the clinician ranks other numbers of them
        or gives ranks outside 1 to M.

    References
    ----------
    .. [1] Ren et al., arXiv:2512.07224, 2025.

    Examples
    --------
    >>> ranking_agreement([0.5, 0.1, 0.3, 0.0], clinical=[1, 3, 2, 4])
    1.0
    >>> ranking_agreement([0.5, 0.1, 0.3, 0.0], clinical=[4, 2, 3, 1])
    0.0
    """
    ranks, wanted = contrast_ranks(values), np.asarray(clinical, np.float64)
    count = len(ranks)
    if count < 2:
        raise ParameterError("A ranking needs at least two contrasts.")
    if wanted.shape != ranks.shape or wanted.min() < 1 or wanted.max() > count:
        raise ParameterError(
            f"A ranking of {count} contrasts has {count} ranks from 1 to {count}, not "
            f"{', '.join(f'{r:g}' for r in wanted.ravel())}."
        )
    return float(1 - np.abs(ranks - wanted).sum() / (count**2 // 2))


def rank_variance(values: ArrayLike) -> float:
    """Return the variance of the contrasts' ranks over folds, averaged over contrasts.

    Proposed by [1]_ as an uncertainty. On new scans the agreement of the folds' masks predicted
    failures far better; see the documentation of trained segmenters.

    Parameters
    ----------
    values : (folds, M) array-like
        Shapley values of the contrasts, from one model a fold.

    Returns
    -------
    float
        Mean over contrasts of the sample variance over folds; 0 when all folds agree.

    Raises
    ------
    ParameterError
        When there are fewer than two folds.

    References
    ----------
    .. [1] Ren et al., arXiv:2512.07224, 2025.

    Examples
    --------
    >>> rank_variance([[0.5, 0.1], [0.4, 0.2], [0.2, 0.3]]).__round__(3)
    0.333
    """
    ranks = contrast_ranks(values)
    if ranks.ndim != 2 or len(ranks) < 2:
        raise ParameterError("The variance of ranks needs the values of two folds or more.")
    return float(ranks.var(axis=0, ddof=1).mean())


def label_agreement(
    labels: NDArray[Any], reference: NDArray[Any], values: Sequence[int]
) -> NDArray[np.float64]:
    """Return the Dice of every class of two label images; 1 where a class is in neither.

    Parameters
    ----------
    labels, reference : (...) integer ndarray
        Equal shapes.
    values : sequence of int
        The classes' values.

    Returns
    -------
    (classes,) ndarray of float64

    Raises
    ------
    GeometryError
        When the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> label_agreement(np.array([0, 1, 2]), np.array([1, 1, 2]), (1, 2, 3)).round(3).tolist()
    [0.667, 1.0, 1.0]
    """
    labels, reference = check_same_shape(labels, reference)
    scores = np.ones(len(values))
    for k, value in enumerate(values):
        ours, theirs = labels == value, reference == value
        total = int(np.count_nonzero(ours)) + int(np.count_nonzero(theirs))
        if total:
            scores[k] = 2 * int(np.count_nonzero(ours & theirs)) / total
    return scores
