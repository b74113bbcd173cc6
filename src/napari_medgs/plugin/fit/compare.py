"""A result next to the image that it describes: side by side, or in its place. No Qt."""

from __future__ import annotations

from typing import Any

from napari_medgs.errors import ParameterError
from napari_medgs.plugin.layer_metadata import unwrap

MOST_LAYERS = 51  # napari takes up to 50 layers in a cell of its grid


def grid_of(viewer: Any) -> Any:
    """Return the grid of a viewer's canvas, which moved in napari 0.9."""
    return viewer.canvas.grid if hasattr(viewer, "canvas") else viewer.grid


def camera_of(viewer: Any) -> Any:
    """Return the camera of a viewer, which moved in napari 0.9."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


class Comparison:
    """Shows one layer in a cell of its own, and all others together in a second one.

    The layer goes to the bottom of the list, where it covers nothing. What was set in the viewer
    before comes back at the end.

    Parameters
    ----------
    viewer : napari.Viewer or napari.components.ViewerModel
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = unwrap(viewer)
        self._beside: Any | None = None
        self._before: tuple[bool, int, tuple[int, int]] | None = None
        self._camera: tuple[Any, float] | None = None
        self._hidden: list[Any] = []
        self._shown: list[Any] = []

    @property
    def beside(self) -> Any | None:
        """The layer that is shown side by side with the others, if any."""
        return self._beside

    def show_beside(self, layer: Any) -> None:
        """Show a layer side by side with all others.

        Raises
        ------
        ParameterError
            When there are more layers than a cell can hold.
        """
        if len(self._viewer.layers) > MOST_LAYERS:
            raise ParameterError(
                f"Side by side works with up to {MOST_LAYERS} layers: remove some first."
            )
        self.end()
        self._show(layer)
        grid = grid_of(self._viewer)
        self._before = grid.enabled, grid.stride, tuple(grid.shape)
        self._beside = layer
        self._follow()
        grid.shape = (1, 2)
        grid.enabled = True
        camera = camera_of(self._viewer)
        self._camera = camera.center, camera.zoom
        if hasattr(self._viewer, "fit_to_view"):  # a cell is narrower than the canvas
            self._viewer.fit_to_view()
        for event in self._events():
            event.connect(self._follow)

    def show_instead(self, layer: Any, originals: list[Any]) -> None:
        """Show a layer in place of others, which are hidden."""
        self.end()
        self._show(layer)
        self._hidden = [other for other in originals if other.visible]
        for other in self._hidden:
            other.visible = False

    def end(self) -> None:
        """Show what was shown before."""
        if self._before is not None:
            for event in self._events():
                event.disconnect(self._follow)
            grid = grid_of(self._viewer)
            grid.enabled, grid.stride, grid.shape = self._before
            if self._camera is not None:
                camera = camera_of(self._viewer)
                camera.center, camera.zoom = self._camera
        self._before = self._beside = None
        for layer in self._hidden:
            layer.visible = True
        for layer in self._shown:
            layer.visible = False
        self._hidden, self._shown = [], []

    def _show(self, layer: Any) -> None:
        self._shown = [layer]
        layer.visible = True

    def _events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.reordered

    def _follow(self, event: Any = None) -> None:
        """Keep the layer in the last cell, whatever the list of layers has become."""
        layers = self._viewer.layers
        if self._beside not in layers:
            self.end()
            return
        index = layers.index(self._beside)
        if index:
            layers.move(index, 0)
        grid_of(self._viewer).stride = -max(len(layers) - 1, 1)
