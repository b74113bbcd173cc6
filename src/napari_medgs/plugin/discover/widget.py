"""The Discover widget: tissues, parts and their map, without training and without strokes."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from napari_medgs.errors import ParameterError
from napari_medgs.plugin.discover.disc import PartDisc
from napari_medgs.plugin.discover.jobs import (
    DivideTissues,
    FindParts,
    ImageTask,
    region_from,
    take_image,
)
from napari_medgs.plugin.discover.layers import add_labels, add_pictures, is_shown
from napari_medgs.plugin.discover.parts import PartsView
from napari_medgs.plugin.discover.parts_tab import PartsTab
from napari_medgs.plugin.discover.tissues_tab import TissuesTab
from napari_medgs.plugin.report import guarded, show_hint
from napari_medgs.plugin.responsive import run_responsive
from napari_medgs.plugin.trees import file_with_tree, tree_of
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.elements import add_row, hint
from napari_medgs.plugin.widgets.layers import LayerChecklist, is_source_image
from napari_medgs.plugin.widgets.resample_bar import ResampleBar
from napari_medgs.plugin.widgets.task_panel import TaskPanel
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_medgs.tissue import TissueResult


class DiscoverWidget(MedGSWidget):
    """Find what an image consists of: classes of intensity, and nested parts.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    title = "Discover"

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        form = self.form()
        self.images = LayerChecklist(self, is_source_image)
        add_row(form, "Image", self.images, "Check several contrasts to use them together.")
        self.align = ResampleBar(self, self.images)
        form.addRow(self.align)
        self.tissues, self.parts_tab, self.disc = TissuesTab(self), PartsTab(), PartDisc()
        self.tree_runner = Runner(self)
        self.tissue_panel = TaskPanel(
            self, "Find tissues", "Divide the image into classes of intensity."
        )
        other = SimpleNamespace(title="Finding parts", runner=self.tree_runner)
        self.parts_panel = TaskPanel(
            cast(Any, other), "Find parts", "Divide the image into nested parts."
        )
        self.tissues.place.addWidget(self.tissue_panel)
        self.parts_tab.place.addWidget(self.parts_panel)
        self.tabs = QTabWidget()
        self.tabs.addTab(self.tissues, "Tissues")
        self.tabs.addTab(self.parts_tab, "Parts")
        self.tabs.addTab(self._map_tab(), "Map")
        self.body.addWidget(self.tabs, 1)
        self.parts = PartsView(self, self.parts_tab, self.disc)
        self.result: TissueResult | None = None
        self.tissue_layer: Any = None
        self.tissue_panel.button.clicked.connect(lambda *_: self.find_tissues())
        self.parts_panel.button.clicked.connect(lambda *_: self.find_parts())
        self.parts_tab.send_mask.clicked.connect(lambda *_: self.send(as_classes=False))
        self.parts_tab.send_classes.clicked.connect(lambda *_: self.send(as_classes=True))

    def _map_tab(self) -> QWidget:
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(0, 6, 0, 0)
        layout.addWidget(self.disc, 1)
        layout.addWidget(
            hint(
                "Points are the parts, near in the disc where they are near in the tree. Click: "
                "show the part. Drag: move the map. Double-click: bring a part to the middle."
            )
        )
        return page

    def _task(self) -> ImageTask:
        task = run_responsive(
            partial(take_image, self.viewer.layers, self.images.layers), "Preparing the image"
        )
        for text in task.remarks:
            show_hint(text)
        return task

    @guarded
    def find_tissues(self) -> None:
        """Divide the chosen image; refusals become notifications."""
        task = self._task()
        tab = self.tissues
        region = region_from(tab.region.layer, task, resample=tab.resample.isChecked())
        job = DivideTissues(task, tab.params(), region)
        self.tissue_panel.run(job, partial(self._show_tissues, task), "Finding tissues")

    def _show_tissues(self, task: ImageTask, result: TissueResult) -> None:
        if self._is_gone(task):
            return
        self.result = result
        add_pictures(
            self.viewer, task, result, probabilities=self.tissues.probabilities.isChecked()
        )
        names = {row["label"]: f"tissue {row['label']}" for row in result.rows}
        layer = add_labels(self.viewer, task, result.field, result.labels, "tissues", names)
        self.tissue_layer = layer
        colors = {k: layer.get_color(k) for k in names}
        self.tissues.show_result(result, colors)

    def _show_parts(self, task: ImageTask, found: Any) -> None:
        if not self._is_gone(task):
            self.parts.set_tree(task, found)

    def _is_gone(self, task: ImageTask) -> bool:
        """Tell whether an image was removed while it was divided, and say so."""
        if is_shown(self.viewer, task):
            return False
        name = task.sources[0].name
        show_hint(f"The image {name!r} was removed meanwhile: its result is not shown.")
        return True

    @guarded
    def find_parts(self) -> None:
        """Make the tree of the chosen image; refusals become notifications."""
        task = self._task()
        layers = self.viewer.layers
        job = FindParts(
            task,
            self.parts_tab.count,
            tree_of(layers, task.field),
            file_with_tree(layers, task.field),
        )
        self.parts_panel.run(job, partial(self._show_parts, task), "Finding parts")

    @guarded
    def send(self, *, as_classes: bool) -> None:
        """Add the selected parts as labels, and choose these as the start in Segment.

        Parameters
        ----------
        as_classes : bool
            Every part a class of its own, or all of them one mask.
        """
        from napari_medgs.plugin.segment.widget import SegmentWidget

        parts, task, tree = self.parts.parts, self.parts.task, self.parts.tree
        wanted = sorted(self.parts_tab.labels())
        if parts is None or task is None or tree is None or not wanted:
            raise ParameterError("Select one or more parts in the table first.")
        labels = task.frame.to_canonical(np.asarray(self.parts.layer.data))
        values = np.zeros(int(max(labels.max(), max(wanted))) + 1, np.uint8)
        if as_classes and len(wanted) > 249:
            raise ParameterError("A segmentation has up to 249 classes; select fewer parts.")
        values[wanted] = np.arange(1, len(wanted) + 1) if as_classes else 1
        titles = [parts.names.get(k, f"part {k}") for k in wanted]
        names = dict(enumerate(titles if as_classes else [" and ".join(titles[:3])], 1))
        field = tree.need_renderer().field
        layer = add_labels(self.viewer, task, field, values[labels], "chosen parts", names)
        self.parts.layer.visible = False
        for widget in _open_widgets(self.viewer, SegmentWidget):
            widget.view.initial.setCurrentText(layer.name)
            return
        show_hint(
            f"{layer.name!r} holds the parts. Open Segment and choose it as the mask to start "
            "from."
        )

    def shut_down(self) -> None:
        """Stop all threads."""
        self.parts.shut_down()
        self.tree_runner.shut_down()
        self.align.shut_down()
        super().shut_down()


def _open_widgets(viewer: Any, kind: type) -> list[Any]:
    """Return the dock widgets of a kind that are open in the viewer."""
    window = getattr(viewer, "window", None)
    docks = [] if window is None else window._qt_window.findChildren(kind)
    return list(docks)
