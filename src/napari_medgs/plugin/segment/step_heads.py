"""Headings of the steps, the line that says what comes next, and the bar of a map's colors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QRectF, QSize, Qt, QUrl
from qtpy.QtGui import QColor, QDesktopServices, QLinearGradient, QPainter
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QWidget

from napari_medgs.plugin.segment.steps import Step
from napari_medgs.plugin.widgets.icons import IconButton, text_color

BLUE = QColor("#2873c4")
DISC = 20
HELP = "https://napari-medgs.github.io/napari-medgs/howto/viewer/#segment"


class StepHead(QWidget):
    """A number in a disc and a title; the disc is filled while the step is the next one.

    Parameters
    ----------
    step : Step
    """

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step, self._is_next = step, False
        self.setFixedHeight(DISC + 6)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(f"Step {int(step)}: {step.title}")
        self.label = QLabel(step.title)
        font = self.label.font()
        font.setBold(True)
        self.label.setFont(font)
        self.label.setStyleSheet("font-weight: 700;")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(DISC + 8, 4, 0, 0)
        layout.addWidget(self.label)

    @property
    def is_next(self) -> bool:
        """Whether the step is shown as the next one."""
        return self._is_next

    def set_next(self, is_next: bool) -> None:
        """Show the step as the next one, or not."""
        self._is_next = is_next
        self.update()

    def paintEvent(self, event: Any) -> None:
        """Draw the disc and a thin line above."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        color = text_color(self.label)
        if self.step is not Step.START:
            line = QColor(color)
            line.setAlphaF(0.25)
            painter.setPen(line)
            painter.drawLine(0, 0, self.width(), 0)
        disc = QRectF(1, 5, DISC - 2, DISC - 2)
        painter.setPen(BLUE if self._is_next else color)
        painter.setBrush(BLUE if self._is_next else Qt.BrushStyle.NoBrush)
        painter.drawEllipse(disc)
        painter.setPen(QColor("white") if self._is_next else color)
        font = self.label.font()
        font.setBold(True)
        painter.setFont(font)
        painter.drawText(disc, Qt.AlignmentFlag.AlignCenter, str(int(self.step)))
        painter.end()


class Guide(QWidget):
    """One sentence that says what to do next, and a button for the documents."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("medgs-guide")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setStyleSheet(
            "QWidget#medgs-guide { background: rgba(40, 115, 196, 45); border-radius: 5px; "
            "border-left: 4px solid #2873c4; }"
        )
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.text.setStyleSheet("font-weight: 600; background: transparent;")
        self.help = IconButton("help_circle_outline", "Open the page about segmenting.")
        self.help.setFlat(True)
        self.help.clicked.connect(lambda *_: open_help())
        layout = QHBoxLayout(self)
        layout.setContentsMargins(8, 4, 4, 4)
        layout.addWidget(self.text, 1)
        layout.addWidget(self.help, 0, Qt.AlignmentFlag.AlignTop)

    def showEvent(self, event: Any) -> None:
        """Take the height of two lines: the controls below must not jump from step to step."""
        super().showEvent(event)
        self.text.ensurePolished()
        self.text.setMinimumHeight(2 * self.text.fontMetrics().lineSpacing() + 6)

    def show_text(self, text: str) -> None:
        """Show what to do next."""
        self.text.setText(text)


def open_help() -> None:
    """Open the page of the documents in the browser."""
    QDesktopServices.openUrl(QUrl(HELP))


class ColorBar(QWidget):
    """The colors of a map from its least to its largest value, with both in words.

    Parameters
    ----------
    colors : sequence of (red, green, blue)
        From 0 to 1.
    positions : sequence of float
        Where they lie, from 0 to 1.
    low, high : str
    """

    def __init__(
        self,
        colors: Sequence[tuple[float, float, float]],
        positions: Sequence[float],
        low: str,
        high: str,
    ) -> None:
        super().__init__()
        self._stops = list(zip(positions, colors, strict=True))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        self.low, self.high = QLabel(low), QLabel(high)
        layout.addWidget(self.low)
        layout.addWidget(_Gradient(self._stops), 1)
        layout.addWidget(self.high)


class _Gradient(QWidget):
    def __init__(self, stops: Sequence[tuple[float, tuple[float, float, float]]]) -> None:
        super().__init__()
        self._stops = stops
        self.setFixedHeight(12)

    def sizeHint(self) -> QSize:
        return QSize(80, 12)

    def paintEvent(self, event: Any) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        gradient = QLinearGradient(0, 0, self.width(), 0)
        for place, color in self._stops:
            gradient.setColorAt(place, QColor.fromRgbF(*color))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(gradient)
        painter.drawRoundedRect(self.rect(), 3, 3)
        painter.end()
