"""Layers of points and boxes for the Segment widget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medgs.plugin.layer_metadata import SESSION_KEY
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.key_names import LAYER_KEYS
from napari_medgs.plugin.segment.layers import (
    CLICK_RADIUS,
    add_prompt_layer,
    read_boxes,
    read_points,
)
from napari_medgs.plugin.segment.view import SegmentView
from napari_medgs.plugin.widgets.shortcuts import Shortcuts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medgs.data.grid import Grid
    from napari_medgs.segmentation import Settings
    from napari_medgs.segmentation.prompts.prompts import Box, Point

Corners = list[Any]


class PromptLayers:
    """The layers of points and boxes, kept equal to the session's settings.

    Parameters
    ----------
    view : SegmentView
    controller : SegmentController
    context : SegmentContext
    shortcuts : Shortcuts
    """

    title = "The segmentation"

    def __init__(
        self,
        view: SegmentView,
        controller: SegmentController,
        context: SegmentContext,
        shortcuts: Shortcuts,
    ) -> None:
        self._view, self._controller, self._context = view, controller, context
        self._shortcuts = shortcuts
        self.points: Any = None
        self.boxes: Any = None
        self._loading = False
        view.add_points.clicked.connect(lambda *_: self.make("points"))
        view.add_boxes.clicked.connect(lambda *_: self.make("boxes"))
        view.negative.toggled.connect(lambda *_: self.choose_class(view.table.value))

    @guarded
    def make(self, kind: str) -> Any:
        """Add the layer for "points" or "boxes", or select the one there is; return it.

        Parameters
        ----------
        kind : {"points", "boxes"}
        """
        context, controller = self._context, self._controller
        layer = getattr(self, kind)
        if layer is None:
            layer = context.find_layer(kind)  # a closed widget may have left it
            layer = layer or add_prompt_layer(context.viewer, context.image, kind)
            layer.metadata[SESSION_KEY] = context.session_key
            layer.visible = True
            setattr(self, kind, layer)
            layer.events.data.connect(self.read)
            layer.events.features.connect(self.read)
            for key, action in zip(LAYER_KEYS, (controller.undo, controller.redo), strict=True):
                self._shortcuts.bind(layer, key, action)
        context.viewer.layers.selection.active = layer
        layer.mode = "add" if kind == "points" else "add_rectangle"
        self.choose_class(self._view.table.value)
        return layer

    def choose_class(self, value: int | None) -> None:
        """Let new points and boxes be of a class."""
        if value is None:
            return
        table, background = self._view.table, self._view.table.background
        color = np.asarray(table.color(value))
        if self.points is not None:
            positive = not self._view.negative.isChecked() or value == background
            self.points.selected_data = set()
            new = {"class": value, "positive": positive, "radius": CLICK_RADIUS}
            self.points.feature_defaults = {k: new[k] for k in self.points.features if k in new}
            self.points.current_face_color = color
            self.points.current_symbol = "disc" if positive else "cross"
        if self.boxes is not None and value != background:
            self.boxes.selected_data = set()
            self.boxes.feature_defaults = {"class": value}
            self.boxes.current_edge_color = color

    @guarded
    def read(self, event: Any = None) -> None:
        """Record points and boxes as they are now, as one step."""
        context = self._context
        action = str(getattr(event, "action", "")).lower()
        unfinished = action.endswith("ing")  # napari announces a change before it makes it
        if self._loading or context.frame is None or unfinished:
            return
        changes: dict[str, Any] = {}
        if self.points is not None:
            changes["points"] = read_points(self.points, context.image, context.frame)
        if self.boxes is not None:
            if len(self.boxes.features) != self.boxes.nshapes:
                return  # in the middle of a change
            changes["boxes"] = read_boxes(self.boxes, context.image, context.frame)
        if changes:
            self._controller.update_settings(**changes)

    def show(self, settings: Settings) -> None:
        """Show points and boxes as they are in the settings (after undo, redo, restore)."""
        selection = self._context.viewer.layers.selection
        active = selection.active
        self._loading = True
        try:
            if settings.points and self.points is None:
                self.make("points")
            if settings.boxes and self.boxes is None:
                self.make("boxes")
            selection.active = active
            if self.points is not None:
                self._show_points(settings.points)
            if self.boxes is not None:
                self._show_boxes(settings.boxes)
            # napari lets new points and boxes be like the last ones that were set.
            self.choose_class(self._view.table.value)
        finally:
            self._loading = False

    def _show_points(self, points: Sequence[Point]) -> None:
        frame, table, layer = self._context.frame, self._view.table, self.points
        assert frame is not None
        places = np.array([p.position for p in points], float).reshape(-1, 3)
        layer.selected_data = set()
        layer.data = frame.points_to_layer(places)
        layer.features = {
            "class": np.array([p.label for p in points], int),
            "positive": np.array([p.positive for p in points], bool),
            "radius": np.array([p.radius for p in points], float),
        }
        if points:
            layer.face_color = np.array([table.color(p.label) for p in points])
            layer.symbol = ["disc" if p.positive else "cross" for p in points]

    def _show_boxes(self, boxes: Sequence[Box]) -> None:
        frame, table, layer = self._context.frame, self._view.table, self.boxes
        assert frame is not None
        layer.selected_data = set(range(layer.nshapes))
        layer.remove_selected()
        drawn: Corners = []
        classes: list[int] = []
        shown = self._context.visible_slice()
        for box in boxes:
            rectangles = box_rectangles(box, frame.grid, flat=frame.ndim == 2, shown=shown)
            drawn += [frame.points_to_layer(corners) for corners in rectangles]
            classes += [box.label] * len(rectangles)
        if drawn:
            layer.add_rectangles(drawn, edge_color=[table.color(c) for c in classes])
            layer.features = {"class": np.array(classes, int)}

    def on_removed(self, layer: Any) -> None:
        """Remove the prompts of a layer that was removed from the viewer, as a step."""
        for kind in ("points", "boxes"):
            if layer is getattr(self, kind):
                setattr(self, kind, None)
                self._shortcuts.free(layer)
                self._controller.update_settings(**{kind: ()})

    def close(self) -> None:
        """Let go of the layers, which stay, as the session ends."""
        for kind in ("points", "boxes"):
            layer = getattr(self, kind)
            if layer is not None:
                layer.events.data.disconnect(self.read)
                layer.events.features.disconnect(self.read)
                self._shortcuts.free(layer)
                setattr(self, kind, None)


def box_rectangles(
    box: Box, grid: Grid, *, flat: bool, shown: tuple[int, int] | None = None
) -> Corners:
    """Return the rectangles that give a box again when they are read.

    Parameters
    ----------
    box : Box
    grid : Grid
    flat : bool
        Whether the image is one slice, whose normal is the first axis.
    shown : (int, int), optional
        Axis and index of the slice on show.

    Returns
    -------
    list of (4, 3) ndarray
        Corners in canonical voxels: one rectangle, in the slice on show or else in the middle,
        for a box that spans the grid along an axis, otherwise one at each end.
    """
    low, high = np.asarray(box.start), np.asarray(box.stop) - 1
    spans = (low == 0) & (high == np.asarray(grid.shape) - 1)
    thickest = [int(a) for a in np.argsort(grid.spacing)[::-1]]
    axis = 0 if flat else next((a for a in thickest if spans[a]), thickest[0])
    depths = {int(low[axis] + high[axis]) // 2} if spans[axis] else {low[axis], high[axis]}
    if shown is not None and spans[shown[0]] and not flat:
        axis, depths = shown[0], {shown[1]}
    rectangles = []
    for depth in depths:
        ends = [low.copy(), high.copy()]
        ends[0][axis] = ends[1][axis] = depth
        u, v = (a for a in range(3) if a != axis)
        corners = np.array([ends[0], ends[0], ends[1], ends[1]], float)
        corners[1, v], corners[3, v] = ends[1][v], ends[0][v]
        corners[1, u], corners[3, u] = ends[0][u], ends[1][u]
        rectangles.append(corners)
    return rectangles
