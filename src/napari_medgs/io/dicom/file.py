"""Single DICOM files: headers by pydicom, checked against the size of the file."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import FileError
from napari_medgs.io._limits import check_claim

_KEYWORDS = (
    "Modality",
    "SeriesDescription",
    "SeriesInstanceUID",
    "InstanceNumber",
    "ImagePositionPatient",
    "SliceThickness",
    "SpacingBetweenSlices",
    "BitsAllocated",
)
"""The attributes that are read; see the data dictionary, DICOM PS3.6."""


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
        Position of the first pixel and the axes' unit vectors, LPS.
    placed : bool
        The file states its position.
    number : int
        Instance number.
    components, itemsize : int
        Values per pixel, and bytes of one after rescaling.
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


def read_header(file: str | Path) -> Any:
    """Read the attributes of a file that this package uses, no pixels.

    Parameters
    ----------
    file : str or Path

    Returns
    -------
    pydicom.Dataset
        Empty where nothing can be read; whether the file is an image, the pixel reader tells.
    """
    import pydicom

    try:
        return pydicom.dcmread(
            file, stop_before_pixels=True, force=True, specific_tags=list(_KEYWORDS)
        )
    except Exception:  # pydicom raises many kinds for damaged files, struct.error among them
        return pydicom.Dataset()


def attribute_text(header: Any, keyword: str) -> str:
    """Return an attribute's text, empty where it is absent or damaged.

    Parameters
    ----------
    header : pydicom.Dataset
    keyword : str
        Such as "Modality".
    """
    try:
        value = header.get(keyword)
        return "" if value is None else str(value).strip(" \0")
    except Exception:  # values are converted here, at first use
        return ""


def _positive_number(header: Any, keyword: str) -> float:
    """Return a positive attribute, 0 where there is none."""
    try:
        value = float(attribute_text(header, keyword))
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def sop_class(file: str | Path) -> str:
    """Return the UID of the kind of object that a file holds, empty where it does not say."""
    return _meta_text(read_header(file), "MediaStorageSOPClassUID")


def _meta_text(header: Any, keyword: str) -> str:
    """Return a text of the file meta information (group 0002)."""
    return attribute_text(getattr(header, "file_meta", None) or {}, keyword)


def _is_uncompressed(header: Any) -> bool:
    """Tell whether the transfer syntax stores pixels as they are."""
    from pydicom.uid import UncompressedTransferSyntaxes

    deflated = "1.2.840.10008.1.2.1.99"
    syntax = _meta_text(header, "TransferSyntaxUID")
    return syntax in UncompressedTransferSyntaxes and syntax != deflated


def read_info(file: str) -> Slice:
    """Read the header of one file.

    Parameters
    ----------
    file : str

    Returns
    -------
    Slice

    Raises
    ------
    FileError
        When it is no image, or its header promises more pixels than the file can hold.
    """
    import SimpleITK as sitk

    reader = open_header(file)
    if reader is None:
        raise FileError(f"{file}: cannot be read as a DICOM image; truncated or damaged.")
    size = (*reader.GetSize(), 1)[:3]
    spacing = (*reader.GetSpacing(), 1.0)[:3]
    dims = reader.GetDimension()
    direction = np.asarray(reader.GetDirection()).reshape(dims, dims)
    header = read_header(file)
    number = attribute_text(header, "InstanceNumber")
    components = reader.GetNumberOfComponents()
    probe = sitk.Image([1, 1], reader.GetPixelID()) if components == 1 else None
    # At least one bit per pixel, whatever the compression.
    bits = int(_positive_number(header, "BitsAllocated")) or 8
    plain = _is_uncompressed(header)
    claimed = math.prod(size) * components * (bits if plain else 1) // 8
    check_claim(file, claimed, Path(file).stat().st_size, deflated=not plain)
    return Slice(
        path=file,
        size=(size[0], size[1], size[2]),
        spacing=(spacing[0], spacing[1], spacing[2]),
        origin=np.asarray(reader.GetOrigin(), dtype=np.float64)[:3],
        direction=direction[:3, :3],
        # Files with several frames keep their positions elsewhere; ITK has found them.
        placed=size[2] > 1 or bool(attribute_text(header, "ImagePositionPatient")),
        number=int(number) if number.lstrip("-").isdigit() else 0,
        components=components,
        itemsize=1 if probe is None else probe.GetSizeOfPixelComponent(),
        thickness=_positive_number(header, "SpacingBetweenSlices")
        or _positive_number(header, "SliceThickness")
        or 1.0,
    )


@contextmanager
def no_library_warnings() -> Iterator[None]:
    """Keep the warnings of ITK and pydicom off the terminal; ours say what matters."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pydicom")
            yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
