"""Tiles of a volume with overlap, and how their logits become one probability map."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs._util.progress import StopCallback, never_stop
from napari_medgs.errors import Cancelled

if TYPE_CHECKING:
    from torch import nn

OVERLAP = 16
"""Voxels that neighboring tiles share along an axis; a quarter of the tile at most."""


def overlap_of(tile: int) -> int:
    """Return how many voxels neighbors of a size share."""
    return min(OVERLAP, tile // 4)


def tile_size(size: int, most: int, multiple: int = 1) -> int:
    """Return the size of the tiles of an axis: so many as are needed, and no larger than needed.

    Parameters
    ----------
    size : int
        Voxels of the axis.
    most : int
        Largest tile, a multiple of ``multiple``.
    multiple : int
        Tiles are multiples of this.

    Examples
    --------
    >>> tile_size(256, 120, 8), tile_size(30, 120, 8)
    (96, 32)
    """
    if size <= most:
        return -(-size // multiple) * multiple
    shared = overlap_of(most)
    count = -(-(size - shared) // (most - shared))
    wanted = -(-(size + (count - 1) * shared) // count)
    return min(most, -(-wanted // multiple) * multiple)


def tile_starts(size: int, tile: int) -> list[int]:
    """Return the first voxels of the tiles along one axis, evenly spread.

    Examples
    --------
    >>> tile_starts(100, 40), tile_starts(30, 40)
    ([0, 30, 60], [0])
    """
    if size <= tile:
        return [0]
    step = max(1, tile - overlap_of(tile))
    count = -(-(size - tile) // step) + 1
    return [round(k * (size - tile) / (count - 1)) for k in range(count)]


def tile_weight(shape: tuple[int, ...]) -> Floats:
    """Return the weight of the voxels of a tile: falling linearly where tiles overlap."""
    weight = np.ones(shape, np.float32)
    for axis, n in enumerate(shape):
        width = max(1, overlap_of(n))
        distance = np.minimum(np.arange(n), np.arange(n)[::-1]) + 1.0
        ramp = np.minimum(distance / (width + 1), 1.0).astype(np.float32)
        weight *= ramp.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return weight


def tiled_probabilities(
    network: nn.Module,
    image: Floats,
    tile: tuple[int, ...],
    *,
    least: tuple[int, ...] = (),
    device: Any = None,
    should_stop: StopCallback = never_stop,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, int, Floats]]:
    """Yield class probabilities in finished slabs along the first axis.

    Parameters
    ----------
    network : torch.nn.Module
        From (1, C, ...) to logits (1, K, ...) of the same size.
    image : (C, Z, Y, X) or (C, Y, X) ndarray of float32
    tile : tuple of int
        Largest size of a tile, one an axis.
    least : tuple of int, optional
        Patches of the training: smaller images lie in the middle of such a patch, as they did
        there. Networks know the distance to the border.
    device : torch.device, optional
    should_stop : callable, optional
        Asked between steps whether to stop.
    progress : callable, optional
        Called with the number of finished and of all tiles.

    Yields
    ------
    start, stop : int
        Voxels of the first axis.
    probabilities : (K, stop - start, ...) ndarray of float32

    Raises
    ------
    Cancelled
        When ``should_stop`` returned True.
    """
    import torch

    if least and any(n < wanted for n, wanted in zip(image.shape[1:], least, strict=True)):
        options: dict[str, Any] = {"device": device, "should_stop": should_stop}
        yield from _in_the_middle(network, image, tile, least, {**options, "progress": progress})
        return
    size = image.shape[1:]
    tile = tuple(min(n, t) for n, t in zip(size, tile, strict=True))
    starts = [tile_starts(n, t) for n, t in zip(size, tile, strict=True)]
    weight = tile_weight(tile)
    total, done = int(np.prod([len(s) for s in starts])), 0
    sums: Floats | None = None  # of tiles that reach into what is not finished
    weights = np.zeros((0,), np.float32)
    begun = 0
    rows = starts[0]
    for number, first in enumerate(rows):
        for rest in itertools.product(*starts[1:]):
            if should_stop():
                raise Cancelled("The segmentation was canceled.")
            corner = (first, *rest)
            where = tuple(slice(c, c + t) for c, t in zip(corner, tile, strict=True))
            part = torch.from_numpy(np.array(image[(slice(None), *where)], order="C")[None])
            with torch.inference_mode():
                logits = network(part if device is None else part.to(device))[0]
                found = logits.float().softmax(0).cpu().numpy()
            del logits, part
            if total == 1:
                if progress is not None:
                    progress(1, 1)
                yield 0, size[0], found
                return
            if sums is None:
                sums = np.zeros((len(found), tile[0], *size[1:]), np.float32)
                weights = np.zeros((tile[0], *size[1:]), np.float32)
            local = (slice(0, tile[0]), *where[1:])
            found *= weight
            sums[(slice(None), *local)] += found
            weights[local] += weight
            done += 1
            if progress is not None:
                progress(done, total)
        assert sums is not None
        following = rows[number + 1] if number + 1 < len(rows) else size[0]
        ready = following - first
        yield begun, following, sums[:, :ready] / weights[:ready]
        begun = following
        for array in (sums.swapaxes(0, 1), weights):  # move what is left to the front
            array[: tile[0] - ready] = array[ready:].copy()
            array[tile[0] - ready :] = 0


def _in_the_middle(
    network: nn.Module,
    image: Floats,
    tile: tuple[int, ...],
    least: tuple[int, ...],
    options: dict[str, Any],
) -> Iterator[tuple[int, int, Floats]]:
    """Yield probabilities of an image whose borders are repeated up to some size."""
    more = [max(0, m - n) for n, m in zip(image.shape[1:], least, strict=True)]
    before = [m // 2 for m in more]
    sides = [(b, m - b) for b, m in zip(before, more, strict=True)]
    larger = np.pad(image, [(0, 0), *sides], mode="edge")
    inside = [slice(b, b + n) for b, n in zip(before, image.shape[1:], strict=True)]
    for first, last, found in tiled_probabilities(network, larger, tile, **options):
        start, stop = max(first, inside[0].start), min(last, inside[0].stop)
        if start < stop:
            part = (slice(None), slice(start - first, stop - first), *inside[1:])
            yield start - before[0], stop - before[0], found[part]
