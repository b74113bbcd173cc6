"""Sessions saved in the user's cache, so that a crash loses nothing. No Qt."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.plugin.preferences import cache_folder

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.segmentation import Session

MAX_AGE_DAYS = 30
MAX_FILES = 40
LOG, FIELD = ".session.json", ".medgs.safetensors"
_serial = itertools.count()
_live: set[Path] = set()


def folder() -> Path:
    """Return the folder of autosaved sessions in the cache that the user prefers."""
    return cache_folder() / "sessions"


@dataclass(frozen=True)
class SavedSession:
    """A session found in the cache.

    Attributes
    ----------
    path : Path
    saved : float
        Seconds since the epoch.
    """

    path: Path
    saved: float

    @property
    def field(self) -> Path:
        """Where its field lies, if it was saved."""
        return field_file(self.path)


def field_file(log: Path) -> Path:
    """Return the field file that belongs to a session file."""
    return log.with_name(log.name.removesuffix(LOG) + FIELD)


def new_file(key: str) -> Path:
    """Return a file for a new session on an image, owned by this process."""
    place = folder()
    path = place / f"{key}-{os.getpid()}-{int(time.time())}-{next(_serial)}{LOG}"
    _live.add(path)
    return path


def release(path: Path) -> None:
    """Say that a session is no longer being worked on here; its file stays."""
    _live.discard(path)


def find(key: str) -> list[SavedSession]:
    """Return the sessions saved for an image, newest first, without those in use."""
    place = folder()
    if not place.is_dir():
        return []
    found = []
    for path in place.glob(f"{key}-*{LOG}"):
        if path in _live:
            continue
        try:
            saved = path.stat().st_mtime
        except OSError:
            continue  # removed by another process meanwhile
        if not _in_use(path, saved):
            found.append(SavedSession(path, saved))
    return sorted(found, key=lambda session: -session.saved)


def _in_use(path: Path, saved: float) -> bool:
    """Tell whether another process that is still running writes a session."""
    import psutil

    try:
        owner = int(path.name.split("-")[1])
    except (IndexError, ValueError):
        return False
    if owner == os.getpid():
        return False
    try:
        return bool(psutil.Process(owner).create_time() < saved)
    except psutil.Error:
        return False


def discard(saved: SavedSession | Path) -> None:
    """Delete a saved session, its field and its priors."""
    from napari_medgs.segmentation.session.priors import prior_files

    path = saved.path if isinstance(saved, SavedSession) else saved
    for file in (path, field_file(path), *prior_files(path)):
        file.unlink(missing_ok=True)
    _live.discard(path)


def prune(now: float | None = None) -> None:
    """Remove sessions that are old, or too many."""
    place = folder()
    if not place.is_dir():
        return
    now = time.time() if now is None else now
    dated = []
    for path in place.glob(f"*{LOG}"):
        try:
            dated.append((path.stat().st_mtime, path))
        except OSError:
            continue
    dated.sort(reverse=True)
    for rank, (saved, path) in enumerate(dated):
        old = now - saved > MAX_AGE_DAYS * 86_400 or rank >= MAX_FILES
        if old and path not in _live and not _in_use(path, saved):
            discard(path)


@dataclass(frozen=True)
class Autosave:
    """Write a session to its file, in a thread.

    The session may go on changing: what has been recorded is saved as it is now.
    """

    session: Session
    path: Path
    field: GaussianField | None

    @classmethod
    def of(cls, session: Session, path: Path, field: GaussianField | None) -> Autosave:
        """Take a session as it is now; no voxels are copied."""
        return cls(session.copy_for_saving(), path, field)

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> Path:
        """Write the field, once, and the log."""
        from napari_medgs.io.fields import save_field
        from napari_medgs.segmentation import save_session

        self.path.parent.mkdir(parents=True, exist_ok=True)
        place = field_file(self.path)
        if self.field is not None:
            if not place.exists():
                save_field(place, self.field)
            self.session.field = place.name
        return save_session(self.session, self.path)
