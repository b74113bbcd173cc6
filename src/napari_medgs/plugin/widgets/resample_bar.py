"""What a list of images shows where those that are checked lie on several grids."""

from __future__ import annotations

import weakref
from typing import Any

from qtpy.QtWidgets import QComboBox, QPushButton, QVBoxLayout, QWidget

from napari_medgs.plugin.contrast_grids import (
    ResampleImages,
    add_resampled,
    others_of,
    resample_job,
    voxel_text,
)
from napari_medgs.plugin.report import guarded, show_failure, show_hint
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.controls import row
from napari_medgs.plugin.widgets.elements import hint
from napari_medgs.plugin.widgets.layers import LayerChecklist
from napari_medgs.plugin.worker import Runner

WORD = "Resample"
MOVES = ("scale", "translate", "rotate", "shear", "affine", "units")
"""Events of a layer whose place has changed."""
TIP = (
    "Make layers of these images on the grid of the chosen one, linearly interpolated where "
    "they lie in the patient, and check them instead. Nothing is registered: of a patient who "
    "moved, register the images first."
)


class ResampleBar(QWidget):
    """Offers to bring the checked images onto one grid; hidden where they are on one.

    Parameters
    ----------
    owner : MedGSWidget
    images : LayerChecklist

    Attributes
    ----------
    reference : QComboBox
        Whose grid is kept; the first image's at first.
    button : QPushButton
        Begins, and stops what runs.
    note : QLabel
        What does not fit together, or what was done.
    """

    title = "Resampling"

    def __init__(self, owner: MedGSWidget, images: LayerChecklist) -> None:
        super().__init__()
        self._owner, self._viewer, self._images = owner, owner.viewer, images
        self._followed: weakref.WeakSet[Any] = weakref.WeakSet()
        self._runner = Runner(self)
        self._shown: list[Any] = []
        self.note = hint()
        self.reference = QComboBox()
        self.reference.setMinimumContentsLength(8)
        self.reference.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.reference.setToolTip("The image whose grid is kept; all others are resampled to it.")
        self.button = QPushButton(WORD)
        self.button.setToolTip(TIP)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.note)
        line = row(self.reference, self.button)
        line.setStretch(1, 0)
        layout.addLayout(line)
        images.changed.connect(self.refresh)
        self.reference.currentIndexChanged.connect(lambda *_: self._describe())
        self.button.clicked.connect(lambda *_: self.toggle())
        self.refresh()

    @property
    def busy(self) -> bool:
        """Whether images are being resampled."""
        return self._runner.busy

    def refresh(self, event: Any = None) -> None:
        """Follow the images that are checked now, and where they are moved."""
        if self.busy:
            return
        layers = self._images.layers
        for layer in layers:
            if layer not in self._followed:
                self._followed.add(layer)
                for name in MOVES:
                    self._owner.listen(getattr(layer.events, name), self.refresh)
        kept = self._chosen()
        self._shown = layers if len(layers) > 1 and others_of(layers, layers[0]) else []
        self.reference.blockSignals(True)
        self.reference.clear()
        self.reference.addItems([voxel_text(layer) for layer in self._shown])
        if kept in self._shown:
            self.reference.setCurrentIndex(self._shown.index(kept))
        self.reference.blockSignals(False)
        self._describe()

    def _chosen(self) -> Any | None:
        index = self.reference.currentIndex()
        return self._shown[index] if 0 <= index < len(self._shown) else None

    def _describe(self) -> None:
        reference = self._chosen()
        self.setVisible(reference is not None)
        if reference is None:
            return
        names = [x.name for x in others_of(self._shown, reference)]
        lie = "lies" if len(names) == 1 else "lie"
        self.note.setText(
            f"{' and '.join(names)} {lie} on another grid than {reference.name}. Contrasts must "
            "share one: resample to"
        )

    @guarded
    def toggle(self) -> None:
        """Resample, or stop what runs; refusals become notifications."""
        if self.busy:
            self._runner.stop()
            self.button.setEnabled(False)
            return
        reference = self._chosen()
        others = [] if reference is None else others_of(self._images.layers, reference)
        if not others:
            self.refresh()
            return
        job = resample_job(others, reference)
        self._runner.start(
            job,
            returned=lambda made: self._show(job, made),
            errored=lambda error: show_failure(error, self.title),
            finished=self._finished,
        )
        self.button.setText("Stop")
        self.reference.setEnabled(False)
        self.note.setText(f"Resampling {' and '.join(x.name for x in others)} ...")

    def _finished(self) -> None:
        self.button.setText(WORD)
        self.button.setEnabled(True)
        self.reference.setEnabled(True)
        self.refresh()

    @guarded
    def _show(self, job: ResampleImages, made: list[tuple[Any, list[str]]]) -> None:
        """Check the new layers instead of the old ones, unless those are gone meanwhile."""
        layers = self._viewer.layers
        if any(layer not in layers for layer in (*job.sources, job.reference)):
            return
        checked = self._images.layers
        new = add_resampled(self._viewer, job, made)
        self._images.check([new.get(layer, layer) for layer in checked])
        for _, texts in made:
            for text in texts:
                show_hint(text)

    def shut_down(self) -> None:
        """Stop and join the thread."""
        self._runner.shut_down()
