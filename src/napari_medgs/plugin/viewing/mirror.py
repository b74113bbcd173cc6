"""Copies of layers in other viewers, which share the arrays and follow the originals."""

from __future__ import annotations

import contextlib
from typing import Any

FOLLOWED = (
    "visible", "opacity", "blending", "gamma", "contrast_limits", "colormap", "interpolation2d",
    "selected_label", "brush_size", "mode", "contour", "preserve_labels", "n_edit_dimensions",
    "name",
)  # fmt: skip
"""What a copy takes over from its original whenever it changes."""


def can_mirror(layer: Any) -> bool:
    """Tell whether a layer is shown in the other viewers: images and masks in memory."""
    return type(layer).__name__ in ("Image", "Labels") and layer.ndim >= 3


class LayerMirror:
    """A copy of one Image or Labels layer. What is painted in it counts in the original.

    Parameters
    ----------
    layer : napari.layers.Layer
    """

    def __init__(self, layer: Any) -> None:
        from napari.layers import Layer

        data, state, kind = layer.as_layer_data_tuple()
        self.layer = layer
        self.copy = Layer.create(data, state, kind)
        self._links: list[tuple[Any, Any]] = []
        for name in FOLLOWED:
            if hasattr(layer.events, name) and hasattr(self.copy, name):
                self._link(getattr(layer.events, name), self._follow(name))
        self._link(layer.events.data, self._on_data)
        if kind == "labels":
            self.copy.mode, self.copy.brush_size = layer.mode, layer.brush_size
            self.copy.selected_label = layer.selected_label
            self._link(layer.events.set_data, self._on_redraw)
            self._link(layer.events.labels_update, self._on_redraw)
            self._link(self.copy.events.paint, self._on_painted)

    def _link(self, emitter: Any, callback: Any) -> None:
        emitter.connect(callback)
        self._links.append((emitter, callback))

    def _follow(self, name: str) -> Any:
        def follow(event: Any = None) -> None:
            value = getattr(self.layer, name)
            if name == "colormap" or getattr(self.copy, name) != value:
                setattr(self.copy, name, value)

        return follow

    def _on_data(self, event: Any = None) -> None:
        if self.copy.data is not self.layer.data:
            self.copy.data = self.layer.data

    def _on_redraw(self, event: Any = None) -> None:
        self.copy.refresh(extent=False)

    def _on_painted(self, event: Any) -> None:
        """Draw the stroke in the original and tell its listeners."""
        self.layer.refresh(extent=False)
        self.layer.events.paint(value=event.value)

    def close(self) -> None:
        """Stop following."""
        for emitter, callback in self._links:
            with contextlib.suppress(ValueError, RuntimeError):
                emitter.disconnect(callback)
        self._links = []
