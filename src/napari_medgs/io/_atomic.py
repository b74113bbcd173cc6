"""Files that are complete or absent: written beside their place, then renamed."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_medgs.errors import FileError

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
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a path to write to; it takes the target's place when the block ends well.

    The temporary path lies in the target's folder and has its full suffix, so that libraries
    which choose a format by the name choose the same one. After an exception (a cancel too) it
    is removed and an older target stays as it was.

    Parameters
    ----------
    target : str or Path
        The file to write. A folder may be written too: make one at the yielded path; it then
        needs the target to be absent.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    FileError
        When the folder is missing or not writable, the target is a folder, or the disk refuses.
    """
    path = Path(target)
    folder = path.parent
    if not folder.is_dir():
        raise FileError(f"{path}: the folder {folder} does not exist; make it first.")
    if path.is_dir():
        raise FileError(f"{path}: a folder of this name is in the way of the file.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FileError(f"{path}: the folder {folder} is not writable.")
    # Long names must not exceed the 255 bytes that file systems allow.
    temporary = folder / f".{path.name[:80]}.{uuid.uuid4().hex[:12]}.tmp{full_suffix(path)}"
    try:
        yield temporary
        if not temporary.exists():
            raise FileError(f"{path}: nothing was written.")
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
