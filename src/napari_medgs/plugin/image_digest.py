"""Hashes by which images are known again, whatever their layers are called. No Qt."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume

SAMPLES = 200_000


def fingerprint(volume: Volume) -> str:
    """Return a hash of an image's grid and of a sample of its voxels."""
    digest = hashlib.blake2b(digest_size=10)
    digest.update(np.asarray(volume.grid.shape, np.int64).tobytes())
    digest.update(np.round(volume.grid.affine, 4).astype(np.float64).tobytes())
    for channel in volume.data:
        step = max(1, channel.size // SAMPLES)
        steps = max(1, round(step ** (1 / 3)))
        digest.update(np.ascontiguousarray(channel[::steps, ::steps, ::steps], "<f4").tobytes())
    return digest.hexdigest()


def contrast_digests(volume: Volume) -> tuple[str, ...]:
    """Return the fingerprint of every contrast of an image, by which results know their image."""
    return tuple(fingerprint(volume.subset([c])) for c in range(volume.channels))


def labels_checksum(layer: Any) -> int:
    """Return a number that changes when a mask is edited; 0 for other layers."""
    if type(layer).__name__ != "Labels":
        return 0
    return zlib.crc32(np.ascontiguousarray(layer.data).tobytes())
