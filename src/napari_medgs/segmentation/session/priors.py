"""Class probabilities of a session: kept as bytes, and in files of their own beside the log."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import FileError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.segmentation.prompts.prompts import PRIOR_SCALE

CHUNK = 2**24
Bytes = NDArray[np.uint8]


def quantize(probabilities: NDArray[Any]) -> Bytes:
    """Return class probabilities in 255ths that add up to exactly 255 in every voxel.

    What rounding down leaves over goes to the most likely class.

    Parameters
    ----------
    probabilities : (K, Z, Y, X) ndarray of float
        From 0 on, with sum 1 in every voxel.

    Returns
    -------
    (K, Z, Y, X) ndarray of uint8

    Examples
    --------
    >>> import numpy as np
    >>> quantize(np.array([0.5, 0.3, 0.2]).reshape(3, 1, 1, 1)).reshape(-1).tolist()
    [128, 76, 51]
    """
    best = probabilities.argmax(axis=0)[None]
    scale = PRIOR_SCALE / probabilities.sum(axis=0, dtype=np.float32)
    out = np.empty(probabilities.shape, np.uint8)
    rest = np.full((1, *probabilities.shape[1:]), PRIOR_SCALE, np.int32)
    for target, values in zip(out, probabilities, strict=True):
        target[...] = np.floor(values * scale + 1e-3)
        rest -= target
    top = np.take_along_axis(out, best, 0) + rest
    np.put_along_axis(out, best, np.maximum(top, 0).astype(np.uint8), 0)
    return out


def digest(prior: Bytes) -> str:
    """Return a hash of the values of a prior, 32 hexadecimal digits."""
    return hashlib.blake2b(np.ascontiguousarray(prior).data, digest_size=16).hexdigest()


def prior_file(log: Path, key: str) -> Path:
    """Return the file beside a session file that holds the prior of a digest."""
    return log.with_name(f"{log.name.removesuffix('.json')}.prior-{key}.zz")


def prior_files(log: Path) -> list[Path]:
    """Return all files of priors beside a session file."""
    if not log.parent.is_dir():
        return []
    stem = log.name.removesuffix(".json") + ".prior-"
    return [file for file in log.parent.iterdir() if file.name.startswith(stem)]


def save_prior(prior: Bytes, log: Path, key: str) -> None:
    """Write a prior beside a session file, unless it is there.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    target = prior_file(log, key)
    if target.exists():
        return
    packer, data = zlib.compressobj(1), np.ascontiguousarray(prior).reshape(-1).data
    with atomic_path(target) as temporary, temporary.open("wb") as stream:
        for start in range(0, len(data), CHUNK):
            stream.write(packer.compress(data[start : start + CHUNK]))
        stream.write(packer.flush())


def load_prior(log: Path, key: str, shape: tuple[int, ...]) -> Bytes:
    """Read the prior of a digest from beside a session file.

    Parameters
    ----------
    log : Path
    key : str
        Its :func:`digest`.
    shape : (K, Z, Y, X)

    Returns
    -------
    (K, Z, Y, X) ndarray of uint8

    Raises
    ------
    FileError
        When it is not there, or not the one of the session.
    """
    if len(key) != 32 or not set(key) <= set("0123456789abcdef"):
        raise FileError(f"{log}: the session file is damaged (a digest of probabilities).")
    place = prior_file(log, key)
    if not place.is_file():
        raise FileError(
            f"{log}: the session needs the class probabilities in {place.name}, which is not "
            "beside it; put it there."
        )
    size = int(np.prod(shape, dtype=np.int64))
    unpacker, parts, count = zlib.decompressobj(), [], 0
    try:
        with place.open("rb") as stream:
            while count <= size and (packed := stream.read(CHUNK)):
                while packed and count <= size:
                    parts.append(unpacker.decompress(packed, CHUNK))
                    count += len(parts[-1])
                    packed = unpacker.unconsumed_tail
    except (OSError, zlib.error) as error:
        raise FileError(f"{place}: the class probabilities cannot be read ({error}).") from None
    data = b"".join(parts)
    if len(data) != size or hashlib.blake2b(data, digest_size=16).hexdigest() != key:
        raise FileError(f"{place}: not the class probabilities of the session {log.name}.")
    return np.frombuffer(data, np.uint8).reshape(shape)
