"""Plain controls of the forms: spin boxes, combo boxes, buttons and rows of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QPushButton,
    QSpinBox,
    QWidget,
)

B = TypeVar("B", bound=QPushButton)


def int_box(low: int, high: int, value: int | None, special: str = "", step: int = 1) -> QSpinBox:
    """Return a box for integers.

    Parameters
    ----------
    low, high : int
        Range.
    value : int or None
        None selects the lowest value.
    special : str
        Text shown in place of the lowest value.
    step : int
    """
    box = QSpinBox()
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setGroupSeparatorShown(True)
    if special:
        box.setSpecialValueText(special)
    box.setValue(low if value is None else value)
    return box


def float_box(
    low: float, high: float, value: float | None, step: float, suffix: str = "", special: str = ""
) -> QDoubleSpinBox:
    """Return a box for real numbers; see :func:`int_box`."""
    box = QDoubleSpinBox()
    box.setDecimals(2 if step < 0.1 else 1)
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setSuffix(suffix)
    if special:
        box.setSpecialValueText(special)
    box.setValue(low if value is None else value)
    return box


def choice_box(choices: Mapping[Any, str], value: Any) -> QComboBox:
    """Return a combo box.

    Parameters
    ----------
    choices : mapping
        Value -> text. The value is the item's data.
    value : object
        Selected at first.
    """
    box = QComboBox()
    box.setMinimumContentsLength(8)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    for key, text in choices.items():
        box.addItem(text, key)
    box.setCurrentIndex(list(choices).index(value))
    return box


def button(text: str, tip: str) -> QPushButton:
    """Return a plain button."""
    made = QPushButton(text)
    made.setToolTip(tip)
    return made


def compact(made: B) -> B:
    """Let a button take little width, for three in a row of a narrow dock; return it."""
    made.setProperty("medgs", "compact")
    return made


def row(*widgets: QWidget) -> QHBoxLayout:
    """Return a layout of widgets side by side, equally wide."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(6)
    for widget in widgets:
        layout.addWidget(widget, 1)
    return layout
