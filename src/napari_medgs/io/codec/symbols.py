"""The numbers of one chunk, coded Gaussian by Gaussian with what is known already as context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs.io.codec.cells import COUNT_NODES, NEIGHBORS, code_cells, find_neighbors
from napari_medgs.io.codec.coder import (
    FAULT,
    INPUTS,
    LIMIT,
    NODES,
    PLACE,
    TABLE,
    code_plain,
    code_residual,
    finish_writing,
    initial_chances,
    new_state,
    start_reading,
)
from napari_medgs.io.codec.columns import FINEST, LARGEST, Integers, Scheme

CONTEXTS = 32
LOGIT_CONTEXTS = 256
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


@njit(nogil=True, cache=True)
def _bucket(number: int) -> int:
    """Return the number of bits of a size."""
    size = abs(number)
    bits = 0
    while size > 0:
        size >>= 1
        bits += 1
    return bits


@njit(nogil=True, cache=True)
def code_columns(
    state: Any,
    data: Any,
    neighbors: Any,
    fractions: Any,
    columns: Any,
    logits: Any,
    shape_columns: Any,
    rules: Any,
    coefficients: Any,
    starts: Any,
    spent: Any,
) -> None:
    """Code everything of a chunk but its cells; fill the arrays when reading.

    Parameters
    ----------
    state, data
        Of the coder.
    neighbors : (N, NEIGHBORS) ndarray of int64
    fractions, columns, logits : ndarrays of int64
        See :class:`~napari_medgs.io.codec.columns.Integers`.
    shape_columns : (3,) ndarray of int64
        Columns of log r1, log r2 and log rt; -1 where they are constant.
    rules : (3, 2) ndarray of int64
        Fractions of the scheme; a first number of -1 in ``shape_columns`` counts as zero.
    coefficients, starts : ndarrays of int64
        Of the model.
    spent : (A + 2,) ndarray of int64
        Bytes per column, then of fractions and class scores; added to.
    """
    count, kept = columns.shape
    classes = logits.shape[1]
    last_shape = max(shape_columns[0], shape_columns[1], shape_columns[2])
    chances = np.empty(kept * INPUTS * CONTEXTS * NODES, np.int64)
    seen = np.full(len(chances), 3, np.uint8)
    first = np.empty(NODES, np.int64)
    for c in range(kept):
        initial_chances(starts[c, 0], starts[c, 1], first)
        for k in range(INPUTS * CONTEXTS):
            begin = (c * INPUTS * CONTEXTS + k) * NODES
            chances[begin : begin + NODES] = first
    weights = np.full((kept, NODES, INPUTS), 18000, np.int64)
    class_chances = np.empty(min(classes, 1) * INPUTS * LOGIT_CONTEXTS * NODES, np.int64)
    class_seen = np.full(len(class_chances), 3, np.uint8)
    class_weights = np.full((NODES, INPUTS), 18000, np.int64)
    if classes:
        initial_chances(starts[kept, 0], starts[kept, 1], first)
        for k in range(INPUTS * LOGIT_CONTEXTS):
            class_chances[k * NODES : (k + 1) * NODES] = first
    places = np.zeros(INPUTS, np.int64)
    residuals = np.zeros(kept + 2, np.int64)
    bits = np.zeros(3, np.int64)
    for i in range(count):
        has = neighbors[i, 0] >= 0
        size_class = 0
        for c in range(kept + 1):
            if c == last_shape + 1:  # the shape is known: so is how finely the place is stored
                begun = state[PLACE]
                for axis in range(3):
                    if rules[axis, 1] == 0 and rules[axis, 0] == 0:
                        bits[axis] = 0
                        continue
                    at = shape_columns[axis]
                    size = columns[i, at] if at >= 0 else 0
                    fine = (rules[axis, 0] * size + rules[axis, 1]) >> 16
                    bits[axis] = min(max(fine, 0), FINEST)
                    fractions[i, axis] = code_plain(state, data, fractions[i, axis], bits[axis])
                size_class = min(bits[0], 7) * 4 + min(bits[2], 3)
                spent[kept] += state[PLACE] - begun
            if c == kept:
                break
            low, high, total = np.int64(0), np.int64(0), np.int64(0)
            if has:
                low = high = columns[neighbors[i, 0], c]
                for k in range(NEIGHBORS):
                    value = columns[neighbors[i, k], c]
                    total += value
                    low, high = min(low, value), max(high, value)
            guess = coefficients[c, 0] + coefficients[c, 1] * total
            for j in range(c):
                guess += coefficients[c, 2 + j] * columns[i, j]
            guess = (guess + (1 << (UNIT - 1))) >> UNIT
            nearest = columns[neighbors[i, 0], c] - guess if has else np.int64(0)
            lean = min(_bucket(nearest), 7)
            before = min(_bucket(residuals[c + 1]), 7) * 4 + min(_bucket(residuals[c]) >> 1, 3)
            base = c * INPUTS
            places[0] = base * CONTEXTS * NODES
            places[1] = ((base + 1) * CONTEXTS + min(_bucket(high - low), 15)) * NODES
            places[2] = ((base + 2) * CONTEXTS + before) * NODES
            places[3] = ((base + 3) * CONTEXTS + size_class) * NODES
            places[4] = ((base + 4) * CONTEXTS + (15 - lean if nearest < 0 else lean)) * NODES
            begun = state[PLACE]
            residual = code_residual(
                state, data, columns[i, c] - guess, chances, seen, weights[c], places
            )
            spent[c] += state[PLACE] - begun
            value = guess + residual
            if abs(value) > 2 * LARGEST:
                state[FAULT] = TABLE
                return
            columns[i, c] = value
            residuals[c + 2] = residual
        begun = state[PLACE]
        run, different = 0, 0
        for k in range(classes):
            total, low, high = np.int64(0), np.int64(0), np.int64(0)
            near = np.int64(0)
            if has:
                near = logits[neighbors[i, 0], k]
                low = high = near
                for n in range(NEIGHBORS):
                    value = logits[neighbors[i, n], k]
                    total += value
                    low, high = min(low, value), max(high, value)
            guess = (total + 2) >> 2
            spread = min(_bucket(high - low), 7)
            level = min(_bucket(guess), 7) * 2 + (1 if guess < 0 else 0)
            places[0] = (k & 255) * NODES
            places[1] = (LOGIT_CONTEXTS + spread * 16 + level) * NODES
            places[2] = (2 * LOGIT_CONTEXTS + min(run, 15) * 8 + min(different, 7)) * NODES
            side = near - guess
            lean = min(_bucket(side), 7)
            places[3] = (
                3 * LOGIT_CONTEXTS + (15 - lean if side < 0 else lean) * 8 + min(different, 7)
            ) * NODES
            places[4] = (4 * LOGIT_CONTEXTS + size_class * 8 + spread) * NODES
            residual = code_residual(
                state,
                data,
                logits[i, k] - guess,
                class_chances,
                class_seen,
                class_weights,
                places,
            )
            value = guess + residual
            if abs(value) > 2 * LARGEST:
                state[FAULT] = TABLE
                return
            logits[i, k] = value
            if residual:
                different += 1
                run = 0
            else:
                run += 1
        spent[kept + 1] += state[PLACE] - begun


def _layout(scheme: Scheme) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the shapes stand and the rules of fractions, as the kernel wants them."""
    names = ("log_r1", "log_r2", "log_rt")
    at = [scheme.columns.index(name) if name in scheme.columns else -1 for name in names]
    rules = np.asarray(scheme.fractions, np.int64).copy()
    for axis in range(3):
        if axis not in scheme.axes:
            rules[axis] = 0
        elif not rules[axis].any():
            rules[axis, 1] = 1
    return np.asarray(at, np.int64), rules


