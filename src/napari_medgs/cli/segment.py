"""``napari-medgs segment``: images and scribbles to a mask, one at a time or a folder of them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_medgs.cli.command import print_error
from napari_medgs.cli.options import (
    Backend,
    BackendOption,
    DebugOption,
    IdentityOption,
    JsonOption,
    QuietOption,
    SeedOption,
    SeriesOption,
    ThreadsOption,
    VoxelSizeOption,
)
from napari_medgs.cli.report import Reporter, check_output, label_title
from napari_medgs.cli.segment_job import NIFTI, SegmentJob, is_batch
from napari_medgs.segmentation.params import SegmentParams

DEFAULTS = SegmentParams()
PROMPTS, SOLVER, MORE = "Prompts", "How strokes become a mask", "More outputs"


class IslandRule(StrEnum):
    """What becomes of parts of a class."""

    connected = "connected"
    keep = "keep"
    largest = "largest"


ISLANDS = IslandRule(DEFAULTS.islands)


def segment(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="As for fit; several are contrasts of one grid. With a folder of prompts: a "
            "folder of NIfTI images with the same file names (several for contrasts).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="SEG.nii.gz|DIR", help="Where the mask or masks go."
        ),
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="SCRIBBLES.nii.gz|DIR",
            help="Label image with strokes and painted slices, or a folder of them.",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    session: Annotated[
        Path | None,
        typer.Option(
            metavar="LOG.json",
            help="Do again what was done in the viewer; in place of --prompts.",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    unlabelled: Annotated[
        int,
        typer.Option(
            metavar="V", help="The value that means 'not labelled'.", rich_help_panel=PROMPTS
        ),
    ] = 0,
    background_label: Annotated[
        int | None,
        typer.Option(
            metavar="V",
            help="The value of background strokes; 0 in the mask.",
            show_default="0, unless that means 'not labelled'",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(metavar="SEG.nii.gz", help="A mask to refine.", rich_help_panel=PROMPTS),
    ] = None,
    field: Annotated[
        Path | None,
        typer.Option(
            metavar="FIELD",
            help="The images' field, if there is one; fitted otherwise.",
            show_default=False,
        ),
    ] = None,
    probability: Annotated[
        Path | None,
        typer.Option(
            metavar="P.nii.gz",
            help="Also write the probability of every class, background first.",
            rich_help_panel=MORE,
        ),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            metavar="U.nii.gz",
            help="Also write the chance that each voxel's label is wrong, 0 to 1.",
            rich_help_panel=MORE,
        ),
    ] = None,
    appearance: Annotated[
        float,
        typer.Option(
            min=0, max=100, help="Weight of looks against distance.", rich_help_panel=SOLVER
        ),
    ] = DEFAULTS.appearance,
    shape: Annotated[
        float,
        typer.Option(
            min=0,
            max=100,
            help="Weight of the outlines in annotated slices for those between.",
            rich_help_panel=SOLVER,
        ),
    ] = DEFAULTS.shape,
    reach: Annotated[
        float,
        typer.Option(
            min=0,
            help="A class ends this many times as far off as it is wide in annotated slices; 0: "
            "nowhere.",
            rich_help_panel=SOLVER,
        ),
    ] = DEFAULTS.reach,
    smooth: Annotated[
        float,
        typer.Option(
            min=0, max=5, help="Smoothing of boundaries in voxels.", rich_help_panel=SOLVER
        ),
    ] = DEFAULTS.smooth,
    refine_voxels: Annotated[
        int,
        typer.Option(
            min=0, help="Undecided voxels to look at one by one.", rich_help_panel=SOLVER
        ),
    ] = DEFAULTS.refine_voxels,
    islands: Annotated[
        IslandRule,
        typer.Option(
            help="Keep parts that touch a stroke, all, or the largest.", rich_help_panel=SOLVER
        ),
    ] = ISLANDS,
    fill_holes: Annotated[
        bool,
        typer.Option(
            "--fill-holes", help="Fill background enclosed by a class.", rich_help_panel=SOLVER
        ),
    ] = DEFAULTS.fill_holes,
    spacing: VoxelSizeOption = None,
    assume_identity: IdentityOption = False,
    series: SeriesOption = None,
    seed: SeedOption = DEFAULTS.seed,
    backend: BackendOption = Backend.auto,
    threads: ThreadsOption = DEFAULTS.threads,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Segment images from scribbles.

    Classes keep their values; background is 0.
    """
    if (prompts is None) == (session is None):
        raise typer.BadParameter("give either --prompts or --session.")
    params = SegmentParams(
        appearance=appearance,
        shape=shape,
        reach=reach,
        smooth=smooth,
        refine_voxels=refine_voxels,
        islands=islands.value,
        fill_holes=fill_holes,
        seed=seed,
        threads=threads,
    )
    reporter = Reporter(quiet, json_file)
    reading = {"spacing": spacing, "assume_identity": assume_identity}
    job = SegmentJob(
        params, unlabelled, background_label, backend.value, reading, series, reporter, debug
    )
    if prompts is not None and is_batch(prompts):
        if field or probability or uncertainty or initial:
            raise typer.BadParameter(
                "--field, --initial, --probability and --uncertainty are for one image at a time."
            )
        numbers = job.folder([Path(image) for image in images], prompts, output)
        reporter.finish(numbers)
        if numbers["failed"]:
            print_error(f"{numbers['failed']} of {len(numbers['cases'])} cases failed.")
            raise typer.Exit(1)
        return
    check_output(output, NIFTI)
    for extra in (probability, uncertainty):
        if extra is not None:
            check_output(extra, NIFTI)
    if session is not None:
        result, numbers, names = job.again(images, session, field)
    else:
        assert prompts is not None
        result, numbers, names = job.one(images, prompts, field, initial)
    numbers.update(job.write(result, output, names, probability, uncertainty))
    reporter.finish(numbers, mask=output)
    rows = [
        (label_title(value, names), f"{result.volumes_ml[value]:.3f} ml, {count:,} voxels")
        for value, count in result.voxels.items()
    ]
    rows.append(("time", f"{result.seconds_fit:.1f} s fit, {result.seconds_solve:.2f} s solve"))
    reporter.pairs(str(output), rows)
