"""The map of the parts: a Poincare disc that can be clicked and dragged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPointF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPainterPath, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_medgs._typing import Doubles

if TYPE_CHECKING:
    from napari_medgs.hierarchy import PartEmbedding

SIDE, MARGIN = 260, 8
REACH = 9.0  # pixels around a point in which a click means it
MOVED = 4.0  # pixels from which on a press is a drag
FURTHEST = 0.98  # of the radius, that the hand holds on to

NO_PARTS = "Find parts to see their map."


class PartDisc(QWidget):
    """Parts as points of the hyperbolic plane, joined to the nodes above them.

    A click chooses a part, dragging moves the plane, a double click brings a point to the middle.
    """

    picked = Signal(int)  # label

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumHeight(180)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMouseTracking(True)
        self.embedding: PartEmbedding | None = None
        self.words = NO_PARTS
        self.points: Doubles = np.zeros((0, 2))
        self._labels: dict[int, int] = {}  # by index of a point
        self._colors: dict[int, QColor] = {}
        self._texts: dict[int, str] = {}
        self.chosen = 0
        self._pressed: QPointF | None = None
        self._last: QPointF | None = None

    def sizeHint(self) -> QSize:
        """Return a square."""
        return QSize(SIDE, SIDE)

    def say(self, words: str) -> None:
        """Say something where there is no map."""
        self.words = words
        self.update()

    def show_parts(
        self,
        embedding: PartEmbedding | None,
        labels: Mapping[int, int],
        colors: Mapping[int, Any],
        texts: Mapping[int, str],
    ) -> None:
        """Show an embedding.

        Parameters
        ----------
        embedding : PartEmbedding or None
        labels : mapping of int to int
            Label of the parts, by node.
        colors : mapping of int to (r, g, b)
            From 0 to 1, by label.
        texts : mapping of int to str
            What to say about a label.
        """
        moved = embedding is not self.embedding
        self.embedding = embedding
        self._labels = {}
        if embedding is not None:
            if moved:
                self.points = embedding.centered(embedding.points[embedding.middle])
            for k, node in enumerate(embedding.nodes.tolist()):
                if node in labels:
                    self._labels[k] = labels[node]
        self._colors = {k: QColor.fromRgbF(*map(float, c[:3])) for k, c in colors.items()}
        self._texts = dict(texts)
        self.update()

    def choose(self, label: int) -> None:
        """Mark the point of a label."""
        self.chosen = label
        self.update()

    # Geometry

    def _frame(self) -> tuple[QPointF, float]:
        radius = max(min(self.width(), self.height()) / 2 - MARGIN, 10)
        return QPointF(self.width() / 2, self.height() / 2), radius

    def place_of(self, point: Any) -> QPointF:
        """Return where a point of the disc is drawn."""
        middle, radius = self._frame()
        return QPointF(middle.x() + radius * point[0], middle.y() - radius * point[1])

    def _point_at(self, place: QPointF) -> Doubles:
        middle, radius = self._frame()
        point = np.array([place.x() - middle.x(), middle.y() - place.y()]) / radius
        length = float(np.linalg.norm(point))
        return point if length < FURTHEST else point * (FURTHEST / length)

    def _nearest(self, place: QPointF) -> int | None:
        best, found = REACH, None
        for k in self._labels:
            at = self.place_of(self.points[k])
            away = float(np.hypot(at.x() - place.x(), at.y() - place.y()))
            if away < best:
                best, found = away, k
        return found

    # Mouse

    def mousePressEvent(self, event: Any) -> None:
        """Take hold of the plane."""
        self._pressed = self._last = event.position()

    def mouseMoveEvent(self, event: Any) -> None:
        """Drag the plane, or say what is under the mouse."""
        place = event.position()
        if self._last is None or self.embedding is None:
            near = self._nearest(place)
            text = "" if near is None else self._texts.get(self._labels[near], "")
            self.setToolTip(text)
            return
        away = place - (self._pressed or place)
        if np.hypot(away.x(), away.y()) < MOVED and self._last is self._pressed:
            return
        from napari_medgs.hierarchy.hyperbolic import drag

        self.points = drag(self.points, self._point_at(self._last), self._point_at(place))
        self._last = place
        self.update()

    def mouseReleaseEvent(self, event: Any) -> None:
        """Choose the part under the mouse, where it was no drag."""
        clicked = self._last is not None and self._last is self._pressed
        self._pressed = self._last = None
        near = self._nearest(event.position()) if clicked else None
        if near is not None:
            self.choose(self._labels[near])
            self.picked.emit(self.chosen)

    def mouseDoubleClickEvent(self, event: Any) -> None:
        """Bring a point to the middle."""
        near = self._nearest(event.position())
        if near is not None:
            from napari_medgs.hierarchy.hyperbolic import translate

            self.points = translate(self.points, self.points[near])
            self.update()

    # Painting

    def paintEvent(self, event: Any) -> None:
        """Draw the disc, the lines and the points."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        middle, radius = self._frame()
        text = self.palette().windowText().color()
        faint = QColor(text)
        faint.setAlpha(26)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(faint)
        painter.drawEllipse(middle, radius, radius)
        if self.embedding is None:
            painter.setPen(text)
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, self.words)
            return
        from napari_medgs.hierarchy.hyperbolic import geodesics

        known = self.embedding.parent >= 0
        lines = geodesics(self.points[known], self.points[self.embedding.parent[known]])
        line = QColor(text)
        line.setAlpha(90)
        painter.setPen(QPen(line, 1))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for points in lines:
            path = QPainterPath(self.place_of(points[0]))
            for point in points[1:]:
                path.lineTo(self.place_of(point))
            painter.drawPath(path)
        for k, label in self._labels.items():
            at = self.place_of(self.points[k])
            # As in the hyperbolic plane, what is far from the middle looks small.
            size = 2.5 + 5 * (1 - float(self.points[k] @ self.points[k]))
            if label == self.chosen:
                painter.setPen(QPen(text, 2))
                painter.setBrush(Qt.BrushStyle.NoBrush)
                painter.drawEllipse(at, size + 4, size + 4)
            painter.setPen(QPen(QColor(0, 0, 0, 120), 0.5))
            painter.setBrush(self._colors.get(label, text))
            painter.drawEllipse(at, size, size)