def in_file_order(integers: Integers, size: NDArray[np.int64]) -> tuple[Integers, Any]:
    """Return a chunk's Gaussians in the order in which a reader finds them, and that order."""
    # What lies in one cell has no order of its own: a full sort makes the file reproducible.
    keys = [*integers.fractions.T, *integers.columns.T[::-1], *integers.cells.T]
    rows = np.lexsort(keys)
    sorted_cells = np.ascontiguousarray(integers.cells[rows])
    order = np.zeros(len(rows), np.int64)
    scratch = np.zeros(64 + 64 * len(rows), np.uint8)
    state = new_state(reading=False)
    code_cells(state, scratch, size, sorted_cells, order, *_counts())
    rows = rows[order]
    return integers.rows(rows), rows


def _counts() -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    return np.full(COUNT_NODES, 32768, np.int64), np.zeros(COUNT_NODES, np.uint8)


def neighbors_of(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the neighbors of every Gaussian, see :func:`find_neighbors`."""
    neighbors = np.empty((len(cells), NEIGHBORS), np.int64)
    find_neighbors(np.ascontiguousarray(cells), neighbors)
    return neighbors


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
            total = chunk.logits[near].sum(axis=1)
            total[near[:, 0] < 0] = 0
            class_residuals.append((chunk.logits - ((total + 2) >> 2)).reshape(-1))
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


def write_chunk(
    integers: Integers, size: NDArray[np.int64], scheme: Scheme, model: Model, spent: Any
) -> bytes:
    """Return the bytes of a chunk whose Gaussians are in the order of the file.

    Parameters
    ----------
    integers : Integers
        Cells count from the corner of the chunk's box.
    size : (3,) ndarray of int64
        Cells of the box.
    scheme : Scheme
    model : Model
    spent : (A + 3,) ndarray of int64
        Bytes by column, fractions, class scores and cells; added to.
    """
    length = 64 + len(integers) * (16 + 4 * integers.columns.shape[1] + integers.logits.shape[1])
    shape_columns, rules = _layout(scheme)
    while True:
        data = np.zeros(length, np.uint8)
        state, used = new_state(reading=False), np.zeros_like(spent)
        order = np.zeros(len(integers), np.int64)
        code_cells(state, data, size, integers.cells, order, *_counts())
        used[-1] = state[PLACE]
        code_columns(
            state,
            data,
            neighbors_of(integers.cells),
            integers.fractions,
            integers.columns,
            integers.logits,
            shape_columns,
            rules,
            model.coefficients,
            model.starts,
            used,
        )
        end = finish_writing(state, data)
        if state[FAULT] == LIMIT:
            length *= 2
            continue
        spent += used
        return data[:end].tobytes()


def read_chunk(
    data: bytes,
    count: int,
    size: NDArray[np.int64],
    scheme: Scheme,
    model: Model,
    classes: int,
    spent: NDArray[np.int64],
) -> Integers | None:
    """Return the Gaussians of a chunk; None when its bytes make no sense.

    Parameters
    ----------
    data : bytes
    count : int
    size : (3,) ndarray of int64
        Cells of the box.
    scheme : Scheme
    model : Model
    classes : int
        Class scores of each Gaussian: one less than there are classes.
    spent : (A + 3,) ndarray of int64
        Bytes by column, fractions, class scores and cells; added to.
    """
    buffer = np.frombuffer(data, np.uint8).copy()
    state = new_state(reading=True)
    start_reading(state, buffer)
    cells, fractions = np.zeros((2, count, 3), np.int64)
    columns = np.zeros((count, len(scheme.columns)), np.int64)
    logits = np.zeros((count, classes), np.int64)
    code_cells(state, buffer, size, cells, np.zeros(count, np.int64), *_counts())
    spent[-1] += state[PLACE]
    shape_columns, rules = _layout(scheme)
    code_columns(
        state,
        buffer,
        neighbors_of(cells),
        fractions,
        columns,
        logits,
        shape_columns,
        rules,
        model.coefficients,
        model.starts,
        spent,
    )
    return None if state[FAULT] else Integers(cells, fractions, columns, logits)
