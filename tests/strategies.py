"""Random inputs for property tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Any orientation: a permutation with flips, turned up to 30 degrees, anisotropic, moved."""
    order = draw(st.permutations(range(3)))
    signs = draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=3))
    sizes = draw(st.lists(st.floats(0.2, 10), min_size=3, max_size=3))
    angles = draw(st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3))
    shift = draw(st.lists(st.floats(-500, 500), min_size=3, max_size=3))
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [k for k in range(3) if k != axis]
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    affine = np.eye(4)
    affine[:3, :3] = turn @ (np.eye(3)[:, order] * signs) * sizes
    affine[:3, 3] = shift
    return affine


WRONG_VALUES = (
    None, True, -1, 0, 1, 2, 7, 2.5, -1e-300, 1e300, -1e9, float("nan"), float("inf"), 10**30,
    10**400,
    "", "a", "x" * 500, "\ud800", "\x1b[31m", [], [0], [1, 2], [1, 2, 3], ["a", None], [[]],
    [[0.0] * 4] * 4, {}, {"a": 1}, {"shape": [1, 2, 3]}, [{}], [1e300] * 3,
)  # fmt: skip
"""What a damaged or malicious file may say in place of anything."""


def places_in(record: object, before: tuple = ()) -> list[tuple]:
    """Every entry of a JSON value, as the keys that lead to it."""
    pairs = (
        record.items()
        if isinstance(record, dict)
        else enumerate(record[:4])
        if isinstance(record, list)
        else ()
    )
    found = [before] if before else []
    for key, value in pairs:
        found += places_in(value, (*before, key))
    return found


@st.composite
def damaged(draw: st.DrawFn, record: dict) -> dict:
    """A JSON object of which one or two entries are replaced, removed or added."""
    import copy

    record = copy.deepcopy(record)
    for _ in range(draw(st.integers(1, 2))):
        *path, last = draw(st.sampled_from(places_in(record)))
        holder = record
        for key in path:
            holder = holder[key]
        if draw(st.integers(0, 5)) == 0:
            del holder[last]
        else:
            holder[last] = copy.deepcopy(draw(st.sampled_from(WRONG_VALUES)))
        if not record:
            break
    return record
