"""Large scans by a forest: a coarse mask everywhere, the full resolution where it is unsure.

The network first sees the image at half of its resolution, an eighth of the voxels. Cells of an
octree in which that answer is unsure are seen again at the full resolution, with voxels around
them; cells of which most parts are unsure are seen as a whole. A scan thus costs as the surfaces
in it, not as its volume [1]_. It takes a network that can make out its classes at half of the
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
from napari_medgs.learning.tiles import tiled_probabilities

if TYPE_CHECKING:
    from torch import nn

CELLS = (64, 32)
"""Edges of the leaves in voxels, large and small."""
MARGIN = 16
"""Voxels around a leaf that the network sees, too."""
FACTOR = 2
UNSURE = 0.2
"""A voxel is unsure where the most likely class lacks more than this to certainty."""
MOST_PARTS = 0.6
"""A large cell is a leaf where more than so many of its parts are unsure."""
LEAST_VOXELS = 128**3
"""Smaller images are seen in full: nothing would be gained."""


@dataclass(frozen=True)
class Leaf:
    """A cell that is seen at full resolution.

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
    ndim = unsure.ndim
    counts = [-(-n // large) for n in size]
    edge = small // FACTOR
    padded = np.zeros([c * large // FACTOR for c in counts], bool)
    padded[tuple(slice(n) for n in unsure.shape)] = unsure
    blocks = padded.reshape([side for c in counts for side in (c * large // small, edge)])
    flags: NDArray[np.bool_] = np.asarray(blocks.any(axis=tuple(range(1, 2 * ndim, 2))))
    found: list[Leaf] = []
    parts = large // small

    def add(corner: tuple[int, ...], extent: int) -> None:
        stop = tuple(min(c + extent, n) for c, n in zip(corner, size, strict=True))
        if all(a < b for a, b in zip(corner, stop, strict=True)):
            found.append(Leaf(corner, stop))

    for cell in np.ndindex(*counts):
        inside = flags[tuple(slice(parts * c, parts * (c + 1)) for c in cell)]
        if not inside.any():
            continue
        corner = tuple(large * c for c in cell)
        if inside.mean() > MOST_PARTS:
            add(corner, large)
            continue
        for part in np.argwhere(inside):
            add(tuple(c + small * int(p) for c, p in zip(corner, part, strict=True)), small)
    return found


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
    done = 0
    for first in range(0, size[0], CELLS[0]):
        last = min(first + CELLS[0], size[0])
        slab = _enlarged(coarse, first, last, size)
        for leaf in leaves:
            if not first <= leaf.start[0] < last:
                continue
            if should_stop():
                raise Cancelled("The segmentation was canceled.")
            low = [max(0, a - MARGIN) for a in leaf.start]
            high = [min(n, b + MARGIN) for n, b in zip(size, leaf.stop, strict=True)]
            box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            part = torch.from_numpy(np.ascontiguousarray(image[(slice(None), *box)])[None])
            with torch.inference_mode():
                logits = network(part if device is None else part.to(device))[0]
                seen = logits.float().softmax(0).cpu().numpy()
            inner = tuple(
                slice(a - c, b - c) for a, b, c in zip(leaf.start, leaf.stop, low, strict=True)
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
