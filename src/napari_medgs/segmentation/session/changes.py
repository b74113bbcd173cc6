"""Changes of label images, kept as runs of voxels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._util.threads import run_chunks

CHUNK = 2**20  # voxels that a thread compares at a time
_options: dict[str, Any] = {"nogil": True, "cache": True}


@dataclass(frozen=True)
class Delta:
    """Voxels of one array that changed at once, as runs along its last axis.

    All voxels of a run had one value, and have one now. Runs may go on in the next row.

    Attributes
    ----------
    starts : (R,) ndarray of int64
        Flat index of the first voxel of every run, increasing.
    lengths : (R,) ndarray of int64
        Voxels of every run.
    before, after : (R,) ndarray
        Their values.

    Examples
    --------
    >>> import numpy as np
    >>> delta = difference(np.array([0, 0, 0, 1]), np.array([0, 2, 2, 1]))
    >>> delta.voxels, delta.starts.tolist(), delta.lengths.tolist(), delta.after.tolist()
    (2, [1], [2], [2])
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    before: NDArray[Any]
    after: NDArray[Any]

    @classmethod
    def of_voxels(
        cls, where: NDArray[np.int64], before: NDArray[Any], after: NDArray[Any]
    ) -> Self:
        """Make a change of single voxels.

        Parameters
        ----------
        where : (P,) ndarray of int64
            Flat indices, increasing.
        before, after : (P,) ndarray
            Their values.

        Returns
        -------
        Delta
        """
        if not len(where):
            nowhere = np.zeros(0, np.int64)
            return cls(nowhere, nowhere, before[:0], after[:0])
        new = (np.diff(where) != 1) | (np.diff(before) != 0) | (np.diff(after) != 0)
        first = np.concatenate([[0], np.flatnonzero(new) + 1])
        lengths = np.diff(np.append(first, len(where)))
        return cls(where[first], lengths, before[first], after[first])

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return int(self.lengths.sum())

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return sum(a.nbytes for a in (self.starts, self.lengths, self.before, self.after))

    @property
    def where(self) -> NDArray[np.int64]:
        """Flat index of every voxel, (P,); as large as the change."""
        ends = np.cumsum(self.lengths)
        offset = np.repeat(self.starts - (ends - self.lengths), self.lengths)
        return np.arange(len(offset)) + offset

    def reverted(self) -> Delta:
        """Return the change back."""
        return Delta(self.starts, self.lengths, self.after, self.before)

    def apply(self, array: NDArray[Any]) -> None:
        """Set the changed voxels of an array to ``after``, in place.

        Parameters
        ----------
        array : ndarray
            Of the shape of the compared ones, in any memory layout. Its type holds the values.
        """
        if array.flags.c_contiguous:
            values = self.after.astype(array.dtype, copy=False)  # fewer types to compile for
            _fill(array.reshape(-1), self.starts, self.lengths, values)
            return
        for part in self._parts():
            values = np.repeat(part.after, part.lengths)
            array[np.unravel_index(part.where, array.shape)] = values

    def revert(self, array: NDArray[Any]) -> None:
        """Set the changed voxels of an array to ``before``, in place; see :meth:`apply`."""
        self.reverted().apply(array)

    def _parts(self) -> Iterator[Delta]:
        """Yield the change in parts of a few runs, for what needs memory for every voxel."""
        part = (np.cumsum(self.lengths) - self.lengths) // CHUNK
        edges = [*np.searchsorted(part, np.unique(part)).tolist(), len(part)]
        for first, last in pairwise(edges):
            runs = slice(first, last)
            yield Delta(self.starts[runs], self.lengths[runs], self.before[runs], self.after[runs])

    def onto(self, array: NDArray[Any]) -> Delta:
        """Return what :meth:`apply` would change in an array that is not the one before.

        Parameters
        ----------
        array : contiguous ndarray

        Returns
        -------
        Delta
            Voxels that have ``after`` already are left out.
        """
        flat = array.reshape(-1)
        count = _list_onto(flat, self.starts, self.lengths, self.after, *_no_runs(flat, flat))
        room = _room(count, flat, self.after)
        _list_onto(flat, self.starts, self.lengths, self.after, *room)
        return Delta(*room)

    def box(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """Return the smallest box of the array that holds the change."""
        if not len(self.starts):
            return tuple(slice(0, 0) for _ in shape)
        box = []
        first, last = self.starts, self.starts + self.lengths - 1
        for size in reversed(shape):
            # A run that goes on in the next row covers both of its ends.
            over = first // size != last // size
            low, high = first % size, last % size
            box.append(
                slice(0, size) if over.any() else slice(int(low.min()), int(high.max()) + 1)
            )
            first, last = first // size, last // size
        return tuple(reversed(box))

    def counts(self) -> dict[int, int]:
        """Return by how many voxels every value that occurs has grown."""
        counts: dict[int, int] = {}
        for values, sign in ((self.before, -1), (self.after, 1)):
            found, which = np.unique(values, return_inverse=True)
            sizes = np.zeros(len(found), np.int64)
            np.add.at(sizes, which, self.lengths)
            for value, size in zip(found.tolist(), sizes.tolist(), strict=True):
                counts[value] = counts.get(value, 0) + sign * size
        return counts


def difference(
    before: NDArray[Any], after: NDArray[Any], box: tuple[slice, ...] | None = None
) -> Delta:
    """Return what changed between two arrays of the same shape.

    Parameters
    ----------
    before, after : ndarray
        In any memory layout.
    box : tuple of slice, optional
        Where to look; everywhere by default.

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
    if box is not None:
        old, new = before[box], after[box]
        changed = np.nonzero(old != new)
        return Delta.of_voxels(_outside(changed, box, before.shape), old[changed], new[changed])
    old, new = (np.ascontiguousarray(a).reshape(-1) for a in (before, after))
    old, new = (a.view(np.uint8) if a.dtype == bool else a for a in (old, new))
    edges = np.append(np.arange(0, old.size, CHUNK), old.size)
    counts = np.zeros(len(edges), np.int64)

    def count(k: int) -> None:
        counts[k + 1] = _list_changed(old, new, edges[k], edges[k + 1], *_no_runs(old, new))

    run_chunks(count, len(edges) - 1)
    places = np.cumsum(counts)
    room = _room(int(places[-1]), old, new)

    def list_them(k: int) -> None:
        if counts[k + 1]:
            runs = slice(places[k], places[k + 1])
            _list_changed(old, new, edges[k], edges[k + 1], *(a[runs] for a in room))

    run_chunks(list_them, len(edges) - 1)
    return Delta(*room)


def _outside(
    inside: tuple[NDArray[Any], ...], box: tuple[slice, ...], shape: tuple[int, ...]
) -> NDArray[np.int64]:
    """Return flat indices of an array for index arrays within a box of it."""
    corner = [s.indices(n)[0] for s, n in zip(box, shape, strict=True)]
    places = tuple(c + k for c, k in zip(inside, corner, strict=True))
    return np.ravel_multi_index(places, shape).astype(np.int64)


def _room(count: int, before: NDArray[Any], after: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return arrays for the starts, lengths and values of so many runs."""
    return (
        np.empty(count, np.int64),
        np.empty(count, np.int64),
        np.empty(count, before.dtype),
        np.empty(count, after.dtype),
    )


def _no_runs(before: NDArray[Any], after: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    return _room(0, before, after)


@njit(**_options)
def _fill(flat: Any, starts: Any, lengths: Any, values: Any) -> None:
    for r in range(len(starts)):
        flat[starts[r] : starts[r] + lengths[r]] = values[r]


@njit(**_options)
def _next_change(old: Any, new: Any, k: int, stop: int) -> int:
    """Return the first voxel from one on that differs."""
    a, b = old[k:stop], new[k:stop]  # from 0 on: what may be negative is not vectorized
    n, count = 0, len(a)
    while n + 64 <= count:  # most are alike: the compiler makes 64 of them a few comparisons
        changed = 0
        for q in range(n, n + 64):
            changed += a[q] != b[q]
        if changed:
            break
        n += 64
    while n < count and a[n] == b[n]:
        n += 1
    return k + n


@njit(**_options)
def _list_changed(
    old: Any, new: Any, start: int, stop: int, starts: Any, lengths: Any, before: Any, after: Any
) -> int:
    """Return the number of runs that differ; list them where there is room for them."""
    count, k = 0, start
    while k < stop:
        k = _next_change(old, new, k, stop)
        if k == stop:
            break
        first, a, b = k, old[k], new[k]
        k += 1  # NaN is no run: it does not even equal itself
        while k < stop and old[k] == a and new[k] == b:
            k += 1
        if len(starts):
            starts[count], lengths[count] = first, k - first
            before[count], after[count] = a, b
        count += 1
    return count


@njit(**_options)
def _list_onto(
    flat: Any, to_start: Any, to_length: Any, to_value: Any,
    starts: Any, lengths: Any, before: Any, after: Any,
) -> int:  # fmt: skip
    """List runs of voxels that do not have a value yet; return their number."""
    count = 0
    for r in range(len(to_start)):
        k, stop, value = to_start[r], to_start[r] + to_length[r], to_value[r]
        while k < stop:
            first, now = k, flat[k]
            k += 1
            while k < stop and flat[k] == now:
                k += 1
            if now == value:
                continue
            if len(starts):
                starts[count], lengths[count] = first, k - first
                before[count], after[count] = now, value
            count += 1
    return count


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
    size = 2 * (len(first.starts) + len(second.starts))
    before = np.promote_types(first.before.dtype, second.before.dtype)
    after = np.promote_types(first.after.dtype, second.after.dtype)
    room = _room(size, np.empty(0, before), np.empty(0, after))
    count = _merge(
        first.starts, first.lengths, first.before, first.after,
        second.starts, second.lengths, second.before, second.after, *room,
    )  # fmt: skip
    return Delta(*(a[:count].copy() for a in room))


@njit(**_options)
def _merge(
    first: Any, first_length: Any, first_before: Any, first_after: Any,
    second: Any, second_length: Any, second_before: Any, second_after: Any,
    starts: Any, lengths: Any, before: Any, after: Any,
) -> int:  # fmt: skip
    """Merge two changes; return how many runs there are."""
    never = np.int64(2**62)
    i, j, count = 0, 0, 0
    i_start = first[0] if len(first) else never
    j_start = second[0] if len(second) else never
    while i < len(first) or j < len(second):
        i_stop = first[i] + first_length[i] if i < len(first) else never
        j_stop = second[j] + second_length[j] if j < len(second) else never
        if i_start < j_start:
            start, stop = i_start, min(i_stop, j_start)
            old, new = first_before[i], first_after[i]
        elif j_start < i_start:
            start, stop = j_start, min(j_stop, i_start)
            old, new = second_before[j], second_after[j]
        else:
            start, stop = i_start, min(i_stop, j_stop)
            old, new = first_before[i], second_after[j]
        last = count - 1
        if (
            count
            and starts[last] + lengths[last] == start
            and before[last] == old
            and after[last] == new
        ):
            lengths[last] += stop - start
        else:
            starts[count], lengths[count], before[count], after[count] = (
                start, stop - start, old, new,
            )  # fmt: skip
            count += 1
        if i < len(first) and i_start < stop:
            i_start = stop
            if stop == i_stop:
                i += 1
                i_start = first[i] if i < len(first) else never
        if j < len(second) and j_start < stop:
            j_start = stop
            if stop == j_stop:
                j += 1
                j_start = second[j] if j < len(second) else never
    return count


def warm_up() -> None:
    """Compile what the changes of masks need, or read it from numba's cache."""
    for old, new in (("u1", "u1"), ("i2", "i2")):
        delta = difference(np.zeros(2, old), np.ones(2, new))
        delta.apply(np.zeros(2, new))
        compose(delta, delta)
