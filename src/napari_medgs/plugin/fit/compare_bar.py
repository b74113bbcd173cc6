"""Choosing how the result of a fit is compared with its image."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QSlider, QVBoxLayout, QWidget

from napari_medgs.plugin.fit.compare import Comparison
from napari_medgs.plugin.fit.jobs import FindDifference, FitOutcome
from napari_medgs.plugin.fit.results import add_difference_layer, difference_text
from napari_medgs.plugin.fit.swipe import Swipe
from napari_medgs.plugin.report import guarded, show_failure
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.controls import choice_box
from napari_medgs.plugin.widgets.elements import add_row, compact_form, hint
from napari_medgs.plugin.worker import Runner

IMAGE, BESIDE, INSTEAD, SWIPE, DIFFERENCE = "image", "beside", "instead", "swipe", "difference"
CHOICES = {
    IMAGE: "the image alone",
    BESIDE: "reconstruction beside it",
    INSTEAD: "reconstruction in its place",
    SWIPE: "reconstruction up to a line",
    DIFFERENCE: "difference beside it",
}
TIP = (
    "The reconstruction is the image that the Gaussians make. The difference is reconstruction "
    "minus image, with a color for either sign."
)


class CompareBar(QWidget):
    """What of a fit is shown, and how far it is from the image.

    The label ``numbers`` is to be placed below it: in a layout of its own it would be cut off.

    Parameters
    ----------
    owner : MedGSWidget
        Gives the viewer and the worker.
    """

    title = "The comparison"

    def __init__(self, owner: MedGSWidget) -> None:
        super().__init__()
        self._viewer = owner.viewer
        self._runner = Runner(owner)
        self.comparison = Comparison(owner.viewer)
        self.swipe = Swipe(owner.viewer)
        self._outcome: FitOutcome | None = None
        self._sources: list[Any] = []
        self._pictures: list[Any] = []
        self.difference: Any | None = None
        self.choice: QComboBox = choice_box(CHOICES, IMAGE)
        form = compact_form()
        add_row(form, "Show", self.choice, TIP)
        self.numbers = hint()
        self.numbers.setObjectName("medgs-result")
        self.numbers.setVisible(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(form)
        self.line = QSlider(Qt.Orientation.Horizontal)
        self.line.setRange(0, 100)
        self.line.setValue(50)
        self.line.setToolTip("Left of the line is the reconstruction, right of it the image.")
        self.line.setAccessibleName("Line between reconstruction and image")
        self.line.setVisible(False)
        self.line.valueChanged.connect(lambda value: self.swipe.move(value / 100))
        layout.addWidget(self.line)
        self.setVisible(False)
        self.choice.currentIndexChanged.connect(lambda *_: self.apply())

    def show_result(self, sources: list[Any], outcome: FitOutcome, pictures: list[Any]) -> None:
        """Offer the comparison of a new result.

        Parameters
        ----------
        sources : list of napari.layers.Image
        outcome : FitOutcome
        pictures : list of napari.layers.Image
            The reconstructions, one a source.
        """
        self.clear()
        self._sources, self._outcome, self._pictures = list(sources), outcome, list(pictures)
        self.setVisible(bool(pictures))

    def clear(self) -> None:
        """Forget the result; the viewer shows what it did before."""
        self.swipe.end()
        self.line.setVisible(False)
        self.comparison.end()
        self._outcome, self.difference = None, None
        self._sources, self._pictures = [], []
        self.choice.blockSignals(True)
        self.choice.setCurrentIndex(0)
        self.choice.blockSignals(False)
        self.numbers.setVisible(False)
        self.setVisible(False)

    def _there(self, layers: list[Any]) -> list[Any]:
        return [layer for layer in layers if layer in self._viewer.layers]

    @guarded
    def apply(self) -> None:
        """Show what is chosen; the difference is computed when it is wanted first."""
        wanted, pictures = self.choice.currentData(), self._there(self._pictures)
        self.numbers.setVisible(wanted == DIFFERENCE)
        self.line.setVisible(wanted == SWIPE)
        self.swipe.end()
        if wanted == DIFFERENCE:
            self._show_difference()
        elif wanted == IMAGE or not pictures:
            self.comparison.end()
        elif wanted == BESIDE:
            self.comparison.show_beside(pictures[0])
        elif wanted == SWIPE:
            self._show_swipe(pictures[0])
        else:
            self.comparison.show_instead(pictures[0], self._there(self._sources))

    def _show_swipe(self, picture: Any) -> None:
        self.comparison.show_instead(picture, [])
        layers, sources = self._viewer.layers, self._there(self._sources)
        top = max((layers.index(source) for source in sources), default=0)
        if layers.index(picture) < top:  # side by side it goes to the bottom
            layers.move(layers.index(picture), top + 1)
        self.swipe.begin(picture, self.line.value() / 100)

    def _show_difference(self) -> None:
        if self.difference is not None and self.difference in self._viewer.layers:
            self.comparison.show_beside(self.difference)
            return
        if self._outcome is None or self._runner.busy:
            return
        outcome = self._outcome
        self.numbers.setText("Comparing ...")
        self._runner.start(
            FindDifference(outcome),
            returned=lambda found: self._add_difference(outcome, found),
            errored=lambda error: show_failure(error, self.title),
        )

    @guarded
    def _add_difference(self, outcome: FitOutcome, found: Any) -> None:
        if outcome is not self._outcome:  # of a result that is no longer on show
            return
        self.numbers.setText(difference_text(found))
        pictures = self._there(self._pictures)
        if not pictures:
            return
        self.difference = add_difference_layer(self._viewer, pictures[0], outcome, found)
        if self.choice.currentData() == DIFFERENCE:
            self.comparison.show_beside(self.difference)

    def shut_down(self) -> None:
        """Stop the work, and give the viewer its own arrangement back."""
        self._runner.shut_down()
        self.swipe.end()
        self.comparison.end()
