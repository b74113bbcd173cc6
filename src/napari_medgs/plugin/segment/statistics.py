"""Statistics of the classes, measured in a thread and shown in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import QApplication

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.errors import ParameterError
from napari_medgs.plugin.file_names import completed, suggested_path
from napari_medgs.plugin.report import guarded, show_failure
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.controller import SegmentController
from napari_medgs.plugin.segment.statistics_table import StatisticsPanel
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume

CHANGED = "The mask has changed since: press Measure for new numbers."


@dataclass(frozen=True)
class MeasureClasses:
    """Measure all labels of a mask on the canonical grid.

    Attributes
    ----------
    labels : (Z, Y, X) ndarray of int
    volume : Volume
        Whose first channel is measured.
    names : mapping of int to str
    """

    labels: NDArray[Any]
    volume: Volume
    names: Mapping[int, str]

    def __call__(
        self, progress: ProgressCallback, should_stop: StopCallback
    ) -> list[dict[str, Any]]:
        """Return the rows of the table."""
        from napari_medgs.meshing import mesh_from_labels
        from napari_medgs.metrics import label_statistics, surface_areas_mm2
        from napari_medgs.metrics.statistics_table import table_rows

        labels = np.ascontiguousarray(self.labels)
        grid = self.volume.grid
        areas = surface_areas_mm2(mesh_from_labels(labels, grid))
        found = label_statistics(
            labels, grid, self.volume.channel(0), areas_mm2=areas, should_stop=should_stop
        )
        return table_rows(found, self.names)


class Statistics:
    """Measures the session's mask when asked to.

    Parameters
    ----------
    owner : QWidget
        Whose life the thread shares.
    panel : StatisticsPanel
    controller : SegmentController
    context : SegmentContext
    names : callable
        Returns the names of the classes by value.
    """

    title = "Measuring"

    def __init__(
        self,
        owner: Any,
        panel: StatisticsPanel,
        controller: SegmentController,
        context: SegmentContext,
        names: Callable[[], Mapping[int, str]],
    ) -> None:
        self.panel, self._controller, self._context = panel, controller, context
        self._names = names
        self.runner = Runner(owner)
        self._changed = False
        panel.measure.clicked.connect(lambda *_: self.measure())
        panel.copy.clicked.connect(lambda *_: self.copy())
        panel.save.clicked.connect(lambda *_: self.save())
        controller.shown.connect(lambda update: self._on_mask())

    @guarded
    def measure(self) -> None:
        """Measure all classes of the mask."""
        controller, volume = self._controller, self._context.volume
        if controller.layers is None or volume is None or not controller.state.volumes_ml:
            raise ParameterError("There is no mask to measure yet: paint strokes first.")
        if self.runner.busy:
            return
        controller.layers.display.restore()
        labels = controller.layers.display.view.array.copy()
        self.panel.measure.setEnabled(False)
        self.panel.show_note("Measuring ...")
        self._changed = False
        self.runner.start(
            MeasureClasses(labels, volume, dict(self._names())),
            returned=self._show,
            errored=lambda error: show_failure(error, self.title),
            finished=lambda: self.panel.measure.setEnabled(True),
        )

    def _show(self, rows: list[dict[str, Any]]) -> None:
        names = self._context.volume.channel_names if self._context.volume is not None else ()
        note = f"Intensities of {names[0]!r}." if len(names) > 1 else ""
        self.panel.show_rows(rows, CHANGED if self._changed else note)

    def _on_mask(self) -> None:
        self._changed = True
        if self.panel.rows:
            self.panel.show_note(CHANGED if self._controller.state.volumes_ml else "")

    @guarded
    def copy(self) -> None:
        """Copy the table to the clipboard."""
        from napari_medgs.metrics.statistics_table import table_text

        QApplication.clipboard().setText(table_text(self.panel.rows, tabs=True))
        self.panel.show_note("Copied.")

    @guarded
    def save(self) -> None:
        """Ask for a file and save the table."""
        from napari_medgs.io import atomic_path
        from napari_medgs.metrics.statistics_table import table_text

        start, image = Path("statistics.csv"), self._context.image
        if image is not None:
            layers, name = self._context.viewer.layers, f"{image.name}-statistics"
            start = suggested_path(layers, image, ".csv", name)
        chosen = self.panel.ask_file(str(start))
        if not chosen:
            return
        path = completed(chosen, (".csv", ".tsv"))
        with atomic_path(path) as temporary:
            text = table_text(self.panel.rows, tabs=path.suffix.lower() == ".tsv")
            temporary.write_text(text, encoding="utf-8")
        self.panel.show_note(f"Saved to {path.name}.")

    def close(self) -> None:
        """Forget the numbers, as the session ends."""
        self.panel.show_rows([], "")

    def shut_down(self) -> None:
        """Stop measuring."""
        self.runner.shut_down()
