"""Arrays as they travel: a checked header and blosc2 chunks; nothing in them is executed.

Layout, little-endian: ``NNIA``, version (u8), codec (u8: 1 ZSTD, 2 LZ4), number of dimensions
(u8), length of the type's name (u8), the name, the shape (i64 each), number of chunks (u32), and
for each chunk its raw and packed lengths (u64 each) and a blosc2 frame. All lengths, those within
the frames too, are compared with each other and with limits before memory is taken.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import MedGSError

MAGIC, VERSION = b"NNIA", 1
CODECS = {1: "ZSTD", 2: "LZ4"}
CHUNK_BYTES = 2**30
TYPES = (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64",
)  # fmt: skip
_FRAME = 32  # bytes of a blosc2 frame's header
_FRAME_VERSIONS = range(2, 7)  # of the frame format that blosc2 1 and 2 write


class PackingError(MedGSError):
    """Bytes that are no packed array, or claim what they do not hold."""


class TooLargeError(MedGSError):
    """A packed array, or a request, that is larger than what is allowed."""


@dataclass(frozen=True)
class Header:
    """What a packed array says of itself.

    Attributes
    ----------
    dtype : dtype
    shape : tuple of int
    start : int
        Where the number of chunks stands.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(buffer: bytes | memoryview) -> Header:
    """Read what a packed array says of itself; no memory is taken for it.

    Parameters
    ----------
    buffer : bytes

    Returns
    -------
    Header

    Raises
    ------
    PackingError
        When it is no packed array, or its type or shape is none.

    Examples
    --------
    >>> import numpy as np
    >>> header = read_header(pack(np.zeros((2, 3), np.int16)))
    >>> header.shape, str(header.dtype), header.nbytes
    ((2, 3), 'int16', 12)
    """
    if len(buffer) < 8:
        raise PackingError("The body is too short for a packed array.")
    magic, version, codec, ndim, length = struct.unpack_from("<4sBBBB", buffer)
    if magic != MAGIC:
        raise PackingError("The body is no packed array: it does not begin with NNIA.")
    if version != VERSION:
        raise PackingError(f"The packed array has version {version}; {VERSION} can be read.")
    if codec not in CODECS:
        raise PackingError(f"The packed array has codec {codec}; 1 (ZSTD) and 2 (LZ4) are known.")
    end = 8 + length + 8 * ndim
    if len(buffer) < end + 4:
        raise PackingError("The packed array ends within its header.")
    name = bytes(buffer[8 : 8 + length])
    known = next((t for t in TYPES if t.encode() == name), None)
    if known is None:
        raise PackingError("The packed array has an unknown type; numbers and bool can be read.")
    shape = struct.unpack_from(f"<{ndim}q", buffer, 8 + length)
    if not 1 <= ndim <= 4 or min(shape) < 1:
        raise PackingError("The packed array must have one to four axes, none of them empty.")
    return Header(np.dtype(known).newbyteorder("<"), tuple(shape), end)


def unpack(
    buffer: bytes | memoryview, *, max_bytes: int, shapes: Sequence[tuple[int, ...]] = ()
) -> NDArray[Any]:
    """Return a packed array.

    Parameters
    ----------
    buffer : bytes
    max_bytes : int
        Of the array; more is refused before memory is taken.
    shapes : sequence of tuple of int
        The shapes that it may have; any by default.

    Returns
    -------
    ndarray

    Raises
    ------
    PackingError
        When it is no packed array, or holds something else than it claims.
    TooLargeError
        When it claims more than ``max_bytes``.

    Examples
    --------
    >>> import numpy as np
    >>> unpack(pack(np.arange(6).reshape(2, 3)), max_bytes=100).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    header = read_header(buffer)
    if shapes and header.shape not in shapes:
        wanted = " or ".join(" x ".join(map(str, shape)) for shape in shapes)
        has = " x ".join(map(str, header.shape))
        raise PackingError(f"The packed array has shape {has}; {wanted} is needed.")
    if header.nbytes > max_bytes:
        raise TooLargeError(
            f"The array takes {header.nbytes / 1e6:.0f} MB; at most {max_bytes / 1e6:.0f} MB are "
            "allowed."
        )
    view = memoryview(buffer)
    chunks = _chunks(view, header)
    import blosc2

    out: NDArray[Any] = np.empty(header.nbytes, np.uint8)
    place = 0
    for frame, size in chunks:
        try:
            blosc2.decompress2(frame, dst=out[place : place + size])
        except (RuntimeError, ValueError, TypeError) as error:
            raise PackingError("A chunk of the packed array cannot be unpacked.") from error
        place += size
    if header.dtype == bool and place and out.max() > 1:
        raise PackingError("The packed array of bool holds other values than 0 and 1.")
    return out.view(header.dtype).reshape(header.shape)


def _chunks(view: memoryview, header: Header) -> list[tuple[memoryview, int]]:
    """Return the frames with their raw sizes, all of whose lengths agree."""
    (count,) = struct.unpack_from("<I", view, header.start)
    place, total = header.start + 4, 0
    if count > (len(view) - place) // (16 + _FRAME):
        raise PackingError("The packed array claims more chunks than it has.")
    found = []
    for _ in range(count):
        if len(view) - place < 16:
            raise PackingError("The packed array ends before its last chunk.")
        raw, packed = struct.unpack_from("<QQ", view, place)
        place += 16
        if packed > len(view) - place or packed < _FRAME:
            raise PackingError("A chunk of the packed array is cut off.")
        if not 1 <= raw <= min(CHUNK_BYTES, header.nbytes - total):
            raise PackingError("The chunks of the packed array do not add up to its shape.")
        frame = view[place : place + packed]
        # The library trusts the sizes in its own header, and writes as much as that says.
        size, block, own = struct.unpack_from("<iii", frame, 4)
        if size != raw or own != packed or not 0 < block <= max(size, _FRAME):
            raise PackingError("A chunk of the packed array contradicts its own header.")
        if frame[0] not in _FRAME_VERSIONS:
            raise PackingError("A chunk of the packed array is no blosc2 frame.")
        found.append((frame, raw))
        place, total = place + packed, total + raw
    if total != header.nbytes or place != len(view):
        raise PackingError("The chunks of the packed array do not add up to its shape.")
    return found


def pack(array: NDArray[Any]) -> bytes:
    """Return an array as bytes; see :func:`unpack`.

    Parameters
    ----------
    array : ndarray of numbers or bool
        One to four axes.

    Returns
    -------
    bytes
    """
    import blosc2

    data = np.ascontiguousarray(array)
    data = data.astype(data.dtype.newbyteorder("<"), copy=False)
    name = data.dtype.name.encode()
    head = struct.pack("<4sBBBB", MAGIC, VERSION, 1, data.ndim, len(name)) + name
    parts = [head, struct.pack(f"<{data.ndim}q", *data.shape)]
    raw = data.reshape(-1).view(np.uint8)
    starts = range(0, len(raw), CHUNK_BYTES)
    parts.append(struct.pack("<I", len(starts)))
    for start in starts:
        piece = raw[start : start + CHUNK_BYTES]
        packed = blosc2.compress2(
            piece.tobytes(), typesize=data.dtype.itemsize, codec=blosc2.Codec.ZSTD, clevel=1,
            filters=[blosc2.Filter.NOFILTER],
        )  # fmt: skip
        parts += [struct.pack("<QQ", len(piece), len(packed)), packed]
    return b"".join(parts)
