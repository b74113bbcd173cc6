"""What each contrast contributes to each class, as small bars below the mask's checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QGridLayout, QLabel, QProgressBar, QVBoxLayout, QWidget

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.errors import ParameterError
from napari_medgs.plugin.report import guarded, show_failure
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.widgets.controls import button, compact
from napari_medgs.plugin.widgets.elements import hint
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume
    from napari_medgs.segmentation import Prompts, SegmentParams
    from napari_medgs.segmentation.explain import ContrastExplanation

CHANGED = "The mask has changed since: press Contrasts for new bars."
FULL = 100  # length of a bar for a Shapley value of one
BAR_HEIGHT = 12


@dataclass(frozen=True)
class ExplainContrasts:
    """Compute the contributions of the contrasts to the mask of prompts.

    Attributes
    ----------
    volume : Volume
    prompts : Prompts
        Not changed meanwhile.
    field : GaussianField
    params : SegmentParams
    """

    volume: Volume
    prompts: Prompts
    field: GaussianField
    params: SegmentParams

    def __call__(
        self, progress: ProgressCallback, should_stop: StopCallback
    ) -> ContrastExplanation:
        """Return the contributions."""
        from napari_medgs.segmentation import explain_contrasts

        return explain_contrasts(
            self.volume,
            self.prompts,
            self.field,
            self.params,
            progress=progress,
            should_stop=should_stop,
        )


class ContrastBars(QWidget):
    """A bar for every contrast, class by class.

    Attributes
    ----------
    bars : dict of (int, str) to QProgressBar
        By class and contrast.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bars: dict[tuple[int, str], QProgressBar] = {}
        self.note = hint()
        self._grid = QGridLayout()
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self._grid)
        layout.addWidget(self.note)
        self.clear()

    def clear(self, note: str = "") -> None:
        """Show no bars, and a line of text."""
        while self._grid.count():
            item = self._grid.takeAt(0)
            shown = item.widget() if item is not None else None
            if shown is not None:
                shown.deleteLater()
        self.bars = {}
        self.show_note(note)

    def show_note(self, note: str) -> None:
        """Show a line of text below the bars."""
        self.note.setText(note)
        self.note.setVisible(bool(note))
        self.setVisible(bool(note or self.bars))

    def show_bars(self, found: ContrastExplanation, names: Mapping[int, str], note: str) -> None:
        """Show the contributions; classes whose name is not known by their value."""
        self.clear()
        line = 0
        for k, value in enumerate(found.classes):
            self._grid.addWidget(QLabel(names.get(value, str(value))), line, 0, 1, 3)
            for c, contrast in enumerate(found.contrasts):
                line += 1
                share = float(found.shapley[c, k])
                bar = QProgressBar()
                bar.setRange(0, FULL)
                bar.setValue(round(FULL * min(max(share, 0.0), 1.0)))
                bar.setTextVisible(False)
                bar.setFixedHeight(BAR_HEIGHT)
                tip = (
                    f"Shapley value {share:.2f}: this part of the class's agreement with the "
                    f"mask from all contrasts is due to it. Alone it reaches a Dice of "
                    f"{float(found.alone[c, k]):.2f}."
                )
                if found.weights is not None:
                    weight = float(found.weights[c, k])
                    tip += f" Learned from the strokes, it counts {weight:.2f} times (mean 1)."
                bar.setToolTip(tip)
                self._grid.addWidget(hint(contrast), line, 0)
                self._grid.addWidget(bar, line, 1)
                self._grid.addWidget(QLabel(f"{share:.2f}"), line, 2)
                self.bars[value, contrast] = bar
            line += 1
        self.show_note(note)


class Contributions:
    """Explains the session's mask when its button is pressed.

    Parameters
    ----------
    owner : QWidget
        Whose life the thread shares.
    controller : SegmentController
    context : SegmentContext
    names : callable
        Returns the names of the classes by value.

    Attributes
    ----------
    button : QPushButton
        Checked while bars are shown.
    panel : ContrastBars
    """

    title = "The contributions of the contrasts"

    def __init__(
        self,
        owner: Any,
        controller: SegmentController,
        context: SegmentContext,
        names: Callable[[], Mapping[int, str]],
    ) -> None:
        self._controller, self._context, self._names = controller, context, names
        self.panel = ContrastBars()
        self.button = compact(
            button("Contrasts", "Show what each contrast contributes to each class.")
        )
        self.button.setCheckable(True)
        self.button.setVisible(False)
        self.runner = Runner(owner)
        self._changed = False
        self.button.toggled.connect(self._on_toggled)
        controller.shown.connect(lambda update: self._on_mask())

    @guarded
    def _on_toggled(self, on: bool) -> None:
        if not on:
            self._stop()
            self.panel.clear()
            return
        try:
            self._explain()
        except Exception:
            self._release()
            raise

    def _explain(self) -> None:
        controller, volume = self._controller, self._context.volume
        segmenter = controller.segmenter
        if segmenter is None or volume is None or segmenter.field is None:
            raise ParameterError("There is no mask to explain yet: paint strokes first.")
        if self.runner.busy:
            return
        prompts = segmenter.session.prompts()
        labels = None if prompts.labels is None else np.array(prompts.labels)
        params = replace(segmenter.session.settings.params, threads=segmenter.threads)
        self._changed = False
        self.panel.clear("Solving with some of the contrasts ...")
        self.runner.start(
            ExplainContrasts(volume, replace(prompts, labels=labels), segmenter.field, params),
            returned=self._show,
            errored=self._fail,
        )

    def _show(self, found: ContrastExplanation) -> None:
        self.panel.show_bars(found, self._names(), CHANGED if self._changed else "")

    def _fail(self, error: Exception) -> None:
        self._release()
        show_failure(error, self.title)

    def _release(self) -> None:
        with QSignalBlocker(self.button):
            self.button.setChecked(False)
        self.panel.clear()

    def _stop(self) -> None:
        if self.runner.task is not None:
            self.runner.task.stop()

    def _on_mask(self) -> None:
        volume = self._context.volume
        self.button.setVisible(volume is not None and volume.channels > 1)
        self._changed = True
        if self.panel.bars:
            self.panel.show_note(CHANGED)

    def close(self) -> None:
        """Forget the bars, as the session ends."""
        self._stop()
        self._release()
        self.button.setVisible(False)

    def shut_down(self) -> None:
        """Stop explaining."""
        self.runner.shut_down()
