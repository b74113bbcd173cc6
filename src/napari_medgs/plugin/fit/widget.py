"""The Fit widget: image layers in, reconstruction, mask and Gaussians out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QLabel, QWidget

from napari_medgs.plugin.fit.compare_bar import CompareBar
from napari_medgs.plugin.fit.form import FitForm
from napari_medgs.plugin.fit.jobs import FitOutcome, make_fit_request, summary_of
from napari_medgs.plugin.fit.results import add_fit_layers, replace_earlier, results_of
from napari_medgs.plugin.image_digest import contrast_digests
from napari_medgs.plugin.levels import at_fitting_level, fit_need
from napari_medgs.plugin.report import guarded, show_failure, show_hint
from napari_medgs.plugin.responsive import run_responsive
from napari_medgs.plugin.trees import MakeTree, TreesAhead
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.controls import button, row
from napari_medgs.plugin.widgets.elements import add_row
from napari_medgs.plugin.widgets.layers import (
    LayerChecklist,
    LayerCombo,
    is_kind,
    is_source_image,
    one_per_field,
)
from napari_medgs.plugin.widgets.resample_bar import ResampleBar
from napari_medgs.plugin.widgets.task_panel import TaskPanel
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari.viewer import Viewer


class FitWidget(MedGSWidget):
    """Fit folded Gaussians to images, a mask, or both at once.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    title = "The fit"

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.trees = TreesAhead(self, self.viewer)
        self.last: FitOutcome | None = None
        self.made: list[Any] = []
        form = self.form()
        self.images = LayerChecklist(self, is_source_image)
        add_row(
            form,
            "Image",
            self.images,
            "The image to describe. Check several contrasts to fit them together.",
        )
        self.align = ResampleBar(self, self.images)
        form.addRow(self.align)
        self.mask = LayerCombo(self, is_kind("Labels"), none="none")
        add_row(
            form,
            "Mask",
            self.mask,
            "A Labels layer of the same grid. Its classes are fitted with the image: the result "
            "is a smooth mask at any resolution.",
        )
        self.resample = QCheckBox("Resample the mask")
        self.resample.setToolTip(
            "Bring a mask of another grid onto the image by the nearest label. Otherwise it is "
            "refused."
        )
        form.addRow(self.resample)
        self.initial = LayerCombo(
            self, lambda layer: one_per_field(self.viewer, layer), none="new Gaussians"
        )
        add_row(
            form,
            "Start from",
            self.initial,
            "New Gaussians, or those of an earlier result on the same grid.",
        )
        self.settings = FitForm()
        self.body.addWidget(self.settings)
        self.show_overlay = QCheckBox("Show the Gaussians")
        self.show_overlay.setChecked(True)
        self.show_overlay.setToolTip("Draw the Gaussians over the image when the fit is done.")
        self.body.addWidget(self.show_overlay)
        self.keep_earlier = QCheckBox("Keep earlier results")
        self.keep_earlier.setToolTip(
            "Otherwise a new fit of an image replaces its last one. Masks that you edited stay."
        )
        self.body.addWidget(self.keep_earlier)
        self.panel = TaskPanel(
            self, "Fit", "Fit Gaussians in the background; the viewer stays usable."
        )
        self.body.addWidget(self.panel)
        self.result = QLabel()
        self.result.setObjectName("medgs-result")
        self.result.setWordWrap(True)
        self.result.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.result.setVisible(False)
        self.body.addWidget(self.result)
        self.compare = CompareBar(self)
        self.body.addWidget(self.compare)
        self.body.addWidget(self.compare.numbers)
        self._earlier: list[Any] = []
        self.keep = button("Keep", "Keep this state of the canceled fit.")
        self.discard = button("Discard", "Remove it, and show the result before again.")
        self.decide = QWidget()
        self.decide.setLayout(row(self.keep, self.discard))
        self.decide.setVisible(False)
        self.body.addWidget(self.decide)
        self.body.addStretch(1)
        self._backend_check = Runner(self)
        self.backends_checked = False
        self.panel.button.clicked.connect(lambda *_: self.run())
        self.keep.clicked.connect(lambda *_: self.keep_result())
        self.discard.clicked.connect(lambda *_: self.discard_result())
        self.settings.advanced_opened.connect(self._check_backends)

    @guarded
    def run(self) -> None:
        """Start the fit with what is chosen; refusals become notifications."""
        self.keep_result()
        self.compare.clear()
        self.result.setVisible(False)  # of another image, perhaps
        params = self.settings.params()
        sources = at_fitting_level(self.viewer, self.images.layers, fit_need, "The fit")
        request = run_responsive(
            partial(
                make_fit_request,
                sources,
                self.mask.layer,
                params,
                self.initial.layer,
                resample=self.resample.isChecked(),
            ),
            "Preparing the fit",
        )
        for text in request.remarks:
            show_hint(text)
        self.panel.run(request, lambda outcome: self._show(sources, outcome), "Fitting")

    def _show(self, sources: list[Any], outcome: FitOutcome) -> None:
        self.last = outcome
        self.result.setText(summary_of(outcome, sources[0].name))
        self.result.setVisible(True)
        # The user may have removed or moved layers meanwhile; the arrays tell where to draw.
        digests = contrast_digests(outcome.request.volume)[:1]
        self._earlier = results_of(self.viewer.layers, sources[0].name, digests)
        self.made = add_fit_layers(self.viewer, sources, outcome)
        self.made[-1].visible = self.show_overlay.isChecked()
        pictures = [x for x in self.made if type(x).__name__ == "Image"]
        self.compare.show_result(sources, outcome, pictures)
        canceled = outcome.result.stopped_by == "cancelled"
        self.decide.setVisible(canceled)
        if not canceled:
            self.keep_result()
            volume = outcome.request.volume
            self.trees.make(MakeTree(volume, outcome.result.field), volume.data.size)

    @guarded
    def keep_result(self) -> None:
        """Let the newest result take the place of the ones before."""
        earlier, self._earlier = self._earlier, []
        self.decide.setVisible(False)
        if not self.keep_earlier.isChecked():
            replace_earlier(self.viewer, earlier, self.made)

    @guarded
    def discard_result(self) -> None:
        """Remove the result of a canceled fit, and show the one before again."""
        made = [*self.made, self.compare.difference]
        self.compare.clear()
        for layer in made:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        for layer in self._earlier[:1]:
            layer.visible = True
        self.made, self._earlier = [], []
        self.decide.setVisible(False)
        self.result.setVisible(False)

    def _check_backends(self) -> None:
        """Check once, in the background, which backends work: this may load CUDA."""
        if self.backends_checked or self._backend_check.busy:
            return
        self._backend_check.start(
            lambda progress, should_stop: _backends(),
            returned=self._show_backends,
            errored=lambda error: show_failure(error, "Looking for backends"),
        )

    def _show_backends(self, found: dict[str, tuple[bool, str]]) -> None:
        self.settings.show_backends(found)
        self.backends_checked = True

    def shut_down(self) -> None:
        """Stop the fit and the check of backends."""
        self._backend_check.shut_down()
        self.trees.shut_down()
        self.align.shut_down()
        self.compare.shut_down()
        super().shut_down()


def _backends() -> dict[str, tuple[bool, str]]:
    from napari_medgs.rendering import backends

    return backends()
