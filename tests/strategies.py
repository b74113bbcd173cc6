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
