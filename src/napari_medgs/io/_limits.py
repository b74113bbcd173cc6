"""Sizes that headers claim, checked before memory is allocated."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from napari_medgs.errors import FileError, MemoryEstimateError
from napari_medgs.io.folders import missing, refuse_stream

DEFLATE_RATIO = 1032
"""Largest compression ratio of deflate (gzip, zip): 258 bytes to 2 bits."""

EMPTY_RATIO = 100
"""Noise keeps images below; above are masks, and files made to fill the memory."""

EMPTY_BYTES = 2**30
"""How large a file may become that is compressed more than :data:`EMPTY_RATIO`-fold: a mask of
1024 x 1024 x 1024 voxels of one byte. Most tools write no larger one, and it takes seconds."""

_CHUNK = 2**20


def human_bytes(count: float) -> str:
    """Return a number of bytes with a binary unit: 1536 is ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def check_claim(path: str | Path, claimed: int, stored: int, *, deflated: bool) -> None:
    """Refuse a claimed size that the stored bytes cannot hold.

    Parameters
    ----------
    path : str or Path
        For the message.
    claimed : int
        Bytes that the header says there are.
    stored : int
        Bytes that the file has for them.
    deflated : bool
        Whether the stored bytes are compressed by deflate.

    Raises
    ------
    FileError
        When the stored bytes cannot hold them: the file is truncated or its header is wrong.
        Also when they hold next to nothing: more than :data:`EMPTY_BYTES` compressed more than
        :data:`EMPTY_RATIO`-fold.
    """
    most = stored * DEFLATE_RATIO if deflated else stored
    if claimed > most:
        raise FileError(
            f"{path}: truncated or damaged: its header promises {human_bytes(claimed)} and the "
            f"file can hold at most {human_bytes(most)}."
        )
    if deflated:
        check_inflation(path, claimed, stored)


def check_inflation(path: str | Path, claimed: int, stored: int) -> None:
    """Refuse a small file that would become a huge one, as no image does.

    Parameters
    ----------
    path : str or Path
        For the message.
    claimed : int
        Bytes after decompression.
    stored : int
        Bytes of the file.

    Raises
    ------
    FileError
        For more than :data:`EMPTY_BYTES` from less than a part of :data:`EMPTY_RATIO` of that.
    """
    if claimed > EMPTY_BYTES + _CHUNK and claimed > EMPTY_RATIO * stored:  # and a header
        raise FileError(
            f"{path}: {human_bytes(stored)} would become {human_bytes(claimed)}, "
            f"{claimed // max(stored, 1):,} times as much, as no image does. Above "
            f"{human_bytes(EMPTY_BYTES)} that is refused: if it is an (almost) empty mask, crop "
            "it, store it as 8-bit integers, or decompress the file."
        )


def read_to_end(path: str | Path, opened: IO[bytes], claimed: int) -> None:
    """Read what follows the values in a compressed file, so that its checksum is tested.

    Parameters
    ----------
    path : str or Path
        For the message.
    opened : binary file
    claimed : int
        Bytes that the header says there are.

    Raises
    ------
    FileError
        When more follows than the header says there is, and more than a mebibyte.
    """
    rest = 0
    while chunk := opened.read(_CHUNK):
        rest += len(chunk)
        if rest > max(claimed, _CHUNK):
            raise FileError(
                f"{path}: damaged: much more data follow than the {human_bytes(claimed)} that its "
                "header promises."
            )


def check_memory(path: str | Path, needed: int) -> None:
    """Refuse to read what would not fit into the free memory.

    Raises
    ------
    MemoryEstimateError
        Saying how much is needed and how much is free.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    if needed > 0.9 * free:
        raise MemoryEstimateError(
            f"{path}: reading it needs about {human_bytes(needed)} and {human_bytes(free)} of "
            "memory are free. Crop or downsample it first, or close other programs."
        )


def check_file(path: str | Path, kind: str) -> Path:
    """Return the path of a file that exists and is not empty.

    Raises
    ------
    FileError
        When it is missing, a folder, empty or not readable.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise FileError(f"{path}: is a folder; {kind} was expected.")
        if not path.exists():
            raise missing(path)
        refuse_stream(path)
        if path.stat().st_size == 0:
            raise FileError(f"{path}: the file is empty.")
        with path.open("rb"):
            pass
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return path
