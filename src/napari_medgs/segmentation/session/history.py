"""Undo and redo of changed voxels, kept as differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._util.threads import run_chunks

CHUNK = 2**20


@dataclass(frozen=True)
class Delta:
    """Voxels of one array that changed at once.

    Attributes
    ----------
    where : (P,) ndarray of int64
        Flat indices, increasing.
    before, after : (P,) ndarray
        Their values.
    """

    where: NDArray[np.int64]
    before: NDArray[Any]
    after: NDArray[Any]

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self.where.nbytes + self.before.nbytes + self.after.nbytes

    def apply(self, array: NDArray[Any]) -> None:
        """Set the changed voxels of a contiguous array to ``after``, in place."""
        array.reshape(-1)[self.where] = self.after

    def revert(self, array: NDArray[Any]) -> None:
        """Set the changed voxels of a contiguous array to ``before``, in place."""
        array.reshape(-1)[self.where] = self.before

    def box(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """Return the smallest box of the array that holds the change."""
        if not len(self.where):
            return tuple(slice(0, 0) for _ in shape)
        places = np.unravel_index(self.where, shape)
        return tuple(slice(int(p.min()), int(p.max()) + 1) for p in places)


def flat_indices(
    inside: tuple[NDArray[Any], ...], box: tuple[slice, ...], shape: tuple[int, ...]
) -> NDArray[np.int64]:
    """Return flat indices of an array for index arrays within a box of it."""
    corner = [s.indices(n)[0] for s, n in zip(box, shape, strict=True)]
    return np.ravel_multi_index(
        tuple(c + k for c, k in zip(inside, corner, strict=True)), shape
    ).astype(np.int64)


def difference(before: NDArray[Any], after: NDArray[Any]) -> Delta:
    """Return what changed between two arrays of the same shape.

    Parameters
    ----------
    before, after : ndarray

    Returns
    -------
    Delta

    Examples
    --------
    >>> import numpy as np
    >>> delta = difference(np.array([0, 0, 1]), np.array([0, 2, 1]))
    >>> delta.where.tolist(), delta.after.tolist()
    ([1], [2])
    """
    old, new = before.reshape(-1), after.reshape(-1)
    where = _changed(old, new)
    return Delta(where, old[where], new[where])


def _changed(old: NDArray[Any], new: NDArray[Any]) -> NDArray[np.int64]:
    """Return where two flat arrays differ; masks of large images are compared in threads."""
    if old.size < CHUNK or old.dtype == bool or new.dtype == bool:
        return np.flatnonzero(old != new)
    starts = np.append(np.arange(0, old.size, CHUNK), old.size)
    counts = np.zeros(len(starts), np.int64)

    def count(k: int) -> None:
        counts[k + 1] = _count_changed(old, new, starts[k], starts[k + 1])

    run_chunks(count, len(starts) - 1)
    places = np.cumsum(counts)
    where = np.empty(int(places[-1]), np.int64)

    def list_them(k: int) -> None:
        if counts[k + 1]:
            _list_changed(old, new, starts[k], starts[k + 1], where[places[k] : places[k + 1]])

    run_chunks(list_them, len(starts) - 1)
    return where


@njit(nogil=True, cache=True)
def _count_changed(old: Any, new: Any, start: int, stop: int) -> int:
    count = 0
    for k in range(start, stop):
        count += old[k] != new[k]
    return count


@njit(nogil=True, cache=True)
def _list_changed(old: Any, new: Any, start: int, stop: int, out: Any) -> None:
    slot = 0
    for k in range(start, stop):
        if old[k] != new[k]:
            out[slot] = k
            slot += 1


def compose(first: Delta, second: Delta) -> Delta:
    """Return the change that two changes, one after the other, amount to.

    Parameters
    ----------
    first, second : Delta
        Of one array.

    Returns
    -------
    Delta
    """
    size = len(first.where) + len(second.where)
    where = np.empty(size, np.int64)
    before, after = np.empty(size, first.before.dtype), np.empty(size, first.after.dtype)
    count = _merge(
        first.where, first.before, first.after, second.where, second.before, second.after,
        where, before, after,
    )  # fmt: skip
    return Delta(where[:count], before[:count], after[:count])


@njit(nogil=True, cache=True)
def _merge(
    first: Any, first_before: Any, first_after: Any,
    second: Any, second_before: Any, second_after: Any,
    where: Any, before: Any, after: Any,
) -> int:  # fmt: skip
    """Merge two changes with increasing places; return how many places there are."""
    i, j, count = 0, 0, 0
    while i < len(first) or j < len(second):
        if j == len(second) or (i < len(first) and first[i] < second[j]):
            where[count], before[count], after[count] = first[i], first_before[i], first_after[i]
            i += 1
        else:
            where[count], after[count] = second[j], second_after[j]
            if i < len(first) and first[i] == second[j]:
                before[count] = first_before[i]
                i += 1
            else:
                before[count] = second_before[j]
            j += 1
        count += 1
    return count


def warm_up() -> None:
    """Compile what the changes of masks need, or read it from numba's cache."""
    old, places = np.zeros(2, np.int32), np.arange(2)
    for dtype in (np.uint8, np.int32):
        new = np.ones(2, dtype)
        _list_changed(old, new, 0, _count_changed(old, new, 0, 2), np.empty(2, np.int64))
        delta = Delta(places, old, new)
        compose(delta, delta)


@dataclass
class Step:
    """One action of the user, with what it changed.

    Attributes
    ----------
    kind : str
        Event kind, see the session.
    event : dict
        JSON-able record of it.
    strokes : Delta or None
        Change of the stroke image.
    settings_before, settings_after : tuple or None
        Settings, voxels of locked classes, initial mask and prior before and after the step.
    result : Delta or None
        Change of the result that followed.
    takes_solves : bool
        Whether masks that are solved after the step are part of its change. They are not where
        the mask before the step is not known, as in a log: undo then leaves the mask as it is.
    """

    kind: str
    event: dict[str, Any]
    strokes: Delta | None = None
    settings_before: Any = None
    settings_after: Any = None
    result: Delta | None = None
    takes_solves: bool = True

    def forget_mask(self) -> None:
        """Let the step change prompts and settings alone."""
        self.result, self.takes_solves = None, False

    @property
    def nbytes(self) -> int:
        """Bytes that the step keeps."""
        return sum(d.nbytes for d in (self.strokes, self.result) if d is not None)


@dataclass
class History:
    """Steps done and undone; the oldest are dropped when they take too much memory.

    Attributes
    ----------
    limit_bytes : int
    done, undone : list of Step
        The last one is the next to undo, or to redo.
    """

    limit_bytes: int = 256 * 2**20
    done: list[Step] = field(default_factory=list)
    undone: list[Step] = field(default_factory=list)

    def push(self, step: Step) -> None:
        """Add a step; undone steps are dropped."""
        self.undone.clear()
        self.done.append(step)
        kept = sum(s.nbytes for s in self.done)
        while kept > self.limit_bytes and len(self.done) > 1:
            kept -= self.done.pop(0).nbytes
