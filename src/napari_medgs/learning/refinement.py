"""Large scans by a forest: a coarse mask everywhere, the full resolution where it is unsure.

The network first sees the image at half of its resolution, an eighth of the voxels. Cells of an
octree in which that answer is unsure are seen again at the full resolution, with voxels around
them; cells are seen as a whole where that is cheaper than part by part, and neighbors together. A
scan thus costs as the surfaces in it, not as its volume [1]_. Where that would cost as much as all
of the image, all of it is seen. It takes a network that can make out its classes at half of the
resolution, too.

References
----------
.. [1] After SHF, symmetrical hierarchical forest, NeurIPS 2025: leaves by content; here the
   content is the uncertainty of a first answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import StopCallback, never_stop
from napari_medgs.errors import Cancelled
from napari_medgs.learning.tiles import tile_starts, tiled_probabilities

if TYPE_CHECKING:
    from torch import nn

CELLS = (64, 32)
"""Edges of the leaves in voxels, large and small."""
MARGIN = 16
"""Voxels around a leaf that the network sees, too."""
FACTOR = 2
UNSURE = 0.2
"""A voxel is unsure where the most likely class lacks more than this to certainty."""
MOST_MERGED = 4
"""Small cells along an axis that are seen together at most; two along the first."""
WORTH = 0.9
"""The leaves are seen where they cost less than this part of the whole image."""
LEAST_VOXELS = 128**3
"""Smaller images are seen in full: nothing would be gained."""


@dataclass(frozen=True)
class Leaf:
    """A cell, or neighboring ones, that are seen at full resolution.

    Attributes
    ----------
    start, stop : tuple of int
        Its voxels, cut at the image.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]


def unsure_voxels(coarse: Floats) -> NDArray[np.bool_]:
    """Return where coarse probabilities (K, ...) are unsure, or beside another class."""
    from scipy.ndimage import maximum_filter, minimum_filter

    unsure = maximum_filter(coarse.max(axis=0) < 1 - UNSURE, 3)
    labels = coarse.argmax(axis=0).astype(np.uint8)
    edges: NDArray[np.bool_] = maximum_filter(labels, 3) != minimum_filter(labels, 3)
    return edges | unsure


