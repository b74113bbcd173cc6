"""The mouse on one canvas, in voxels of the image, and the outlines that it shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_medgs.plugin.layer_frame import visible_slice
from napari_medgs.plugin.layer_orientation import layer_matrix
from napari_medgs.plugin.segment.parts.outline import (
    CLICKED,
    HOVERED,
    OutlineNode,
    PointerText,
)
from napari_medgs.plugin.segment.parts.picker import PartPicker, Place

if TYPE_CHECKING:
    from napari_medgs.plugin.layer_frame import LayerFrame

STILL = 4.0  # pixels that the mouse may move in a click


class PartCanvas:
    """Follows the mouse on one canvas while parts are clicked.

    Parameters
    ----------
    model : napari.components.ViewerModel
        The viewer of the canvas.
    canvas : object
    image : napari.layers.Image
    frame : LayerFrame
    picker : PartPicker
    """

    pointed = Signal(object)  # voxel (z, y, x) or None
    clicked = Signal(object, object)  # voxel, keys that are held, which equal their names
    wheeled = Signal(int)  # notches up

    def __init__(
        self, model: Any, canvas: Any, image: Any, frame: LayerFrame, picker: PartPicker
    ) -> None:
        self._model, self._image, self._frame, self._picker = model, image, frame, picker
        self._to_world = layer_matrix(image)
        self._hovered, self._clicked = OutlineNode(canvas, HOVERED), OutlineNode(canvas, CLICKED)
        self._text = PointerText(canvas)
        self._pixel: Any = None
        self._turned = 0.0
        model.mouse_move_callbacks.append(self._on_move)
        model.mouse_drag_callbacks.append(self._on_drag)
        model.mouse_wheel_callbacks.append(self._on_wheel)
        # Two quick clicks take two parts; napari would zoom.
        self._double = list(model.mouse_double_click_callbacks)
        model.mouse_double_click_callbacks.clear()
        self._emitters = (model.dims.events.point, model.dims.events.order,
                          model.dims.events.ndisplay)  # fmt: skip
        for emitter in self._emitters:
            emitter.connect(self.draw)
        self.draw()

    @property
    def lines_shown(self) -> tuple[bool, bool]:
        """Whether there are lines around the part below the mouse, and around the clicked one."""
        return self._hovered.is_shown, self._clicked.is_shown

    # The mouse

    def _voxel(self, position: Any) -> Place | None:
        """Return the voxel at a place in the world, if it is in the image."""
        if self._model.dims.ndisplay != 2:
            return None
        image = self._image
        inside = image.world_to_data(np.asarray(position, float)[-image.ndim :])
        place = self._frame.points_from_layer(np.asarray(inside))[0]
        shape = np.asarray(self._frame.grid.shape)
        if ((place < -0.5) | (place >= shape - 0.5)).any():
            return None
        z, y, x = (float(v) for v in place)
        return z, y, x

    def _on_move(self, model: Any, event: Any) -> None:
        if event.is_dragging:
            return
        place = self._voxel(event.position)
        self._pixel = None if place is None else tuple(event.pos)
        self.pointed.emit(place)

    def _on_drag(self, model: Any, event: Any) -> Iterator[None]:
        if event.button != 1:
            return
        start, keys = np.asarray(event.pos, float), tuple(event.modifiers)
        place, still = self._voxel(event.position), True
        yield
        while event.type == "mouse_move":
            still &= bool(np.linalg.norm(np.asarray(event.pos, float) - start) <= STILL)
            yield
        if still and place is not None:
            self.clicked.emit(place, keys)

    def _on_wheel(self, model: Any, event: Any) -> None:
        """Change the size with Shift; some systems turn the wheel sideways then."""
        if "Shift" not in event.modifiers or model.dims.ndisplay != 2:
            return
        self._turned += float(np.sum(event.delta))
        notches = int(self._turned)  # touch pads send parts of a notch
        self._turned -= notches
        if notches:
            self.wheeled.emit(notches)
        event.handled = True

    # What is shown

    def draw(self, event: Any = None) -> None:
        """Draw the outlines of the picker's parts in the slice on show."""
        picker = self._picker
        for node, part in ((self._hovered, picker.hovered), (self._clicked, picker.clicked)):
            place = visible_slice(self._model.dims, self._image, self._frame)
            if part is None or place is None:
                node.show([])
            else:
                lines = picker.outline(part, *place)
                node.show([self._on_canvas(line, *place) for line in lines])

    def _on_canvas(self, line: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
        """Turn a line in a plane of the grid into (x, y) on the canvas."""
        places = np.insert(line, axis, index, axis=1)
        data = self._frame.points_to_layer(places)
        n = self._image.ndim
        world = data @ self._to_world[:n, :n].T + self._to_world[:n, n]
        dims = self._model.dims
        down, across = (axis - (dims.ndim - n) for axis in dims.displayed)
        return world[:, [across, down]]

    def say(self, text: str) -> None:
        """Show a text beside the mouse, if it is on this canvas."""
        self._text.show(text, self._pixel)

    def leave(self) -> None:
        """Know that the mouse is on another canvas."""
        self._pixel = None
        self._text.show("", None)

    def close(self) -> None:
        """Stop following the mouse, and take the outlines away."""
        model = self._model
        for callbacks, mine in (
            (model.mouse_move_callbacks, self._on_move),
            (model.mouse_drag_callbacks, self._on_drag),
            (model.mouse_wheel_callbacks, self._on_wheel),
        ):
            if mine in callbacks:
                callbacks.remove(mine)
        model.mouse_double_click_callbacks.extend(self._double)
        for emitter in self._emitters:
            emitter.disconnect(self.draw)
        for node in (self._hovered, self._clicked, self._text):
            node.close()
