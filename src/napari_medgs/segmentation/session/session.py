"""One user's work on one image: what may be done to prompts, mask and settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.arrays import with_room
from napari_medgs._util.progress import ProgressCallback, StopCallback, ignore_progress, never_stop
from napari_medgs.data.grid import Grid
from napari_medgs.errors import ParameterError
from napari_medgs.segmentation.contracts import Model
from napari_medgs.segmentation.prompts.prompts import most_likely
from napari_medgs.segmentation.result.result import SegmentResult
from napari_medgs.segmentation.session.changes import Delta
from napari_medgs.segmentation.session.history import Step
from napari_medgs.segmentation.session.priors import digest
from napari_medgs.segmentation.session.runs import encode_image
from napari_medgs.segmentation.session.settings import Settings
from napari_medgs.segmentation.session.strokes import StrokeLog


class Session(StrokeLog):
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
        The field's file, if there is one, for the log.
    names : dict of int to str
        Class names, for the log.

    Attributes
    ----------
    strokes : (Z, Y, X) ndarray of int
        Of 16 bits, until a value needs more; :meth:`write_strokes` makes room for it.
    labels : (Z, Y, X) ndarray of int
        The current result, of the smallest type; changed in place.
    initial : (Z, Y, X) ndarray of int or None
        The mask to refine.
    prior : (K, Z, Y, X) ndarray of uint8 or None
        Class probabilities in 255ths, in place of ``initial``.
    settings : Settings
    history : History
        Steps to undo and redo.
    priors : dict of str to (K, Z, Y, X) ndarray of uint8
        Every prior of the log by its digest; saved in files beside it.
    is_current : bool
        Whether ``labels`` are what a full solve of the present prompts gave: a replay of the
        log then gives the same.
    accepted : dict of str to AcceptedMask
        Finished masks by name, kept in the log.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> session = Session(Grid((4, 5, 6)), Settings(background=9))
    >>> session.paint(np.s_[1, 2, 2:4], 1)
    True
    >>> int((session.strokes == 1).sum())
    2
    >>> _ = session.undo()
    >>> bool(session.strokes.any()), session.can_redo
    (False, True)
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
        super().__init__(grid, settings, initial=initial, images=images, field=field, names=names)

    def update_settings(self, **changes: Any) -> bool:
        """Change settings (points, boxes, locked, params ...) as one step.

        Locked classes keep the voxels that they have in ``labels`` now.

        Parameters
        ----------
        **changes
            Fields of :class:`Settings` with their new values.

        Returns
        -------
        bool
            False when nothing had changed.

        Raises
        ------
        ParameterError
            When ``unlabeled`` is changed, with which the strokes are made.
        """
        after = replace(self.settings, **changes)
        if after.unlabeled != self.settings.unlabeled:
            raise ParameterError(
                "The value of unlabeled voxels is fixed for a session; begin a new one."
            )
        locked = self._locked_labels
        if after.locked != self.settings.locked:
            kept = np.isin(self.labels, sorted(after.locked))
            locked = np.where(kept, self.labels, 0) if after.locked else None
        return self.restore_settings(after, locked)

    def restore_settings(self, settings: Settings, locked_labels: NDArray[Any] | None) -> bool:
        """Set all settings, and the voxels of locked classes, as one step.

        Parameters
        ----------
        settings : Settings
        locked_labels : (Z, Y, X) ndarray of int or None
            The locked classes' voxels; None where no class is locked.

        Returns
        -------
        bool
            False when nothing had changed.
        """
        if settings == self.settings:
            return False
        event: dict[str, Any] = {"do": "settings", "settings": settings.to_dict()}
        if locked_labels is not None and locked_labels is not self._locked_labels:
            event["locked_labels"] = encode_image(locked_labels)
        self._change(Step("settings", event), settings, locked_labels, self.initial, self.prior)
        return True

    def set_initial(
        self, initial: NDArray[Any] | None, *, part: dict[str, Any] | None = None
    ) -> bool:
        """Set the mask to refine, or None, as one step; a prior is dropped.

        Parameters
        ----------
        initial : (Z, Y, X) ndarray of int or None
            Not copied; it must not change afterwards.
        part : dict, optional
            Which click on a part changed it, for the log; JSON-able.

        Returns
        -------
        bool
            False when nothing had changed.
        """
        before = self.initial
        if self.prior is None and (
            before is initial
            or (before is not None and initial is not None and np.array_equal(before, initial))
        ):
            return False
        runs = None if initial is None else encode_image(initial)
        event: dict[str, Any] = {"do": "initial", "runs": runs}
        if part is not None:
            event["part"] = part
        step = Step("initial" if part is None else "part", event)
        self._change(step, self.settings, self._locked_labels, initial, None)
        return True

    def set_prior(self, prior: NDArray[np.uint8]) -> bool:
        """Start from class probabilities, as one step; a mask to refine is dropped.

        The most likely classes count in ``labels`` at once, except under strokes and in locked
        classes.

        Parameters
        ----------
        prior : (K, Z, Y, X) ndarray of uint8
            In 255ths, background first; see
            :func:`~napari_medgs.segmentation.session.priors.quantize`. Not copied; it must not
            change afterwards.

        Returns
        -------
        bool
            False when nothing had changed.
        """
        if self.prior is not None and np.array_equal(self.prior, prior):
            return False
        key = digest(prior)
        event = {"do": "prior", "classes": len(prior), "digest": key}
        self.priors[key] = prior
        self._change(Step("prior", event), self.settings, self._locked_labels, None, prior)
        shown = most_likely(prior)
        marked = self.strokes != self.settings.unlabeled
        values = self.strokes[marked]
        values[values == self.prompts().background_value] = 0
        shown = with_room(shown, values)
        shown[marked] = values
        if self._locked_labels is not None:
            kept = np.isin(shown, sorted(self.settings.locked))
            shown[kept] = 0
            shown = np.where(self._locked_labels > 0, self._locked_labels, shown)
        self.set_result(shown, is_current=False)
        return True

    def add_part(self, mask: NDArray[np.bool_], label: int, part: dict[str, Any]) -> bool:
        """Give the voxels of a part a class in the mask to refine, as one step.

        It counts in ``labels`` at once. Voxels of locked classes stay as they are.

        Parameters
        ----------
        mask : (Z, Y, X) ndarray of bool
        label : int
            0 takes the voxels out of the mask.
        part : dict
            The click, for the log; JSON-able.

        Returns
        -------
        bool
            False when nothing had changed.
        """
        inside = mask if self._locked_labels is None else mask & (self._locked_labels == 0)
        before = self.initial if self.prior is None else most_likely(self.prior)
        kind = np.min_scalar_type(max(label, 0 if before is None else int(before.max())))
        after = np.zeros(self.grid.shape, kind) if before is None else before.astype(kind)
        after[inside] = label
        if not self.set_initial(after, part=part):
            return False
        assert self._pending is not None
        where = np.flatnonzero(inside & (self.labels != label))
        old = self.labels.reshape(-1)[where].copy()
        shown = Delta.of_voxels(where, old, np.full(len(where), label))
        self._show(shown)
        self._pending.result = shown
        return True

    def set_mask(self, mask: NDArray[Any]) -> None:
        """Make a mask the result and the one to refine, and erase strokes that contradict it.

        Parameters
        ----------
        mask : (Z, Y, X) ndarray of int
            0 is background. Not copied; it must not change afterwards.
        """
        background = self.prompts().background_value
        marked = self.strokes != self.settings.unlabeled
        classes = self.strokes[marked]
        if background is not None:
            classes = np.where(classes == background, 0, classes)
        where = np.flatnonzero(marked)[classes != mask[marked]]
        erased = None
        if len(where):
            old = self.strokes.reshape(-1)[where]
            erased = Delta.of_voxels(where, old, np.full_like(old, self.settings.unlabeled))
            erased.apply(self.strokes)
            erased.apply(self._recorded)
        step = Step("mask", {"do": "mask", "runs": encode_image(mask)}, strokes=erased)
        self._change(step, self.settings, self._locked_labels, mask, None)
        self.set_result(mask, is_current=False)

    def solve(
        self,
        model: Model,
        *,
        quick: bool = False,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> SegmentResult:
        """Update a model with the prompts and make its result the current one.

        Parameters
        ----------
        model : Model
            Of the session's image; it gets the session's settings.
        quick : bool
            See :meth:`SegmentModel.update`.
        progress, should_stop : callable, optional
            Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

        Returns
        -------
        SegmentResult

        Raises
        ------
        MedGSError
            When the prompts cannot be used; ``Cancelled``.
        """
        model.params = self.settings.params
        result = model.update(
            self.prompts(), quick=quick, progress=progress, should_stop=should_stop
        )
        self.set_result(result, is_current=not result.incremental)
        return result
