"""Undo and redo: the steps of a session, with what they changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from napari_medgs.segmentation.session.changes import Delta


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
