"""Open the series that a mask is written for."""

from __future__ import annotations

from pathlib import Path

from napari_medgs.errors import FileError
from napari_medgs.io.dicom.series import choose_frames, has_dicom
from napari_medgs.io.dicom.source import SourceSeries, series_grid


def open_source(
    path: str | Path, *, series: str | None = None, volume: int | None = None
) -> SourceSeries:
    """Return the grid and headers of a DICOM series, without reading its pixels.

    Parameters
    ----------
    path, series, volume
        See :func:`napari_medgs.io.dicom.series.read_dicom`.

    Returns
    -------
    SourceSeries

    Raises
    ------
    FileError
        When no series is there, or several and none is chosen.
    GeometryError
        When its slices form no stack.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"{path}: no such file or folder.")
    if not has_dicom(path):
        raise FileError(f"{path}: no DICOM series; a DICOM mask needs that of its image.")
    found, frames, _ = choose_frames(path, series, volume, masks=False)
    if not frames:
        raise FileError(f"{path}: a segmentation; give the image series that it lies on.")
    return series_grid(path, found.headers, frames)
