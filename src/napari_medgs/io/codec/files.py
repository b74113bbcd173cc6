"""Compressed field files, ``*.medgs``: every failure is one sentence that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from napari_medgs.errors import FileError, FormatVersionError, MedGSError, MemoryEstimateError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io._content import wrong_content
from napari_medgs.io._limits import check_file, check_memory
from napari_medgs.io.codec.container import Header, read_header
from napari_medgs.io.codec.decoding import read_part
from napari_medgs.io.codec.region import Box

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField

SUFFIX = ".medgs"


def write_compressed(path: str | Path, data: bytes) -> Path:
    """Write the bytes of a compressed field; the file is replaced when they are complete.

    Parameters
    ----------
    path : str or Path
        Ends in ``.medgs``.
    data : bytes
        Of :func:`~napari_medgs.io.codec.encoding.encode`.

    Raises
    ------
    FileError
        When the name has another suffix or the folder cannot be written.
    """
    path = Path(path)
    if not path.name.lower().endswith(SUFFIX):
        raise FileError(f"{path}: a compressed field's file name must end in {SUFFIX}.")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


@contextmanager
def explained(path: str | Path, kind: str = "compressed field") -> Iterator[None]:
    """Name the file in every failure of reading it."""
    try:
        yield
    except FormatVersionError as error:
        raise FormatVersionError(f"{path}: {error}") from None
    except (FileError, MemoryEstimateError):
        raise
    except (MedGSError, ValueError, OSError) as error:
        raise FileError(wrong_content(path, kind, error)) from error


@contextmanager
def open_compressed(path: str | Path) -> Iterator[tuple[IO[bytes], Header]]:
    """Open a compressed field and read its header.

    Parameters
    ----------
    path : str or Path

    Yields
    ------
    binary file, Header

    Raises
    ------
    FileError, FormatVersionError
        When it is missing, damaged, no compressed field, or of another version.
    """
    path = check_file(path, "the file of a field")
    with explained(path), path.open("rb") as opened:
        yield opened, read_header(opened, path.stat().st_size)


def load_compressed(
    path: str | Path, *, box: Box | None = None, preview: bool = False
) -> GaussianField:
    """Read a compressed field.

    Parameters
    ----------
    path : str or Path
    box : ((z, y, x), (z, y, x)), optional
        Only Gaussians that reach into these voxels, the last ones excluded. Chunks elsewhere are
        not read.
    preview : bool
        The preview in place of the field.

    Raises
    ------
    FileError, FormatVersionError, MemoryEstimateError
        When it cannot be read.
    """
    with open_compressed(path) as (opened, header):
        if preview and header.preview is None:
            raise FileError(f"{path}: holds no preview; compress --preview makes one.")
        return read_part(
            opened, header, box=box, preview=preview, check_memory=partial(check_memory, path)
        )


def bytes_by_part(path: str | Path) -> dict[str, int]:
    """Return where the bytes of a compressed field go.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    dict of str to int
        Header, preview if any, positions, shape, folds, values, weights, class scores.
    """
    parts: dict[str, int] = {}
    with open_compressed(path) as (opened, header):
        parts["header"] = header.length
        if header.preview is not None:
            parts["preview"] = header.preview.length
        read_part(opened, header, parts=parts, check_memory=partial(check_memory, path))
    return parts
