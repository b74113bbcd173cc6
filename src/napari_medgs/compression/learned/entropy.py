"""Whole latents as bits, by fixed tables of how often each number occurs: integers only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_medgs.compression.learned.card import LEVELS
from napari_medgs.errors import ParameterError
from napari_medgs.io.codec.coder import (
    PLACE,
    code_bit,
    code_plain,
    finish_writing,
    new_state,
    start_reading,
)

LOWEST = -(LEVELS // 2)
"""The smallest latent; the largest is -LOWEST - 1."""
_PRIOR = 8.0  # counts of a smooth distribution, added to those of the training fields
_UNIT = 1 << 16


def frequencies_of(whole: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return how often each latent has each number, smoothed (L, LEVELS), all positive.

    Parameters
    ----------
    whole : (B, L) ndarray of int
        Latents of the training fields.
    """
    numbers = np.arange(LEVELS) + LOWEST
    tables = np.empty((whole.shape[1], LEVELS), np.int32)
    for k, column in enumerate(whole.T):
        middle, spread = column.mean(), max(column.std() * np.sqrt(3) / np.pi, 0.15)
        away = np.abs(numbers - middle) / spread
        logistic = np.exp(-away) / (1 + np.exp(-away)) ** 2
        counts = np.bincount(column - LOWEST, minlength=LEVELS).astype(float)
        shares = counts + _PRIOR * logistic / logistic.sum()
        tables[k] = np.maximum(np.rint(shares / shares.sum() * _UNIT), 1)
    return tables


def bits_of(whole: NDArray[np.int64], frequencies: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the bits (B,) that blocks take under the tables."""
    shares = frequencies / frequencies.sum(axis=1, keepdims=True)
    columns = np.arange(whole.shape[1])
    result: NDArray[np.float64] = -np.log2(shares[columns, whole - LOWEST]).sum(axis=1)
    return result


def _chances(frequencies: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return chances of a one (L, LEVELS) at the nodes of the tree of binary decisions."""
    chances = np.zeros((len(frequencies), LEVELS), np.int64)
    sums = frequencies.astype(np.int64)
    node = LEVELS
    while node > 1:
        pairs = sums.reshape(len(sums), -1, 2)
        node //= 2
        sums = pairs.sum(axis=2)
        chances[:, node : 2 * node] = (pairs[:, :, 1] << 16) // np.maximum(sums, 1)
    return np.clip(chances, 1, 65535)


def write_latents(
    whole: NDArray[np.int64],
    frequencies: NDArray[np.int32],
    centers: NDArray[np.int64] | None = None,
    bits: int = 0,
) -> bytes:
    """Return latents as bytes.

    Parameters
    ----------
    whole : (B, L) ndarray of int
    frequencies : (L, LEVELS) ndarray of int32
    centers : (B, 3) ndarray of int, optional
        Middles of the blocks, of so many bits.
    bits : int

    Examples
    --------
    >>> whole = np.array([[0, 3, -2], [1, 3, -2]])
    >>> tables = frequencies_of(whole)
    >>> bool((read_latents(write_latents(whole, tables), 2, tables)[0] == whole).all())
    True
    """
    chances = _chances(frequencies)
    data = np.zeros(8 + whole.size * 12 + (0 if centers is None else centers.size * 3), np.uint8)
    state = new_state(False)
    for k in range(len(whole)):
        for number in () if centers is None else centers[k]:
            code_plain(state, data, int(number), bits)
        for table, number in zip(chances, whole[k] - LOWEST, strict=True):
            _code(state, data, table, int(number))
    return data[: finish_writing(state, data)].tobytes()


def read_latents(
    data: bytes, count: int, frequencies: NDArray[np.int32], bits: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return latents (B, L) and middles (B, 3) of bytes.

    Parameters
    ----------
    data : bytes
    count : int
        B.
    frequencies : (L, LEVELS) ndarray of int32
    bits : int
        Of the middles; 0 where there are none.

    Raises
    ------
    ParameterError
        When bytes are left over or missing.
    """
    # A hostile count would keep the coder busy for long; likely numbers take a share of a bit.
    likely = frequencies.max(axis=1) / frequencies.sum(axis=1)
    if 0.9 * count * (3 * bits - np.log2(likely).sum()) > 8 * (len(data) + 8):
        raise ParameterError("its latents end too early")
    chances = _chances(frequencies)
    array = np.frombuffer(data, np.uint8).copy()  # the coder takes writable arrays only
    state = new_state(True)
    start_reading(state, array)
    whole = np.empty((count, len(chances)), np.int64)
    centers = np.zeros((count, 3), np.int64)
    for k in range(count):
        for axis in range(3 if bits else 0):
            centers[k, axis] = code_plain(state, array, 0, bits)
        for n, table in enumerate(chances):
            whole[k, n] = _code(state, array, table, 0)
        if state[PLACE] > len(array) + 8:
            raise ParameterError("its latents end too early")
    if state[PLACE] < len(array):
        raise ParameterError("bytes follow its latents")
    return whole + LOWEST, centers


def _code(
    state: NDArray[np.int64], data: NDArray[np.uint8], table: NDArray[np.int64], number: int
) -> int:
    """Code a number from 0 to LEVELS - 1, its highest bit first."""
    node, bit = 1, LEVELS >> 1
    while bit:
        node = 2 * node + code_bit(state, data, int(bool(number & bit)), table[node])
        bit >>= 1
    return node - LEVELS
