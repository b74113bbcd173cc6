"""Folders: what is in them, and whether something can be written there."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from napari_medgs.errors import FileError


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key by which ``frame10`` follows ``frame9``."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(p)) if p.isdigit() else (1, p) for p in parts if p]


def visible_entries(folder: str | Path) -> list[Path]:
    """Return files and folders in a folder, sorted, without hidden ones.

    Hidden are names that begin with a dot: notes of macOS on other systems' disks (``._a.nii.gz``)
    and files that a killed program left half written (``.a.nii.gz.3f.tmp.nii.gz``).

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    list of Path

    Raises
    ------
    FileError
        When the folder cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.nii.gz", "._b.nii.gz", "a.nii.gz"):
    ...         _ = (Path(folder) / name).write_text("")
    ...     [entry.name for entry in visible_entries(folder)]
    ['a.nii.gz', 'b.nii.gz']
    """
    try:
        return sorted(e for e in Path(folder).iterdir() if not e.name.startswith("."))
    except OSError as error:
        raise FileError(f"{folder}: cannot be read ({error.strerror or error}).") from error


def link_target(path: Path) -> Path:
    """Return the file that a symbolic link leads to, and any other path as it is.

    Raises
    ------
    FileError
        When the link leads to itself.
    """
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise FileError(f"{path}: a symbolic link that leads to itself; choose another file.")
    return target


def is_broken_link(path: Path) -> bool:
    """Tell whether a path is a symbolic link to something that is not there.

    So DataLad and git-annex leave files that were not fetched: they are listed as files, so that
    the one who reads them hears of it.
    """
    return path.is_symlink() and not path.exists()


def missing(path: str | Path, what: str = "file") -> FileError:
    """Return the error of a path that does not exist.

    Parameters
    ----------
    path : str or Path
    what : str
        What was expected there.
    """
    place = Path(path)
    if not is_broken_link(place):
        return FileError(f"{path}: no such {what}{_home_hint(place) or '.'}")
    return FileError(
        f"{path}: no such {what}. It is a link to {os.readlink(place)}, which does not exist; "
        "in a DataLad or git-annex data set fetch it first (datalad get)."
    )


def is_stream(path: str | Path) -> bool:
    """Tell whether a path is a pipe or a device such as ``/dev/null`` and ``/dev/stdout``.

    These are written to. Files are replaced, and a program that the administrator runs could
    replace ``/dev/null`` itself.
    """
    if os.fspath(path).startswith(("/dev/std", "/dev/fd/", "/proc/self/fd/")):
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def refuse_stream(path: str | Path) -> None:
    """Refuse an input that is no file: reading a pipe could wait for ever, and cannot go back.

    Parameters
    ----------
    path : str or Path
        What does not exist is left to who opens it.

    Raises
    ------
    FileError
        Naming it.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FileError(
            f"{path}: is a pipe or a device, not a file; save its content to a file first."
        )


def check_folder_of(path: Path) -> None:
    """Refuse an output whose folder is missing, is a file, or is not writable, and a disk.

    Also an older file of this name that is write-protected: a rename would replace it all the
    same, and with a link to it the file of a DataLad or git-annex data set.

    Raises
    ------
    FileError
        Naming the output and what is wrong with it or its folder.
    """
    folder = path.parent
    if path.is_file() and not (path.stat().st_mode & 0o222 and os.access(path, os.W_OK)):
        raise FileError(
            f"{path}: is write-protected; choose another output, or allow to write to the file."
        )
    if path.is_block_device() or path.is_socket():
        raise FileError(f"{path}: is a device, not a file; choose another output.")
    if not folder.is_dir():
        blocking = _file_above(path)
        if blocking is not None:
            raise FileError(
                f"{path}: {blocking} is a file, not a folder; choose another place for the output."
            )
        hint = _home_hint(path)
        raise FileError(f"{path}: the folder {folder} does not exist{hint or '; make it first.'}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FileError(f"{path}: the folder {folder} is not writable.")


def make_folder(path: str | Path) -> Path:
    """Make a folder for outputs with all folders above it, unless it is there.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Path

    Raises
    ------
    FileError
        When a file is in the way, or the folder cannot be made or written to.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     make_folder(Path(folder) / "a" / "b").is_dir()
    True
    """
    folder = Path(path)
    if hint := _home_hint(folder):  # nobody wants a folder of this name
        raise FileError(f"{folder}: cannot be made{hint}")
    blocking = _file_above(folder / "any")
    if blocking is not None:
        raise FileError(
            f"{folder}: {blocking} is a file, not a folder; choose another place for the output."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be made ({error.strerror or error}).") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FileError(f"{folder}: the folder is not writable.")
    return folder


def _home_hint(path: Path) -> str:
    """Return what to add to a message about a path that begins with an unresolved ``~``."""
    first = path.parts[0] if path.parts else ""
    if not first.startswith("~") or Path(first).exists():
        return ""
    return (
        f": {first} stands for a home folder only where the shell reads it, unquoted and at the "
        "beginning of a word; give the whole path."
    )


def _file_above(path: Path) -> Path | None:
    """Return the file that stands where one of the folders of a path should be."""
    for folder in path.parents:
        try:
            if folder.exists():
                return None if folder.is_dir() else folder
        except OSError:  # a file further up
            continue
    return None
