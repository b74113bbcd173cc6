"""Shapley values of contrasts: the axioms, all permutations, published agreement of ranks."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medgs import metrics
from napari_medgs.errors import GeometryError, ParameterError
from napari_medgs.metrics.contrasts import contrast_subsets


def random_game(seed: int, count: int, classes: int = 2):
    rng = np.random.default_rng(seed)
    table = {s: rng.random(classes) for s in contrast_subsets(count)}
    return lambda subset: table[subset]


def by_permutations(value, count):
    orders = list(permutations(range(count)))
    total = 0
    for order in orders:
        added = np.zeros((count, *np.shape(value(()))))
        for place, contrast in enumerate(order):
            before = tuple(sorted(order[:place]))
            added[contrast] = value(tuple(sorted((*before, contrast)))) - value(before)
        total = total + added
    return total / len(orders)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5))
def test_they_are_the_mean_over_all_orders_and_add_up(seed, count):
    value = random_game(seed, count)
    found = metrics.shapley_values(value, count)
    np.testing.assert_allclose(found, by_permutations(value, count), atol=1e-12)
    np.testing.assert_allclose(found.sum(0), value(tuple(range(count))) - value(()), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 5))
def test_a_contrast_without_effect_has_none_and_equal_ones_share(seed, count):
    game = random_game(seed, count)
    last, first = count - 1, 0

    def without_last(subset):
        return game(tuple(c for c in subset if c != last))

    np.testing.assert_allclose(metrics.shapley_values(without_last, count)[last], 0, atol=1e-12)

    def twins(subset):  # the first and the last contrast can stand for one another
        either = first in subset or last in subset
        both = first in subset and last in subset
        rest = tuple(c for c in subset if c not in (first, last))
        return game(rest) + 2.0 * either + 0.5 * both

    found = metrics.shapley_values(twins, count)
    np.testing.assert_allclose(found[first], found[last], atol=1e-12)


def test_values_of_each_subset_are_asked_for_once_from_none_to_all():
    asked = []

    def value(subset):
        asked.append(subset)
        return 0.0

    metrics.shapley_values(value, 3)
    assert len(asked) == len(set(asked)) == 8
    assert (asked[0], asked[-1]) == ((), (0, 1, 2))


@pytest.mark.parametrize("count", [0, 11])
def test_numbers_of_contrasts_that_cannot_be_listed(count):
    with pytest.raises(ParameterError, match="1 to 10 contrasts"):
        metrics.shapley_values(lambda subset: 0.0, count)


def test_values_that_are_not_finite():
    with pytest.raises(ParameterError, match="not finite"):
        metrics.shapley_values(lambda subset: np.nan, 2)


def test_agreement_of_rankings():
    # Four contrasts: the sum of differences is at most 8.
    assert metrics.ranking_agreement([9, 5, 4, 1], [1, 2, 3, 4]) == 1
    assert metrics.ranking_agreement([9, 5, 4, 1], [4, 3, 2, 1]) == 0
    assert metrics.ranking_agreement([9, 5, 4, 1], [2, 1, 3, 4]) == pytest.approx(1 - 2 / 8)
    assert metrics.ranking_agreement([9, 5, 4], [1, 3, 2]) == pytest.approx(1 - 2 / 4)
    # Rounding makes no order.
    assert metrics.contrast_ranks([0.1 + 0.2, 0.3, 0.0]).tolist() == [1.5, 1.5, 3]


@pytest.mark.parametrize("clinical", [[1, 2], [0, 1, 2], [1, 2, 4]])
def test_rankings_of_other_contrasts(clinical):
    with pytest.raises(ParameterError, match="3 ranks from 1 to 3"):
        metrics.ranking_agreement([0.1, 0.2, 0.3], clinical)
    with pytest.raises(ParameterError, match="two contrasts"):
        metrics.ranking_agreement([0.1], [1])


def test_variance_of_ranks_over_folds():
    assert metrics.rank_variance([[3, 2, 1], [30, 20, 10]]) == 0
    # Ranks of the first two contrasts are 1, 2 and 2, 1: sample variance .5 each.
    assert metrics.rank_variance([[3, 2, 1], [2, 3, 1]]) == pytest.approx((0.5 + 0.5 + 0) / 3)
    with pytest.raises(ParameterError, match="two folds"):
        metrics.rank_variance([[3, 2, 1]])


def test_agreement_of_labels_is_dice(rng):
    one, other = rng.integers(0, 3, (2, 6, 7, 8))
    found = metrics.label_agreement(one, other, (1, 2, 9))
    expected = [metrics.dice(one == value, other == value) for value in (1, 2)]
    np.testing.assert_allclose(found, [*expected, 1.0])
    with pytest.raises(GeometryError):
        metrics.label_agreement(one, other[:3], (1,))
