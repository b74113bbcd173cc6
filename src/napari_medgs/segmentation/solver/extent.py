"""Where a class ends when nothing else stops it: ways far longer than those that are known.

Within a stroked slice everything that is a class's lies around its strokes, so that a way several
times as long as the longest one there leads out of the class. Slices that are labelled in full say
nothing of that kind (all ways in them are short), and between them there is no need for an end.

Who annotates several slices spreads them over the structure. Ways between the outermost two
therefore tell how long ways get at all, and a class that leaks past the last slice (from one
vertebra to the next, say) is stopped by that. What lies within one gap of that slice is
spared: the tip of a structure may well cost more than its middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.prompts.markers import Evidence

FARTHEST = 95  # percentile of a class's ways that counts as its farthest


@dataclass(frozen=True)
class Ends:
    """Path costs at which everything belongs to the background.

    Attributes
    ----------
    cost : float
        Anywhere.
    beyond : float
        Before ``first`` and after ``last``.
    axis : int
        Normal of the annotated slices, in slice-first axes.
    first, last : float
        In slices.
    """

    cost: float
    beyond: float
    axis: int = 0
    first: float = -np.inf
    last: float = np.inf

    def at(self, points: NDArray[Any]) -> Floats:
        """Return the cost at points (P, 3) in slice-first voxels."""
        place = points[:, self.axis]
        outside = (place < self.first) | (place > self.last)
        return np.where(outside, np.float32(min(self.beyond, self.cost)), np.float32(self.cost))


def find_ends(
    points: NDArray[np.float64], distance: Floats, evidence: Evidence, reach: float, never: float
) -> Ends:
    """Learn from a solve where classes end.

    Parameters
    ----------
    points : (N, 3) ndarray
        Nodes in slice-first voxels.
    distance : (K, N) ndarray of float32
        Path costs from every class's seeds.
    evidence : Evidence
    reach : float
        Longest way over the farthest within the stroked slices; 0 for no ends.
    never : float
        Cost that nothing reaches.
    """
    if reach <= 0 or not (evidence.classes == 0).any():
        return Ends(never, never)
    axis, places = evidence.annotated_planes()
    place = np.round(points[:, axis])
    if len(places) < 2:
        on = np.isin(place, places) if len(places) else np.ones(len(points), np.bool_)
        cost = reach * _farthest(distance[:, on]) or never
        return Ends(cost, cost)
    stroked = np.setdiff1d(places, evidence.painted.get(axis, places[:0]))
    cost = reach * _farthest(distance[:, np.isin(place, stroked)]) or never
    between = (place >= places[0]) & (place <= places[-1])
    beyond = _farthest(distance[:, between]) or never
    first, last = float(places[0]), float(places[-1])
    return Ends(
        cost,
        beyond,
        axis,
        first - float(places[1] - places[0]),
        last + float(places[-1] - places[-2]),
    )


def _farthest(distance: Floats) -> float:
    """Return the longest of the classes' own ways to nodes, the background's left out."""
    winner, own = distance.argmin(axis=0), distance.min(axis=0)
    ways = [own[winner == k] for k in range(1, len(distance))]
    return max((float(np.percentile(w, FARTHEST)) for w in ways if len(w)), default=0.0)
