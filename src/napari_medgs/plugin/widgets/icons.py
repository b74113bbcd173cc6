"""Icons of the Material Design set, in the color of the theme's text.

The set is free (Apache 2.0) and comes as a font, so that icons are sharp at every scale.
"""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QSize
from qtpy.QtGui import QColor, QIcon
from qtpy.QtWidgets import QPushButton, QWidget

SIZE = 18
LOCKED = "#d9942b"
WHITE = "#ffffff"


def glyph(name: str, color: QColor | str, size: int = SIZE) -> QIcon:
    """Return an icon whose color stays in disabled controls and selected rows.

    Parameters
    ----------
    name : str
        Of the set, such as "eye_off".
    color : QColor or str
    size : int
        Pixels; drawn with twice as many for dense screens.
    """
    from fonticon_mdi6 import MDI6
    from superqt.fonticon import icon

    # As a text: superqt hashes colors, and those of PySide6 have no hash.
    shade = QColor(color).name(QColor.NameFormat.HexArgb)
    drawn = icon(getattr(MDI6, name), color=shade)
    kept = QIcon()
    for scale in (1, 2):
        picture = drawn.pixmap(QSize(size * scale, size * scale))
        picture.setDevicePixelRatio(scale)
        for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):
            kept.addPixmap(picture, mode)
    return kept


class IconButton(QPushButton):
    """A button with an icon that follows theme and state, with or without a text.

    Parameters
    ----------
    name : str
        Icon's name.
    tip : str
        Tooltip; its first sentence is the accessible name of a button without a text.
    text : str, optional
    checkable : bool
    """

    def __init__(self, name: str, tip: str, text: str = "", *, checkable: bool = False) -> None:
        super().__init__(text)
        self._name, self._shown_as = name, ("", "")
        self.setToolTip(tip)
        self.setAccessibleName(text or tip.partition(".")[0])
        self.setCheckable(checkable)
        self.setIconSize(QSize(SIZE, SIZE))
        if not text:
            self.setProperty("medgs", "icon")

    def set_glyph(self, name: str) -> None:
        """Show another icon."""
        self._name = name
        self._draw()

    def showEvent(self, event: Any) -> None:
        """Draw in the color that the viewer's style gives to texts."""
        super().showEvent(event)
        self._draw()

    def changeEvent(self, event: Any) -> None:
        """Draw again when the theme or the state has changed."""
        super().changeEvent(event)
        kinds = (
            QEvent.Type.StyleChange,
            QEvent.Type.PaletteChange,
            QEvent.Type.EnabledChange,
        )
        if event.type() in kinds:
            self._draw()

    def _draw(self) -> None:
        if not self.isVisible():
            return  # without the viewer's style there is no color yet
        color = QColor(WHITE) if self.objectName() == "medgs-primary" else text_color(self)
        if not self.isEnabled():
            color.setAlphaF(0.4)
        wanted = (self._name, color.name(QColor.NameFormat.HexArgb))
        if wanted != self._shown_as:
            self._shown_as = wanted
            self.setIcon(glyph(self._name, color))


def text_color(widget: QWidget) -> QColor:
    """Return the color of a widget's text."""
    widget.ensurePolished()
    return QColor(widget.palette().text().color())
