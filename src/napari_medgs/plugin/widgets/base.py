"""What all dock widgets share: life cycle, size, style."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import (
    QApplication,
    QDockWidget,
    QFormLayout,
    QMainWindow,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_medgs.plugin.anatomy.follower import follow_planes
from napari_medgs.plugin.deferred import call_later
from napari_medgs.plugin.layer_metadata import unwrap
from napari_medgs.plugin.widgets.elements import compact_form
from napari_medgs.plugin.worker import Runner

STYLE = """
QPushButton#medgs-primary {
    background-color: #2873c4; color: white; font-weight: 600;
    border-radius: 4px; padding: 5px 10px;
}
QPushButton#medgs-primary:hover { background-color: #2f78c9; }
QPushButton#medgs-primary:pressed { background-color: #2164ad; }
QPushButton#medgs-primary:disabled { background-color: rgba(128, 128, 128, 60);
    color: rgba(160, 160, 160, 160); }
QPushButton { padding: 5px 10px; }
QPushButton[medgs="icon"] { padding: 4px 5px; }
QPushButton[medgs="icon"]:checked:enabled { background-color: #2873c4; }
QPushButton[medgs="compact"] { padding: 5px 3px; }
QSpinBox, QDoubleSpinBox { min-width: 40px; }
QListWidget { padding: 2px; border-radius: 3px; }
QListWidget::item { padding: 3px 2px; }
QProgressBar { border: none; border-radius: 3px; background: rgba(128, 128, 128, 50);
    height: 6px; max-height: 6px; }
QProgressBar::chunk { border-radius: 3px; background-color: #2f9e8f; }
QLabel#medgs-result { background: rgba(47, 158, 143, 36); border-radius: 5px; padding: 8px; }
"""
NARROWEST = 300  # pixels: every widget can be used at this width
LOWEST = 120
SCROLL_BAR = 14
ANSWER_MS = 100  # between looks at whether the user has answered


class MedGSWidget(QWidget):
    """A dock widget with a viewer and a runner for one task at a time.

    When its dock or the viewer is closed, the task is stopped and joined and all listening to
    the viewer ends.

    Parameters
    ----------
    viewer : napari.Viewer
        Given by napari, perhaps as a proxy.
    """

    title = "MedGS"

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = unwrap(viewer)
        follow_planes(self.viewer)
        self.runner = Runner(self)
        self._connections: list[tuple[Any, Callable[..., Any]]] = []
        self._docked = False
        self.setStyleSheet(STYLE)
        # Scrolls where a crowded dock is lower than the content, instead of squeezing it.
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        content = QWidget()
        self.body = QVBoxLayout(content)
        self.body.setContentsMargins(8, 6, 8, 6)
        self.body.setSpacing(6)
        scroll.setWidget(content)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)
        self._content = content
        self._closing = _Closing(self)
        connections = self._connections
        self.destroyed.connect(lambda *_: _disconnect(connections))

    def sizeHint(self) -> QSize:
        """Ask for the content's size: a scroll area alone asks for next to nothing."""
        wanted = self._content.sizeHint()
        return QSize(max(wanted.width(), NARROWEST), wanted.height())

    def minimumSizeHint(self) -> QSize:
        """Never narrower than the content with a scroll bar; low, because the content scrolls."""
        least = self._content.minimumSizeHint()
        # napari asks before its style, which makes the content narrower, is there.
        width = min(least.width() + SCROLL_BAR, NARROWEST)
        return QSize(max(width, 240), min(least.height(), LOWEST))

    def listen(self, emitter: Any, callback: Callable[..., Any]) -> None:
        """Connect to an event of the viewer until this widget is closed."""
        emitter.connect(callback)
        self._connections.append((emitter, callback))

    def event(self, event: Any) -> bool:
        """Notice being taken out of the dock: napari does not close its widgets."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                if not self._docked:
                    call_later(self, self._join_tabs)
                self._docked = True
            elif self._docked:
                self.shut_down()
        return bool(super().event(event))

    def _join_tabs(self) -> None:
        """Share the place of another dock of this plugin: stacked ones need a high screen."""
        try:
            dock = self._dock()
            window = None if dock is None else dock.parent()
        except RuntimeError:
            return  # closed meanwhile
        if dock is None or dock.isFloating() or not isinstance(window, QMainWindow):
            return
        for other in window.findChildren(QDockWidget):
            mine = other is not dock and other.findChild(MedGSWidget) is not None
            if mine and not other.isFloating() and not other.isHidden():
                window.tabifyDockWidget(other, dock)
                dock.show()
                dock.raise_()
                return

    def _dock(self) -> QDockWidget | None:
        parent = self.parent()
        while parent is not None and not isinstance(parent, QDockWidget):
            parent = parent.parent()
        return parent

    def closeEvent(self, event: Any) -> None:
        """Stop what is running when closed as a window."""
        self.shut_down()
        super().closeEvent(event)

    def shut_down(self) -> None:
        """Stop and join the running task, and stop listening."""
        self._closing.stop()
        self.runner.shut_down()
        _disconnect(self._connections)

    def form(self) -> QFormLayout:
        """Return a new compact form at the end of the body."""
        form = compact_form()
        self.body.addLayout(form)
        return form


class _Closing(QObject):
    """Shuts a widget down with the viewer's window, which closes without telling its docks.

    Where the user closes it, napari may ask and leave it open: then it is not hidden.

    Parameters
    ----------
    widget : MedGSWidget
    """

    def __init__(self, widget: MedGSWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        self._asked = False
        window = getattr(widget.viewer, "window", None)  # a model of a viewer has none
        self._window = getattr(window, "_qt_window", None)
        if self._window is not None:
            self._window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Notice that the window closes; let everybody else see the event, too."""
        kind = event.type()
        if kind == QEvent.Type.Close:
            self._asked = True
            if not event.spontaneous():  # closed by the program: nobody is asked
                self._widget.shut_down()
            else:
                call_later(self, self._answered)
        elif kind == QEvent.Type.Hide and self._asked and not event.spontaneous():
            self._widget.shut_down()
        return False

    def _answered(self) -> None:
        """Take a window that is still there, with no question left, for one that stays."""
        if QApplication.activeModalWidget() is None:
            self._asked = False
        else:
            call_later(self, self._answered, ANSWER_MS)

    def stop(self) -> None:
        """Stop watching the window."""
        if self._window is not None:
            self._window.removeEventFilter(self)
            self._window = None


def _disconnect(connections: list[tuple[Any, Callable[..., Any]]]) -> None:
    while connections:
        emitter, callback = connections.pop()
        try:
            emitter.disconnect(callback)
        except (ValueError, RuntimeError, TypeError, KeyError):
            continue  # gone already, with its layer or viewer
