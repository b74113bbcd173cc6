"""``napari-medgs segment``: images and scribbles to a mask, one at a time or a folder of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medgs._util.settings import settings_of
from napari_medgs.cli.command import print_error, refuse_idle
from napari_medgs.cli.explain import contrast_rows
from napari_medgs.cli.option_groups import takes_groups
from napari_medgs.cli.options import (
    Backend,
    BackendOption,
    DebugOption,
    DeshearOption,
    JsonOption,
    QuietOption,
    Reading,
    ResampleOption,
    SegmentsOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output, label_title, rounded
from napari_medgs.cli.segment_job import SegmentJob, folder_rows, is_batch
from napari_medgs.cli.segment_model import (
    ModelJob,
    case_rows,
    is_case_list,
    model_rows,
    segment_cases,
)
from napari_medgs.cli.segment_options import OUTPUTS, MoreOutputs, Prompting, Trained
from napari_medgs.cli.segment_session import replay_session
from napari_medgs.cli.setting_options import takes_settings
from napari_medgs.segmentation.params import SegmentParams

if TYPE_CHECKING:
    pass

NAMES = tuple(settings_of(SegmentParams))
USED_BY_SESSION = ("threads",)
"""Settings that a replay takes from the command line; all others are the session's own."""

EXAMPLES = (
    "napari-medgs segment scan.nii.gz --prompts strokes.nii.gz --background-label 1 -o m.nii.gz",
    "napari-medgs segment scan.nii.gz --point 1 40 128 96 --point 0 40 20 20 -o mask.nii.gz",
    "napari-medgs segment scan.nii.gz --box 1 30 100 80 52 150 120 -o mask.nii.gz",
    "napari-medgs segment scan.nii.gz --model liver.safetensors -o mask.nii.gz",
    "napari-medgs segment images/ --prompts scribbles/ --background-label 1 -o masks/",
)
"""Shown at the end of the help page."""


