"""``napari-medgs unpack``: fields out of a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_medgs.cli.command import refuse_idle
from napari_medgs.cli.options import DebugOption, JsonOption, QuietOption
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, counted

EXAMPLES = (
    "napari-medgs unpack cohort.medgsz -o fields/",
    "napari-medgs unpack cohort.medgsz -o fields/ --name case_007",
)
"""Shown at the end of the help page."""


def unpack(
    cohort: Annotated[
        Path, typer.Argument(metavar="COHORT.medgsz", help="A file that pack has written.")
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FOLDER", help="Where the fields go."),
    ],
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="A field to take, several times for several.",
            show_default="all",
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Write .medgs.safetensors files.")
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="CODEC",
            help="The learned codec that coded the fields; they become .medgs.safetensors files.",
            show_default=False,
        ),
    ] = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write the fields of a cohort, or some of them, into a folder."""
    del debug  # read by the command class
    from napari_medgs.cli.learned_codec import unpack_by_model
    from napari_medgs.compression.cohort import unpack as run

    reporter = Reporter(quiet, json_file)
    check_distinct([cohort, model], {"-o": output, "--json": json_file})
    if model is not None:
        refuse_idle(("--exact",), "with --model, which writes exact fields")
        paths = unpack_by_model(cohort, output, model, name, reporter)
    else:
        with reporter.progress() as progress:
            paths = run(cohort, output, name, exact=exact, progress=progress)
    reporter.finish({"output": str(output), "files": [str(path) for path in paths]})
    reporter.note(f"{output}: {counted(len(paths), 'field')}")
