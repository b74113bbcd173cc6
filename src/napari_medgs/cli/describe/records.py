"""What JSON files, tables and files of numbers hold that commands or the viewer write."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_medgs.cli.describe.grid import describe_grid
from napari_medgs.errors import FileError

LARGEST = 512 * 2**20
PRIOR = re.compile(r"(?P<stem>.+)\.prior-[0-9a-f]{32}\.zz")
STEP = re.compile(r"step_\d+\.npy")
_SHOWN = 20


def describe_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds: a record of this package, label names, or other entries.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FileError
        When it is no JSON, damaged, or a record that this version does not know.
    """
    from napari_medgs._util.records import parse_json
    from napari_medgs.io._limits import check_file
    from napari_medgs.io._safetensors import OWN

    check_file(path, "a JSON file")
    if path.stat().st_size > LARGEST:
        raise FileError(f"{path}: too large for a JSON file of napari-medgs.")
    try:
        record = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: no JSON file, or damaged ({error}).") from None
    name = record.get("format") if isinstance(record, dict) else None
    if isinstance(name, str) and name.startswith(OWN):
        describe = _RECORDS.get(name.removeprefix(OWN))
        if describe is None:
            raise FileError(
                f"{path}: is a {name.removeprefix(OWN)}, which this version cannot describe."
            )
        return {**describe(path, record), "bytes": path.stat().st_size}
    if not isinstance(record, dict):
        return {"kind": f"JSON {'list' if isinstance(record, list) else 'value'}"}
    labels = record.get("labels")
    if isinstance(labels, dict) and all(isinstance(text, str) for text in labels.values()):
        return {"kind": "label names of a mask", "names": dict(labels), "entries": list(record)}
    return {"kind": "JSON with numbers or notes", "entries": list(record)}


def describe_table(path: Path) -> dict[str, Any]:
    """Return the columns and rows of a ``.csv`` or ``.tsv`` file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FileError
        When it cannot be read as text.
    """
    from napari_medgs.io._limits import check_file

    check_file(path, "a table")
    tabs = path.name.lower().endswith(".tsv")
    try:
        with path.open(encoding="utf-8-sig", newline="") as opened:
            rows = csv.reader(opened, delimiter="\t" if tabs else ",")
            columns = next(rows, [])
            count = sum(1 for row in rows if row)
    except (OSError, ValueError, csv.Error) as error:
        raise FileError(f"{path}: no table in UTF-8 ({error}).") from None
    return {"kind": "table", "columns": columns, "rows": count, "bytes": path.stat().st_size}


def holds_positions(path: Path) -> bool:
    """Tell whether a file holds nothing but snapshots of centers, as ``fit --positions`` writes.

    Parameters
    ----------
    path : Path
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return False
    return bool(names) and all(STEP.fullmatch(name) for name in names)


def describe_positions(path: Path) -> dict[str, Any]:
    """Return the steps and numbers of Gaussians of a file of ``fit --positions``.

    Parameters
    ----------
    path : Path
    """
    from napari_medgs.io.medmnist.arrays import open_archive, open_member

    counts = {}
    with open_archive(path) as archive:
        for name in sorted(archive.namelist()):
            stem = name.removesuffix(".npy")
            with open_member(path, archive, stem) as (_, shape, _, _):
                counts[stem] = shape[0] if shape else 0
    return {
        "kind": "centers of a fit's Gaussians",
        "snapshots": len(counts),
        "gaussians": {name: counts[name] for name in list(counts)[:_SHOWN]},
        "bytes": path.stat().st_size,
    }


def describe_prior(path: Path) -> dict[str, Any]:
    """Return to which session a file of class probabilities belongs.

    Parameters
    ----------
    path : Path
    """
    from napari_medgs.io._limits import check_file

    check_file(path, "a file of class probabilities")
    match = PRIOR.fullmatch(path.name)
    stem = match["stem"] if match else path.stem
    return {
        "kind": "class probabilities of a session",
        "session": f"{stem}.json",
        "bytes": path.stat().st_size,
    }


def _describe_session(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    from napari_medgs.segmentation.session.replay import load_session

    session, digest = load_session(path)
    return {
        "kind": "session",
        "images": list(session.images),
        "field": session.field,
        "classes": [f"{value} {name}" for value, name in sorted(session.names.items())],
        "steps": len(session.events),
        "points": len(session.settings.points),
        "boxes": len(session.settings.boxes),
        "solved": bool(digest),
        "accepted_masks": list(session.accepted),
        **describe_grid(session.grid),
    }


def _describe_classes(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    from napari_medgs.segmentation import load_classes

    names = load_classes(path).names
    return {"kind": "list of classes", "classes": [f"{k} {name}" for k, name in names.items()]}


def _describe_tree(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    from napari_medgs._util.records import checked
    from napari_medgs.errors import ParameterError

    try:
        shape = checked(list[int], record.get("shape"), "shape")
        leaves = checked(int, record.get("leaves"), "leaves")
    except ParameterError as error:
        raise FileError(f"{path}: the tree of parts is damaged ({error}).") from None
    return {"kind": "tree of parts", "smallest_parts": leaves, "stored_shape": shape}


def _describe_manifest(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    from napari_medgs.batch.manifest import read_manifest

    cases = read_manifest(path)
    return {
        "kind": "manifest of fit-many",
        "cases": len(cases),
        "finished": sum(case["status"] == "done" for case in cases.values()),
        "failed": sum(case["status"] == "failed" for case in cases.values()),
    }


def _describe_case(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    from napari_medgs.segmentation.cases.store import read_case_record

    case = read_case_record(path)
    return {
        "kind": "record of a case",
        "name": case.name,
        "contrasts": list(case.channels),
        "images": list(case.images),
        "session": case.session,
    }


_RECORDS: dict[str, Callable[[Path, dict[str, Any]], dict[str, Any]]] = {
    "session": _describe_session,
    "classes": _describe_classes,
    "tree of parts": _describe_tree,
    "batch": _describe_manifest,
    "cohort": _describe_manifest,  # the name before version 0.2
    "case": _describe_case,
}
"""By what "format" says after "napari-medgs"."""
