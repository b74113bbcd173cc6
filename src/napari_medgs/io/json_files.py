"""JSON files of numbers, such as the metrics of a result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_medgs.io._atomic import atomic_path


def plain_json(value: Any) -> Any:
    """Return a value made of JSON types; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(entry) for entry in value]
    if hasattr(value, "tolist"):  # numpy
        return plain_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
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
