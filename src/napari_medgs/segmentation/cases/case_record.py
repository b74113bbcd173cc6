"""What a folder of cases says of one case, and the hash by which an image is found again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from napari_medgs.data.volume import Volume

FORMAT, VERSION = "napari-medgs case", 1


@dataclass(frozen=True)
class CaseRecord:
    """What a store says of one case.

    Attributes
    ----------
    name : str
        Of its files.
    images : tuple of str
        Where the contrasts came from.
    channels : tuple of str
        Their names.
    digest : str
        Hash of the image, by which the case is found again.
    saved : float
        Seconds since the epoch.
    session : bool
        Whether its session was kept.
    """

    name: str
    images: tuple[str, ...]
    channels: tuple[str, ...]
    digest: str
    saved: float
    session: bool


def image_digest(volume: Volume) -> str:
    """Return a hash of an image: of its voxels and of where they lie.

    Parameters
    ----------
    volume : Volume
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.asarray((volume.channels, *volume.shape), np.int64).tobytes())
    digest.update(np.round(volume.grid.affine, 4).astype(np.float64).tobytes())
    for k in range(volume.channels):
        for part in volume.channel(k):
            digest.update(np.ascontiguousarray(part, "<f4").tobytes())
    return digest.hexdigest()
