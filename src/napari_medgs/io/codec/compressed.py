"""Fields to compressed bytes and back."""

from __future__ import annotations

import io
import zlib
from dataclasses import asdict, dataclass, replace
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.field import GaussianField, concatenate
from napari_medgs.errors import ParameterError
from napari_medgs.io.codec.cells import divide
from napari_medgs.io.codec.columns import (
    Integers,
    Quantization,
    Scheme,
    dequantize,
    kept_degree,
    make_scheme,
    quantize,
)
from napari_medgs.io.codec.container import (
    CHUNK,
    MOST_CHANNELS,
    Chunk,
    Header,
    Part,
    reach,
    read_header,
)
from napari_medgs.io.codec.exact import exact_chunk, exact_field
from napari_medgs.io.codec.model import Model, learn
from napari_medgs.io.codec.symbols import Tables, in_file_order, read_chunk, write_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_medgs.data.field import FieldInfo

Box = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass
class Encoded:
    """A compressed field.

    Attributes
    ----------
    data : bytes
        The file.
    field : GaussianField
        What a reader gets.
    parts : dict of str to int
        Bytes of the header, the preview, and by kind of parameter.
    """

    data: bytes
    field: GaussianField
    parts: dict[str, int]


def encode(
    field: GaussianField,
    quantization: Quantization | None = None,
    *,
    scheme: Scheme | None = None,
    preview: GaussianField | None = None,
    exact: bool = False,
) -> Encoded:
    """Compress a field.

    Parameters
    ----------
    field : GaussianField
    quantization : Quantization, optional
        How finely; :class:`~napari_medgs.io.codec.columns.Quantization` has the defaults.
    scheme : Scheme, optional
        Steps made before, for a field that is tuned to them; by default those of the field.
    preview : GaussianField, optional
        A field of few Gaussians on the same grid with the same channels, stored first.
    exact : bool
        Keep all parameters bit by bit, in their order.

    Returns
    -------
    Encoded
        The same bytes for the same field, always.

    Raises
    ------
    ParameterError
        When its numbers are too large for so fine steps, or the preview does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.io.codec.compressed import decode, encode
    >>> image = np.random.default_rng(0).random((4, 8, 8), np.float32)
    >>> field = mg.fit(mg.Volume.from_array(image), mg.FitParams(gaussians=20)).field
    >>> data = encode(field).data
    >>> len(decode(data)) == len(field), data == encode(field).data
    (True, True)
    """
    field.validate()
    _check_sizes(field)
    quantization = quantization or Quantization()
    if exact:
        main, payload, decoded, parts = _exact_part(field)
    else:
        chosen = scheme or make_scheme(field, quantization)
        main, payload, decoded, parts = _coded_part(field, chosen)
    first, preview_bytes = None, b""
    if preview is not None:
        if preview.info.channels != field.info.channels:
            raise ParameterError("The preview has other channels than its field.")
        first, preview_bytes, _, _ = _coded_part(preview, make_scheme(preview, quantization))
    record = asdict(decoded.info)
    record["grid"] = decoded.info.grid.to_dict()
    record["metrics"] = record["metrics"] if exact else _short(record["metrics"])
    start = Header(decoded.info, main, first).to_bytes(_plain(record))
    sizes = {"header": len(start)}
    if preview is not None:
        sizes["preview"] = len(preview_bytes)
    return Encoded(start + preview_bytes + payload, decoded, sizes | parts)


def _check_sizes(field: GaussianField) -> None:
    if field.info.channels > MOST_CHANNELS:
        raise ParameterError(
            f"The field has {field.info.channels} channels; at most {MOST_CHANNELS} can be "
            "compressed. Keep it as .medgs.safetensors."
        )


def _short(value: Any) -> Any:
    """Return metrics with six digits, as all of them would be a fifth of a small file."""
    if isinstance(value, dict):
        return {key: _short(entry) for key, entry in value.items()}
    return float(f"{value:.6g}") if isinstance(value, (float, np.floating)) else value


