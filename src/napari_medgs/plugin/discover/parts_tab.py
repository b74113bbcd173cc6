"""The tab "Parts": a cut of the tree, finer or coarser, and what is done with its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import QItemSelectionModel, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QSlider,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_medgs.plugin.widgets.controls import button
from napari_medgs.plugin.widgets.elements import hint

COUNTS = (2, 3, 4, 6, 8, 11, 16, 22, 32, 45, 64, 90, 128, 180, 256)
START = 8  # of COUNTS
LABEL, NAME, SIZE = range(3)


class PartsTab(QWidget):
    """Slider, table of the parts, and buttons."""

    count_changed = Signal(int, bool)  # count, and whether the slider rests
    named = Signal(int, str)
    selected = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 6, 0, 0)
        self.place = QVBoxLayout()
        layout.addLayout(self.place)
        row = QHBoxLayout()
        tip = (
            "More or fewer parts. All parts keep their colors, one of them is divided at a time. "
            "Moving it ends merges and splits; names stay."
        )
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, len(COUNTS) - 1)
        self.slider.setValue(START)
        self.slider.setPageStep(1)
        self.slider.setToolTip(tip)
        self.count_text = QLabel()
        self.count_text.setMinimumWidth(58)
        self.count_text.setToolTip(tip)
        row.addWidget(self.slider, 1)
        row.addWidget(self.count_text)
        layout.addLayout(row)
        self.table = QTableWidget(0, 3)
        self.table.setHorizontalHeaderLabels(["Part", "Name", "mL"])
        self.table.verticalHeader().setVisible(False)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.horizontalHeader().setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        self.table.setColumnWidth(LABEL, 62)
        self.table.setColumnWidth(SIZE, 70)
        self.table.setMinimumHeight(170)
        self.table.setToolTip("Double-click to name a part. Select several to merge or send them.")
        layout.addWidget(self.table, 1)
        self.merge = button("Merge", "Join the selected parts.")
        self.split = button("Split", "Divide the selected part in two.")
        self.send_mask = button(
            "As mask", "Begin a segmentation from the selected parts: one mask."
        )
        self.send_classes = button(
            "As classes", "Begin a segmentation in which every selected part is a class."
        )
        for first, second in ((self.merge, self.split), (self.send_mask, self.send_classes)):
            line = QHBoxLayout()
            line.addWidget(first)
            line.addWidget(second)
            layout.addLayout(line)
        self.note = hint(
            "Parts differ from their neighbors in the image; the tree knows no anatomy. To choose "
            "one by a click and the wheel, use Click a part in Segment."
        )
        layout.addWidget(self.note)
        self._filling = False
        self.slider.valueChanged.connect(self._on_slider)
        self.slider.sliderReleased.connect(lambda: self.count_changed.emit(self.count, True))
        self.table.itemChanged.connect(self._on_item)
        self.table.itemSelectionChanged.connect(self._on_selection)
        self.set_ready(False)
        self._show_count()

    @property
    def count(self) -> int:
        """Parts that the slider asks for."""
        return COUNTS[self.slider.value()]

    def _show_count(self) -> None:
        self.count_text.setText(f"{self.count} parts")

    def show_count(self, count: int) -> None:
        """Show how many parts there are; the slider stands at its nearest number."""
        nearest = min(range(len(COUNTS)), key=lambda k: abs(COUNTS[k] - count))
        blocked = self.slider.blockSignals(True)  # it asks for nothing
        self.slider.setValue(nearest)
        self.slider.blockSignals(blocked)
        self.count_text.setText("1 part" if count == 1 else f"{count} parts")

    def _on_slider(self, *_: Any) -> None:
        self._show_count()
        self.count_changed.emit(self.count, not self.slider.isSliderDown())

    def set_ready(self, ready: bool) -> None:
        """Enable what needs a tree."""
        for control in (self.slider, self.table):
            control.setEnabled(ready)
        self._show_buttons()

    def show_parts(
        self, sizes: Mapping[int, float], names: Mapping[int, str], colors: Mapping[int, Any]
    ) -> None:
        """Fill the table, largest part first; the selection stays.

        Parameters
        ----------
        sizes : mapping of int to float
            Milliliters by label.
        names : mapping of int to str
        colors : mapping of int to (r, g, b, a)
        """
        before = set(self.labels())
        self._filling = True
        self.table.setRowCount(len(sizes))
        for k, (label, size) in enumerate(sorted(sizes.items(), key=lambda x: -x[1])):
            number = QTableWidgetItem(str(label))
            number.setData(Qt.ItemDataRole.UserRole, label)
            number.setData(
                Qt.ItemDataRole.DecorationRole,
                QColor.fromRgbF(*(float(v) for v in colors[label][:3])),
            )
            volume = QTableWidgetItem(f"{size:.3g}" if size < 100 else f"{size:,.0f}")
            volume.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            for item in (number, volume):
                item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
            self.table.setItem(k, LABEL, number)
            self.table.setItem(k, NAME, QTableWidgetItem(names.get(label, "")))
            self.table.setItem(k, SIZE, volume)
        self._filling = False
        self.select(before & set(sizes))

    def _label(self, row: int) -> int:
        return int(self.table.item(row, LABEL).data(Qt.ItemDataRole.UserRole))

    def labels(self) -> list[int]:
        """Return the selected labels."""
        rows = self.table.selectionModel().selectedRows(LABEL)
        return [self._label(index.row()) for index in rows]

    def select(self, labels: Any) -> None:
        """Select the rows of labels, and scroll to the first."""
        self._filling = True
        self.table.clearSelection()
        flags = QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
        model = self.table.model()
        for row in range(self.table.rowCount()):
            if self._label(row) in labels:
                self.table.selectionModel().select(model.index(row, LABEL), flags)
                self.table.scrollToItem(self.table.item(row, LABEL))
        self._filling = False
        self._show_buttons()

    def _show_buttons(self) -> None:
        count = len(self.labels()) if self.table.isEnabled() else 0
        self.merge.setEnabled(count > 1)
        self.split.setEnabled(count == 1)
        self.send_mask.setEnabled(count > 0)
        self.send_classes.setEnabled(count > 0)

    def _on_item(self, item: QTableWidgetItem) -> None:
        if not self._filling and item.column() == NAME:
            self.named.emit(self._label(item.row()), item.text())

    def _on_selection(self) -> None:
        if self._filling:
            return
        self._show_buttons()
        labels = self.labels()
        if len(labels) == 1:
            self.selected.emit(labels[0])
