"""The controls of the scissors."""

from __future__ import annotations

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_medgs.plugin.widgets.controls import choice_box, int_box, row
from napari_medgs.plugin.widgets.elements import hint
from napari_medgs.plugin.widgets.icons import IconButton

CUTS = {"cut": "cut away", "keep": "keep only", "fill": "fill"}
MOST = 999
HELP = (
    "Drag around a region, or click its corners and double-click the last one. In 3D they cut "
    "along the direction of view. Escape forgets the corners, or puts the scissors away."
)


class ScissorsPanel(QWidget):
    """The button of the tool; while it is down, what it does, and through how many slices."""

    def __init__(self) -> None:
        super().__init__()
        self.button = IconButton(
            "content_cut",
            "Draw a line in a slice that cuts the selected class through all slices, or through "
            "some.",
            "Scissors",
            checkable=True,
        )
        self.cut = choice_box(CUTS, "cut")
        self.cut.setToolTip(
            "Take the region out of the class, take all else out of it, or give it the region's "
            "background."
        )
        self.cut.setMinimumContentsLength(6)
        self.slices = int_box(0, MOST, 0, "all slices")
        self.slices.setSuffix(" slices")
        self.slices.valueChanged.connect(
            lambda count: self.slices.setSuffix(" slice" if count == 1 else " slices")
        )
        self.slices.setToolTip(
            "How many slices are cut, around the one in which the line is drawn: 1 for a lasso in "
            "that slice alone. In 3D the cut goes through everything."
        )
        self.slices.setAccessibleName("Slices to cut")
        self.details = QWidget()
        inner = QVBoxLayout(self.details)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setSpacing(4)
        inner.addLayout(row(self.cut, self.slices))
        inner.addWidget(hint(HELP))
        self.details.setVisible(False)
        self.button.toggled.connect(self.details.setVisible)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.button)
        layout.addWidget(self.details)

    def range_around(self, index: int) -> tuple[int, int] | None:
        """Return first and last slice to cut around the one on show; None for all."""
        count = self.slices.value()
        if not count:
            return None
        first = index - (count - 1) // 2
        return first, first + count - 1
