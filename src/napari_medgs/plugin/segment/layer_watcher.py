"""Notices what the user does in the layers of strokes and of the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_medgs.plugin.report import show_failure
from napari_medgs.plugin.segment.jobs import Box, FindEdits
from napari_medgs.plugin.segment.layers import LabelView
from napari_medgs.plugin.worker import Runner

QUIET_MS = 300  # after the last redraw, until edits without a paint event are looked for
BOX_POLL_MS = 20


class LayerWatcher:
    """Watches the strokes layer and the result layer of one session.

    A stroke of the mouse comes with the box that it touched. Edits without a paint event
    (``layer.undo()``, scripts, other plugins) show as a redraw of a slice that was already
    visible; they are then searched for in a thread. Moving to another slice is no edit.

    Parameters
    ----------
    owner : MedGSWidget
        Parent of the timers.
    """

    painted = Signal(object)  # box that a stroke touched in the strokes layer, or None
    corrected = Signal(object)  # likewise in the result layer
    edited = Signal(object)  # box of edits of the strokes layer that came without a paint event
    painting_changed = Signal(bool)  # whether the mouse button is down
    label_selected = Signal(object, int)  # layer, value

    def __init__(self, owner: Any) -> None:
        self._viewer = owner.viewer
        self._strokes: LabelView | None = None
        self._result: LabelView | None = None
        self._known: Any = None
        self._slice: Any = None
        self._painting = False
        self._comparison = Runner(owner, BOX_POLL_MS)
        self._quiet = QTimer(owner)
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(QUIET_MS)
        self._quiet.timeout.connect(self._compare)

    # Beginning and end

    def watch_strokes(self, view: LabelView, known: Any) -> None:
        """Watch a strokes layer.

        Parameters
        ----------
        view : LabelView
        known : (Z, Y, X) ndarray
            The strokes that are recorded already; read whenever edits are searched for.
        """
        self._strokes, self._known = view, known
        self._slice = self._visible()
        view.layer.events.paint.connect(self._on_paint_strokes)
        view.layer.events.set_data.connect(self._on_redraw)
        self._connect(view.layer)

    def watch_result(self, view: LabelView) -> None:
        """Watch a result layer."""
        self._result = view
        view.layer.events.paint.connect(self._on_paint_result)
        self._connect(view.layer)

    def _connect(self, layer: Any) -> None:
        layer.events.selected_label.connect(self._on_label)
        layer.mouse_drag_callbacks.insert(0, self._on_drag)

    def forget_result(self) -> None:
        """Stop watching the result layer."""
        view, self._result = self._result, None
        if view is not None:
            view.layer.events.paint.disconnect(self._on_paint_result)
            self._disconnect(view.layer)

    def stop(self) -> None:
        """Stop watching both layers."""
        self._quiet.stop()
        self._comparison.shut_down()
        self.forget_result()
        view, self._strokes, self._known = self._strokes, None, None
        if view is not None:
            view.layer.events.paint.disconnect(self._on_paint_strokes)
            view.layer.events.set_data.disconnect(self._on_redraw)
            self._disconnect(view.layer)
        self._painting = False

    def _disconnect(self, layer: Any) -> None:
        layer.events.selected_label.disconnect(self._on_label)
        layer.mouse_drag_callbacks.remove(self._on_drag)

    # Strokes

    def _on_drag(self, layer: Any, event: Any) -> Iterator[None]:
        self._set_painting(True)
        yield
        while event.type == "mouse_move":
            yield
        self._set_painting(False)

    def _set_painting(self, painting: bool) -> None:
        if painting != self._painting:
            self._painting = painting
            self.painting_changed.emit(painting)

    def _on_paint_strokes(self, event: Any) -> None:
        self._on_paint(self._strokes, self.painted, event)

    def _on_paint_result(self, event: Any) -> None:
        self._on_paint(self._result, self.corrected, event)

    def _on_paint(self, view: LabelView | None, signal: Any, event: Any) -> None:
        self._set_painting(False)
        if view is not None:
            signal.emit(view.box_of(event.value))

    def _on_label(self, event: Any) -> None:
        self.label_selected.emit(event.source, int(event.source.selected_label))

    # Edits without a paint event

    @property
    def may_have_edits(self) -> bool:
        """Whether a redraw was not looked into yet."""
        return self._quiet.isActive() or self._comparison.busy

    def _visible(self) -> tuple[Any, ...]:
        dims = self._viewer.dims
        return tuple(dims.point), tuple(dims.order), dims.ndisplay

    def _on_redraw(self, event: Any = None) -> None:
        visible, before = self._visible(), self._slice
        self._slice = visible
        if visible == before:
            self._quiet.start()

    def _compare(self) -> None:
        view = self._strokes
        if view is None or not view.fits():
            return
        if self._painting or self._comparison.busy:
            self._quiet.start()
            return
        self._comparison.start(
            FindEdits(view.array, self._known),
            returned=self._on_compared,
            errored=lambda error: show_failure(error, "Looking for edits"),
        )

    def _on_compared(self, box: Box | None) -> None:
        if box is not None:
            self.edited.emit(box)
