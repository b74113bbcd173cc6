"""A folder for compiled kernels where neither the package nor the home folder is writable."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path


def choose_cache_folder(package: Path) -> Path | None:
    """Point numba to a private temporary folder where it would find none to cache in.

    Without one numba refuses to compile. Packages that an administrator installed, containers
    with another user's number and read-only images have neither a writable package nor a home.

    Parameters
    ----------
    package : Path
        The folder of the package whose kernels are compiled.

    Returns
    -------
    Path or None
        The folder that was set, None where numba has one.

    References
    ----------
    https://numba.readthedocs.io/en/stable/developer/caching.html#cache-file-location
    """
    if os.environ.get("NUMBA_CACHE_DIR") or not hasattr(os, "getuid"):
        return None
    if _can_write(package / "__pycache__") or _can_write(_user_cache()):
        return None
    folder = None
    with suppress(OSError):
        folder = _private_folder()
    if folder is not None:
        os.environ["NUMBA_CACHE_DIR"] = str(folder)
        if "numba" in sys.modules:
            from numba.core.config import reload_config

            reload_config()
    return folder


def _user_cache() -> Path:
    """Return the folder below which numba caches per user."""
    if sys.platform == "darwin":
        return Path(os.path.expanduser("~/Library/Caches"))
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))


def _can_write(folder: Path) -> bool:
    """Tell whether a folder is writable, or can be made."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _private_folder() -> Path:
    """Return a folder of this user alone: what lies in it is run.

    Raises
    ------
    OSError
        When there is no place for temporary files.
    """
    import tempfile

    folder = Path(tempfile.gettempdir()) / f"napari-medgs-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix="napari-medgs-"))
