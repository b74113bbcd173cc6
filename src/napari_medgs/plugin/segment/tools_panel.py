"""Buttons that edit the selected class at once, and the range of intensities."""

from __future__ import annotations

from qtpy.QtWidgets import QAbstractSpinBox, QCheckBox, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_medgs.plugin.segment.scissors.panel import ScissorsPanel
from napari_medgs.plugin.widgets.controls import button, float_box, row

LARGEST = 1e6
TIPS = {
    "grow": "Add a margin of this many millimeters, never over other classes.",
    "shrink": "Take a margin of this many millimeters away.",
    "smooth": "Smooth the surface by this many millimeters; the volume stays.",
    "keep largest": "Keep the largest piece of the class only.",
    "remove small": "Remove pieces smaller than this many milliliters.",
    "fill holes": "Fill background that the class encloses.",
    "fill between slices": "Keep the slices in which the class was painted, of the plane that is "
    "shown, and interpolate its shape between them.",
}


class ToolsPanel(QWidget):
    """Edits of the selected class. Each is one step that Undo takes back."""

    def __init__(self) -> None:
        super().__init__()
        self.margin = float_box(0.1, 100, 2.0, 0.5, " mm")
        self.margin.setToolTip("For Grow, Shrink and Smooth.")
        self.smallest = float_box(0.001, 10_000, 0.1, 0.05, " mL")
        self.smallest.setToolTip("For No small.")
        texts = {"keep largest": "Largest", "remove small": "No small", "fill holes": "No holes",
                 "fill between slices": "Fill between slices"}  # fmt: skip
        self.edits: dict[str, QPushButton] = {
            edit: button(texts.get(edit, edit.capitalize()), tip) for edit, tip in TIPS.items()
        }
        self.low = float_box(-LARGEST, LARGEST, 0, 10)
        self.high = float_box(-LARGEST, LARGEST, 100, 10)
        for box, which in ((self.low, "Lowest"), (self.high, "Highest")):
            box.setDecimals(3)
            box.setKeyboardTracking(False)
            box.setToolTip(f"{which} intensity of the range, of the first image.")
        self.threshold = button(
            "Threshold",
            "Give all voxels of the range that are background to the class: a first mask to edit.",
        )
        self.limit = QCheckBox("limit brush and mask to the range")
        self.limit.setToolTip("Strokes and the mask then leave voxels outside the range alone.")
        edits = self.edits
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        for line in (
            row(self.margin, edits["grow"], edits["shrink"], edits["smooth"]),
            row(self.smallest, edits["remove small"], edits["keep largest"], edits["fill holes"]),
        ):
            line.setSpacing(4)
            layout.addLayout(line)
        layout.addWidget(edits["fill between slices"])
        self.scissors = ScissorsPanel()
        layout.addWidget(self.scissors)
        to = QLabel("to")
        line = row(self.low, to, self.high, self.threshold)
        line.setStretch(1, 0)
        line.setStretch(3, 0)
        layout.addLayout(line)
        layout.addWidget(self.limit)
        for made in (*edits.values(), self.threshold):
            made.setMinimumWidth(made.fontMetrics().horizontalAdvance(made.text()) + 8)
            made.setStyleSheet("padding: 5px 2px;")
        for box in (self.margin, self.smallest, self.low, self.high):
            # The theme's large buttons would leave no room for the number.
            box.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
            box.setStyleSheet("padding: 2px 0px 2px 3px;")
            box.setMinimumWidth(box.fontMetrics().horizontalAdvance(box.text()) + 12)

    def limits(self) -> tuple[float | None, float | None]:
        """Return the range that limits brush and mask; None, None without one."""
        return (self.low.value(), self.high.value()) if self.limit.isChecked() else (None, None)

    def show_limits(self, low: float | None, high: float | None) -> None:
        """Show the limits of a session; no signals are emitted."""
        boxes = (self.low, self.high, self.limit)
        for box in boxes:
            box.blockSignals(True)
        if low is not None:
            self.low.setValue(low)
        if high is not None:
            self.high.setValue(high)
        self.limit.setChecked(low is not None or high is not None)
        for box in boxes:
            box.blockSignals(False)

    def set_busy(self, busy: bool) -> None:
        """Let nothing be pressed while an edit is computed."""
        for made in (*self.edits.values(), self.threshold):
            made.setEnabled(not busy)
