"""The controls of the last step: what to save, and going on to the next case."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.controls import button, compact, row
from napari_medgs.plugin.widgets.elements import add_row, compact_form
from napari_medgs.plugin.widgets.icons import IconButton
from napari_medgs.plugin.widgets.layers import LayerCombo, LayerFilter


class SaveBar(QWidget):
    """Buttons for mask, meshes and session, all at once, and for the cases of a folder.

    Parameters
    ----------
    owner : MedGSWidget
        Gives the viewer.
    is_accepted : callable
        layer -> whether it holds accepted classes of the image.
    """

    def __init__(self, owner: MedGSWidget, is_accepted: LayerFilter) -> None:
        super().__init__()
        self.what = LayerCombo(owner, is_accepted, none="the mask as shown")
        self.everything = IconButton(
            "content_save_outline",
            "Write mask, meshes and session beside each other; asks for the mask's file.",
            "Save all…",
        )
        self.mask = _plain("Mask…", "Write the mask as NIfTI, NRRD, MetaImage or DICOM.")
        self.meshes = _plain(
            "Meshes…", "Write closed surfaces of the classes, in the screen's colors."
        )
        self.session = _plain(
            "Session…",
            "Write every step to a JSON file, and the Gaussians beside it. "
            "'napari-medgs segment --session' computes the same mask from them.",
        )
        self.keep = IconButton(
            "folder_arrow_right_outline",
            "Put image, mask, classes and session into the folder of finished cases.",
            "Keep case",
        )
        self.next = IconButton(
            "skip_next",
            "Keep this case and open the next image of the folder, with the same classes.",
            "Next case",
        )
        self.folder = _plain("…", "Choose the folder of finished cases.")
        self.folder.setAccessibleName("Folder of cases")
        for made in (self.keep, self.next):
            compact(made)
        self.place = QLabel()
        self.place.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        self.choice = QWidget()
        form = compact_form()
        self.choice.setLayout(form)
        tip = "Which mask to write: the one of the strokes, or classes that were accepted."
        add_row(form, "What", self.what, tip)
        layout.addWidget(self.choice)
        layout.addWidget(self.everything)
        layout.addLayout(row(self.mask, self.meshes, self.session))
        line = row(self.keep, self.next, self.folder)
        line.setStretch(2, 0)
        layout.addLayout(line)
        layout.addWidget(self.place)
        self.place.setVisible(False)
        self.what.changed.connect(self._show_choice)
        for signal in ("inserted", "removed"):
            owner.listen(getattr(owner.viewer.layers.events, signal), self._show_choice)
        self._show_choice()

    def _show_choice(self, event: Any = None) -> None:
        self.choice.setVisible(self.what.count() > 1)

    def show_place(self, text: str) -> None:
        """Say where cases are kept; nothing for an empty text."""
        self.place.setText(text)
        self.place.setVisible(bool(text))


def _plain(text: str, tip: str) -> QPushButton:
    return compact(button(text, tip))
