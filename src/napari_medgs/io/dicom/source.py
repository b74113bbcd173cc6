"""The image series that a mask lies on: its frames in order, its grid, what masks repeat of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import grid_of_axes, to_source
from napari_medgs.errors import FileError
from napari_medgs.io.dicom.frames import Frame
from napari_medgs.io.dicom.geometry import LPS_TO_RAS, arrange
from napari_medgs.io.dicom.header import text


@dataclass(frozen=True)
class SourceSeries:
    """One volume of an image series, without its pixels.

    Attributes
    ----------
    path : Path
        Where it was found, for messages.
    frames : tuple of Frame
        In the order of the stack.
    headers : mapping of str to pydicom.Dataset
        By file.
    grid : Grid
        Canonical; its record of axes is (column, row, slice).
    """

    path: Path
    frames: tuple[Frame, ...]
    headers: Mapping[str, Any]
    grid: Grid

    @property
    def first(self) -> Any:
        """Header of the first slice."""
        return self.headers[self.frames[0].path]

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return text(self.first, "SeriesInstanceUID")

    def to_lps(self) -> NDArray[np.float64]:
        """Return the matrix from (column, row, slice, 1) to LPS millimeters."""
        affine: NDArray[np.float64] = LPS_TO_RAS @ np.asarray(self.grid.source["affine"])
        return affine

    def stacked(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return labels on the grid as (slices, rows, columns)."""
        return to_source(labels[None], self.grid)[0].transpose(2, 1, 0)

    def check_reference(self, what: str) -> None:
        """Refuse a series whose headers lack what a mask has to repeat.

        Raises
        ------
        FileError
            When it has no FrameOfReferenceUID, or other identifiers are missing.
        """
        for header in {frame.path: self.headers[frame.path] for frame in self.frames}.values():
            for keyword in (
                "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID",
                "FrameOfReferenceUID",
            ):  # fmt: skip
                if not text(header, keyword):
                    raise FileError(
                        f"{self.path}: the series has no {keyword}, to which {what} refers; "
                        "write the mask as .nii.gz, .nrrd or .seg.nrrd."
                    )


def series_grid(path: Path, headers: Mapping[str, Any], frames: Sequence[Frame]) -> SourceSeries:
    """Arrange the frames of one volume, and return it with its grid.

    Parameters
    ----------
    path : Path
        For messages.
    headers : mapping of str to pydicom.Dataset
    frames : sequence of Frame

    Raises
    ------
    GeometryError
        When they form no stack.
    """
    with warnings.catch_warnings():
        # What is odd about the series is said where it is read as an image.
        warnings.simplefilter("ignore")
        ordered, affine = arrange(path, frames, None)
    rows, columns = ordered[0].shape
    header = headers[ordered[0].path]
    record = {"kind": "dicom", "series": text(header, "SeriesInstanceUID")}
    grid = grid_of_axes((columns, rows, len(ordered)), affine, record)
    return SourceSeries(path, tuple(ordered), headers, grid)
