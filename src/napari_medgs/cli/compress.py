"""``napari-medgs compress``: a field in a twelfth of its bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_medgs._util.naming import naming
from napari_medgs.cli.command import refuse_idle
from napari_medgs.cli.field_inputs import warn_of_mismatch
from napari_medgs.cli.option_groups import takes_groups
from napari_medgs.cli.options import (
    OF_IMAGES,
    BackendOption,
    DebugOption,
    JsonOption,
    QuietOption,
    Reading,
    ResampleOption,
    ThreadsOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output
from napari_medgs.cli.setting_options import takes_settings
from napari_medgs.compression.params import CompressParams

EXAMPLES = (
    "napari-medgs compress scan.medgs.safetensors -o scan.medgs --image scan.nii.gz",
    "napari-medgs compress scan.medgs.safetensors -o s.medgs --image scan.nii.gz --max-loss 0.3",
    "napari-medgs compress scan.medgs.safetensors -o scan.medgs --bytes 60000",
    "napari-medgs compress fields/ -o small/ --image images/",
)
"""Shown at the end of the help page."""


NAMES = ("profile", "max_loss", "bits_per_voxel", "step", "iterations", "preview")
OF_RATE = (
    *(f"--{name.replace('_', '-')}" for name in NAMES),
    *("--bytes", "--image", "--mask", "--resample", "--backend"),
)
"""Options that a learned codec has no use for."""


@takes_groups(reading=Reading)
@takes_settings(CompressParams, NAMES)
def compress(
    field: Annotated[
        Path,
        typer.Argument(
            metavar="FIELD",
            help="A field, .medgs.safetensors or .medgs, or a folder of them; with --model also "
            "an image, where the codec has a start to fit it from.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT.medgs",
            help="The compressed field; of a folder, the folder of the compressed ones.",
        ),
    ],
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="IMAGE",
            help="The image that was fitted, once for each contrast: fine-tuning works towards it "
            "instead of towards the field, which is better by 0.5 to 1.2 dB. Of a folder, the "
            "folder or list of images as fit-many takes it.",
            show_default=False,
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="MASK",
            help="The mask that was fitted; of a folder, where masks lie, relative to each image: "
            "'../labels/{name}.nii.gz'.",
            show_default=False,
        ),
    ] = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(
            "--bytes",
            metavar="N",
            min=100,
            help="The best file of at most so many bytes.",
            show_default=False,
        ),
    ] = None,
    *,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="CODEC",
            help="Code by a codec of train-codec, to OUT.latents.safetensors. Such a codec sets "
            "rate and loss itself.",
            show_default=False,
        ),
    ] = None,
    params: CompressParams,
    reading: Reading,
    resample: ResampleOption = False,
    backend: BackendOption = "auto",  # type: ignore[assignment]
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a field a tenth of its size: lossy, for research, no archive of the image.

    Ctrl-C ends it and writes nothing; of a folder, the same command continues. A tree of parts is
    left out: it belongs to the exact field.
    """
    del debug  # read by the command class
    from dataclasses import replace

    from napari_medgs.cli.compress_folder import compress_fields
    from napari_medgs.cli.learned_codec import compress_by_model
    from napari_medgs.compression import compress as run
    from napari_medgs.errors import ParameterError
    from napari_medgs.io import read_labels, read_volumes
    from napari_medgs.io.codec.files import SUFFIX
    from napari_medgs.io.fields import is_field_file, load_extra, load_field

    params = replace(
        params, max_bytes=max_bytes, backend=str(getattr(backend, "value", backend)),
        threads=threads,
    )  # fmt: skip
    if not image and (model is None or is_field_file(field)):
        refuse_idle(OF_IMAGES, "without --image" if model is None else "on a field")
    reporter = Reporter(quiet, json_file)
    if model is not None:
        refuse_idle(
            OF_RATE, "with --model: a learned codec takes no image, and sets rate and loss itself"
        )
        if field.is_dir():
            raise ParameterError(
                f"{field} is a folder: pack --model codes all of its fields by a learned codec."
            )
        compress_by_model(
            field, output, model, threads, reporter, json_file, reading=reading.options
        )
        return
    if field.is_dir():
        compress_fields(
            field, output, params, image, mask, reporter, json_file, reading=reading.options,
            resample=resample,
        )  # fmt: skip
        return
    check_output(output, (SUFFIX,))
    check_distinct([field, *(image or []), mask], {"-o": output, "--json": json_file})
    loaded = load_field(field)
    trees = bool(load_extra(field, "tree")[0])
    with reporter.doing("reading"), naming(image=image):
        volume = None
        if image:
            volume = read_volumes(image, **reading.options, resample=resample)
            warn_of_mismatch(volume, image[0], loaded, field)
        grid = loaded.info.grid
        labels = None if mask is None else read_labels(mask, grid, resample=resample)[0]
    with naming(image=image, mask=mask, field=field), reporter.progress() as progress:
        result = run(loaded, params, volume, labels, progress=progress)
    result.save(output)
    metrics = {
        **result.metrics,
        "threads": threads,
        "output": str(output),
        "input_bytes": field.stat().st_size,
    }
    reporter.finish(metrics)
    say_result(reporter, output, metrics)
    if trees:
        reporter.note(f"The tree of parts of {field} is not in {output}.")


def say_result(reporter: Reporter, output: Path, metrics: dict[str, Any]) -> None:
    """Print what a compression has brought and cost."""
    rows: list[tuple[str, Any]] = [
        ("size", f"{metrics['bytes']:,} bytes, {metrics['ratio']:.1f} x smaller"),
        ("", f"{metrics['bytes_per_gaussian']:.2f} bytes a Gaussian"),
        ("", f"{metrics['bits_per_voxel']:.3f} bits a voxel"),
    ]
    for title, key, digits in (("PSNR", "psnr", 2), ("SSIM", "ssim", 4), ("Dice", "dice_mean", 4)):
        if key in metrics and f"{key}_before" in metrics:
            before, after = metrics[f"{key}_before"], metrics[key]
            unit = " dB" * (key == "psnr")
            rows.append((title, f"{before:.{digits}f} -> {after:.{digits}f}{unit}"))
    if "psnr_to_field" in metrics:
        rows.append(("PSNR to the field", f"{metrics['psnr_to_field']:.2f} dB"))
    rows += [
        (f"{part}", f"{size:,} bytes, {100 * size / metrics['bytes']:.0f} %")
        for part, size in metrics["bytes_of"].items()
    ]
    rows.append(("time", f"{metrics['seconds']:.1f} s"))
    reporter.pairs(str(output), rows)
