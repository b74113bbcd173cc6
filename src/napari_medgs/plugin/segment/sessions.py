"""How sessions of the Segment widget begin, are continued, and end."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medgs.errors import LabelError, MedGSError, ParameterError
from napari_medgs.plugin.anatomy.follower import follow_planes
from napari_medgs.plugin.image_digest import contrast_digests
from napari_medgs.plugin.layer_frame import same_place
from napari_medgs.plugin.layer_metadata import (
    FIELD_KEY,
    FRAME_KEY,
    IMAGE_KEY,
    NAMES_KEY,
    ROLE_KEY,
    SESSION_KEY,
    label_table,
    role_of,
)
from napari_medgs.plugin.layer_orientation import grid_warning
from napari_medgs.plugin.levels import at_fitting_level, segment_need
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.responsive import breathe
from napari_medgs.plugin.segment.accepted import AcceptedLayers
from napari_medgs.plugin.segment.class_files import ClassFiles
from napari_medgs.plugin.segment.classes import ClassActions
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.contrasts import Contributions
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.files import SegmentFiles
from napari_medgs.plugin.segment.form import LabelValueForm, SegmentForm
from napari_medgs.plugin.segment.keys import bind_layer_keys
from napari_medgs.plugin.segment.layer_events import LayerEvents
from napari_medgs.plugin.segment.layer_watcher import LayerWatcher
from napari_medgs.plugin.segment.layers import (
    LabelView,
    add_result_layer,
    add_strokes_layer,
    free_background,
)
from napari_medgs.plugin.segment.maps import MapLayers
from napari_medgs.plugin.segment.model import JobKind
from napari_medgs.plugin.segment.new_session import known_field, new_session
from napari_medgs.plugin.segment.parts.tool import ClickParts
from napari_medgs.plugin.segment.presegment import PreSegment
from napari_medgs.plugin.segment.prompt_layers import PromptLayers
from napari_medgs.plugin.segment.scissors.tool import Scissors
from napari_medgs.plugin.segment.statistics import Statistics
from napari_medgs.plugin.segment.suggestion import SliceSuggestion
from napari_medgs.plugin.segment.surface_view import SurfaceView
from napari_medgs.plugin.segment.tools import ClassTools
from napari_medgs.plugin.segment.view import RESTORE_HINT, SegmentView
from napari_medgs.plugin.segment.warm_up import wait_until_warm
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.layers import NEWS
from napari_medgs.plugin.widgets.shortcuts import Shortcuts
from napari_medgs.segmentation.prompts.prompts import MOST_CLASSES

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_medgs.data.volume import Volume
    from napari_medgs.plugin.layer_frame import LayerFrame
    from napari_medgs.segmentation import ClassList, SegmentParams, Session


def _labels_of(mask: Any | None) -> set[int]:
    """Return the classes of a mask."""
    return set() if mask is None else {int(v) for v in np.unique(np.asarray(mask)) if v}


class SegmentSessions(MedGSWidget):
    """How the sessions of the Segment widget begin, go on and end.

    :class:`~napari_medgs.plugin.segment.widget.SegmentWidget` builds the parts that it works with.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    view: SegmentView
    controller: SegmentController
    context: SegmentContext
    settings: SegmentForm
    values: LabelValueForm
    watcher: LayerWatcher
    layer_events: LayerEvents
    classes: ClassActions
    class_files: ClassFiles
    prompt_layers: PromptLayers
    accepted: AcceptedLayers
    files: SegmentFiles
    shortcuts: Shortcuts
    tools: ClassTools
    parts: ClickParts
    scissors: Scissors
    presegment: PreSegment
    maps: MapLayers
    statistics: Statistics
    contrasts: Contributions
    surface: SurfaceView
    suggestion: SliceSuggestion

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.is_choosing = False
        self._marked = False
        self._named_for: Callable[[], Any] = lambda: None

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

    @guarded
    def make_strokes(self) -> None:
        """Add a strokes layer for the image and begin."""
        chosen = self.view.images.layers
        images = at_fitting_level(self.viewer, chosen, segment_need, "The segmentation")
        if images != chosen:
            self.view.images.check(images)
        self._load_images()
        table = self.view.table
        started = self._labels_to_begin_with()
        background = free_background(started)
        self.values.load(0, background)
        table.fill(table.classes or [1, 2], background)
        names = {v: table.name(v) for v in table.values}
        image = images[0]  # perhaps gone by now: the window went on while it was loaded
        follower = follow_planes(self.viewer)
        if follower is not None:
            follower.show_slices(image)
        wait_until_warm()
        highest = max(started, default=0)
        strokes = add_strokes_layer(self.viewer, image, names, table.colors, background, highest)
        breathe()  # napari takes some tenths of a second for each layer
        self.begin(strokes)
        if self.strokes_layer is not strokes and strokes in self.viewer.layers:
            self.viewer.layers.remove(strokes)  # it was refused

    def _labels_to_begin_with(self) -> set[int]:
        mask = self.view.initial.layer
        return set() if mask is None or mask.multiscale else _labels_of(mask.data)

    def _begin_case(self, image: Any, classes: ClassList) -> None:
        """Begin with another image and the classes of the last one."""
        self.view.images.check([image])
        self.class_files.show(classes)
        self.make_strokes()

    def _load_images(self) -> tuple[Volume, LayerFrame]:
        return self.context.load_images(self.view.images.layers)

    def follow_strokes(self) -> None:
        """Go on in the strokes layer that is chosen now, or in none."""
        if self.is_choosing:
            return
        layer = self.view.strokes.layer
        if layer is None:
            had_session = self.controller.session is not None
            self.end()
            self.files.look_for_saved()
            if had_session and self.files.found is not None:
                self.state.message = RESTORE_HINT
        elif layer is not self.strokes_layer and not self._go_on_in(layer):
            self.begin(layer)

    @guarded
    def begin(
        self,
        layer: Any,
        session: Session | None = None,
        field_file: Path | None = None,
    ) -> None:
        """Begin a session in a strokes layer, which may hold strokes already.

        Parameters
        ----------
        layer : napari.layers.Labels
        session : Session, optional
            One to continue, whose strokes are in the layer; a new one by default.
        field_file : path, optional
            Where the session's field may be read from.
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
            started = _labels_of(session.initial)
            if len(started) >= MOST_CLASSES:
                raise LabelError(
                    f"The mask to begin with has {len(started)} labels; at most "
                    f"{MOST_CLASSES - 1} work. Keep those that you want to correct."
                )
        except MedGSError:
            self.choose(self.view.strokes.choose, None)
            raise
        self.view.place_warning = grid_warning(frame.grid, context.image.name)
        context.strokes_layer = layer
        self._named_for = weakref.ref(context.image)
        self._marked = role_of(layer) is None
        layer.metadata.setdefault(ROLE_KEY, "strokes")  # so that nobody exports it as a mask
        self.choose(self.view.strokes.choose, layer)
        # A layer added later must not take the image's place.
        self.choose(self.view.images.check, context.sources)
        start = self.view.initial.layer if is_new else None
        names, colors = label_table(start)
        table.colors.update(colors)
        own = {int(k): str(v) for k, v in dict(layer.metadata.get(NAMES_KEY, {})).items()}
        # Names that nobody chose give way to those of the starting mask.
        names = own | {k: v for k, v in names.items() if own.get(k, f"class {k}") == f"class {k}"}
        names |= session.names
        found = np.unique(strokes.array) if strokes.array.any() else np.zeros(1, int)
        painted = {int(v) for v in found} - {unlabeled}
        if start is not None:
            plain = {v for v in names if names[v] == f"class {v}"} - painted - started
            names = {v: name for v, name in names.items() if v not in plain}
        values = (painted | started | set(names)) - {unlabeled, background} or {1, 2}
        table.fill(values, background, names)
        if is_new and not found.any() and layer.selected_label not in table.values:
            layer.selected_label = table.classes[0]  # else a class of the brush would be added
        self.files.start()
        assert self.files.path is not None
        context.mark_layers(layer, self.files.path.name)
        old = context.find_layer("result")
        context.result_layer = old or self.make_result()
        if not layer.visible:
            layer.visible = context.result_layer.visible = True
        context.hide_other_sessions()
        breathe()
        result = LabelView(context.result_layer, frame)
        if old is not None and not is_new and result.fits() and not session.labels.any():
            session.set_result(result.array, is_current=False)  # on show until it is solved
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
        NEWS.changed.emit()
        if is_new:
            self.controller.sync_strokes()
        if start is not None:
            start.visible = False  # the result shows the same mask, and its corrections
        self.viewer.layers.selection.active = layer
        self.layer_events.choose_class(table.value)
        if self.state.auto_update:
            self.controller.request(JobKind.PREPARE, JobKind.FULL)

    def _resume(self, session: Session, field_file: Path | None, key: str) -> None:
        """Continue a session of the chosen image in the layer of its strokes, or in a new one."""
        settings, table, frame = session.settings, self.view.table, self.context.frame
        assert frame is not None
        self.values.load(settings.unlabeled, settings.background)
        self._show_params(settings.params)
        values = {settings.background} if settings.background is not None else set()
        table.fill(values | set(session.names), settings.background, session.names)
        self.end()
        image = self.view.images.layers[0]
        layer = self.context.strokes_of(key, session.strokes)
        if layer is None:
            layer = add_strokes_layer(self.viewer, image, session.names, table.colors)
            layer.metadata[SESSION_KEY] = key
            highest = max(255, *session.names, *_labels_of(session.initial))
            smallest = np.min_scalar_type(max(int(session.strokes.max()), highest))
            layer.data = frame.to_layer(session.strokes).astype(smallest)
        self.begin(layer, session, field_file)
        self.context.show_busiest_slice(session.strokes != settings.unlabeled)
        self.prompt_layers.show(settings)  # boxes through all slices are drawn in the one on show
        self.accepted.show(session, table.colors)

    def _go_on(self) -> None:
        """Go on in the strokes layer that a closed widget left, when its session was saved."""
        found = self.files.found
        session = self.files.saved_session()
        if session is None or found is None:
            return
        layer = self.context.strokes_of(found.path.name, session.strokes)
        if layer is not None and layer.visible:  # not that of a session before the last one
            self.files.open(found.path)

    def _go_on_in(self, layer: Any) -> bool:
        """Go on with the saved session of a strokes layer; return whether there is one."""
        key = layer.metadata.get(SESSION_KEY)
        session = None if key is None else self.files.session_of(key)
        if session is None or self.context.strokes_of(key, session.strokes) is not layer:
            return False
        self.files.open(self.files.place_of(key))
        return True

    def make_result(self) -> Any:
        """Add the layer that shows the mask."""
        table, active = self.view.table, self.viewer.layers.selection.active
        names = {v: table.name(v) for v in table.classes}
        layer = add_result_layer(self.viewer, self.context.image, names, table.colors)
        layer.metadata[SESSION_KEY] = self.context.session_key
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
        self.context.strokes_layer = self.context.result_layer = self.context.session_key = None
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
            if self.context.volume is not None:
                layer.metadata[IMAGE_KEY] = contrast_digests(self.context.volume)
            NEWS.changed.emit()

    def choose(self, choose: Any, layers: Any) -> None:
        """Choose layers in a control, without what follows where the user does."""
        self.is_choosing = True
        choose(layers)
        self.is_choosing = False

    def forget_patient(self) -> None:
        """Forget the names of the classes of an image that is no longer chosen."""
        last = self._named_for()
        if last is not None and last not in self.view.images.layers:
            self._named_for = lambda: None
            self.view.table.reset()

    def _params(self) -> SegmentParams:
        low, high = self.tools.panel.limits()
        return replace(self.settings.params(), lowest=low, highest=high)

    def _show_params(self, params: SegmentParams) -> None:
        # The number of threads is the machine's, not the session's.
        self.settings.load(replace(params, threads=self.settings.params().threads))
        self.tools.panel.show_limits(params.lowest, params.highest)
