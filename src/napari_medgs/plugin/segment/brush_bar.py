"""Brush, eraser and brush size of the session's layers, beside the classes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSlider, QWidget

from napari_medgs.plugin.widgets.icons import IconButton

LARGEST = 60
TAP_SECONDS = 0.3


class BrushBar(QWidget):
    """Buttons for brush and eraser and a slider for the size; follows the layers, too.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._layers: list[Any] = []
        self.brush = IconButton(
            "brush", "Paint strokes. P on the strokes layer does the same.", checkable=True
        )
        self.eraser = IconButton(
            "eraser", "Erase strokes. Hold E to erase for a moment.", checkable=True
        )
        self.size = QSlider(Qt.Orientation.Horizontal)
        self.size.setRange(1, LARGEST)
        self.size.setMinimumWidth(60)
        self.size.setToolTip("Diameter of the brush in voxels. [ and ] make it smaller or larger.")
        self.size.setAccessibleName("Brush size")
        self.number = QLabel("10")
        self.number.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.number.setMinimumWidth(self.number.fontMetrics().horizontalAdvance("000"))
        self.mask = IconButton("eye", "Show or hide the mask. H does the same.", checkable=True)
        self.mask.setChecked(True)
        self.outline = IconButton(
            "shape_outline", "Show the mask as outlines, which hide nothing.", checkable=True
        )
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(4)
        for widget in (self.brush, self.eraser):
            line.addWidget(widget)
        line.addWidget(self.size, 1)
        line.addWidget(self.number)
        line.addWidget(self.mask)
        line.addWidget(self.outline)
        self.brush.clicked.connect(lambda *_: self.set_mode("paint"))
        self.eraser.clicked.connect(lambda *_: self.set_mode("erase"))
        self.size.valueChanged.connect(self._on_size)
        self.mask.clicked.connect(lambda *_: self._show_mask())
        self.outline.clicked.connect(lambda *_: self._show_outline())
        self._viewer.layers.selection.events.active.connect(self.refresh)
        self.refresh()

    # The session's layers

    def follow(self, strokes: Any, result: Any) -> None:
        """Act on the layers of a session from now on."""
        self.release()
        self._layers = [strokes, result]
        for layer in self._layers:
            layer.events.mode.connect(self.refresh)
            layer.events.brush_size.connect(self.refresh)
        result.events.visible.connect(self.refresh)
        result.events.contour.connect(self.refresh)
        self.refresh()

    def release(self) -> None:
        """Let go of the layers."""
        for layer in self._layers:
            layer.events.mode.disconnect(self.refresh)
            layer.events.brush_size.disconnect(self.refresh)
        if self._layers:
            self._layers[1].events.visible.disconnect(self.refresh)
            self._layers[1].events.contour.disconnect(self.refresh)
        self._layers = []
        self.refresh()

    @property
    def layer(self) -> Any:
        """The layer that is painted in: the active one of the session, else the strokes."""
        active = self._viewer.layers.selection.active
        if not self._layers:
            return None
        return active if active in self._layers else self._layers[0]

    def refresh(self, event: Any = None) -> None:
        """Show what the layers have."""
        layer = self.layer
        for control in (self.brush, self.eraser, self.size, self.mask, self.outline):
            control.setEnabled(layer is not None)
        mode = None if layer is None else str(layer.mode)
        active = layer is not None and layer is self._viewer.layers.selection.active
        self.brush.setChecked(active and mode == "paint")
        self.eraser.setChecked(active and mode == "erase")
        if layer is not None:
            size = round(float(layer.brush_size))
            self.size.blockSignals(True)
            self.size.setValue(min(size, LARGEST))
            self.size.blockSignals(False)
            self.number.setText(str(size))
            shown = bool(self._layers[1].visible)
            self.mask.setChecked(shown)
            self.mask.set_glyph("eye" if shown else "eye_off")
            self.outline.setChecked(bool(self._layers[1].contour))

    # What the user does

    def set_mode(self, mode: str) -> None:
        """Paint or erase in the session's layer; the viewer makes it the active one."""
        layer = self.layer
        if layer is not None:
            self._viewer.layers.selection.active = layer
            layer.mode = mode
        self.refresh()

    def hold_eraser(self) -> Iterator[None]:
        """Erase while a key is held; after a tap, erasing goes on until the next tap.

        Yields
        ------
        None
            When the key is pressed; continued when it is released.
        """
        layer = self.layer
        if layer is None:
            return
        before, pressed = str(layer.mode), time.monotonic()
        self.set_mode("erase")
        yield
        tapped = time.monotonic() - pressed < TAP_SECONDS
        if before == "erase":
            self.set_mode("paint" if tapped else "erase")
        elif not tapped:
            self.set_mode(before)

    def toggle_mask(self) -> None:
        """Show or hide the mask."""
        if self._layers:
            self._layers[1].visible = not self._layers[1].visible

    def _show_mask(self) -> None:
        if self._layers:
            self._layers[1].visible = self.mask.isChecked()

    def _show_outline(self) -> None:
        if self._layers:
            self._layers[1].contour = int(self.outline.isChecked())

    def _on_size(self, size: int) -> None:
        for layer in self._layers:
            layer.brush_size = size

    def shut_down(self) -> None:
        """Stop listening."""
        self.release()
        self._viewer.layers.selection.events.active.disconnect(self.refresh)
