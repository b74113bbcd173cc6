"""``napari-medgs segment``: strokes or painted slices to a multi-class mask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_medgs.cli.command import stoppable
from napari_medgs.cli.options import (
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

NIFTI = (".nii", ".nii.gz")


def segment(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="An image as for fit; several are contrasts of one grid.",
            show_default=False,
        ),
    ],
    prompts: Annotated[
        Path,
        typer.Option(metavar="SCRIBBLES.nii.gz", help="Strokes or painted slices, as labels."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="SEG.nii.gz", help="Where the mask goes.")
    ],
    field: Annotated[
        Path | None,
        typer.Option(
            metavar="FIELD",
            help="A field fitted to the image; without one it is fitted now.",
            show_default=False,
        ),
    ] = None,
    probability: Annotated[
        Path | None,
        typer.Option(metavar="P.nii.gz", help="Also write a probability a class (4D)."),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option(metavar="U.nii.gz", help="Also write the entropy, 0 sure to 1 unsure."),
    ] = None,
    unlabelled: Annotated[
        int, typer.Option(metavar="V", help="The value in the prompts that says nothing.")
    ] = 0,
    background_label: Annotated[
        int | None,
        typer.Option(
            metavar="V", help="The value that means background.", show_default="none, or 0"
        ),
    ] = None,
    spacing: VoxelSizeOption = None,
    assume_identity: IdentityOption = False,
    series: SeriesOption = None,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Segment an image from a few strokes or painted slices, several classes at once."""
    del debug
    reporter = Reporter(quiet, json_file)
    for path in (output, probability, uncertainty):
        if path is not None:
            check_output(path, NIFTI)

    from napari_medgs.fit import FitParams
    from napari_medgs.io import (
        read_label_names,
        read_labels,
        read_volumes,
        write_image,
        write_labels,
    )
    from napari_medgs.io.fields import load_field
    from napari_medgs.segment import Prompts, SegmentParams
    from napari_medgs.segment import segment as run

    known = None if field is None else load_field(field)
    with reporter.doing("reading"):
        volume = read_volumes(
            images, spacing=spacing, assume_identity=assume_identity, series=series
        )
        strokes = read_labels(prompts, volume.grid)[0]
    names = read_label_names(prompts)
    with stoppable("nothing") as should_stop, reporter.progress() as progress:
        result = run(
            volume,
            Prompts(labels=strokes, unlabelled=unlabelled, background=background_label),
            SegmentParams(seed=seed, threads=threads),
            field=known,
            fit_params=FitParams(seed=seed, threads=threads),
            progress=progress,
            should_stop=should_stop,
        )
    names = {value: name for value, name in names.items() if value in result.values}
    write_labels(output, result.labels, result.grid, names)
    if probability is not None:
        write_image(probability, result.probability(), result.grid)
    if uncertainty is not None:
        write_image(uncertainty, result.uncertainty()[None], result.grid)
    reporter.finish(
        {
            "seconds": result.seconds,
            "seconds_fit": result.seconds_fit,
            "seconds_solve": result.seconds_solve,
            "n_gaussians": len(result.field),
            "voxels": {str(value): count for value, count in result.voxels.items()},
            "volume_ml": {str(value): ml for value, ml in result.volumes_ml.items()},
            "output": str(output),
        },
        mask=output,
    )
    rows = [
        [label_title(value, names), f"{count:,}", f"{result.volumes_ml[value]:.3f}"]
        for value, count in result.voxels.items()
    ]
    title = f"{output}, solved in {result.seconds_solve:.2f} s"
    reporter.table(title, ("label", "voxels", "ml"), rows)
