"""Edits of the selected class, computed in a thread one after the other, each one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_medgs._util.arrays import with_room
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

TAKEN_BACK = "Taken back before it was computed."
LOCKED = "The class is locked: unlock it in the table to edit it."
WAIT_MS = 20  # between looks whether the stroke that an edit waits for is in the mask


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
        labels = with_room(self.labels, self.label)
        labels[inside] = self.label
        return labels


@dataclass(frozen=True, eq=False)
class Wanted:
    """An edit that the user asked for and that is not in the mask yet.

    Attributes
    ----------
    session : Session
    label : int
        The class that it changes.
    job : callable
        Returns the job, for the mask as it is when the edit begins.
    """

    session: Session
    label: int
    job: Callable[[], Any]


class ClassTools:
    """What the buttons of the tools do.

    Edits that are asked for while one is computed wait for it. Each is made of the mask that is
    there when it begins, and anew when that changed meanwhile.

    Parameters
    ----------
    owner : QWidget
        Whose life thread and timer share.
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
        self._waiting: list[Wanted] = []
        self._running: Wanted | None = None
        self._again = False
        self._next = QTimer(owner)
        self._next.setSingleShot(True)
        self._next.timeout.connect(self._run_next)
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
            raise LabelError(LOCKED)
        return label, session, volume

    @property
    def busy(self) -> bool:
        """Whether an edit is computed, or waits to be."""
        return bool(self._waiting) or self._running is not None or self.runner.busy

    @guarded
    def edit(self, edit: str) -> None:
        """Edit the selected class."""
        label, session, volume = self.inputs()
        amount = self.panel.smallest if edit == "remove small" else self.panel.margin
        place = self._context.visible_slice()
        params = session.settings.params
        made = partial(
            EditClass,
            label=label,
            edit=edit,
            amount=amount.value(),
            axis=0 if place is None else place[0],
            volume=volume,
            limits=(params.lowest, params.highest),
        )
        self.run(session, label, lambda: made(session.labels.copy(), session.strokes.copy()))

    @guarded
    def threshold(self) -> None:
        """Give the voxels of the range to the selected class."""
        label, session, volume = self.inputs()
        low, high = self.panel.low.value(), self.panel.high.value()
        self.run(
            session, label, lambda: ThresholdClass(session.labels.copy(), label, volume, low, high)
        )

    def run(self, session: Session, label: int, job: Callable[[], Any]) -> None:
        """Compute a mask in a thread and record it as one step, after the edits before it.

        Parameters
        ----------
        session : Session
            Whose mask is edited; nothing happens once it has ended.
        label : int
            The class that is changed.
        job : callable
            Returns the job as of :class:`~napari_medgs.plugin.worker.Runner`, which returns the
            mask. Called when the edit begins.
        """
        self._waiting.append(Wanted(session, label, job))
        self._run_next()

    def take_back(self) -> bool:
        """Forget the newest edit that is not in the mask yet; return whether there was one."""
        if self._waiting:
            self._waiting.pop()
        elif self._running is not None:
            self._running = None
            self.runner.stop()
        else:
            return False
        self._controller.state.message = TAKEN_BACK
        return True

    @guarded
    def _run_next(self) -> None:
        controller = self._controller
        self._waiting = [w for w in self._waiting if w.session is controller.session]
        if self.runner.busy:
            return
        self.panel.set_busy(bool(self._waiting))
        if not self._waiting:
            return
        # The mask must not change under the brush, nor be edited before it holds the last stroke.
        if controller.painting or (self._again and controller.busy):
            self._next.start(WAIT_MS)
            return
        self._again = False
        wanted, revision = self._waiting.pop(0), controller.revision
        try:
            if wanted.label in controller.state.locked:  # since it was asked for
                raise LabelError(LOCKED)
            job = wanted.job()
        except Exception:
            self._next.start(0)
            raise
        self._running = wanted
        self.runner.start(
            job,
            returned=lambda mask: self._take(mask, wanted, revision),
            errored=lambda error: self._fail(error, wanted),
            finished=self._on_finished,
        )

    @guarded
    def _take(self, mask: NDArray[Any], wanted: Wanted, revision: int) -> None:
        controller = self._controller
        if wanted is not self._running or wanted.session is not controller.session:
            return
        if controller.revision != revision or controller.painting:
            self._waiting.insert(0, wanted)  # once more, from the mask that comes of the change
            self._again = True
        elif not controller.set_mask(mask):
            controller.state.message = "There was nothing to change."

    def _fail(self, error: Exception, wanted: Wanted) -> None:
        if wanted is self._running:
            show_failure(error, self.title)

    def _on_finished(self) -> None:
        self._running = None
        self._next.start(0)

    def shut_down(self) -> None:
        """Stop what is computed."""
        self._next.stop()
        self._waiting.clear()
        self._running = None
        self.runner.shut_down()
