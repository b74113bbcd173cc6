"""Fields to compressed bytes."""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medgs.data.field import GaussianField, concatenate
from napari_medgs.errors import ParameterError
from napari_medgs.io.codec.chunks import Placed, arrange, by_kind, empty_field, moved
from napari_medgs.io.codec.columns import (
    Quantization,
    Scheme,
    dequantize,
    kept_degree,
    make_scheme,
    quantize,
)
from napari_medgs.io.codec.container import CHUNK, MOST_CHANNELS, Chunk, Header, Part, reach
from napari_medgs.io.codec.exact import exact_chunk
from napari_medgs.io.codec.model import Model, learn
from napari_medgs.io.codec.symbols import write_chunk
from napari_medgs.io.codec.tables import Tables

if TYPE_CHECKING:
    from napari_medgs.data.field import FieldInfo


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
    >>> from napari_medgs.io.codec.decoding import decode
    >>> from napari_medgs.io.codec.encoding import encode
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
    start = Header(decoded.info, main, first).to_bytes(plain_record(record))
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


def plain_record(value: Any) -> Any:
    """Return a record made of JSON's types."""
    if isinstance(value, dict):
        return {str(key): plain_record(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_record(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return plain_record(value.tolist())
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
        here = dequantize(moved(chunk.integers, chunk.corner), scheme, background, info)
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
    whole = concatenate(decoded) if decoded else empty_field(background, info)
    return part, b"".join(payloads), whole, by_kind(scheme, spent)


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
