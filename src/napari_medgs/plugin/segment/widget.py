"""The Segment widget: strokes in, a multi-class mask out, while you paint."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_medgs.errors import LabelError, MedGSError, ParameterError
from napari_medgs.plugin.layer_frame import check_sliceable, same_place, volume_from_layers
from napari_medgs.plugin.layer_metadata import NAMES_KEY, field_of, fitted_to
from napari_medgs.plugin.report import guarded, show_failure
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.files import SegmentFiles
from napari_medgs.plugin.segment.layers import (
    BACKGROUND,
    LabelView,
    add_result_layer,
    add_strokes_layer,
)
from napari_medgs.plugin.segment.shortcuts import Shortcuts
from napari_medgs.plugin.segment.tools import SegmentTools, visible_slice
from napari_medgs.plugin.segment.ui import KEYS, LAYER_KEYS
from napari_medgs.plugin.segment.view import SegmentView
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari.viewer import Viewer

POLL_MS = 8  # solves take tenths of a second: reports must not wait as long
REST_MS = 450  # without a stroke, until a quick solve is followed by a full one
QUIET_MS = 300  # after the last redraw, until edits without a paint event are looked for


class SegmentWidget(SegmentView):
    """Segment an image from strokes, with undo, corrections and several classes.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.runner = Runner(self, POLL_MS)
        self.panel._runner = self.runner
        self.control = SegmentController(self.runner, lambda: visible_slice(self))
        self.keys = Shortcuts()
        self.image: Any = None
        self.sources: list[Any] = []
        self.frame: Any = None
        self.volume: Any = None
        self.strokes_layer: Any = None
        self.result_layer: Any = None
        self._choosing = False
        self._watched: list[tuple[Any, Any]] = []
        self.rest = self._timer(REST_MS, self.control.settle)
        self.quiet = self._timer(QUIET_MS, self._look)
        self.tools = SegmentTools(self)
        self.files = SegmentFiles(self)
        self._connect()
        self._bind_keys()
        self.table.fill([1, 2], BACKGROUND)
        self._show_state()
        self.files.look_for_kept()

    def _timer(self, milliseconds: int, action: Any) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(milliseconds)
        timer.timeout.connect(action)
        return timer

    def _connect(self) -> None:
        control = self.control
        control.changed.connect(self._show_state)
        control.shown.connect(self._on_shown)
        control.unsettled.connect(self._on_unsettled)
        control.settings_stepped.connect(self._on_settings_stepped)
        control.progressed.connect(self._on_progress)
        control.running.connect(self._on_running)
        control.hinted.connect(self._hint)
        control.failed.connect(lambda error: show_failure(error, "Segmenting"))
        self.new_strokes.clicked.connect(lambda *_: self.make_strokes())
        self.strokes.changed.connect(self._on_choice)
        self.images.changed.connect(self._on_images)
        self.initial.changed.connect(self.restart)
        self.fields.changed.connect(self.restart)
        self.value_form.changed.connect(self.restart)
        self.settings.changed.connect(self._on_params)
        self.auto.toggled.connect(self._on_auto)
        self.panel.button.clicked.connect(lambda *_: self.update_now())
        self.panel.cancel.clicked.connect(lambda *_: control.cancel())
        self.undo.clicked.connect(lambda *_: self.step(True))
        self.redo.clicked.connect(lambda *_: self.step(False))
        self.add_class.clicked.connect(lambda *_: self.new_class())
        self.remove_class.clicked.connect(lambda *_: self.drop_class())
        self.table.selected.connect(self._on_class)
        self.table.renamed.connect(lambda *_: self._on_names())
        self.table.recolored.connect(lambda *_: self._recolor())
        self.table.lock_asked.connect(self.set_lock)
        self.listen(self.viewer.layers.events.removed, self._on_removed)

    def _bind_keys(self) -> None:
        actions = (
            self.update_now,
            self.tools.suggest,
            lambda: self.table.step(1),
            lambda: self.table.step(-1),
            self._toggle_lock,
        )
        for key, action in zip(KEYS, actions, strict=True):
            self.keys.take(self.viewer, key, action)

    # The session

    @guarded
    def make_strokes(self) -> None:
        """Add a strokes layer for the image and begin."""
        _, frame = self._take_image()
        classes = self.table.classes or [1, 2]
        self.value_form.load(0, BACKGROUND)
        self.table.fill(classes, BACKGROUND)
        names = {v: self.table.name(v) for v in self.table.values}
        layer = add_strokes_layer(
            self.viewer, self.images.layers[0], names, self.table.colors, frame.ndim
        )
        self.begin(layer)

    def _take_image(self) -> tuple[Any, Any]:
        """Return volume and frame of the chosen images, checked."""
        sources = self.images.layers
        for layer in sources[:1]:
            check_sliceable(layer, self.viewer.dims)
        if self.volume is None or sources != self.sources:
            volume, frame = volume_from_layers(sources)
            volume.check_image()
            self.sources, self.image = sources, sources[0]
            self.volume, self.frame = volume, frame
        return self.volume, self.frame

    def _on_choice(self) -> None:
        if self._choosing:
            return
        layer = self.strokes.layer
        if layer is None:
            had = self.control.session is not None
            self.end()
            if had:
                self._say("The session is kept: Restore brings its strokes back.")
            self.files.look_for_kept()
        elif layer is not self.strokes_layer:
            self.begin(layer)

    @guarded
    def begin(self, layer: Any, session: Any = None, field_file: Path | None = None) -> None:
        """Begin a session in a strokes layer, which may hold strokes already."""
        self.end()
        try:
            volume, frame = self._take_image()
            if not same_place(layer, self.image):
                raise LabelError(
                    f"{layer.name!r} and the image {self.image.name!r} differ in shape, voxel "
                    "size or place. Press New for a layer of this image."
                )
            strokes = LabelView(layer, frame)
            unlabeled, background = self.value_form.values()
            if background == unlabeled:
                raise ParameterError("The values for unlabeled and for background must differ.")
            fresh = session is None
            if fresh:
                session = self._new_session(unlabeled, background)
        except MedGSError:
            self._choose_strokes(None)
            raise
        self.strokes_layer = layer
        self._choose_strokes(layer)
        self._choosing = True
        self.images.check(self.sources)  # a layer added later must not take the image's place
        self._choosing = False
        names = {int(k): str(v) for k, v in dict(layer.metadata.get(NAMES_KEY, {})).items()}
        known = set(names) | set(session.names)
        found = {int(v) for v in np.unique(strokes.array)} - {unlabeled}
        values = (found | known) - {unlabeled, background} or {1, 2}
        self.table.fill(values, background, names | session.names)
        self.result_layer = self._make_result()
        view = LabelView(self.result_layer, frame)
        self.control.auto = self.auto.isChecked()
        self.control.open(session, volume, strokes, view, self._known_field(), field_file)
        self._watch(layer, self._on_painted)
        self._watch(self.result_layer, self._on_corrected)
        self._recolor()
        self._on_names()
        self.files.start(session)
        if fresh:
            self.control.sync_strokes()
        self.viewer.layers.selection.active = layer
        self._on_class(self.table.value)
        if self.control.auto:
            self.control.want("prepare", "full")
        self._show_state()

    def _new_session(self, unlabeled: int, background: int | None) -> Any:
        from napari_medgs.plugin.layer_frame import labels_like
        from napari_medgs.segmentation import Session, Settings

        initial = None
        if self.initial.layer is not None:
            initial = labels_like(self.initial.layer, self.image, self.frame).astype(np.int32)
        paths = [getattr(x.source, "path", None) or x.name for x in self.sources]
        return Session(
            self.volume.grid,
            Settings(unlabeled=unlabeled, background=background, params=self.settings.params()),
            initial=initial,
            images=[str(p) for p in paths],
        )

    def _known_field(self) -> Any:
        """Return the field chosen, or the newest one fitted to this image, if any."""
        grid = self.volume.grid
        if self.fields.layer is not None:
            return field_of(self.fields.layer)
        if self.control.field is not None and self.control.model.volume is self.volume:  # type: ignore[union-attr]
            return self.control.field
        return fitted_to(self.viewer.layers, self.image, grid, len(self.sources))

    def _make_result(self) -> Any:
        active = self.viewer.layers.selection.active
        names = {v: self.table.name(v) for v in self.table.classes}
        layer = add_result_layer(self.viewer, self.image, names, self.table.colors)
        # Beneath the strokes, which must stay visible.
        top = self.viewer.layers.index(self.strokes_layer)
        self.viewer.layers.move(self.viewer.layers.index(layer), top)
        self.viewer.layers.selection.active = active
        return layer

    def end(self) -> None:
        """End the session; its layers stay and so does its log."""
        if self.control.session is None:
            return
        self.control.sync_strokes()
        self.files.finish()
        self._unwatch()
        self.control.close()
        self.strokes_layer = self.result_layer = None
        self.tools.forget()
        self.result.setVisible(False)
        self._show_state()

    def restart(self) -> None:
        """Begin anew with the same strokes, for settings that a session cannot change."""
        if self.strokes_layer is not None and not self._choosing:
            self.begin(self.strokes_layer)

    def _choose_strokes(self, layer: Any) -> None:
        self._choosing = True
        self.strokes.choose(layer)
        self._choosing = False

    def _on_images(self) -> None:
        if self.images.layers == self.sources or self._choosing:
            return
        layer = self.strokes_layer
        self.end()
        self.volume = self.image = None
        self.sources = []
        if layer is not None and self.images.layers and layer in self.viewer.layers:
            self.begin(layer)
        else:
            self._choose_strokes(None)
        self.files.look_for_kept()

    # What happens in the layers

    def _watch(self, layer: Any, painted: Any) -> None:
        layer.events.paint.connect(painted)
        layer.events.set_data.connect(self._on_redrawn)
        layer.events.selected_label.connect(self._on_label)
        layer.mouse_drag_callbacks.insert(0, self._during_stroke)
        for key, back in zip(LAYER_KEYS, (True, False), strict=True):
            self.keys.take(layer, key, partial(self.step, back))
        self._watched.append((layer, painted))

    def _unwatch(self) -> None:
        for layer, painted in self._watched:
            layer.events.paint.disconnect(painted)
            layer.events.set_data.disconnect(self._on_redrawn)
            layer.events.selected_label.disconnect(self._on_label)
            layer.mouse_drag_callbacks.remove(self._during_stroke)
            self.keys.free(layer)
        self._watched = []

    def _during_stroke(self, layer: Any, event: Any) -> Iterator[None]:
        self.control.painting = True
        yield
        while event.type == "mouse_move":
            yield
        self.control.painting = False
        self.quiet.start()

    @guarded
    def _on_painted(self, event: Any) -> None:
        self.control.painting = False
        view = self.control.strokes
        if view is not None:
            self.control.sync_strokes(view.box_of(event.value))

    @guarded
    def _on_corrected(self, event: Any) -> None:
        self.control.painting = False
        display = self.control.display
        if display is not None:
            self.control.sync_result(display.view.box_of(event.value))

    def _on_redrawn(self, event: Any = None) -> None:
        self.quiet.start()

    @guarded
    def _look(self) -> None:
        """Find strokes that came without an event: layer.undo(), scripts, other plugins."""
        if not self.control.painting:
            self.control.sync_strokes()

    def _on_label(self, event: Any) -> None:
        value = int(event.source.selected_label)
        if value and value not in self.table.values and event.source is self.strokes_layer:
            self.table.fill([*self.table.values, value], self.table.background)
            self._recolor()
        self.table.choose(value)

    def _on_class(self, value: int | None) -> None:
        if value is None:
            return
        for layer in (self.strokes_layer, self.result_layer):
            target = 0 if layer is self.result_layer and value == self.table.background else value
            if layer is not None and layer.selected_label != target:
                with layer.events.selected_label.blocker():
                    layer.selected_label = target
        self.tools.choose_class(value)

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        if layer is self.strokes_layer:
            self._on_choice()  # the combo box has lost it, or will
        elif layer is self.result_layer and self.strokes_layer is not None:
            self._watched = [w for w in self._watched if w[0] is not layer]
            self.keys.free(layer)
            QTimer.singleShot(0, self._replace_result)
        self.tools.on_removed(layer)

    @guarded
    def _replace_result(self) -> None:
        """Show the result in a new layer after its layer was removed."""
        if self.strokes_layer not in self.viewer.layers or self.control.session is None:
            return
        self.result_layer = self._make_result()
        self.control.show_in(LabelView(self.result_layer, self.frame))
        self._watch(self.result_layer, self._on_corrected)
        self._on_class(self.table.value)

    # What the buttons do

    @guarded
    def update_now(self) -> None:
        """Solve anew; what is missing becomes a notification."""
        if self.control.session is None:
            self._take_image()
            raise ParameterError("Press New to add a strokes layer, then paint two classes.")
        self.control.sync_strokes()
        self.control.update()

    @guarded
    def step(self, back: bool) -> None:
        """Undo or redo one step."""
        self.control.step(back)

    @guarded
    def _on_params(self) -> None:
        self.control.change(params=self.settings.params())

    def _on_auto(self, on: bool) -> None:
        self.control.auto = on
        session = self.control.session
        if on and session is not None and not session.is_current:
            self.control.want("prepare", "full")

    def shut_down(self) -> None:
        """Keep the session, free keys and layers, stop what runs."""
        self.rest.stop()
        self.quiet.stop()
        self.end()
        self.files.shut_down()
        self.keys.free()
        super().shut_down()
