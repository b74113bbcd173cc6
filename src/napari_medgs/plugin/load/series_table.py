"""The table of DICOM series and volumes that a folder holds, to choose one from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem

if TYPE_CHECKING:
    from napari_medgs.io.dicom.summary import Series


@dataclass(frozen=True)
class SeriesChoice:
    """One volume that can be opened.

    Attributes
    ----------
    key : str
        What :func:`napari_medgs.io.read_volume` takes as ``series``: "2", or "2.1" for the first
        of several volumes.
    columns : tuple of str
        Modality, description, number of slices, spacing.
    """

    key: str
    columns: tuple[str, str, str, str]


def series_choices(path: str | Path) -> list[SeriesChoice]:
    """Return the volumes that a folder, a study or a disc holds; empty where nothing is DICOM.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    list of SeriesChoice
        Without names of patients.

    Raises
    ------
    FileError
        When a DICOM file is damaged.
    """
    from napari_medgs.io import list_series
    from napari_medgs.io.dicom.series import has_dicom
    from napari_medgs.io.ome_zarr.opening import is_ome_zarr

    path = Path(path)
    if is_ome_zarr(path):  # of many files, none of them DICOM
        return []
    is_directory_file = path.is_file() and path.name.upper() == "DICOMDIR"
    if not is_directory_file and not (path.is_dir() and has_dicom(path)):
        return []
    return [
        choice
        for number, series in enumerate(list_series(path), 1)
        for choice in _choices_of(series, number)
    ]


def _choices_of(series: Series, number: int) -> list[SeriesChoice]:
    spacing = series.spacing
    sizes = "" if spacing is None else " × ".join(f"{size:.4g}" for size in spacing)
    slices = str(series.slices or len(series.files))
    title = series.description or "no description"
    if len(series.volumes) < 2:
        return [SeriesChoice(str(number), (series.modality, title, slices, sizes))]
    return [
        SeriesChoice(f"{number}.{k}", (series.modality, f"{title}, {name}", slices, sizes))
        for k, name in enumerate(series.volumes, 1)
    ]


class SeriesTable(QTreeWidget):
    """A list of series with modality, description, slices and spacing; hidden while empty."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("medgs-series")
        self.setHeaderLabels(["Modality", "Description", "Slices", "Spacing (mm)"])
        self.setRootIsDecorated(False)
        self.setAlternatingRowColors(True)
        self.setToolTip("The DICOM series and volumes found. Choose one, then press Open.")
        self.setMinimumHeight(110)
        header = self.header()
        assert header is not None
        header.setStretchLastSection(False)
        for column in range(4):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.fill([])

    def fill(self, choices: Sequence[SeriesChoice]) -> None:
        """Show choices, none of them selected."""
        self.clear()
        for choice in choices:
            item = QTreeWidgetItem(list(choice.columns))
            item.setData(0, Qt.ItemDataRole.UserRole, choice.key)
            item.setToolTip(1, choice.columns[1])
            item.setTextAlignment(2, Qt.AlignmentFlag.AlignRight)
            self.addTopLevelItem(item)
        self.setVisible(bool(choices))

    def choose(self, key: str) -> None:
        """Select the choice of a key.

        Raises
        ------
        KeyError
            When it is not listed.
        """
        for row in range(self.topLevelItemCount()):
            item = self.topLevelItem(row)
            if item is not None and item.data(0, Qt.ItemDataRole.UserRole) == key:
                self.setCurrentItem(item)
                return
        raise KeyError(key)

    @property
    def chosen(self) -> str | None:
        """Key of the selected choice."""
        items = self.selectedItems()
        return str(items[0].data(0, Qt.ItemDataRole.UserRole)) if items else None
