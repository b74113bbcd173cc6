"""Labels of coarse voxels on a finer grid by joint bilateral upsampling.

A voxel takes the label that the blocks around it vote for. A block's vote counts the more the
nearer its middle is, and the more its mean intensity resembles the voxel's: borders follow the
edges of the image.

References
----------
Kopf, Cohen, Lischinski and Uyttendaele 2007, *Joint bilateral upsampling*, ACM Transactions on
Graphics 26(3).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks

SPATIAL_SIGMA = 0.6  # of the weight by distance, in blocks
RANGE_SIGMA = 2.0  # of the weight by intensity, in standard deviations within a block
SAMPLES = 200_000
MOST = 27
_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def _mixed(labels: Any, reach: Any, z: int, y: int, x: int) -> bool:
    own = labels[z, y, x]
    depth, height, width = labels.shape
    for a in range(max(z - reach[0], 0), min(z + reach[0] + 1, depth)):
        for b in range(max(y - reach[1], 0), min(y + reach[1] + 1, height)):
            for c in range(max(x - reach[2], 0), min(x + reach[2] + 1, width)):
                if labels[a, b, c] != own:
                    return True
    return False


@njit(**_options)
def _changed_spans(before: Any, now: Any, z: int, spans: Any) -> None:
    """Find the first and one past the last changed block of every row of a layer."""
    for y in range(now.shape[1]):
        first, last = now.shape[2], 0
        for x in range(now.shape[2]):
            if before[z, y, x] != now[z, y, x]:
                first, last = min(first, x), x + 1
        spans[z, y, 0], spans[z, y, 1] = first, last


@njit(**_options)
def _near_change(before: Any, now: Any, reach: Any, z: int, y: int, x: int) -> bool:
    depth, height, width = now.shape
    for a in range(max(z - reach[0], 0), min(z + reach[0] + 1, depth)):
        for b in range(max(y - reach[1], 0), min(y + reach[1] + 1, height)):
            for c in range(max(x - reach[2], 0), min(x + reach[2] + 1, width)):
                if before[a, b, c] != now[a, b, c]:
                    return True
    return False


@njit(**_options)
def _upsample_layer(
    labels: Any,
    means: Any,
    image: Any,
    factors: Any,
    inverse: Any,
    sigma: float,
    z: int,
    before: Any,
    spans: Any,
    out: Any,
) -> None:
    """Label the voxels of one layer of blocks; where labels were known, only near changes."""
    depth, height, width = labels.shape
    reach = np.empty(3, np.int64)
    for axis in range(3):
        reach[axis] = 1 if factors[axis] > 1 else 0
    channels = len(image)
    votes, names = np.empty(MOST, np.float32), np.empty(MOST, np.uint8)
    near = 0.5 / sigma**2
    for y in range(height):
        first, last = 0, width
        if len(before):
            first, last = width, 0
            for a in range(max(z - reach[0], 0), min(z + reach[0] + 1, depth)):
                for b in range(max(y - reach[1], 0), min(y + reach[1] + 1, height)):
                    first, last = min(first, spans[a, b, 0]), max(last, spans[a, b, 1])
            first, last = max(first - reach[2], 0), min(last + reach[2], width)
        for x in range(first, last):
            if len(before) and not _near_change(before, labels, reach, z, y, x):
                continue
            z0, y0, x0 = z * factors[0], y * factors[1], x * factors[2]
            z1 = min(z0 + factors[0], out.shape[0])
            y1 = min(y0 + factors[1], out.shape[1])
            x1 = min(x0 + factors[2], out.shape[2])
            if not _mixed(labels, reach, z, y, x):
                out[z0:z1, y0:y1, x0:x1] = labels[z, y, x]
                continue
            for i in range(z0, z1):
                for j in range(y0, y1):
                    for k in range(x0, x1):
                        found = 0
                        for a in range(max(z - reach[0], 0), min(z + reach[0] + 1, depth)):
                            dz = (i + 0.5) / factors[0] - a - 0.5
                            for b in range(max(y - reach[1], 0), min(y + reach[1] + 1, height)):
                                dy = (j + 0.5) / factors[1] - b - 0.5
                                for c in range(max(x - reach[2], 0), min(x + reach[2] + 1, width)):
                                    dx = (k + 0.5) / factors[2] - c - 0.5
                                    power = near * (dz * dz + dy * dy + dx * dx)
                                    for n in range(channels):
                                        off = (image[n, i, j, k] - means[n, a, b, c]) * inverse[n]
                                        power += off * off
                                    name = labels[a, b, c]
                                    slot = 0
                                    while slot < found and names[slot] != name:
                                        slot += 1
                                    if slot == found:
                                        names[found], votes[found] = name, 0
                                        found += 1
                                    votes[slot] += np.exp(-power)
                        best = 0
                        for slot in range(1, found):
                            if votes[slot] > votes[best]:
                                best = slot
                        # All votes vanish where nothing resembles the voxel: the block decides.
                        out[i, j, k] = names[best] if votes[best] > 0 else labels[z, y, x]


def range_sigmas(image: NDArray[Any], means: Floats, factors: tuple[int, int, int]) -> Floats:
    """Return the standard deviation of every channel within blocks, robustly.

    Parameters
    ----------
    image : (C, Z, Y, X) ndarray
    means : (C, z, y, x) ndarray of float32
        Averages of its blocks.
    factors : (int, int, int)

    Returns
    -------
    (C,) ndarray of float32
        From the median absolute deviation; 1 where that is 0.
    """
    size = int(np.prod(means.shape[1:], dtype=np.int64))
    block = np.unravel_index(np.arange(0, size, max(1, size // SAMPLES)), means.shape[1:])
    voxel = tuple(b * f for b, f in zip(block, factors, strict=True))
    sampled = np.stack([channel[voxel] for channel in image]).astype(np.float32)
    off = np.abs(sampled - np.stack([channel[block] for channel in means]))
    sigma = 1.4826 * np.median(off, axis=1)
    return np.where(sigma > 0, sigma, np.float32(1)).astype(np.float32)


def upsample_labels(
    labels: NDArray[np.uint8],
    means: Floats,
    image: NDArray[Any],
    factors: tuple[int, int, int],
    *,
    spatial_sigma: float = SPATIAL_SIGMA,
    range_sigma: float = RANGE_SIGMA,
    known: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None,
) -> NDArray[np.uint8]:
    """Return the labels of blocks of voxels on the voxels.

    Parameters
    ----------
    labels : (z, y, x) ndarray of uint8
        Of the blocks.
    means : (C, z, y, x) ndarray of float32
        Average intensities of the blocks.
    image : (C, Z, Y, X) ndarray
    factors : (int, int, int)
        Voxels of a block by axis; the last blocks may be cut off.
    spatial_sigma : float
        Standard deviation of the weight by distance, in blocks.
    range_sigma : float
        Standard deviation of the weight by intensity, in those within blocks.
    known : (ndarray, ndarray), optional
        Labels of the same blocks before, and what this function returned for them, which is
        changed in place: only where labels changed is anything computed.

    Returns
    -------
    (Z, Y, X) ndarray of uint8
        The second array of ``known`` where that is given.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.array([0, 0, 0, 9, 9, 9], np.float32).reshape(1, 1, 1, 6)
    >>> means = image.reshape(1, 1, 1, 3, 2).mean(axis=-1)
    >>> upsample_labels(np.array([[[0, 1, 1]]], np.uint8), means, image, (1, 1, 2)).tolist()
    [[[0, 0, 0, 1, 1, 1]]]
    """
    depth, height, _ = labels.shape
    if known is None:
        before, out = labels[:0], np.empty(image.shape[1:], np.uint8)
    else:
        before, out = known
    spans = np.empty((depth if len(before) else 0, height, 2), np.int64)
    run_chunks(lambda z: _changed_spans(before, labels, z, spans), len(spans))
    sigmas = range_sigma * range_sigmas(image, means, factors)
    inverse = (np.sqrt(0.5) / sigmas).astype(np.float32)
    steps = np.asarray(factors, np.int64)

    def task(z: int) -> None:
        _upsample_layer(labels, means, image, steps, inverse, spatial_sigma, z, before, spans, out)

    run_chunks(task, depth)
    return out
