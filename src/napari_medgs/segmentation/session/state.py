"""What a session holds: prompts and a result, undo and redo, and the log."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.arrays import with_room
from napari_medgs.data.grid import Grid
from napari_medgs.errors import ParameterError
from napari_medgs.segmentation.prompts.kinds import LABELS
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.result.result import SegmentResult
from napari_medgs.segmentation.session.changes import Delta, compose, difference
from napari_medgs.segmentation.session.history import History, Step
from napari_medgs.segmentation.session.settings import Settings


@dataclass(frozen=True)
class AcceptedMask:
    """Finished classes that were set aside. They take no part in solving.

    Attributes
    ----------
    labels : (Z, Y, X) ndarray of int
        Not copied; it must not change afterwards.
    names : dict of int to str
    """

    labels: NDArray[Any]
    names: dict[int, str] = field(default_factory=dict)


class SessionState:
    """The state of a session: prompts and result, with undo, redo and a log of what was done.

    Its attributes are those of :class:`.Session`.

    Parameters
    ----------
    grid : Grid
        The image's canonical grid.
    settings : Settings, optional
    initial : (Z, Y, X) ndarray of int, optional
        A mask to refine.
    images : sequence of str
        Where the image came from, for the log.
    field : str
        The field's file, if there is one, for the log.
    names : dict of int to str
        Class names, for the log.
    """

    def __init__(
        self,
        grid: Grid,
        settings: Settings | None = None,
        *,
        initial: NDArray[Any] | None = None,
        images: Iterable[str] = (),
        field: str = "",
        names: dict[int, str] | None = None,
    ) -> None:
        self.grid = grid
        self.settings = settings or Settings()
        unlabeled = self.settings.unlabeled
        room = with_room(np.zeros(0, np.int16), unlabeled)
        self.strokes: NDArray[Any] = np.full(grid.shape, unlabeled, room.dtype)
        self.initial = initial
        self.prior: NDArray[np.uint8] | None = None
        self.images, self.field = tuple(images), field
        self.names = dict(names or {})
        self.history = History()
        self.accepted: dict[str, AcceptedMask] = {}
        self.labels: NDArray[Any] = np.zeros(grid.shape, np.uint8)
        self.is_current = False
        self.start, self.start_initial = self.settings, initial
        self._locked_labels: NDArray[Any] | None = None
        self._events: list[dict[str, Any]] = []
        self.priors: dict[str, NDArray[np.uint8]] = {}
        self._recorded = self.strokes.copy()
        self._pending: Step | None = None
        self._has_mask = True  # whether ``labels`` are the mask of the steps so far

    def forget_masks(self) -> None:
        """Let undo and redo of the steps so far leave the mask alone until it is solved.

        For a session whose log was replayed without a solve.
        """
        for step in (*self.history.done, *self.history.undone):
            step.forget_mask()
        self._has_mask = False

    @property
    def locked_labels(self) -> NDArray[Any] | None:
        """The locked classes' voxels, (Z, Y, X), or None where no class is locked."""
        return self._locked_labels

    @property
    def starts_from_mask(self) -> bool:
        """Whether there is a mask to refine, or class probabilities in its place."""
        return self.initial is not None or self.prior is not None

    def prompts(self) -> Prompts:
        """Return all prompts so far; arrays are the session's own, not copies.

        Returns
        -------
        Prompts
        """
        s = self.settings
        return Prompts(
            labels=self.strokes,
            unlabeled=s.unlabeled,
            background=s.background,
            fully_labeled=s.fully_labeled,
            points=s.points,
            boxes=s.boxes,
            initial=self.initial,
            prior=self.prior,
            initial_margin=s.initial_margin,
            locked=s.locked,
            result=self._locked_labels if s.locked else None,
        )

    def _change(
        self,
        step: Step,
        settings: Settings,
        locked_labels: NDArray[Any] | None,
        initial: NDArray[Any] | None,
        prior: NDArray[np.uint8] | None,
    ) -> None:
        step.settings_before = (self.settings, self._locked_labels, self.initial, self.prior)
        step.settings_after = (settings, locked_labels, initial, prior)
        self._restore(step.settings_after)
        self._push(step)

    def _restore(self, state: Any) -> None:
        self.settings, self._locked_labels, self.initial, self.prior = state

    def _push(self, step: Step) -> None:
        self._events.append(step.event)
        step.takes_solves = self._has_mask or step.kind in ("mask", "prior")  # masks themselves
        self.history.push(step)
        self._pending = step
        self.is_current = False

    def set_result(
        self, result: SegmentResult | NDArray[Any], *, is_current: bool = True
    ) -> Delta:
        """Make a result the current one; undo of the last step brings the former one back.

        Parameters
        ----------
        result : SegmentResult or (Z, Y, X) ndarray of int
        is_current : bool
            False for incremental results, which a full solve may still change.

        Returns
        -------
        Delta
            What changed in ``labels``.

        Raises
        ------
        ParameterError
            When a label does not fit into 32 bits.
        """
        labels = result.labels if isinstance(result, SegmentResult) else result
        delta = difference(np.ascontiguousarray(self.labels), np.ascontiguousarray(labels))
        if int(delta.after.max(initial=0)) > LABELS.max:
            raise ParameterError("A label value of the result is larger than 2,147,483,647.")
        self._show(delta)
        self._has_mask = True
        step = self._pending
        if step is not None and step.takes_solves:
            step.result = delta if step.result is None else compose(step.result, delta)
        undone = self.history.undone[-1] if self.history.undone else None
        if undone is not None and undone.result is not None:
            # Redo still leads to the labels that it had, from these now.
            undone.result = compose(delta.reverted(), undone.result)
        self.is_current = is_current
        return delta

    def labels_with(self, label: int, mask: NDArray[np.bool_]) -> NDArray[Any]:
        """Return a copy of the current labels in which a class fills a mask, and nothing else."""
        labels = with_room(self.labels, label).copy()
        labels[labels == label] = 0
        labels[mask] = label
        return labels

    def _show(self, change: Delta) -> None:
        """Change the current labels."""
        self.labels = with_room(self.labels, change.after)
        change.apply(self.labels)

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return bool(self.history.done)

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to redo."""
        return bool(self.history.undone)

    def undo(self) -> Step | None:
        """Undo the last step: strokes, settings and result are as before it.

        Returns
        -------
        Step or None
            What was undone; ``step.strokes`` and ``step.result`` tell which voxels changed:
            from ``after`` to ``before``.
        """
        if not self.can_undo:
            return None
        step = self.history.done.pop()
        self.history.undone.append(step)
        self._pending = self.history.done[-1] if self.history.done else None
        return self._repeat(step, forward=False)

    def redo(self) -> Step | None:
        """Do the last undone step again, its result included.

        Returns
        -------
        Step or None
            What was done; ``step.strokes`` and ``step.result`` tell which voxels changed.
        """
        if not self.can_redo:
            return None
        step = self.history.undone.pop()
        self.history.done.append(step)
        self._pending = step
        return self._repeat(step, forward=True)

    def _repeat(self, step: Step, *, forward: bool) -> Step:
        """Apply a step of the history, or revert it; return it with what changed in ``labels``."""
        if step.result is None and not step.takes_solves:
            self._learn_mask(step, forward=forward)
        if step.strokes is not None:
            strokes = step.strokes if forward else step.strokes.reverted()
            self._recorded = with_room(self._recorded, strokes.after)
            strokes.apply(self.strokes)
            strokes.apply(self._recorded)
        state = step.settings_after if forward else step.settings_before
        if state is not None:
            self._restore(state)
        shown = None
        if step.result is not None:
            # A solve of earlier prompts, after an undo, may have put other labels in its place.
            result = step.result if forward else step.result.reverted()
            change = result.onto(self.labels)
            self._show(change)
            shown = change if forward else change.reverted()
        self.is_current = False
        self._events.append({"do": "redo" if forward else "undo"})
        return replace(step, result=shown)

    def _learn_mask(self, step: Step, *, forward: bool) -> None:
        """Let a step of a log take part in the history of the mask, where there is one now."""
        if self.is_current:
            # What the next solve changes is the step's change, or leads back to this mask.
            step.result, step.takes_solves = difference(self.labels[:0], self.labels[:0]), True
        elif not forward:
            for later in self.history.undone:  # they were done to a mask that is not known now
                later.forget_mask()

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was done so far, JSON-able."""
        return self._events

    def copy_for_saving(self) -> Self:
        """Return a shallow copy whose log no longer grows, to be written in another thread.

        No voxels are copied. The copy's result counts as not current, since it may be changing.

        Returns
        -------
        SessionState
        """
        now = copy.copy(self)
        now._events, now.names = list(self._events), dict(self.names)
        now.accepted, now.priors = dict(self.accepted), dict(self.priors)
        now.is_current = False
        return now
