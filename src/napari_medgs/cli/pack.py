"""``napari-medgs pack``: a folder of fields as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_medgs.cli.command import refuse_idle
from napari_medgs.cli.options import DebugOption, JsonOption, QuietOption, ThreadsOption
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output, counted
from napari_medgs.cli.setting_options import takes_settings
from napari_medgs.compression.params import CompressParams

EXAMPLES = ("napari-medgs pack fields/ -o cohort.medgsz",)
"""Shown at the end of the help page."""

OF_EXACT = ("--profile", "--step", "--iterations")
"""Options of the compression of exact fields."""


@takes_settings(CompressParams, ("profile", "step", "iterations"))
def pack(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the fields are.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT.medgsz", help="The cohort.")
    ],
    *,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="CODEC",
            help="Code all fields by a codec of train-codec, which sets rate and loss itself; "
            "unpack --model reads them.",
            show_default=False,
        ),
    ] = None,
    params: CompressParams,
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write all fields of a folder into one file, with tables that they share.

    Compressed fields come back bit for bit, without their previews. Exact ones are compressed
    first, towards their own rendering; compress them with their images for a better result.
    """
    del debug  # read by the command class
    from dataclasses import replace

    from napari_medgs.cli.learned_codec import pack_by_model
    from napari_medgs.compression.cohort import fields_in
    from napari_medgs.compression.cohort import pack as run
    from napari_medgs.io.codec.archive import SUFFIX
    from napari_medgs.io.fields import is_compressed_field

    if model is not None:
        refuse_idle(OF_EXACT, "with --model: a learned codec sets rate and loss itself")
    reporter = Reporter(quiet, json_file)
    check_output(output, (SUFFIX,))
    found = fields_in(folder)
    if all(is_compressed_field(path) for path in found.values()):
        refuse_idle(OF_EXACT, "on fields that are compressed already")
    check_distinct([*found.values(), model], {"-o": output, "--json": json_file})
    if model is None:
        with reporter.progress() as progress:
            run(folder, output, replace(params, threads=threads), progress=progress)
    else:
        pack_by_model(folder, output, model, reporter)
    before = sum(path.stat().st_size for path in found.values())
    size = output.stat().st_size
    numbers = {
        "fields": len(found),
        "output": str(output),
        "bytes": size,
        "input_bytes": before,
        "bytes_per_field": size / len(found),
    }
    reporter.finish(numbers)
    reporter.note(
        f"{output}: {counted(len(found), 'field')}, {size:,} bytes, "
        f"{before / size:.2f} x smaller than their files"
    )
