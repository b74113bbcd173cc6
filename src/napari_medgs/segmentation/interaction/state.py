"""What an interactive segmenter holds: image, field, model and session, and its history."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.segmentation.params import SegmentParams

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume
    from napari_medgs.fitting import FitParams
    from napari_medgs.segmentation.contracts import Model
    from napari_medgs.segmentation.object_tool import ObjectTool
    from napari_medgs.segmentation.part_tool import PartTool
    from napari_medgs.segmentation.result.result import SegmentResult
    from napari_medgs.segmentation.session.history import Step
    from napari_medgs.segmentation.session.session import Session


class SegmenterState:
    """Image, field, model and session of an interactive segmenter.

    Parameters
    ----------
    params : SegmentParams, optional
    fit_params : FitParams, optional

    Attributes
    ----------
    threads : int or None
        CPU threads of the next fit and solve; None for all.
    on_warning : callable or None
        Called with the text of what would be a Python warning otherwise.
    """

    def __init__(
        self, params: SegmentParams | None = None, *, fit_params: FitParams | None = None
    ) -> None:
        self._params = params or SegmentParams()
        self._fit_params = fit_params
        self.threads = self._params.threads
        self._lock = RLock()
        self._volume: Volume | None = None
        self._field: GaussianField | None = None
        self._model: Model | None = None
        self._model_voxels = 0
        self._session: Session | None = None
        self._result: SegmentResult | None = None
        self._parts: PartTool | None = None
        self._object: ObjectTool | None = None
        self.on_warning: Callable[[str], object] | None = None
        self._warned_of: set[int] = set()

    def _start(self, volume: Volume, session: Session, field: GaussianField | None) -> None:
        self._volume, self._session, self._field = volume, session, field
        self._model = self._result = self._parts = self._object = None
        self._warned_of = set()

    @property
    def volume(self) -> Volume:
        """The image."""
        self._need()
        assert self._volume is not None
        return self._volume

    @property
    def session(self) -> Session:
        """Prompts, settings and history behind this object."""
        return self._need()

    @property
    def field(self) -> GaussianField | None:
        """The fitted field, or None before there is one."""
        return self._field

    def set_field(self, field: GaussianField) -> None:
        """Segment with this field from now on; prompts and history stay.

        Parameters
        ----------
        field : GaussianField
            Fitted to the image.

        Raises
        ------
        GeometryError
            When it belongs to another grid.
        """
        field.check_grid(self.volume.grid)
        if field is not self._field:
            self._field, self._model, self._result = field, None, None

    @property
    def names(self) -> dict[int, str]:
        """Names of the classes, by label; saved with the session, no part of the history."""
        return self._need().names

    @names.setter
    def names(self, names: Mapping[int, str]) -> None:
        self._need().names = dict(names)

    @property
    def labels(self) -> NDArray[Any]:
        """The mask as last computed or brought back by undo, (Z, Y, X); not computed anew.

        After :meth:`InteractiveSegmenter.load` it is the mask that was set or kept last, if any,
        else 0 everywhere, until :meth:`InteractiveSegmenter.result` computes it.
        """
        return self._need().labels

    @property
    def is_current(self) -> bool:
        """Whether :attr:`labels` are what a full solve of the present prompts gave."""
        return self._need().is_current

    def set_params(self, params: SegmentParams) -> bool:
        """Change the solver's settings, as one step; the number of threads is no part of it."""
        self.threads = params.threads
        threads = self._need().settings.params.threads
        return self.update_settings(params=replace(params, threads=threads))

    def update_settings(self, **changes: Any) -> bool:
        """Change fields of ``session.settings``, as one step; checked at the next solve.

        Parameters
        ----------
        **changes
            Fields of :class:`~napari_medgs.segmentation.Settings` with their new values.

        Returns
        -------
        bool
            False where nothing was different.
        """
        changed = self._update(**changes)
        if changed and not changes.keys().isdisjoint(("points", "boxes")):
            self._warn_of_boxes()
        return changed

    def _update(self, **changes: Any) -> bool:
        with self._lock:
            return self._need().update_settings(**changes)

    def _change(self, **changes: Any) -> bool:
        """Change settings; checked first, so that no unusable step gets into the history."""
        session = self._need()
        prompts = {k: v for k, v in changes.items() if k in ("points", "boxes", "initial_margin")}
        replace(session.prompts(), **prompts).check(session.grid.shape)
        return self._update(**changes)

    def _warn_of_boxes(self) -> None:
        """Warn of marks outside of the boxes of their classes, once until they are inside.

        For methods that users call: the warning names the line that calls them.
        """
        session = self._need()
        if not session.settings.boxes:
            self._warned_of = set()
            return
        from napari_medgs.segmentation.prompts.outside_boxes import (
            describe_outside_boxes,
            find_outside_boxes,
        )

        with self._lock:
            found = find_outside_boxes(session.prompts(), session.grid.shape)
        known, self._warned_of = self._warned_of, set(found)
        if self._warned_of <= known:
            return
        text = describe_outside_boxes(found, session.names)
        if self.on_warning is not None:
            self.on_warning(text)
        else:
            warnings.warn(text, stacklevel=3)

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return self._need().can_undo

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to redo."""
        return self._need().can_redo

    def undo(self) -> Step | None:
        """Undo the last step, its effect on :attr:`labels` included.

        Returns
        -------
        Step or None
            What was undone, with the voxels that changed; None where there is nothing to undo.
        """
        with self._lock:
            return self._need().undo()

    def redo(self) -> Step | None:
        """Redo the step undone last; see :meth:`undo`."""
        with self._lock:
            return self._need().redo()

    def _mask_of(self, mask: NDArray[Any]) -> NDArray[Any]:
        """Return a mask as integers, checked."""
        if mask.dtype == bool:
            mask = mask.astype(np.uint8)
        if mask.shape != self._need().grid.shape:
            raise GeometryError(
                f"The initial mask has shape {mask.shape}, the image {self._need().grid.shape}: "
                "they must share a grid."
            )
        if mask.dtype.kind not in "iu" or (mask.size and mask.min() < 0):
            raise LabelError("The initial mask must hold integers from 0, the background.")
        return mask

    def _need(self) -> Session:
        if self._session is None:
            raise ParameterError("There is no image yet: call set_image first.")
        return self._session


def as_volume(
    image: Volume | ArrayLike | str | Path,
    spacing: Sequence[float] | None,
    affine: ArrayLike | None,
) -> Volume:
    """Return an image from a file, an array or a volume."""
    from napari_medgs.data.volume import Volume

    if isinstance(image, (str, Path)):
        from napari_medgs.io import read_volume

        sizes = None if spacing is None else (spacing[0], spacing[1], spacing[2])
        if affine is not None:
            raise ParameterError("An affine goes with an array; a file has its own.")
        return read_volume(image, spacing=sizes)
    if isinstance(image, Volume):
        if spacing is not None or affine is not None:
            raise ParameterError("A Volume has its own geometry: leave spacing and affine out.")
        return image
    return Volume.from_array(image, spacing, affine)