def choose_leaves(unsure: NDArray[np.bool_], size: tuple[int, ...]) -> list[Leaf]:
    """Return the cells to see again, ordered along the first axis by large cells.

    Parameters
    ----------
    unsure : ndarray of bool
        Of the coarse voxels.
    size : tuple of int
        Of the image in voxels.

    Returns
    -------
    list of Leaf

    Examples
    --------
    >>> import numpy as np
    >>> unsure = np.zeros((64, 64), bool)
    >>> unsure[3, 60] = True
    >>> choose_leaves(unsure, (128, 128))
    [Leaf(start=(0, 96), stop=(32, 128))]
    """
    large, small = CELLS
    ndim, parts = unsure.ndim, large // small
    counts = [-(-n // large) for n in size]
    edge = small // FACTOR
    padded = np.zeros([c * large // FACTOR for c in counts], bool)
    padded[tuple(slice(n) for n in unsure.shape)] = unsure
    blocks = padded.reshape([side for c in counts for side in (c * parts, edge)])
    flags: NDArray[np.bool_] = np.asarray(blocks.any(axis=tuple(range(1, 2 * ndim, 2))))
    # A whole cell where its parts, each with its margin, would be more voxels.
    most = ((large + 2 * MARGIN) / (small + 2 * MARGIN)) ** ndim
    for cell in np.ndindex(*counts):
        where = tuple(slice(parts * c, parts * (c + 1)) for c in cell)
        if flags[where].sum() > most:
            flags[where] = True
    found: list[Leaf] = []
    for corner, extent in _boxes(flags, (parts, *[MOST_MERGED] * (ndim - 1))):
        start = tuple(small * c for c in corner)
        stop = tuple(min(small * (c + e), n) for c, e, n in zip(corner, extent, size, strict=True))
        if all(a < b for a, b in zip(start, stop, strict=True)):
            found.append(Leaf(start, stop))
    return found


def _boxes(
    flags: NDArray[np.bool_], largest: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield boxes (corner, extent) that cover every flag once and nothing else.

    Boxes grow along the last axis first, up to the largest extent; along the first axis they stay
    within steps of theirs.
    """
    left = flags.copy()
    for first in range(0, flags.shape[0], largest[0]):
        for place in np.argwhere(left[first : first + largest[0]]):
            corner = (first + int(place[0]), *map(int, place[1:]))
            if not left[corner]:
                continue
            limit = [min(c + e, n) for c, e, n in zip(corner, largest, flags.shape, strict=True)]
            limit[0] = min(first + largest[0], flags.shape[0])
            stop = [c + 1 for c in corner]
            for axis in reversed(range(flags.ndim)):
                while stop[axis] < limit[axis]:
                    layer = [slice(c, e) for c, e in zip(corner, stop, strict=True)]
                    layer[axis] = slice(stop[axis], stop[axis] + 1)
                    if not left[tuple(layer)].all():
                        break
                    stop[axis] += 1
            left[tuple(slice(c, e) for c, e in zip(corner, stop, strict=True))] = False
            yield corner, tuple(e - c for c, e in zip(corner, stop, strict=True))


def _with_margin(leaf: Leaf, size: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the voxels that the network sees of a leaf."""
    return tuple(
        slice(max(0, a - MARGIN), min(n, b + MARGIN))
        for a, b, n in zip(leaf.start, leaf.stop, size, strict=True)
    )


def _seen(leaves: list[Leaf], size: tuple[int, ...]) -> int:
    """Return the voxels that the network sees of all leaves."""
    boxes = (_with_margin(leaf, size) for leaf in leaves)
    return sum(int(np.prod([s.stop - s.start for s in box])) for box in boxes)


def _tiled(size: tuple[int, ...], tile: tuple[int, ...]) -> int:
    """Return the voxels that the network sees of an image in tiles."""
    tile = tuple(min(n, t) for n, t in zip(size, tile, strict=True))
    counts = [len(tile_starts(n, t)) for n, t in zip(size, tile, strict=True)]
    return int(np.prod(counts) * np.prod(tile))


def forest_probabilities(
    network: nn.Module,
    image: Floats,
    tile: tuple[int, ...],
    *,
    least: tuple[int, ...] = (),
    device: Any = None,
    should_stop: StopCallback = never_stop,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, int, Floats]]:
    """Yield class probabilities in slabs along the first axis; see the module.

    Takes and yields what :func:`~napari_medgs.learning.tiles.tiled_probabilities` does; small
    images are seen in full.

    Parameters
    ----------
    network : torch.nn.Module
    image : (C, Z, Y, X) or (C, Y, X) ndarray of float32
    tile : tuple of int
        Of the coarse image.
    least : tuple of int, optional
        Of an image that is seen in full.
    device : torch.device, optional
    should_stop, progress : callable, optional

    Yields
    ------
    start, stop : int
    probabilities : (K, stop - start, ...) ndarray of float32

    Raises
    ------
    Cancelled
        When ``should_stop`` returned True.
    """
    import torch

    size = tuple(int(n) for n in image.shape[1:])
    options: dict[str, Any] = {"device": device, "should_stop": should_stop}
    if np.prod(size) < LEAST_VOXELS:
        options["progress"] = progress
        yield from tiled_probabilities(network, image, tile, least=least, **options)
        return
    small = _halved(image)
    coarse: Floats | None = None
    for first, last, found in tiled_probabilities(network, small, tile, **options):
        if coarse is None:
            coarse = np.empty((len(found), *small.shape[1:]), np.float16)
        coarse[:, first:last] = found
    assert coarse is not None
    leaves = choose_leaves(unsure_voxels(coarse), size)
    if _seen(leaves, size) > WORTH * _tiled(size, tile):
        del coarse
        yield from tiled_probabilities(network, image, tile, progress=progress, **options)
        return
    done = 0
    for first in range(0, size[0], CELLS[0]):
        last = min(first + CELLS[0], size[0])
        slab = _enlarged(coarse, first, last, size)
        for leaf in leaves:
            if not first <= leaf.start[0] < last:
                continue
            if should_stop():
                raise Cancelled("The segmentation was canceled.")
            box = _with_margin(leaf, size)
            part = torch.from_numpy(np.ascontiguousarray(image[(slice(None), *box)])[None])
            with torch.inference_mode():
                logits = network(part if device is None else part.to(device))[0]
                seen = logits.float().softmax(0).cpu().numpy()
            inner = tuple(
                slice(a - s.start, b - s.start)
                for a, b, s in zip(leaf.start, leaf.stop, box, strict=True)
            )
            target = [slice(a, b) for a, b in zip(leaf.start, leaf.stop, strict=True)]
            target[0] = slice(leaf.start[0] - first, leaf.stop[0] - first)
            slab[(slice(None), *target)] = seen[(slice(None), *inner)]
            done += 1
            if progress is not None:
                progress(done, len(leaves))
        yield first, last, slab


def _halved(image: Floats) -> Floats:
    """Return the means (C, ...) of blocks of two voxels along each axis, the last one repeated."""
    for axis in range(1, image.ndim):
        n = image.shape[axis]
        whole = n - n % FACTOR
        index: list[Any] = [slice(None)] * image.ndim
        even, odd = list(index), list(index)
        even[axis], odd[axis] = slice(0, whole, FACTOR), slice(1, whole, FACTOR)
        mean = (image[tuple(even)] + image[tuple(odd)]) / FACTOR
        if whole < n:
            index[axis] = slice(n - 1, n)
            mean = np.concatenate([mean, image[tuple(index)]], axis=axis)
        image = mean
    return image


def _enlarged(coarse: Floats, first: int, last: int, size: tuple[int, ...]) -> Floats:
    """Return a slab (K, last - first, ...) of coarse probabilities, linearly enlarged."""
    import torch
    from torch.nn.functional import interpolate

    place = np.clip((np.arange(first, last) + 0.5) / FACTOR - 0.5, 0, coarse.shape[1] - 1)
    below = place.astype(int)
    above = np.minimum(below + 1, coarse.shape[1] - 1)
    weight = (place - below).astype(np.float32)
    weight = weight.reshape(-1, *(1,) * (coarse.ndim - 2))
    slab = coarse[:, below] * (1 - weight) + coarse[:, above] * weight
    wanted = [FACTOR * n for n in coarse.shape[2:]]
    rows = torch.from_numpy(slab.astype(np.float32)).flatten(0, 1)[:, None]
    mode = "bilinear" if len(wanted) == 2 else "linear"
    large = interpolate(rows, wanted, mode=mode, align_corners=False)[:, 0]
    inside = tuple(slice(n) for n in size[1:])
    found: Floats = large.reshape(len(coarse), last - first, *wanted).numpy()
    return found[(slice(None), slice(None), *inside)].copy()
