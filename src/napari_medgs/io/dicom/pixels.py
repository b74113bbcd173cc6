"""Pixel values of DICOM frames: decoded, and rescaled frame by frame."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import FileError
from napari_medgs.io._limits import check_memory
from napari_medgs.io.dicom.file import no_library_warnings, no_native_messages
from napari_medgs.io.dicom.frames import Frame
from napari_medgs.io.dicom.header import integer, quiet_pydicom, transfer_syntax, value

_DECODED_BY_PYDICOM = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5",  # RLE, of which GDCM refuses odd numbers of pixels.
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def read_pixels(path: Path, frames: Sequence[Frame]) -> NDArray[Any]:
    """Read frames as one stack of rescaled values.

    Parameters
    ----------
    path : Path
        For messages.
    frames : sequence of Frame
        In the order of the stack, all of one shape.

    Returns
    -------
    (columns, rows, slices) ndarray
        Integers where slopes and intercepts are whole numbers, else float32.

    Raises
    ------
    FileError
        When a file is truncated or damaged, or its encoding cannot be decoded.
    MemoryEstimateError
        When the stack would not fit into memory.

    Notes
    -----
    MONOCHROME1 says how values are displayed (low ones white), after all transformations of the
    values (PS3.3 C.7.6.3.1.2); stored values and rescaling (C.11.1) are not changed by it.
    """
    rows, columns = frames[0].shape
    check_memory(path, 3 * rows * columns * len(frames) * 3)
    stack: NDArray[Any] | None = None
    stored: NDArray[Any] = np.empty(0)
    opened, limits = "", (0, 0)
    for k, frame in enumerate(frames):
        if frame.path != opened:
            stored, limits = _decode(frame.path)
            opened = frame.path
            if tuple(stored.shape) != (frame.count, rows, columns):
                raise FileError(f"{frame.path}: truncated or damaged slice; replace or remove it.")
        values = stored[frame.index]
        if frame.table is None:
            values = rescale(values, frame.slope, frame.intercept, limits)
        else:
            place = np.clip(values.astype(np.int64) - frame.first, 0, len(frame.table) - 1)
            values = frame.table[place]
        if stack is None:
            stack = np.empty((len(frames), rows, columns), values.dtype)
        elif np.result_type(stack.dtype, values.dtype) != stack.dtype:
            # Slices may rescale differently (PET does): one type has to hold them all.
            stack = stack.astype(_joint_type(stack.dtype, values.dtype))
        stack[k] = values
    if stack is None:
        raise FileError(f"{path}: no slice was found.")
    return stack.transpose(2, 1, 0)


def _joint_type(one: np.dtype[Any], other: np.dtype[Any]) -> np.dtype[Any]:
    joint = np.result_type(one, other)
    return np.dtype(np.float32) if joint.kind == "f" else joint


def rescale(
    stored: NDArray[Any], slope: float, intercept: float, limits: tuple[int, int]
) -> NDArray[Any]:
    """Return ``slope * stored + intercept``.

    Parameters
    ----------
    stored : ndarray
    slope, intercept : float
    limits : (int, int)
        The lowest and highest value that can be stored, from which the type follows.

    Returns
    -------
    ndarray
        The smallest integer type that holds every possible value, or float32 where slope or
        intercept are no whole numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.io.dicom.pixels import rescale
    >>> rescale(np.array([0, 4095], np.uint16), 1, -1024, (0, 4095)).tolist()
    [-1024, 3071]
    """
    if stored.dtype.kind == "f":
        if (slope, intercept) == (1, 0):
            return stored.astype(np.float32, copy=False)
        return (stored.astype(np.float64) * slope + intercept).astype(np.float32)
    if (slope, intercept) == (1, 0):
        return stored
    if slope == int(slope) and intercept == int(intercept):
        ends = sorted(int(slope) * end + int(intercept) for end in limits)
        kinds = (np.uint8, np.uint16, np.uint32) if ends[0] >= 0 else (np.int8, np.int16, np.int32)
        for kind in kinds:
            if np.iinfo(kind).min <= ends[0] and ends[1] <= np.iinfo(kind).max:
                whole = stored.astype(np.int64) * int(slope) + int(intercept)
                return whole.astype(kind)
    return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def decode_file(path: str | Path) -> NDArray[Any]:
    """Return the stored values of a file, (frames, rows, columns).

    Raises
    ------
    FileError
        When the file is truncated or damaged, or its encoding cannot be decoded.
    """
    return _decode(str(path))[0]


def _decode(path: str) -> tuple[NDArray[Any], tuple[int, int]]:
    import pydicom

    with quiet_pydicom():
        try:
            data = pydicom.dcmread(path, force=True)
            bits = integer(data, "BitsStored") or integer(data, "BitsAllocated", 8)
            signed = integer(data, "PixelRepresentation") == 1
            limits = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
            syntax = transfer_syntax(data)
            if value(data.file_meta, "TransferSyntaxUID") is None:
                data.file_meta.TransferSyntaxUID = syntax
            by_pydicom = syntax in _DECODED_BY_PYDICOM
            array = _plain(data) if by_pydicom else _compressed(data)
        except FileError:
            raise
        except Exception as error:  # Damaged pixels raise many kinds.
            raise FileError(
                f"{path}: truncated or damaged slice; replace or remove it."
            ) from error
    rows, columns = integer(data, "Rows"), integer(data, "Columns")
    if rows < 1 or columns < 1 or array.size % (rows * columns):
        raise FileError(f"{path}: truncated or damaged slice; replace or remove it.")
    return array.reshape(-1, rows, columns), limits


def _plain(data: Any) -> NDArray[Any]:
    """Return values that pydicom decodes: any byte order, packed bits, floats, RLE."""
    array = np.asarray(data.pixel_array)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _compressed(data: Any) -> NDArray[Any]:
    """Return values of JPEG, JPEG-LS and JPEG 2000, by GDCM.

    It gets a file without rescaling and displayed as MONOCHROME2, for it would apply one rescaling
    to all frames, and invert MONOCHROME1.
    """
    import pydicom
    import SimpleITK as sitk

    if value(data, "PixelData") is None:
        raise ValueError("no pixels")
    plain = pydicom.Dataset()
    for keyword in (
        "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
        "HighBit", "PixelRepresentation", "PixelData",
    ):  # fmt: skip
        if keyword in data:
            plain[keyword] = data[keyword]
    plain.PhotometricInterpretation = "MONOCHROME2"
    plain.SOPClassUID = _SECONDARY_CAPTURE
    if integer(data, "NumberOfFrames", 1) > 1:
        plain.SOPClassUID += ".3" if integer(data, "BitsAllocated") > 8 else ".2"
    plain.SOPInstanceUID = "1.2.3"
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = plain.SOPClassUID, "1.2.3"
    meta.TransferSyntaxUID = transfer_syntax(data)
    plain.file_meta = meta
    with tempfile.TemporaryDirectory(prefix="medgs-") as folder, no_library_warnings():
        file = str(Path(folder) / "pixels.dcm")
        plain.save_as(file, enforce_file_format=True)
        with no_native_messages():
            image = sitk.ReadImage(file, imageIO="GDCMImageIO")
        return sitk.GetArrayFromImage(image)
