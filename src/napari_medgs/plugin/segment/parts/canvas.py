"""The mouse on one canvas, in voxels of the image, and the outlines that it shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_medgs.plugin.segment.canvas_mouse import STILL, CanvasMouse
from napari_medgs.plugin.segment.canvas_place import CanvasPlace
from napari_medgs.plugin.segment.parts.outline import (
    CLICKED,
    HOVERED,
    OutlineNode,
    PointerText,
)
from napari_medgs.plugin.segment.parts.picker import PartPicker

if TYPE_CHECKING:
    from napari_medgs.plugin.layer_frame import LayerFrame


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
        self._picker = picker
        self._places = CanvasPlace(model, image, frame)
        self._hovered, self._clicked = OutlineNode(canvas, HOVERED), OutlineNode(canvas, CLICKED)
        self._text = PointerText(canvas)
        self._pixel: Any = None
        self._turned = 0.0
        # Two quick clicks take two parts.
        self._mouse = CanvasMouse(
            model,
            drag=self._on_drag,
            move=self._on_move,
            wheel=self._on_wheel,
            other_slice=self.draw,
        )
        self.draw()

    @property
    def lines_shown(self) -> tuple[bool, bool]:
        """Whether there are lines around the part below the mouse, and around the clicked one."""
        return self._hovered.is_shown, self._clicked.is_shown

    # The mouse

    def _on_move(self, model: Any, event: Any) -> None:
        if event.is_dragging:
            return
        place = self._places.voxel_inside(event.position)
        self._pixel = None if place is None else tuple(event.pos)
        self.pointed.emit(place)

    def _on_drag(self, model: Any, event: Any) -> Iterator[None]:
        if event.button != 1:
            return
        start, keys = np.asarray(event.pos, float), tuple(event.modifiers)
        place, still = self._places.voxel_inside(event.position), True
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
            place = self._places.slice
            if part is None or place is None:
                node.show([])
            else:
                lines = picker.outline(part, *place)
                node.show([self._places.line(line, *place) for line in lines])

    def say(self, text: str) -> None:
        """Show a text beside the mouse, if it is on this canvas."""
        self._text.show(text, self._pixel)

    def leave(self) -> None:
        """Know that the mouse is on another canvas."""
        self._pixel = None
        self._text.show("", None)

    def close(self) -> None:
        """Stop following the mouse, and take the outlines away."""
        self._mouse.close()
        for node in (self._hovered, self._clicked, self._text):
            node.close()
