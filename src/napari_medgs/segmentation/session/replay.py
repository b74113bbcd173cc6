"""Session logs: JSON files that hold all a user did, and give the same mask again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.errors import FileError, FormatVersionError, GeometryError, MedGSError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.segmentation.session.history import Delta, decode_runs, encode_runs
from napari_medgs.segmentation.session.settings import Settings

if TYPE_CHECKING:
    from napari_medgs.segmentation.session.session import Session

FORMAT, VERSION = "napari-medgs session", 1
LARGEST_LOG = 512 * 2**20
MOST_VOXELS = 2**33


def write_log(session: Session, path: str | Path) -> Path:
    """Write a session's log, at once or not at all.

    Raises
    ------
    FileError
        When it cannot be written.
    """
    initial = None
    if session.initial is not None:
        flat = np.ascontiguousarray(session.initial).reshape(-1)
        where = np.flatnonzero(flat)
        initial = encode_runs(where, flat[where])
    record = {
        "format": FORMAT,
        "version": VERSION,
        "images": list(session.images),
        "field": session.field,
        "grid": session.grid.to_dict(),
        "names": {str(k): v for k, v in session.names.items()},
        "start": session.start.to_dict(),
        "initial": initial,
        "events": session.events,
        "digest": digest(session.labels) if session.settled else "",
    }
    target = Path(path)
    text = json.dumps(record, separators=(",", ":"))
    try:
        with atomic_path(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(f"{target}: the session cannot be written ({error}).") from None
    return target


def read_log(path: str | Path) -> dict[str, Any]:
    """Read a session log and check what it is.

    Raises
    ------
    FileError, FormatVersionError
        When it is no session log, or a newer one.
    """
    place = Path(path)
    if not place.is_file():
        raise FileError(f"{path}: no such file.")
    if place.stat().st_size > LARGEST_LOG:
        raise FileError(f"{path}: too large for a session log.")
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise FileError(f"{path}: not a session log (it is no JSON).") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise FileError(f"{path}: not a session log of napari-medgs.")
    if record.get("version") != VERSION:
        raise FormatVersionError(
            f"{path}: the session log has version {record.get('version')}, this program knows "
            f"{VERSION}; use a newer napari-medgs."
        )
    return record


def load_session(path: str | Path, grid: Grid | None = None) -> tuple[Session, str]:
    """Restore a session from its log: prompts, settings, undo and redo; no result yet.

    Solve it with :meth:`~napari_medgs.segmentation.session.session.Session.solve` to get the
    mask back.

    Parameters
    ----------
    path : str or Path
    grid : Grid, optional
        The image's; it must be the log's.

    Returns
    -------
    session : Session
    digest : str
        Fingerprint of the mask that a full solve gave when the log was written, see
        :func:`digest`; empty where the log ends before one.

    Raises
    ------
    FileError, FormatVersionError
        When it is no session log, damaged, or a newer one.
    GeometryError
        When it belongs to another grid.
    """
    from napari_medgs.segmentation.session.session import Session

    record = read_log(path)
    try:
        own = Grid.from_dict(record["grid"])
        if np.prod(own.shape, dtype=np.float64) > MOST_VOXELS:
            raise ValueError("the image is too large")
        if grid is not None and not grid.matches(own):
            raise GeometryError(
                f"{path}: the session belongs to an image of shape {own.shape}, not to this one "
                f"of shape {grid.shape}, or to one in another place."
            )
        initial = None
        if record.get("initial") is not None:
            initial = np.zeros(own.shape, np.int32)
            where, values = decode_runs(record["initial"], initial.size)
            initial.reshape(-1)[where] = values
        session = Session(
            grid or own,
            Settings.from_dict(record["start"]),
            initial=initial,
            images=[str(v) for v in record.get("images", [])],
            field=str(record.get("field", "")),
            names={int(k): str(v) for k, v in record.get("names", {}).items()},
        )
        for event in record["events"]:
            _repeat(session, event)
        return session, str(record.get("digest", ""))
    except GeometryError:
        raise
    except (
        KeyError, TypeError, ValueError, AttributeError, OverflowError, MedGSError
    ) as error:  # fmt: skip
        raise FileError(f"{path}: the session log is damaged ({error}).") from None


def _repeat(session: Session, event: dict[str, Any]) -> None:
    """Do one event again."""
    kind = event["do"]
    if kind == "strokes":
        where, values = decode_runs(event["runs"], session.strokes.size)
        session.strokes.reshape(-1)[where] = values
        session.record_strokes(Delta(where, values, values).box(session.strokes.shape))
    elif kind == "settings":
        frozen = session.frozen
        settings = Settings.from_dict(event["settings"])
        if "frozen" in event:
            frozen = np.zeros(session.strokes.shape, np.int32)
            where, values = decode_runs(event["frozen"], frozen.size)
            frozen.reshape(-1)[where] = values
        elif not settings.locked:
            frozen = None
        session.restore(settings, frozen)
    elif kind == "undo":
        session.undo()
    elif kind == "redo":
        session.redo()
    else:
        raise ValueError(f"unknown event {kind!r}")


def digest(labels: NDArray[Any]) -> str:
    """Return a fingerprint of a label image."""
    data = np.ascontiguousarray(labels, np.int32).tobytes()
    return hashlib.blake2b(data, digest_size=16).hexdigest()
