"""Edits of the selected class, computed in a thread and recorded as one step each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.errors import LabelError, ParameterError
from napari_medgs.plugin.report import guarded, show_failure
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.tools_panel import ToolsPanel
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume
    from napari_medgs.segmentation import Session

CHANGED = "The mask changed meanwhile: press the button again."


@dataclass(frozen=True)
class EditClass:
    """Edit one class of a mask on the canonical grid.

    Attributes
    ----------
    labels, strokes : (Z, Y, X) ndarray of int
        Copies.
    label : int
    edit : str
        A :class:`~napari_medgs.segmentation.postprocess.class_edits.ClassEdit`.
    amount : float
    axis : int
        Across the slices that are shown.
    volume : Volume
    limits : (float or None, float or None)
        The range of intensities in which voxels may be added.
    """

    labels: NDArray[Any]
    strokes: NDArray[Any]
    label: int
    edit: str
    amount: float
    axis: int
    volume: Volume
    limits: tuple[float | None, float | None]

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> NDArray[Any]:
        """Return the edited mask."""
        from napari_medgs.segmentation.postprocess.class_edits import edit_class, intensity_mask

        within = None
        if self.limits != (None, None):
            within = intensity_mask(self.volume.channel(0), *self.limits)
        painted = (self.strokes == self.label).any(
            axis=tuple(a for a in range(3) if a != self.axis)
        )
        return edit_class(
            self.labels,
            self.label,
            self.edit,
            self.volume.grid.spacing,
            self.amount,
            within=within,
            slices=np.flatnonzero(painted).tolist(),
            axis=self.axis,
        )


@dataclass(frozen=True)
class ThresholdClass:
    """Give background voxels of a range of intensities to one class.

    Attributes
    ----------
    labels : (Z, Y, X) ndarray of int
        A copy, which is changed.
    label : int
    volume : Volume
    low, high : float
    """

    labels: NDArray[Any]
    label: int
    volume: Volume
    low: float
    high: float

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> NDArray[Any]:
        """Return the mask."""
        from napari_medgs.segmentation.postprocess.class_edits import intensity_mask

        inside = intensity_mask(self.volume.channel(0), self.low, self.high)
        inside &= self.labels == 0
        if not inside.any():
            raise LabelError(
                f"No background voxel has an intensity from {self.low:g} to {self.high:g}."
            )
        self.labels[inside] = self.label
        return self.labels


class ClassTools:
    """What the buttons of the tools do.

    Parameters
    ----------
    owner : QWidget
        Whose life the thread shares.
    panel : ToolsPanel
    controller : SegmentController
    context : SegmentContext
    selected : callable
        Returns the value of the selected class, or None; 0 or the background's value for it.
    background : callable
        Returns the value of background strokes.
    """

    title = "Editing the class"

    def __init__(
        self,
        owner: Any,
        panel: ToolsPanel,
        controller: SegmentController,
        context: SegmentContext,
        selected: Callable[[], int | None],
        background: Callable[[], int | None],
    ) -> None:
        self.panel, self._controller, self._context = panel, controller, context
        self._selected, self._background = selected, background
        self.runner = Runner(owner)
        for edit, made in panel.edits.items():
            made.clicked.connect(lambda *_, edit=edit: self.edit(edit))
        panel.threshold.clicked.connect(lambda *_: self.threshold())

    def inputs(self) -> tuple[int, Session, Volume]:
        """Return the class to edit, the session and the image.

        Raises
        ------
        ParameterError, LabelError
            Without a session, or when no class or a locked one is selected.
        """
        label = self._selected()
        session, volume = self._controller.session, self._context.volume
        if session is None or volume is None:
            raise ParameterError("Press New first: there is no mask to edit yet.")
        if not label or label == self._background():
            raise ParameterError("Select a class in the table first; the background has no shape.")
        if label in self._controller.state.locked:
            raise LabelError("The class is locked: unlock it in the table to edit it.")
        return label, session, volume

    @guarded
    def edit(self, edit: str) -> None:
        """Edit the selected class."""
        label, session, volume = self.inputs()
        amount = self.panel.smallest if edit == "remove small" else self.panel.margin
        place = self._context.visible_slice()
        params = session.settings.params
        self.run(
            EditClass(
                session.labels.copy(),
                session.strokes.copy(),
                label,
                edit,
                amount.value(),
                0 if place is None else place[0],
                volume,
                (params.lowest, params.highest),
            )
        )

    @guarded
    def threshold(self) -> None:
        """Give the voxels of the range to the selected class."""
        label, session, volume = self.inputs()
        low, high = self.panel.low.value(), self.panel.high.value()
        self.run(ThresholdClass(session.labels.copy(), label, volume, low, high))

    def run(self, job: Any) -> None:
        """Compute a mask in a thread and record it as one step.

        Parameters
        ----------
        job : callable
            As of :class:`~napari_medgs.plugin.worker.Runner`; returns the mask.
        """
        if self.runner.busy:
            return
        revision = self._controller.revision
        self.panel.set_busy(True)
        self.runner.start(
            job,
            returned=lambda mask: self._take(mask, revision),
            errored=lambda error: show_failure(error, self.title),
            finished=lambda: self.panel.set_busy(False),
        )

    @guarded
    def _take(self, mask: NDArray[Any], revision: int) -> None:
        controller = self._controller
        if controller.revision != revision or controller.painting:
            controller.state.message = CHANGED
        elif not controller.set_mask(mask):
            controller.state.message = "There was nothing to change."

    def shut_down(self) -> None:
        """Stop what is computed."""
        self.runner.shut_down()
