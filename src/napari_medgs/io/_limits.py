"""Sizes that headers claim, checked before memory is allocated."""

from __future__ import annotations

from pathlib import Path

from napari_medgs.errors import FileError, MemoryEstimateError

DEFLATE_RATIO = 1032
"""Largest compression ratio of deflate (gzip, zip): 258 bytes to 2 bits."""


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
    """
    most = stored * DEFLATE_RATIO if deflated else stored
    if claimed > most:
        raise FileError(
            f"{path}: truncated or damaged: its header promises {human_bytes(claimed)} and the "
            f"file can hold at most {human_bytes(most)}."
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
            raise FileError(f"{path}: no such file.")
        if path.stat().st_size == 0:
            raise FileError(f"{path}: the file is empty.")
        with path.open("rb"):
            pass
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return path
