"""Adding, removing, locking, naming and coloring classes."""

from __future__ import annotations

import numpy as np

from napari_medgs.errors import ParameterError
from napari_medgs.plugin.layer_metadata import CODES_KEY, NAMES_KEY
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.layers import label_colormap
from napari_medgs.plugin.segment.view import SegmentView

MOST_CLASSES = 249
LARGEST_VALUE = 65_535


class ClassActions:
    """What the table of classes and its buttons do.

    Parameters
    ----------
    view : SegmentView
    controller : SegmentController
    context : SegmentContext
    """

    title = "The classes"

    def __init__(
        self, view: SegmentView, controller: SegmentController, context: SegmentContext
    ) -> None:
        self._table, self._controller, self._context = view.table, controller, context
        view.add_class.clicked.connect(lambda *_: self.add())
        view.remove_class.clicked.connect(lambda *_: self.remove())
        self._table.renamed.connect(lambda *_: self.show_names())
        self._table.recolored.connect(lambda *_: self.show_colors())
        self._table.hidden_changed.connect(self.show_colors)
        self._table.lock_requested.connect(self.set_lock)
        controller.prompts_changed.connect(self._add_missing)

    @guarded
    def add(self) -> None:
        """Add a class with the smallest free value and select it."""
        table = self._table
        if len(table.classes) >= MOST_CLASSES:
            raise ParameterError(f"At most {MOST_CLASSES} classes are possible; remove one first.")
        used = {*table.values, 0}
        value = next(v for v in range(1, LARGEST_VALUE + 1) if v not in used)
        table.fill([*table.values, value], table.background)
        self.show_names()
        self.show_colors()
        table.choose(value)

    @guarded
    def remove(self) -> None:
        """Remove the selected class with its strokes, as one step."""
        table, controller = self._table, self._controller
        value, session = table.value, controller.session
        if value is None or value == table.background:
            raise ParameterError("Select a class to remove; the background stays.")
        if session is not None and controller.layers is not None:
            if value in session.settings.locked:
                raise ParameterError("The class is locked: unlock it first.")
            strokes = controller.layers.strokes
            array = strokes.array
            array[array == value] = session.settings.unlabeled
            strokes.refresh()
            controller.sync_strokes()
        table.fill([v for v in table.values if v != value], table.background)
        self.show_names()

    @guarded
    def set_lock(self, value: int, locked: bool) -> None:
        """Lock a class, which then stays exactly as it is now, or unlock it."""
        session = self._controller.session
        if session is None or (locked and value not in self._controller.state.volumes_ml):
            name = self._table.name(value)
            raise ParameterError(f"The mask has no voxels of {name!r} yet: paint it first.")
        before = session.settings.locked
        after = before | {value} if locked else before - {value}
        self._controller.update_settings(locked=after)

    def toggle_lock(self) -> None:
        """Lock or unlock the selected class."""
        value = self._table.value
        if value is not None and value != self._table.background:
            self.set_lock(value, not self._table.is_locked(value))

    def used(self) -> frozenset[int]:
        """Return the classes that have strokes or voxels, without the background."""
        session = self._controller.session
        if session is None:
            return frozenset()
        values = {int(v) for v in np.unique(session.strokes)} | set(
            self._controller.state.volumes_ml
        )
        return frozenset(values - {session.settings.unlabeled, self._table.background, 0})

    def show_colors(self) -> None:
        """Give the layers the table's colors; hidden classes are clear."""
        context, background = self._context, self._table.background
        table = self._table
        colors = {
            v: (*table.color(v)[:3], 0.0 if v in table.hidden else table.color(v)[3])
            for v in table.classes
        }
        if context.strokes_layer is not None:
            context.strokes_layer.colormap = label_colormap(colors, background, result=False)
        if context.result_layer is not None:
            context.result_layer.colormap = label_colormap(colors, background, result=True)

    def show_names(self) -> None:
        """Give the layers and the session the table's names."""
        names = {v: self._table.name(v) for v in self._table.classes}
        for layer in (self._context.strokes_layer, self._context.result_layer):
            if layer is not None:
                layer.metadata[NAMES_KEY] = dict(names)
                layer.metadata[CODES_KEY] = dict(self._table.codes)
        if self._controller.segmenter is not None:
            self._controller.segmenter.names = names

    def _add_missing(self) -> None:
        """Add classes of the last step, or of the step that was undone, to the table."""
        session, table = self._controller.session, self._table
        if session is None:
            return
        history = session.history
        drawn = [step.strokes.after for step in history.done[-1:] if step.strokes is not None]
        drawn += [step.strokes.before for step in history.undone[-1:] if step.strokes is not None]
        values = {int(v) for part in drawn for v in np.unique(part)}
        new = values - {session.settings.unlabeled, *table.values}
        if new:
            table.fill([*table.values, *new], table.background)
            self.show_colors()
