"""An adaptive binary range coder that mixes predictions, in integers only.

The same functions write and read: a bit that is read takes the place of the bit to write. All
numbers are 64-bit integers, so that every machine reads what any other wrote.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

LOW, HIGH, VALUE, PLACE, READING, FAULT, STATE_SIZE = range(7)
"""Entries of the coder's state; FAULT becomes nonzero when bytes make no sense, or do not fit."""
TABLE, LIMIT = 1, 2
"""Faults: a number that no file has, and a buffer that is too small to write to."""

INPUTS = 5
"""Predictions that are mixed for every bit."""
NODES = 72
"""Bits that are told apart in one number: see :func:`code_residual`."""
MANTISSA = 32
LEVELS = 28
RECENT = 255
"""Bits after which a probability forgets; it counts up to that."""
_RATE = 10

_SQUASH_KNOTS = (
    22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768,
    40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438,
    65476, 65500, 65514,
)  # fmt: skip


def _tables() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return logistic function, its inverse, and steps of adaptation, all by integers."""
    squash = np.empty(4096, np.int64)
    for d in range(4096):
        k, w = d >> 7, d & 127
        squash[d] = (_SQUASH_KNOTS[k] * (128 - w) + _SQUASH_KNOTS[k + 1] * w) >> 7
    stretch = np.empty(4096, np.int64)
    d = 0
    for p in range(4096):
        while d < 4095 and squash[d] < p * 16 + 8:
            d += 1
        stretch[p] = d - 2048
    steps = np.array([(2 << 16) // (2 * n + 3) for n in range(RECENT + 1)], np.int64)
    return squash, stretch, steps


SQUASH, STRETCH, STEPS = _tables()


def new_state(reading: bool) -> NDArray[np.int64]:
    """Return the state of a coder that has seen nothing."""
    state = np.zeros(STATE_SIZE, np.int64)
    state[HIGH] = 0xFFFFFFFF
    state[READING] = reading
    return state


@njit(nogil=True, cache=True)
def start_reading(state: Any, data: Any) -> None:
    """Take the first four bytes."""
    for _ in range(4):
        state[VALUE] = (state[VALUE] << 8) | _next(state, data)


@njit(nogil=True, cache=True)
def _next(state: Any, data: Any) -> int:
    """Return the next byte; zeros follow the last one."""
    place = state[PLACE]
    state[PLACE] = place + 1
    return int(data[place]) if place < len(data) else 0


@njit(nogil=True, cache=True)
def code_bit(state: Any, data: Any, bit: int, chance: int) -> int:
    """Write a bit, or read one; ``chance`` of a one is 1 to 65,535 of 65,536."""
    low, high = state[LOW], state[HIGH]
    span = high - low
    middle = low + (span >> 16) * chance + (((span & 0xFFFF) * chance) >> 16)
    if state[READING]:
        bit = 1 if state[VALUE] <= middle else 0
    if bit:
        high = middle
    else:
        low = middle + 1
    while ((low ^ high) & 0xFF000000) == 0:
        if state[READING]:
            state[VALUE] = ((state[VALUE] << 8) & 0xFFFFFFFF) | _next(state, data)
        elif state[PLACE] < len(data):
            data[state[PLACE]] = high >> 24
            state[PLACE] += 1
        else:
            state[FAULT] = LIMIT
        low = (low << 8) & 0xFFFFFFFF
        high = ((high << 8) & 0xFFFFFFFF) | 255
    state[LOW], state[HIGH] = low, high
    return bit


@njit(nogil=True, cache=True)
def finish_writing(state: Any, data: Any) -> int:
    """Write the last byte that is needed; return the number of bytes without zeros at the end."""
    place = state[PLACE]
    if state[LOW] > 0:
        if place >= len(data):
            state[FAULT] = LIMIT
            return 0
        data[place] = (state[LOW] >> 24) + 1
        place += 1
    while place > 0 and data[place - 1] == 0:
        place -= 1
    return int(place)


@njit(nogil=True, cache=True)
def code_plain(state: Any, data: Any, number: int, bits: int) -> int:
    """Code the lowest bits of a number as they are, the highest first."""
    result = 0
    for k in range(bits - 1, -1, -1):
        result = (result << 1) | code_bit(state, data, (number >> k) & 1, 32768)
    return result


@njit(nogil=True, cache=True)
def code_adaptive(
    state: Any, data: Any, bit: int, chances: Any, seen: Any, k: int, most: int
) -> int:
    """Code a bit by one probability, which learns from it."""
    chance = min(max(chances[k], 32), 65504)
    bit = code_bit(state, data, bit, chance)
    n = seen[k]
    chances[k] += (((bit << 16) - chances[k]) * STEPS[n]) >> 16
    if n < most:
        seen[k] = n + 1
    return bit


@njit(nogil=True, cache=True)
def _code_mixed(
    state: Any, data: Any, bit: int, chances: Any, seen: Any, weights: Any, places: Any, node: int
) -> int:
    """Code a bit by a mixture of the probabilities at ``places`` + ``node``."""
    total = 0
    for k in range(INPUTS):
        total += weights[k] * STRETCH[chances[places[k] + node] >> 4]
    total = min(max(total >> 16, -2047), 2047)
    chance = SQUASH[total + 2048]
    bit = code_bit(state, data, bit, chance)
    error = ((bit << 16) - chance) * _RATE
    for k in range(INPUTS):
        place = places[k] + node
        weights[k] += (STRETCH[chances[place] >> 4] * error + 0x8000) >> 16
        n = seen[place]
        moved = chances[place] + ((((bit << 16) - chances[place]) * STEPS[n]) >> 16)
        chances[place] = min(max(moved, 16), 65519)
        if n < RECENT:
            seen[place] = n + 1
    return bit


@njit(nogil=True, cache=True)
def code_residual(
    state: Any,
    data: Any,
    value: int,
    chances: Any,
    seen: Any,
    weights: Any,
    places: Any,
) -> int:
    """Code a whole number: is it zero, its sign, its number of bits, and these.

    Parameters
    ----------
    state, data
        Of the coder.
    value : int
        To write.
    chances, seen : ndarray of int64
        Probabilities, and how often each was used.
    weights : (NODES, INPUTS) ndarray of int64
        Of the mixture.
    places : (INPUTS,) ndarray of int64
        Where the probabilities of each context begin.
    """
    if not _code_mixed(state, data, 1 if value != 0 else 0, chances, seen, weights[0], places, 0):
        return 0
    negative = _code_mixed(
        state, data, 1 if value < 0 else 0, chances, seen, weights[1], places, 1
    )
    size = abs(value)
    bits = 0
    while bits < LEVELS - 1:
        more = 1 if (size >> (bits + 1)) > 0 else 0
        if not _code_mixed(state, data, more, chances, seen, weights[2 + bits], places, 2 + bits):
            break
        bits += 1
    if bits == LEVELS - 1:
        state[FAULT] = TABLE
    number = 1
    modeled = min(bits, 3) if bits < 8 else 0
    for k in range(modeled):
        node = MANTISSA + _mantissa_start(bits) + number - 1
        bit = (size >> (bits - 1 - k)) & 1
        bit = _code_mixed(state, data, bit, chances, seen, weights[node], places, node)
        number = (number << 1) | bit
    rest = bits - modeled
    number = (number << rest) | code_plain(state, data, size, rest)
    return -number if negative else number


@njit(nogil=True, cache=True)
def _mantissa_start(bits: int) -> int:
    """Return where the nodes of numbers of so many bits begin, behind the first."""
    if bits == 1:
        return 0
    if bits == 2:
        return 1
    return 4 + 7 * (bits - 3)


@njit(nogil=True, cache=True)
def initial_chances(zero: int, decay: int, chances: Any) -> None:
    """Fill the nodes of a two-sided geometric distribution, in integers.

    Parameters
    ----------
    zero : int
        Chance of a number that is not zero, of 65,536.
    decay : int
        Ratio of the chances of successive numbers, of 65,536.
    chances : (NODES,) ndarray of int64
    """
    chances[:] = 32768
    chances[0] = zero
    power = decay << 14  # decay ** (2 ** level), of 2 ** 30
    powers = np.zeros(LEVELS, np.int64)
    for level in range(LEVELS):
        powers[level] = power
        chances[2 + level] = power >> 14
        power = (power * power) >> 30
    for bits in range(1, 8):
        for k in range(min(bits, 3)):
            half = powers[bits - 1 - k]
            upper = (half << 16) // ((1 << 30) + half)
            for number in range(1 << k, 2 << k):
                chances[MANTISSA + _mantissa_start(bits) + number - 1] = upper
    for k in range(NODES):
        chances[k] = min(max(chances[k], 64), 65472)
