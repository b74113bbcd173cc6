"""Reading an entry of the corpus and comparing it with what is right."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_medgs.errors import MedGSError
from tests.corpus.entries import UNITS, Entry, Reference

TOLERANCE = 1e-4  # voxels


@dataclass(frozen=True)
class Outcome:
    """What came of reading an entry.

    Attributes
    ----------
    entry : str
    result : str
        "read", "refused" or "fault".
    distance : float or None
        Greatest distance of a voxel from where it should be, in voxels.
    message : str
        Of the error, the warnings, or the fault.
    """

    entry: str
    result: str
    distance: float | None
    message: str


def check(entry: Entry, folder: Path, commands: Sequence[str] = ("info", "convert")) -> Outcome:
    """Make an entry's file in an empty folder, read it, give it to commands, and compare.

    Parameters
    ----------
    entry : Entry
    folder : Path
    commands : sequence of str
        Of the command line, run in this process.
    """
    path, right = entry.make(folder)
    outcome = _check_reading(entry, path, right)
    if outcome.result == "fault" or entry.reader == "session" or not commands:
        return outcome
    asked = _check_commands(entry, folder, path, right, commands)
    return asked if asked.result == "fault" else outcome


def _check_reading(entry: Entry, path: Any, right: Any) -> Outcome:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = read(entry.reader, path, entry.options)
        except MedGSError as error:
            return _refused(entry, Path(str(path)), str(error))
        except Exception as error:
            return _fault(entry, f"unexpected {type(error).__name__}: {error}")
    said = " | ".join(str(w.message) for w in caught if w.category is UserWarning)
    if right is None or entry.refused:
        return _fault(entry, "read, and should be refused")
    if entry.warned and not re.search(entry.warned, said):
        return _fault(entry, f"read without a warning of '{entry.warned}' ({said or 'none'})")
    try:
        distance = compare(*found, right) if isinstance(right, Reference) else right(found)
    except AssertionError as error:
        return _fault(entry, " ".join(str(error).split())[:300])
    if distance > TOLERANCE:
        return Outcome(entry.name, "fault", distance, "voxels lie elsewhere")
    return Outcome(entry.name, "read", distance, said)


def read(reader: str, path: Any, options: dict[str, Any]) -> Any:
    """Read a path by the function of the package that is for it.

    Returns
    -------
    tuple or object
        (C, Z, Y, X) data and their grid for volumes and labels.
    """
    from napari_medgs import io

    if reader == "volume":
        volume = io.read_volume(path, **options)
        return volume.data, volume.grid
    if reader == "labels":
        labels, grid = io.read_labels(path, **options)
        return labels[None], grid
    if reader == "field":
        from napari_medgs.io.fields import load_field

        return load_field(path)
    if reader == "mesh":
        from napari_medgs.io.meshes import load_meshes

        return load_meshes(path)
    from napari_medgs.segmentation.session.replay import load_session

    return load_session(path)


def compare(data: Any, grid: Any, right: Reference) -> float:
    """Return the greatest distance in voxels; values that differ fail an assertion."""
    at = grid.to_voxel(right.points)
    index = np.rint(at).astype(np.int64)
    distance = float(np.abs(at - index).max()) if len(at) else 0.0
    if distance > TOLERANCE:
        return distance
    shape = np.array(grid.shape)
    assert ((index >= 0) & (index < shape)).all(), "voxels lie outside of what was read"
    assert len(np.unique(index, axis=0)) == len(index), "two voxels fell together"
    assert data.shape[0] == right.values.shape[1], f"{data.shape[0]} channels were read"
    if right.sparse:
        assert np.count_nonzero(data) == len(index), "other voxels are labeled, too"
    else:
        assert len(index) == shape.prod(), f"{tuple(shape)} voxels were read"
    got = data[:, index[:, 0], index[:, 1], index[:, 2]].T
    wanted = np.asarray(right.values)
    if got.dtype.kind in "iu" and wanted.dtype.kind in "iu":
        assert np.array_equal(got, wanted), "values differ"
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            same = np.isclose(got, wanted.astype(np.float64), 1e-6, 0, equal_nan=True)
        assert same.all(), f"values differ: {got[~same][:3]} for {wanted[~same][:3]}"
    return distance


def _refused(entry: Entry, path: Path, message: str) -> Outcome:
    if not entry.refused:
        return _fault(entry, f"refused: {message}")
    if "\n" in message or not message.strip():
        return _fault(entry, f"not one line: {message!r}")
    if not re.search(entry.refused, message):
        return _fault(entry, f"does not say '{entry.refused}': {message}")
    if path.name.partition(":")[0] not in message:
        return _fault(entry, f"does not name the file: {message}")
    return Outcome(entry.name, "refused", None, message)


def _fault(entry: Entry, message: str) -> Outcome:
    return Outcome(entry.name, "fault", None, message)


class _Place:
    """Shape and inverse affine, in mm, of a file that nibabel read."""

    def __init__(self, image: Any) -> None:
        self.shape = (*image.shape, 1)[:3]
        affine = np.array(image.affine, dtype=np.float64)
        affine[:3] *= UNITS.get(image.header.get_xyzt_units()[0], 1.0)
        self.inverse = np.linalg.inv(affine)

    def to_voxel(self, points: Any) -> Any:
        """Return the voxel coordinates of RAS millimeters."""
        return points @ self.inverse[:3, :3].T + self.inverse[:3, 3]


def _check_commands(
    entry: Entry, folder: Path, path: Any, right: Any, names: Sequence[str]
) -> Outcome:
    """Give an entry's file to commands; nibabel reads what was converted."""
    target = folder / "converted.nii.gz"
    kind = "--as-labels" if entry.reader == "labels" else "--as-image"
    commands = {"info": ["info", str(path)], "convert": ["convert", str(path), str(target), kind]}
    if "segments" in entry.options or "as an image" in entry.name:
        del commands["info"]  # it describes fields, meshes and all segments
    if entry.reader not in ("volume", "labels"):
        del commands["convert"]
    for name in (n for n in names if n in commands):
        status, said = run_command([*commands[name], *_words(entry, name)])
        fault = _fault_of(entry, Path(str(path)), name, status, said)
        if fault:
            return _fault(entry, f"{name}: {fault}")
    if not target.exists():
        return Outcome(entry.name, "read", None, "")
    return _check_converted(entry, target, right)


