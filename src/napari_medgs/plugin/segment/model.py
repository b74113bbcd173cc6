"""The Segment widget's state, as the view shows it. No Qt, no napari."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from psygnal import SignalGroupDescriptor


class JobKind(StrEnum):
    """What can run in the background, in the order in which waiting jobs run."""

    PREPARE = "prepare"
    """Fit the Gaussians and build the model."""
    PARTS = "parts"
    """Build the tree of parts."""
    PREVIEW = "preview"
    """Solve the visible slice alone."""
    INCREMENTAL = "incremental"
    """Extend the last full solve by the newest strokes."""
    FULL = "full"
    """Solve everything anew."""
    SUGGEST = "suggest"
    """Look for the slice where one more stroke helps most."""
    MAPS = "maps"
    """Compute maps of uncertainty and probability."""

    @property
    def interruptible(self) -> bool:
        """Whether a newer stroke stops it."""
        return self not in (JobKind.PREPARE, JobKind.PARTS)

    @property
    def is_solve(self) -> bool:
        """Whether it gives a whole new mask."""
        return self in (JobKind.INCREMENTAL, JobKind.FULL)


class ResultUpdate(StrEnum):
    """Why the result layer has changed."""

    PREVIEW = "preview"
    INCREMENTAL = "incremental"
    FULL = "full"
    EDIT = "edit"
    """Undo, redo or a correction painted on the result."""


@dataclass
class SegmentState:
    """What is going on in the session; every change of an attribute emits an event.

    Attributes
    ----------
    job : JobKind or None
        The job that is running.
    auto_update : bool
        Whether every stroke starts a new solve.
    has_session : bool
    can_undo, can_redo : bool
    is_current : bool
        Whether the mask is that of a full solve of the present strokes.
    keeps_mask : bool
        Whether solves start from a mask, which strokes only correct.
    checked : bool
        Whether the user has looked at the mask with one of the tools for it.
    provisional : bool
        Whether the mask's background is inferred, as one class alone is marked.
    fills_image : bool
        Whether the mask has no background, as none was marked.
    clicking : bool
        Whether the mouse takes whole parts.
    saved : bool
        Whether the present mask is in a file.
    has_next_case : bool
        Whether the image's folder holds another one.
    locked : frozenset of int
        Values of the locked classes.
    volumes_ml : dict of int to float
        Volume of every class in the result, in milliliters.
    summary : str
        Time and number of Gaussians of the last solve, as HTML; empty without a result.
    message : str
        The line of text below the buttons.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    job: JobKind | None = None
    auto_update: bool = True
    has_session: bool = False
    can_undo: bool = False
    can_redo: bool = False
    is_current: bool = False
    keeps_mask: bool = False
    checked: bool = False
    provisional: bool = False
    fills_image: bool = False
    clicking: bool = False
    saved: bool = False
    has_next_case: bool = False
    locked: frozenset[int] = frozenset()
    volumes_ml: Mapping[int, float] = field(default_factory=dict)
    summary: str = ""
    message: str = ""
