"""The settings of a segmentation as a form; its defaults are those of the core."""

from __future__ import annotations

from dataclasses import replace

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QPushButton, QSpinBox, QVBoxLayout, QWidget

from napari_medgs.plugin.widgets.base import add_row, compact_form
from napari_medgs.plugin.widgets.controls import choice_box, float_box, int_box
from napari_medgs.segmentation.params import SegmentParams

ISLANDS = {
    "connected": "touching a stroke",
    "largest": "the largest",
    "keep": "all",
}


class SegmentForm(QWidget):
    """Islands, holes and smoothness; under them what the solver weighs."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.defaults = SegmentParams()
        self._loading = False
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        form = compact_form()
        layout.addLayout(form)
        d = self.defaults
        self.islands = choice_box(ISLANDS, d.islands)
        add_row(form, "Islands", self.islands, "Which of the separate parts of a class are kept.")
        self.smooth = float_box(0, 5, d.smooth, 0.25, " voxels", "none")
        add_row(form, "Smoothness", self.smooth, "How far boundaries are smoothed.")
        self.fill_holes = QCheckBox("fill holes")
        self.fill_holes.setChecked(d.fill_holes)
        self.fill_holes.setToolTip(
            "Background enclosed by a class joins it, unless it holds a background stroke."
        )
        form.addRow("", self.fill_holes)
        self.appearance = float_box(0, 100, d.appearance, 0.1)
        add_row(
            form,
            "Looks",
            self.appearance,
            "How much the looks of the strokes' voxels count against nearness; 0: nearness alone.",
        )
        self.shape = float_box(0, 100, d.shape, 0.1)
        add_row(
            form,
            "Shape",
            self.shape,
            "How much the outlines of annotated slices count for the slices between them.",
        )
        self.reach = float_box(0, 100, d.max_path_ratio, 0.5, " ×", "no limit")
        add_row(
            form,
            "Reach",
            self.reach,
            "A class ends where the way from its strokes is this many times as far as it is in "
            "annotated slices.",
        )
        self.refine_voxels = int_box(0, 100_000_000, d.refine_voxels, "none", 50_000)
        add_row(
            form,
            "Refine",
            self.refine_voxels,
            "So many undecided voxels are looked at one by one, for exact edges.",
        )
        self.seed = int_box(0, 2**31 - 1, d.seed)
        self.seed.setGroupSeparatorShown(False)
        add_row(form, "Seed", self.seed, "Seed of all random choices.")
        self.threads = int_box(0, 1024, d.threads, "all")
        add_row(form, "CPU threads", self.threads, "Threads of the CPU to use.")
        for box in (self.smooth, self.appearance, self.shape, self.reach):
            box.setKeyboardTracking(False)
            box.valueChanged.connect(self._emit)
        for count in (self.refine_voxels, self.seed, self.threads):
            count.setKeyboardTracking(False)
            count.valueChanged.connect(self._emit)
        self.islands.currentIndexChanged.connect(self._emit)
        self.fill_holes.toggled.connect(self._emit)

    def _emit(self, *_: object) -> None:
        if not self._loading:
            self.changed.emit()

    def params(self) -> SegmentParams:
        """Return the settings."""
        return replace(
            self.defaults,
            appearance=self.appearance.value(),
            shape=self.shape.value(),
            max_path_ratio=self.reach.value(),
            refine_voxels=self.refine_voxels.value(),
            smooth=self.smooth.value(),
            islands=self.islands.currentData(),
            fill_holes=self.fill_holes.isChecked(),
            seed=self.seed.value(),
            threads=self.threads.value() or None,
        )

    def load(self, params: SegmentParams) -> None:
        """Show settings."""
        self._loading = True
        self.appearance.setValue(params.appearance)
        self.shape.setValue(params.shape)
        self.reach.setValue(params.max_path_ratio)
        self.refine_voxels.setValue(params.refine_voxels)
        self.smooth.setValue(params.smooth)
        self.islands.setCurrentIndex(list(ISLANDS).index(params.islands.value))
        self.fill_holes.setChecked(params.fill_holes)
        self.seed.setValue(params.seed)
        self.threads.setValue(params.threads or 0)
        self._loading = False


class ValueForm(QWidget):
    """Which values of the strokes layer mean "not labelled" and "background"."""

    changed = Signal()

    def __init__(self, unlabeled: int, background: int | None) -> None:
        super().__init__()
        self._loading = False
        form = compact_form()
        self.setLayout(form)
        self.unlabeled = self._value(unlabeled, 0, "")
        add_row(
            form,
            "Unlabelled",
            self.unlabeled,
            "The value in the strokes layer that says nothing. Changing it starts a new history.",
        )
        self.background = self._value(-1 if background is None else background, -1, "no value")
        add_row(
            form,
            "Background",
            self.background,
            "The value in the strokes layer of background strokes; 0 in the result.",
        )

    def _value(self, value: int, low: int, special: str) -> QSpinBox:
        box = int_box(low, 65_535, value, special)
        box.setGroupSeparatorShown(False)
        box.setKeyboardTracking(False)
        box.valueChanged.connect(self._emit)
        return box

    def _emit(self, *_: object) -> None:
        if not self._loading:
            self.changed.emit()

    def values(self) -> tuple[int, int | None]:
        """Return the values for unlabeled and for background."""
        background = self.background.value()
        return self.unlabeled.value(), None if background < 0 else background

    def load(self, unlabeled: int, background: int | None) -> None:
        """Show values."""
        self._loading = True
        self.unlabeled.setValue(unlabeled)
        self.background.setValue(-1 if background is None else background)
        self._loading = False


class Section(QWidget):
    """A part of a widget that opens and closes; closed at first.

    Parameters
    ----------
    title : str
    content : QWidget
    """

    def __init__(self, title: str, content: QWidget) -> None:
        super().__init__()
        self.title, self.content = title, content
        self.head = QPushButton()
        self.head.setCheckable(True)
        self.head.setStyleSheet(
            "text-align: left; border: none; outline: none; background: transparent; "
            "padding: 4px 0;"
        )
        self.head.toggled.connect(self._show)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.head)
        inner = QVBoxLayout()
        inner.setContentsMargins(10, 0, 0, 6)
        inner.addWidget(content)
        layout.addLayout(inner)
        self._show(False)

    def _show(self, shown: bool) -> None:
        self.head.setText(f"{'▾' if shown else '▸'}  {self.title}")
        self.content.setVisible(shown)