def _plain(value: Any) -> Any:
    """Return a record made of JSON's types."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    return value.item() if isinstance(value, np.generic) else value


def _entry(payload: bytes, corner: Any, size: Any, field: GaussianField) -> Chunk:
    low, high = reach(field, field.info.cutoff)
    return Chunk(
        len(field),
        len(payload),
        zlib.crc32(payload),
        tuple(corner),
        tuple(size),
        tuple(low.min(axis=0)),
        tuple(high.max(axis=0)),
    )


def _coded_part(
    field: GaussianField, scheme: Scheme
) -> tuple[Part, bytes, GaussianField, dict[str, int]]:
    chunks = [placed for placed, _ in arrange(quantize(field, scheme))]
    info = replace(field.info, degree=kept_degree(scheme, field.info))
    return code_part(chunks, scheme, field.background, info)


@dataclass(frozen=True)
class Placed:
    """The Gaussians of a chunk, in the order of the file, and the box of their cells.

    Attributes
    ----------
    integers : Integers
        Cells count from the corner.
    corner, size : (3,) ndarray of int64
        Along x, y, t.
    """

    integers: Integers
    corner: NDArray[np.int64]
    size: NDArray[np.int64]


def arrange(integers: Integers) -> list[tuple[Placed, NDArray[np.int64]]]:
    """Divide a field into chunks, each in the order of the file, with the rows they came from."""
    chunks = []
    for rows in divide(integers.cells, CHUNK) if len(integers) else []:
        chunk = integers.rows(rows)
        corner = chunk.cells.min(axis=0)
        chunk.cells -= corner
        size = chunk.cells.max(axis=0) + 1
        ordered, order = in_file_order(chunk, size)
        chunks.append((Placed(ordered, corner, size), rows[order]))
    return chunks


def code_part(
    chunks: list[Placed],
    scheme: Scheme,
    background: Any,
    info: FieldInfo,
    model: Model | None = None,
    tables: Tables | None = None,
) -> tuple[Part, bytes, GaussianField, dict[str, int]]:
    """Return description, bytes, field and bytes by kind of some chunks.

    Parameters
    ----------
    chunks : list of Placed
    scheme : Scheme
    background : (C,) array_like
    info : FieldInfo
        With the degree that is kept.
    model : Model, optional
        Learned from the chunks by default.
    tables : Tables, optional
        What the coder knows beforehand.
    """
    model = model or learn([chunk.integers for chunk in chunks])
    if not chunks:  # a model has a line for every column
        kept = len(scheme.columns)
        model = Model(np.zeros((kept, kept + 2), np.int64), np.full((kept + 1, 2), 32768))
    spent = np.zeros(len(scheme.columns) + 3, np.int64)
    background = np.asarray(background, np.float32)
    payloads, entries, decoded = [], [], []
    for chunk in chunks:
        payload = write_chunk(chunk.integers, chunk.size, scheme, model, spent, tables)
        least = -(-len(chunk.integers) * (16 + info.channels) // 64)
        payload = payload.ljust(least, b"\0")
        here = dequantize(_moved(chunk.integers, chunk.corner), scheme, background, info)
        decoded.append(here)
        payloads.append(payload)
        entries.append(_entry(payload, chunk.corner, chunk.size, here))
    part = Part(
        "coded",
        sum(len(field) for field in decoded),
        info.degree,
        tuple(map(float, background)),
        tuple(entries),
        scheme,
        model,
    )
    whole = concatenate(decoded) if decoded else _empty(background, info)
    return part, b"".join(payloads), whole, _by_kind(scheme, spent)


def _moved(integers: Integers, corner: Any) -> Integers:
    return replace(integers, cells=integers.cells + np.asarray(corner, np.int64))


def _by_kind(scheme: Scheme, spent: NDArray[np.int64]) -> dict[str, int]:
    """Return bytes by what they say of the Gaussians."""
    kinds = {
        "log_r1": "shape",
        "log_r2": "shape",
        "log_rt": "shape",
        "shear": "shape",
        "log_weight": "weights",
    }
    parts = {"positions": int(spent[-1] + spent[-3])}
    for name, size in zip(scheme.columns, spent, strict=False):
        kind = kinds.get(name, "values" if name.startswith("value") else "folds")
        parts[kind] = parts.get(kind, 0) + int(size)
    if spent[-2]:
        parts["class scores"] = int(spent[-2])
    return parts


def _exact_part(field: GaussianField) -> tuple[Part, bytes, GaussianField, dict[str, int]]:
    payloads, entries = [], []
    for start in range(0, len(field), CHUNK):
        here = field.subset(np.arange(start, min(start + CHUNK, len(field))))
        payload = exact_chunk(here)
        least = -(-len(here) * (16 + field.info.channels) // 64)
        payload = payload.ljust(least, b"\0")
        payloads.append(payload)
        entries.append(_entry(payload, (0, 0, 0), (1, 1, 1), here))
    part = Part(
        "exact",
        len(field),
        field.info.degree,
        tuple(map(float, field.background)),
        tuple(entries),
    )
    payload = b"".join(payloads)
    return part, payload, field, {"parameters, exact": len(payload)}


def decode(data: bytes, *, box: Box | None = None, preview: bool = False) -> GaussianField:
    """Return the field that :func:`encode` compressed.

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
    region = None if box is None else _in_stack(box, info)
    wanted = [k for k, chunk in enumerate(part.chunks) if region is None or _meets(chunk, region)]
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
        moved = _moved(placed.integers, placed.corner)
        fields.append(dequantize(moved, part.scheme, background, info))
    if parts is not None:
        parts.update(
            {"parameters, exact": part.length}
            if part.scheme is None
            else _by_kind(part.scheme, spent)
        )
    field = concatenate(fields) if fields else _empty(background, info)
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


def _empty(background: Any, info: FieldInfo) -> GaussianField:
    shapes = {"centers": (3,), "log_precision": (3,), "shear": (), "fold": (3, 2)}
    arrays = {name: np.zeros((0, *shape), np.float32) for name, shape in shapes.items()}
    values = np.zeros((0, info.channels), np.float32)
    weight = np.zeros(0, np.float32)
    return GaussianField(
        **arrays, log_weight=weight, values=values, background=background, info=info
    )


def _in_stack(box: Box, info: FieldInfo) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return first and last voxel of a box along x, y, t."""
    start, stop = (np.asarray(corner, np.float64) for corner in box)
    if start.shape != (3,) or stop.shape != (3,) or not (start < stop).all():
        raise ParameterError(
            "A box has a first and a last corner, (z, y, x) each, the first before the last."
        )
    axes = list(info.stack_axes)
    return start[axes][::-1], stop[axes][::-1] - 1


def _meets(chunk: Chunk, region: Any) -> bool:
    return bool((chunk.high >= region[0]).all() and (chunk.low <= region[1]).all())


def within(field: GaussianField, region: Any) -> NDArray[np.bool_]:
    """Return which Gaussians can reach into a region of the slice-first grid, (N,)."""
    low, high = reach(field, field.info.cutoff)
    inside: NDArray[np.bool_] = ((high >= region[0]) & (low <= region[1])).all(axis=1)
    return inside


def field_within(field: GaussianField, box: Box) -> GaussianField:
    """Return the Gaussians of a field that reach into a box of its canonical grid."""
    return field.subset(within(field, _in_stack(box, field.info)))
