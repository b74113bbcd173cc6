"""The curve of a training: its loss, and Dice where it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPainterPath, QPalette, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_medgs.plugin.learn.jobs import FIRST, CurvePoint

LOSS, DICE = QColor("#e0a030"), QColor("#2f9e8f")
GRID = QColor(128, 128, 128, 60)
HEIGHT, TEXT, EDGE = 120, 18, 4  # pixels


class TrainingCurve(QWidget):
    """Loss of the first network against its steps, and the folds' Dice as dots.

    Takes no room before there is something to show.
    """

    def __init__(self) -> None:
        super().__init__()
        self.points: list[CurvePoint] = []
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setVisible(False)
        self.setToolTip(
            "Yellow: loss of the network that learns from all cases, lower is better. Green: Dice "
            "of networks on cases that they have not seen, 0 at the bottom, 1 at the top."
        )

    def show_points(self, points: Sequence[CurvePoint]) -> None:
        """Show the reports so far."""
        self.points = list(points)
        self.setVisible(bool(self.points))
        self.setAccessibleDescription(self.words())
        self.update()

    def words(self) -> str:
        """Return the last numbers in words."""
        losses = [p.loss for p in self.points if p.loss is not None and p.stage == FIRST]
        scores = [p.dice for p in self.points if p.dice is not None]
        parts = [f"loss {losses[-1]:.2f}"] if losses else []
        if scores:
            parts.append(f"Dice {scores[-1]:.2f}")
        return ", ".join(parts)

    def sizeHint(self) -> QSize:
        """Ask for a low picture."""
        return QSize(240, HEIGHT)

    def minimumSizeHint(self) -> QSize:
        """As high as :meth:`sizeHint`."""
        return QSize(120, HEIGHT)

    def paintEvent(self, event: Any) -> None:
        """Draw grid, curve, dots and the last numbers."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(EDGE, TEXT, self.width() - 2 * EDGE, self.height() - TEXT - EDGE)
        painter.setPen(QPen(GRID, 1))
        for k in range(5):
            y = area.top() + area.height() * k / 4
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
        losses = [(p.done, p.loss) for p in self.points if p.loss is not None and p.stage == FIRST]
        highest = max((loss for _, loss in losses), default=1.0)
        path = QPainterPath()
        for k, (done, loss) in enumerate(losses):
            where = _place(area, done, loss / max(highest, 1e-6))
            path.moveTo(where) if k == 0 else path.lineTo(where)
        painter.setPen(QPen(LOSS, 2))
        painter.drawPath(path)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(DICE)
        for point in self.points:
            if point.dice is not None:
                painter.drawEllipse(_place(area, point.done, point.dice), 3, 3)
        painter.setPen(self.palette().color(QPalette.ColorRole.WindowText))
        line = QRectF(EDGE, 0, self.width() - 2 * EDGE, TEXT)
        painter.drawText(line, Qt.AlignmentFlag.AlignLeft, self.words())
        painter.end()


def _place(area: QRectF, across: float, up: float) -> QPointF:
    return QPointF(
        area.left() + area.width() * min(1.0, across),
        area.bottom() - area.height() * min(1.0, max(0.0, up)),
    )