def _check_converted(entry: Entry, target: Path, right: Reference) -> Outcome:
    import nibabel as nib

    image = nib.load(target)
    values = np.asarray(image.dataobj)
    values = np.moveaxis(values.reshape(*values.shape[:3], *(1,) * (3 - values.ndim), -1), -1, 0)
    if not (image.header["sform_code"] or image.header["qform_code"]):
        # The file states no place, as its source: nothing is invented.
        same = np.array_equal(np.sort(values, axis=None), np.sort(right.values, axis=None))
        return Outcome(entry.name, "read", None, "") if same else _fault(entry, "values changed")
    try:
        distance = compare(values, _Place(image), right)
    except (AssertionError, np.linalg.LinAlgError) as error:
        return _fault(entry, f"converted: {' '.join(str(error).split())[:300]}")
    if distance > TOLERANCE:
        return Outcome(entry.name, "fault", distance, "converted: voxels lie elsewhere")
    return Outcome(entry.name, "read", distance, "")


def run_command(words: list[str]) -> tuple[int, str]:
    """Run a command in this process; return its status and what it says on stderr."""
    from typer.testing import CliRunner

    from napari_medgs.cli import app

    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 70, f"{type(result.exception).__name__}: {result.exception}"
    return result.exit_code, result.stderr


def _words(entry: Entry, command: str) -> list[str]:
    words: list[str] = []
    for name, value in entry.options.items():
        if name == "assume_identity":
            words.append("--assume-identity")
        elif name == "segments":
            words += [w for s in value for w in ("--segment", s)] if command == "convert" else []
        elif name == "spacing":
            words += ["--spacing", *map(str, value)]
        else:
            words += [f"--{name}", str(value)]
    return words


def _fault_of(entry: Entry, path: Path, command: str, status: int, said: str) -> str:
    """Return what is wrong with a command's end, empty where nothing is."""
    lines = [line for line in said.splitlines() if line.strip()]
    if "This is a bug" in said or "Traceback" in said or status not in (0, 1):
        return said
    if any(not line.startswith("napari-medgs: ") for line in lines) and status:
        return f"more than lines of its own: {said}"
    if any(not c.isprintable() for line in lines for c in line):
        return f"control characters: {said!r}"
    errors = [line for line in lines if not line.startswith("napari-medgs: warning: ")]
    # A list of series or of segments is what info is for, where reading needs a choice.
    listed = command == "info" and status == 0
    if not entry.refused:
        return "" if status == 0 else f"status {status}: {said}"
    if listed and (entry.reader == "labels" or re.search("choose|volumes|b-value", entry.refused)):
        return ""
    if status != 1 or len(errors) != 1:
        return f"status {status}, not one line: {said}"
    if not re.search(entry.refused, errors[0]) or path.name.partition(":")[0] not in errors[0]:
        return f"does not say '{entry.refused}' and the file: {said}"
    return ""
