"""The keys of the Segment widget, in the viewer and in the session's layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_medgs.plugin.segment.key_names import KEYS, LAYER_KEYS
from napari_medgs.plugin.widgets.shortcuts import Shortcuts

if TYPE_CHECKING:
    from napari_medgs.plugin.segment.widget import SegmentWidget

# Under which napari keeps the keys that a user chose.
NAMES = ("update", "suggest", "next_class", "previous_class", "lock", "show_mask")


def bind_viewer_keys(widget: SegmentWidget) -> None:
    """Bind the keys that work whatever layer is selected."""
    table, view = widget.view.table, widget.view
    actions: tuple[Callable[[], Any], ...] = (
        widget.update_now,
        widget.suggestion.request,
        lambda: table.step(1),
        lambda: table.step(-1),
        widget.classes.toggle_lock,
        view.brush.toggle_mask,
    )
    for (key, text), name, action in zip(KEYS.items(), NAMES, actions, strict=True):
        text = f"MedGS: {text}"
        widget.shortcuts.bind_named(widget.viewer, key, name, text, action)


def bind_layer_keys(widget: SegmentWidget, *layers: Any) -> None:
    """Bind undo, redo, the classes' numbers and the eraser in the session's layers."""
    shortcuts: Shortcuts = widget.shortcuts
    for layer in layers:
        for key, action in zip(LAYER_KEYS, (widget.undo, widget.redo), strict=True):
            shortcuts.bind(layer, key, action)
        for number in range(10):
            shortcuts.bind(layer, str(number), partial(choose, widget, number))
        shortcuts.bind_held(layer, "E", widget.view.brush.hold_eraser)


def choose(widget: SegmentWidget, number: int) -> None:
    """Choose a class by its place in the table, 0 for the background, and paint it."""
    table = widget.view.table
    values = table.classes
    if number == 0 and table.background is not None:
        table.choose(table.background)
    elif 1 <= number <= len(values):
        table.choose(values[number - 1])
    else:
        return
    if not widget.parts.is_on:
        widget.view.brush.set_mode("paint")
