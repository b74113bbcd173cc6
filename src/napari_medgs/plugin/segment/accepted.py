"""The layers of accepted classes as a part of the session, so that a crash does not lose them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medgs.plugin.layer_frame import same_place
from napari_medgs.plugin.layer_metadata import NAMES_KEY, SOURCE_KEY, role_of
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.layers import Colors, LabelView, add_result_layer

if TYPE_CHECKING:
    from napari_medgs.segmentation import Session


class AcceptedLayers:
    """Copies accepted layers into the session when it is saved, and shows them again.

    Parameters
    ----------
    context : SegmentContext
    edited : callable
        () -> None: called when the user changed an accepted layer.
    """

    def __init__(self, context: SegmentContext, edited: Callable[[], None]) -> None:
        self._context, self._edited = context, edited
        self._watched: weakref.WeakSet[Any] = weakref.WeakSet()
        self._changed: weakref.WeakSet[Any] = weakref.WeakSet()
        self._visible: Any = None

    def watch(self, layer: Any) -> None:
        """Keep a layer in the session from now on."""
        self._changed.add(layer)
        if layer in self._watched:
            return
        self._watched.add(layer)
        self._visible = self._place()
        layer.events.paint.connect(self._on_paint)
        layer.events.set_data.connect(self._on_redraw)
        layer.events.data.connect(self._on_paint)

    def watch_those_there(self) -> None:
        """Keep the accepted layers of the context's image in the session that begins."""
        image = self._context.image
        for layer in self._context.viewer.layers:
            if role_of(layer) == "final" and layer.metadata.get(SOURCE_KEY) == image.name:
                self.watch(layer)

    def collect(self, session: Session) -> None:
        """Copy what has changed into the session; layers that were removed stay in it."""
        from napari_medgs.segmentation.session.state import AcceptedMask

        context = self._context
        if context.frame is None or context.image is None:
            return
        for layer in list(self._watched):
            if layer not in context.viewer.layers or not same_place(layer, context.image):
                continue
            if layer in self._changed or layer.name not in session.accepted:
                labels = np.array(context.frame.to_canonical(np.asarray(layer.data)))
                names = {int(k): str(v) for k, v in layer.metadata.get(NAMES_KEY, {}).items()}
                session.accepted[layer.name] = AcceptedMask(labels, names)
                self._changed.discard(layer)

    def show(self, session: Session, colors: Colors) -> None:
        """Show the accepted masks of a session in layers, where they are not there already."""
        context = self._context
        viewer, active = context.viewer, context.viewer.layers.selection.active
        for name, mask in session.accepted.items():
            if name in viewer.layers or context.frame is None:
                continue
            layer = add_result_layer(viewer, context.image, mask.names, colors, role="final")
            layer.name = name
            view = LabelView(layer, context.frame)
            view.write_box((slice(None),) * 3, mask.labels)
            view.refresh()
            if context.strokes_layer is not None:
                context.move_below_strokes(layer)
            self.watch(layer)
            self._changed.discard(layer)
        viewer.layers.selection.active = active

    def report(self) -> None:
        """Say that an accepted layer has changed."""
        self._edited()

    def stop(self) -> None:
        """Let go of all layers."""
        for layer in list(self._watched):
            layer.events.paint.disconnect(self._on_paint)
            layer.events.set_data.disconnect(self._on_redraw)
            layer.events.data.disconnect(self._on_paint)
        self._watched.clear()
        self._changed.clear()

    def _place(self) -> tuple[Any, ...]:
        dims = self._context.viewer.dims
        return tuple(dims.point), tuple(dims.order), dims.ndisplay

    def _on_paint(self, event: Any) -> None:
        self._changed.add(event.source)
        self._edited()

    def _on_redraw(self, event: Any) -> None:
        """Undo has no event of its own: it redraws the slice that is already visible."""
        place, before = self._place(), self._visible
        self._visible = place
        if place == before:
            self._on_paint(event)
