"""Which cases the networks of the folds learn from.

From four folds on every network leaves out two of them, so that two networks have not seen a
case: how far these agree on it is what the agreement of all will be on a new image, and can be
compared with their Dice. With the usual single fold left out, only one network has not seen it.
"""

from __future__ import annotations

import numpy as np

LEAST_FOR_PAIRS = 4


def default_folds(cases: int) -> int:
    """Return the number of folds for so many cases."""
    return 4 if cases >= 4 else 0


def fold_of_cases(cases: int, folds: int, seed: int) -> list[int]:
    """Return the fold of every case, at random, of sizes that differ by one at most.

    Examples
    --------
    >>> sorted(fold_of_cases(5, 2, seed=0))
    [0, 0, 0, 1, 1]
    """
    order = np.random.default_rng([seed, 7]).permutation(cases)
    found = [0] * cases
    for place, case in enumerate(order):
        found[int(case)] = place % folds
    return found


def left_out(network: int, folds: int) -> tuple[int, ...]:
    """Return the folds that a network is not shown.

    Examples
    --------
    >>> left_out(3, 4), left_out(1, 2)
    ((3, 0), (1,))
    """
    if folds < LEAST_FOR_PAIRS:
        return (network,)
    return network, (network + 1) % folds


def unseen_by(fold: int, folds: int) -> tuple[int, ...]:
    """Return the networks that were not shown a fold.

    Examples
    --------
    >>> unseen_by(0, 4), unseen_by(1, 3)
    ((0, 3), (1,))
    """
    return tuple(k for k in range(folds) if fold in left_out(k, folds))
