"""Strokes of a session: painted and corrected, each change a step of the history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_medgs._util.arrays import with_room
from napari_medgs.errors import GeometryError, ParameterError
from napari_medgs.segmentation.prompts.coordinates import labels_as_int32
from napari_medgs.segmentation.session.changes import Delta, difference
from napari_medgs.segmentation.session.history import Step
from napari_medgs.segmentation.session.runs import encode_runs
from napari_medgs.segmentation.session.settings import Settings
from napari_medgs.segmentation.session.state import SessionState
from napari_medgs.segmentation.session.taken_back import painted_by, without_overpainted


class StrokeLog(SessionState):
    """The strokes of a session, with what was painted since they were last recorded."""

    def record_strokes(self, box: tuple[slice, ...] | None = None) -> bool:
        """Record what was painted into ``strokes`` since the last call as one step.

        Points that it contradicts are taken back where it was painted, in the same step.

        Parameters
        ----------
        box : tuple of slice, optional
            Where to look; everywhere by default.

        Returns
        -------
        bool
            False when nothing had changed.
        """
        delta = difference(self._recorded, self.strokes, box)
        if not len(delta.starts):
            return False
        painted = painted_by(delta, self.settings.unlabeled)
        return self._record(delta, without_overpainted(self.settings, painted, self.grid))

    def _record(self, delta: Delta, settings: Settings) -> bool:
        """Record a change of the strokes and of the points; return whether there was one."""
        overpainted = settings != self.settings
        if not len(delta.starts) and not overpainted:
            return False
        self._recorded = with_room(self._recorded, delta.after)
        delta.apply(self._recorded)
        event: dict[str, Any] = {
            "do": "strokes",
            "runs": encode_runs(delta.starts, delta.lengths, delta.after),
        }
        step = Step("strokes", event, strokes=delta)
        if overpainted:
            # Part of the log: in files of earlier versions strokes took no points back.
            event["settings"] = settings.to_dict()
            self._change(step, settings, self._locked_labels, self.initial, self.prior)
        else:
            self._push(step)
        return True

    def paint(self, where: Any, value: int) -> bool:
        """Set strokes at an index expression to a value, as one step.

        Points of other classes are taken back there.

        Parameters
        ----------
        where : index expression of the stroke image
        value : int

        Returns
        -------
        bool
            False when nothing had changed.
        """
        self.write_strokes(where, value)
        delta, settings = difference(self._recorded, self.strokes), self.settings
        if settings.points and value != settings.unlabeled:
            touched = np.zeros(self.grid.shape, np.bool_)
            touched[where] = True
            flat = touched.reshape(-1)
            settings = without_overpainted(
                settings, lambda at: np.where(flat[at], value, settings.unlabeled), self.grid
            )
        return self._record(delta, settings)

    def write_strokes(self, where: Any, values: ArrayLike) -> None:
        """Write into ``strokes`` at an index expression, with room for large values.

        Parameters
        ----------
        where : index expression of the stroke image
        values : array-like of int
            That 32 bits hold.
        """
        self.strokes = with_room(self.strokes, values)
        self.strokes[where] = values

    def write_runs(
        self,
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        values: NDArray[Any],
        settings: Settings | None = None,
    ) -> bool:
        """Paint runs of voxels, as one step of a log.

        Parameters
        ----------
        starts : (R,) ndarray of int
            Flat index of the first voxel of every run.
        lengths, values : (R,) ndarray of int
            Voxels, and their new value.
        settings : Settings, optional
            With the points that are left; all of them by default.

        Returns
        -------
        bool
            False when nothing had changed.
        """
        painted = Delta(starts, lengths, values, values)
        self.strokes = with_room(self.strokes, values)
        painted.apply(self.strokes)
        delta = difference(self._recorded, self.strokes, painted.box(self.strokes.shape))
        return self._record(delta, settings or self.settings)

    def correct(self, edited: NDArray[Any], box: tuple[slice, ...] | None = None) -> bool:
        """Record a result that was painted over: its differences from ``labels`` are strokes.

        Background in ``edited`` needs a background value. The correction counts in ``labels`` at
        once.

        Parameters
        ----------
        edited : (Z, Y, X) ndarray of int
        box : tuple of slice, optional
            Where to look; everywhere by default.

        Returns
        -------
        bool
            False when nothing had changed.

        Raises
        ------
        GeometryError
            When the mask has another shape than the image.
        ParameterError
            When background was painted and there is no value for it.
        LabelError
            When a new value is no integer, or none that 32 bits hold.
        """
        edited = np.asarray(edited)
        if edited.shape != self.grid.shape:
            raise GeometryError(
                f"The edited mask has shape {edited.shape}, the image {self.grid.shape}: they "
                "must share a grid."
            )
        shown = difference(self.labels, edited, box)
        if not len(shown.starts):
            return False
        shown = replace(shown, after=labels_as_int32(shown.after))
        values = shown.after.copy()
        if (values == 0).any():
            background = self.prompts().background_value
            if background is None:
                raise ParameterError(
                    "The correction turns voxels into background, but no value of the strokes "
                    "means background; choose one."
                )
            values[values == 0] = background
        self.strokes = with_room(self.strokes, values)
        painted = replace(shown, after=values)
        painted.apply(self.strokes)
        left = without_overpainted(
            self.settings, painted_by(painted, self.settings.unlabeled), self.grid
        )
        if not self._record(difference(self._recorded, self.strokes, box), left):
            return False
        self._show(shown)
        assert self._pending is not None
        self._pending.result = shown
        return True
