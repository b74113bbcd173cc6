"""The table of classes: color, name, volume, lock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
)

from napari_medgs.plugin.segment.layers import BACKGROUND_COLOR, Color, default_color
from napari_medgs.plugin.widgets.icons import LOCKED, glyph

Code = tuple[str, str, str]
Codes = tuple[Code | None, Code | None]
COLOR, NAME, VOLUME, LOCK, EYE = range(5)
ROWS_SHOWN = (3, 8)
VALUE_ROLE = Qt.ItemDataRole.UserRole
LOCK_ROLE = Qt.ItemDataRole.UserRole + 1


class ClassTable(QTableWidget):
    """One row per class, background first where there is a value for it.

    The selected row is the class being painted.
    """

    selected = Signal(int)
    renamed = Signal(int, str)
    recolored = Signal(int)
    lock_requested = Signal(int, bool)
    hidden_changed = Signal()

    def __init__(self) -> None:
        super().__init__(0, 5)
        self.setHorizontalHeaderLabels(["", "Class", "Volume", "", ""])
        self.verticalHeader().setVisible(False)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for column, width in ((COLOR, 28), (VOLUME, 68), (LOCK, 28), (EYE, 28)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            self.setColumnWidth(column, width)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setShowGrid(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.names: dict[int, str] = {}
        self.colors: dict[int, Color] = {}
        self.codes: dict[int, Codes] = {}
        self.hidden: set[int] = set()
        self.background: int | None = None
        self._values: list[int] = []
        self._volumes: Mapping[int, float] = {}
        self._locked: frozenset[int] = frozenset()
        self._filling = False
        self.itemSelectionChanged.connect(self._on_select)
        self.itemChanged.connect(self._on_change)
        self.cellDoubleClicked.connect(self._on_double_click)
        self.cellClicked.connect(self._on_click)
        self._fit_height()

    # What is in it

    @property
    def values(self) -> list[int]:
        """The classes' values in the order of the rows, background included."""
        return list(self._values)

    @property
    def classes(self) -> list[int]:
        """The classes' values without the background."""
        return [v for v in self._values if v != self.background]

    def fill(
        self,
        values: Iterable[int],
        background: int | None,
        names: Mapping[int, str] | None = None,
    ) -> None:
        """Show these classes; what is known of them is kept, the selection too."""
        chosen = self.value
        self.background = background
        self.names.update(names or {})
        classes = sorted({int(v) for v in values} - {background})
        self._values = ([] if background is None else [background]) + classes
        self._filling = True
        self.setRowCount(len(self._values))
        for row, value in enumerate(self._values):
            self._fill_row(row, value)
        self._filling = False
        self.show_volumes(self._volumes)
        self.show_locks(self._locked)
        self._fit_height()
        if chosen in self._values:
            self.choose(chosen)
        elif classes:
            self.choose(classes[0])

    def _fill_row(self, row: int, value: int) -> None:
        plain = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        color = QTableWidgetItem()
        color.setIcon(_dot(self.color(value)))
        color.setFlags(plain)
        color.setData(VALUE_ROLE, value)
        color.setToolTip(f"Value {value}. Double-click to choose another color.")
        name = QTableWidgetItem(self.name(value))
        is_background = value == self.background
        name.setFlags(plain if is_background else plain | Qt.ItemFlag.ItemIsEditable)
        name.setToolTip(
            "Click to paint background: places that belong to no class."
            if is_background
            else "Click to paint this class, double-click to rename it."
        )
        volume = QTableWidgetItem("")
        volume.setFlags(plain)
        volume.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        lock = QTableWidgetItem()
        lock.setFlags(plain)
        if not is_background:
            lock.setToolTip(
                "Click to lock the class, which then stays exactly as it is now, or to unlock it."
            )
        eye = QTableWidgetItem()
        eye.setFlags(plain)
        if not is_background:
            eye.setToolTip("Click to hide the class on the image, or to show it.")
        items = ((COLOR, color), (NAME, name), (VOLUME, volume), (LOCK, lock), (EYE, eye))
        for column, item in items:
            self.setItem(row, column, item)

    def name(self, value: int) -> str:
        """Return the name of a class."""
        if value == self.background:
            return "background"
        return self.names.get(value) or f"class {value}"

    def color(self, value: int) -> Color:
        """Return the color of a class."""
        if value == self.background:
            return BACKGROUND_COLOR
        return self.colors.get(value, default_color(value))

    def show_volumes(self, volumes_ml: Mapping[int, float]) -> None:
        """Show the volumes of the classes, in milliliters or a unit that suits small ones."""
        self._volumes = dict(volumes_ml)
        self._filling = True
        factor, unit = volume_unit(volumes_ml.values())
        self.horizontalHeaderItem(VOLUME).setText(unit)
        for row, value in enumerate(self._values):
            volume = volumes_ml.get(value)
            text = (
                ""
                if volume is None or value == self.background
                else _format_volume(volume * factor)
            )
            self.item(row, VOLUME).setText(text)
        self._filling = False

    def reset(self) -> None:
        """Forget the names, as another patient's image is segmented."""
        self.names.clear()
        self.codes.clear()
        self.hidden.clear()
        self._volumes, self._locked = {}, frozenset()
        self.fill([1, 2], self.background)

    def show_locks(self, locked: Iterable[int]) -> None:
        """Show which classes are locked."""
        kept = self._locked = frozenset(locked)
        self._filling = True
        for row, value in enumerate(self._values):
            if value != self.background:
                item, closed = self.item(row, LOCK), value in kept
                item.setData(LOCK_ROLE, closed)
                item.setIcon(lock_icon(closed, self.palette().text().color()))
                item.setData(Qt.ItemDataRole.AccessibleTextRole, "locked" if closed else "open")
                self._show_eye(row, value)
        self._filling = False

    def _show_eye(self, row: int, value: int) -> None:
        hidden, item = value in self.hidden, self.item(row, EYE)
        item.setIcon(glyph("eye_off" if hidden else "eye_outline", self.palette().text().color()))
        item.setData(Qt.ItemDataRole.AccessibleTextRole, "hidden" if hidden else "shown")

    def toggle_hidden(self, value: int) -> None:
        """Hide a class on the image, or show it again."""
        self.hidden ^= {value}
        self._filling = True
        self._show_eye(self._values.index(value), value)
        self._filling = False
        self.hidden_changed.emit()

    def is_locked(self, value: int) -> bool:
        """Tell whether a class is shown as locked."""
        return bool(self.item(self._values.index(value), LOCK).data(LOCK_ROLE))

    # The selection

    @property
    def value(self) -> int | None:
        """The selected class."""
        row = self.currentRow()
        return self._values[row] if 0 <= row < len(self._values) else None

    def choose(self, value: int) -> None:
        """Select a class."""
        if value in self._values:
            row = self._values.index(value)
            if row != self.currentRow() or not self.selectedItems():
                self.setCurrentCell(row, NAME)
                self.selectRow(row)

    def step(self, by: int) -> None:
        """Select the next or the previous class."""
        if self._values:
            self.choose(self._values[(self.currentRow() + by) % len(self._values)])

    def _on_select(self) -> None:
        if not self._filling and self.value is not None:
            self.selected.emit(self.value)

    def _on_change(self, item: Any) -> None:
        if self._filling or item.column() != NAME:
            return
        value = self._values[item.row()]
        text = item.text().strip()
        if text:
            self.names[value] = text
            self.renamed.emit(value, text)
        else:
            item.setText(self.name(value))

    def _on_click(self, row: int, column: int) -> None:
        value = self._values[row]
        if column == LOCK and value != self.background:
            self.lock_requested.emit(value, not self.is_locked(value))
        elif column == EYE and value != self.background:
            self.toggle_hidden(value)

    def _on_double_click(self, row: int, column: int) -> None:
        value = self._values[row]
        if column != COLOR or value == self.background:
            return
        before = QColor.fromRgbF(*self.color(value)[:3])
        chosen = QColorDialog.getColor(before, self, f"Color of {self.name(value)}")
        if chosen.isValid():
            self.set_color(value, (chosen.redF(), chosen.greenF(), chosen.blueF(), 1.0))

    def set_color(self, value: int, color: Color) -> None:
        """Give a class a color."""
        self.colors[value] = color
        self._filling = True
        self.item(self._values.index(value), COLOR).setIcon(_dot(color))
        self._filling = False
        self.recolored.emit(value)

    def showEvent(self, event: Any) -> None:
        """Fit the height again: the viewer's style has its say only now."""
        super().showEvent(event)
        self.show_locks(self._locked)  # in the color of the theme's text
        self._fit_height()

    def changeEvent(self, event: Any) -> None:
        """Draw the icons in the text color of another theme."""
        super().changeEvent(event)
        kinds = (QEvent.Type.StyleChange, QEvent.Type.PaletteChange)
        if event.type() in kinds and self.isVisible() and not self._filling:
            self.show_locks(self._locked)

    def _fit_height(self) -> None:
        rows = min(max(self.rowCount(), ROWS_SHOWN[0]), ROWS_SHOWN[1])
        heights = [self.rowHeight(k) for k in range(self.rowCount())]
        height = max(heights, default=self.verticalHeader().defaultSectionSize())
        header = self.horizontalHeader().sizeHint().height()
        self.setFixedHeight(rows * height + header + 2 * self.frameWidth() + 4)
        policy = Qt.ScrollBarPolicy
        many = self.rowCount() > ROWS_SHOWN[1]
        self.setVerticalScrollBarPolicy(
            policy.ScrollBarAsNeeded if many else policy.ScrollBarAlwaysOff
        )


