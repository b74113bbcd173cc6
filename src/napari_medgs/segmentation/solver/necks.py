"""Necks along the slice axis: where the section of a class breaks off and widens again.

A class that leaks into its like neighbor (from one disc of a stack to the next) goes there through
a gap that only a bridge crosses, so that its section shrinks to a part and grows again. A tube
keeps its section, and what ends does not grow again. What lies past a neck, without a marker
there, is not of the class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.prompts.markers import Markers

MIN_NODES = 30.0  # nodes in a section on both sides of a neck: those of fewer are too noisy
REGROWTH = 0.5  # part of the section before a neck that it reaches again
SMOOTHING = 1 / 6  # of the profile, in distances of nodes


def nodes_per_slice(position: NDArray[Any], slices: int, sigma: float) -> NDArray[np.float64]:
    """Return how many nodes lie around every slice.

    Parameters
    ----------
    position : (N,) ndarray
        Of the nodes along the axis, in slices.
    slices : int
    sigma : float
        Standard deviation of the smoothing, in slices.

    Returns
    -------
    (slices,) ndarray

    Examples
    --------
    >>> import numpy as np
    >>> nodes_per_slice(np.array([0.0, 1.5, 2.0]), 4, 0.0).tolist()
    [1.0, 0.5, 1.5, 0.0]
    """
    from scipy.ndimage import gaussian_filter1d

    place = np.clip(position, 0, slices - 1)
    low = np.minimum(place.astype(np.int64), slices - 2)
    part = place - low
    total = np.bincount(low, 1 - part, slices) + np.bincount(low + 1, part, slices)
    return np.asarray(gaussian_filter1d(total, sigma) if sigma > 0.2 else total)


def first_neck(profile: NDArray[np.float64], ratio: float, known: float = 0.0) -> int | None:
    """Return where a profile first breaks off and grows again, None for nowhere.

    Parameters
    ----------
    profile : (S,) ndarray
        Nodes of every section, from the last marked one outwards.
    ratio : float
        Part of the sections on both sides below which a section is a neck.
    known : float
        Nodes of the largest section between marked ones.

    Returns
    -------
    int or None
        The narrowest place.

    Examples
    --------
    >>> import numpy as np
    >>> first_neck(np.array([60.0, 50, 4, 8, 55, 60, 3, 70]), 0.3)
    2
    >>> first_neck(np.array([60.0, 50, 4, 2, 1, 0]), 0.3) is None
    True
    """
    before = np.maximum(np.maximum.accumulate(profile), known)
    after = np.maximum.accumulate(profile[::-1])[::-1]
    clear = (after > REGROWTH * before) & (np.minimum(before, after) >= MIN_NODES)
    narrow = clear & (profile < ratio * np.minimum(before, after))
    if not narrow.any():
        return None
    start = int(narrow.argmax())
    end = start + int(np.append(~narrow[start:], True).argmax())
    return start + int(profile[start:end].argmin())


def cut_past_necks(
    distance: Floats,
    position: NDArray[Any],
    markers: Markers,
    axis: int,
    slices: int,
    ratio: float,
    node_distance: float,
    unreachable: float,
) -> None:
    """Take from every class what lies past a neck, in place.

    Parameters
    ----------
    distance : (K, N) ndarray of float32
        Path costs from every class's seeds.
    position : (N,) ndarray
        Of the nodes along the axis, in slices.
    markers : Markers
    axis : int
        Normal of the slices.
    slices : int
        Number of slices.
    ratio : float
        See :func:`first_neck`; 0 for no necks.
    node_distance : float
        Mean distance of nodes, in slices.
    unreachable : float
        Cost that stands for "no path".
    """
    if ratio <= 0 or slices < 4:
        return
    sigma = SMOOTHING * node_distance
    every = nodes_per_slice(position, slices, sigma)
    fullness = np.maximum(every, 1e-9) / every.mean()
    winner = distance.argmin(axis=0)
    for k in range(1, len(distance)):
        mine = np.flatnonzero(winner == k)
        marked = markers.voxels[markers.classes == k, axis]
        if not len(marked) or len(mine) < 2 * MIN_NODES:
            continue
        place = position[mine]
        profile = nodes_per_slice(place, slices, sigma) / fullness
        first, last = int(marked.min()), int(marked.max())
        known = float(profile[first : last + 1].max())
        above = first_neck(profile[last:], ratio, known)
        below = first_neck(profile[first::-1], ratio, known)
        if above is not None:
            distance[k, mine[place > last + above]] = unreachable
        if below is not None:
            distance[k, mine[place < first - below]] = unreachable
