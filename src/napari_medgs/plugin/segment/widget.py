"""The Segment widget: strokes in, a multi-class mask out, while you paint."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_medgs.errors import LabelError, MedGSError, ParameterError
from napari_medgs.plugin.anatomy.follower import follow_planes
from napari_medgs.plugin.garbage import CollectorRest
from napari_medgs.plugin.layer_frame import same_place
from napari_medgs.plugin.layer_metadata import (
    FIELD_KEY,
    FRAME_KEY,
    NAMES_KEY,
    ROLE_KEY,
    label_table,
    role_of,
)
from napari_medgs.plugin.layer_orientation import grid_warning
from napari_medgs.plugin.levels import at_fitting_level, segment_need
from napari_medgs.plugin.report import LOGGER, guarded, show_failure
from napari_medgs.plugin.responsive import breathe
from napari_medgs.plugin.segment.accept import AcceptAction
from napari_medgs.plugin.segment.accepted import AcceptedLayers
from napari_medgs.plugin.segment.cases import CaseActions
from napari_medgs.plugin.segment.class_files import ClassFiles
from napari_medgs.plugin.segment.classes import ClassActions
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.contrasts import Contributions
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.files import SegmentFiles
from napari_medgs.plugin.segment.form import LabelValueForm, SegmentForm
from napari_medgs.plugin.segment.keys import bind_layer_keys, bind_viewer_keys
from napari_medgs.plugin.segment.layer_events import LayerEvents
from napari_medgs.plugin.segment.layer_watcher import LayerWatcher
from napari_medgs.plugin.segment.layers import (
    BACKGROUND,
    LabelView,
    add_result_layer,
    add_strokes_layer,
)
from napari_medgs.plugin.segment.maps import MapLayers
from napari_medgs.plugin.segment.model import JobKind, ResultUpdate
from napari_medgs.plugin.segment.new_session import known_field, new_session
from napari_medgs.plugin.segment.parts.ahead import PartsAhead
from napari_medgs.plugin.segment.parts.tool import ClickParts
from napari_medgs.plugin.segment.presegment import PreSegment
from napari_medgs.plugin.segment.prompt_layers import PromptLayers
from napari_medgs.plugin.segment.saving import SaveActions
from napari_medgs.plugin.segment.scissors.tool import Scissors
from napari_medgs.plugin.segment.statistics import Statistics
from napari_medgs.plugin.segment.statistics_table import StatisticsPanel
from napari_medgs.plugin.segment.suggestion import SliceSuggestion
from napari_medgs.plugin.segment.surface_view import FROM_THE_FRONT, SurfaceView
from napari_medgs.plugin.segment.tools import ClassTools
from napari_medgs.plugin.segment.tools_panel import ToolsPanel
from napari_medgs.plugin.segment.view import RESTORE_HINT, SegmentView
from napari_medgs.plugin.segment.warm_up import wait_until_warm, warm_up
from napari_medgs.plugin.viewing.view_bar import ViewBar
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.elements import Section
from napari_medgs.plugin.widgets.layers import NEWS
from napari_medgs.plugin.widgets.shortcuts import Shortcuts
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_medgs.data.volume import Volume
    from napari_medgs.plugin.layer_frame import LayerFrame
    from napari_medgs.segmentation import ClassList, SegmentParams, Session

POLL_MS = 8  # solves take tenths of a second: reports must not wait as long
REST_MS = 450  # without a stroke, until an incremental solve is followed by a full one


class SegmentWidget(MedGSWidget):
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
        self._choosing = False
        self._marked = False
        self._named_for: Callable[[], Any] = lambda: None
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
        controller.shown.connect(self._on_shown)
        controller.refused.connect(self._on_refused)
        controller.prepared.connect(self.give_field)
        view.new_strokes.clicked.connect(lambda *_: self.make_strokes())
        view.strokes.changed.connect(self.follow_strokes)
        view.images.changed.connect(self._on_images)
        view.initial.changed.connect(self.restart)
        view.fields.changed.connect(self.restart)
        self.values.changed.connect(self.restart)
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
        view.undo.clicked.connect(lambda *_: self.undo())
        view.redo.clicked.connect(lambda *_: self.redo())
        for checking in (
            view.suggest.clicked,
            view.uncertainty.toggled,
            self.look.show_3d.toggled,
        ):
            checking.connect(self._on_checked)
        self.listen(self.viewer.dims.events.current_step, self._on_checked)

    @property
    def strokes_layer(self) -> Any:
        """The Labels layer of the session's strokes, or None."""
        return self.context.strokes_layer

    @property
    def result_layer(self) -> Any:
        """The Labels layer of the session's mask, or None."""
        return self.context.result_layer

    def _class_names(self) -> dict[int, str]:
        return {v: self.view.table.name(v) for v in self.view.table.classes}

    # The session

    @guarded
    def make_strokes(self) -> None:
        """Add a strokes layer for the image and begin."""
        chosen = self.view.images.layers
        images = at_fitting_level(self.viewer, chosen, segment_need, "The segmentation")
        if images != chosen:
            self.view.images.check(images)
        _, frame = self._load_images()
        table = self.view.table
        self.values.load(0, BACKGROUND)
        table.fill(table.classes or [1, 2], BACKGROUND)
        names = {v: table.name(v) for v in table.values}
        image = self.view.images.layers[0]
        follower = follow_planes(self.viewer)
        if follower is not None:
            follower.show_slices(image)
        wait_until_warm()
        strokes = add_strokes_layer(self.viewer, image, names, table.colors, frame.ndim)
        breathe()  # napari takes some tenths of a second for each layer
        self.begin(strokes, reuse=False)

    def _free_mouse(self) -> None:
        """End what takes clicks and drags on the canvas."""
        self.parts.close()
        self.look.window_bar.drag.setChecked(False)

    def _begin_case(self, image: Any, classes: ClassList) -> None:
        """Begin with another image and the classes of the last one."""
        self.view.images.check([image])
        self.class_files.show(classes)
        self.make_strokes()

    def _on_checked(self, *_: object) -> None:
        """Notice that the user looks through the mask."""
        if self.state.volumes_ml:
            self.state.checked = True

    def _load_images(self) -> tuple[Volume, LayerFrame]:
        return self.context.load_images(self.view.images.layers)

    def follow_strokes(self) -> None:
        """Go on in the strokes layer that is chosen now, or in none."""
        if self._choosing:
            return
        layer = self.view.strokes.layer
        if layer is None:
            had_session = self.controller.session is not None
            self.end()
            self.files.look_for_saved()
            if had_session and self.files.found is not None:
                self.state.message = RESTORE_HINT
        elif layer is not self.strokes_layer:
            self.begin(layer)

    @guarded
    def begin(
        self,
        layer: Any,
        session: Session | None = None,
        field_file: Path | None = None,
        *,
        reuse: bool = True,
    ) -> None:
        """Begin a session in a strokes layer, which may hold strokes already.

        Parameters
        ----------
        layer : napari.layers.Labels
        session : Session, optional
            One to continue, whose strokes are in the layer; a new one by default.
        field_file : path, optional
            Where the session's field may be read from.
        reuse : bool
            Show the mask in the image's result layer where there is one already.
        """
        self.end()
        context, table = self.context, self.view.table
        is_new = session is None
        try:
            volume, frame = self._load_images()
            if not same_place(layer, context.image):
                raise LabelError(
                    f"{layer.name!r} and the image {context.image.name!r} differ in shape, voxel "
                    "size or place. Press New for a layer of this image."
                )
            strokes = LabelView(layer, frame)
            unlabeled, background = self.values.values()
            if background == unlabeled:
                raise ParameterError("The values for unlabeled and for background must differ.")
            if session is None:
                session = new_session(
                    context,
                    self.view.initial.layer,
                    self._params(),
                    unlabeled,
                    background,
                    resample=self.view.resample.isChecked(),
                )
        except MedGSError:
            self._choose(self.view.strokes.choose, None)
            raise
        self.view.place_warning = grid_warning(frame.grid, context.image.name)
        context.strokes_layer = layer
        self._named_for = weakref.ref(context.image)
        self._marked = role_of(layer) is None
        layer.metadata.setdefault(ROLE_KEY, "strokes")  # so that nobody exports it as a mask
        self._choose(self.view.strokes.choose, layer)
        # A layer added later must not take the image's place.
        self._choose(self.view.images.check, context.sources)
        start = self.view.initial.layer if is_new else None
        names, colors = label_table(start)
        table.colors.update(colors)
        own = {int(k): str(v) for k, v in dict(layer.metadata.get(NAMES_KEY, {})).items()}
        # Names that nobody chose give way to those of the starting mask.
        names = own | {k: v for k, v in names.items() if own.get(k, f"class {k}") == f"class {k}"}
        names |= session.names
        found = np.unique(strokes.array) if strokes.array.any() else [0]
        painted = {int(v) for v in found} - {unlabeled}
        values = (painted | set(names)) - {unlabeled, background} or {1, 2}
        table.fill(values, background, names)
        old = context.find_layer("result") if reuse else None
        context.result_layer = old or self.make_result()
        breathe()
        result = LabelView(context.result_layer, frame)
        self.controller.threads = self.settings.params().threads
        field = known_field(context, self.view.fields.layer)
        self.controller.open(session, volume, strokes, result, field, field_file)
        self.watcher.watch_strokes(strokes, session.strokes)
        self.watcher.watch_result(result)
        bind_layer_keys(self, layer, context.result_layer)
        self.view.brush.follow(layer, context.result_layer)
        self.classes.show_colors()
        self.classes.show_names()
        self.accepted.watch_those_there()
        self.files.start()
        NEWS.changed.emit()
        if is_new:
            self.controller.sync_strokes()
        self.viewer.layers.selection.active = layer
        self.layer_events.choose_class(table.value)
        if self.state.auto_update:
            self.controller.request(JobKind.PREPARE, JobKind.FULL)

    def _resume(self, session: Session, field_file: Path | None) -> None:
        """Continue a session of the chosen image in a new strokes layer."""
        settings, table, frame = session.settings, self.view.table, self.context.frame
        assert frame is not None
        self.values.load(settings.unlabeled, settings.background)
        self._show_params(settings.params)
        values = {settings.background} if settings.background is not None else set()
        table.fill(values | set(session.names), settings.background, session.names)
        self.end()
        image = self.view.images.layers[0]
        layer = self.context.find_layer("strokes") or add_strokes_layer(
            self.viewer, image, session.names, table.colors, frame.ndim
        )
        smallest = np.min_scalar_type(max(int(session.strokes.max()), 255))
        layer.data = frame.to_layer(session.strokes).astype(smallest)
        self.begin(layer, session, field_file)
        self.prompt_layers.show(settings)
        self.accepted.show(session, table.colors)
        self.context.show_busiest_slice(session.strokes != settings.unlabeled)

    def _go_on(self) -> None:
        """Go on in the strokes layer that a closed widget left, when its session was saved."""
        session = self.files.saved_session()
        layer = self.context.find_layer("strokes")
        if session is None or layer is None or self.files.found is None:
            return
        shown = LabelView(layer, self.context.frame).array  # type: ignore[arg-type]
        if np.array_equal(shown, session.strokes):
            field = self.files.found.path.parent / session.field if session.field else None
            self._resume(session, field)

    def make_result(self) -> Any:
        """Add the layer that shows the mask."""
        table, active = self.view.table, self.viewer.layers.selection.active
        names = {v: table.name(v) for v in table.classes}
        layer = add_result_layer(self.viewer, self.context.image, names, table.colors)
        self.context.move_below_strokes(layer)
        self.viewer.layers.selection.active = active
        return layer

    def end(self) -> None:
        """End the session; its layers stay, and its autosaved file."""
        if self.controller.session is None:
            return
        self.parts.close()
        self.scissors.close()
        self.presegment.forget()
        self.controller.sync_strokes()
        self.files.finish()
        self.watcher.stop()
        for layer in (self.strokes_layer, self.result_layer):
            self.shortcuts.free(layer)
        self.view.brush.release()
        self.controller.close()
        self.accepted.stop()
        if self._marked and self.strokes_layer is not None:
            self.strokes_layer.metadata.pop(ROLE_KEY, None)
        NEWS.changed.emit()
        self.context.strokes_layer = self.context.result_layer = None
        self.prompt_layers.close()
        self.maps.close()
        self.statistics.close()
        self.contrasts.close()
        self.surface.close()
        self.suggestion.hide_marker()
        self._collector.end()

    def give_field(self) -> None:
        """Let the result carry its Gaussians, for the Export and overlay widgets."""
        layer, frame, field = self.result_layer, self.context.frame, self.controller.field
        if layer is not None and frame is not None and field is not None:
            layer.metadata.update({FIELD_KEY: field, FRAME_KEY: frame.to_dict()})
            NEWS.changed.emit()

    def restart(self) -> None:
        """Begin anew with the same strokes, for settings that a session cannot change."""
        if self.strokes_layer is not None and not self._choosing:
            self.begin(self.strokes_layer)

    def _choose(self, choose: Any, layers: Any) -> None:
        self._choosing = True
        choose(layers)
        self._choosing = False

    def _on_images(self) -> None:
        if self.view.images.layers == self.context.sources or self._choosing:
            return
        layer = self.strokes_layer
        self.end()
        self.context.forget_images()
        self._forget_patient()
        if layer is not None and self.view.images.layers and layer in self.viewer.layers:
            self.begin(layer)
        else:
            self._choose(self.view.strokes.choose, None)
        self.files.look_for_saved()

    def _forget_patient(self) -> None:
        """Forget the names of the classes of an image that is no longer chosen."""
        last = self._named_for()
        if last is not None and last not in self.view.images.layers:
            self._named_for = lambda: None
            self.view.table.reset()

    # What the buttons do

    @guarded
    def update_now(self) -> None:
        """Solve anew; what is missing becomes a notification."""
        if self.controller.session is None:
            self._load_images()
            raise ParameterError("Press New to add a strokes layer, then paint two classes.")
        self.controller.sync_strokes()
        self.controller.request_update()

    @guarded
    def undo(self) -> None:
        """Undo one step."""
        self._record_edits()
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

    def _params(self) -> SegmentParams:
        low, high = self.tools.panel.limits()
        return replace(self.settings.params(), lowest=low, highest=high)

    def _on_auto(self, on: bool) -> None:
        self.state.auto_update = on
        if on and self.controller.session is not None and not self.controller.is_current:
            self.controller.request(JobKind.PREPARE, JobKind.FULL)

    # What the controller says

    def _on_solve_due(self) -> None:
        if self.state.auto_update:
            self.rest_timer.start()

    def _on_settings_restored(self) -> None:
        session = self.controller.session
        if session is not None:
            self._show_params(session.settings.params)
            self.prompt_layers.show(session.settings)

    def _show_params(self, params: SegmentParams) -> None:
        # The number of threads is the machine's, not the session's.
        self.settings.load(replace(params, threads=self.settings.params().threads))
        self.tools.panel.show_limits(params.lowest, params.highest)

    def _on_shown(self, update: ResultUpdate) -> None:
        if update in (ResultUpdate.INCREMENTAL, ResultUpdate.FULL):
            self.state.message = ""

    def _on_refused(self, reason: str) -> None:
        """Say why there is no result; before the first stroke the guide says what to do."""
        untouched = not self.state.can_undo and not self.state.can_redo
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
        ):
            part.shut_down()
        self.shortcuts.free()
        super().shut_down()
