"""NIfTI headers: read and doubted before use, kept in JSON, and made again bit for bit."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from napari_medgs.data.orientation import is_usable
from napari_medgs.errors import FileError, GeometryError, ImageError
from napari_medgs.io._content import known_content
from napari_medgs.io._limits import check_claim, check_file
from napari_medgs.io.fourth_axis import FourthAxis, Says, fourth_axis

GZIP_MAGIC = b"\x1f\x8b"
_RGB_CODES = (128, 2304)
_COMPLEX_CODES = (32, 1792, 2048)
_TIME_SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}
_SPECTRAL_UNITS = (32, 40, 48)
_INTENT_TIME_SERIES = 2001
_INTENT_CHANNELS = (1004, 1005, 1006, 1007, 2003, 2004)  # matrices, vectors, colors
_DESCRIPTION = b"napari-medgs"
_SCALARS = ("sform_code", "qform_code", "xyzt_units")
_FLOATS = (
    *(f"quatern_{c}" for c in "bcd"),
    *(f"qoffset_{c}" for c in "xyz"),
)
_VECTORS = ("srow_x", "srow_y", "srow_z", "pixdim")


@dataclass(frozen=True)
class NiftiHeader:
    """A header that has been checked against its file.

    Attributes
    ----------
    header : nibabel header
    shape : tuple of int
        2 to 4 sizes, as the file has them.
    dtype : numpy dtype
        Of the stored values.
    offset : int
        First byte of the values in the decompressed file.
    slope, intercept : float
        Value = stored x slope + intercept.
    compressed : bool
    """

    header: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    compressed: bool

    @property
    def scaled(self) -> bool:
        """Tell whether stored values differ from the image's."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored values."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_nifti(path: Path) -> IO[bytes]:
    """Open a NIfTI file for reading, decompressed."""
    return cast(IO[bytes], gzip.open(path, "rb") if _is_packed(path) else path.open("rb"))


def _is_packed(path: Path) -> bool:
    """Tell whether a file is gzip: by its content, as some are named .nii all the same."""
    if path.name.lower().endswith(".gz"):
        return True
    with path.open("rb") as opened:
        return opened.read(2) == GZIP_MAGIC


def read_header(path: str | Path) -> NiftiHeader:
    """Read and check the header of a NIfTI-1 or NIfTI-2 file.

    Raises
    ------
    FileError
        When the file is missing, empty, truncated, no NIfTI, or its header is impossible.
    ImageError
        When it holds colors, complex numbers, or other than 2 to 4 axes.
    """
    import nibabel as nib

    path = check_file(path, "a NIfTI file")
    compressed = _is_packed(path)
    try:
        with open_nifti(path) as opened:
            start = opened.read(540)
    except (OSError, EOFError, zlib.error) as error:
        what = f"truncated ({error})"
        if isinstance(error, gzip.BadGzipFile):
            kind = known_content(path)
            what = f"not a gzip file but {kind}; rename it" if kind else "not a gzip file"
        raise FileError(f"{path}: cannot be read as .nii.gz: {what}.") from error
    magic1, magic2 = start[344:348], start[4:12]
    sizes = {order: int.from_bytes(start[:4], order) for order in ("little", "big")}
    if 540 in sizes.values() and magic2[:3] in (b"n+2", b"ni2"):
        kind, length, magic = nib.Nifti2Header, 540, magic2[:3]
    elif 348 in sizes.values() and magic1[:3] in (b"n+1", b"ni1"):
        kind, length, magic = nib.Nifti1Header, 348, magic1[:3]
    elif 348 in sizes.values() and len(start) >= 348:
        raise FileError(
            f"{path}: an Analyze 7.5 file, which does not say where it lies; convert it to NIfTI."
        )
    else:
        kind_found = None if compressed else known_content(path)
        other = (
            f"not a NIfTI image but {kind_found}; rename it"
            if kind_found
            else ("not a NIfTI image, or its header is damaged")
        )
        raise FileError(f"{path}: {other}.")
    if magic.startswith(b"ni"):
        raise FileError(
            f"{path}: a header whose image lies in another file; convert the pair to one .nii."
        )
    if len(start) < length:
        raise FileError(f"{path}: truncated within the header.")
    order = "<" if length == sizes["little"] else ">"
    header = kind(start[:length], endianness=order, check=False)
    shape = _shape(path, header)
    dtype = _dtype(path, header)
    position = float(header["vox_offset"])
    if not (math.isfinite(position) and length <= position <= 2**40):
        raise FileError(f"{path}: damaged header: the image cannot start at byte {position:g}.")
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not math.isfinite(slope) or slope == 0:
        slope, intercept = 1.0, 0.0
    elif not math.isfinite(intercept):
        raise FileError(f"{path}: damaged header: scl_inter is {intercept}.")
    result = NiftiHeader(header, shape, dtype, int(position), slope, intercept, compressed)
    stored = path.stat().st_size
    check_claim(path, result.offset + result.nbytes, stored, deflated=compressed)
    return result


def has_channels(path: str | Path) -> bool:
    """Tell whether a NIfTI file has a fourth axis of more than one entry.

    Raises
    ------
    FileError, ImageError
        As :func:`read_header`.
    """
    return math.prod(read_header(path).shape[3:]) > 1


