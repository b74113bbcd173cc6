"""Layout of a compressed field: a header with the table of its chunks, then the chunks."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict, dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.records import checked, checked_record, parse_json
from napari_medgs.data.field import FieldInfo
from napari_medgs.errors import FormatVersionError, ParameterError
from napari_medgs.io.codec.columns import Scheme
from napari_medgs.io.codec.model import MOST_COEFFICIENT, Model

MAGIC = b"\x89MGS\r\n\x1a\n"
VERSION = 1
CHUNK = 4096
"""Gaussians in a chunk, at most."""
MOST_HEADER = 64 * 2**20
MOST_CHANNELS = 1000
_FIXED = struct.Struct("<8sHII")
_FARTHEST, LARGEST = 2**31, 3.4e38
_LONGEST_SIDE = 2**21

_USUAL = (
    b'{"info": {"grid": {"shape": [, "affine": [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], '
    b'[0.0, 0.0, 0.0, 1.0]], "source": {"file_axes": , "file_flips": "nifti": {"sform_code": , '
    b'"qform_code": , "xyzt_units": }}}, "slice_axis": 0, "blend": "normalized", "degree": 1, '
    b'"image_channels": ["image"], "intensity_scale": [], "intensity_offset": [0.0], '
    b'"class_names": ["background", "label 1", "label 2"], "label_values": [0, 1, 2, 3], '
    b'"cutoff": 9.0, "eps": 0.001, "params": {"gaussians": null, "iterations": 60, "quality": '
    b'36.0, "time_limit": null, "slice_axis": null, "fold": 3, "blend": "normalized", "loss": '
    b'"l2", "lambda_img": 1.0, "lambda_seg": 1.0, "holdout": null, "interpolate": null, '
    b'"percentiles": [0.5, 99.5], "cutoff": 9.0, "freeze_geometry": false, "mask_slices": null, '
    b'"empty_slices_unlabeled": true, "seed": 0, "threads": null, "backend": "auto", '
    b'"checkpoint": null, "checkpoint_every": 0, "positions_every": 0}, "metrics": {"psnr": , '
    b'"ssim": 0.9, "data_range": "intensities clipped to the 0.5 to 99.5 percentile span, set to '
    b'1", "seconds": , "seconds_fit": , "n_gaussians": , "bytes": , "backend": "cpu", '
    b'"iterations": , "stopped_by": "quality", "dice": {"1": 0.99, "2": 0.99}, "dice_mean": 0.99, '
    b'"compression": {"profile": "small", "step": , "steps": , "loss": , "psnr_before": }}}, '
    b'"main": {"form": "coded", "gaussians": , "degree": 1, "background": [0.0], "scheme": '
    b'{"columns": ["log_r1", "log_r2", "log_rt", "shear", "a1", "b1", "value0"], "steps": '
    b'[0.137], "constants": {"a2": 0.0, "b2": 0.0, "a3": 0.0, "b3": 0.0, "log_weight": 0.0}, '
    b'"axes": [0, 1, 2], "logit_step": 2.0, "fractions": [[, ], [, ]], "extra": {}}, '
    b'"coefficients": [[0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]], "starts": [[, ]], "chunks": [[]], '
    b'"preview": null}'
)
"""Words of headers, from which a short one is compressed to a few hundred bytes."""


@dataclass(frozen=True)
class Chunk:
    """One entry of the table of chunks.

    Attributes
    ----------
    count, length, checksum : int
        Gaussians, bytes, CRC-32 of these.
    corner, size : (int, int, int)
        First cell and number of cells along x, y, t.
    low, high : (int, int, int)
        Voxels x, y, t that its Gaussians reach, the last ones included.
    """

    count: int
    length: int
    checksum: int
    corner: tuple[int, int, int]
    size: tuple[int, int, int]
    low: tuple[int, int, int]
    high: tuple[int, int, int]

    def to_row(self) -> list[int]:
        """Return the numbers in the order of the file."""
        boxes = (*self.corner, *self.size, *self.low, *self.high)
        return [self.count, self.length, self.checksum, *map(int, boxes)]

    @classmethod
    def from_row(cls, row: tuple[int, ...]) -> Chunk:
        """Make an entry of what a file says.

        Raises
        ------
        ParameterError
            When the numbers make no sense.
        """
        if len(row) != 15:
            raise ParameterError("An entry of its table of chunks has a wrong length.")
        count, length, checksum = row[:3]
        triples = [(row[k], row[k + 1], row[k + 2]) for k in (3, 6, 9, 12)]
        far = max(abs(number) for triple in triples for number in triple)
        if not 0 < count <= CHUNK or length < 0 or not 0 <= checksum < 2**32:
            raise ParameterError("A chunk has an impossible number of Gaussians or bytes.")
        if far > _FARTHEST or not all(0 < side <= _LONGEST_SIDE for side in triples[1]):
            raise ParameterError("The box of a chunk makes no sense.")
        return cls(count, length, checksum, *triples)


@dataclass(frozen=True)
class Part:
    """A run of chunks that make one field: the field itself, or its preview.

    Attributes
    ----------
    form : str
        "coded", or "exact" for parameters bit by bit.
    gaussians, degree : int
    background : tuple of float
    chunks : tuple of Chunk
    scheme, model
        Of coded parts.
    """

    form: str
    gaussians: int
    degree: int
    background: tuple[float, ...]
    chunks: tuple[Chunk, ...]
    scheme: Scheme | None = None
    model: Model | None = None

    @property
    def length(self) -> int:
        """Bytes of all chunks."""
        return sum(chunk.length for chunk in self.chunks)

    def to_record(self) -> dict[str, Any]:
        """Return what the header says of the part."""
        record: dict[str, Any] = {
            "form": self.form,
            "gaussians": self.gaussians,
            "degree": self.degree,
            "background": list(self.background),
        }
        if self.scheme is not None and self.model is not None:
            scheme = asdict(self.scheme)
            del scheme["extra"]
            rows = [
                row[: k + 2].tolist() for k, row in enumerate(self.model.coefficients)
            ]  # a column is predicted from earlier ones
            record.update(scheme=scheme, coefficients=rows, starts=self.model.starts.tolist())
        return {**record, "chunks": [chunk.to_row() for chunk in self.chunks]}

    @classmethod
    def from_record(cls, record: Any, info: FieldInfo) -> Part:
        """Make a part of what a header says.

        Raises
        ------
        ParameterError
            When it makes no sense.
        """
        if not isinstance(record, dict):
            raise ParameterError("The description of its Gaussians is missing.")
        rows = checked(list[tuple[int, ...]], record.get("chunks"), "chunks")
        chunks = tuple(Chunk.from_row(row) for row in rows)
        form = checked(str, record.get("form"), "form")
        gaussians = checked(int, record.get("gaussians"), "gaussians")
        degree = checked(int, record.get("degree"), "degree")
        background = checked(tuple[float, ...], record.get("background"), "background")
        if sum(chunk.count for chunk in chunks) != gaussians or not 0 <= degree <= info.degree:
            raise ParameterError("Its chunks hold another number of Gaussians than it says.")
        if len(background) != info.channels or info.channels > MOST_CHANNELS:
            raise ParameterError("Its background has another number of channels.")
        if any(abs(number) > LARGEST for number in background):
            raise ParameterError("Its background is out of range.")
        least = [chunk.length * 64 < chunk.count * (16 + info.channels) for chunk in chunks]
        if any(least):
            raise ParameterError("A chunk promises more Gaussians than its bytes can hold.")
        part = cls(form, gaussians, degree, background, chunks)
        if form == "exact":
            return part
        if form != "coded":
            raise ParameterError(f"It is in an unknown form, {form[:40]!r}.")
        scheme = checked_record(Scheme, record.get("scheme"), "scheme")
        scheme.check(info)
        kept = len(scheme.columns)
        starts = checked(list[tuple[int, int]], record.get("starts"), "starts")
        lines = checked(list[tuple[int, ...]], record.get("coefficients"), "coefficients")
        if [len(line) for line in lines] != [k + 2 for k in range(kept)] or len(
            starts
        ) != kept + 1:
            raise ParameterError("The model of its columns has a wrong size.")
        coefficients = np.zeros((kept, kept + 2), np.int64)
        for k, line in enumerate(lines):
            if abs(line[0]) > 2**46 or max(map(abs, line[1:])) > MOST_COEFFICIENT:
                raise ParameterError("The model of its columns holds numbers out of range.")
            coefficients[k, : k + 2] = line
        if any(not 64 <= number <= 65472 for pair in starts for number in pair):
            raise ParameterError("The model of its columns holds chances out of range.")
        model = Model(coefficients, np.asarray(starts, np.int64).reshape(-1, 2))
        return cls(form, gaussians, degree, background, chunks, scheme, model)


@dataclass(frozen=True)
class Header:
    """What stands before the chunks.

    Attributes
    ----------
    info : FieldInfo
    main : Part
    preview : Part or None
        A field of few Gaussians, which comes first.
    notes : dict
        Additional entries.
    length : int
        Bytes of the file until the first chunk; 0 before it is written.
    """

    info: FieldInfo
    main: Part
    preview: Part | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    length: int = 0

    def offset(self, preview: bool) -> int:
        """Return where the chunks of a part begin."""
        before = self.preview.length if self.preview is not None and not preview else 0
        return self.length + before

    @property
    def total(self) -> int:
        """Bytes of the whole file."""
        return self.offset(preview=False) + self.main.length

    def to_bytes(self, info_record: dict[str, Any]) -> bytes:
        """Return what stands before the chunks."""
        record = {
            "info": info_record,
            "main": self.main.to_record(),
            "preview": None if self.preview is None else self.preview.to_record(),
            **({"notes": self.notes} if self.notes else {}),
        }
        return pack_record(record)


def pack_record(record: dict[str, Any], magic: bytes = MAGIC, version: int = VERSION) -> bytes:
    """Return the bytes of a header."""
    packer = zlib.compressobj(9, wbits=-15, zdict=_USUAL)
    packed = packer.compress(json.dumps(record).encode()) + packer.flush()
    return _FIXED.pack(magic, version, len(packed), zlib.crc32(packed)) + packed


def unpack_record(
    opened: IO[bytes],
    size: int,
    magic: bytes = MAGIC,
    kind: str = "compressed field",
    versions: tuple[int, ...] = (VERSION,),
) -> tuple[Any, int]:
    """Read a header; return its JSON value and the number of its bytes.

    Parameters
    ----------
    opened : binary file
        At its beginning.
    size : int
        Bytes of the file.
    magic : bytes
        How the file begins.
    kind : str
        What it is, for messages.
    versions : tuple of int
        That are read.

    Raises
    ------
    FormatVersionError
        When it has another version.
    ValueError
        When it is something else or damaged.
    """
    fixed = opened.read(_FIXED.size)
    if len(fixed) < _FIXED.size or not fixed.startswith(magic):
        raise ValueError(f"it does not begin as a {kind} does")
    _, version, length, checksum = _FIXED.unpack(fixed)
    if version not in versions:
        raise FormatVersionError(
            f"{kind} version {version}; this program reads version {max(versions)}. Update "
            "napari-medgs to open it."
        )
    if length > min(MOST_HEADER, size - _FIXED.size):
        raise ValueError("its header is longer than the file")
    packed = opened.read(length)
    if zlib.crc32(packed) != checksum:
        raise ValueError("the checksum of its header is another")
    unpacker = zlib.decompressobj(wbits=-15, zdict=_USUAL)
    try:
        text = unpacker.decompress(packed, MOST_HEADER)
    except zlib.error as error:
        raise ValueError(f"its header cannot be decompressed: {error}") from None
    if not unpacker.eof:
        raise ValueError("its header is larger than it can be")
    return parse_json(text), _FIXED.size + length


def read_header(opened: IO[bytes], size: int) -> Header:
    """Read and check what stands before the chunks.

    Parameters
    ----------
    opened : binary file
        At its beginning.
    size : int
        Bytes of the file.

    Raises
    ------
    FormatVersionError
        When it has another version.
    ValueError, ParameterError
        When it is no compressed field or damaged.
    """
    record, length = unpack_record(opened, size)
    if not isinstance(record, dict):
        raise ValueError("its header is no object")
    info = FieldInfo.from_dict(record.get("info"))
    main = Part.from_record(record.get("main"), info)
    preview = record.get("preview")
    header = Header(
        info,
        main,
        None if preview is None else Part.from_record(preview, info),
        checked(dict[str, Any], record.get("notes", {}), "notes"),
        length,
    )
    if header.total != size:
        raise ValueError(f"it has {size:,} bytes where its header promises {header.total:,}")
    return header


def reach(field_arrays: Any, cutoff: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the voxels that each Gaussian can reach, along x, y, t, ends included.

    Parameters
    ----------
    field_arrays : GaussianField
    cutoff : float

    Returns
    -------
    low, high : (N, 3) ndarray of int64
    """
    r1, r2, rt = np.exp(field_arrays.log_precision.astype(np.float64)).T
    radius = np.sqrt(cutoff)
    along = radius / rt
    fold = np.abs(field_arrays.fold.astype(np.float64))
    bend = sum(fold[:, k] * along[:, None] ** (k + 1) for k in range(3))
    shear = field_arrays.shear.astype(np.float64)
    half = np.stack(
        [
            radius * np.sqrt(1 / r1**2 + (shear / r2) ** 2) + bend[:, 0],
            radius / r2 + bend[:, 1],
            along,
        ],
        -1,
    )
    centers = field_arrays.centers.astype(np.float64)
    limit = _FARTHEST - 1
    low = np.clip(np.floor(centers - half * 1.001 - 0.01), -limit, limit)
    high = np.clip(np.ceil(centers + half * 1.001 + 0.01), -limit, limit)
    return low.astype(np.int64), high.astype(np.int64)
