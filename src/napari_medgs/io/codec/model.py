"""How columns are predicted from neighbors and each other, learned when a field is written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_medgs.io.codec.cells import NEIGHBORS, find_neighbors
from napari_medgs.io.codec.columns import Integers

UNIT = 12
"""Bits behind the point of the predictor's coefficients."""
MOST_COEFFICIENT = 2**15 - 1
_BITS_TO_PAY = 24.0  # for a coefficient in the header
_SAMPLE = 20_000


@dataclass(frozen=True)
class Model:
    """How the columns of a field are predicted, in whole numbers.

    Attributes
    ----------
    coefficients : (A, A + 2) ndarray of int64
        Of a constant, the sum over the neighbors, and the Gaussian's earlier columns.
    starts : (A + 1, 2) ndarray of int64
        First guess of how residuals are distributed, see
        :func:`~napari_medgs.io.codec.coder.initial_chances`; class scores last.
    """

    coefficients: NDArray[np.int64]
    starts: NDArray[np.int64]


def neighbors_of(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the neighbors of every Gaussian, see :func:`find_neighbors`."""
    neighbors = np.empty((len(cells), NEIGHBORS), np.int64)
    find_neighbors(np.ascontiguousarray(cells), neighbors)
    return neighbors


def predictions(chunk: Integers, model: Model) -> NDArray[np.float64]:
    """Return what the coder expects of every column (N, A), before it is rounded."""
    near = neighbors_of(chunk.cells)
    sums = chunk.columns[near].sum(axis=1)
    sums[near[:, 0] < 0] = 0
    guess = np.empty(chunk.columns.shape)
    for c, row in enumerate(model.coefficients):
        earlier = chunk.columns[:, :c] @ row[2 : 2 + c]
        guess[:, c] = (row[0] + row[1] * sums[:, c] + earlier) / (1 << UNIT)
    return guess


def learn(chunks: list[Integers]) -> Model:
    """Find the coefficients that predict best, and how their residuals are distributed.

    Parameters
    ----------
    chunks : list of Integers
        In the order of the file.
    """
    kept = chunks[0].columns.shape[1] if chunks else 0
    coefficients = np.zeros((kept, kept + 2), np.int64)
    starts = np.full((kept + 1, 2), 32768, np.int64)
    if not chunks:
        return Model(coefficients, starts)
    sums, class_residuals = [], []
    for chunk in chunks:
        near = neighbors_of(chunk.cells)
        here = chunk.columns[near].sum(axis=1)
        here[near[:, 0] < 0] = 0
        sums.append(here)
        if chunk.logits.shape[1]:
            usual = np.rint(np.median(chunk.logits, axis=1, keepdims=True)).astype(np.int64)
            class_residuals.append((chunk.logits - usual).reshape(-1))
    columns = np.concatenate([chunk.columns for chunk in chunks])
    near_sums = np.concatenate(sums)
    for c in range(kept):
        features = np.column_stack([near_sums[:, c], columns[:, :c]])
        coefficients[c, : c + 2] = _regress(columns[:, c], features)
        guess = coefficients[c, 0] + features @ coefficients[c, 1 : c + 2]
        starts[c] = _start(columns[:, c] - ((guess + (1 << (UNIT - 1))) >> UNIT))
    if class_residuals:
        starts[kept] = _start(np.concatenate(class_residuals))
    return Model(coefficients, starts)


def _start(residuals: NDArray[np.int64]) -> tuple[int, int]:
    """Return the chance of a number that is not zero, and the decay of the sizes."""
    size = np.abs(residuals)
    nonzero = int((size > 0).sum())
    zero = min(max((nonzero * 65536) // max(len(size), 1), 64), 65472)
    mean = float(size.sum()) / max(nonzero, 1)
    return zero, min(max(round(65536 * (1 - 1 / max(mean, 1.0))), 64), 65472)


def _regress(wanted: NDArray[np.int64], features: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return whole coefficients of a constant and the features that are worth their bits."""
    step = max(1, len(wanted) // _SAMPLE)
    target, table = wanted[::step].astype(np.float64), features[::step].astype(np.float64)
    chosen: list[int] = []
    mean = target.mean()
    best, left = np.zeros(0), float(((target - mean) ** 2).sum()) + 1e-9
    means = table.mean(axis=0)
    table, target = table - means, target - mean
    usable = (table**2).sum(axis=0) > 0
    while len(chosen) < table.shape[1]:
        trials = []
        for k in (k for k in range(table.shape[1]) if k not in chosen and usable[k]):
            part = table[:, [*chosen, k]]
            solution = np.linalg.lstsq(part, target, rcond=None)[0]
            error = float(((target - part @ solution) ** 2).sum()) + 1e-9
            trials.append((error, k, solution))
        if not trials:
            break
        error, k, solution = min(trials, key=lambda trial: trial[:2])
        if len(wanted) / 2 * np.log2(left / error) < _BITS_TO_PAY:
            break
        chosen, best, left = [*chosen, k], solution, error
    result = np.zeros(table.shape[1] + 1, np.int64)
    for k, number in zip(chosen, best, strict=True):
        whole = round(float(number) * (1 << UNIT))
        result[1 + k] = min(max(whole, -MOST_COEFFICIENT), MOST_COEFFICIENT)
    constant = mean * (1 << UNIT) - float(means @ result[1:])
    result[0] = min(max(round(constant), -(2**45)), 2**45)
    return result
