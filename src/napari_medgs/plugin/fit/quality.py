"""Three qualities of a fit, as a slider: each stands for settings that were measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSlider, QVBoxLayout, QWidget

from napari_medgs.plugin.widgets.elements import hint


@dataclass(frozen=True)
class Quality:
    """One stop of the slider.

    Attributes
    ----------
    name : str
    settings : dict
        The settings of a fit that make it, by name.
    expect : str
        Time and quality that were measured, in words.
    """

    name: str
    settings: dict[str, Any]
    expect: str


# Measured with benchmarks/fit_qualities.py; docs/notes/fitting.md has the table.
QUALITIES = (
    Quality("fast", {"iterations": 20, "quality": None}, "Up to 2 s, 24 to 42 dB."),
    Quality("balanced", {"iterations": 80, "quality": None}, "1 to 4 s, 28 to 48 dB."),
    Quality("exact", {"iterations": 80, "quality": 50.0}, "2 to 10 s, 50 dB."),
)
MEASURED = (
    "Measured on six CT and MR scans of up to 17 million voxels and two cores; larger images take "
    "longer in proportion. 50 dB is an error of 0.3 % of the range of intensities."
)
OWN = "Own settings, under Advanced."
BALANCED = 1


class QualitySlider(QWidget):
    """A slider from fast to exact, and below it what to expect."""

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, len(QUALITIES) - 1)
        self.slider.setPageStep(1)
        self.slider.setTickPosition(QSlider.TickPosition.TicksBelow)
        self.slider.setTickInterval(1)
        self.slider.setToolTip(f"How well the Gaussians describe the image. {MEASURED}")
        self.slider.setAccessibleName("Quality of the fit")
        self.expect = hint()
        self.expect.setToolTip(MEASURED)
        names = QHBoxLayout()
        sides = (
            Qt.AlignmentFlag.AlignLeft,
            Qt.AlignmentFlag.AlignHCenter,
            Qt.AlignmentFlag.AlignRight,
        )
        for quality, side in zip(QUALITIES, sides, strict=True):
            names.addWidget(QLabel(quality.name.capitalize()), 1, side)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 2, 0, 4)
        layout.setSpacing(1)
        layout.addWidget(self.slider)
        layout.addLayout(names)
        layout.addWidget(self.expect)
        self.slider.valueChanged.connect(self._on_moved)

    def _on_moved(self, index: int) -> None:
        self.expect.setText(QUALITIES[index].expect)
        self.chosen.emit(index)

    def show_settings(self, values: Mapping[str, Any]) -> None:
        """Show the stop that settings stand for, or that they are the user's own.

        Parameters
        ----------
        values : mapping of str to object
            Settings of a fit.
        """
        for index, quality in enumerate(QUALITIES):
            if all(values[name] == value for name, value in quality.settings.items()):
                self.slider.blockSignals(True)
                self.slider.setValue(index)
                self.slider.blockSignals(False)
                self.expect.setText(quality.expect)
                return
        self.expect.setText(OWN)


def quality_settings(name: str) -> dict[str, Any]:
    """Return the settings of a quality by its name; those of "balanced" for unknown names."""
    found = {quality.name: quality.settings for quality in QUALITIES}
    return dict(found.get(name, QUALITIES[BALANCED].settings))
