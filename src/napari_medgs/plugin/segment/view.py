"""The Segment widget's classes, and what it shows of its session."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog

from napari_medgs.errors import ParameterError
from napari_medgs.plugin.layer_metadata import NAMES_KEY
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.layers import label_colormap
from napari_medgs.plugin.segment.ui import FIRST_HINT, PAINT_HINT, SegmentUI
from napari_medgs.plugin.widgets.base import describe

BUSY = {
    "prepare": "Preparing",
    "preview": "Updating",
    "quick": "Updating",
    "full": "Updating",
    "suggest": "Looking for the next slice",
    "maps": "Drawing maps",
}


class SegmentView(SegmentUI):
    """The controls, filled from the session; classes are added, locked and removed here."""

    control: SegmentController
    tools: Any
    files: Any
    rest: QTimer
    strokes_layer: Any
    result_layer: Any

    @guarded
    def new_class(self) -> None:
        """Add a class and select it."""
        value = next(v for v in range(1, 65_536) if v not in {*self.table.values, 0})
        if len(self.table.classes) >= 249:
            raise ParameterError("249 classes are the most.")
        self.table.fill([*self.table.values, value], self.table.background)
        self._on_names()
        self._recolor()
        self.table.choose(value)

    @guarded
    def drop_class(self) -> None:
        """Remove the selected class with its strokes, as one step."""
        value, session = self.table.value, self.control.session
        if value is None or value == self.table.background:
            raise ParameterError("Select a class to remove; the background stays.")
        if session is not None and self.control.strokes is not None:
            if value in session.settings.locked:
                raise ParameterError("The class is locked: unlock it first.")
            strokes = self.control.strokes.array
            strokes[strokes == value] = session.settings.unlabeled
            self.strokes_layer.refresh()
            self.control.sync_strokes()
        self.table.fill([v for v in self.table.values if v != value], self.table.background)
        self._on_names()

    @guarded
    def set_lock(self, value: int, locked: bool) -> None:
        """Keep a class as it is now, or let it go."""
        session = self.control.session
        if session is None or (locked and value not in self.control.volumes_ml):
            raise ParameterError(f"There is nothing of {self.table.name(value)!r} to lock yet.")
        kept = session.settings.locked
        self.control.change(locked=kept | {value} if locked else kept - {value})

    def _toggle_lock(self) -> None:
        value = self.table.value
        if value is not None and value != self.table.background:
            self.set_lock(value, not self.table.is_locked(value))

    def ask_file(self, save: bool) -> str:
        """Ask for a session file; empty when the user thinks better of it."""
        kinds = "Session logs (*.json)"
        if save:
            return str(QFileDialog.getSaveFileName(self, "Save session", "", kinds)[0])
        return str(QFileDialog.getOpenFileName(self, "Open session", "", kinds)[0])

    # What is shown

    def _recolor(self) -> None:
        background = self.table.background
        colors = {v: self.table.color(v) for v in self.table.classes}
        if self.strokes_layer is not None:
            self.strokes_layer.colormap = label_colormap(colors, background, result=False)
        if self.result_layer is not None:
            self.result_layer.colormap = label_colormap(colors, background, result=True)

    def _on_names(self) -> None:
        names = {v: self.table.name(v) for v in self.table.classes}
        for layer in (self.strokes_layer, self.result_layer):
            if layer is not None:
                layer.metadata[NAMES_KEY] = dict(names)
        if self.control.session is not None:
            self.control.session.names = names
            self.files.later()

    def _say(self, text: str) -> None:
        self.panel.status.setText(text)
        self.panel.status.setVisible(bool(text))

    def _hint(self, text: str) -> None:
        """Say why there is no result; before the first stroke, what to do."""
        session = self.control.session
        nothing_yet = session is not None and not session.can_undo and not session.can_redo
        self._say(PAINT_HINT if nothing_yet else text)

    def _on_progress(self, event: Any) -> None:
        if self.panel.bar.isVisible():
            self.panel.show_progress(event)
            self._say(describe(event))

    def _on_running(self, kind: str) -> None:
        long = kind in ("prepare", "suggest", "maps")
        self.panel.cancel.setEnabled(bool(kind))
        self.panel.bar.setVisible(long)
        self.panel.bar.setRange(0, 0)
        if kind:
            self._say(f"{BUSY[kind]} ..")
        elif self.control.session is None:
            self._say(FIRST_HINT)
        elif self.panel.status.text().endswith(".."):
            self._say("")

    def _on_unsettled(self) -> None:
        if self.control.auto or self.control.session is None:
            self.rest.start()

    def _on_settings_stepped(self) -> None:
        session = self.control.session
        assert session is not None
        self.settings.load(session.settings.params)
        self.tools.show_marks(session.settings)

    def _on_shown(self, kind: str) -> None:
        self._show_volumes()
        result = self.control.result
        if kind in ("quick", "full") and result is not None:
            self._say("")
            count, seconds = len(result.field), result.seconds_solve
            self.result.setText(f"<b>{seconds:.2f} s</b> with {count:,} Gaussians")
            self.result.setVisible(True)

    def _show_volumes(self) -> None:
        """Show what there is of each class; what needs a result waits for one."""
        volumes = self.control.volumes_ml
        self.table.show_volumes(volumes)
        for control in (self.suggest, self.accept):
            control.setEnabled(bool(volumes))
        if not volumes:
            self.result.setVisible(False)

    def _show_state(self) -> None:
        session = self.control.session
        self.undo.setEnabled(session is not None and session.can_undo)
        self.redo.setEnabled(session is not None and session.can_redo)
        for control in (self.save, self.add_points, self.add_boxes):
            control.setEnabled(session is not None)
        self._show_volumes()
        if session is None:
            self.table.show_locks(())
            return
        history = session.history  # the last step, or what its undo brought back
        drawn = [step.strokes.after for step in history.done[-1:] if step.strokes is not None]
        drawn += [step.strokes.before for step in history.undone[-1:] if step.strokes is not None]
        values = {int(v) for part in drawn for v in np.unique(part)}
        new = values - {session.settings.unlabeled, *self.table.values}
        if new:
            self.table.fill([*self.table.values, *new], self.table.background)
            self._recolor()
        self.table.show_locks(session.settings.locked)
        self.tools.on_change()
        self.files.later()
