"""``napari-medgs fit-many``: many images to a folder of fields."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_medgs.cli.command import CANCELLED, FAILED, print_error, stoppable
from napari_medgs.cli.fit_options import takes_fit_params
from napari_medgs.cli.options import (
    DebugOption,
    FillNanOption,
    IdentityOption,
    JsonOption,
    QuietOption,
    ResampleOption,
    VolumeOption,
    VoxelSizeOption,
)
from napari_medgs.cli.outputs import check_distinct, files_of
from napari_medgs.cli.report import Reporter
from napari_medgs.fitting.params import FitParams

if TYPE_CHECKING:
    from napari_medgs.batch import BatchResult

IMAGES, WORKERS = "Images", "Workers"


class Compression(StrEnum):
    """Profiles of compressed fields."""

    SMALL = "small"
    FAITHFUL = "faithful"
    EXACT = "exact"


EXAMPLES = (
    "napari-medgs fit-many images/ -o fields/ --gaussians 20000",
    "napari-medgs fit-many images/ -o fields/ --quality 36 --compress small",
    "napari-medgs fit-many cohort.csv -o fields/ --workers 4 --threads 2",
)
"""Shown at the end of the help page."""


@takes_fit_params()
def fit_many(
    source: Annotated[
        str,
        typer.Argument(
            metavar="LIST_OR_DIR",
            help="A folder of images; a list (.txt: one image per line; .csv with columns image "
            "and, optionally, mask and name); or FILE.npz[:SPLIT] of MedMNIST.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", help="Where fields and manifest go."),
    ],
    pattern: Annotated[
        str | None,
        typer.Option(
            metavar="GLOB",
            help="Which files of the folder, such as '**/*_T1w.nii.gz'.",
            show_default="image files, DICOM folders and folders of frames",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="An image's mask, relative to the image's folder: '../labels/{name}.nii.gz'. "
            "{name} is the image's file name without suffix, {file} the whole name.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Fit images again that have a field.", rich_help_panel=IMAGES
        ),
    ] = False,
    profile: Annotated[
        Compression | None,
        typer.Option(
            "--compress",
            help="Write compressed fields, NAME.medgs, by this profile of compress; fine-tuning "
            "works towards image and mask.",
            show_default="exact fields",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A Dask scheduler such as tcp://host:8786, whose workers see the same files.",
            show_default="processes on this machine",
            rich_help_panel=WORKERS,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Processes on this machine.",
            show_default="by CPUs and free memory",
            rich_help_panel=WORKERS,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="CPU threads per fit.",
            show_default="CPUs divided by processes",
            rich_help_panel=WORKERS,
        ),
    ] = None,
    *,
    params: FitParams,
    spacing: VoxelSizeOption = None,
    assume_identity: IdentityOption = False,
    chosen_volume: VolumeOption = None,
    fill_nan: FillNanOption = "background",
    resample: ResampleOption = False,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fit a field to each of many images, several at a time.

    Images that have a field already, made with the same settings, are skipped. An image that
    cannot be fitted is listed at the end and does not stop the others. Ctrl-C keeps what is
    finished; the same command continues from there.
    """
    del debug  # read by the command class
    from napari_medgs.batch import BatchParams
    from napari_medgs.batch import fit_many as run
    from napari_medgs.io.cases import find_cases

    batch = BatchParams(
        spacing=spacing,
        assume_identity=assume_identity,
        volume=chosen_volume,
        fill_nan=fill_nan or "background",
        resample=resample,
        scheduler=scheduler,
        workers=workers,
        overwrite=overwrite,
        compress=None if profile is None else profile.value,
    )
    reporter = Reporter(quiet, json_file)
    check_distinct([source], {"-o": output, "--json": json_file})
    with reporter.doing("looking for images"):
        cases = find_cases(source, pattern=pattern, mask=mask)
    check_distinct(files_of(cases), {"--json": json_file})
    with (
        stoppable("what is finished") as should_stop,
        reporter.progress() as progress,
    ):
        result = run(
            cases,
            output,
            replace(params, threads=threads),
            batch,
            progress=progress,
            should_stop=should_stop,
        )
    reporter.finish(result.totals())
    _print_summary(reporter, result, output)
    for name, why in sorted(result.failed.items()):
        print_error(f"{name}: {why}")
    if result.left:
        print_error(f"canceled; {result.left} images are left; the same command continues.")
        raise typer.Exit(CANCELLED)
    if result.failed:
        print_error(f"{len(result.failed)} of {len(cases)} images failed, see above.")
        raise typer.Exit(FAILED)


def _print_summary(reporter: Reporter, result: BatchResult, output: Path) -> None:
    totals = result.totals()
    rows: list[tuple[str, str | None]] = [
        ("fitted", f"{totals['done']:,}"),
        ("skipped, finished before", f"{totals['skipped']:,}" if result.skipped else None),
        ("failed", f"{totals['failed']:,}" if result.failed else None),
        ("left", f"{totals['left']:,}" if result.left else None),
    ]
    if result.entries:
        rows += [
            ("Gaussians", f"{totals['n_gaussians']:,}"),
            ("size of the fields", f"{totals['output_bytes'] / 2**20:.1f} MiB"),
        ]
    if totals["psnr_mean"] is not None:
        lowest = f"{totals['psnr_mean']:.2f} dB on average, {totals['psnr_min']:.2f} at least"
        rows.append(("PSNR", lowest))
    if totals["dice_mean"] is not None:
        rows.append(("mean Dice", f"{totals['dice_mean']:.4f}"))
    at_a_time = f", {result.workers} at a time" if result.workers else ""
    rows += [("time", f"{totals['seconds']:.1f} s{at_a_time}"), ("manifest", totals["manifest"])]
    reporter.pairs(str(output), rows)
