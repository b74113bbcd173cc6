"""One user's work on one image: prompts, undo and redo, a log that can be replayed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, StopCallback, ignore_progress, never_stop
from napari_medgs.data.grid import Grid
from napari_medgs.errors import ParameterError
from napari_medgs.segmentation.model import SegmentModel
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.result.result import SegmentResult
from napari_medgs.segmentation.session.history import Delta, History, Step, difference, encode_runs
from napari_medgs.segmentation.session.settings import Settings


class Session:
    """Prompts that grow, with undo and redo that bring results back, and a log.

    The stroke image belongs to the session; a viewer may show that very array and paint into it,
    telling the session by :meth:`record_strokes`.

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
        Where the field lies, if in a file, for the log.
    names : dict of int to str
        Class names, for the log.

    Attributes
    ----------
    strokes : (Z, Y, X) ndarray of int32
    labels : (Z, Y, X) ndarray of int32
        The current result; changed in place.
    settings : Settings
    settled : bool
        Whether ``labels`` are what a full solve of the present prompts gave: then a replay of
        the log gives the same.
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
        self.strokes: NDArray[np.int32] = np.full(grid.shape, self.settings.unlabelled, np.int32)
        self.initial = initial
        self.images, self.field = tuple(images), field
        self.names = dict(names or {})
        self.history = History()
        self.labels: NDArray[Any] = np.zeros(grid.shape, np.int32)
        self._frozen: NDArray[Any] | None = None
        self._log: list[dict[str, Any]] = []
        self._seen = self.strokes.copy()
        self._awaiting: Step | None = None
        self.start = self.settings
        self.settled = False

    # Prompts

    def prompts(self) -> Prompts:
        """Return what the user said so far."""
        s = self.settings
        return Prompts(
            labels=self.strokes,
            unlabelled=s.unlabelled,
            background=s.background,
            painted=s.painted,
            points=s.points,
            boxes=s.boxes,
            initial=self.initial,
            initial_margin=s.initial_margin,
            locked=s.locked,
            result=self._frozen if s.locked else None,
        )

    def record_strokes(self, box: tuple[slice, ...] | None = None) -> bool:
        """Take what was painted into ``strokes`` since the last call as one step.

        Parameters
        ----------
        box : tuple of slice, optional
            Where to look; everywhere by default.

        Returns
        -------
        bool
            False when nothing had changed.
        """
        part = box if box is not None else tuple(slice(0, n) for n in self.grid.shape)
        old, new = self._seen[part], self.strokes[part]
        changed = np.nonzero(old != new)
        if not len(changed[0]):
            return False
        where = _flat(changed, part, self.grid.shape)
        order = np.argsort(where)
        delta = Delta(where[order], old[changed][order].copy(), new[changed][order].copy())
        delta.apply(self._seen)
        event = {"do": "strokes", "runs": encode_runs(delta.where, delta.after)}
        self._push(Step("strokes", event, strokes=delta))
        return True

    def paint(self, where: Any, value: int) -> bool:
        """Set strokes at an index expression to a value, as one step."""
        self.strokes[where] = value
        return self.record_strokes()

    def correct(self, edited: NDArray[Any], box: tuple[slice, ...] | None = None) -> bool:
        """Take a result that was painted over as strokes: where it differs from ``labels``.

        Background in ``edited`` needs a background value. The correction counts in ``labels`` at
        once.

        Parameters
        ----------
        edited : (Z, Y, X) ndarray of int
        box : tuple of slice, optional
            Where to look; everywhere by default.

        Raises
        ------
        ParameterError
            When background was painted and there is no value for it.
        """
        part = box if box is not None else tuple(slice(0, n) for n in self.grid.shape)
        old, new = self.labels[part], np.asarray(edited)[part]
        changed = np.nonzero(old != new)
        if not len(changed[0]):
            return False
        where = _flat(changed, part, self.grid.shape)
        after = new[changed].astype(np.int32)
        values = after.copy()
        if (values == 0).any():
            background = self.prompts().background_value
            if background is None:
                raise ParameterError(
                    "The correction takes voxels away, but the prompts have no value for "
                    "background; choose one."
                )
            values[values == 0] = background
        order = np.argsort(where)
        shown = Delta(where[order], old[changed][order].copy(), after[order])
        self.strokes.reshape(-1)[where] = values
        if not self.record_strokes(box):
            return False
        shown.apply(self.labels)
        assert self._awaiting is not None
        self._awaiting.result = shown
        return True

    def change(self, **changes: Any) -> bool:
        """Change settings (points, boxes, locked, params ...) as one step.

        Locking classes freezes them as they are in ``labels`` now.

        Raises
        ------
        ParameterError
            When ``unlabelled`` is changed, which the strokes are made with.
        """
        after = replace(self.settings, **changes)
        if after.unlabelled != self.settings.unlabelled:
            raise ParameterError("The value for unlabelled is fixed for a session.")
        frozen = self._frozen
        if after.locked != self.settings.locked:
            kept = np.isin(self.labels, sorted(after.locked))
            frozen = np.where(kept, self.labels, 0) if after.locked else None
        return self.restore(after, frozen)

    def restore(self, settings: Settings, frozen: NDArray[Any] | None) -> bool:
        """Set all settings, and locked classes as they were, as one step."""
        if settings == self.settings:
            return False
        event: dict[str, Any] = {"do": "settings", "settings": settings.to_dict()}
        if frozen is not None and frozen is not self._frozen:
            where = np.flatnonzero(frozen)
            event["frozen"] = encode_runs(where, frozen.reshape(-1)[where])
        step = Step("settings", event, settings_before=(self.settings, self._frozen))
        self.settings, self._frozen = settings, frozen
        step.settings_after = (settings, frozen)
        self._push(step)
        return True

    @property
    def frozen(self) -> NDArray[Any] | None:
        """The locked classes' voxels, or None where none is locked."""
        return self._frozen

    def _push(self, step: Step) -> None:
        self._log.append(step.event)
        self.history.push(step)
        self._awaiting = step
        self.settled = False

    # Results

    def take(self, result: SegmentResult | NDArray[Any], *, settled: bool = True) -> Delta:
        """Make a result the current one; undo of the last step brings the former one back.

        ``settled`` is False for results of quick solves.

        Returns
        -------
        Delta
            What changed in ``labels``.
        """
        labels = result.labels if isinstance(result, SegmentResult) else result
        delta = difference(np.ascontiguousarray(self.labels), np.ascontiguousarray(labels))
        if len(delta.where) and int(delta.after.max()) > np.iinfo(self.labels.dtype).max:
            raise ParameterError("A label value is too large.")
        delta.apply(self.labels)
        step = self._awaiting
        if step is not None:
            step.result = delta if step.result is None else _joined(step.result, delta)
        self.settled = settled
        return delta

    def solve(
        self,
        model: SegmentModel,
        *,
        quick: bool = False,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> SegmentResult:
        """Update a model with the prompts and take its result."""
        model.params = self.settings.params
        result = model.update(
            self.prompts(), quick=quick, progress=progress, should_stop=should_stop
        )
        self.take(result, settled=not result.incremental)
        return result

    # Undo and redo

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
        if step.strokes is not None:
            step.strokes.revert(self.strokes)
            step.strokes.revert(self._seen)
        if step.settings_before is not None:
            self.settings, self._frozen = step.settings_before
        shown = None
        if step.result is not None:
            now = self._labels_at(step.result)
            shown = Delta(step.result.where, step.result.before, now)
            step.result.revert(self.labels)
        self._awaiting = self.history.done[-1] if self.history.done else None
        self.settled = False
        self._log.append({"do": "undo"})
        return replace(step, result=shown)

    def _labels_at(self, delta: Delta) -> NDArray[Any]:
        """Return what a solve of earlier prompts, after an undo, may have put in its place."""
        now: NDArray[Any] = self.labels.reshape(-1)[delta.where]
        return now

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
        if step.strokes is not None:
            step.strokes.apply(self.strokes)
            step.strokes.apply(self._seen)
        if step.settings_after is not None:
            self.settings, self._frozen = step.settings_after
        shown = None
        if step.result is not None:
            now = self._labels_at(step.result)
            shown = Delta(step.result.where, now, step.result.after)
            step.result.apply(self.labels)
        self._awaiting = step
        self.settled = False
        self._log.append({"do": "redo"})
        return replace(step, result=shown)

    # The log

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was done so far, JSON-able."""
        return self._log

    def save(self, path: str | Path) -> Path:
        """Write the log to a JSON file, at once or not at all.

        Raises
        ------
        FileError
            When it cannot be written.
        """
        from napari_medgs.segmentation.session.replay import write_log

        return write_log(self, path)


def _flat(
    inside: tuple[NDArray[Any], ...], box: tuple[slice, ...], shape: tuple[int, ...]
) -> NDArray[np.int64]:
    """Return flat indices of the array for index arrays within a box of it."""
    corner = [s.indices(n)[0] for s, n in zip(box, shape, strict=True)]
    return np.ravel_multi_index(
        tuple(c + k for c, k in zip(inside, corner, strict=True)), shape
    ).astype(np.int64)


def _joined(first: Delta, second: Delta) -> Delta:
    """Return the change of two changes one after the other."""
    where = np.union1d(first.where, second.where)
    dtype = first.after.dtype
    before, after = np.empty(len(where), dtype), np.empty(len(where), dtype)
    at_first = np.searchsorted(where, first.where)
    at_second = np.searchsorted(where, second.where)
    before[at_second], after[at_second] = second.before, second.after
    before[at_first] = first.before
    only = np.setdiff1d(at_first, at_second)
    after[only] = first.after[np.searchsorted(at_first, only)]
    return Delta(where, before, after)
