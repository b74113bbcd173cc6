"""``napari-medgs train-codec``: a learned codec for a cohort of similar fields."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_medgs._util.naming import naming
from napari_medgs._util.settings import settings_of
from napari_medgs.cli.command import NOTHING, refuse_idle, stoppable
from napari_medgs.cli.options import DebugOption, JsonOption, QuietOption
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output
from napari_medgs.cli.setting_options import takes_settings
from napari_medgs.compression.learned.params import CodecParams
from napari_medgs.errors import FileError, ParameterError

EXAMPLES = (
    "napari-medgs train-codec fields/ -o codec.safetensors",
    "napari-medgs train-codec breastmnist.npz -o codec.safetensors --steps 2000",
    "napari-medgs train-codec fields/ -o codec.safetensors --network conv1d --published",
)
"""Shown at the end of the help page."""


@takes_settings(CodecParams, tuple(settings_of(CodecParams)))
def train_codec(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|FILE.npz",
            help="Fields of one kind in a folder, or a MedMNIST file, whose training images are "
            "fitted from one start first.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="CODEC", help="The codec to write.")
    ],
    *,
    params: CodecParams,
    gaussians: Annotated[
        int, typer.Option(metavar="N", min=1, max=256, help="Of each image of a .npz.")
    ] = 32,
    iterations: Annotated[
        int, typer.Option(metavar="N", min=1, max=100_000, help="Of each fit of a .npz.")
    ] = 60,
    images: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=4, help="The first images of a .npz.", show_default="all for training"
        ),
    ] = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a codec for fields that are alike: an autoencoder on their parameters.

    For research: the usual codec of compress keeps far more of a field. Every fifth field is kept
    out of the training, and measures the codec.
    """
    del debug
    check_output(output, (".safetensors",))
    if not source.name.lower().endswith(".npz"):
        refuse_idle(("--gaussians", "--iterations", "--images"), "on fields, which are fitted")
    check_distinct([source], {"-o": output, "--json": json_file})
    reporter = Reporter(quiet, json_file)

    from napari_medgs._optional import require
    from napari_medgs.compression.cohort import fields_in
    from napari_medgs.compression.learned import fit_alike, mean_field, save_codec
    from napari_medgs.compression.learned import train_codec as run
    from napari_medgs.io.fields import load_field
    from napari_medgs.io.medmnist.reader import load_set

    require("torch", "lightning", feature="train-codec")
    start = None
    with stoppable(NOTHING) as should_stop, reporter.progress() as progress:
        if source.name.lower().endswith(".npz"):
            if gaussians > params.block:
                raise ParameterError(
                    f"{gaussians} Gaussians an image do not fit in a block of {params.block}; "
                    "make --block as large."
                )
            known = load_set(source)
            if "train" not in known.images:
                raise FileError(f"{source}: has no training images.")
            count = min(images or len(known.images["train"]), len(known.images["train"]))
            with naming(image=source):
                volumes = [known.volume("train", k) for k in range(count)]
                start = mean_field(
                    volumes, gaussians, iterations, seed=params.seed, threads=params.threads
                )
                fields = fit_alike(
                    volumes, start, iterations, threads=params.threads, progress=progress,
                    should_stop=should_stop,
                )  # fmt: skip
        else:
            fields = [load_field(path) for path in fields_in(source).values()]
        with naming(field=source):
            codec = run(fields, params, start=start, progress=progress, should_stop=should_stop)
    save_codec(output, codec)
    card = codec.card
    reporter.finish({**card.to_dict(), "output": str(output)})
    reporter.pairs(str(output), describe(card.to_dict()))


def describe(card: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows that tell what a codec is and what was measured."""
    measured, training = card["metrics"], card["training"]
    form = "as published" if card["published"] else f"loss: {card['loss']}"
    order = f"{card['slots']} in a fixed order" if card["slots"] else "in Morton order"
    rows = [
        ("network", f"{card['network']}, {card['weights']:,} weights, {form}"),
        ("code", f"{card['latents']} latents for {card['block']} Gaussians, {order}"),
    ]
    if training:
        rows.append(("fields", f"{training['fields']}, {training['kept_out']} kept out"))
        rows.append(("time", f"{training['seconds']:.1f} s for {training['steps']} steps"))
    if measured:
        rows.append(("bytes", f"{measured['bytes']:.1f} a field"))
        rows.append(("PSNR to the fields", f"{measured['psnr_to_field']:.2f} dB"))
        explained = ", ".join(f"{k} {v:.2f}" for k, v in measured["explained"].items())
        rows.append(("variance explained", explained))
    return rows
