"""Lists of classes as files: names, colors and codes for the next image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog

from napari_medgs.plugin.file_names import completed, source_folder
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.segment.classes import ClassActions
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.view import SegmentView

if TYPE_CHECKING:
    from napari_medgs.segmentation import ClassList

KINDS = "Lists of classes (*.json)"


class ClassFiles:
    """What the menu of the class list does.

    Parameters
    ----------
    view : SegmentView
    context : SegmentContext
    classes : ClassActions
    """

    title = "The list of classes"

    def __init__(self, view: SegmentView, context: SegmentContext, classes: ClassActions) -> None:
        self._view, self._context, self._actions = view, context, classes
        view.load_classes.triggered.connect(lambda *_: self.ask_and_load())
        view.save_classes.triggered.connect(lambda *_: self.ask_and_save())

    def current(self) -> ClassList:
        """Return the classes of the table.

        Raises
        ------
        LabelError
            When two have one name.
        """
        from napari_medgs.segmentation import ClassList

        table = self._view.table
        names = {v: table.name(v) for v in table.classes}
        colors = {v: table.color(v)[:3] for v in table.classes}
        return ClassList.of(names, colors, {v: table.codes[v] for v in names if v in table.codes})

    def show(self, classes: ClassList, *, keep: frozenset[int] = frozenset()) -> None:
        """Show a list in the table, and its names and colors in the layers.

        Parameters
        ----------
        classes : ClassList
        keep : frozenset of int
            Values that stay although they are not in the list.
        """
        table = self._view.table
        if table.background in classes.names:
            classes = type(classes)(
                tuple(c for c in classes.classes if c.value != table.background)
            )
        table.colors.update({v: (*color, 1.0) for v, color in classes.colors.items()})
        table.codes = dict(classes.codes)
        table.fill(set(classes.names) | keep, table.background, classes.names)
        self._actions.show_names()
        self._actions.show_colors()

    @guarded
    def ask_and_load(self) -> None:
        """Ask for a file and show its classes."""
        chosen = QFileDialog.getOpenFileName(self._view, "Load classes", self._start(), KINDS)[0]
        if chosen:
            self.load(chosen)

    def load(self, path: str | Path) -> None:
        """Show the classes of a file; those that have strokes or voxels stay.

        Raises
        ------
        MedGSError
            When it is no list of classes.
        """
        from napari_medgs.segmentation import load_classes

        self.show(load_classes(path), keep=self._actions.used())

    @guarded
    def ask_and_save(self) -> None:
        """Ask for a file and write the table's classes."""
        from napari_medgs.segmentation import save_classes

        classes = self.current()
        start = str(Path(self._start()) / "classes.json")
        chosen = QFileDialog.getSaveFileName(self._view, "Save classes", start, KINDS)[0]
        if chosen:
            save_classes(completed(chosen, (".json",)), classes)

    def _start(self) -> str:
        images = self._view.images.layers
        folder = source_folder(self._context.viewer.layers, images[0]) if images else None
        return "" if folder is None else str(folder)
