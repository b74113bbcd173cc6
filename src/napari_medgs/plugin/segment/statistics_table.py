"""The table of statistics, with copy and CSV."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_medgs.plugin.widgets.controls import button, row
from napari_medgs.plugin.widgets.elements import hint

TIPS = {
    "mean": "Mean intensity, in the image's units.",
    "sd": "Standard deviation of the intensities (of a sample).",
    "surface_mm2": "Area of the smoothed surface.",
    "longest_mm": "Largest diameter in space.",
    "axial_longest_mm": "Largest diameter within an axial slice.",
    "axial_short_mm": "Width across it, in the same slice.",
    "components": "Pieces whose voxels touch with their faces.",
}


class StatisticsPanel(QWidget):
    """A table of numbers with buttons to measure, copy and save."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []
        self.measure = button("Measure", "Measure every class of the mask in the first image.")
        self.copy = button("Copy", "Copy the table, as spreadsheets take it.")
        self.save = button("Save CSV…", "Save the table to a file.")
        self.table = _Table()
        self.note = hint()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addLayout(row(self.measure, self.copy, self.save))
        layout.addWidget(self.table)
        layout.addWidget(self.note)
        self.show_rows([], "")

    def show_rows(self, rows: list[dict[str, Any]], note: str) -> None:
        """Show rows of :func:`~napari_medgs.metrics.statistics_table.table_rows`."""
        self.rows = rows
        self.table.show_rows(rows)
        self.table.setVisible(bool(rows))
        for control in (self.copy, self.save):
            control.setEnabled(bool(rows))
        self.show_note(note)

    def show_note(self, note: str) -> None:
        """Show a line of text below the table."""
        self.note.setText(note)
        self.note.setVisible(bool(note))

    def ask_file(self, start: str) -> str:
        """Ask where to save; return an empty text when the dialog is canceled."""
        kinds = "Tables (*.csv *.tsv)"
        return str(QFileDialog.getSaveFileName(self, "Save the statistics", start, kinds)[0])


class _Table(QTableWidget):
    """A column a class and a row a number, as high as its rows: docks are narrow."""

    def __init__(self) -> None:
        super().__init__()
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def show_rows(self, rows: list[dict[str, Any]]) -> None:
        """Fill the table."""
        from napari_medgs.metrics.statistics_table import COLUMNS, cell_text

        shown = [key for key in COLUMNS if any(row[key] is not None for row in rows)]
        self.setRowCount(len(shown))
        self.setColumnCount(len(rows))
        self.setHorizontalHeaderLabels([str(entry["name"]) for entry in rows])
        for line, key in enumerate(shown):
            head = QTableWidgetItem(COLUMNS[key])
            head.setToolTip(TIPS.get(key, ""))
            self.setVerticalHeaderItem(line, head)
            for column, entry in enumerate(rows):
                cell = QTableWidgetItem(cell_text(entry[key]))
                cell.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                cell.setToolTip(TIPS.get(key, ""))
                self.setItem(line, column, cell)
        self.resizeColumnsToContents()
        self.resizeRowsToContents()
        self.setFixedHeight(self.sizeHint().height())

    def sizeHint(self) -> QSize:
        """Ask for the height of all rows, with the head and a scroll bar for the columns."""
        rows = sum(self.rowHeight(k) for k in range(self.rowCount()))
        head = self.horizontalHeader().sizeHint().height()
        return QSize(200, rows + head + self.horizontalScrollBar().sizeHint().height() + 4)
