"""The numbers of one chunk, coded Gaussian by Gaussian with what is known already as context."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs.io.codec.cells import COUNT_NODES, NEIGHBORS, code_cells
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
    new_state,
    start_reading,
)
from napari_medgs.io.codec.columns import FINEST, LARGEST, Integers, Scheme
from napari_medgs.io.codec.model import UNIT, Model, neighbors_of
from napari_medgs.io.codec.tables import CONTEXTS, LOGIT_CONTEXTS, Tables


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
    chances: Any,
    seen: Any,
    weights: Any,
    class_chances: Any,
    class_seen: Any,
    class_weights: Any,
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
    coefficients : ndarray of int64
        Of the model.
    chances, seen, weights, class_chances, class_seen, class_weights : ndarrays
        See :class:`Tables`; they learn.
    spent : (A + 2,) ndarray of int64
        Bytes per column, then of fractions and class scores; added to.
    """
    count, kept = columns.shape
    classes = logits.shape[1]
    last_shape = max(shape_columns[0], shape_columns[1], shape_columns[2])
    places = np.zeros(INPUTS, np.int64)
    residuals = np.zeros(kept + 2, np.int64)
    bits = np.zeros(3, np.int64)
    levels = np.zeros(count, np.int64)  # of most class scores of each Gaussian
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
        last: Any = np.int64(0)
        usual = np.int64(0)
        if has and classes:
            for n in range(NEIGHBORS):
                usual += levels[neighbors[i, n]]
            usual = (usual + 2) >> 2
        for k in range(classes):
            total, low, high = np.int64(0), np.int64(0), np.int64(0)
            near = np.int64(0)
            if has:
                near = logits[neighbors[i, 0], k] - levels[neighbors[i, 0]]
                low = high = near
                for n in range(NEIGHBORS):
                    value = logits[neighbors[i, n], k] - levels[neighbors[i, n]]
                    total += value
                    low, high = min(low, value), max(high, value)
            apart = (total + 2) >> 2
            guess = usual + apart
            spread = min(_bucket(high - low), 7)
            level = min(_bucket(apart), 7) * 2 + (1 if apart < 0 else 0)
            places[0] = (k & 255) * NODES
            places[1] = (LOGIT_CONTEXTS + spread * 16 + level) * NODES
            places[2] = (2 * LOGIT_CONTEXTS + min(run, 15) * 8 + min(different, 7)) * NODES
            side = near - apart
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
            if residual and residual == last:
                usual += residual  # the scores of absent classes lie at one level
                last = 0
            else:
                last = residual
            if residual:
                different += 1
                run = 0
            else:
                run += 1
        levels[i] = usual
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
    counts = np.full(COUNT_NODES, 32768, np.int64), np.zeros(COUNT_NODES, np.uint8)
    code_cells(state, scratch, size, sorted_cells, order, *counts)
    rows = rows[order]
    return integers.rows(rows), rows


def write_chunk(
    integers: Integers,
    size: NDArray[np.int64],
    scheme: Scheme,
    model: Model,
    spent: Any,
    tables: Tables | None = None,
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
    tables : Tables, optional
        To begin with; not changed.
    """
    kept, classes = integers.columns.shape[1], integers.logits.shape[1]
    length = 64 + len(integers) * (16 + 4 * kept + classes)
    start = Tables.first(model, classes) if tables is None else tables
    while True:
        data = np.zeros(length, np.uint8)
        state, used = new_state(reading=False), np.zeros_like(spent)
        _code(state, data, integers, size, scheme, model, start.copy(), used)
        end = finish_writing(state, data)
        if state[FAULT] == LIMIT:
            length *= 2
            continue
        spent += used
        return data[:end].tobytes()


def teach(
    chunks: list[tuple[Integers, NDArray[np.int64]]], scheme: Scheme, model: Model
) -> Tables:
    """Return tables that have seen a field: for others like it.

    Parameters
    ----------
    chunks : list of (Integers, (3,) ndarray)
        With the size of the box of each.
    scheme : Scheme
    model : Model
    """
    classes = chunks[0][0].logits.shape[1]
    tables = Tables.first(model, classes)
    for integers, size in chunks:
        state = new_state(reading=False)
        spent = np.zeros(integers.columns.shape[1] + 3, np.int64)
        # Nothing is kept of what is written: a buffer that is too small does no harm.
        _code(state, np.zeros(8, np.uint8), integers, size, scheme, model, tables, spent)
    return tables.relax()


def _code(
    state: Any,
    data: Any,
    integers: Integers,
    size: NDArray[np.int64],
    scheme: Scheme,
    model: Model,
    tables: Tables,
    spent: Any,
) -> None:
    """Write a chunk, or fill it when reading; the tables learn."""
    order = np.zeros(len(integers), np.int64)
    counts = (tables.count_chances, tables.count_seen)
    code_cells(state, data, size, integers.cells, order, *counts)
    spent[-1] += state[PLACE]
    shape_columns, rules = _layout(scheme)
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
        tables.chances,
        tables.seen,
        tables.weights,
        tables.class_chances,
        tables.class_seen,
        tables.class_weights,
        spent,
    )


def read_chunk(
    data: bytes,
    count: int,
    size: NDArray[np.int64],
    scheme: Scheme,
    model: Model,
    classes: int,
    spent: NDArray[np.int64],
    tables: Tables | None = None,
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
    tables : Tables, optional
        To begin with; not changed.
    """
    buffer = np.frombuffer(data, np.uint8).copy()
    state = new_state(reading=True)
    start_reading(state, buffer)
    cells, fractions = np.zeros((2, count, 3), np.int64)
    columns = np.zeros((count, len(scheme.columns)), np.int64)
    found = Integers(cells, fractions, columns, np.zeros((count, classes), np.int64))
    start = Tables.first(model, classes) if tables is None else tables.copy()
    _code(state, buffer, found, size, scheme, model, start, spent)
    return None if state[FAULT] else found
