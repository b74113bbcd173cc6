"""What all dock widgets share: life cycle, look, task running."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, QSize, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QDockWidget,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_medgs._util.progress import ProgressEvent
from napari_medgs.plugin.anatomy.follower import follow_planes
from napari_medgs.plugin.layer_metadata import unwrap
from napari_medgs.plugin.report import show_failure
from napari_medgs.plugin.worker import Job, Runner

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
STAGES = {
    "initialize": "Preparing",
    "fit": "Fitting",
    "prune": "Removing Gaussians",
    "fit Gaussians": "Fitting Gaussians",
    "measure": "Measuring",
    "render": "Rendering",
    "train all": "Training",
    "fine-tune": "Fine-tuning",
    "done": "Finishing",
}


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
                    QTimer.singleShot(0, self._join_tabs)
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
        self.runner.shut_down()
        _disconnect(self._connections)

    def form(self) -> QFormLayout:
        """Return a new compact form at the end of the body."""
        form = compact_form()
        self.body.addLayout(form)
        return form


def _disconnect(connections: list[tuple[Any, Callable[..., Any]]]) -> None:
    while connections:
        emitter, callback = connections.pop()
        try:
            emitter.disconnect(callback)
        except (ValueError, RuntimeError, TypeError, KeyError):
            continue  # gone already, with its layer or viewer


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


class TaskPanel(QWidget):
    """A main button, Cancel, a progress bar and a line of status around a runner.

    Parameters
    ----------
    owner : MedGSWidget
    text, tip : str
        Of the main button.
    """

    busy_changed = Signal(bool)

    def __init__(self, owner: MedGSWidget, text: str, tip: str) -> None:
        super().__init__()
        self._owner_title = owner.title
        self._runner = owner.runner
        self.button = primary_button(text, tip)
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop now. A fit keeps its best state so far.")
        self.cancel.setEnabled(False)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setVisible(False)
        self.status = hint()
        self.status.setVisible(False)
        row = self.buttons = QHBoxLayout()
        row.setSpacing(6)
        row.addWidget(self.button, 1)
        row.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 2, 0, 0)
        layout.setSpacing(5)
        layout.addLayout(row)
        layout.addWidget(self.bar)
        layout.addWidget(self.status)
        self.cancel.clicked.connect(lambda *_: self.request_stop())
        self._what, self._began = "", 0.0
        self._clock = QTimer(self)
        self._clock.setInterval(1000)
        self._clock.timeout.connect(self._show_elapsed)

    def show_status_in(self, label: QLabel) -> None:
        """Show the line of status in another label, at its own place."""
        self.status.setParent(None)
        self.status = label

    def request_stop(self) -> None:
        """Ask the task to stop and say so."""
        self._runner.stop()
        self.cancel.setEnabled(False)
        self.status.setText("Stopping ...")

    def run(self, job: Job, returned: Callable[[Any], None], what: str) -> None:
        """Run a job; failures become notifications.

        Parameters
        ----------
        job : Job
        returned : callable
            Gets the result in the main thread; its own failures become notifications too.
        what : str
            The task in words, for messages.
        """

        def deliver(result: Any) -> None:
            try:
                returned(result)
            except Exception as error:
                show_failure(error, what)

        self._set_busy(True)
        self._what, self._began = what, time.monotonic()
        self._clock.start()
        self.status.setText(f"{what} ...")
        try:
            self._runner.start(
                job,
                returned=deliver,
                errored=lambda error: show_failure(error, what),
                cancelled=lambda: None,
                progressed=self.show_progress,
                finished=lambda: self._set_busy(False),
            )
        except Exception:
            self._set_busy(False)
            raise

    def _set_busy(self, busy: bool) -> None:
        self.button.setEnabled(not busy)
        self.cancel.setEnabled(busy)
        self.bar.setVisible(busy)
        self.bar.setRange(0, 0)
        self.status.setVisible(busy)
        self.busy_changed.emit(busy)

    def _show_elapsed(self) -> None:
        """Say how long a step without an end in sight has taken."""
        task = self._runner.task
        if task is None:
            self._clock.stop()
        elif not self.bar.maximum() and not task.stopping:
            elapsed = duration(time.monotonic() - self._began)
            self.status.setText(f"{self._what} · {elapsed}")

    def show_progress(self, event: ProgressEvent) -> None:
        """Show a report of the task in bar and status line."""
        self._what = describe(event)
        # A stage of one step has no progress to show.
        self.bar.setRange(0, event.total if event.total > 1 else 0)
        self.bar.setValue(event.done)
        if self._runner.task is not None and not self._runner.task.stopping:
            self.status.setText(describe(event))


def describe(event: ProgressEvent) -> str:
    """Return a progress event in words."""
    parts = [STAGES.get(event.stage, event.stage.capitalize())]
    if event.total > 1:
        parts[0] += f" {event.done}/{event.total}"
    if event.psnr is not None:
        parts.append(f"{event.psnr:.1f} dB")
    if event.gaussians is not None:
        parts.append(f"{event.gaussians:,} Gaussians")
    if event.dice is not None:
        parts.append(f"Dice {event.dice:.2f}")
    if event.remaining is not None and event.remaining >= 0:
        parts.append(f"{duration(event.remaining)} left")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
