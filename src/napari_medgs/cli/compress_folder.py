"""What ``compress`` does with a folder of fields."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from napari_medgs.cli.command import CANCELLED, FAILED, print_error, stoppable
from napari_medgs.cli.outputs import check_distinct, files_of
from napari_medgs.cli.report import Reporter, counted
from napari_medgs.errors import Cancelled, FileError, ParameterError

if TYPE_CHECKING:
    from napari_medgs.compression.params import CompressParams


def compress_fields(
    folder: Path,
    output: Path,
    params: CompressParams,
    images: list[str] | None,
    mask: str | None,
    reporter: Reporter,
    json_file: Path | None,
    *,
    reading: Mapping[str, Any],
    resample: bool,
) -> None:
    """Compress every field of a folder into another one.

    Parameters
    ----------
    folder, output : Path
    params : CompressParams
    images : list of str, optional
        One folder or list of images, as fit-many takes it.
    mask : str, optional
        A pattern for masks.
    reporter : Reporter
    json_file : Path, optional
    reading : mapping
        How images are read.
    resample : bool
    """
    from napari_medgs.compression.cohort import fields_in
    from napari_medgs.compression.folder import compress_folder, totals
    from napari_medgs.io.cases import find_cases
    from napari_medgs.io.fields import COMPRESSED

    if output.name.lower().endswith(COMPRESSED):
        raise FileError(f"{output}: {folder} is a folder, so that -o must be the name of one.")
    if images and len(images) > 1:
        raise ParameterError(
            "The images of a folder of fields are those of one folder or list: give --image once."
        )
    if mask is not None and not images:
        raise ParameterError("Masks of a folder of fields are found beside images: give --image.")
    check_distinct([folder, *(images or [])], {"-o": output, "--json": json_file})
    names = fields_in(folder)
    cases = find_cases(images[0], mask=mask) if images else []
    check_distinct([*names.values(), *files_of(cases)], {"--json": json_file})
    lacking = sorted(set(names) - {case.name for case in cases})
    if cases and len(lacking) == len(names):
        raise FileError(
            f"{images[0] if images else ''}: holds no image of the name of a field, such as "
            f"{lacking[0]}."
        )
    with (
        stoppable("what is finished") as should_stop,
        reporter.progress() as progress,
    ):
        try:
            result = compress_folder(
                folder, output, params, cases, reading=reading, resample=resample,
                progress=progress, should_stop=should_stop,
            )  # fmt: skip
        except Cancelled:
            print_error("canceled; the same command continues.")
            raise typer.Exit(CANCELLED) from None
    numbers = dict(totals(result))
    reporter.finish({**numbers, "output": str(output)})
    rows: list[tuple[str, Any]] = [("compressed", counted(numbers["compressed"], "field"))]
    if result.skipped:
        rows.append(("there already", f"{len(result.skipped):,}"))
    if cases and lacking:
        rows.append(("without an image", f"{len(lacking):,}, tuned to their own rendering"))
    if numbers["compressed"]:
        ratio = numbers["bytes_exact"] / numbers["bytes"]
        rows.append(("size", f"{numbers['bytes']:,} bytes, {ratio:.1f} x smaller"))
    if numbers["loss_mean"] is not None:
        text = f"{numbers['loss_mean']:.2f} dB on average, {numbers['loss_max']:.2f} at most"
        rows.append(("loss of PSNR", text))
    reporter.pairs(str(output), rows)
    for why in result.failed.values():
        print_error(why)
    if result.failed:
        print_error(f"{len(result.failed)} of {len(names)} fields failed, see above.")
        raise typer.Exit(FAILED)
