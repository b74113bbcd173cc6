"""NIfTI headers: read and doubted before use, kept in JSON, and made again bit for bit."""

from __future__ import annotations

import gzip
import math
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.orientation import is_usable
from napari_medgs.errors import FileError, GeometryError, ImageError
from napari_medgs.io._limits import check_claim, check_file

_RGB_CODES = (128, 2304)
_COMPLEX_CODES = (32, 1792, 2048)
_SPACE_MM = {1: 1e3, 2: 1.0, 3: 1e-3}
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
    packed = path.name.lower().endswith(".gz")
    return cast(IO[bytes], gzip.open(path, "rb") if packed else path.open("rb"))


def read_header(path: str | Path) -> NiftiHeader:
    """Read and check the header of a NIfTI-1 or NIfTI-2 file.

    Raises
    ------
    FileError
        When the file is missing, empty, truncated, no NIfTI, or its header is impossible.
    ImageError
        When it holds colours, complex numbers, or other than 2 to 4 axes.
    """
    import nibabel as nib

    path = check_file(path, "a NIfTI file")
    compressed = path.name.lower().endswith(".gz")
    try:
        with open_nifti(path) as opened:
            start = opened.read(540)
    except (OSError, EOFError, zlib.error) as error:
        what = "not a gzip file" if isinstance(error, gzip.BadGzipFile) else f"truncated ({error})"
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
        raise FileError(f"{path}: not a NIfTI image, or its header is damaged.")
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
    if not 2 <= len(shape) <= 4:
        hint = " Drop axes of size 1 first." if 1 in shape[3:] else ""
        raise ImageError(
            f"{path}: the image has {len(shape)} axes {shape}; 2, 3 or 4 (channels last) are "
            f"read.{hint}"
        )
    return shape


def _dtype(path: Path, header: Any) -> np.dtype[Any]:
    """Return the stored type, refusing what is not plain grey values."""
    from nibabel.spatialimages import HeaderDataError

    code = int(header["datatype"])
    if code in _RGB_CODES:
        raise ImageError(f"{path}: the image holds RGB colours; convert it to grey values.")
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


def header_affine(
    path: str | Path,
    header: Any,
    shape: tuple[int, ...],
    *,
    spacing: tuple[float, float, float] | None,
    assume_identity: bool,
) -> tuple[NDArray[np.float64], bool]:
    """Return a file's affine (i, j, k, 1) to RAS mm, and whether it had to be assumed.

    The sform counts before the qform. Lengths are converted when the file says metres or
    micrometres.

    Raises
    ------
    GeometryError
        When there is no usable affine and neither a spacing nor ``assume_identity`` is given, or
        a spacing contradicts the file's.
    """
    factor = _SPACE_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    scale = np.diag([factor, factor, factor, 1.0])
    declared: list[tuple[str, NDArray[np.float64] | None]] = []
    if int(header["sform_code"]) > 0:
        declared.append(("sform", _sform(header)))
    if int(header["qform_code"]) > 0:
        declared.append(("qform", _qform(header)))
    usable = [(name, a) for name, a in declared if a is not None and is_usable(a)]
    if usable:
        name, affine = usable[0]
        if name != declared[0][0]:
            warnings.warn(f"{path}: the sform is singular; the qform is used.", stacklevel=3)
        affine = scale @ affine
        if spacing is not None:
            own = np.linalg.norm(affine[:3, :3], axis=0)
            if not np.allclose(sorted(own), sorted(spacing), rtol=1e-3):
                raise GeometryError(
                    f"{path}: has its own spacing {_times(own)} mm, which the spacing "
                    f"{_times(np.asarray(spacing))} contradicts. A spacing is only for files "
                    "without geometry."
                )
        return affine, False
    why = (
        "its affine is singular" if declared else "it has no affine (sform and qform are not set)"
    )
    if spacing is not None:
        z, y, x = (float(s) for s in spacing)
        sizes = np.array([x, y, z])
    elif assume_identity:
        pixdim = np.asarray(header["pixdim"], dtype=np.float64)[1:4]
        good = np.isfinite(pixdim) & (pixdim > 0)
        sizes = np.where(good, np.where(good, pixdim, 1.0) * factor, 1.0)
        warnings.warn(
            f"{path}: {why}; orientation RAS and {_times(sizes)} mm voxels are assumed.",
            stacklevel=3,
        )
    else:
        raise GeometryError(
            f"{path}: {why}, so its place and voxel size are unknown. Give the spacing in mm, or "
            "allow an assumed identity orientation."
        )
    return np.diag([*sizes, 1.0]), True


def _sform(header: Any) -> NDArray[np.float64]:
    rows = [np.asarray(header[f"srow_{c}"], dtype=np.float64) for c in "xyz"]
    return np.vstack([*rows, [0, 0, 0, 1]])


def _qform(header: Any) -> NDArray[np.float64] | None:
    from nibabel.spatialimages import HeaderDataError

    try:
        return np.asarray(header.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError, FloatingPointError):
        return None


def _times(sizes: NDArray[Any]) -> str:
    return " x ".join(f"{s:.4g}" for s in sizes)


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
    header["descrip"] = b"napari-medgs"
    if record:
        try:
            for name in (*_SCALARS, *_FLOATS, *_VECTORS):
                header[name] = record[name]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise GeometryError(f"The record of the source file is damaged ({error}).") from error
    return header
