"""``napari-medgs evaluate``: compare segmentations with reference masks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_medgs.cli.command import FAILED, print_error
from napari_medgs.cli.evaluate_cases import (
    Pairs,
    case_name,
    counts_note,
    missing_note,
    pair_folders,
    score_pair,
    table_rows,
    write_table,
)
from napari_medgs.cli.options import (
    DebugOption,
    IdentityOption,
    JsonOption,
    QuietOption,
    ResampleOption,
    SegmentsOption,
    VoxelSizeOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output, label_title, rounded
from napari_medgs.errors import Cancelled, FileError, MedGSError

SCORES = {"dice": "Dice", "iou": "IoU", "nsd": "NSD", "hd95": "HD95 mm", "asd": "ASSD mm"}
VOLUMES = {"volume_ml": "ml", "volume_ml_truth": "true ml", "volume_ratio": "ratio"}
MOST_LISTED = 5  # files without a partner are named in a warning

EXAMPLES = (
    "napari-medgs evaluate mask.nii.gz labels.nii.gz --labels 6 7",
    "napari-medgs evaluate predictions/ labels/ --tolerance 2 --csv scores.csv",
)


def evaluate(
    seg: Annotated[
        Path,
        typer.Argument(
            metavar="SEG", help="A label image, a field with classes, or a folder of them."
        ),
    ],
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH", help="The reference label image, or a folder with the same names."
        ),
    ],
    labels: Annotated[
        list[int] | None,
        typer.Option(
            "--labels",
            metavar="1 2 ..",
            help="Labels to score.",
            show_default="all of both",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance",
            metavar="MM",
            min=0,
            help="Distance in mm within which surfaces agree, for the normalized surface Dice "
            "(NSD).",
        ),
    ] = 1.0,
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Write a row for every label of every case, and the means, as .csv or .tsv.",
        ),
    ] = None,
    segment: SegmentsOption = None,
    spacing: VoxelSizeOption = None,
    assume_identity: IdentityOption = False,
    resample: ResampleOption = False,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Score segmentations: Dice, IoU, NSD, HD95, ASSD and volumes, per label and mean.

    Both must lie on one grid (see --resample); a field is rendered on that of TRUTH. Voxels that
    are -1 in TRUTH are ignored. Two folders are paired by file names.

    A label that is in one image only has Dice, IoU and NSD 0 and no distance; one that is in
    neither has no score. Means leave out what does not exist and say how many that is.
    """
    reporter = Reporter(quiet, json_file)
    if csv_file is not None:
        check_output(csv_file, (".csv", ".tsv"))
    check_distinct([seg, truth], {"--json": json_file, "--csv": csv_file})
    reading = {
        "spacing": spacing,
        "assume_identity": assume_identity,
        "resample": resample,
        "segments": segment,
    }
    if seg.is_dir() and truth.is_dir() and _has_masks(truth):
        pairs = pair_folders(seg, truth)
        check_distinct(
            [path for pair in pairs.cases.values() for path in pair],
            {"--json": json_file, "--csv": csv_file},
        )
        _evaluate_folders(
            reporter, (seg, truth), pairs, labels, tolerance, reading, csv_file, debug
        )
        return
    if _has_masks(seg) != _has_masks(truth):
        folder, file = (seg, truth) if _has_masks(seg) else (truth, seg)
        raise FileError(
            f"{folder}: is a folder of masks and {file} is not; give two files or two folders."
        )
    from napari_medgs.metrics import summarize_cases

    started = time.perf_counter()
    with reporter.doing("measuring"):
        scores, names = score_pair(seg, truth, labels, tolerance, reading)
    if not scores["labels"]:
        raise FileError(f"{seg}: there is no label to score; {truth} has background only, too.")
    reporter.finish({**scores, "names": names, "seconds": time.perf_counter() - started})
    if csv_file is not None:
        case = {case_name(seg): scores}
        write_table(csv_file, table_rows(case, summarize_cases(case), names, tolerance))
    rows = [
        [
            label_title(value, names),
            *[_cell(entry[key]) for key in (*SCORES, *VOLUMES)],
            missing_note(entry),
        ]
        for value, entry in scores["labels"].items()
    ]
    if len(rows) > 1:
        rows.append(["mean", *[_cell(scores["mean"][key]) for key in SCORES], "", "", "", ""])
    _print_table(reporter, f"{seg} against {truth}", (*SCORES.values(), *VOLUMES.values()), rows)
    _print_remarks(reporter, scores["mean"]["without_distance"], tolerance)


