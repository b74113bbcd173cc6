"""Parameters bit by bit: bytes of equal rank together, then deflate."""

from __future__ import annotations

import zlib
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medgs.data.field import GaussianField

if TYPE_CHECKING:
    from napari_medgs.data.field import FieldInfo

_SHAPES: dict[str, tuple[int, ...]] = {
    "centers": (3,),
    "log_precision": (3,),
    "shear": (),
    "fold": (3, 2),
    "log_weight": (),
}


def exact_chunk(field: GaussianField) -> bytes:
    """Return the bytes of some Gaussians."""
    columns = [getattr(field, name).reshape(len(field), -1) for name in _SHAPES]
    table = np.concatenate([*columns, field.values], axis=1).astype("<f4")
    planes = np.ascontiguousarray(table.T).view(np.uint8).reshape(-1, 4).T
    return zlib.compress(planes.tobytes(), 9)


def exact_field(payload: bytes, count: int, background: Any, info: FieldInfo) -> GaussianField:
    """Return the Gaussians of a chunk.

    Raises
    ------
    ValueError, ParameterError
        When the bytes make no sense.
    """
    width = sum(map(prod, _SHAPES.values())) + info.channels
    size = 4 * width * count
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(payload, size + 1)
    except zlib.error as error:
        raise ValueError(f"a chunk cannot be decompressed: {error}") from None
    if len(data) != size:
        raise ValueError("a chunk has another number of Gaussians than the header says")
    planes = np.frombuffer(data, np.uint8).reshape(4, -1)
    table = np.ascontiguousarray(planes.T).view("<f4").reshape(width, count).T
    arrays, start = {}, 0
    for name, shape in _SHAPES.items():
        stop = start + prod(shape)
        arrays[name] = table[:, start:stop].reshape(count, *shape)
        start = stop
    return GaussianField(**arrays, values=table[:, start:], background=background, info=info)
