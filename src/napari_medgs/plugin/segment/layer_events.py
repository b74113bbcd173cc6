"""What the user does in the layers of a session, passed on to the controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medgs.plugin.deferred import call_later
from napari_medgs.plugin.report import guarded, show_hint
from napari_medgs.plugin.segment.keys import bind_layer_keys
from napari_medgs.plugin.segment.layers import LabelView

if TYPE_CHECKING:
    from napari_medgs.plugin.segment.widget import SegmentWidget


class LayerEvents:
    """Strokes, corrections, chosen labels and removed layers.

    Parameters
    ----------
    widget : SegmentWidget
        With its watcher and the helpers for layers.
    """

    title = "The segmentation"

    def __init__(self, widget: SegmentWidget) -> None:
        self._widget = widget
        watcher = widget.watcher
        watcher.painted.connect(self._on_painted)
        watcher.edited.connect(self._on_painted)
        watcher.corrected.connect(self._on_corrected)
        watcher.painting_changed.connect(self._on_painting)
        watcher.label_selected.connect(self._on_label)
        widget.view.table.selected.connect(self.choose_class)
        widget.listen(widget.viewer.layers.events.removed, self._on_removed)

    def _on_painting(self, painting: bool) -> None:
        self._widget.controller.painting = painting

    @guarded
    def _on_painted(self, box: Any) -> None:
        if self._widget.controller.sync_strokes(box):
            self._warn_of_locked()

    def _warn_of_locked(self) -> None:
        """Say that strokes on locked classes change nothing there."""
        session = self._widget.controller.session
        if session is None or session.locked_labels is None or not session.history.done:
            return
        delta = session.history.done[-1].strokes
        if delta is None:
            return
        painted = np.repeat(delta.after != session.settings.unlabeled, delta.lengths)
        under = session.locked_labels.reshape(-1)[delta.where]
        over = under[(under != 0) & painted]
        names = [self._widget.view.table.name(int(v)) for v in np.unique(over)]
        if names:
            show_hint(
                f"{' and '.join(names)}: locked, so that the stroke changes nothing there. Unlock "
                "it in the table to change it."
            )

    @guarded
    def _on_corrected(self, box: Any) -> None:
        self._widget.controller.sync_result(box)

    def _on_label(self, layer: Any, value: int) -> None:
        widget = self._widget
        table = widget.view.table
        if value and value not in table.values and layer is widget.strokes_layer:
            table.fill([*table.values, value], table.background)
            widget.classes.show_colors()
        table.choose(value)

    def choose_class(self, value: int | None) -> None:
        """Paint a class from now on, in both layers."""
        if value is None:
            return
        widget = self._widget
        for layer in (widget.strokes_layer, widget.result_layer):
            is_result = layer is widget.result_layer
            target = 0 if is_result and value == widget.view.table.background else value
            if layer is not None and layer.selected_label != target:
                layer.selected_label = target  # napari's own control follows, and so do we
        widget.prompt_layers.choose_class(value)
        widget.maps.request()

    def _on_removed(self, event: Any) -> None:
        widget, layer = self._widget, event.value
        if layer is widget.strokes_layer:
            widget.follow_strokes()  # the combo box has lost it, or will
        elif layer is widget.result_layer and widget.strokes_layer is not None:
            widget.watcher.forget_result()
            widget.shortcuts.free(layer)
            call_later(widget, self._replace_result)
        for part in (widget.prompt_layers, widget.suggestion, widget.maps):
            part.on_removed(layer)

    @guarded
    def _replace_result(self) -> None:
        """Show the result in a new layer after its layer was removed."""
        widget = self._widget
        context, controller = widget.context, widget.controller
        gone = widget.strokes_layer not in widget.viewer.layers or controller.session is None
        if gone or context.frame is None:
            return
        context.result_layer = widget.make_result()
        result = LabelView(context.result_layer, context.frame)
        controller.show_in(result)
        widget.give_field()
        widget.watcher.watch_result(result)
        bind_layer_keys(widget, context.result_layer)
        widget.view.brush.follow(widget.strokes_layer, context.result_layer)
        self.choose_class(widget.view.table.value)
