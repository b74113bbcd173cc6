"""Layers in which nothing is painted while a tool has the mouse."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


class RestingLayers:
    """Keeps layers in the mode that pans and zooms, until the user takes the brush.

    Parameters
    ----------
    brush_taken : callable
        Called when the user picks another mode in one of them.
    """

    def __init__(self, brush_taken: Callable[[], Any]) -> None:
        self._brush_taken = brush_taken
        self.layers: list[Any] = []
        self._hidden: list[Any] = []

    def take(self, layers: Iterable[Any]) -> None:
        """Let layers rest."""
        self.layers = list(layers)
        self._hidden = [layer for layer in self.layers if not layer.visible]
        for layer in self.layers:
            layer.mode = "pan_zoom"
        for layer in self.layers:
            layer.events.mode.connect(self._on_mode)
            layer.events.visible.connect(self._on_visible)

    def _on_mode(self, event: Any = None) -> None:
        # napari gives a layer that is shown again the mode from before it was hidden: no choice of
        # the user's. The event of its visibility comes next.
        seen = [layer for layer in self.layers if layer not in self._hidden]
        if any(str(layer.mode) not in ("pan_zoom", "transform") for layer in seen):
            self._brush_taken()

    def _on_visible(self, event: Any = None) -> None:
        before, self._hidden = self._hidden, [x for x in self.layers if not x.visible]
        for layer in before:
            if layer not in self._hidden:
                layer.mode = "pan_zoom"

    def free(self) -> list[Any]:
        """Leave the layers to the user; return them."""
        layers, self.layers, self._hidden = self.layers, [], []
        for layer in layers:
            layer.events.mode.disconnect(self._on_mode)
            layer.events.visible.disconnect(self._on_visible)
        return layers
