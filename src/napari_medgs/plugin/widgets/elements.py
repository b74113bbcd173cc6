"""Elements that widgets are made of: forms, hints, main buttons, sections that open and close."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QFormLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)


def compact_form() -> QFormLayout:
    """Return a form layout with little space, whose fields take the width."""
    form = QFormLayout()
    form.setContentsMargins(0, 0, 0, 0)
    form.setHorizontalSpacing(8)
    form.setVerticalSpacing(4)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
    form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    return form


def add_row(form: QFormLayout, label: str, field: QWidget, tip: str) -> QWidget:
    """Add a field with a label, both with a tooltip; return the field."""
    caption = QLabel(label)
    caption.setToolTip(tip)
    field.setToolTip(tip)
    field.setSizePolicy(QSizePolicy.Policy.Expanding, field.sizePolicy().verticalPolicy())
    form.addRow(caption, field)
    return field


def hint(text: str = "") -> QLabel:
    """Return a line of text that wraps."""
    label = QLabel(text)
    label.setObjectName("medgs-hint")
    label.setWordWrap(True)
    return label


def primary_button(text: str, tip: str) -> QPushButton:
    """Return the button of a widget's main action."""
    button = QPushButton(text)
    button.setObjectName("medgs-primary")
    button.setToolTip(tip)
    return button


def set_primary(button: QPushButton, primary: bool) -> None:
    """Let a button stand out as the next step, or look like any other."""
    name = "medgs-primary" if primary else ""
    if button.objectName() != name:
        button.setObjectName(name)
        button.style().unpolish(button)
        button.style().polish(button)


class Section(QWidget):
    """A part of a widget that opens and closes; closed at first.

    Parameters
    ----------
    title : str
    content : QWidget
    """

    opened = Signal()

    def __init__(self, title: str, content: QWidget) -> None:
        super().__init__()
        self.title, self.content = title, content
        self.head = QPushButton()
        self.head.setCheckable(True)
        self.head.setToolTip("Show or hide this section.")
        self.head.setStyleSheet(
            "text-align: left; border: none; outline: none; background: transparent; "
            "padding: 4px 0;"
        )
        self.head.toggled.connect(self._show)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.head)
        inner = QVBoxLayout()
        inner.setContentsMargins(10, 0, 0, 6)
        inner.addWidget(content)
        layout.addLayout(inner)
        self._show(False)

    def open(self) -> None:
        """Show the content."""
        self.head.setChecked(True)

    def _show(self, shown: bool) -> None:
        self.head.setText(f"{'▾' if shown else '▸'}  {self.title}")
        self.content.setVisible(shown)
        if shown:
            self.opened.emit()
