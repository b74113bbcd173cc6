"""Atomic writes: a temporary file beside the target, renamed when it is complete."""

from __future__ import annotations

import glob
import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_medgs.errors import FileError
from napari_medgs.io.folders import check_folder_of, is_stream, link_target

_DAY = 86400.0
# Machine, process and a random part; earlier versions had the random part only.
_TOKEN = re.compile(r"([0-9a-f]{6}-[0-9a-f]+-)?[0-9a-f]{12}")
_being_written: set[str] = set()
_noting: list[list[tuple[Path, tuple[int, int]]]] = []
_DOUBLE = (".gz", ".bz2", ".zst", ".safetensors")


def full_suffix(path: str | Path) -> str:
    """Return the suffix that decides a format: ``.nii.gz``, ``.medgs.safetensors``, ``.png``.

    Other dots in the name (``scan.v2.png``) do not count.
    """
    suffixes = Path(path).suffixes
    if not suffixes:
        return ""
    if suffixes[-1].lower() in _DOUBLE and len(suffixes) > 1:
        return suffixes[-2] + suffixes[-1]
    return suffixes[-1]


@contextmanager
def atomic_path(target: str | Path, *, cache: bool = False) -> Iterator[Path]:
    """Yield a temporary path that replaces the target when the block ends without an error.

    The temporary path lies in the target's folder and has its full suffix, so that libraries
    which choose a format by the name choose the same one. After an exception (a cancel too) it
    is removed and an older target stays as it was. What a killed process left of the same target
    is removed first. A symbolic link stays one: the file that it points to is written. A device
    or pipe (``/dev/null``, ``/dev/stdout``) is written to, not replaced.

    Parameters
    ----------
    target : str or Path
        The file to write. A folder may be written too: make one at the yielded path; it then
        needs the target to be absent.
    cache : bool
        No result of the user's: not noted as written, see :func:`noting_writes`.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    FileError
        When the folder is missing or not writable, the target is a folder, or the disk refuses.
    """
    if is_stream(target):
        with _passed_on(Path(target)) as temporary:
            yield temporary
        return
    path = link_target(Path(target))
    folder = path.parent
    check_folder_of(path)
    if path.is_dir():
        raise FileError(f"{path}: is a folder; choose another name for the file.")
    # Long names must not exceed the 255 bytes that file systems allow.
    name = path.name.encode("utf-8", "surrogateescape")[:80].decode("utf-8", "ignore")
    start, end = f".{name}.", f".tmp{full_suffix(path)}"
    _sweep(folder, start, end)
    token = f"{_host()}-{os.getpid():x}-{uuid.uuid4().hex[:12]}"
    temporary = folder / f"{start}{token}{end}"
    _being_written.add(token)
    try:
        yield temporary
        if not temporary.exists():
            raise FileError(f"{path}: nothing was written.")
        if not cache:
            note_written(path, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        _being_written.discard(token)
        _remove(temporary)


@contextmanager
def noting_writes() -> Iterator[Callable[[], list[Path]]]:
    """Note which outputs become complete within the block, so that a cancel can say so.

    Yields
    ------
    callable
        Returns the outputs that are there, in the order in which they were written.
    """
    noted: list[tuple[Path, tuple[int, int]]] = []
    _noting.append(noted)
    try:
        yield lambda: list(
            dict.fromkeys(path for path, kept in noted if any(kept) and _identity(path) == kept)
        )
    finally:
        _noting[:] = [other for other in _noting if other is not noted]


def note_written(path: Path, complete: Path | None = None) -> None:
    """Note an output that another process has written, or that is about to be renamed.

    Parameters
    ----------
    path : Path
    complete : Path, optional
        The complete file that takes its place next: an interrupt can come before the rename or
        after it, and only the file itself tells.
    """
    if _noting:
        kept = _identity(path if complete is None else complete)
        for noted in _noting:
            noted.append((path, kept))


def _identity(path: Path) -> tuple[int, int]:
    """Return what a file keeps when it is renamed; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


@contextmanager
def _passed_on(stream: Path) -> Iterator[Path]:
    """Yield a temporary path whose content goes to a device or pipe at the end."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / f"output{full_suffix(stream)}"
            yield temporary
            # Appended: a shell may have sent the stream to a file with earlier lines.
            descriptor = os.open(stream, os.O_WRONLY | os.O_APPEND)
            with temporary.open("rb") as content, os.fdopen(descriptor, "wb", 0) as opened:
                shutil.copyfileobj(content, opened)
            note_written(stream)
    except OSError as error:
        raise FileError(f"{stream}: cannot be written ({error.strerror or error}).") from error


def _host() -> str:
    """Return a few letters that tell this machine from others that share its folders."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def _remove(path: Path) -> None:
    """Remove a file or folder if it is there and the disk lets it go."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _sweep(folder: Path, start: str, end: str) -> None:
    """Remove the temporary files of one target whose process has ended.

    Those of other machines, which cannot be asked, are removed after a day.
    """
    import psutil

    for left in folder.glob(f"{glob.escape(start)}*{glob.escape(end)}"):
        token = left.name[len(start) : len(left.name) - len(end)]
        if not _TOKEN.fullmatch(token) or token in _being_written:
            continue
        host, _, pid = token.rpartition("-")[0].rpartition("-")
        if host == _host():
            ended = int(pid, 16) == os.getpid() or not psutil.pid_exists(int(pid, 16))
        else:
            ended = time.time() - left.lstat().st_mtime > _DAY
        if ended:
            _remove(left)
