"""Session files: JSON logs of prompts and settings from which the same mask can be computed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Required, TypedDict

import numpy as np
from numpy.typing import NDArray

from napari_medgs._text import well_formed
from napari_medgs._util.records import checked
from napari_medgs.data.grid import Grid
from napari_medgs.errors import FileError, GeometryError, MedGSError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io.json_files import read_record
from napari_medgs.segmentation.prompts.prompts import MOST_CLASSES
from napari_medgs.segmentation.session.priors import load_prior, save_prior
from napari_medgs.segmentation.session.runs import decode_image, decode_runs, encode_image
from napari_medgs.segmentation.session.session import Session
from napari_medgs.segmentation.session.settings import Settings
from napari_medgs.segmentation.session.state import AcceptedMask

FORMAT, VERSION = "napari-medgs session", 1
LARGEST_LOG = 512 * 2**20
MOST_VOXELS = 2**33


class _EventRecord(TypedDict, total=False):
    """One step of the log; which entries it has depends on ``do``."""

    do: Required[str]
    runs: list[Any] | None
    settings: dict[str, Any]
    locked_labels: list[Any]
    frozen: list[Any]  # the name until version 0.1
    classes: int
    digest: str


class _SessionRecord(TypedDict, total=False):
    """A session file."""

    grid: Required[dict[str, Any]]
    start: Required[dict[str, Any]]
    events: Required[list[_EventRecord]]
    initial: list[Any] | None
    images: list[str]
    field: str
    names: dict[str, str]
    digest: str


def save_session(session: Session, path: str | Path) -> Path:
    """Write a session's log to a JSON file, atomically, and its priors to files beside it.

    Parameters
    ----------
    session : Session
    path : str or Path

    Returns
    -------
    Path

    Raises
    ------
    FileError
        When it cannot be written.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from napari_medgs.data.grid import Grid
    >>> session = Session(Grid((4, 5, 6)), names={1: "liver"})
    >>> session.paint(np.s_[1, 2, 3], 1)
    True
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     restored, _ = load_session(save_session(session, folder + "/log.json"))
    >>> restored.names, bool((restored.strokes == session.strokes).all())
    ({1: 'liver'}, True)
    """
    initial = None if session.start_initial is None else encode_image(session.start_initial)
    record = {
        "format": FORMAT,
        "version": VERSION,
        "images": [well_formed(image) for image in session.images],
        "field": well_formed(session.field),
        "grid": session.grid.to_dict(),
        "names": {str(k): v for k, v in session.names.items()},
        "start": session.start.to_dict(),
        "initial": initial,
        "accepted": [_accepted_record(*item) for item in session.accepted.items()],
        "events": session.events,
        "digest": digest(session.labels) if session.is_current else "",
    }
    target = Path(path)
    text = json.dumps(record, separators=(",", ":"))
    try:
        for key, prior in session.priors.items():
            save_prior(prior, target, key)
        with atomic_path(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(f"{target}: the session cannot be written ({error}).") from None
    return target


def _accepted_record(name: str, mask: AcceptedMask) -> dict[str, Any]:
    names = {str(k): v for k, v in mask.names.items()}
    return {"name": name, "names": names, "runs": encode_image(mask.labels)}


def _read_record(path: str | Path) -> dict[str, Any]:
    """Read a session file and check its kind and version.

    Raises
    ------
    FileError, FormatVersionError
        When it is no session file, or a newer one.
    """
    if not Path(path).is_file():
        raise FileError(f"{path}: no such file.")
    record = read_record(path, "a session file", kind=FORMAT, version=VERSION, largest=LARGEST_LOG)
    try:
        checked(_SessionRecord, record, "session")
    except MedGSError as error:
        raise FileError(f"{path}: the session file is damaged ({error}).") from None
    return record


def load_session(path: str | Path, grid: Grid | None = None) -> tuple[Session, str]:
    """Restore a session from its log: prompts, settings, undo, redo, accepted masks.

    There is no result yet:
    :meth:`~napari_medgs.segmentation.session.session.Session.solve` gives the mask back. Undo and
    redo of the log's steps bring prompts and settings back; the mask stays until the next solve.

    Parameters
    ----------
    path : str or Path
    grid : Grid, optional
        The image's; it must match the session's.

    Returns
    -------
    session : Session
    digest : str
        Hash of the mask that a full solve gave when the file was written, see :func:`digest`;
        empty where there was none.

    Raises
    ------
    FileError, FormatVersionError
        When it is no session file, damaged, or a newer one, or the file of a prior is missing.
    GeometryError
        When it belongs to another grid.
    """
    record = _read_record(path)
    try:
        own = Grid.from_dict(record["grid"])
        if np.prod(own.shape, dtype=np.float64) > MOST_VOXELS:
            raise ValueError("the image is too large")
        if grid is not None and not grid.matches(own):
            raise GeometryError(
                f"{path}: the session belongs to another image, of shape {own.shape}, not to "
                f"this one of shape {grid.shape} or at this place; open its own image."
            )
        initial = None
        if record.get("initial") is not None:
            initial = decode_image(record["initial"], own.shape)
        session = Session(
            grid or own,
            Settings.from_dict(record["start"]),
            initial=initial,
            images=record.get("images", []),
            field=record.get("field", ""),
            names={int(k): v for k, v in record.get("names", {}).items()},
        )
        for event in record["events"]:
            _replay_event(session, event, Path(path))
        for item in record.get("accepted", []):
            labels = decode_image(item["runs"], own.shape)
            names = {int(k): str(v) for k, v in item["names"].items()}
            session.accepted[str(item["name"])] = AcceptedMask(labels, names)
        session.forget_masks()
        return session, record.get("digest", "")
    except (GeometryError, FileError):
        raise
    except (
        KeyError, TypeError, ValueError, AttributeError, OverflowError, MedGSError
    ) as error:  # fmt: skip
        raise FileError(f"{path}: the session file is damaged ({error}).") from None


def _replay_event(session: Session, event: dict[str, Any], log: Path) -> None:
    """Apply one event of a log."""
    kind = event["do"]
    if kind == "strokes":
        left = event.get("settings")
        settings = None if left is None else Settings.from_dict(left)
        session.write_runs(*decode_runs(event["runs"], session.strokes.size), settings)
    elif kind == "settings":
        locked = session.locked_labels
        settings = Settings.from_dict(event["settings"])
        runs = event.get("locked_labels", event.get("frozen"))  # the name until version 0.1
        if runs is not None:
            locked = decode_image(runs, session.strokes.shape)
        elif not settings.locked:
            locked = None
        session.restore_settings(settings, locked)
    elif kind == "initial":
        runs, part = event["runs"], event.get("part")
        if part is not None and not isinstance(part, dict):
            raise ValueError("the record of a click on a part is no object")
        initial = None if runs is None else decode_image(runs, session.strokes.shape)
        session.set_initial(initial, part=part)
    elif kind == "prior":
        classes, key = int(event["classes"]), str(event["digest"])
        if not 2 <= classes <= MOST_CLASSES:
            raise ValueError(f"probabilities of {classes} classes")
        if key not in session.priors:
            session.priors[key] = load_prior(log, key, (classes, *session.grid.shape))
        session.set_prior(session.priors[key])
    elif kind == "mask":
        session.set_mask(decode_image(event["runs"], session.strokes.shape))
    elif kind == "undo":
        session.undo()
    elif kind == "redo":
        session.redo()
    else:
        raise ValueError(f"unknown event {kind!r}")


def digest(labels: NDArray[Any]) -> str:
    """Return a hash of a label image's values.

    Parameters
    ----------
    labels : ndarray of int

    Returns
    -------
    str
        BLAKE2b of the values as 32-bit integers, 32 hexadecimal digits.
    """
    data = np.ascontiguousarray(labels, np.int32).tobytes()
    return hashlib.blake2b(data, digest_size=16).hexdigest()