@takes_groups(prompting=Prompting, trained=Trained, more=MoreOutputs, reading=Reading)
@takes_settings(SegmentParams, NAMES)
def segment(
    ctx: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="As for fit; several are contrasts of one grid. With a folder of prompts: a "
            "folder of images with the same names, in any format (several for contrasts).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="SEG.nii.gz|DIR",
            help="Where the mask or masks go: also .seg.nrrd, .nrrd, .mha; for an image that is "
            "a DICOM series .dcm (segmentation) or .rtstruct.dcm (contours).",
        ),
    ],
    prompting: Prompting,
    trained: Trained,
    more: MoreOutputs,
    *,
    params: SegmentParams,
    reading: Reading,
    deshear: DeshearOption = False,
    resample: ResampleOption = False,
    chosen_segments: SegmentsOption = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="SERIES",
            help="The DICOM series that a .dcm mask lies on.",
            show_default="the image",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    backend: BackendOption = Backend.auto,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Segment images from scribbles, points and boxes.

    A trained model (--model) needs no prompts. Else they are a label image (--prompts), places
    (--point, --box), both, or a session saved in the viewer. At least two classes are needed;
    background is one. Classes keep their values in the mask, and background is 0.
    """
    starts = (prompting.prompts, prompting.session, prompting.initial, trained.model)
    if all(start is None for start in starts) and not prompting.has_places:
        raise typer.BadParameter(
            "give --prompts, --point, --box, --initial, --session or --model."
        )
    trained.check(prompting)
    if prompting.prompts is not None and prompting.session is not None:
        raise typer.BadParameter("give either --prompts or --session.")
    if prompting.fully_labeled and prompting.prompts is None:
        raise typer.BadParameter("--fully-labeled is for --prompts.")
    places = prompting.places()
    explained = more.explanation()
    if prompting.session is not None:
        _refuse_ignored(ctx)
        if more.explain:
            raise typer.BadParameter("--explain is for prompts, not for --session.")
    if prompting.initial is None and (trained.model is None or not prompting.has_prompts):
        # With prompts, a model's mask is the initial one.
        refuse_idle(("--initial-margin",), "without --initial, or --model with prompts")
    if chosen_segments and prompting.prompts is None and prompting.initial is None:
        raise typer.BadParameter("--segment is for --prompts and --initial.")
    reporter = Reporter(quiet, json_file)
    check_distinct(
        [*images, prompting.prompts, prompting.session, prompting.initial, trained.model,
         prompting.field, like],
        {"-o": output, "--json": json_file, **more.files},
        masks=("-o",),
    )  # fmt: skip
    job = SegmentJob(
        params, prompting, reading, backend.value, reporter, debug, resample, chosen_segments,
        deshear,
    )  # fmt: skip
    alone = trained.model is not None and not prompting.has_prompts
    if alone and is_case_list(images):
        _segment_cases(job, images[0], trained, more, output)
        return
    if trained.for_many:
        raise typer.BadParameter("--scheduler and --workers are for --model with many images.")
    if prompting.prompts is not None and is_batch(prompting.prompts):
        _segment_folder(job, images, trained, more, output)
        return
    _check_there([*images, prompting.prompts])
    lies_on = like or images[0]
    _check_outputs(job, output, more, like, lies_on)
    if alone:
        found, metrics = ModelJob(job, trained.load(), trained).segment_image(
            images, probabilities=any(more.files.values()), explain=explained
        )
        metrics.update(job.write(found, output, found.names, more, lies_on))
        reporter.finish(metrics, mask=output)
        reporter.pairs(str(output), model_rows(metrics, found.names))
        return
    if prompting.session is not None:
        result, metrics, names = replay_session(job, images, prompting.session, prompting.field)
    else:
        if prompting.prompts is None and prompting.initial is None and trained.model is None:
            places.check_classes(prompting.background_label)
        segmenter = None if trained.model is None else trained.load()
        result, metrics, names = job.segment_image(images, prompting, places, explained, segmenter)
    metrics.update(job.write(result, output, names, more, lies_on))
    reporter.finish(metrics, mask=output)
    rows: list[tuple[str, Any]] = [
        (label_title(value, names), f"{rounded(result.volumes_ml[value])} ml, {count:,} voxels")
        for value, count in result.voxels.items()
    ]
    rows += contrast_rows(metrics, names)
    rows.append(("time", f"{result.seconds_fit:.1f} s fit, {result.seconds_solve:.2f} s solve"))
    reporter.pairs(str(output), rows)


def _segment_cases(
    job: SegmentJob, source: str, trained: Trained, more: MoreOutputs, output: Path
) -> None:
    """Segment a folder or list of cases by a trained segmenter alone."""
    if more.any:
        raise typer.BadParameter(
            "--probability, --uncertainty and --explain are for one image at a time."
        )
    metrics = segment_cases(job, source, trained, output)
    job.reporter.finish(metrics)
    job.reporter.pairs(str(output), case_rows(metrics))
    _fail_if(metrics)


def _segment_folder(
    job: SegmentJob, images: list[str], trained: Trained, more: MoreOutputs, output: Path
) -> None:
    """Segment a folder of images by a folder of prompts."""
    given = job.prompting
    if given.field or given.initial or given.has_places or more.any or trained.model:
        raise typer.BadParameter(
            "--field, --initial, --model, --point, --box, --probability, --uncertainty and "
            "--explain are for one image at a time."
        )
    metrics = job.segment_folder([Path(image) for image in images], output)
    job.reporter.finish(metrics)
    job.reporter.pairs(str(output), folder_rows(metrics))
    _fail_if(metrics)


def _check_there(inputs: list[str | Path | None]) -> None:
    """Refuse inputs that do not exist, before the name of the output says what they must be."""
    from napari_medgs.io.folders import missing
    from napari_medgs.io.medmnist.reader import is_spec
    from napari_medgs.io.ome_zarr.opening import is_ome_zarr

    for path in inputs:
        if path is not None and not (Path(path).exists() or is_spec(path) or is_ome_zarr(path)):
            raise missing(path, "file or folder")


def _check_outputs(
    job: SegmentJob, output: Path, more: MoreOutputs, like: str | None, lies_on: str
) -> None:
    """Refuse names of outputs that cannot be written, before any work is done."""
    from napari_medgs.io.dicom.reference import open_source
    from napari_medgs.io.formats import MASK_SUFFIXES, WRITTEN_SUFFIXES, is_dicom_output

    check_output(output, MASK_SUFFIXES)
    if job.deshear and is_dicom_output(output):
        raise typer.BadParameter("a .dcm mask lies on its series; leave out --deshear.")
    if is_dicom_output(output):
        open_source(lies_on, **job.reading.chosen)
    elif like is not None:
        raise typer.BadParameter("--like is for masks written as .dcm.")
    for extra in more.files.values():
        if extra is not None:
            check_output(extra, WRITTEN_SUFFIXES)


def _fail_if(metrics: dict[str, Any]) -> None:
    """End the command when cases failed.

    Raises
    ------
    Exit
        With status 1.
    """
    if metrics["failed"]:
        print_error(f"{metrics['failed']} of {len(metrics['cases'])} cases failed.")
        raise typer.Exit(1)


def _refuse_ignored(ctx: typer.Context) -> None:
    """Refuse options that a replayed session has itself, if they were given.

    Raises
    ------
    typer.BadParameter
        Naming them.
    """
    own = [name for name in NAMES if name not in USED_BY_SESSION]
    starts = ("fully_labeled", "initial", "initial_margin")
    given = [
        "--" + name.replace("_", "-")
        for name in ("point", "box", "unlabeled", "background_label", *starts, *own)
        if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise typer.BadParameter(
            f"--session has its own {', '.join(given)}: leave out what the session sets."
        )
