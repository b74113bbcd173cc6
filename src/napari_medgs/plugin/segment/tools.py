"""Points, boxes, suggestions, maps and accepting for the Segment widget."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QSignalBlocker

from napari_medgs.errors import ParameterError
from napari_medgs.plugin.layer_frame import geometry_kwargs, same_place
from napari_medgs.plugin.layer_metadata import NAMES_KEY
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.segment.layers import (
    LabelView,
    accept,
    add_marks_layer,
    add_result_layer,
    label_colormap,
    read_boxes,
    read_points,
)

if TYPE_CHECKING:
    from napari_medgs.plugin.segment.widget import SegmentWidget

# Colours and contrast limits of the maps. Chances of mistakes are seldom above one half.
LOOKS = {"uncertainty": ("doubt", (0.0, 0.6)), "probability": ("sureness", (0.0, 1.0))}
SHADES = {
    "doubt": ((0.35, 0.1, 0.5), (0.85, 0.2, 0.45), (1.0, 0.6, 0.3), (1.0, 0.95, 0.6)),
    "sureness": ((0.15, 0.3, 0.6), (0.1, 0.6, 0.65), (0.45, 0.8, 0.35), (0.99, 0.9, 0.2)),
}


def map_colors(name: str) -> Any:
    """Return a colormap that is clear at 0, so that the image shows where a map says nothing."""
    from napari.utils import Colormap

    opacity = (0.25, 0.7, 0.9, 1.0)
    shades = [(*shade, alpha) for shade, alpha in zip(SHADES[name], opacity, strict=True)]
    clear = (*SHADES[name][0], 0.0)
    return Colormap([clear, *shades], name=name, controls=[0, 0.08, 0.35, 0.7, 1])


def visible_slice(widget: SegmentWidget) -> tuple[int, int] | None:
    """Return canonical axis and index of the slice on show; None in 3D or outside the image."""
    dims, image, frame = widget.viewer.dims, widget.image, widget.frame
    if image is None or dims.ndisplay != 2:
        return None
    if image.ndim == 2:
        return 0, 0
    hidden = [a - (dims.ndim - image.ndim) for a in dims.not_displayed]
    hidden = [a for a in hidden if a >= 0]
    if len(hidden) != 1:
        return None
    inside = image.world_to_data(np.asarray(dims.point)[-image.ndim :])
    axis = frame.canonical_axis(hidden[0])
    index = round(frame.canonical_position(axis, float(inside[hidden[0]])))
    return (axis, index) if 0 <= index < frame.grid.shape[axis] else None


class SegmentTools:
    """What the Segment widget can do besides strokes.

    Parameters
    ----------
    widget : SegmentWidget
    """

    title = "The segmentation"

    def __init__(self, widget: SegmentWidget) -> None:
        self.widget = widget
        self.points: Any = None
        self.boxes: Any = None
        self.marker: Any = None
        self.maps: dict[str, Any] = {}
        self._loading = False
        widget.add_points.clicked.connect(lambda *_: self.make_marks("points"))
        widget.add_boxes.clicked.connect(lambda *_: self.make_marks("boxes"))
        widget.negative.toggled.connect(lambda *_: self.choose_class(widget.table.value))
        widget.suggest.clicked.connect(lambda *_: self.suggest())
        widget.accept.clicked.connect(lambda *_: self.accept())
        widget.uncertainty.toggled.connect(lambda *_: self.want_maps())
        widget.probability.toggled.connect(lambda *_: self.want_maps())
        widget.control.suggested.connect(self.go_to)
        widget.control.mapped.connect(self.show_maps)

    # Points and boxes

    @guarded
    def make_marks(self, kind: str) -> Any:
        """Add the layer for points or boxes, or select the one there is; return it."""
        widget = self.widget
        layer = getattr(self, kind)
        if layer is None:
            layer = add_marks_layer(widget.viewer, widget.image, kind)
            setattr(self, kind, layer)
            layer.events.data.connect(self.read_marks)
            layer.events.features.connect(self.read_marks)
            for key, back in (("Ctrl+Z", True), ("Ctrl+Shift+Z", False)):
                widget.keys.take(layer, key, partial(widget.step, back))
        widget.viewer.layers.selection.active = layer
        layer.mode = "add" if kind == "points" else "add_rectangle"
        self.choose_class(widget.table.value)
        return layer

    def choose_class(self, value: int | None) -> None:
        """Let new points and boxes be of a class; the map of probability follows."""
        if value is None:
            return
        table, background = self.widget.table, self.widget.table.background
        color = np.asarray(table.color(value))
        if self.points is not None:
            positive = not self.widget.negative.isChecked() or value == background
            self.points.selected_data = set()
            self.points.feature_defaults = {"class": value, "positive": positive}
            self.points.current_face_color = color
            self.points.current_symbol = "disc" if positive else "cross"
        if self.boxes is not None and value != background:
            self.boxes.selected_data = set()
            self.boxes.feature_defaults = {"class": value}
            self.boxes.current_edge_color = color
        self.want_maps()

    @guarded
    def read_marks(self, event: Any = None) -> None:
        """Take points and boxes as they are now as one step."""
        widget = self.widget
        action = str(getattr(event, "action", "")).lower()
        if self._loading or widget.control.session is None or action.endswith("ing"):
            return
        changes: dict[str, Any] = {}
        if self.points is not None:
            changes["points"] = read_points(self.points, widget.image, widget.frame)
        if self.boxes is not None:
            if len(self.boxes.features) != self.boxes.nshapes:
                return  # in the middle of a change
            changes["boxes"] = read_boxes(self.boxes, widget.image, widget.frame)
        if changes:
            widget.control.change(**changes)

    def show_marks(self, settings: Any) -> None:
        """Show points and boxes as they are in the settings (after undo, redo, restore)."""
        widget = self.widget
        self._loading = True
        try:
            if settings.points and self.points is None:
                self.make_marks("points")
            if settings.boxes and self.boxes is None:
                self.make_marks("boxes")
            if self.points is not None:
                self._show_points(settings.points)
            if self.boxes is not None:
                self._show_boxes(settings.boxes)
        finally:
            self._loading = False
        widget.table.show_locks(settings.locked)

    def _show_points(self, points: Any) -> None:
        frame, table, layer = self.widget.frame, self.widget.table, self.points
        places = np.array([p.position for p in points], float).reshape(-1, 3)
        layer.selected_data = set()
        layer.data = frame.points_to_layer(places)
        layer.features = {
            "class": np.array([p.label for p in points], int),
            "positive": np.array([p.positive for p in points], bool),
        }
        if points:
            layer.face_color = np.array([table.color(p.label) for p in points])
            layer.symbol = ["disc" if p.positive else "cross" for p in points]

    def _show_boxes(self, boxes: Any) -> None:
        """Draw every box as the rectangles that give it again."""
        widget, layer = self.widget, self.boxes
        frame = widget.frame
        layer.selected_data = set(range(layer.nshapes))
        layer.remove_selected()
        thickest = [int(a) for a in np.argsort(frame.grid.spacing)[::-1]]
        drawn, classes = [], []
        for box in boxes:
            low, high = np.asarray(box.start), np.asarray(box.stop) - 1
            spans = (low == 0) & (high == np.asarray(frame.grid.shape) - 1)
            axis = 0 if frame.ndim == 2 else next((a for a in thickest if spans[a]), thickest[0])
            whole = bool(spans[axis])
            for depth in {int(low[axis] + high[axis]) // 2} if whole else {low[axis], high[axis]}:
                ends = [low.copy(), high.copy()]
                ends[0][axis] = ends[1][axis] = depth
                u, v = (a for a in range(3) if a != axis)
                corners = np.array([ends[0], ends[0], ends[1], ends[1]], float)
                corners[1, v], corners[3, v] = ends[1][v], ends[0][v]
                corners[1, u], corners[3, u] = ends[0][u], ends[1][u]
                drawn.append(frame.points_to_layer(corners))
                classes.append(box.label)
        if drawn:
            layer.add_rectangles(drawn, edge_color=[widget.table.color(c) for c in classes])
            layer.features = {"class": np.array(classes, int)}

    def on_removed(self, layer: Any) -> None:
        """Forget a layer that was removed from the viewer; its marks are undone as a step."""
        for kind in ("points", "boxes"):
            if layer is getattr(self, kind):
                setattr(self, kind, None)
                self.widget.keys.free(layer)
                if self.widget.control.session is not None:
                    self.widget.control.change(**{kind: ()})
        if layer is self.marker:
            self.marker = None
        self.maps = {k: v for k, v in self.maps.items() if v is not layer}

    def forget(self) -> None:
        """Let go of the layers as the session ends."""
        for kind in ("points", "boxes"):
            layer = getattr(self, kind)
            if layer is not None:
                layer.events.data.disconnect(self.read_marks)
                layer.events.features.disconnect(self.read_marks)
                self.widget.keys.free(layer)
                setattr(self, kind, None)
        self._hide_marker()
        self.maps = {}

    # The next slice

    @guarded
    def suggest(self) -> None:
        """Find the slice that is worth a stroke most, and go there."""
        widget = self.widget
        session = widget.control.session
        if session is None:
            raise ParameterError("Paint first: there is no result to improve yet.")
        place = visible_slice(widget)
        widget.control.suggest_axis = None if place is None else place[0]
        if session.is_current:
            widget.control.want("suggest")
        else:
            widget.control.want("prepare", "full", "suggest")

    def go_to(self, suggestion: Any) -> None:
        """Move the viewer to a suggested slice and ring the place."""
        widget = self.widget
        if suggestion is None or widget.image is None:
            widget._say("There is no other slice to suggest.")
            return
        data = self._show_slice(suggestion.axis, suggestion.position)
        self._mark(data)
        index = round(data[0][widget.frame.order[suggestion.axis]]) if data.shape[1] == 3 else 0
        widget._say(f"Slice {index}: a stroke in the ring helps most.")

    def _show_slice(self, axis: int, position: Sequence[float]) -> Any:
        """Move the viewer along a canonical axis to a position; return it in the layer, (1, D)."""
        widget = self.widget
        data = widget.frame.points_to_layer(np.asarray([position], float))
        world = widget.image.data_to_world(data[0])
        dims = widget.viewer.dims
        if widget.image.ndim == 3:
            along = widget.frame.order[axis] + dims.ndim - 3
            dims.set_point(along, world[along - dims.ndim])
        return data

    def show_strokes(self) -> None:
        """Move the viewer to the slice with most strokes, in the orientation on show."""
        widget = self.widget
        session, place = widget.control.session, visible_slice(widget)
        if session is None or place is None:
            return
        others = tuple(a for a in range(3) if a != place[0])
        counts = (session.strokes != session.settings.unlabeled).sum(axis=others)
        if counts.any() and not counts[place[1]]:
            position = [0.0, 0.0, 0.0]
            position[place[0]] = float(counts.argmax())
            self._show_slice(place[0], position)

    def _mark(self, data: Any) -> None:
        viewer, image = self.widget.viewer, self.widget.image
        active = viewer.layers.selection.active
        if self.marker is None:
            self.marker = viewer.add_points(
                data,
                name=f"{image.name} · next stroke",
                symbol="disc",
                size=max(6, min(image.extent.data[1][-2:]) / 9),
                face_color="transparent",
                border_color="#ffd54a",
                border_width=0.08,
                **geometry_kwargs(image),
            )
        else:
            self.marker.data = data
            self.marker.visible = True
        viewer.layers.selection.active = active

    def _hide_marker(self) -> None:
        if self.marker is not None:
            self.marker.visible = False

    def on_change(self) -> None:
        """Hide the ring once the prompts have changed."""
        self._hide_marker()

    # Maps

    def want_maps(self) -> None:
        """Ask for the maps that are checked."""
        widget, control = self.widget, self.widget.control
        value = widget.table.value if widget.probability.isChecked() else None
        label = 0 if value is not None and value == widget.table.background else value
        control.maps_wanted = (widget.uncertainty.isChecked(), label)
        shown = {"uncertainty": widget.uncertainty, "probability": widget.probability}
        for kind, layer in self.maps.items():
            layer.visible = shown[kind].isChecked()
        if control.session is not None and control.maps_wanted != (False, None):
            control.want("maps")

    def show_maps(self, maps: dict[str, Any]) -> None:
        """Show maps in layers of their own, updated in place."""
        widget = self.widget
        viewer, active = widget.viewer, widget.viewer.layers.selection.active
        for kind, array in maps.items():
            data = widget.frame.to_layer(array)
            layer, (colors, limits) = self.maps.get(kind), LOOKS[kind]
            if layer is None:
                layer = viewer.add_image(
                    data,
                    name=f"{widget.image.name} · {kind}",
                    colormap=map_colors(colors),
                    contrast_limits=limits,
                    blending="translucent",  # not mixed with the colours of the classes
                    opacity=0.85,
                    metadata={"medgs_role": kind},
                    **geometry_kwargs(widget.image),
                )
                self.maps[kind] = layer
                self._move_under_strokes(layer)
            else:
                layer.data = data
        viewer.layers.selection.active = active

    def _move_under_strokes(self, layer: Any) -> None:
        """Strokes must stay visible."""
        layers = self.widget.viewer.layers
        layers.move(layers.index(layer), layers.index(self.widget.strokes_layer))

    # Accepting

    @guarded
    def accept(self) -> None:
        """Copy the result into a final layer, never over other classes."""
        widget = self.widget
        control, session = widget.control, widget.control.session
        if session is None or control.display is None or not control.volumes_ml:
            raise ParameterError("There is no result to accept yet.")
        one = widget.accept_one.isChecked()
        classes = [widget.table.value] if one else sorted(control.volumes_ml)
        classes = [v for v in classes if v is not None and v in control.volumes_ml]
        if not classes:
            raise ParameterError("The selected class has no voxels to accept.")
        layer, active = widget.target.layer, widget.viewer.layers.selection.active
        names = {v: widget.table.name(v) for v in classes}
        if layer is None:
            layer = add_result_layer(
                widget.viewer, widget.image, names, widget.table.colors, role="final"
            )
            self._move_under_strokes(layer)
            with QSignalBlocker(widget.target):
                widget.target.choose(layer)
            widget.viewer.layers.selection.active = active
        elif not same_place(layer, widget.image):
            raise ParameterError(
                f"{layer.name!r} is not on the image's grid: choose another layer."
            )
        control.display.restore()
        final = LabelView(layer, widget.frame)
        count = accept(
            control.display.view, final, classes, replace_same=widget.replace_same.isChecked()
        )
        layer.metadata[NAMES_KEY] = dict(layer.metadata.get(NAMES_KEY, {})) | names
        colors = {v: widget.table.color(v) for v in widget.table.classes}
        layer.colormap = label_colormap(colors, None, result=True)
        widget._say(
            f"Accepted {count:,} voxels into {layer.name!r}."
            if count
            else f"There was nothing new to accept into {layer.name!r}."
        )
