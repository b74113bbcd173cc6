"""The Export widget: meshes, masks, reconstructions, fields and splat clouds to files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QCheckBox, QFileDialog, QLineEdit, QWidget

from napari_medgs.errors import ParameterError
from napari_medgs.plugin.export.compression_box import CompressionBox
from napari_medgs.plugin.export.compression_jobs import SaveCompressed, field_to_compress
from napari_medgs.plugin.export.jobs import (
    KINDS,
    MeshOptions,
    export_job,
    parse_labels,
    place_warning,
    rank,
    suggested_name,
    with_suffix,
)
from napari_medgs.plugin.file_names import completed, refuse_open_files, suggested_path
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.controls import choice_box, float_box, int_box
from napari_medgs.plugin.widgets.elements import add_row, compact_form, hint
from napari_medgs.plugin.widgets.layers import LayerCombo
from napari_medgs.plugin.widgets.task_panel import TaskPanel
from napari_medgs.plugin.worker import Job

if TYPE_CHECKING:
    from napari.viewer import Viewer


class ExportWidget(MedGSWidget):
    """Write what was made to files.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    title = "The export"

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.saved: Path | None = None
        self._busy = False
        form = self.form()
        self.kind = choice_box({key: kind.title for key, kind in KINDS.items()}, "mesh")
        add_row(form, "What", self.kind, "What to write.")
        self.layer = LayerCombo(self, KINDS["mesh"].sources, rank=rank)
        add_row(form, "From", self.layer, "The layer to write: a mask, or a result of Fit.")
        self.about = hint()
        self.body.addWidget(self.about)
        self.mesh_box = self._mesh_box()
        self.body.addWidget(self.mesh_box)
        self.compression = CompressionBox(self)
        self.body.addWidget(self.compression)
        self.panel = TaskPanel(self, "Save as…", "Choose a file and write it in the background.")
        self.body.addWidget(self.panel)
        self.body.addStretch(1)
        self.kind.currentIndexChanged.connect(lambda *_: self._adapt())
        self.layer.changed.connect(self._show_about)
        self.panel.busy_changed.connect(self._on_busy)
        self.panel.button.clicked.connect(lambda *_: self.ask())
        self._adapt()

    def _mesh_box(self) -> QWidget:
        box = QWidget()
        form = compact_form()
        box.setLayout(form)
        self.separate = choice_box({False: "all in one file", True: "one file each"}, False)
        tip = (
            "All classes in one file, colored as in the viewer, or a folder with one file a "
            "class. A .glb file is a scene with one named part a class."
        )
        add_row(form, "Classes", self.separate, tip)
        self.labels = QLineEdit()
        self.labels.setPlaceholderText("all")
        tip = "Label values, such as 1 2 5-7. All but 0 when empty."
        add_row(form, "Labels", self.labels, tip)
        self.smooth = float_box(-0.5, 20, None, 0.5, " mm", "automatic")
        tip = "Smoothing of surfaces in millimeters; 0 for none. Volumes are preserved."
        add_row(form, "Smooth", self.smooth, tip)
        self.spacing = float_box(0, 20, 0, 0.1, " mm", "as the image")
        self.spacing.setDecimals(2)
        add_row(
            form,
            "Resolution",
            self.spacing,
            "Voxel size that a field is evaluated on for its surfaces: finer is smoother.",
        )
        self.keep = int_box(1, 100, 100)
        self.keep.setSuffix(" %")
        add_row(form, "Triangles", self.keep, "Percentage of the triangles to keep.")
        self.largest = QCheckBox("Only the largest part of each label")
        self.largest.setToolTip("Leave out smaller connected components.")
        form.addRow(self.largest)
        self.voxels = QCheckBox("From the voxels, not the field")
        self.voxels.setToolTip(
            "A mask that a fit made is meshed from the field, which is smoother. Edited masks are "
            "always meshed from their voxels."
        )
        form.addRow(self.voxels)
        return box

    def _adapt(self) -> None:
        kind = self.kind.currentData()
        self.layer.set_filter(KINDS[kind].sources)
        self.mesh_box.setVisible(kind == "mesh")
        self.compression.setVisible(kind == "compressed")
        self._show_about()

    def _on_busy(self, busy: bool) -> None:
        self._busy = busy
        self._show_about()

    def _show_about(self) -> None:
        """Say what will be written, or what is missing."""
        kind = self.kind.currentData()
        there = self.layer.layer is not None
        self.about.setText(KINDS[kind].tip if there else KINDS[kind].missing)
        self.panel.button.setEnabled(there and not self._busy)
        self.compression.set_layer(self.layer.layer if kind == "compressed" else None)

    def options(self) -> MeshOptions:
        """Return the settings of meshes.

        Raises
        ------
        ParameterError
            When the text of the labels makes no sense.
        """
        return MeshOptions(
            labels=parse_labels(self.labels.text()),
            spacing=self.spacing.value() or None,
            smooth_mm=self.smooth.value() if self.smooth.value() >= 0 else None,
            decimate=self.keep.value() / 100 if self.keep.value() < 100 else None,
            largest_only=self.largest.isChecked(),
            from_voxels=self.voxels.isChecked(),
            separate=self.separate.currentData(),
        )

    @guarded
    def ask(self) -> None:
        """Ask for a file name and write."""
        kind = self.kind.currentData()
        suffixes = KINDS[kind].suffixes
        layer = self.layer.layer
        if layer is None:
            raise ParameterError(KINDS[kind].missing)
        start = suggested_path(self.viewer.layers, layer, suffixes[0], suggested_name(kind, layer))
        shown = " ".join(f"*{s}" for s in suffixes)
        path, _ = QFileDialog.getSaveFileName(
            self, f"Save {KINDS[kind].title}", str(start), f"{KINDS[kind].title} ({shown})"
        )
        if path:
            self.save(completed(path, suffixes))

    @guarded
    def save(self, path: str | Path) -> None:
        """Write to a path in the background; refusals become notifications."""
        kind = self.kind.currentData()
        options = self.options() if kind == "mesh" else None
        layer = self.layer.layer
        refuse_open_files(self.viewer.layers, [with_suffix(path, kind)])
        if kind == "compressed":
            self.compression.runner.stop()
            target = with_suffix(path, kind)
            field, volume = field_to_compress(layer), self.compression.job_volume()
            job: Job = SaveCompressed(target, field, self.compression.position, volume)
        else:
            job = export_job(kind, layer, path, options)
        warning = place_warning(kind, self.layer.layer)
        self.panel.run(job, lambda saved: self._tell(saved, warning), "Saving")

    def shut_down(self) -> None:
        """Stop what is running, the preview too."""
        self.compression.shut_down()
        super().shut_down()

    def _tell(self, path: Any, warning: str | None) -> None:
        from napari.utils.notifications import show_info, show_warning

        self.saved = Path(path)
        show_info(f"Saved {self.saved}")
        if warning is not None:
            show_warning(warning)
