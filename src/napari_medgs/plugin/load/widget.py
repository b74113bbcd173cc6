"""The Load widget: files, DICOM folders, folders of frames, items of MedMNIST sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_medgs.errors import FileError
from napari_medgs.plugin.load.series_table import SeriesChoice, SeriesTable, series_choices
from napari_medgs.plugin.reader import LayerData, read_medmnist_layers, read_paths
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.volume_layers import volume_layers
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.controls import choice_box, float_box, int_box
from napari_medgs.plugin.widgets.elements import add_row, compact_form, hint
from napari_medgs.plugin.widgets.task_panel import TaskPanel
from napari_medgs.plugin.worker import Job

if TYPE_CHECKING:
    from napari.viewer import Viewer

SPLITS = ("train", "val", "test")
FILTER = (
    "Medical images and fields (*.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.gipl *.mgz *.mgh *.hdr "
    "*.img *.tif *.tiff *.zarr.zip *.ozx *.ply *.stl *.obj *.glb *.dcm *.npz *.safetensors "
    "*.medgs);;"
    "All files (*)"
)


class LoadWidget(MedGSWidget):
    """Open volumes, masks and fields, with what a file dialog cannot ask.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    title = "Loading"

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.made: list[Any] = []
        self.tabs = QTabWidget()
        self.tabs.addTab(self._file_page(), "File or folder")
        self.tabs.addTab(self._medmnist_page(), "MedMNIST")
        self.body.addWidget(self.tabs)
        self.panel = TaskPanel(self, "Open", "Read in the background and add as layers.")
        self.body.addWidget(self.panel)
        self.body.addStretch(1)
        self.panel.button.clicked.connect(lambda *_: self.run())

    def _file_page(self) -> QWidget:
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(6, 6, 6, 6)
        form = compact_form()
        layout.addLayout(form)
        self.path = QLineEdit()
        self.path.setPlaceholderText("Image, mask, field, DICOM or frames folder")
        add_row(form, "Path", self.path, "A file, or a folder with a DICOM series or frames.")
        row = QHBoxLayout()
        for text, tip, slot in (
            ("File…", "Choose an image, mask, MedMNIST or field file.", self._browse_file),
            (
                "Folder…",
                "Choose a folder of DICOM files or numbered frames.",
                self._browse_folder,
            ),
        ):
            button = QPushButton(text)
            button.setToolTip(tip)
            button.clicked.connect(lambda *_, slot=slot: slot())
            row.addWidget(button)
        form.addRow("", _wrapped(row))
        self.spacing = [float_box(0, 1000, None, 0.1, special=f"{axis} auto") for axis in "zyx"]
        sizes = QHBoxLayout()
        for axis, box in zip("zyx", self.spacing):
            box.setPrefix(f"{axis} ")
            box.setDecimals(3)
            box.setMinimumWidth(58)
            # The theme's large buttons would leave no room for the number.
            box.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
            box.setToolTip(f"Millimeters between voxels along {axis}.")
            sizes.addWidget(box)
        tip = "Millimeters along z, y, x. Only for files without a voxel size, such as frames."
        caption = hint("Voxel size in mm, for files without one")
        caption.setToolTip(tip)
        form.addRow(caption)
        form.addRow(_wrapped(sizes))
        self.volume = int_box(0, 100_000, 0)
        self.volume.setSpecialValueText("all")
        add_row(
            form,
            "Volume",
            self.volume,
            "Which volume to open of a file with several in time, from 1. All are one layer with "
            "a slider for time, which cannot be fitted or segmented.",
        )
        self.identity = QCheckBox("Accept files without orientation")
        self.identity.setToolTip(
            "Open a NIfTI file without a usable affine, in the order of its axes and with the "
            "voxel size in its header."
        )
        form.addRow(self.identity)
        self.series_hint = hint("Several series were found. Choose one and press Open.")
        self.series_hint.setVisible(False)
        layout.addWidget(self.series_hint)
        self.series = SeriesTable()
        layout.addWidget(self.series)
        layout.addWidget(hint("Files can also be dropped on the viewer."))
        layout.addStretch(1)
        self.path.textChanged.connect(lambda *_: self._list_series([]))
        self.series.itemDoubleClicked.connect(lambda *_: self.run())
        return page

    def _list_series(self, choices: list[SeriesChoice]) -> None:
        self.series.fill(choices)
        self.series_hint.setVisible(bool(choices))

    def _medmnist_page(self) -> QWidget:
        from napari_medgs.io.medmnist.table import SETS

        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(6, 6, 6, 6)
        form = compact_form()
        layout.addLayout(form)
        self.set_name = choice_box({None: "local file", **{name: name for name in SETS}}, None)
        tip = "A set to download once, or a .npz file on this computer."
        add_row(form, "Set", self.set_name, tip)
        self.set_path = QLineEdit()
        self.set_path.setPlaceholderText("FILE.npz")
        add_row(form, "File", self.set_path, "The local .npz file.")
        self.browse_set = QPushButton("Browse…")
        self.browse_set.setToolTip("Choose a local .npz file.")
        self.browse_set.clicked.connect(lambda *_: self._browse_set())
        form.addRow("", self.browse_set)
        self.size = choice_box({n: f"{n} pixels" for n in (28, 64, 128, 224)}, 28)
        add_row(form, "Size", self.size, "Size to download; 3D sets come in 28 and 64.")
        self.split = choice_box({name: name for name in SPLITS}, "train")
        add_row(form, "Split", self.split, "Part of the set.")
        self.index = int_box(0, 10_000_000, 0)
        add_row(form, "Item", self.index, "Index of the item in its split, from 0.")
        self.whole = QCheckBox("Open all splits as stacks instead")
        self.whole.setToolTip("For browsing a set. Stacks cannot be fitted.")
        form.addRow(self.whole)
        layout.addWidget(hint("MedMNIST v2, CC BY 4.0. Downloads come from Zenodo."))
        layout.addStretch(1)
        self.set_name.currentIndexChanged.connect(lambda *_: self._adapt())
        self.whole.toggled.connect(lambda *_: self._adapt())
        self._adapt()
        return page

    def _adapt(self) -> None:
        local = self.set_name.currentData() is None
        self.set_path.setEnabled(local)
        self.browse_set.setEnabled(local)
        self.size.setEnabled(not local)
        self.split.setEnabled(not self.whole.isChecked())
        self.index.setEnabled(not self.whole.isChecked())

    @guarded
    def _browse_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open", self.path.text(), FILTER)
        if path:
            self.path.setText(path)

    @guarded
    def _browse_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Open a folder", self.path.text())
        if path:
            self.choose_folder(path)

    @guarded
    def choose_folder(self, path: str | Path) -> None:
        """Take a folder and list its DICOM series where it has several.

        Parameters
        ----------
        path : str or Path
        """
        self.path.setText(str(path))
        self.panel.run(
            lambda progress, should_stop: series_choices(path), self._offer, "Looking for series"
        )

    def _offer(self, choices: list[SeriesChoice]) -> None:
        self._list_series(choices if len(choices) > 1 else [])

    @guarded
    def _browse_set(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Open a MedMNIST set", self.set_path.text(), "MedMNIST (*.npz)"
        )
        if path:
            self.set_path.setText(path)

    @guarded
    def run(self) -> None:
        """Open what is chosen; refusals become notifications."""
        job = self._file_job() if self.tabs.currentIndex() == 0 else self._medmnist_job()
        self.panel.run(job, self._show, "Opening")

    def _file_job(self) -> Job:
        text = self.path.text().strip()
        if not text:
            raise FileError("Choose a file or folder first.")
        sizes = [box.value() for box in self.spacing]
        if any(sizes) and not all(sizes):
            raise FileError("Give the voxel size along all of z, y and x, or leave all on auto.")
        spacing = (sizes[0], sizes[1], sizes[2]) if all(sizes) else None
        identity = self.identity.isChecked()
        series = self.series.chosen
        volume = self.volume.value() or None

        def job(progress: Any, should_stop: Any) -> list[LayerData] | list[SeriesChoice]:
            if series is None and volume is None:
                choices = series_choices(text)
                if len(choices) > 1:
                    return choices
            return read_paths(
                [text], spacing=spacing, assume_identity=identity, series=series, volume=volume
            )

        return job

    def _medmnist_job(self) -> Job:
        name, size = self.set_name.currentData(), self.size.currentData()
        text = self.set_path.text().strip()
        if name is None and not text:
            raise FileError("Choose a set to download, or a local .npz file.")
        split, index = self.split.currentData(), self.index.value()
        whole = self.whole.isChecked()

        def job(progress: Any, should_stop: Any) -> list[LayerData]:
            from napari_medgs.io.medmnist.download import fetch
            from napari_medgs.io.medmnist.reader import read_medmnist

            path = Path(text) if name is None else fetch(name, size=size)
            if whole:
                return read_medmnist_layers(path)
            volume = read_medmnist(f"{path}:{split}:{index}")
            return _named(volume_layers(volume), f"{path.stem} {split} {index}")

        return job

    def _show(self, found: list[LayerData] | list[SeriesChoice]) -> None:
        from napari.layers import Layer

        choices = [entry for entry in found if isinstance(entry, SeriesChoice)]
        if choices:
            self._list_series(choices)
            return
        layers = [entry for entry in found if not isinstance(entry, SeriesChoice)]
        self.made = [self.viewer.add_layer(Layer.create(*data)) for data in layers]


def _named(layers: list[LayerData], title: str) -> list[LayerData]:
    for _, options, _ in layers:
        options["name"] = title if len(layers) == 1 else f"{title} {options['name']}"
    return layers


def _wrapped(row: QHBoxLayout) -> QWidget:
    """Return a widget around a row without margins."""
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(4)
    holder = QWidget()
    holder.setLayout(row)
    return holder
