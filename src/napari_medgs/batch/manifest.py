"""The manifest of a batch: inputs, settings and outcome of every fit."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Required, TypedDict

from napari_medgs import __version__
from napari_medgs._util.records import checked, parse_json
from napari_medgs.batch.params import BatchParams
from napari_medgs.errors import FileError, FormatVersionError, ParameterError
from napari_medgs.fitting.params import FitParams
from napari_medgs.io.cases import Case
from napari_medgs.io.fields import SUFFIX, SUFFIXES
from napari_medgs.io.json_files import plain_json, write_json

FILE = "manifest.json"
FORMAT, FORMAT_VERSION = "napari-medgs batch", 1
OLD_FORMAT = "napari-medgs cohort"  # as versions before 0.2 wrote it; otherwise the same
# They change how a fit runs, not its result.
_IRRELEVANT = ("threads", "checkpoint", "checkpoint_every", "positions_every")
LEAST_SECONDS = 1.0  # between two writes of the manifest
WRITING_FRACTION = 0.05  # of the time, at most, goes into writing it


def settings_of(params: FitParams, batch: BatchParams) -> dict[str, Any]:
    """Return all settings that a field depends on, as JSON-able values."""
    record = {k: v for k, v in params.to_dict().items() if k not in _IRRELEVANT}
    record["spacing"] = batch.spacing
    record["assume_identity"] = batch.assume_identity
    if batch.volume is not None:
        record["volume"] = batch.volume
    if batch.resample:  # absent in manifests of earlier versions, which always refused
        record["resample"] = True
    if batch.compress is not None:
        record["compress"] = batch.compress
    plain: dict[str, Any] = plain_json(record)
    return plain


def stamps_of(case: Case) -> list[list[Any]] | None:
    """Return size and time of change of every file of a case; None where one is missing.

    Folders count with all files in them. Equal stamps mean equal contents; different ones mean
    that the contents must be compared.
    """
    stamps: list[list[Any]] = []
    for text in (*case.images, *([case.mask] if case.mask else [])):
        path = Path(text)
        if not path.exists() and ".npz:" in text.lower():
            path = Path(text[: text.lower().index(".npz:") + 4])
        try:
            files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
            found = [f.stat() for f in files]
        except OSError:
            return None
        stamps.append([len(files), sum(s.st_size for s in found),
                       max((s.st_mtime_ns for s in found), default=0)])  # fmt: skip
    return stamps


class _Entry(TypedDict, total=False):
    """What is read of a case's entry."""

    status: Required[str]
    images: list[str]
    mask: str | None
    digest: str | None
    settings: dict[str, Any]
    metrics: dict[str, Any]


class Manifest:
    """The record of a batch in its output folder.

    Parameters
    ----------
    folder : Path
        Of the fields; an existing manifest in it is read.
    suffix : str
        Of the fields.

    Raises
    ------
    FileError
        When the file of this name is not a manifest or is damaged.
    """

    def __init__(self, folder: Path, suffix: str = SUFFIX) -> None:
        self.folder, self.path, self.suffix = folder, folder / FILE, suffix
        self.cases: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            self.cases = read_manifest(self.path)
        self._written, self._cost = time.monotonic(), 0.0

    def output(self, case: Case) -> Path:
        """Return where the field of a case goes."""
        return self.folder / f"{case.name}{self.suffix}"

    def finished(self, case: Case, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the entry of an existing field that was made with exactly these settings.

        Whether its input has changed since is not checked here.
        """
        entry = self.cases.get(case.name)
        if entry is None or entry.get("status") != "done" or entry.get("settings") != settings:
            return None
        if (entry.get("mask") is None) != (case.mask is None):
            return None
        if len(entry.get("images", ())) != len(case.images):
            return None
        try:
            size = self.output(case).stat().st_size
        except OSError:
            return None
        return entry if size == entry.get("output_bytes") else None

    def set(self, case: Case, entry: Mapping[str, Any]) -> None:
        """Record the outcome of a case; written now and then, see :meth:`save`."""
        self.cases[case.name] = {
            "images": list(case.images),
            "mask": case.mask,
            "output": f"{case.name}{self.suffix}",
            **plain_json(entry),
        }
        wait = max(LEAST_SECONDS, self._cost / WRITING_FRACTION)
        if time.monotonic() - self._written > wait:
            self.save()

    def save(self) -> None:
        """Write the file; it is complete at any time."""
        started = time.monotonic()
        counts: dict[str, int] = {}
        for entry in self.cases.values():
            counts[entry["status"]] = counts.get(entry["status"], 0) + 1
        write_json(
            self.path,
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "program": __version__,
                "counts": counts,
                "cases": dict(sorted(self.cases.items())),
            },
        )
        self._written = time.monotonic()
        self._cost = self._written - started


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of a manifest by the names of the cases.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FileError, FormatVersionError
        When it is no manifest, damaged, or of another version.
    """
    try:
        record = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FileError(
            f"{path}: cannot be read ({error}); move it away to start over."
        ) from error
    if not isinstance(record, dict) or record.get("format") not in (FORMAT, OLD_FORMAT):
        raise FileError(f"{path}: not the manifest of a batch; choose another output folder.")
    if record.get("format_version") != FORMAT_VERSION:
        raise FormatVersionError(
            f"{path}: manifest of version {record.get('format_version')}; this program reads "
            f"version {FORMAT_VERSION}. Update napari-medgs, or choose another output folder."
        )
    try:
        cases: dict[str, dict[str, Any]] = checked(dict[str, _Entry], record.get("cases"), "cases")
    except ParameterError as error:
        raise FileError(
            f"{path}: a damaged manifest ({error}); move it away to start over."
        ) from error
    return cases


def remove_partial_files(outputs: list[Path]) -> None:
    """Remove temporary files that a killed process left while writing one of these fields."""
    names: dict[Path, set[str]] = {}
    for output in outputs:
        names.setdefault(output.parent, set()).add(output.name[:80])
    for place, files in names.items():
        if not place.is_dir():
            continue
        for entry in os.scandir(place):
            for suffix in SUFFIXES:
                if not (entry.name.startswith(".") and entry.name.endswith(f".tmp{suffix}")):
                    continue
                original = entry.name[1:].removesuffix(f".tmp{suffix}").rpartition(".")[0]
                if original in files:
                    Path(entry.path).unlink(missing_ok=True)
