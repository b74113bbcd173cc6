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
from napari_medgs.io.codec.symbols import in_file_order, learn, read_chunk, write_chunk

if TYPE_CHECKING:
    from collections.abc import Callable

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
    header = Header(decoded.info, main, first)
    record = asdict(decoded.info)
    record["grid"] = decoded.info.grid.to_dict()
    record["metrics"] = record["metrics"] if exact else _short(record["metrics"])
    start = header.to_bytes(_plain(record))
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
    integers = quantize(field, scheme)
    degree = kept_degree(scheme, field.info)
    info = replace(field.info, degree=degree)
    chunks, corners, sizes = [], [], []
    groups = divide(integers.cells, CHUNK) if len(field) else []
    for rows in groups:
        chunk = integers.rows(rows)
        corner = chunk.cells.min(axis=0)
        chunk.cells -= corner
        size = chunk.cells.max(axis=0) + 1
        chunks.append(in_file_order(chunk, size)[0])
        corners.append(corner)
        sizes.append(size)
    model = learn(chunks)
    if not chunks:  # a model has a line for every column
        model = replace(
            model,
            coefficients=np.zeros((len(scheme.columns), len(scheme.columns) + 2), np.int64),
            starts=np.full((len(scheme.columns) + 1, 2), 32768, np.int64),
        )
    spent = np.zeros(len(scheme.columns) + 3, np.int64)
    payloads, entries, decoded = [], [], []
    for chunk, corner, size in zip(chunks, corners, sizes, strict=True):
        payload = write_chunk(chunk, size, scheme, model, spent)
        least = -(-len(chunk) * (16 + info.channels) // 64)
        payload = payload.ljust(least, b"\0")
        here = dequantize(_moved(chunk, corner), scheme, field.background, info)
        decoded.append(here)
        payloads.append(payload)
        entries.append(_entry(payload, corner, size, here))
    part = Part(
        "coded",
        len(field),
        degree,
        tuple(map(float, field.background)),
        tuple(entries),
        scheme,
        model,
    )
    whole = concatenate(decoded) if decoded else field.with_info(degree=degree)
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
    offsets = np.cumsum([0, *(chunk.length for chunk in part.chunks)]) + header.offset(preview)
    spent = np.zeros(0 if part.scheme is None else len(part.scheme.columns) + 3, np.int64)
    fields = []
    for k in wanted:
        chunk = part.chunks[k]
        opened.seek(int(offsets[k]))
        payload = opened.read(chunk.length)
        if zlib.crc32(payload) != chunk.checksum:
            raise ValueError("the checksum of a chunk is another")
        if part.scheme is None or part.model is None:
            fields.append(exact_field(payload, chunk.count, background, info))
            continue
        size = np.asarray(chunk.size, np.int64)
        integers = read_chunk(
            payload,
            chunk.count,
            size,
            part.scheme,
            part.model,
            max(0, len(info.class_names) - 1),
            spent,
        )
        if integers is None:
            raise ValueError("the numbers of a chunk make no sense")
        fields.append(dequantize(_moved(integers, chunk.corner), part.scheme, background, info))
    if parts is not None:
        parts.update(
            {"parameters, exact": part.length}
            if part.scheme is None
            else _by_kind(part.scheme, spent)
        )
    field = concatenate(fields) if fields else _empty(background, info)
    return field if region is None else field.subset(within(field, region))


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
