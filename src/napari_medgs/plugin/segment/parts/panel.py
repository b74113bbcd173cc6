"""The controls of clicking on parts."""

from __future__ import annotations

from typing import Any

from psygnal import Signal
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSlider, QVBoxLayout, QWidget

from napari_medgs.plugin.widgets.elements import hint
from napari_medgs.plugin.widgets.icons import IconButton

HELP = (
    "Shift and the wheel change the size. Shift and a click: this belongs to it, too; Alt and a "
    "click: this does not. Then paint, or click the next part."
)


class PartsPanel(QWidget):
    """The button of the tool; while it is down, a slider for the size of the part on show."""

    level_chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.button = IconButton(
            "cursor_default_click_outline",
            "Give whole parts of the image to the selected class, without strokes. The part below "
            "the mouse is outlined; a click takes it.",
            "Click a part",
            checkable=True,
        )
        self.size = QSlider(Qt.Orientation.Horizontal)
        self.size.setMinimumWidth(60)
        self.size.setToolTip(
            "Size of the part: of the clicked one, or of the one below the mouse. Shift and the "
            "wheel, [ and ] do the same."
        )
        self.size.setAccessibleName("Size of the part")
        self.text = QLabel()
        self.details = QWidget()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.button)
        inner = QVBoxLayout(self.details)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setSpacing(2)
        line = QHBoxLayout()
        line.addWidget(self.size, 1)
        line.addWidget(self.text)
        inner.addLayout(line)
        inner.addWidget(hint(HELP))
        layout.addWidget(self.details)
        self.details.setVisible(False)
        self.button.toggled.connect(self.details.setVisible)
        self.size.valueChanged.connect(self.level_chosen.emit)
        self.show_part(None, "")

    def show_part(self, part: Any | None, text: str) -> None:
        """Show the size of a part and the sizes that there are; no signals are emitted."""
        self.size.blockSignals(True)
        self.size.setEnabled(part is not None and len(part.levels) > 1)
        if part is not None:
            self.size.setRange(0, len(part.levels) - 1)
            self.size.setValue(part.level)
        self.size.blockSignals(False)
        self.text.setText(text or "No part below the mouse")
