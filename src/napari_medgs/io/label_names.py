"""Names and colors of a mask's labels, kept in a JSON file beside it."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_medgs._util.records import checked, parse_json
from napari_medgs.errors import FileError, ParameterError
from napari_medgs.io._atomic import atomic_path, full_suffix

_MAX_SIDECAR = 16 * 2**20
_NUMBERED = re.compile(r"(label|class|segment)[ _]?\d+", re.IGNORECASE)
_SHARING = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".nhdr", ".mgz", ".hdr", ".tif", ".tiff")
"""Endings of images whose label names may lie in the same JSON file."""


def sidecar_path(path: str | Path) -> Path:
    """Return where the label names of a mask are kept: ``seg.json`` beside ``seg.nii.gz``.

    Examples
    --------
    >>> sidecar_path("seg.nii.gz").name
    'seg.json'
    """
    path = Path(path)
    suffix = full_suffix(path)
    return path.with_name(path.name.removesuffix(suffix) + ".json")


def write_label_names(path: str | Path, names: Mapping[int, str]) -> Path:
    """Write the names of a mask's labels beside it.

    The file holds ``{"labels": {"1": "spleen", ..}}``. Other entries of a sidecar that is already
    there (as BIDS has them) are kept; colors only of labels whose name stays the same.

    Parameters
    ----------
    path : str or Path
        The mask's file.
    names : mapping of int to str
        Names by label value.

    Returns
    -------
    Path
        The JSON file.

    Raises
    ------
    FileError
        When it cannot be written, or a file of this name holds something else than a JSON object.

    Examples
    --------
    >>> import tempfile
    >>> from napari_medgs.io import read_label_names, write_label_names
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = write_label_names(folder + "/mask.nii.gz", {1: "spleen"})
    ...     table.name, read_label_names(folder + "/mask.nii.gz")
    ('mask.json', {1: 'spleen'})
    """
    sidecar = sidecar_path(path)
    record = _read_sidecar(sidecar) if sidecar.exists() else {}
    if record is None:
        raise FileError(
            f"{sidecar}: the label names go here, but the file holds no JSON object; move it."
        )
    before = record.get("labels")
    record["labels"] = {str(int(value)): str(name) for value, name in sorted(names.items())}
    if isinstance(record.get("colors"), dict) and isinstance(before, dict):
        record["colors"] = {
            value: color
            for value, color in record["colors"].items()
            if before.get(value) == record["labels"].get(value)
        }
    other = _same_stem(Path(path))
    if other is not None and isinstance(before, dict) and before != record["labels"]:
        warnings.warn(
            f"{sidecar}: had the label names of {other.name}, which are now those of "
            f"{Path(path).name}; give the mask another name.",
            stacklevel=3,
        )
    return _write_sidecar(sidecar, record)


def read_label_names(path: str | Path) -> dict[int, str]:
    """Read the names of a mask's labels from its sidecar; empty where there are none.

    A damaged sidecar gives a warning: the mask is readable without it.
    """
    sidecar = sidecar_path(path)
    if not sidecar.is_file():
        return {}
    record = _read_sidecar(sidecar)
    if record is None:
        warnings.warn(f"{sidecar}: no JSON object; label names are not read.", stacklevel=2)
        return {}
    found = record.get("labels", {})
    if isinstance(found, dict) and any(isinstance(entry, dict) for entry in found.values()):
        return {}  # numbers of a command, by label
    try:
        labels = checked(dict[str, str], found, "labels")
        return {int(value): name for value, name in labels.items()}
    except (ParameterError, ValueError):
        warnings.warn(f"{sidecar}: its label names are damaged; not read.", stacklevel=2)
        return {}


def given_names(names: Mapping[int, str]) -> dict[int, str]:
    """Leave out names that only number their label, as programs give them to unnamed ones.

    Examples
    --------
    >>> given_names({1: "liver", 2: "Segment_2", 3: "Label 3"})
    {1: 'liver'}
    """
    return {value: name for value, name in names.items() if not _NUMBERED.fullmatch(name.strip())}


def write_label_colors(path: str | Path, colors: Mapping[int, Sequence[float]]) -> Path:
    """Write the colors of a mask's labels into the JSON file that holds their names.

    Parameters
    ----------
    path : str or Path
        The mask's file.
    colors : mapping of int to (red, green, blue)
        From 0 to 1, by label value.

    Raises
    ------
    FileError
        As :func:`write_label_names`.
    """
    sidecar = sidecar_path(path)
    record = _read_sidecar(sidecar) if sidecar.exists() else {}
    if record is None:
        raise FileError(
            f"{sidecar}: the label colors go here, but the file holds no JSON object; move it."
        )
    record["colors"] = {
        str(int(value)): [round(float(c), 6) for c in color[:3]]
        for value, color in sorted(colors.items())
    }
    return _write_sidecar(sidecar, record)


def forget_label_names(path: str | Path) -> None:
    """Remove the label names and colors that an earlier mask of the same name left beside it.

    Other entries stay, and so does the whole file where another image beside it has the same
    name with another suffix, of which it may be the sidecar. A warning says what was done.

    Parameters
    ----------
    path : str or Path
        The mask's file.

    Raises
    ------
    FileError
        When the sidecar cannot be written.
    """
    sidecar = sidecar_path(path)
    record = _read_sidecar(sidecar) if sidecar.is_file() else None
    found = (record or {}).get("labels")
    if record is None or not isinstance(found, dict):
        return
    if not all(isinstance(name, str) for name in found.values()):
        return  # numbers of a command, by label
    other = _same_stem(Path(path))
    if other is not None:
        warnings.warn(
            f"{sidecar}: has the label names of {other.name}, which count for "
            f"{Path(path).name} as well; give the mask another name.",
            stacklevel=3,
        )
        return
    rest = {key: value for key, value in record.items() if key not in ("labels", "colors")}
    if rest:
        _write_sidecar(sidecar, rest)
    else:
        sidecar.unlink()
    warnings.warn(
        f"{sidecar}: the label names of an earlier {Path(path).name} were removed from it, as "
        "the new mask has none.",
        stacklevel=3,
    )


def _same_stem(path: Path) -> Path | None:
    """Return another image beside a mask whose sidecar is the same file."""
    sidecar = sidecar_path(path)
    for suffix in _SHARING:
        other = path.with_name(sidecar.stem + suffix)
        if other.name != path.name and other.exists():
            return other
    return None


def read_label_colors(path: str | Path) -> dict[int, tuple[float, float, float]]:
    """Read the colors (red, green, blue) from 0 to 1 of a mask's labels from its sidecar.

    What is no color is passed over: the mask is readable without it.
    """
    sidecar = sidecar_path(path)
    record = _read_sidecar(sidecar) if sidecar.is_file() else None
    found = {} if record is None else record.get("colors")
    colors: dict[int, tuple[float, float, float]] = {}
    for value, color in found.items() if isinstance(found, dict) else ():
        parts = color if isinstance(color, list) and len(color) == 3 else []
        numbers = [p for p in parts if type(p) in (int, float) and 0 <= p <= 1]
        if len(numbers) == 3 and value.lstrip("-").isdecimal() and len(value) < 12:
            colors[int(value)] = (float(numbers[0]), float(numbers[1]), float(numbers[2]))
    return colors


def _write_sidecar(sidecar: Path, record: Mapping[str, Any]) -> Path:
    with atomic_path(sidecar) as temporary:
        text = json.dumps(record, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return sidecar


def _read_sidecar(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, None when the file holds none."""
    try:
        if path.stat().st_size > _MAX_SIDECAR:
            return None
        record = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None
