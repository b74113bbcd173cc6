"""The main button of a widget, with Cancel, a progress bar and a line of status."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medgs._util.progress import ProgressEvent
from napari_medgs.errors import ParameterError
from napari_medgs.plugin.report import show_failure
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.elements import hint, primary_button
from napari_medgs.plugin.worker import Job

STAGES = {
    "initialize": "Preparing",
    "fit": "Fitting",
    "prune": "Removing Gaussians",
    "fit Gaussians": "Fitting Gaussians",
    "measure": "Measuring",
    "render": "Rendering",
    "image features": "Preparing",
    "score renderer": "Preparing",
    "graph": "Preparing",
    "motion between slices": "Preparing",
    "buffers": "Preparing",
    "train all": "Training",
    "fine-tune": "Fine-tuning",
    "done": "Finishing",
}


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
        self._task = self._what = "A task"
        self._began = 0.0
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

    def run(
        self,
        job: Job,
        returned: Callable[[Any], None],
        what: str,
        canceled: Callable[[], None] = lambda: None,
    ) -> None:
        """Run a job; failures become notifications.

        What runs already goes on, and can still be canceled.

        Parameters
        ----------
        job : Job
        returned : callable
            Gets the result in the main thread; its own failures become notifications too.
        what : str
            The task in words, for messages.
        canceled : callable
            Called in place of ``returned`` where a stopped job has no result.

        Raises
        ------
        ParameterError
            When the widget's last task is still running.
        """
        if self._runner.busy:
            raise ParameterError(
                f"{self._task} is still running: wait until it is done, or press Cancel."
            )

        def deliver(result: Any) -> None:
            try:
                returned(result)
            except Exception as error:
                show_failure(error, what)

        self._set_busy(True)
        self._task = self._what = what
        self._began = time.monotonic()
        self._clock.start()
        self.status.setText(f"{what} ...")
        try:
            self._runner.start(
                job,
                returned=deliver,
                errored=lambda error: show_failure(error, what),
                cancelled=canceled,
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
