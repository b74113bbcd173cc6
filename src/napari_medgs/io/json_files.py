"""JSON files: numbers, such as the metrics of a result, and records with a kind and a version."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_medgs._text import well_formed
from napari_medgs._util.records import parse_json
from napari_medgs.errors import FileError, FormatVersionError
from napari_medgs.io._atomic import atomic_path


def plain_json(value: Any) -> Any:
    """Return a value made of JSON types; numbers that are not finite become null.

    Texts are made such that UTF-8 can hold them, see :func:`~napari_medgs._text.well_formed`.
    """
    if isinstance(value, Mapping):
        return {well_formed(str(key)): plain_json(entry) for key, entry in value.items()}
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, (list, tuple)):
        return [plain_json(entry) for entry in value]
    if hasattr(value, "tolist"):  # numpy
        return plain_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return well_formed(str(value))
    return value


def json_text(numbers: Mapping[str, Any]) -> str:
    """Return metrics as the text of a JSON file."""
    return json.dumps(plain_json(numbers), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: str | Path, numbers: Mapping[str, Any]) -> Path:
    """Write metrics as a JSON file, atomically.

    Raises
    ------
    FileError
        When it cannot be written.
    """
    path = Path(path)
    text = json_text(numbers)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def read_record(
    path: str | Path, what: str, *, kind: str, version: int, largest: int
) -> dict[str, Any]:
    """Read a JSON file that holds a record of one kind and version.

    Parameters
    ----------
    path : str or Path
    what : str
        What the file should be, for messages; begins with an article.
    kind, version : str, int
        What its entries "format" and "version" must be.
    largest : int
        Bytes up to which it is read.

    Returns
    -------
    dict
        Its other entries are not checked.

    Raises
    ------
    FileError
        When it cannot be read, is too large, or holds something else.
    FormatVersionError
        When it has another version.
    """
    path = Path(path)
    try:
        if path.stat().st_size > largest:
            raise FileError(f"{path}: too large for {what}.")
        record = parse_json(path.read_bytes())
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except ValueError as error:
        raise FileError(f"{path}: not {what} ({error}).") from None
    if not isinstance(record, dict) or record.get("format") != kind:
        raise FileError(f"{path}: not {what} of napari-medgs.")
    if record.get("version") != version:
        raise FormatVersionError(
            f"{path}: {what} of version {record.get('version')}; this program reads version "
            f"{version}. Use a newer napari-medgs."
        )
    return record
