"""Chunks of a compressed field: their order, their place, and what their bytes say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.field import GaussianField
from napari_medgs.io.codec.cells import divide
from napari_medgs.io.codec.columns import Integers, Scheme
from napari_medgs.io.codec.container import CHUNK
from napari_medgs.io.codec.symbols import in_file_order

if TYPE_CHECKING:
    from napari_medgs.data.field import FieldInfo


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


def moved(integers: Integers, corner: Any) -> Integers:
    """Return a chunk's numbers with cells that count from the corner of the grid."""
    return replace(integers, cells=integers.cells + np.asarray(corner, np.int64))


def by_kind(scheme: Scheme, spent: NDArray[np.int64]) -> dict[str, int]:
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


def empty_field(background: Any, info: FieldInfo) -> GaussianField:
    """Return a field without Gaussians."""
    shapes = {"centers": (3,), "log_precision": (3,), "shear": (), "fold": (3, 2)}
    arrays = {name: np.zeros((0, *shape), np.float32) for name, shape in shapes.items()}
    values = np.zeros((0, info.channels), np.float32)
    weight = np.zeros(0, np.float32)
    return GaussianField(
        **arrays, log_weight=weight, values=values, background=background, info=info
    )
