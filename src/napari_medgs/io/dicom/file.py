"""Single DICOM files: what their headers say, and whether that can be true."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import FileError
from napari_medgs.io._limits import check_claim

_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
SOP_CLASS, _TRANSFER_SYNTAX = b"\x02\0\x02\0UI", b"\x02\0\x10\0UI"


@dataclass(frozen=True)
class Slice:
    """The header of one file.

    Attributes
    ----------
    path : str
    size : tuple of int
        Pixels along a row and a column, and frames.
    spacing, thickness : float
        In mm; ``thickness`` is the slice spacing where a lone slice says it.
    origin, direction : ndarray
        Place of the first pixel and the axes' unit vectors, LPS.
    placed : bool
        The file says where it lies.
    number : int
        Instance number.
    components, itemsize : int
        Values a pixel, and bytes of one after rescaling.
    """

    path: str
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: NDArray[np.float64]
    direction: NDArray[np.float64]
    placed: bool
    number: int
    components: int
    itemsize: int
    thickness: float

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the slice, LPS."""
        return np.cross(self.direction[:, 0], self.direction[:, 1])


def is_dicom_file(path: Path) -> bool:
    """Tell by its first bytes, or its suffix, whether a file is DICOM."""
    try:
        with path.open("rb") as opened:
            start = opened.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or (path.suffix.lower() in (".dcm", ".ima") and bool(start))


def open_header(file: str) -> Any | None:
    """Return a reader that has read a file's header, None when it is no image."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return reader


def read_tag(reader: Any, tag: str) -> str:
    """Return a tag's text (``"0008|0060"``), empty where the file has none."""
    return str(reader.GetMetaData(tag)).strip(" \0") if reader.HasMetaDataKey(tag) else ""


def _positive(reader: Any, tag: str) -> float:
    """Return a positive number, 0 where there is none."""
    try:
        value = float(read_tag(reader, tag))
    except ValueError:
        return 0.0
    return value if np.isfinite(value) and value > 0 else 0.0


def meta_uid(file: str | Path, element: bytes) -> str:
    """Return a UID of a file's meta information, which the toolkit does not tell."""
    with Path(file).open("rb") as opened:
        start = opened.read(4096)
    at = start.find(element, 128)
    if at < 0 or start[128:132] != b"DICM":
        return ""
    at += len(element)
    length = int.from_bytes(start[at : at + 2], "little")
    return start[at + 2 : at + 2 + length].decode("ascii", "replace").strip(" \0")


def read_info(file: str) -> Slice:
    """Read the header of one file."""
    import SimpleITK as sitk

    reader = open_header(file)
    if reader is None:
        raise FileError(f"{file}: cannot be read as a DICOM image; truncated or damaged.")
    size = (*reader.GetSize(), 1)[:3]
    spacing = (*reader.GetSpacing(), 1.0)[:3]
    dims = reader.GetDimension()
    direction = np.asarray(reader.GetDirection()).reshape(dims, dims)
    number = read_tag(reader, "0020|0013")
    components = reader.GetNumberOfComponents()
    probe = sitk.Image([1, 1], reader.GetPixelID()) if components == 1 else None
    # One bit a pixel at the least, whatever the compression.
    bits = int(_positive(reader, "0028|0100")) or 8
    plain = meta_uid(file, _TRANSFER_SYNTAX) in _UNCOMPRESSED
    claimed = math.prod(size) * components * (bits if plain else 1) // 8
    check_claim(file, claimed, Path(file).stat().st_size, deflated=not plain)
    return Slice(
        path=file,
        size=(size[0], size[1], size[2]),
        spacing=(spacing[0], spacing[1], spacing[2]),
        origin=np.asarray(reader.GetOrigin(), dtype=np.float64)[:3],
        direction=direction[:3, :3],
        # Files with several frames keep their places elsewhere; ITK has found them.
        placed=size[2] > 1 or bool(read_tag(reader, "0020|0032")),
        number=int(number) if number.lstrip("-").isdigit() else 0,
        components=components,
        itemsize=1 if probe is None else probe.GetSizeOfPixelComponent(),
        thickness=_positive(reader, "0018|0088") or _positive(reader, "0018|0050") or 1.0,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep ITK's warnings off the terminal; ours say what matters."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
