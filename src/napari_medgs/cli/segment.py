"""``napari-medgs segment``: images and scribbles to a mask, one at a time or a folder of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medgs._util.settings import settings_of
from napari_medgs.cli.command import print_error
from napari_medgs.cli.explain import Explain, contrast_rows
from napari_medgs.cli.options import (
    Backend,
    BackendOption,
    DebugOption,
    DeshearOption,
    FieldOption,
    FillNanOption,
    IdentityOption,
    JsonOption,
    QuietOption,
    ResampleOption,
    SegmentsOption,
    SeriesOption,
    VolumeOption,
    VoxelSizeOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.place_prompts import BoxOption, PlacePrompts, PointOption
from napari_medgs.cli.places import WorldOption
from napari_medgs.cli.report import Reporter, check_output, label_title
from napari_medgs.cli.segment_job import SegmentJob, is_batch
from napari_medgs.cli.segment_model import (
    ModelJob,
    case_rows,
    is_case_list,
    model_rows,
    segment_cases,
)
from napari_medgs.cli.setting_options import takes_settings
from napari_medgs.segmentation.params import SegmentParams

if TYPE_CHECKING:
    from napari_medgs.learning import Segmenter

NAMES = tuple(settings_of(SegmentParams))
PROMPTS, OUTPUTS = "Prompts", "More outputs"
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


@takes_settings(SegmentParams, NAMES)
def segment(
    ctx: typer.Context,
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
            "-o",
            "--output",
            metavar="SEG.nii.gz|DIR",
            help="Where the mask or masks go: also .seg.nrrd, .nrrd, .mha; for an image that is "
            "a DICOM series .dcm (segmentation) or .rtstruct.dcm (contours).",
        ),
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="SCRIBBLES.nii.gz|DIR",
            help="Label image with strokes and fully labeled slices, or a folder of them.",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    point: PointOption = None,
    box: BoxOption = None,
    world: WorldOption = False,
    session: Annotated[
        Path | None,
        typer.Option(
            metavar="LOG.json",
            help="Replay a session saved in the viewer, in place of --prompts.",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    unlabeled: Annotated[
        int,
        typer.Option(
            metavar="V",
            help="The value in the prompts that means unlabeled.",
            rich_help_panel=PROMPTS,
        ),
    ] = 0,
    background_label: Annotated[
        int | None,
        typer.Option(
            metavar="V",
            help="The value of background strokes in the prompts; 0 in the mask.",
            show_default="0, unless that means unlabeled",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            metavar="SEG.nii.gz",
            help="A mask to refine, or probabilities with one channel per class, background "
            "first. It stays except near prompts that contradict it, and where they are unsure.",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="A segmenter of train-segmenter. Alone it makes the mask; with prompts its "
            "probabilities are where they start from. Alone also for a folder or list of images.",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    agreement: Annotated[
        bool,
        typer.Option(
            "--agreement/--no-agreement",
            help="With --model: how far the networks of its folds agree.",
            rich_help_panel=OUTPUTS,
        ),
    ] = True,
    forest: Annotated[
        bool,
        typer.Option(
            "--forest",
            help="With --model: look at the image at half of its resolution, and again where that "
            "is unsure. Faster for large scans with few edges.",
            rich_help_panel=OUTPUTS,
        ),
    ] = False,
    polish: Annotated[
        bool | None,
        typer.Option(
            "--polish/--no-polish",
            help="With --model alone: let the solver move the borders of the mask along the edges "
            "of the image.",
            show_default="as cross-validation decided (train-segmenter --polish), else not",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    largest: Annotated[
        bool | None,
        typer.Option(
            "--largest/--all-components",
            help="With --model alone: keep only the largest connected component of every class, "
            "or all of them.",
            show_default="as cross-validation decided for each class, else all",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FACTORY",
            help="With --model: import path of its pre-trained features, for a model that was "
            "trained with some. Its code is run.",
            show_default=False,
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="With --model and many images: a Dask scheduler such as tcp://host:8786, whose "
            "workers see the same files.",
            show_default="this machine",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="With --model and many images: processes on this machine.",
            show_default="1",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    initial_margin: Annotated[
        float,
        typer.Option(
            metavar="VOXELS",
            min=0,
            help="Voxels of the initial mask nearer than this to another label may change "
            "without a prompt, too; 1 or less: none.",
            rich_help_panel=PROMPTS,
        ),
    ] = 1.0,
    field: FieldOption = None,
    probability: Annotated[
        Path | None,
        typer.Option(
            metavar="P.nii.gz",
            help="Also write the probability of every class, background first.",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            metavar="U.nii.gz",
            help="Also write the probability that each voxel's label is wrong.",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Also say what every contrast contributes to every class: Shapley values of "
            "the Dice with the answer from all contrasts. Solves once for every subset of them.",
            rich_help_panel=OUTPUTS,
        ),
    ] = False,
    ranking: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=NAMES",
            help="With --explain: the contrasts as a reader ranks them for a class, separated by "
            "commas, the most important first. Can be given once for each class.",
            show_default=False,
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    *,
    params: SegmentParams,
    spacing: VoxelSizeOption = None,
    assume_identity: IdentityOption = False,
    deshear: DeshearOption = False,
    fill_nan: FillNanOption = "background",
    series: SeriesOption = None,
    chosen_volume: VolumeOption = None,
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
    starts = (prompts, session, initial, model)
    if all(start is None for start in starts) and not (point or box):
        raise typer.BadParameter(
            "give --prompts, --point, --box, --initial, --session or --model."
        )
    if model is not None and (session is not None or initial is not None):
        raise typer.BadParameter("--model takes the place of --initial and --session.")
    if forest and (model is None or prompts is not None or point or box):
        raise typer.BadParameter("--forest is for --model without prompts.")
    if polish is not None and (model is None or prompts is not None or point or box):
        raise typer.BadParameter("--polish is for --model without prompts.")
    if largest is not None and (model is None or prompts is not None or point or box):
        raise typer.BadParameter("--largest is for --model without prompts.")
    if features and model is None:
        raise typer.BadParameter("--features is for --model.")
    if prompts is not None and session is not None:
        raise typer.BadParameter("give either --prompts or --session.")
    places = PlacePrompts.read(
        point or (), box or (), world=world, unlabeled=unlabeled, background=background_label
    )
    explained = Explain.of_options(explain, ranking or ())
    if session is not None:
        _refuse_ignored(ctx)
        if explain:
            raise typer.BadParameter("--explain is for prompts, not for --session.")
    if chosen_segments and prompts is None and initial is None:
        raise typer.BadParameter("--segment is for --prompts and --initial.")
    reporter = Reporter(quiet, json_file)
    reading = {
        "spacing": spacing,
        "assume_identity": assume_identity,
        "series": series,
        "volume": chosen_volume,
        "fill_nan": fill_nan,
    }
    more = {"--probability": probability, "--uncertainty": uncertainty}
    check_distinct(
        [*images, prompts, session, initial, model, field, like],
        {"-o": output, "--json": json_file, **more},
        masks=("-o",),
    )
    job = SegmentJob(
        params, unlabeled, background_label, backend.value, reading, reporter, debug, resample,
        chosen_segments, deshear,
    )  # fmt: skip
    alone = model is not None and prompts is None and not places
    if model is not None and alone and is_case_list(images):
        if probability or uncertainty or explain:
            raise typer.BadParameter(
                "--probability, --uncertainty and --explain are for one image at a time."
            )
        metrics = segment_cases(
            job, images[0], model, output, agreement=agreement, forest=forest,
            scheduler=scheduler, workers=workers or 1, features=features, polish=polish,
            largest=largest,
        )  # fmt: skip
        reporter.finish(metrics)
        reporter.pairs(str(output), case_rows(metrics))
        _fail_if(metrics)
        return
    if scheduler or workers:
        raise typer.BadParameter("--scheduler and --workers are for --model with many images.")
    if prompts is not None and is_batch(prompts):
        if field or probability or uncertainty or initial or places or explain or model:
            raise typer.BadParameter(
                "--field, --initial, --model, --point, --box, --probability, --uncertainty and "
                "--explain are for one image at a time."
            )
        metrics = job.segment_folder([Path(image) for image in images], prompts, output)
        reporter.finish(metrics)
        _fail_if(metrics)
        return
    from napari_medgs.io.dicom.reference import open_source
    from napari_medgs.io.formats import MASK_SUFFIXES, WRITTEN_SUFFIXES, is_dicom_output

    check_output(output, MASK_SUFFIXES)
    if deshear and is_dicom_output(output):
        raise typer.BadParameter("a .dcm mask lies on its series; leave out --deshear.")
    lies_on = like or images[0]
    if is_dicom_output(output):
        open_source(lies_on, series=series, volume=chosen_volume)
    elif like is not None:
        raise typer.BadParameter("--like is for masks written as .dcm.")
    for extra in (probability, uncertainty):
        if extra is not None:
            check_output(extra, WRITTEN_SUFFIXES)
    if model is not None and alone:
        both = probability is not None or uncertainty is not None
        found, metrics = ModelJob(
            job, _read_segmenter(model, features), agreement, forest, polish, largest
        ).segment_image(images, probabilities=both, explain=explained)
        metrics.update(job.write(found, output, found.names, probability, uncertainty, lies_on))
        reporter.finish(metrics, mask=output)
        reporter.pairs(str(output), model_rows(metrics, found.names))
        return
    if session is not None:
        result, metrics, names = job.replay_session(images, session, field)
    else:
        if prompts is None and initial is None and model is None:
            places.check_classes(background_label)
        segmenter = None if model is None else _read_segmenter(model, features)
        result, metrics, names = job.segment_image(
            images, prompts, field, initial, places, initial_margin, explained, segmenter
        )
    metrics.update(job.write(result, output, names, probability, uncertainty, lies_on))
    reporter.finish(metrics, mask=output)
    rows: list[tuple[str, Any]] = [
        (label_title(value, names), f"{result.volumes_ml[value]:.3f} ml, {count:,} voxels")
        for value, count in result.voxels.items()
    ]
    rows += contrast_rows(metrics, names)
    rows.append(("time", f"{result.seconds_fit:.1f} s fit, {result.seconds_solve:.2f} s solve"))
    reporter.pairs(str(output), rows)


def _read_segmenter(model: Path, features: str | None) -> Segmenter:
    from napari_medgs.learning import load_segmenter

    return load_segmenter(model, features)


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
    starts = ("initial", "initial_margin")
    given = [
        "--" + name.replace("_", "-")
        for name in ("point", "box", "unlabeled", "background_label", *starts, *own)
        if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise typer.BadParameter(
            f"--session has its own {', '.join(given)}: leave out what the session sets."
        )
