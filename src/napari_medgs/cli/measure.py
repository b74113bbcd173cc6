"""``napari-medgs measure``: volumes, intensities and diameters of the labels of a mask."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medgs._text import well_formed
from napari_medgs._util.naming import naming
from napari_medgs.cli.command import print_error, refuse_idle
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
from napari_medgs.cli.report import Reporter, check_output, label_title
from napari_medgs.errors import LabelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medgs.data.grid import Grid

EXAMPLES = (
    "napari-medgs measure mask.nii.gz",
    "napari-medgs measure mask.nii.gz --image scan.nii.gz --csv numbers.csv",
)
"""Shown at the end of the help page."""


def measure(
    mask: Annotated[Path, typer.Argument(metavar="MASK", help="A label image.")],
    image: Annotated[
        Path | None,
        typer.Option(
            "--image",
            metavar="IMAGE",
            help="Whose intensities to measure; of several contrasts, the first one.",
        ),
    ] = None,
    labels: Annotated[
        list[int] | None,
        typer.Option("--labels", metavar="1 2 ..", help="Labels to use.", show_default="all"),
    ] = None,
    surface: Annotated[
        bool,
        typer.Option(help="Measure the area of the surface, too, which takes longest."),
    ] = True,
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", help="Write a row for every label, as .csv or .tsv."
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
    """Measure labels: volume, intensities, surface, diameters and number of pieces.

    Diameters are the largest distance in space, the largest one within an axial slice, and the
    width across that one.
    """
    del debug
    reporter = Reporter(quiet, json_file)
    if csv_file is not None:
        check_output(csv_file, (".csv", ".tsv"))
    inputs = [mask] if image is None else [mask, image]
    if image is None:
        refuse_idle(("--resample",), "without --image")
    check_distinct(inputs, {"--json": json_file, "--csv": csv_file})

    from napari_medgs.io import atomic_path, read_label_names
    from napari_medgs.io.labels import looks_like_image
    from napari_medgs.meshing import MeshParams, mesh_from_labels
    from napari_medgs.metrics import label_statistics, surface_areas_mm2, voxel_counts
    from napari_medgs.metrics.statistics_table import COLUMNS, cell_text, table_rows, table_text

    started = time.perf_counter()
    with reporter.doing("measuring"), naming(mask=mask, image=image or mask):
        array, grid, intensities = _read(
            mask,
            image,
            resample=resample,
            spacing=spacing,
            assume_identity=assume_identity,
            segments=segment or (),
        )
        counts = voxel_counts(array)
        if min(counts) < -1:
            raise LabelError(
                f"{mask}: the mask holds the label {min(counts)}; labels start at 0 (-1: unknown)."
            )
        present = [value for value in counts if value > 0]
        if not present:
            raise LabelError(f"{mask}: there is no label to measure, only background.")
        absent = sorted(set(labels or ()) - set(present))
        if absent:
            raise LabelError(
                f"{mask}: there is no voxel of label {absent[0]}; there are "
                f"{', '.join(map(str, present))}."
            )
        if intensities is None and labels is None and looks_like_image(array):
            raise LabelError(
                f"{mask}: looks like an image, not a mask. Name the mask first and the image "
                "with --image, or choose --labels."
            )
        wanted = tuple(labels or present)
        areas = None
        if surface:
            areas = surface_areas_mm2(mesh_from_labels(array, grid, MeshParams(labels=wanted)))
        found = label_statistics(array, grid, intensities, values=wanted, areas_mm2=areas)
    rows = table_rows(found, read_label_names(mask))
    reporter.finish(
        {
            "labels": {str(row["label"]): {k: row[k] for k in ("name", *COLUMNS)} for row in rows},
            "image": None if image is None else str(image),
            "seconds": time.perf_counter() - started,
        }
    )
    if csv_file is not None:
        with atomic_path(csv_file) as temporary:
            tabs = csv_file.name.lower().endswith(".tsv")
            temporary.write_text(well_formed(table_text(rows, tabs=tabs)), encoding="utf-8")
    shown = [key for key in COLUMNS if any(row[key] is not None for row in rows)]
    names = {row["label"]: row["name"] for row in rows}
    reporter.table(
        str(mask),
        ("label", *[COLUMNS[key] for key in shown]),
        [
            [label_title(row["label"], names), *[cell_text(row[key]) for key in shown]]
            for row in rows
        ],
    )


def _read(
    mask: Path, image: Path | None, **reading: Any
) -> tuple[NDArray[Any], Grid, NDArray[Any] | None]:
    """Return the labels, their grid and the intensities on it."""
    from napari_medgs.io import read_labels, read_volume

    if image is None:
        return *read_labels(mask, **(reading | {"resample": False})), None
    volume = read_volume(
        image, spacing=reading["spacing"], assume_identity=reading["assume_identity"]
    )
    if len(volume.data) > 1:
        print_error(
            f"warning: {image}: holds {len(volume.data)} channels; measured is the first one, "
            f"{volume.channel_names[0]}."
        )
    return *read_labels(mask, volume.grid, **reading), volume.channel(0)
