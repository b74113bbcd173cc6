"""Undo and redo of changed voxels, kept as differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
        """Change the array (contiguous) as was done."""
        array.reshape(-1)[self.where] = self.after

    def revert(self, array: NDArray[Any]) -> None:
        """Change the array (contiguous) back."""
        array.reshape(-1)[self.where] = self.before

    def box(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """Return the smallest box of the array that holds the change."""
        if not len(self.where):
            return tuple(slice(0, 0) for _ in shape)
        places = np.unravel_index(self.where, shape)
        return tuple(slice(int(p.min()), int(p.max()) + 1) for p in places)


def difference(before: NDArray[Any], after: NDArray[Any]) -> Delta:
    """Return what changed between two arrays of one shape."""
    old, new = before.reshape(-1), after.reshape(-1)
    where = np.flatnonzero(old != new)
    return Delta(where, old[where].copy(), new[where].copy())


def encode_runs(where: NDArray[np.int64], values: NDArray[Any]) -> list[int]:
    """Return changed voxels as start, length, value triples in one flat JSON-able list."""
    if not len(where):
        return []
    step = np.flatnonzero((np.diff(where) != 1) | (np.diff(values.astype(np.int64)) != 0)) + 1
    starts = np.concatenate([[0], step])
    lengths = np.diff(np.concatenate([starts, [len(where)]]))
    triples = np.stack([where[starts], lengths, values[starts].astype(np.int64)], axis=1)
    return [int(v) for v in triples.reshape(-1)]


def decode_runs(runs: list[int], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return flat indices and values of :func:`encode_runs`.

    Raises
    ------
    ValueError
        When the list is no such thing, or points outside of ``size`` voxels.
    """
    table = np.asarray(runs, np.int64)
    if table.ndim != 1 or len(table) % 3:
        raise ValueError("runs come in threes")
    starts, lengths, values = table.reshape(-1, 3).T
    bad = (starts < 0) | (lengths < 1) | (starts + lengths > size)
    if bad.any() or lengths.sum() > size:
        raise ValueError("a run leaves the image")
    total = int(lengths.sum())
    offset = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return np.arange(total) + offset, np.repeat(values, lengths)


@dataclass
class Step:
    """One thing the user did, with what it changed.

    Attributes
    ----------
    kind : str
        Event kind, see the session.
    event : dict
        JSON-able record of it.
    strokes : Delta or None
        Change of the stroke image.
    settings_before, settings_after : Any
        The prompts' other parts around the step.
    result : Delta or None
        Change of the result that followed.
    """

    kind: str
    event: dict[str, Any]
    strokes: Delta | None = None
    settings_before: Any = None
    settings_after: Any = None
    result: Delta | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the step keeps."""
        return sum(d.nbytes for d in (self.strokes, self.result) if d is not None)


@dataclass
class History:
    """Steps done and undone; the oldest are forgotten when too much is kept."""

    limit_bytes: int = 256 * 2**20
    done: list[Step] = field(default_factory=list)
    undone: list[Step] = field(default_factory=list)

    def push(self, step: Step) -> None:
        """Add a step; what was undone is gone."""
        self.undone.clear()
        self.done.append(step)
        kept = sum(s.nbytes for s in self.done)
        while kept > self.limit_bytes and len(self.done) > 1:
            kept -= self.done.pop(0).nbytes
