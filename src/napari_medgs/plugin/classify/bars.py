"""Bars of probabilities, one a class."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QFontMetrics, QPainter, QPalette
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_medgs.plugin.classify.jobs import class_title, percent

BEST, OTHER = QColor("#2f9e8f"), QColor("#64798f")
TRACK = QColor(128, 128, 128, 48)
ROW, BAR, GAP = 36, 8, 4  # height of a class, of its bar, between text and bar, pixels


class ProbabilityBars(QWidget):
    """A bar for every class, with its name above and its share in per cent.

    Shows nothing and takes no room before :meth:`show_probabilities`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shares: dict[str, float] = {}
        self._sorted = True
        self._reliable = True
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_probabilities(self, shares: dict[str, float], *, reliable: bool = True) -> None:
        """Show probabilities from 0 to 1 by class name, in the order of the classes.

        Parameters
        ----------
        shares : dict of str to float
        reliable : bool
            Let the most probable class stand out in color.
        """
        self._shares, self._reliable = dict(shares), reliable
        self._changed()

    def sort(self, wanted: bool) -> None:
        """Show the most probable class first, or the classes in their own order."""
        self._sorted = wanted
        self._changed()

    def rows(self) -> list[tuple[str, str, float]]:
        """Return (name, per cent in words, share) from top to bottom."""
        items = list(self._shares.items())
        if self._sorted:
            items.sort(key=lambda item: -item[1])
        return [(class_title(name), percent(share), share) for name, share in items]

    def _changed(self) -> None:
        text = "\n".join(f"{name}: {share}" for name, share, _ in self.rows())
        self.setToolTip(text)
        self.setAccessibleName("Probabilities")
        self.setAccessibleDescription(text)
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        """Ask for a row a class."""
        return QSize(220, ROW * len(self._shares))

    def minimumSizeHint(self) -> QSize:
        """As high as :meth:`sizeHint`."""
        return QSize(120, ROW * len(self._shares))

    def paintEvent(self, event: Any) -> None:
        """Draw the rows."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        best = max(self._shares.values(), default=0.0)
        for k, (name, said, share) in enumerate(self.rows()):
            self._row(painter, k * ROW, (name, said), share, share == best)
        painter.end()

    def _row(
        self, painter: QPainter, top: int, texts: tuple[str, str], share: float, best: bool
    ) -> None:
        font = self.font()
        font.setBold(best)
        painter.setFont(font)
        painter.setPen(self.palette().color(QPalette.ColorRole.WindowText))
        metrics = QFontMetrics(font)
        width, height = self.width(), ROW - BAR - 2 * GAP
        name, said = texts
        room = width - metrics.horizontalAdvance(said) - 10
        shown = metrics.elidedText(name, Qt.TextElideMode.ElideRight, room)
        line = QRectF(0, top + 1, width, height)
        painter.drawText(line, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, shown)
        painter.drawText(line, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, said)
        track = QRectF(0, top + height + GAP, width, BAR)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(TRACK)
        painter.drawRoundedRect(track, BAR / 2, BAR / 2)
        filled = QRectF(track)
        # Never narrower than it is high, or it would be no round bar but a sliver.
        filled.setWidth(max(share * width, BAR))
        painter.setBrush(BEST if best and self._reliable else OTHER)
        painter.drawRoundedRect(filled, BAR / 2, BAR / 2)
