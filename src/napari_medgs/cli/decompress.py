"""``napari-medgs decompress``: a compressed field as plain numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_medgs.cli.options import DebugOption, JsonOption, QuietOption
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output

EXAMPLES = ("napari-medgs decompress scan.medgs -o scan.medgs.safetensors",)
"""Shown at the end of the help page."""


def decompress(
    field: Annotated[Path, typer.Argument(metavar="FIELD.medgs", help="A compressed field.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="OUT.medgs.safetensors", help="Where the field goes."
        ),
    ],
    preview: Annotated[
        bool, typer.Option("--preview", help="The preview in place of the field.")
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="CODEC", help="The learned codec that coded the field.", show_default=False
        ),
    ] = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a compressed field as an exact one, for programs that read only these.

    What compression has rounded stays rounded. All commands here read compressed fields as they
    are.
    """
    del debug  # read by the command class
    from napari_medgs.cli.learned_codec import decompress_by_model
    from napari_medgs.compression.learned.files import CODED_SUFFIX
    from napari_medgs.errors import ParameterError
    from napari_medgs.io.codec.files import load_compressed
    from napari_medgs.io.fields import SUFFIX, save_field

    reporter = Reporter(quiet, json_file)
    if model is not None:
        if preview:
            raise ParameterError("A field that a learned codec coded has no preview.")
        decompress_by_model(field, output, model, reporter, json_file)
        return
    check_output(output, (SUFFIX,))
    check_distinct([field], {"-o": output, "--json": json_file})
    if field.is_file() and field.name.lower().endswith(CODED_SUFFIX):
        raise ParameterError(f"{field}: a learned codec coded it; name that by --model.")
    if field.is_file() and field.name.lower().endswith(SUFFIX):
        raise ParameterError(f"{field}: is an exact field already.")
    loaded = load_compressed(field, preview=preview)
    save_field(output, loaded)
    sizes = {"bytes": output.stat().st_size, "input_bytes": field.stat().st_size}
    reporter.finish({"gaussians": len(loaded), "output": str(output), **sizes})
    reporter.note(f"{output}: {len(loaded):,} Gaussians, {sizes['bytes']:,} bytes")
