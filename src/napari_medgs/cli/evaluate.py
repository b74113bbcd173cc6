"""``napari-medgs evaluate``: compare a segmentation with a reference mask."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_medgs.cli.options import DebugOption, IdentityOption, JsonOption, QuietOption
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, label_title

SCORES = {"dice": "Dice", "iou": "IoU", "hd95": "HD95 mm", "asd": "ASD mm"}
VOLUMES = {"volume_ml": "ml", "volume_ml_truth": "true ml"}


def evaluate(
    seg: Annotated[
        Path, typer.Argument(metavar="SEG", help="A label image, or a field with classes.")
    ],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="The reference label image.")],
    labels: Annotated[
        list[int] | None,
        typer.Option(
            "--labels",
            metavar="1 2 ..",
            help="Labels to score.",
            show_default="all of both",
        ),
    ] = None,
    assume_identity: IdentityOption = False,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Score a segmentation: Dice, IoU, HD95, ASD and volumes, per label and mean.

    Both must lie on one grid; a field is rendered on that of TRUTH. Voxels that are -1 in
    TRUTH are ignored.
    """
    del debug
    reporter = Reporter(quiet, json_file)
    check_distinct([seg, truth], {"--json": json_file})

    from napari_medgs.io import read_label_names, read_labels
    from napari_medgs.io.fields import is_field_file, load_field
    from napari_medgs.metrics import evaluate as run

    reference, grid = read_labels(truth, assume_identity=assume_identity)
    names = read_label_names(truth)
    if is_field_file(seg):
        from napari_medgs.rendering import render_labels

        field = load_field(seg)
        names = {**dict(zip(field.info.label_values, field.info.class_names)), **names}
        with reporter.doing("rendering"):
            result = render_labels(field, grid=grid)
    else:
        result = read_labels(seg, grid, assume_identity=assume_identity)[0]
        names = {**read_label_names(seg), **names}
    started = time.perf_counter()
    with reporter.doing("measuring"):
        scores = run(result, reference, grid, labels)
    shown = {int(value): names[int(value)] for value in scores["labels"] if int(value) in names}
    reporter.finish({**scores, "names": shown, "seconds": time.perf_counter() - started})
    rows = [
        [label_title(value, shown), *[_cell(entry[key]) for key in (*SCORES, *VOLUMES)]]
        for value, entry in scores["labels"].items()
    ]
    if len(rows) > 1:
        rows.append(["mean", *[_cell(scores["mean"][key]) for key in SCORES], "", ""])
    reporter.table(f"{seg} against {truth}", ("label", *SCORES.values(), *VOLUMES.values()), rows)


def _cell(score: Any) -> str:
    return "-" if score is None else f"{score:.4g}" if score >= 10 else f"{score:.3f}"
