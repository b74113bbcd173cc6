"""The tab "Tissues": number of classes, bias, and the table of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.controls import int_box
from napari_medgs.plugin.widgets.elements import add_row, compact_form, hint
from napari_medgs.plugin.widgets.layers import LayerCombo, is_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_medgs.tissue import TissueParams, TissueResult

MOST_CONTRASTS = 3  # whose intensities have a column


class TissuesTab(QWidget):
    """Settings and results of tissues.

    Parameters
    ----------
    owner : MedGSWidget
    """

    def __init__(self, owner: MedGSWidget) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 6, 0, 0)
        form = compact_form()
        layout.addLayout(form)
        self.classes = int_box(1, 12, 3, "chosen by itself")
        add_row(
            form,
            "Classes",
            self.classes,
            "How many kinds of tissue, dark to bright. At the lowest value the number is chosen "
            "by how well held-out parts of the image are explained.",
        )
        self.bias = QCheckBox("Remove a bias field (MR)")
        self.bias.setToolTip(
            "Intensities of one tissue vary smoothly over an MR image; estimate and allow for "
            "that. Not for CT."
        )
        form.addRow(self.bias)
        self.region = LayerCombo(owner, is_kind("Labels"), none="the whole image")
        add_row(form, "Within", self.region, "Divide only where these labels are not 0.")
        self.resample = QCheckBox("Resample the mask")
        self.resample.setToolTip(
            "Bring a mask of another grid onto the image by the nearest label. Otherwise it is "
            "refused."
        )
        self.resample.setVisible(False)
        self.region.changed.connect(
            lambda: self.resample.setVisible(self.region.layer is not None)
        )
        form.addRow(self.resample)
        self.probabilities = QCheckBox("Add probabilities")
        self.probabilities.setToolTip("An image layer for every class, hidden at first.")
        form.addRow(self.probabilities)
        self.place = QVBoxLayout()
        layout.addLayout(self.place)
        self.table = QTableWidget(0, 0)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.verticalHeader().setVisible(False)
        self.table.setMinimumHeight(130)
        self.table.setVisible(False)
        layout.addWidget(self.table)
        self.note = hint()
        self.note.setVisible(False)
        layout.addWidget(self.note)
        layout.addStretch(1)

    def params(self) -> TissueParams:
        """Return the settings that are chosen."""
        from napari_medgs.tissue import TissueParams

        count = self.classes.value()
        return TissueParams(classes=count if count > 1 else None, bias=self.bias.isChecked())

    def show_result(self, result: TissueResult, colors: Mapping[int, Any]) -> None:
        """Fill the table.

        Parameters
        ----------
        result : TissueResult
        colors : mapping of int to (r, g, b, a)
            Of the labels.
        """
        contrasts = result.contrasts[:MOST_CONTRASTS]
        heads = ["Class", "mL", "Share", *contrasts]
        self.table.setColumnCount(len(heads))
        self.table.setHorizontalHeaderLabels(heads)
        self.table.setRowCount(len(result.rows))
        for k, row in enumerate(result.rows):
            texts = [str(row["label"]), _volume(row["volume_ml"]), f"{row['fraction']:.1%}"]
            texts += [
                f"{mean:.4g} ± {sd:.2g}" for mean, sd in zip(row["mean"], row["sd"], strict=True)
            ][:MOST_CONTRASTS]
            for c, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(k, c, item)
            color = QColor.fromRgbF(*(float(v) for v in colors[row["label"]][:3]))
            self.table.item(k, 0).setData(Qt.ItemDataRole.DecorationRole, color)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        self.table.setVisible(True)
        self.note.setText(
            "Classes differ in intensity; what they are is not known. Mean ± standard deviation."
        )
        self.note.setVisible(True)


def _volume(milliliters: float) -> str:
    """Return a volume with one decimal, or three digits where it is small."""
    return f"{milliliters:,.1f}" if milliliters >= 10 else f"{milliliters:.3g}"
