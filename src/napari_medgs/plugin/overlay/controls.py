"""Controls of the view in space: a threshold, and a slab in millimeters."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget
from superqt import QLabeledDoubleRangeSlider, QLabeledDoubleSlider

from napari_medgs.plugin.widgets.controls import choice_box

AXES = {
    None: "everything",
    0: "across z (feet to head)",
    1: "across y (front to back)",
    2: "across x (right and left)",
}


class ThresholdRow(QWidget):
    """A slider for an intensity, with a box for the automatic value."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.automatic = QCheckBox("automatic")
        self.automatic.setChecked(True)
        self.automatic.setToolTip("Take Otsu's threshold of the Gaussians' intensities.")
        self.slider.setToolTip("Intensity, in units of the image.")
        self._tissue, self._loading = 0.0, False
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(1)
        layout.addWidget(self.slider)
        layout.addWidget(self.automatic)
        self.slider.valueChanged.connect(self._on_moved)
        self.automatic.toggled.connect(self._on_automatic)

    @property
    def value(self) -> float | None:
        """The intensity; None where it is found automatically."""
        return None if self.automatic.isChecked() else float(self.slider.value())

    def load(self, limits: tuple[float, float], tissue: float, value: float | None) -> None:
        """Show a value, without a signal.

        Parameters
        ----------
        limits : (float, float)
            Range of the slider.
        tissue : float
            The automatic value.
        value : float or None
            None for the automatic one.
        """
        self._loading, self._tissue = True, tissue
        low, high = min(*limits, tissue), max(*limits, tissue)
        step = (high - low) / 200 or 1.0
        self.slider.setDecimals(int(np.clip(1 - np.floor(np.log10(step)), 0, 6)))
        self.slider.setRange(low, high)
        self.slider.setSingleStep(step)
        self.slider.setValue(tissue if value is None else value)
        self.automatic.setChecked(value is None)
        self._loading = False

    def _on_moved(self, value: float) -> None:
        if not self._loading:
            self._loading = True
            self.automatic.setChecked(False)
            self._loading = False
            self.changed.emit()

    def _on_automatic(self, on: bool) -> None:
        if self._loading:
            return
        self._loading = True
        if on:
            self.slider.setValue(self._tissue)
        self._loading = False
        self.changed.emit()


class SlabRow(QWidget):
    """An axis, and where along it a slab begins and ends."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.choice = choice_box(AXES, None)
        self.ends = QLabeledDoubleRangeSlider(Qt.Orientation.Horizontal)
        self.ends.setDecimals(0)
        self.ends.setVisible(False)
        self.ends.setToolTip("Begin and end of the slab, in millimeters.")
        self.choice.setToolTip("What is drawn in 3D.")
        self._extent, self._loading = (1.0, 1.0, 1.0), False
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(1)
        layout.addWidget(self.choice)
        layout.addWidget(self.ends)
        self.choice.currentIndexChanged.connect(self._on_axis)
        self.ends.valueChanged.connect(lambda *_: self._loading or self.changed.emit())

    @property
    def axis(self) -> int | None:
        """The axis across which the slab lies, of z, y, x; None for everything."""
        return self.choice.currentData()

    @property
    def clip(self) -> tuple[float, float]:
        """Begin and end of the slab in millimeters; the end is infinite without an axis."""
        if self.axis is None:
            return 0.0, float("inf")
        low, high = self.ends.value()
        return float(low), float(high)

    def load(
        self,
        extent: tuple[float, float, float],
        axis: int | None,
        clip: tuple[float, float],
    ) -> None:
        """Show a slab of an image of some size in millimeters, without a signal."""
        self._loading, self._extent = True, extent
        self.choice.setCurrentIndex(list(AXES).index(axis))
        self.ends.setVisible(axis is not None)
        if axis is not None:
            length = max(extent[axis], 1e-6)
            self.ends.setDecimals(0 if length > 20 else 2)
            self.ends.setRange(0, length)
            self.ends.setValue((min(clip[0], length), min(clip[1], length)))
        self._loading = False

    def _on_axis(self, index: int) -> None:
        if self._loading:
            return
        axis = self.axis
        # At first the half that is farther away is kept: the cut shows the middle.
        clip = (0.0, float("inf")) if axis is None else (0.0, self._extent[axis] / 2)
        self.load(self._extent, axis, clip)
        self.changed.emit()
