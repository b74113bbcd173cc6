"""``napari-medgs tissues``: an image in classes of intensity, without training."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medgs._util.naming import naming
from napari_medgs._util.settings import settings_of
from napari_medgs.cli.command import NOTHING, refuse_idle, stoppable
from napari_medgs.cli.field_inputs import is_field_alone, warn_of_mismatch
from napari_medgs.cli.option_groups import takes_groups
from napari_medgs.cli.options import (
    DebugOption,
    FieldOption,
    JsonOption,
    QuietOption,
    Reading,
    ResampleOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output, rounded
from napari_medgs.cli.setting_options import takes_settings
from napari_medgs.tissue.params import TissueParams

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.tissue import TissueResult

EXAMPLES = (
    "napari-medgs tissues t1.nii.gz -o tissues.nii.gz --classes 3 --bias",
    "napari-medgs tissues t1.nii.gz t2.nii.gz flair.nii.gz -o tissues.nii.gz --classes 5",
    "napari-medgs tissues t1.nii.gz -o tissues.nii.gz --region brain.nii.gz "
    "--probabilities p.nii.gz",
)
"""Shown at the end of the help page."""
FILES = "More files"
NAMES = tuple(name for name in settings_of(TissueParams))


@takes_groups(reading=Reading)
@takes_settings(TissueParams, NAMES)
def tissues(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|FIELD...",
            help="As for fit; several are contrasts of one grid. Or one field, whose own image "
            "is divided.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="TISSUES.nii.gz",
            help="Label image: 1 for the darkest class, and so on; 0 for what was left out.",
        ),
    ],
    region: Annotated[
        Path | None,
        typer.Option(
            "--region",
            metavar="MASK",
            help="Divide only where this mask is not 0.",
            show_default=False,
        ),
    ] = None,
    field: FieldOption = None,
    resample: ResampleOption = False,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="A network of train-tissues, in the place of the mixture.",
            show_default=False,
        ),
    ] = None,
    probabilities: Annotated[
        Path | None,
        typer.Option(
            metavar="P.nii.gz",
            help="Also write the probabilities, one channel a class.",
            rich_help_panel=FILES,
        ),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            metavar="U.nii.gz",
            help="Also write the entropy of the probabilities, 0 (sure) to 1.",
            rich_help_panel=FILES,
        ),
    ] = None,
    corrected: Annotated[
        Path | None,
        typer.Option(
            metavar="C.nii.gz",
            help="Also write the image without the bias of --bias.",
            rich_help_panel=FILES,
        ),
    ] = None,
    *,
    params: TissueParams,
    reading: Reading,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Divide an image into classes of intensity, without training.

    Classes are numbered by their mean in the first image, dark to bright; what they are is not
    known. Lesions are rarely a class of their own: see the command parts.
    """
    del debug  # read by the command class
    if corrected is not None and not params.bias:
        raise typer.BadParameter("--corrected needs --bias.")
    if not params.bias:
        refuse_idle(("--bias-degree",), "without --bias")
    reporter = Reporter(quiet, json_file)
    outputs = {
        "-o": output,
        "--probabilities": probabilities,
        "--uncertainty": uncertainty,
        "--corrected": corrected,
    }
    check_distinct(
        [*images, region, field, model], {**outputs, "--json": json_file}, masks=("-o",)
    )
    from napari_medgs.io.dicom.reference import open_source
    from napari_medgs.io.formats import MASK_SUFFIXES, WRITTEN_SUFFIXES, is_dicom_output

    for option, path in outputs.items():
        if path is not None:
            check_output(path, MASK_SUFFIXES if option == "-o" else WRITTEN_SUFFIXES)
    if is_dicom_output(output):
        open_source(images[0], **reading.chosen)
    own_field = is_field_alone(images, field)

    started = time.perf_counter()
    result, data = _divide(images, region, resample, field, model, params, reading, reporter)
    from napari_medgs.io import write_image, write_labels

    source = None if own_field else images[0]
    write_labels(output, result.labels, result.grid, source=source, **reading.chosen)
    if probabilities is not None:
        write_image(probabilities, result.probabilities, result.grid)
    if uncertainty is not None:
        write_image(uncertainty, result.uncertainty, result.grid)
    if corrected is not None:
        write_image(corrected, result.corrected(data), result.grid)
    seconds = time.perf_counter() - started
    numbers = {**result.numbers(), "total_seconds": seconds}
    numbers.update(
        {"output" if k == "-o" else k.lstrip("-"): str(v) for k, v in outputs.items() if v}
    )
    reporter.finish(numbers, mask=output)
    columns = (
        "class",
        "voxels",
        "ml",
        "share",
        *(f"{name}: mean, SD" for name in result.contrasts),
    )
    rows = [
        (row["label"], f"{row['voxels']:,}", rounded(row["volume_ml"]), f"{row['fraction']:.1%}",
         *(f"{m:.4g}, {s:.3g}" for m, s in zip(row["mean"], row["sd"], strict=True)))
        for row in result.rows
    ]  # fmt: skip
    reporter.table(f"{output}: {result.classes} classes in {seconds:.1f} s", columns, rows)
    if result.held_out:
        tried = ", ".join(f"{k}: {v:.3f}" for k, v in result.held_out.items())
        reporter.note(f"Log-likelihood per held-out voxel by number of classes: {tried}")


def _divide(
    images: list[str],
    region: Path | None,
    resample: bool,
    field: Path | None,
    model: Path | None,
    params: TissueParams,
    reading: Reading,
    reporter: Reporter,
) -> tuple[TissueResult, Any]:
    """Read everything and divide; return the result and the image."""
    from napari_medgs.io import read_labels, read_volumes
    from napari_medgs.io.fields import is_field_file, load_field
    from napari_medgs.tissue import image_of_field, tissues

    if is_field_file(images[0]):
        known: GaussianField | None = load_field(images[0])
        with naming(field=Path(images[0])):
            assert known is not None
            volume = image_of_field(known)
    else:
        known = None if field is None else load_field(field)
        with reporter.doing("reading"), naming(image=images):
            volume = read_volumes(images, **reading.options, resample=resample)
        if known is not None and field is not None:
            warn_of_mismatch(volume, images[0], known, field)
    inside = None
    if region is not None:
        with naming(image=images):
            inside = read_labels(region, like=volume.grid, resample=resample)[0] != 0
    with (
        naming(image=images, field=field, region=region),
        stoppable(NOTHING) as should_stop,
        reporter.progress() as progress,
    ):
        result = tissues(
            volume, field=known, region=inside, model=model, params=params,
            progress=progress, should_stop=should_stop,
        )  # fmt: skip
    return result, volume
