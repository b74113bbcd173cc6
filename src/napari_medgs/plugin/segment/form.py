"""The Segment widget's settings: the solver's, and the values of the strokes layer."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QSpinBox, QWidget

from napari_medgs._util.settings import settings_of
from napari_medgs.plugin.preferences import preferences
from napari_medgs.plugin.widgets.controls import int_box
from napari_medgs.plugin.widgets.elements import add_row, compact_form
from napari_medgs.plugin.widgets.settings_form import SettingsForm
from napari_medgs.segmentation.params import SegmentParams

# Texts that are short enough for a narrow dock.
OPTIONS: dict[str, dict[str, Any]] = {
    "islands": {
        "label": "Separate parts",
        "choices": {
            "connected": "with a stroke",
            "largest": "the largest",
            "keep": "all",
        },
    },
    "appearance": {"label": "Use of brightness", "zero_text": "off"},
    "shape": {"label": "Between slices", "zero_text": "off"},
    "max_path_ratio": {"label": "Stroke extent", "zero_text": "no limit"},
    "refine_voxels": {"label": "Voxels refined", "zero_text": "none"},
    "working_voxels": {"label": "Voxels in all"},
    "smooth": {"label": "Smooth edges", "zero_text": "off"},
    "threads": {"none_text": "all"},
}


ELSEWHERE = ("lowest", "highest")
"""Settings with controls of their own, among the tools."""


class SegmentForm(SettingsForm[SegmentParams]):
    """Settings of the solver, made from the declarations of ``SegmentParams``."""

    def __init__(self) -> None:
        shown = [name for name in settings_of(SegmentParams) if name not in ELSEWHERE]
        defaults = SegmentParams(threads=preferences().threads or None)
        super().__init__(defaults, shown, options=OPTIONS)


class LabelValueForm(QWidget):
    """Which values of the strokes layer mean "unlabeled" and "background".

    Parameters
    ----------
    unlabeled : int
    background : int or None
        None where strokes of background have no value.
    """

    changed = Signal()

    def __init__(self, unlabeled: int, background: int | None) -> None:
        super().__init__()
        self._loading = False
        form = compact_form()
        self.setLayout(form)
        self.unlabeled = self._value(unlabeled, 0, "")
        add_row(
            form,
            "Unlabeled",
            self.unlabeled,
            "The value of voxels without a stroke. Changing it starts a new undo history.",
        )
        self.background = self._value(-1 if background is None else background, -1, "no value")
        add_row(
            form,
            "Background",
            self.background,
            "The value of background strokes in the strokes layer; in the mask background is 0.",
        )

    def _value(self, value: int, low: int, special: str) -> QSpinBox:
        box = int_box(low, 65_535, value, special)
        box.setGroupSeparatorShown(False)
        box.setKeyboardTracking(False)
        box.valueChanged.connect(self._on_changed)
        return box

    def _on_changed(self, *_: object) -> None:
        if not self._loading:
            self.changed.emit()

    def values(self) -> tuple[int, int | None]:
        """Return the values for unlabeled and for background."""
        background = self.background.value()
        return self.unlabeled.value(), None if background < 0 else background

    def load(self, unlabeled: int, background: int | None) -> None:
        """Show values; :attr:`changed` is not emitted."""
        self._loading = True
        self.unlabeled.setValue(unlabeled)
        self.background.setValue(-1 if background is None else background)
        self._loading = False
