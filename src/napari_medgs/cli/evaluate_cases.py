"""Pairs of masks to evaluate, their scores, and the table that is written of them."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_medgs._util.naming import naming
from napari_medgs.errors import FileError

COLUMNS = (
    "case", "label", "name", "dice", "iou", "nsd", "hd95_mm", "asd_mm", "volume_ml",
    "volume_ml_truth", "volume_ratio", "tolerance_mm", "note",
)  # fmt: skip
"""The columns of the table; rows of the case "mean" hold means."""
WIDE = 10.0  # voxels of a tolerance within which almost any two surfaces agree


@dataclass(frozen=True)
class Pairs:
    """Masks of two folders by the name of their case.

    Attributes
    ----------
    cases : dict of str to (Path, Path)
        Segmentation and truth.
    without_segmentation, without_truth : list of Path
        Files of one folder that have no partner in the other one.
    """

    cases: dict[str, tuple[Path, Path]]
    without_segmentation: list[Path]
    without_truth: list[Path]


def case_name(path: Path) -> str:
    """Return a mask's name without the endings of its format.

    Examples
    --------
    >>> case_name(Path("a/case_1.nii.gz")), case_name(Path("case_1.seg.nrrd"))
    ('case_1', 'case_1')
    """
    from napari_medgs.io.fields import field_stem, is_field_file
    from napari_medgs.io.formats import image_stem

    if is_field_file(path):
        return field_stem(path)
    return image_stem(path).removesuffix(".seg")


def pair_folders(seg: Path, truth: Path) -> Pairs:
    """Pair the masks of two folders by their names, as nnU-Net does.

    Formats may differ. Hidden files, subfolders and files of other kinds are left out.

    Parameters
    ----------
    seg : Path
        A folder of masks or fields.
    truth : Path
        A folder of masks.

    Raises
    ------
    FileError
        When two files of one folder have the name of one case, or nothing can be paired.
    """
    ours, theirs = _masks(seg, fields=True), _masks(truth, fields=False)
    cases = {name: (ours[name], theirs[name]) for name in theirs if name in ours}
    if not cases:
        raise FileError(
            f"{seg}: no mask has the name of one in {truth}; a case has one name in both folders, "
            f"such as {next((p.name for p in theirs.values()), 'case1.nii.gz')}."
        )
    return Pairs(
        cases,
        [path for name, path in theirs.items() if name not in ours],
        [path for name, path in ours.items() if name not in theirs],
    )


def _masks(folder: Path, *, fields: bool) -> dict[str, Path]:
    from napari_medgs.io.fields import is_field_file
    from napari_medgs.io.folders import visible_entries
    from napari_medgs.io.formats import is_image_file

    found: dict[str, Path] = {}
    for path in visible_entries(folder):
        readable = is_image_file(path) or (fields and is_field_file(path))
        if path.is_dir() or not readable:
            continue
        name = case_name(path)
        if name in found:
            raise FileError(
                f"{path}: the case {name} has two files, the other one is {found[name].name}; "
                "leave one of them in the folder."
            )
        found[name] = path
    return found


def score_pair(
    seg: Path,
    truth: Path,
    labels: Sequence[int] | None,
    tolerance: float,
    reading: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[int, str]]:
    """Return the scores of a mask or field, and the names of the labels.

    Parameters
    ----------
    seg, truth : Path
    labels : sequence of int, optional
        All of both by default.
    tolerance : float
        Of the normalized surface Dice, in mm.
    reading : mapping
        Options of :func:`napari_medgs.io.read_labels`. ``segments`` holds for files that name
        theirs.

    Raises
    ------
    MedGSError
        When a file cannot be used; the message names it.
    """
    from napari_medgs.io import read_label_names, read_labels
    from napari_medgs.io.fields import is_field_file, load_field
    from napari_medgs.io.segmented import segments_by_file
    from napari_medgs.metrics import evaluate

    is_field = is_field_file(seg)
    chosen = segments_by_file(reading.get("segments"), truth, None if is_field else seg)
    reference, grid = read_labels(truth, **{**reading, "segments": chosen[str(truth)]})
    names = read_label_names(truth)
    if is_field:
        from napari_medgs.rendering import render_labels

        field = load_field(seg)
        names = {**dict(zip(field.info.label_values, field.info.class_names)), **names}
        with naming(field=seg):
            result = render_labels(field, grid=grid)
    else:
        with naming(image=truth):
            result = read_labels(seg, grid, **{**reading, "segments": chosen[str(seg)]})[0]
        own = read_label_names(seg)
        _warn_of_names(own, names, seg, truth)
        names = {**own, **names}
    voxels = tolerance / max(grid.spacing)
    if voxels > WIDE:
        warnings.warn(
            f"A tolerance of {tolerance:g} mm is {voxels:,.0f} voxels here, so that the NSD says "
            "nothing; choose a smaller --tolerance.",
            stacklevel=2,
        )
    if labels is None and not (result > 0).any() and not (reference > 0).any():
        mean = {"labels": 0, "without_distance": 0}
        return {"labels": {}, "mean": mean, "tolerance_mm": tolerance}, {}
    with naming(segmentation=seg, truth=truth):
        scores = evaluate(result, reference, grid, labels, tolerance=tolerance)
    return scores, {int(v): names[int(v)] for v in scores["labels"] if int(v) in names}


def _warn_of_names(
    own: Mapping[int, str], names: Mapping[int, str], seg: Path, truth: Path
) -> None:
    """Warn where one value has two names, as then two classes may be compared."""
    from napari_medgs.io.label_names import given_names

    true = given_names(names)
    for value, name in sorted(given_names(own).items()):
        if name.casefold() != true.get(value, name).casefold():
            warnings.warn(
                f"The value {value} is {name!r} in {seg} and {true[value]!r} in {truth}: labels "
                "are compared by their values.",
                stacklevel=3,
            )
            return


def missing_note(entry: Mapping[str, Any]) -> str:
    """Say in which image a label is missing; empty where it is in both."""
    if entry["volume_ml"] and entry["volume_ml_truth"]:
        return ""
    if entry["volume_ml_truth"]:
        return "missing in the segmentation"
    return "not in the truth" if entry["volume_ml"] else "in neither"


def table_rows(
    cases: Mapping[str, Mapping[str, Any]],
    means: Mapping[str, Any],
    names: Mapping[int, str],
    tolerance: float,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table: every label of every case, then the means.

    Parameters
    ----------
    cases : mapping of str to mapping
        Results of :func:`~napari_medgs.metrics.evaluate` by case.
    means : mapping
        Of :func:`~napari_medgs.metrics.summarize_cases`.
    names : mapping of int to str
        Of labels.
    tolerance : float
        In mm.

    Yields
    ------
    dict
        One row, cells by column.
    """
    plain = ("dice", "iou", "nsd", "volume_ml", "volume_ml_truth", "volume_ratio")

    def row(case: str, label: str, entry: Mapping[str, Any], note: str) -> dict[str, Any]:
        values = {key: entry.get(key) for key in plain}
        values["hd95_mm"], values["asd_mm"] = entry.get("hd95"), entry.get("asd")
        name = names.get(int(label), "") if label.isdecimal() else ""
        return {"case": case, "label": label, "name": name, **values,
                "tolerance_mm": tolerance, "note": note}  # fmt: skip

    for case, scores in cases.items():
        for label, entry in scores["labels"].items():
            yield row(case, label, entry, missing_note(entry))
    for label, entry in means["labels"].items():
        yield row("mean", label, entry, counts_note(entry))
    yield row("mean", "mean", means["mean"], "")


def counts_note(entry: Mapping[str, Any]) -> str:
    """Say of how many cases a mean is, and in how many the label is missing."""
    words = [f"{entry['cases']} case{'s' if entry['cases'] != 1 else ''}"]
    if entry["missing"]:
        words.append(f"{entry['missing']} missing in the segmentation")
    if entry["spurious"]:
        words.append(f"{entry['spurious']} not in the truth")
    return ", ".join(words)


def write_table(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Write rows as comma-separated values, or tab-separated ones to a ``.tsv`` file.

    Raises
    ------
    FileError
        When it cannot be written.
    """
    from napari_medgs.io import atomic_path

    tab = path.name.lower().endswith(".tsv")
    with (
        atomic_path(path) as temporary,
        # Names of cases are those of files, which need be no UTF-8.
        temporary.open("w", newline="", encoding="utf-8", errors="replace") as opened,
    ):
        writer = csv.DictWriter(
            opened, COLUMNS, dialect="excel-tab" if tab else "excel", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
