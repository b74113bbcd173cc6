"""The tool "Click a part": from the mouse to a step of the session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_medgs.errors import LabelError, ParameterError
from napari_medgs.plugin.deferred import call_later
from napari_medgs.plugin.report import guarded, show_failure
from napari_medgs.plugin.segment.canvas_place import Place
from napari_medgs.plugin.segment.class_table import volume_text
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.model import JobKind
from napari_medgs.plugin.segment.parts.canvas import PartCanvas
from napari_medgs.plugin.segment.parts.jobs import MaskOfPart
from napari_medgs.plugin.segment.parts.panel import PartsPanel
from napari_medgs.plugin.segment.parts.picker import PartPicker
from napari_medgs.plugin.segment.parts.surface import PartSurface
from napari_medgs.plugin.segment.resting_layers import RestingLayers
from napari_medgs.plugin.widgets.shortcuts import Shortcuts
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari_medgs.hierarchy import PartSelection
    from napari_medgs.plugin.segment.controller import SegmentController
    from napari_medgs.plugin.viewing.four_views import FourViews
    from napari_medgs.segmentation import InteractiveSegmenter

POLL_MS = 8
REST_MS = 120  # between two notches of the wheel, until the mask follows the outline
KEYS = {"[": -1, "]": 1}
LOCKED = "The class is locked: unlock it in the table to add parts to it."
FINDING = "Finding parts …"


@dataclass(frozen=True)
class Wanted:
    """A part that is to get a class.

    Attributes
    ----------
    part : PartSelection
    label : int
        0 takes it out of the mask.
    instead : bool
        In place of the part that was clicked last.
    """

    part: PartSelection
    label: int
    instead: bool


class ClickParts:
    """Clicks on parts, while the button is down.

    Parameters
    ----------
    owner : QWidget
        Whose life timer and thread share.
    panel : PartsPanel
    controller : SegmentController
    context : SegmentContext
    table : ClassTable
    four : FourViews
    begin : callable
        Begins a session where there is none.
    """

    title = "Finding parts"

    def __init__(
        self,
        owner: Any,
        panel: PartsPanel,
        controller: SegmentController,
        context: SegmentContext,
        table: Any,
        four: FourViews,
        begin: Callable[[], Any],
    ) -> None:
        self._owner, self.panel = owner, panel
        self._controller, self._context = controller, context
        self._table, self._four, self._begin = table, four, begin
        self.runner = Runner(owner, POLL_MS)
        self.picker: PartPicker | None = None
        self.canvases: list[PartCanvas] = []
        self.surface = PartSurface(owner, self._spaces)
        self._shortcuts = Shortcuts()
        self._resting = RestingLayers(lambda: panel.button.setChecked(False))
        self._queue: list[Wanted] = []
        self._step: Any = None  # of the history, that the clicked part made
        self._label = 0  # of the clicked part
        self._recording = False
        self._rest = QTimer(owner)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._follow_outline)
        panel.button.toggled.connect(self._on_toggled)
        panel.level_chosen.connect(self._on_level)
        controller.parts_ready.connect(self._on_ready)
        controller.prompts_changed.connect(self._on_prompts)
        table.selected.connect(lambda *_: self.release())
        four.opened.connect(self._on_views)
        four.closing.connect(self._close_canvases)

    @property
    def is_on(self) -> bool:
        """Whether parts are what is clicked."""
        return self.panel.button.isChecked()

    # On and off

    def _on_toggled(self, on: bool) -> None:
        self._controller.state.clicking = on
        if not on:
            self.close()
        elif not self._start():
            self.panel.button.setChecked(False)

    @guarded
    def _start(self) -> bool:
        context, controller = self._context, self._controller
        if controller.session is None:
            self._begin()
        if controller.session is None or context.strokes_layer is None:
            return False
        self._resting.take([context.strokes_layer, context.result_layer])
        context.viewer.layers.selection.active = context.strokes_layer
        for target in (context.viewer, *self._resting.layers):
            for key, steps in KEYS.items():
                self._shortcuts.bind(target, key, partial(self.walk, steps))
            self._shortcuts.bind(target, "Escape", self.release)
        self._four.follows_shift = False
        if self.picker is None:
            self.panel.show_part(None, FINDING)
        controller.request(JobKind.PREPARE, JobKind.PARTS)
        return True

    def close(self) -> None:
        """Leave the tool; what was clicked stays."""
        self._follow_outline_now()
        self._close_canvases()
        self.picker, self._step = None, None
        self._shortcuts.free()
        self._four.follows_shift = True
        for layer in self._resting.free():
            if str(layer.mode) == "pan_zoom":
                layer.mode = "paint"
        self.panel.show_part(None, "")
        if self.panel.button.isChecked():
            self.panel.button.setChecked(False)

    @guarded
    def _on_ready(self, is_there: bool) -> None:
        segmenter = self._controller.segmenter
        if not self.is_on or segmenter is None:
            return
        if not is_there:
            self.panel.button.setChecked(False)
            return
        self._close_canvases()
        self.picker = PartPicker(segmenter.parts.tree())
        self.picker.changed.connect(self._show)
        self._open_canvases()
        self._show()

    def _on_views(self) -> None:
        if self.picker is not None:
            self._close_canvases()
            self._open_canvases()

    def _main(self) -> tuple[Any, Any]:
        viewer = self._context.viewer
        return viewer, viewer.window._qt_viewer.canvas

    def _spaces(self) -> list[tuple[Any, Any]]:
        space = self._four.space
        return [self._main()] + ([(space.model, space.widget.canvas)] if space else [])

    def _open_canvases(self) -> None:
        image, frame = self._context.image, self._context.frame
        assert frame is not None
        assert self.picker is not None
        planes = [(view.model, view.widget.canvas) for view in self._four.planes]
        for model, canvas in [self._main(), *planes]:
            made = PartCanvas(model, canvas, image, frame, self.picker)
            made.pointed.connect(lambda place, made=made: self._on_pointed(made, place))
            made.clicked.connect(self._on_clicked)
            made.wheeled.connect(self.walk)
            self.canvases.append(made)

    def _close_canvases(self) -> None:
        for canvas in self.canvases:
            canvas.close()
        self.canvases = []
        self.surface.close()

    # The mouse, the keys and the slider

    def _on_pointed(self, canvas: PartCanvas, place: Place | None) -> None:
        for other in self.canvases:
            if other is not canvas:
                other.leave()
        if self.picker is not None:
            self.picker.point_at(place)
        canvas.say(self._words())

    def walk(self, steps: int) -> None:
        """Make the part on show larger or smaller."""
        if self.picker is not None and self.picker.walk(steps):
            self._on_walked()

    def _on_level(self, level: int) -> None:
        if self.picker is not None and self.picker.set_level(level):
            self._on_walked()

    def _on_walked(self) -> None:
        assert self.picker is not None
        if self.picker.hovered is None:
            self._rest.start()

    @guarded
    def _on_clicked(self, place: Place, keys: tuple[Any, ...]) -> None:
        picker = self.picker
        if picker is None:
            return
        self._follow_outline_now()
        picker.point_at(place)
        clicked, within = picker.clicked, picker.hovered is None
        away = "Alt" in keys or "Control" in keys
        if clicked is not None and ((away and within) or ("Shift" in keys and not away)):
            self._want(picker.add_place(place, belongs=not away), self._label, instead=True)
        elif away:
            part = picker.part_at(place)
            self.release()
            self._want(part, 0)
        elif clicked is not None and within:
            self.release()
        else:
            label = self._class()
            part = picker.part_at(place)
            picker.click(part)
            self._label = label
            self._want(part, label)

    def _class(self) -> int:
        label = self._table.value
        if label is None:
            raise ParameterError("Select the class of the part in the table first.")
        if label in self._controller.state.locked:
            raise LabelError(LOCKED)
        return 0 if label == self._table.background else int(label)

    def release(self) -> None:
        """Let the clicked part be as it is; the wheel no longer changes it."""
        self._follow_outline_now()
        if self.picker is not None:
            self.picker.release()

    # Steps of the session

    def _follow_outline(self) -> None:
        """Let the mask have the size of the clicked part's outline."""
        if self.picker is not None and self.picker.clicked is not None:
            self._want(self.picker.clicked, self._label, instead=True)

    def _follow_outline_now(self) -> None:
        if self._rest.isActive():
            self._rest.stop()
            self._follow_outline()

    def _want(self, part: PartSelection, label: int, *, instead: bool = False) -> None:
        queue = self._queue
        if instead and queue and queue[-1].label == label:
            before = queue.pop()  # not begun yet
            instead = before.instead
        queue.append(Wanted(part, label, instead))
        self._run_next()

    def _run_next(self) -> None:
        segmenter = self._controller.segmenter
        if not self._queue or self.runner.busy or segmenter is None:
            return
        wanted = self._queue.pop(0)
        self.runner.start(
            MaskOfPart(segmenter.parts.tree(), wanted.part),
            returned=partial(self._record, wanted, segmenter),
            errored=lambda error: show_failure(error, self.title),
            finished=partial(call_later, self._owner, self._run_next),
        )

    @guarded
    def _record(self, wanted: Wanted, segmenter: InteractiveSegmenter, mask: NDArray[Any]) -> None:
        controller = self._controller
        if controller.segmenter is not segmenter:
            return
        done = segmenter.session.history.done
        # A click on what was so already has made no step that could be replaced.
        instead = wanted.instead and self._step is not None
        if instead and (not done or done[-1] is not self._step):
            return  # something else was done since
        self._recording = True
        try:
            changed = controller.add_part(wanted.label, wanted.part, mask, instead=instead)
        finally:
            self._recording = False
        self._step = done[-1] if changed else None
        if not changed:
            controller.state.message = "All of that part has this class already."

    def _on_prompts(self) -> None:
        """Release the clicked part when something else was done."""
        session = self._controller.session
        if session is None:
            self._queue.clear()
            if self.is_on:
                self.panel.button.setChecked(False)
        elif not self._recording and self.picker is not None and self._step is not None:
            done = session.history.done
            if not done or done[-1] is not self._step:
                self._step = None
                self._rest.stop()
                self.picker.release()

    # What is shown

    def _words(self) -> str:
        picker = self.picker
        part = None if picker is None else picker.shown
        if picker is None or part is None:
            return ""
        words = f"about {volume_text(picker.milliliters)}"  # of cells; the mask is smoother
        count = len(part.levels)
        return f"{words} · {part.level + 1} of {count}" if count > 1 else f"{words} · only size"

    def _show(self) -> None:
        part = None if self.picker is None else self.picker.shown
        words = self._words()
        self.panel.show_part(part, words)
        for canvas in self.canvases:
            canvas.draw()
            canvas.say(words)
        self.show_in_space()

    def show_in_space(self) -> None:
        """Show the part on canvases that show 3D; called again when there is a new one."""
        if self.picker is not None and self._context.frame is not None:
            self.surface.follow(self.picker, self._context.image, self._context.frame)

    def shut_down(self) -> None:
        """Stop what is computed, and give mouse and keys back."""
        self.close()
        self.surface.shut_down()
        self._queue.clear()
        self.runner.shut_down()
