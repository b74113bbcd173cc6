"""What a list of choices says of a DICOM series, without names of patients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_medgs.errors import MedGSError
from napari_medgs.io.dicom.frames import Frame, frames_of
from napari_medgs.io.dicom.header import read_header, text
from napari_medgs.io.dicom.volumes import split_volumes


@dataclass(frozen=True)
class Series:
    """One series of a DICOM folder.

    Attributes
    ----------
    uid : str
        Its SeriesInstanceUID.
    description, modality : str
    files : tuple of str
    slices : int
        Slices of one volume.
    spacing : (slice, row, column) or None
        Millimeters between slices, rows and columns, where the files say so.
    volumes : tuple of str
        What tells its volumes apart, such as "b-value 1000"; empty if there is one volume.
    """

    uid: str
    description: str
    modality: str
    files: tuple[str, ...]
    slices: int = 0
    spacing: tuple[float, float, float] | None = None
    volumes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [" ".join(t for t in (self.modality, self.description) if t) or "no description"]
        count = len(self.files)
        parts.append(f"{count} file{'s' * (count != 1)}")
        if self.slices and self.slices != count:
            parts.append(f"{self.slices} slice{'s' * (self.slices != 1)}")
        if self.spacing is not None:
            parts.append(" x ".join(f"{s:.4g}" for s in self.spacing) + " mm")
        if self.volumes:
            parts.append(f"{len(self.volumes)} volumes")
        return ", ".join([*parts, f"UID {self.uid}"])


@dataclass(frozen=True)
class FoundSeries:
    """A series with the headers of its files, by path.

    Attributes
    ----------
    series : Series
    headers : dict of str to pydicom.Dataset
    """

    series: Series
    headers: dict[str, Any]


def describe(headers: dict[str, Any]) -> FoundSeries:
    """Return a series with what a list of choices says of it."""
    first = next(iter(headers.values()))
    slices, spacing = len(headers), None
    volumes: dict[str, list[Frame]] = {}
    try:
        frames = [f for path, header in headers.items() for f in frames_of(path, header)]
        volumes = split_volumes(frames)
        slices = len(next(iter(volumes.values())))
        spacing = _spacing(next(iter(volumes.values())))
    except MedGSError:
        # A list describes what it can; reading says what is wrong.
        pass
    return FoundSeries(
        Series(
            uid=text(first, "SeriesInstanceUID"),
            description=text(first, "SeriesDescription"),
            modality=text(first, "Modality"),
            files=tuple(headers),
            slices=slices,
            spacing=spacing,
            volumes=tuple(volumes) if len(volumes) > 1 else (),
        ),
        headers,
    )


def _spacing(frames: list[Frame]) -> tuple[float, float, float] | None:
    """Return the median step between slices, and the pixel spacing."""
    first = frames[0]
    if first.spacing is None or any(f.origin is None for f in frames):
        return None
    places = np.sort([f.origin @ first.normal for f in frames if f.origin is not None])
    step = float(np.median(np.diff(places))) if len(places) > 1 else first.thickness
    return (step, float(first.spacing[0]), float(first.spacing[1]))


def describe_contours(path: Path) -> Series:
    """Return the series of a structure set."""
    header = read_header(path)
    return Series(
        text(header, "SeriesInstanceUID"),
        text(header, "SeriesDescription"),
        text(header, "Modality"),
        (str(path),),
    )