def volume_unit(volumes_ml: Iterable[float]) -> tuple[float, str]:
    """Return the factor from milliliters to a unit in which the largest volume is readable.

    Parameters
    ----------
    volumes_ml : iterable of float

    Returns
    -------
    factor : float
    unit : str

    Examples
    --------
    >>> volume_unit([12.5, 0.2])
    (1.0, 'mL')
    >>> volume_unit([3.4e-10])
    (1000000000000.0, 'µm³')
    """
    largest = max(volumes_ml, default=1.0)
    if 0 < largest < 1e-5:
        return 1e12, "µm³"
    return (1e3, "mm³") if 0 < largest < 0.1 else (1.0, "mL")


def volume_text(milliliters: float) -> str:
    """Return a volume with its unit.

    Examples
    --------
    >>> volume_text(12.5), volume_text(0.02)
    ('12.5 mL', '20 mm³')
    """
    factor, unit = volume_unit([milliliters])
    return f"{_format_volume(milliliters * factor)} {unit}"


def _format_volume(volume: float) -> str:
    return f"{volume:,.0f}" if volume >= 1000 else f"{volume:.3g}"


def _icon(picture: QPixmap) -> QIcon:
    """Return an icon whose colors stay as they are in a selected row."""
    icon = QIcon(picture)
    icon.addPixmap(picture, QIcon.Mode.Selected)
    return icon


def _dot(color: Color) -> QIcon:
    """Return a colored disc."""
    picture, painter = _canvas()
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor.fromRgbF(*color))
    painter.drawEllipse(3, 3, 26, 26)
    painter.end()
    return _icon(picture)


def lock_icon(locked: bool, color: QColor) -> QIcon:
    """Return a padlock: closed and amber, or open in the color of the text."""
    return glyph("lock", LOCKED) if locked else glyph("lock_open_variant_outline", color)


def _canvas() -> tuple[QPixmap, QPainter]:
    picture = QPixmap(32, 32)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    return picture, painter
