"""The mouse on one canvas, which draws a closed line: freehand, or corner by corner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_medgs.plugin.segment.canvas_mouse import STILL, CanvasMouse
from napari_medgs.plugin.segment.canvas_place import CanvasPlace
from napari_medgs.plugin.segment.parts.outline import HOVERED, OutlineNode

if TYPE_CHECKING:
    from napari_medgs.plugin.layer_frame import LayerFrame

FEW = "A region needs three corners or more: click them, and double-click the last one."
OTHER_SLICE = "The corners belong to the slice in which they were clicked: begin anew in this one."
OTHER_VIEW = "The corners belong to the view in which they were clicked: begin anew in this one."


class LassoCanvas:
    """Draws a line while the left button is down, or from click to click.

    In 2D the line belongs to the slice on show, in 3D to the picture.

    Parameters
    ----------
    model : napari.components.ViewerModel
        The viewer of the canvas.
    canvas : object
    image : napari.layers.Image
    frame : LayerFrame
    """

    drawn = Signal(object, int, int)  # corners (P, 2) in voxels, axis and index of the slice
    drawn_in_view = Signal(
        object, object
    )  # corners (P, 2) in pixels, projection of voxels to them
    forgotten = Signal(str)  # why a line that was begun cuts nothing

    def __init__(self, model: Any, canvas: Any, image: Any, frame: LayerFrame) -> None:
        self._model, self._canvas = model, canvas
        self._places = CanvasPlace(model, image, frame)
        self._in_slice = OutlineNode(canvas, HOVERED)
        self._in_view = OutlineNode(canvas, HOVERED, canvas.view)
        self._projection: NDArray[Any] | None = None
        self._corners: list[NDArray[Any]] = []
        self._slice: tuple[int, int] | None = None
        self._mouse = CanvasMouse(
            model,
            drag=self._on_drag,
            move=self._on_move,
            double_click=self._on_double,
            other_slice=self._on_dims,
        )
        camera = getattr(model, "scene", model).camera
        self._camera = camera.events
        self._camera.connect(self._on_camera)

    @property
    def corners(self) -> int:
        """How many corners were clicked."""
        return len(self._corners)

    @property
    def is_shown(self) -> bool:
        """Whether there is a line on the canvas."""
        return self._in_slice.is_shown or self._in_view.is_shown

    def _begin(self) -> None:
        """Note what the line belongs to."""
        in_3d = self._model.dims.ndisplay == 3
        self._slice = None if in_3d else self._places.slice
        self._projection = self._places.projection(self._canvas) if in_3d else None

    def _point(self, event: Any) -> NDArray[Any] | None:
        if self._projection is not None:
            return np.asarray(event.pos, float)
        place = self._places.voxel(event.position)
        if place is None or self._slice is None:
            return None
        return np.delete(np.asarray(place), self._slice[0])

    def _on_drag(self, model: Any, event: Any) -> Iterator[None]:
        if event.button != 1 or event.handled:
            return
        if not self._corners:
            self._begin()
        point = self._point(event)
        if point is None:
            return
        event.handled = True  # neither panned or turned nor painted
        start, free = np.asarray(event.pos, float), [point]
        moved = False
        yield
        while event.type == "mouse_move":
            event.handled = True
            moved |= bool(np.linalg.norm(np.asarray(event.pos, float) - start) > STILL)
            point = self._point(event)
            if moved and point is not None and not self._corners:
                free.append(point)
                self._show(free)
            yield
        event.handled = True
        if self._corners or not moved:
            self._corners.append(free[0])
            self._show(self._corners)
        else:
            self._finish(free)

    def _on_move(self, model: Any, event: Any) -> None:
        """Let the line end at the mouse until the next corner is clicked."""
        if not self._corners or event.is_dragging:
            return
        point = self._point(event)
        self._show(self._corners if point is None else [*self._corners, point])

    def _on_double(self, model: Any, event: Any) -> None:
        event.handled = True
        corners, self._corners = self._corners, []
        self._finish(corners)

    def _finish(self, corners: list[NDArray[Any]]) -> None:
        place, projection = self._slice, self._projection
        self.forget()
        if len(corners) < 3:
            self.forgotten.emit(FEW)
            return
        if projection is not None:
            self.drawn_in_view.emit(np.asarray(corners), projection)
        elif place is not None:
            self.drawn.emit(np.asarray(corners), *place)

    def _show(self, corners: list[NDArray[Any]]) -> None:
        closed = np.asarray([*corners, corners[0]])
        if self._projection is not None:
            self._in_view.show([closed])
        elif self._slice is not None:
            self._in_slice.show([self._places.line(closed, *self._slice)])

    def _on_dims(self, event: Any = None) -> None:
        in_3d = self._model.dims.ndisplay == 3
        other = self._slice is not None and self._places.slice != self._slice
        if other or (self._projection is not None and not in_3d):
            if self._corners and other:
                self.forgotten.emit(OTHER_SLICE)
            self.forget()

    def _on_camera(self, event: Any = None) -> None:
        if self._projection is not None:
            if self._corners:
                self.forgotten.emit(OTHER_VIEW)
            self.forget()  # a line on the picture does not turn with what is shown

    def forget(self) -> None:
        """Forget a line that is not closed yet."""
        self._corners, self._slice, self._projection = [], None, None
        self._in_slice.show([])
        self._in_view.show([])

    def close(self) -> None:
        """Leave the mouse to others, and take the line away."""
        self._camera.disconnect(self._on_camera)
        self._mouse.close()
        self._in_slice.close()
        self._in_view.close()
