"""``napari-medgs sample``: small files to try the other commands on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_medgs.cli.options import DebugOption, JsonOption, QuietOption
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output

EXAMPLES = ("napari-medgs sample -o medgs-sample",)
"""Shown at the end of the help page."""


def sample(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Where the files go.")
    ] = Path("medgs-sample"),
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write small sample files to try the other commands on.

    A synthetic head in two contrasts, its tissue labels, and strokes on three slices. The files
    are the same on every machine.
    """
    del debug  # read by the command class
    reporter = Reporter(quiet, json_file)
    check_output(output)
    check_distinct([], {"-o": output, "--json": json_file})

    from napari_medgs.demo.sample import write_sample

    with reporter.doing("writing"):
        files = write_sample(output)
    reporter.finish({"files": {path.name: text for path, text in files.items()}})
    reporter.pairs(str(output), [(path.name, text) for path, text in files.items()])
