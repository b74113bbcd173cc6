"""Arrays of ``.npz`` files, read one by one, their headers checked against the bytes there."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import FileError, ImageError
from napari_medgs.io._limits import check_claim, check_file

_MAX_HEADER = 10_000


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an .npz file; errors of damaged files while it is open become FileError."""
    path = check_file(path, "an .npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (
        zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, UnicodeDecodeError
    ) as error:  # fmt: skip
        raise FileError(f"{path}: truncated, damaged or no .npz file ({error}).") from error


@contextmanager
def open_member(
    path: Path, archive: zipfile.ZipFile, name: str
) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any], bool]]:
    """Open one array, its header checked against the bytes that are there.

    Yields the stream at the first value, shape, dtype, and whether the order is Fortran's.
    """
    try:
        entry = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise FileError(f"{path}: holds no '{name}'; is it a MedMNIST file?") from None
    if entry.flag_bits & 1:
        raise FileError(f"{path}: is encrypted.")
    with archive.open(entry) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read(stream, max_header_size=_MAX_HEADER)
        except (ValueError, KeyError) as error:
            raise FileError(f"{path}: '{name}' has a damaged header ({error}).") from error
        if dtype.hasobject or dtype.kind not in "biuf":
            raise FileError(f"{path}: '{name}' holds {dtype} instead of numbers; not opened.")
        if not shape or any(n < 1 for n in shape):
            raise ImageError(f"{path}: '{name}' is empty: its shape is {shape}.")
        claimed = math.prod(shape) * dtype.itemsize
        check_claim(path, claimed, entry.file_size, deflated=False)
        check_claim(path, entry.file_size, min(entry.compress_size, path.stat().st_size) + 64,
                    deflated=True)  # fmt: skip
        yield stream, shape, dtype, fortran


def skip_bytes(path: Path, stream: IO[bytes], count: int) -> None:
    """Read past some bytes of a stream."""
    while count > 0:
        got = len(stream.read(min(count, 2**20)))
        if not got:
            raise FileError(f"{path}: truncated.")
        count -= got


def read_array(
    path: Path, stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool
) -> NDArray[Any]:
    """Read an array of a known shape from a stream."""
    buffer = bytearray(math.prod(shape) * dtype.itemsize)
    view, done = memoryview(buffer), 0
    while done < len(buffer):
        chunk = stream.read(min(len(buffer) - done, 2**22))
        if not chunk:
            raise FileError(f"{path}: truncated.")
        view[done : done + len(chunk)] = chunk
        done += len(chunk)
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if fortran else "C")
