"""Taking the mouse of one canvas, and giving it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

STILL = 4.0  # pixels that the mouse may move in a click


class CanvasMouse:
    """The mouse of one canvas, before others see it, until it is closed.

    napari's own double click, which zooms, rests meanwhile.

    Parameters
    ----------
    model : napari.components.ViewerModel
        The viewer of the canvas.
    drag, move : callable
        As in the model's lists of callbacks.
    other_slice : callable
        Called when another slice or plane is shown.
    wheel, double_click : callable, optional
        As in the model's lists of callbacks.
    """

    def __init__(
        self,
        model: Any,
        *,
        drag: Callable[..., Any],
        move: Callable[..., Any],
        other_slice: Callable[..., Any],
        wheel: Callable[..., Any] | None = None,
        double_click: Callable[..., Any] | None = None,
    ) -> None:
        self._double_clicks = model.mouse_double_click_callbacks
        self._double_clicks_before = list(self._double_clicks)
        self._double_clicks.clear()
        self._taken = [
            (callbacks, mine)
            for callbacks, mine in (
                (model.mouse_drag_callbacks, drag),
                (model.mouse_move_callbacks, move),
                (model.mouse_wheel_callbacks, wheel),
                (self._double_clicks, double_click),
            )
            if mine is not None
        ]
        for callbacks, mine in self._taken:
            callbacks.insert(0, mine)
        dims, self._other_slice = model.dims.events, other_slice
        self._emitters = (dims.point, dims.order, dims.ndisplay)
        for emitter in self._emitters:
            emitter.connect(other_slice)

    def close(self) -> None:
        """Leave the mouse to others."""
        for callbacks, mine in self._taken:
            if mine in callbacks:
                callbacks.remove(mine)
        self._double_clicks.extend(self._double_clicks_before)
        for emitter in self._emitters:
            emitter.disconnect(self._other_slice)
