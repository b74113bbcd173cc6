"""``napari-medgs info``: describe a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_medgs.cli.command import refuse_idle
from napari_medgs.cli.describe.dicom import describe_dicom
from napari_medgs.cli.describe.kinds import describer_of
from napari_medgs.cli.describe.text import print_table, text_of, title_of
from napari_medgs.cli.describe.volume import describe_volume
from napari_medgs.cli.options import (
    OF_IMAGES,
    DebugOption,
    IdentityOption,
    JsonOption,
    QuietOption,
    SeriesOption,
    VolumeOption,
    VoxelSizeOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter

HIDDEN = ("affine", "shape", "spacing_mm", "extent_mm")
"""Numbers of the canonical grid, for the JSON file: on the screen those of the file stand."""
TABLES = (
    "series",
    "labels",
    "segments",
    "channels",
    "splits",
    "levels",
    "parts",
    "fields",
    "bytes_of",
    "metrics",
    "names",
)

EXAMPLES = (
    "napari-medgs info scan.nii.gz",
    "napari-medgs info dicom-study/",
    "napari-medgs info mask.nii.gz --json numbers.json",
    "napari-medgs info scan.medgs",
)
"""Shown at the end of the help page."""


def info(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="An image or mask (as for fit), or any file that a command or the viewer writes: "
            "a field, a mesh, a trained model, a session; or a whole MedMNIST .npz.",
        ),
    ],
    spacing: VoxelSizeOption = None,
    assume_identity: IdentityOption = False,
    series: SeriesOption = None,
    chosen_volume: VolumeOption = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Describe an image, mask, field, mesh, trained model or session."""
    del debug
    reporter = Reporter(quiet, json_file)
    check_distinct([file], {"--json": json_file})
    describe = describer_of(file)
    if describe is not None:
        refuse_idle(OF_IMAGES, "on what is no image")
        numbers = describe(Path(file))
    elif (
        series is None
        and chosen_volume is None
        and (listed := describe_dicom(Path(file))) is not None
    ):
        numbers = listed
    else:
        numbers = describe_volume(
            file,
            spacing=spacing,
            assume_identity=assume_identity,
            series=series,
            volume=chosen_volume,
        )
    reporter.finish(numbers)
    tables = [key for key in TABLES if numbers.get(key)]
    shown = {key: v for key, v in numbers.items() if key not in (*tables, *HIDDEN)}
    reporter.pairs(file, [(title_of(key), text_of(v, key)) for key, v in shown.items() if v])
    for key in tables:
        print_table(reporter, title_of(key), numbers[key])
