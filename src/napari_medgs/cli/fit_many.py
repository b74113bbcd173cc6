"""``napari-medgs fit-many``: a cohort of images to a folder of fields."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_medgs.cli.command import CANCELLED, FAILED, complain, stoppable
from napari_medgs.cli.fit_options import takes_fit_params
from napari_medgs.cli.options import (
    DebugOption,
    IdentityOption,
    JsonOption,
    QuietOption,
    VoxelSizeOption,
)
from napari_medgs.cli.report import Reporter
from napari_medgs.fitting.params import FitParams

if TYPE_CHECKING:
    from napari_medgs.batch import CohortResult

COHORT, SHARING = "The cohort", "Sharing out the work"


@takes_fit_params
def fit_many(
    source: Annotated[
        str,
        typer.Argument(
            metavar="LIST_OR_DIR",
            help="A folder of images; a list (.txt: one image a line; .csv with columns image "
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
            show_default="NIfTI files, DICOM folders and folders of frames",
            rich_help_panel=COHORT,
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Where an image's mask lies, from the image's folder: '../labels/{name}.nii.gz'. "
            "{name} is its file name without suffix, {file} all of it.",
            rich_help_panel=COHORT,
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Fit what is finished, too.", rich_help_panel=COHORT),
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A Dask scheduler such as tcp://host:8786, whose workers see the same files.",
            show_default="processes on this machine",
            rich_help_panel=SHARING,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes on this machine.",
            show_default="by CPUs and free memory",
            rich_help_panel=SHARING,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="CPU threads of one fit.",
            show_default="what the processes leave",
            rich_help_panel=SHARING,
        ),
    ] = None,
    *,
    params: FitParams,
    spacing: VoxelSizeOption = None,
    assume_identity: IdentityOption = False,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fit a field to every image of a cohort, several at a time.

    What is finished already, of the same image with the same settings, is skipped. An image that
    cannot be fitted is listed at the end and does not stop the others. Ctrl-C keeps what is
    finished; the same command goes on from there.
    """
    del debug  # read by the command class
    from napari_medgs.batch import CohortParams, find_cases
    from napari_medgs.batch import fit_many as run

    cohort = CohortParams(
        spacing=spacing,
        assume_identity=assume_identity,
        scheduler=scheduler,
        workers=workers,
        again=again,
    )
    reporter = Reporter(quiet, json_file)
    with reporter.doing("looking for images"):
        cases = find_cases(source, pattern=pattern, mask=mask)
    with (
        stoppable("what is finished") as should_stop,
        reporter.progress() as progress,
    ):
        result = run(
            cases,
            output,
            replace(params, threads=threads),
            cohort,
            progress=progress,
            should_stop=should_stop,
        )
    reporter.finish(result.numbers())
    _say(reporter, result, output)
    for name, why in sorted(result.failed.items()):
        complain(f"{name}: {why}")
    if result.left:
        complain(f"cancelled; {result.left} images are left for the next time.")
        raise typer.Exit(CANCELLED)
    if result.failed:
        complain(f"{len(result.failed)} of {len(cases)} images failed, see above.")
        raise typer.Exit(FAILED)


def _say(reporter: Reporter, result: CohortResult, output: Path) -> None:
    numbers = result.numbers()
    rows: list[tuple[str, str | None]] = [
        ("fitted", f"{numbers['done']:,}"),
        ("skipped, finished before", f"{numbers['skipped']:,}" if result.skipped else None),
        ("failed", f"{numbers['failed']:,}" if result.failed else None),
        ("left", f"{numbers['left']:,}" if result.left else None),
    ]
    if result.entries:
        rows += [
            ("Gaussians", f"{numbers['n_gaussians']:,}"),
            ("size of the fields", f"{numbers['output_bytes'] / 2**20:.1f} MiB"),
        ]
    if numbers["psnr_mean"] is not None:
        lowest = f"{numbers['psnr_mean']:.2f} dB on average, {numbers['psnr_min']:.2f} at least"
        rows.append(("PSNR", lowest))
    if numbers["dice_mean"] is not None:
        rows.append(("mean Dice", f"{numbers['dice_mean']:.4f}"))
    at_a_time = f", {result.workers} at a time" if result.workers else ""
    rows += [("time", f"{numbers['seconds']:.1f} s{at_a_time}"), ("manifest", numbers["manifest"])]
    reporter.pairs(str(output), rows)
