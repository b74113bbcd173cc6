"""How the case is looked at, in one place: planes, window and level."""

from __future__ import annotations

from functools import partial
from typing import Any

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_medgs.plugin.deferred import call_later
from napari_medgs.plugin.layer_metadata import role_of
from napari_medgs.plugin.viewing.four_views import FourViews
from napari_medgs.plugin.viewing.plane_bar import PLANE_KEYS, PLANES, PlaneBar
from napari_medgs.plugin.viewing.window_bar import WindowBar
from napari_medgs.plugin.widgets.controls import button, row
from napari_medgs.plugin.widgets.shortcuts import Shortcuts

MAPS = ("uncertainty", "probability", "difference")


class ViewBar(QWidget):
    """Planes, window and level of all images of the viewer.

    Parameters
    ----------
    owner : MedGSWidget
        Gives the viewer.
    """

    def __init__(self, owner: Any) -> None:
        super().__init__()
        self._viewer = owner.viewer
        self._shortcuts = Shortcuts()
        self.planes = PlaneBar(self._viewer)
        self.window_bar = WindowBar(self._viewer, self._images)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.planes)
        layout.addWidget(self.window_bar)
        self.show_3d = button(
            "Show 3D", "Show the mask as a smooth surface that follows it, without the image."
        )
        self.show_3d.setCheckable(True)
        self.four = button(
            "4 views",
            "Show three linked planes and the mask's surface. Hold Shift and move the mouse to "
            "choose the place that all planes show (F9).",
        )
        self.four.setCheckable(True)
        layout.addLayout(row(self.four, self.show_3d))
        self.four_views = FourViews(self._viewer, self.four)
        text = "MedGS: show four views"
        # Later, because closing deletes the canvas on which the key may have been pressed.
        toggle = partial(call_later, self.four, self.four.toggle)
        self._shortcuts.bind_named(self._viewer, "F9", "four views", text, toggle)
        for key, plane in PLANE_KEYS.items():
            text = f"MedGS: show the {PLANES[plane].lower()} plane"
            show = partial(self.planes.show_plane, plane)
            self._shortcuts.bind_named(self._viewer, key, PLANES[plane].lower(), text, show)
        for event in ("inserted", "removed"):
            owner.listen(getattr(self._viewer.layers.events, event), self._on_layers)

    def _images(self) -> list[Any]:
        return [
            layer
            for layer in self._viewer.layers
            if type(layer).__name__ == "Image" and not layer.rgb and role_of(layer) not in MAPS
        ]

    def _on_layers(self, event: Any = None) -> None:
        self.window_bar.refresh()

    def shut_down(self) -> None:
        """Stop listening, and give the keys back."""
        self._shortcuts.free()
        self.four_views.close()
        self.planes.shut_down()
        self.window_bar.shut_down()
