"""A small forest of extremely randomized trees, and its votes for many samples at once.

References
----------
Geurts, Ernst and Wehenkel 2006, *Extremely randomized trees*, Machine Learning 63.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.term_params import AppearanceParams

PASS, BESIDE = 256, 8  # samples that go through a tree before the next one, and side by side


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _add_leaf_fractions(
    features: Any, roots: Any, split: Any, threshold: Any, child: Any, fraction: Any,
    first: int, last: int, out: Any,
) -> None:  # fmt: skip
    """Add every tree's leaf fractions for samples first .. last-1.

    A few samples go down a tree side by side: the processor need not wait for one node's memory
    before it asks for the next one's.
    """
    nodes = np.empty(BESIDE, np.int32)
    for start in range(first, last, PASS):
        stop = min(start + PASS, last)
        for t in range(len(roots)):
            for i in range(start, stop, BESIDE):
                count = min(BESIDE, stop - i)
                nodes[:count] = roots[t]
                moved = True
                while moved:
                    moved = False
                    for s in range(count):
                        node = nodes[s]
                        column = split[node]
                        if column >= 0:
                            side = 0 if features[i + s, column] <= threshold[node] else 1
                            nodes[s] = child[node, side]
                            moved = True
                for s in range(count):
                    for k in range(fraction.shape[1]):
                        out[i + s, k] += fraction[nodes[s], k]


@dataclass(frozen=True)
class Forest:
    """Trees, one after another.

    Attributes
    ----------
    roots : (T,) ndarray of int32
        The first node of every tree.
    split : (N,) ndarray of int32
        The feature that a node asks for, -1 in leaves.
    threshold : (N,) ndarray of float32
        Up to which a sample goes to the first child.
    child : (N, 2) ndarray of int32
    fraction : (N, K) ndarray of float32
        Of the classes in a node.
    """

    roots: NDArray[np.int32]
    split: NDArray[np.int32]
    threshold: Floats
    child: NDArray[np.int32]
    fraction: Floats


def add_leaf_fractions(
    features: Floats, forest: Forest, first: int, last: int, out: Floats
) -> None:
    """Add the fractions of the leaves that samples ``first`` to ``last - 1`` reach.

    Parameters
    ----------
    features : (P, F) ndarray of float32
    forest : Forest
    first, last : int
    out : (P, K) ndarray of float32
        Changed in place.
    """
    _add_leaf_fractions(
        features, forest.roots, forest.split, forest.threshold, forest.child, forest.fraction,
        first, last, out,
    )  # fmt: skip


def train_forest(
    features: Floats,
    classes: NDArray[Any],
    count: int,
    seed: int,
    params: AppearanceParams,
    drawn: NDArray[np.int64] | None,
) -> Forest:
    """Train extremely randomized trees and flatten them into one table.

    Parameters
    ----------
    features : (P, F) ndarray of float32
    classes : (P,) ndarray of int
    count : int
        Number of classes.
    seed : int
    params : AppearanceParams
    drawn : (F,) ndarray of int64 or None
        Which feature every column is, where some are repeated or left out.

    Returns
    -------
    Forest
    """
    from sklearn.ensemble import ExtraTreesClassifier

    trees = ExtraTreesClassifier(
        params.trees,
        min_samples_leaf=params.min_leaf,
        class_weight="balanced",
        random_state=seed,
        n_jobs=1,  # a fit takes milliseconds; threads of its own would escape the limit
    )
    trees.fit(features, classes)
    columns = trees.classes_.astype(int)
    roots, split, threshold, child, fraction = [], [], [], [], []
    start = 0
    for estimator in trees.estimators_:
        tree = estimator.tree_
        roots.append(start)
        leaf = tree.children_left < 0
        feature = tree.feature if drawn is None else drawn[np.where(leaf, 0, tree.feature)]
        split.append(np.where(leaf, -1, feature))
        threshold.append(tree.threshold)
        child.append(np.stack([tree.children_left, tree.children_right], axis=1) + start)
        counts = tree.value[:, 0, :]
        whole = np.zeros((len(counts), count), np.float32)
        whole[:, columns] = counts / counts.sum(axis=1, keepdims=True)
        fraction.append(whole)
        start += tree.node_count
    return Forest(
        np.asarray(roots, np.int32),
        np.concatenate(split).astype(np.int32),
        np.concatenate(threshold).astype(np.float32),
        np.concatenate(child).astype(np.int32),
        np.concatenate(fraction),
    )