def _shape(path: Path, header: Any) -> tuple[int, ...]:
    """Return the sizes of a header, refusing impossible and unsupported ones."""
    dim = [int(n) for n in header["dim"]]
    if not 1 <= dim[0] <= 7 or any(n < 0 for n in dim[1 : dim[0] + 1]):
        raise FileError(f"{path}: damaged header: its dimensions are {dim}.")
    shape = tuple(dim[1 : dim[0] + 1])
    if 0 in shape:
        raise ImageError(f"{path}: the image is empty: its shape is {shape}.")
    plain = plain_shape(shape)
    if plain is None:
        raise ImageError(
            f"{path}: the image has {len(shape)} axes {shape}; x, y, z and one more of contrasts "
            "or time are read."
        )
    return plain


def plain_shape(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return a NIfTI shape as 2 to 4 sizes, None where more than four axes have entries.

    Axes of length 1 at the end are dropped, and so is one before a fifth axis, which holds the
    components of each voxel.

    Examples
    --------
    >>> plain_shape((4, 5, 6, 1, 1)), plain_shape((4, 5, 6, 1, 3)), plain_shape((4, 5, 6, 2, 3))
    ((4, 5, 6, 1), (4, 5, 6, 3), None)
    """
    more = [n for n in shape[4:] if n > 1]
    if len(shape) < 2 or len(more) > 1 or (more and shape[3] > 1):
        return None
    return shape[:4] if not more else (*shape[:3], more[0])


def header_axis(header: Any, shape: tuple[int, ...]) -> FourthAxis:
    """Return what the fourth axis of a NIfTI file holds.

    A unit of time alone says nothing, nor does a step of 1: many programs write both into every
    header.

    Parameters
    ----------
    header : nibabel header
    shape : tuple of int
        2 to 4 sizes.
    """
    units = int(header["xyzt_units"]) & 0x38
    step = float(header["pixdim"][4]) * _TIME_SECONDS.get(units, math.nan)
    known = math.isfinite(step) and step > 0
    says: Says = None
    intent = int(header["intent_code"])
    components = max([1, *(int(n) for n in header["dim"][5:8])]) > 1 and int(header["dim"][0]) > 4
    if components or intent in _INTENT_CHANNELS or _is_ours(header):
        says = "channels"
    elif (
        intent == _INTENT_TIME_SERIES
        or units in _SPECTRAL_UNITS
        or (known and float(header["pixdim"][4]) != 1)
    ):
        says = "volumes"
    return fourth_axis(math.prod(shape[3:]), says, step if known else None)


def _is_ours(header: Any) -> bool:
    return bytes(header["descrip"].tobytes()).rstrip(b"\0") == _DESCRIPTION


def _dtype(path: Path, header: Any) -> np.dtype[Any]:
    """Return the stored type, refusing what is not plain gray values."""
    from nibabel.spatialimages import HeaderDataError

    code = int(header["datatype"])
    if code in _RGB_CODES:
        raise ImageError(f"{path}: the image holds RGB colors; convert it to gray values.")
    if code in _COMPLEX_CODES:
        raise ImageError(f"{path}: the image is complex; take its magnitude first.")
    try:
        dtype = np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError, TypeError) as error:
        raise FileError(f"{path}: damaged header: unknown data type {code}.") from error
    if dtype.kind not in "iuf" or dtype.itemsize == 0:
        raise FileError(f"{path}: values of NIfTI type {code} cannot be read.")
    bits = int(header["bitpix"])
    if bits not in (0, 8 * dtype.itemsize):
        raise FileError(
            f"{path}: damaged header: {bits} bits a voxel do not fit its type {dtype.name}."
        )
    return dtype


def header_record(header: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return what of a header must come back bit for bit, as JSON knows it.

    float32 numbers survive as JSON's float64; what is not finite becomes 0.
    """

    def plain(value: Any) -> Any:
        return np.nan_to_num(np.float64(value), posinf=0.0, neginf=0.0).tolist()

    record: dict[str, Any] = {
        "version": 2 if int(header["sizeof_hdr"]) == 540 else 1,
        # A mask of several channels has three axes; of one channel, as many as its image.
        "dims": 3 if len(shape) == 4 and shape[3] > 1 else len(shape),
    }
    for name in _SCALARS:
        record[name] = int(header[name])
    for name in (*_FLOATS, *_VECTORS):
        record[name] = plain(header[name])
    rows = [np.asarray(header[f"srow_{c}"], dtype=np.float64) for c in "xyz"]
    if int(header["qform_code"]) > 0 and not is_usable(np.vstack([*rows, [0, 0, 0, 1]])):
        # The qform was taken; other programs would take the singular sform of a result.
        record["sform_code"] = 0
    return record


def make_header(
    record: dict[str, Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Any:
    """Make a little-endian header with a record's geometry; the caller sets any other.

    Raises
    ------
    GeometryError
        When the record is damaged.
    """
    import nibabel as nib

    record = record or {}
    large = max(shape) > 32767
    kind = nib.Nifti2Header if large or record.get("version") == 2 else nib.Nifti1Header
    header = kind(endianness="<")
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["descrip"] = _DESCRIPTION
    if record:
        try:
            for name in (*_SCALARS, *_FLOATS, *_VECTORS):
                header[name] = record[name]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise GeometryError(f"The record of the source file is damaged ({error}).") from error
    return header
