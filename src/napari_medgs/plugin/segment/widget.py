"""The Segment widget: strokes in, a multi-class mask out, while you paint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

from napari_medgs.errors import ParameterError
from napari_medgs.plugin.garbage import CollectorRest
from napari_medgs.plugin.report import LOGGER, guarded, show_failure, show_hint
from napari_medgs.plugin.responsive import breathe
from napari_medgs.plugin.segment.accept import AcceptAction
from napari_medgs.plugin.segment.accepted import AcceptedLayers
from napari_medgs.plugin.segment.cases import CaseActions
from napari_medgs.plugin.segment.choices import ChoiceEvents
from napari_medgs.plugin.segment.class_files import ClassFiles
from napari_medgs.plugin.segment.classes import ClassActions
from napari_medgs.plugin.segment.complete_slice import CompleteSlice
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.contrasts import Contributions
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.files import SegmentFiles
from napari_medgs.plugin.segment.form import LabelValueForm, SegmentForm
from napari_medgs.plugin.segment.keys import bind_viewer_keys
from napari_medgs.plugin.segment.layer_events import LayerEvents
from napari_medgs.plugin.segment.layer_watcher import LayerWatcher
from napari_medgs.plugin.segment.layers import (
    BACKGROUND,
)
from napari_medgs.plugin.segment.maps import MapLayers
from napari_medgs.plugin.segment.model import JobKind, ResultUpdate
from napari_medgs.plugin.segment.parts.ahead import PartsAhead
from napari_medgs.plugin.segment.parts.tool import ClickParts
from napari_medgs.plugin.segment.presegment import PreSegment
from napari_medgs.plugin.segment.prompt_layers import PromptLayers
from napari_medgs.plugin.segment.saving import SaveActions
from napari_medgs.plugin.segment.scissors.tool import Scissors
from napari_medgs.plugin.segment.sessions import SegmentSessions
from napari_medgs.plugin.segment.statistics import Statistics
from napari_medgs.plugin.segment.statistics_table import StatisticsPanel
from napari_medgs.plugin.segment.suggestion import SliceSuggestion
from napari_medgs.plugin.segment.surface_view import FROM_THE_FRONT, SurfaceView
from napari_medgs.plugin.segment.tools import ClassTools
from napari_medgs.plugin.segment.tools_panel import ToolsPanel
from napari_medgs.plugin.segment.view import SegmentView
from napari_medgs.plugin.segment.warm_up import warm_up
from napari_medgs.plugin.viewing.view_bar import ViewBar
from napari_medgs.plugin.widgets.elements import Section
from napari_medgs.plugin.widgets.shortcuts import Shortcuts
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari.viewer import Viewer


POLL_MS = 8  # solves take tenths of a second: reports must not wait as long
REST_MS = 450  # without a stroke, until an incremental solve is followed by a full one


class SegmentWidget(SegmentSessions):
    """Segment an image from strokes, with undo, corrections and several classes.

    Builds view, controller and the helpers for layers and files, and connects them.

    Parameters
    ----------
    napari_viewer : napari.Viewer

    Attributes
    ----------
    view : SegmentView
        All controls.
    controller : SegmentController
        The session and its solves; ``controller.state`` is what the view shows.
    context : SegmentContext
        The image and the session's layers.
    """

    title = "The segmentation"

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.runner = Runner(self, POLL_MS)
        self.context = SegmentContext(self.viewer)
        self.controller = SegmentController(self.runner, self.context.visible_slice)
        self.state = self.controller.state
        breathe()  # here and below: all of it takes some tenths of a second
        self.settings, self.values = SegmentForm(), LabelValueForm(0, BACKGROUND)
        breathe()
        self.view = SegmentView(self, self.state, self.settings, self.values)
        self.body.addWidget(self.view)
        breathe()
        self.look = ViewBar(self)
        self.view.add_look(self.look)
        self.view.add_check(self.look.show_3d)
        self.shortcuts = Shortcuts()
        self.watcher = LayerWatcher(self)
        parts = (self.view, self.controller, self.context)
        self.classes = ClassActions(*parts)
        self.prompt_layers = PromptLayers(*parts, self.shortcuts)
        self.maps = MapLayers(*parts)
        self.suggestion = SliceSuggestion(*parts)
        self.complete_slice = CompleteSlice(*parts)
        self.contrasts = Contributions(self, self.controller, self.context, self._class_names)
        self.view.add_check(self.contrasts.button)
        self.view.add_check_panel(self.contrasts.panel)
        self.accepted = AcceptedLayers(self.context, lambda: self.files.schedule_autosave())
        self.accept = AcceptAction(*parts, self.accepted)
        self.statistics = Statistics(
            self, StatisticsPanel(), self.controller, self.context, self._class_names
        )
        self.view.add_section(Section("Statistics", self.statistics.panel))
        self.tools = ClassTools(
            self,
            ToolsPanel(),
            self.controller,
            self.context,
            lambda: self.view.table.value,
            lambda: self.view.table.background,
        )
        self.view.add_section(Section("Edit the class", self.tools.panel))
        breathe()
        self.scissors = Scissors(
            self.tools.panel.scissors,
            self.tools,
            self.controller,
            self.context,
            self.look.four_views,
            self._free_mouse,
        )
        self.surface = SurfaceView(
            self, self.look.show_3d, self.controller, self.context, self.view.table.color
        )
        four = self.look.four_views
        self.surface.wanted_elsewhere = lambda: four.is_on
        self.surface.made.connect(
            lambda data: four.show_surface(data, self.context.image, FROM_THE_FRONT)
        )
        four.opened.connect(self.surface.update)
        self.parts = ClickParts(
            self,
            self.view.parts,
            self.controller,
            self.context,
            self.view.table,
            four,
            self.make_strokes,
        )
        self.surface.made.connect(lambda data: self.parts.show_in_space())
        self.parts_ahead = PartsAhead(self, self.controller, self.context)
        self.files = SegmentFiles(self, *parts, self.accepted, self._resume)
        self.class_files = ClassFiles(self.view, self.context, self.classes)
        self.presegment = PreSegment(self, *parts, self.class_files, self.make_strokes)
        self.saving = SaveActions(self, *parts, self.files)
        self.cases = CaseActions(
            self, *parts, self.class_files.current, self._begin_case, self.end
        )
        self.rest_timer = QTimer(self)
        self.rest_timer.setSingleShot(True)
        self.rest_timer.setInterval(REST_MS)
        self.rest_timer.timeout.connect(self.controller.request_full_solve)
        self._connect()
        self.layer_events = LayerEvents(self)
        bind_viewer_keys(self)
        self.view.table.fill([1, 2], BACKGROUND)
        self.files.look_for_saved()
        self._go_on()
        self._collector = CollectorRest(self.viewer)
        self.controller.prepared.connect(self._collector.begin)
        self._warm_up = Runner(self)
        self._warm_up.start(
            lambda progress, should_stop: warm_up(),
            returned=lambda nothing: None,
            errored=lambda error: LOGGER.info("warming up failed", exc_info=error),
            finished=self._collector.begin,
        )

    def _connect(self) -> None:
        view, controller = self.view, self.controller
        controller.solve_due.connect(self._on_solve_due)
        controller.settings_restored.connect(self._on_settings_restored)
        controller.progressed.connect(view.show_progress)
        controller.failed.connect(lambda error: show_failure(error, "Segmenting"))
        controller.hinted.connect(show_hint)
        controller.shown.connect(self._on_shown)
        controller.refused.connect(self._on_refused)
        controller.prepared.connect(self.give_field)
        view.new_strokes.clicked.connect(lambda *_: self.make_strokes())
        view.strokes.changed.connect(self.follow_strokes)
        self.choices = ChoiceEvents(self)
        self.settings.changed.connect(self._on_params)
        for signal in (
            self.tools.panel.limit.toggled,
            self.tools.panel.low.valueChanged,
            self.tools.panel.high.valueChanged,
        ):
            signal.connect(lambda *_: self._on_params())
        view.auto.toggled.connect(self._on_auto)
        view.panel.button.clicked.connect(lambda *_: self.update_now())
        view.panel.cancel.clicked.connect(lambda *_: controller.cancel())
        view.only_correct.clicked.connect(lambda on: self.keep_mask(on))
        view.undo.clicked.connect(lambda *_: self.undo())
        view.redo.clicked.connect(lambda *_: self.redo())
        for checking in (
            view.suggest.clicked,
            view.uncertainty.toggled,
            self.look.show_3d.toggled,
        ):
            checking.connect(self._on_checked)
        self.listen(self.viewer.dims.events.current_step, self._on_checked)
        for event in ("current_step", "order", "ndisplay"):
            self.listen(getattr(self.viewer.dims.events, event), self.complete_slice.refresh)

    def _free_mouse(self) -> None:
        """End what takes clicks and drags on the canvas."""
        self.parts.close()
        self.look.window_bar.drag.setChecked(False)

    def _on_checked(self, *_: object) -> None:
        """Notice that the user looks through the mask."""
        if self.state.volumes_ml:
            self.state.checked = True

    @guarded
    def update_now(self) -> None:
        """Solve anew; what is missing becomes a notification."""
        if self.controller.session is None:
            self._load_images()
            raise ParameterError("Press New to add a strokes layer, then paint two classes.")
        self.controller.sync_strokes()
        self.controller.request_update()

    @guarded
    def keep_mask(self, keep: bool) -> None:
        """Let strokes only correct the present mask from now on, or learn from all again."""
        self.view.only_correct.setChecked(self.state.keeps_mask)  # until it is so
        self._record_edits()
        self.controller.keep_mask(keep)

    @guarded
    def undo(self) -> None:
        """Undo one step, or take an edit back that is not computed yet."""
        self._record_edits()
        if not self.tools.take_back():
            self.controller.undo()

    @guarded
    def redo(self) -> None:
        """Redo one step."""
        self._record_edits()
        self.controller.redo()

    def _record_edits(self) -> None:
        if self.watcher.may_have_edits and not self.controller.painting:
            self.controller.sync_strokes()

    @guarded
    def _on_params(self) -> None:
        self.controller.set_params(self._params())

    def _on_auto(self, on: bool) -> None:
        self.state.auto_update = on
        if on and self.controller.session is not None and not self.controller.is_current:
            self.controller.request(JobKind.PREPARE, JobKind.FULL)

    def _on_solve_due(self) -> None:
        if self.state.auto_update:
            self.rest_timer.start()

    def _on_settings_restored(self) -> None:
        session = self.controller.session
        if session is not None:
            self._show_params(session.settings.params)
            self.prompt_layers.show(session.settings)

    def _on_shown(self, update: ResultUpdate) -> None:
        if update in (ResultUpdate.INCREMENTAL, ResultUpdate.FULL):
            self.state.message = ""

    def _on_refused(self, reason: str) -> None:
        """Say why there is no result; before the first stroke the guide says what to do."""
        untouched = not self.state.can_undo  # or all of it was undone
        self.state.message = "" if untouched else reason

    def shut_down(self) -> None:
        """Save the session, free keys and layers, stop what runs."""
        self.rest_timer.stop()
        self.end()
        self.files.shut_down()
        self._warm_up.shut_down()
        self._collector.shut_down()
        self.view.brush.shut_down()
        for part in (
            self.saving,
            self.cases,
            self.presegment,
            self.parts,
            self.parts_ahead,
            self.tools,
            self.statistics,
            self.contrasts,
            self.surface,
            self.look,
            self.view.align,
        ):
            part.shut_down()
        self.shortcuts.free()
        super().shut_down()
