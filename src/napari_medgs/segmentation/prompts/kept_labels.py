"""An initial mask as a solve sees it: what stays of it, and what prompts contradict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.prompts.released import Box, ReleasedPart, overlap, smallest_box

NO_CLASS = 255  # of an initial mask, for a label without markers
OTHER_COST = 10.0  # nats, of classes that no prompt near names: never, unless all else is as bad


@dataclass(frozen=True, eq=False)
class KeptPart:
    """What prompts near each other set free, slice-first.

    Attributes
    ----------
    wanted : int
        The class that they name; ``NO_CLASS`` where they only deny the mask's.
    box : tuple of slice
    free : ndarray of bool
        Which voxels of the box.
    nearness : ndarray of float32
        Distance to the nearest such prompt over its depth in the wrong label; infinite where
        nothing is free.
    origin : ReleasedPart
        In canonical axes.
    """

    wanted: int
    box: tuple[slice, ...]
    free: NDArray[np.bool_]
    nearness: Floats
    origin: ReleasedPart

    @classmethod
    def of(cls, part: ReleasedPart, wanted: int, axes: tuple[int, int, int]) -> KeptPart:
        """Return a part with its class, its axes slice-first."""
        free, nearness = part.free.transpose(axes), part.nearness.transpose(axes)
        return cls(wanted, tuple(part.box[a] for a in axes), free, nearness, part)

    def at(
        self, voxels: Sequence[NDArray[Any]]
    ) -> tuple[NDArray[np.int64], tuple[NDArray[Any], ...]]:
        """Return which of some voxels (one array by axis) lie in the box, and where in it."""
        inside = np.ones(len(voxels[0]), np.bool_)
        for axis, s in zip(voxels, self.box, strict=True):
            inside &= (axis >= s.start) & (axis < s.stop)
        some = np.flatnonzero(inside)
        return some, tuple(a[some] - s.start for a, s in zip(voxels, self.box, strict=True))


@dataclass(frozen=True)
class KeptLabels:
    """An initial mask, slice-first: what stays of it, and what prompts contradict.

    Attributes
    ----------
    where : (Z, Y, X) ndarray of bool
        Voxels that keep their class.
    classes : (Z, Y, X) ndarray of uint8
        Of the mask; 255 for a class that has no marker any more. The same array as long as the
        mask and the classes are the same.
    free : (Z, Y, X) ndarray of bool, optional
        Voxels that may take any class, whatever prompts say.
    parts : tuple of KeptPart
        What prompts set free. The same origins as long as the prompts are the same.
    """

    where: NDArray[np.bool_]
    classes: NDArray[np.uint8]
    free: NDArray[np.bool_] | None = None
    parts: tuple[KeptPart, ...] = ()

    def enforce(self, labels: NDArray[np.uint8]) -> None:
        """Write the labels that stay, and those that no prompt disputes, in place."""
        np.copyto(labels, self.classes, where=self.where)
        for part in self.parts:
            mine, own = labels[part.box], self.classes[part.box]
            where = np.nonzero(part.free & (mine != own) & (own != NO_CLASS))
            voxels = [axis + s.start for axis, s in zip(where, part.box, strict=True)]
            refused = ~self._is_possible(voxels, mine[where], own[where])
            mine[tuple(axis[refused] for axis in where)] = own[where][refused]

    def _is_possible(
        self, voxels: Sequence[NDArray[Any]], classes: NDArray[Any], own: NDArray[Any]
    ) -> NDArray[np.bool_]:
        """Return whether voxels (one array by axis) may take classes other than the mask's."""
        possible = classes == own
        if self.free is not None:
            possible |= self.free[tuple(voxels)]
        for part in self.parts:
            some, at = part.at(voxels)
            wanted = part.free[at]
            if part.wanted != NO_CLASS:
                wanted &= classes[some] == part.wanted
            possible[some] |= wanted
        return possible

    def add_cost(self, points: NDArray[Any], cost: Floats, weight: float) -> None:
        """Add the cost of other classes than the mask's near prompts that contradict it.

        That the mask is wrong has the probability ``exp(-nearness) / 2``. Classes that no such
        prompt names near there are hardly possible.

        Parameters
        ----------
        points : (P, 3) ndarray
            In slice-first voxels.
        cost : (P, K) ndarray of float32
            Changed in place.
        weight : float
        """
        limit = np.asarray(self.classes.shape) - 1
        place = tuple(np.clip(np.round(points).astype(np.int64), 0, limit).T)
        nearness, own = self._nearness(place), self.classes[place]
        there = np.flatnonzero(np.isfinite(nearness) & (own < cost.shape[1]))
        wrong = 0.5 * np.exp(-nearness[there])
        more = (np.float32(weight) * np.log((1 - wrong) / wrong)).astype(np.float32)
        cost[there] += more[:, None]
        cost[there, own[there]] -= more
        near = tuple(axis[there] for axis in place)
        for k in range(cost.shape[1]):
            wanted = np.full(len(there), k)
            cost[there[~self._is_possible(near, wanted, own[there])], k] += OTHER_COST

    def _nearness(self, voxels: tuple[NDArray[np.int64], ...]) -> Floats:
        """Return how near prompts are that set voxels free, (P,); infinite elsewhere."""
        nearness = np.full(len(voxels[0]), np.inf, np.float32)
        free = np.flatnonzero(~self.where[voxels])
        voxels = tuple(axis[free] for axis in voxels)
        for part in self.parts:
            some, at = part.at(voxels)
            nearness[free[some]] = np.minimum(nearness[free[some]], part.nearness[at])
        return nearness

    def changed_since(self, before: KeptLabels) -> list[Box] | None:
        """Return boxes around what prompts free otherwise than they did before.

        Parameters
        ----------
        before : KeptLabels

        Returns
        -------
        list of tuple of slice, or None
            None where the mask is another one.
        """
        if self.classes is not before.classes or self.free is not before.free:
            return None
        ours, theirs = ({id(p.origin): p.box for p in k.parts} for k in (self, before))
        boxes = []
        for key in ours.keys() ^ theirs.keys():
            box = {**ours, **theirs}[key]
            now, then = self._freed_in(box), before._freed_in(box)
            never = np.full([s.stop - s.start for s in box], np.inf, np.float32)
            differs = np.zeros(never.shape, np.bool_)
            for k in now.keys() | then.keys():
                differs |= now.get(k, never) != then.get(k, never)
            inner = smallest_box(differs)
            if inner[0].stop:
                pairs = zip(inner, box, strict=True)
                boxes.append(tuple(slice(s.start + a.start, s.start + a.stop) for a, s in pairs))
        return boxes

    def _freed_in(self, box: Box) -> dict[int, Floats]:
        """Return how near prompts are in a box, by the class that they want."""
        found: dict[int, Floats] = {}
        for part in self.parts:
            shared = overlap(box, part.box)
            if shared is not None:
                size = [s.stop - s.start for s in box]
                mine = found.setdefault(part.wanted, np.full(size, np.inf, np.float32))
                np.minimum(mine[shared[0]], part.nearness[shared[1]], out=mine[shared[0]])
        return found

    def parts_at(self, voxels: NDArray[Any]) -> list[Box]:
        """Return the boxes of the parts that voxels (P, 3) lie in."""
        axes = tuple(voxels.T)
        return [part.box for part in self.parts if len(part.at(axes)[0])]