def _has_masks(path: Path) -> bool:
    """Tell a folder of masks from one mask, be that a file, frames or DICOM slices."""
    from napari_medgs.io.fields import is_field_file
    from napari_medgs.io.folders import visible_entries
    from napari_medgs.io.formats import is_image_file

    return path.is_dir() and any(
        (is_image_file(file) or is_field_file(file)) and file.is_file()
        for file in visible_entries(path)
    )


def _evaluate_folders(
    reporter: Reporter,
    folders: tuple[Path, Path],
    pairs: Pairs,
    labels: list[int] | None,
    tolerance: float,
    reading: dict[str, Any],
    csv_file: Path | None,
    debug: bool,
) -> None:
    """Score every pair; one that cannot be scored is named and does not stop the others."""
    from napari_medgs._util.progress import ProgressEvent
    from napari_medgs.metrics import summarize_cases

    started = time.perf_counter()
    cases: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    names: dict[int, str] = {}
    total = len(pairs.cases)
    with reporter.progress() as progress:
        for done, (case, (seg, truth)) in enumerate(pairs.cases.items()):
            seconds = time.perf_counter() - started
            left = seconds / done * (total - done) if done else None
            progress(ProgressEvent("cases", done, total, seconds, remaining=left))
            try:
                cases[case], found = score_pair(seg, truth, labels, tolerance, reading)
            except MedGSError as error:
                if debug or isinstance(error, Cancelled):
                    raise
                failed[case] = str(error)
            else:
                names = {**found, **names}
        progress(ProgressEvent("cases", total, total, time.perf_counter() - started))
    means = summarize_cases(cases)
    unmatched = {
        "without_segmentation": [str(path) for path in pairs.without_segmentation],
        "without_truth": [str(path) for path in pairs.without_truth],
    }
    reporter.finish(
        {
            "cases": cases,
            **means,
            "names": names,
            "unmatched": unmatched,
            "failed": failed,
            "tolerance_mm": tolerance,
            "seconds": time.perf_counter() - started,
        }
    )
    if csv_file is not None:
        write_table(csv_file, table_rows(cases, means, names, tolerance))
    rows = [
        [label_title(value, names), *[_cell(entry[key]) for key in SCORES],
         _cell(entry["volume_ratio"]), counts_note(entry)]
        for value, entry in means["labels"].items()
    ]  # fmt: skip
    if len(rows) > 1:
        rows.append(["mean", *[_cell(means["mean"][key]) for key in SCORES], "", ""])
    title = f"{folders[0]} against {folders[1]}: means over {len(cases)} of {total} cases"
    _print_table(reporter, title, (*SCORES.values(), "ratio"), rows)
    left_out = sum(entry["without_distance"] for entry in means["labels"].values())
    _print_remarks(reporter, left_out, tolerance)
    for paths, lacks in (
        (pairs.without_segmentation, f"no segmentation in {folders[0]}"),
        (pairs.without_truth, f"no truth in {folders[1]}"),
    ):
        if paths:
            listed = ", ".join(path.name for path in paths[:MOST_LISTED])
            more = f" and {len(paths) - MOST_LISTED} more" if len(paths) > MOST_LISTED else ""
            print_error(f"warning: not scored, as there is {lacks}: {listed}{more}.")
    for case, why in failed.items():
        print_error(f"{case}: {why}")
    if failed:
        print_error(f"{len(failed)} of {total} cases could not be scored, see above.")
        raise typer.Exit(FAILED)


def _print_table(
    reporter: Reporter, title: str, columns: tuple[str, ...], rows: list[list[str]]
) -> None:
    """Print scores; the column of notes only where there are any."""
    noted = any(row[-1] for row in rows)
    reporter.table(
        title,
        ("label", *columns, *([""] if noted else [])),
        [row if noted else row[:-1] for row in rows],
    )


def _print_remarks(reporter: Reporter, without_distance: int, tolerance: float) -> None:
    """Say what the means leave out, and the tolerance."""
    reporter.note(f"NSD: surfaces within {tolerance:g} mm agree (--tolerance).")
    if without_distance:
        one = without_distance == 1
        reporter.note(
            f"{without_distance} score{'s have' if not one else ' has'} no distance, as the label "
            "is in one image only: left out of the mean HD95 and ASSD, 0 in the other means."
        )


def _cell(score: Any) -> str:
    if score is None:
        return "-"
    return f"{score:,.0f}" if score >= 1000 else f"{score:.4g}" if score >= 10 else rounded(score)
