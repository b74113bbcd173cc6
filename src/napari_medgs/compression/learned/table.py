"""Tables of parameters as networks read them, as published or without gauge freedom."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_medgs._typing import Floats
from napari_medgs.rendering.parameters import LOG_R1, LOG_R2, SHEAR

NAMES = (
    "x", "y", "t", "log r1", "shear", "log r2", "log rt", "log w", "a1", "a2", "a3", "b1", "b2",
    "b3",
)  # fmt: skip
"""Attributes of a Gaussian; channels follow."""
PUBLISHED = {LOG_R1: "log s1", SHEAR: "angle", LOG_R2: "log s2"}


def attribute(column: int, published: bool) -> str:
    """Return the name of a column.

    Examples
    --------
    >>> attribute(4, True), attribute(4, False), attribute(14, False)
    ('angle', 'shear', 'value 0')
    """
    if published and column in PUBLISHED:
        return PUBLISHED[column]
    return NAMES[column] if column < len(NAMES) else f"value {column - len(NAMES)}"


def to_ellipses(table: Floats) -> Floats:
    """Return a table with the ellipses' long and short axes and angle instead of their factors.

    Parameters
    ----------
    table : (N, 14 + C) ndarray

    Returns
    -------
    (N, 14 + C) ndarray of float32
        Logarithms of the standard deviations, the longer one first, and the longer one's angle
        to the columns in radians, from -pi/2 to pi/2: it jumps there, and means nothing for
        circles.
    """
    r1, r2 = (np.exp(table[:, k].astype(np.float64)) for k in (LOG_R1, LOG_R2))
    shear = table[:, SHEAR].astype(np.float64)
    xx, xy, yy = r1**2, -r1 * r2 * shear, r2**2 * (1 + shear**2)
    largest = (xx + yy) / 2 + np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2
    result = table.astype(np.float32).copy()
    result[:, LOG_R2] = -0.5 * np.log(largest)
    result[:, LOG_R1] = -0.5 * np.log((r1 * r2) ** 2 / largest)
    result[:, SHEAR] = np.where(angle > np.pi / 2, angle - np.pi, angle)
    return result


def from_ellipses(table: Tensor) -> Tensor:
    """Return the field's factors of a table that :func:`to_ellipses` made; differentiable.

    Parameters
    ----------
    table : (N, 14 + C) tensor
    """
    long, angle, short = table[:, LOG_R1], table[:, SHEAR], table[:, LOG_R2]
    along, across = torch.exp(-2 * long), torch.exp(-2 * short)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    xx = along * cosine**2 + across * sine**2
    xy = (along - across) * cosine * sine
    log_r1 = 0.5 * torch.log(xx)
    log_r2 = -long - short - log_r1
    columns = list(table.unbind(1))
    columns[LOG_R1], columns[LOG_R2] = log_r1, log_r2
    columns[SHEAR] = -xy * torch.exp(-log_r1 - log_r2)
    return torch.stack(columns, 1)


def in_blocks(table: Floats, block: int) -> Floats:
    """Return a table in blocks (B, block, D); its last row fills the last one.

    Examples
    --------
    >>> in_blocks(np.arange(20.0).reshape(10, 2), 8)[1, :, 0].tolist()
    [16.0, 18.0, 18.0, 18.0, 18.0, 18.0, 18.0, 18.0]
    """
    count = -(-len(table) // block)
    rows = np.minimum(np.arange(count * block), len(table) - 1)
    result: Floats = table[rows].reshape(count, block, table.shape[1])
    return result


def whole_centers(blocks: Floats, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the middles of blocks (B, 3) in steps that files store.

    Parameters
    ----------
    blocks : (B, block, D) ndarray
    shape : (slices, rows, columns)
    """
    step = center_step(shape)
    lowest, highest = 0, (1 << CENTER_BITS) - 1
    middles = blocks[:, :, :3].mean(axis=1) / step + (1 << (CENTER_BITS - 2))
    return np.clip(np.rint(middles), lowest, highest).astype(np.int64)


CENTER_BITS = 12
"""Of each coordinate of the middle of a block: twice the grid, half of it outside."""


def center_step(shape: tuple[int, ...]) -> Floats:
    """Return the step of stored middles along x, y, t."""
    size = np.array([shape[2], shape[1], shape[0]], np.float32)
    return size / np.float32(1 << (CENTER_BITS - 1))


def centers_from(whole: Any, shape: tuple[int, ...]) -> Floats:
    """Return the middles of blocks that :func:`whole_centers` made, in voxels."""
    places = (whole - (1 << (CENTER_BITS - 2))) * center_step(shape)
    result: Floats = places.astype(np.float32)
    return result
