"""Compressed bytes to fields."""

from __future__ import annotations

import io
import zlib
from dataclasses import replace
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.field import GaussianField, concatenate
from napari_medgs.errors import ParameterError
from napari_medgs.io.codec.chunks import Placed, by_kind, empty_field, moved
from napari_medgs.io.codec.columns import dequantize
from napari_medgs.io.codec.container import Chunk, Header, Part, read_header
from napari_medgs.io.codec.exact import exact_field
from napari_medgs.io.codec.region import Box, in_stack, meets, within
from napari_medgs.io.codec.symbols import read_chunk
from napari_medgs.io.codec.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_medgs.data.field import FieldInfo


def decode(data: bytes, *, box: Box | None = None, preview: bool = False) -> GaussianField:
    """Return the field that :func:`~napari_medgs.io.codec.encoding.encode` compressed.

    Parameters
    ----------
    data : bytes
    box : ((z, y, x), (z, y, x)), optional
        First and last voxel, the last one excluded; only Gaussians that reach into it.
    preview : bool
        The preview in place of the field.

    Raises
    ------
    ValueError, MedGSError
        When the bytes are damaged or another version wrote them.
    """
    opened = io.BytesIO(data)
    header = read_header(opened, len(data))
    return read_part(opened, header, box=box, preview=preview)


def read_part(
    opened: IO[bytes],
    header: Header,
    *,
    box: Box | None = None,
    preview: bool = False,
    parts: dict[str, int] | None = None,
    tables: Tables | None = None,
    check_memory: Callable[[int], None] | None = None,
) -> GaussianField:
    """Read the field, or its preview, from an open file.

    Parameters
    ----------
    opened : binary file
    header : Header
    box, preview
        See :func:`decode`.
    parts : dict, optional
        Filled with bytes by kind of parameter.
    tables : Tables, optional
        What the coder knows beforehand.
    check_memory : callable, optional
        Asked with the number of bytes that will be needed.

    Raises
    ------
    ValueError, MedGSError
        When the bytes are damaged, or there is no preview.
    """
    part = header.preview if preview else header.main
    if part is None:
        raise ParameterError("It holds no preview.")
    info = replace(header.info, degree=part.degree)
    region = None if box is None else in_stack(box, info)
    wanted = [k for k, chunk in enumerate(part.chunks) if region is None or meets(chunk, region)]
    count = sum(part.chunks[k].count for k in wanted)
    if check_memory is not None:
        check_memory(24 * count * (20 + info.channels))
    background = np.asarray(part.background, np.float32)
    spent = np.zeros(0 if part.scheme is None else len(part.scheme.columns) + 3, np.int64)
    fields = []
    for chunk, payload in _payloads(opened, part, header.offset(preview), wanted):
        if part.scheme is None:
            fields.append(exact_field(payload, chunk.count, background, info))
            continue
        placed = placed_chunk(payload, chunk, part, info, spent, tables)
        integers = moved(placed.integers, placed.corner)
        fields.append(dequantize(integers, part.scheme, background, info))
    if parts is not None:
        parts.update(
            {"parameters, exact": part.length}
            if part.scheme is None
            else by_kind(part.scheme, spent)
        )
    field = concatenate(fields) if fields else empty_field(background, info)
    return field if region is None else field.subset(within(field, region))


def _payloads(
    opened: IO[bytes], part: Part, start: int, wanted: list[int]
) -> Iterator[tuple[Chunk, bytes]]:
    """Read some chunks of a part and test their checksums."""
    offsets = np.cumsum([0, *(chunk.length for chunk in part.chunks)]) + start
    for k in wanted:
        opened.seek(int(offsets[k]))
        payload = opened.read(part.chunks[k].length)
        if zlib.crc32(payload) != part.chunks[k].checksum:
            raise ValueError("the checksum of a chunk is another")
        yield part.chunks[k], payload


def placed_chunk(
    payload: bytes,
    chunk: Chunk,
    part: Part,
    info: FieldInfo,
    spent: NDArray[np.int64],
    tables: Tables | None = None,
) -> Placed:
    """Return the numbers of a coded chunk.

    Raises
    ------
    ValueError
        When its bytes make no sense.
    """
    assert part.scheme is not None
    assert part.model is not None
    size = np.asarray(chunk.size, np.int64)
    classes = max(0, len(info.class_names) - 1)
    coded = (part.scheme, part.model, classes, spent, tables)
    integers = read_chunk(payload, chunk.count, size, *coded)
    if integers is None:
        raise ValueError("the numbers of a chunk make no sense")
    return Placed(integers, np.asarray(chunk.corner, np.int64), size)


def coded_chunks(opened: IO[bytes], header: Header, tables: Tables | None = None) -> list[Placed]:
    """Return the numbers of all chunks of a coded field.

    Parameters
    ----------
    opened : binary file
    header : Header
    tables : Tables, optional
        What the coder knows beforehand.

    Raises
    ------
    ValueError
        When the bytes are damaged.
    """
    part = header.main
    assert part.scheme is not None
    spent = np.zeros(len(part.scheme.columns) + 3, np.int64)
    wanted = list(range(len(part.chunks)))
    return [
        placed_chunk(payload, chunk, part, header.info, spent, tables)
        for chunk, payload in _payloads(opened, part, header.offset(preview=False), wanted)
    ]
