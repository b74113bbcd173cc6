"""Controls of window and level: presets of CT, and the drag on the canvas."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QWidget

from napari_medgs.plugin.viewing.window_level import (
    PRESETS,
    Window,
    WindowDrag,
    is_hounsfield,
    set_window,
)
from napari_medgs.plugin.widgets.icons import IconButton

AS_OPENED, OWN = "As opened", "Own"
DRAG_TIP = (
    "Drag on the image: right and left for the width, up and down for the level. Without this "
    "button, hold Shift and drag with the right mouse button."
)


class WindowBar(QWidget):
    """Presets of window and level for image layers, and a drag that changes them.

    Parameters
    ----------
    viewer : napari.Viewer
    layers : callable
        Returns the image layers to change.
    """

    def __init__(self, viewer: Any, layers: Callable[[], Sequence[Any]]) -> None:
        super().__init__()
        self._viewer, self._layers = viewer, layers
        self._opened: weakref.WeakKeyDictionary[Any, Window] = weakref.WeakKeyDictionary()
        self._hounsfield: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
        self._watched: list[Any] = []
        self._mode: tuple[Any, str] | None = None
        self.presets = QComboBox()
        self.presets.setToolTip(
            "Window and level of CT, in Hounsfield units. Offered where the values look like them."
        )
        self.presets.setMinimumContentsLength(5)
        self.presets.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.values = QLabel()
        self.values.setToolTip("Level and width of what is shown from black to white.")
        self.drag = IconButton("contrast_circle", DRAG_TIP, checkable=True)
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(6)
        line.addWidget(self.presets, 1)
        line.addWidget(self.values)
        line.addWidget(self.drag)
        self.presets.activated.connect(lambda *_: self._on_preset())
        self.drag.toggled.connect(self._on_drag_button)
        viewer.mouse_drag_callbacks.append(self._on_mouse)
        self.refresh()

    def refresh(self) -> None:
        """Follow the layers: what may be chosen and what is shown."""
        layers = list(self._layers())
        for layer in self._watched:
            layer.events.contrast_limits.disconnect(self._show)
        self._watched = layers
        for layer in layers:
            self._opened.setdefault(layer, Window.of(layer))
            layer.events.contrast_limits.connect(self._show)
        names = [AS_OPENED, *(PRESETS if self.hounsfield_layers() else ())]
        if names != [self.presets.itemText(k) for k in range(self.presets.count() - 1)]:
            self.presets.clear()
            self.presets.addItems([*names, OWN])
        self.setEnabled(bool(layers))
        self._show()

    def hounsfield_layers(self) -> list[Any]:
        """Return the layers whose values are like Hounsfield units."""
        found = []
        for layer in self._layers():
            if layer not in self._hounsfield:
                self._hounsfield[layer] = is_hounsfield(layer)
            if self._hounsfield[layer]:
                found.append(layer)
        return found

    def choose(self, name: str) -> None:
        """Show a preset, by its name."""
        if name in PRESETS:
            set_window(self.hounsfield_layers(), PRESETS[name])
        elif name == AS_OPENED:
            for layer in self._layers():
                set_window([layer], self._opened[layer])
        self._show()

    def _on_preset(self) -> None:
        self.choose(self.presets.currentText())

    def _show(self, event: Any = None) -> None:
        layers = self.hounsfield_layers() or list(self._layers())
        if not layers:
            self.values.setText("")
            return
        window = Window.of(layers[0])
        self.values.setText(f"L {_short(window.level)}  W {_short(window.width)}")
        self.presets.setCurrentText(self._name_of(window, layers[0]))

    def _name_of(self, window: Window, layer: Any) -> str:
        if self._hounsfield.get(layer):
            for name, preset in PRESETS.items():
                if window == preset:
                    return name
        return AS_OPENED if window == self._opened.get(layer) else OWN

    # The drag

    def _on_drag_button(self, on: bool) -> None:
        """Let the left button pan nothing and paint nothing while the button is down."""
        active = self._viewer.layers.selection.active
        if on and active is not None and getattr(active, "mode", "pan_zoom") != "pan_zoom":
            self._mode = (active, str(active.mode))
            active.mode = "pan_zoom"
        elif not on and self._mode is not None:
            layer, mode = self._mode
            self._mode = None
            if layer in self._viewer.layers and layer.mode == "pan_zoom":
                layer.mode = mode

    def _on_mouse(self, viewer: Any, event: Any) -> Iterator[None]:
        held = event.button == 2 and "Shift" in event.modifiers
        if viewer.dims.ndisplay != 2 or not (
            held or (self.drag.isChecked() and event.button == 1)
        ):
            return
        layers = [layer for layer in self._layers() if layer.visible]
        if not layers:
            return
        if held:
            self._on_drag_button(True)  # the layer would take the press as its own
        event.handled = True
        x, y = event.pos
        move = WindowDrag(layers)
        yield
        while event.type == "mouse_move":
            move.move(float(event.pos[0] - x), float(y - event.pos[1]))
            event.handled = True
            yield
        if held:
            self._on_drag_button(False)

    def shut_down(self) -> None:
        """Leave the canvas to others."""
        self.drag.setChecked(False)
        for layer in self._watched:
            layer.events.contrast_limits.disconnect(self._show)
        self._watched = []
        if self._on_mouse in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_mouse)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
