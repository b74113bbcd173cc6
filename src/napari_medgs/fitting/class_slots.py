"""Many classes are fitted in few slots: classes that lie far apart share one.

A Gaussian sees the classes of its neighborhood, and no two classes of one neighborhood share a
slot (a coloring of the graph of neighboring classes). A fit of 188 classes of a brain takes 23
slots, one of 100 cells 8: its memory and time grow with the classes at a place. The fitted slots
are then written as the logits of the nearest class of each slot; all other classes get a logit
below the lowest of these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.fitting.problem import UNLABELED, FitProblem
from napari_medgs.rendering.api import MANY_CLASSES
from napari_medgs.rendering.parameters import GEOMETRY

BLOCK = 4  # voxels; neighborhoods are made of such blocks
REACH = 2  # blocks between classes that share a slot, at least
ABSENT = 6.0  # logits below the lowest slot of a Gaussian: a class that is nowhere near

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class ClassSlots:
    """Which slot every class is fitted in, and which class a slot means at a place.

    Attributes
    ----------
    slot_of : (K,) ndarray of uint8
        By class; background alone has slot 0.
    nearest : (S, z, y, x) ndarray of uint8
        The nearest class of every slot, by blocks of voxels of the cropped stack.
    images : int
        Image channels before the classes.
    """

    slot_of: NDArray[np.uint8]
    nearest: NDArray[np.uint8]
    images: int

    @property
    def count(self) -> int:
        """Slots, that of background included."""
        return len(self.nearest)

    def reduce_problem(self, problem: FitProblem) -> FitProblem:
        """Return the problem with slots as its classes; ``info`` still speaks of all classes."""
        table = np.full(256, UNLABELED, np.uint8)
        table[: len(self.slot_of)] = self.slot_of
        background = problem.background[: self.images + self.count]  # 0 behind class 0
        target = replace(problem.target, labels=table[problem.target.labels], classes=self.count)
        return replace(problem, target=target, background=background)

    def reduce(self, parameters: Floats) -> Floats:
        """Return a table of classes (N, 14 + M + K) as one of slots (N, 14 + M + S)."""
        first = GEOMETRY + self.images
        logits = np.take_along_axis(parameters[:, first:], self._classes(parameters), axis=1)
        return np.ascontiguousarray(np.concatenate([parameters[:, :first], logits], axis=1))

    def expand(self, parameters: Floats) -> Floats:
        """Return a table of slots (N, 14 + M + S) as one of classes (N, 14 + M + K).

        Centers are those of the stack that the slots were made for.
        """
        first = GEOMETRY + self.images
        slots = parameters[:, first:]
        out = np.empty((len(parameters), first + len(self.slot_of)), np.float32)
        out[:, :first] = parameters[:, :first]
        out[:, first:] = slots.min(axis=1, keepdims=True) - np.float32(ABSENT)
        np.put_along_axis(out[:, first:], self._classes(parameters), slots, axis=1)
        return out

    def _classes(self, parameters: Floats) -> NDArray[np.int64]:
        """Return the class (N, S) that every slot means at the Gaussians' centers."""
        x, y, z = (np.rint(parameters[:, k]).astype(np.int64) // BLOCK for k in range(3))
        shape = self.nearest.shape[1:]
        z, y, x = (np.clip(at, 0, n - 1) for at, n in zip((z, y, x), shape, strict=True))
        return self.nearest[:, z, y, x].T.astype(np.int64)


def class_slots(problem: FitProblem) -> ClassSlots | None:
    """Return slots for the classes of a problem; None where every class has its own channel.

    Parameters
    ----------
    problem : FitProblem
        With one class index a voxel.
    """
    classes = problem.target.classes
    if classes <= MANY_CLASSES:
        return None
    present = _present(problem.target.labels, problem.target.seg_weights, classes)
    slot_of = _colors(_neighbors(present))
    count = int(slot_of.max()) + 1
    if count >= classes:
        return None
    return ClassSlots(slot_of, _nearest(present, slot_of, count), len(problem.target.images))


def _present(labels: NDArray[np.uint8], weights: Floats, classes: int) -> NDArray[np.bool_]:
    """Return which classes blocks hold where labels count, (K, z, y, x); without background."""
    shape = tuple(-(-n // BLOCK) for n in labels.shape)
    present = np.zeros((classes, *shape), np.bool_)
    rows, columns = (np.arange(n) // BLOCK for n in labels.shape[1:])
    place = (rows[:, None] * shape[2] + columns).astype(np.int64) * 256
    for z in np.flatnonzero(weights):
        codes = np.flatnonzero(np.bincount((place + labels[z]).ravel()))
        block, kind = codes // 256, codes % 256
        known = (kind > 0) & (kind < classes)
        present[kind[known], z // BLOCK, block[known] // shape[2], block[known] % shape[2]] = True
    return present


def _neighbors(present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which classes (K, K) lie within reach of each other."""
    from scipy.ndimage import maximum_filter

    classes, shape = len(present), present.shape[1:]
    near = np.zeros((classes, classes), np.bool_)
    for k in range(1, classes):
        hits = np.argwhere(present[k])
        if not len(hits):
            continue
        box = tuple(
            slice(max(0, low - REACH), min(size, high + REACH + 1))
            for low, high, size in zip(hits.min(axis=0), hits.max(axis=0), shape, strict=True)
        )
        wide = maximum_filter(present[k][box], 2 * REACH + 1, mode="constant")
        near[k] = present[(slice(None), *box)][:, wide].any(axis=1)
    near |= near.T
    np.fill_diagonal(near, False)
    return near


def _colors(near: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Color a graph greedily, classes of many neighbors first; background has color 0 alone."""
    colors = np.zeros(len(near), np.uint8)
    for k in 1 + np.argsort(-near[1:].sum(axis=1), kind="stable"):
        taken = np.zeros(len(near) + 1, np.bool_)
        taken[colors[near[k]]] = True
        taken[0] = True
        colors[k] = np.argmin(taken)
    return colors


def _nearest(
    present: NDArray[np.bool_], slot_of: NDArray[np.uint8], count: int
) -> NDArray[np.uint8]:
    """Return the nearest class of every slot at every block, (S, z, y, x)."""
    from scipy.ndimage import distance_transform_edt

    nearest = np.zeros((count, *present.shape[1:]), np.uint8)
    for slot in range(1, count):
        own = np.zeros(present.shape[1:], np.uint8)
        for k in np.flatnonzero(slot_of == slot):
            own[present[k]] = k
        if own.any():
            place = distance_transform_edt(own == 0, return_distances=False, return_indices=True)
            nearest[slot] = own[tuple(place)]
        else:  # a class without a voxel in the crop
            nearest[slot] = np.flatnonzero(slot_of == slot)[0]
    return nearest
