"""``napari-medgs train-segmenter``: a segmenter of one's own cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_medgs.cli.command import print_error, refuse_idle, stoppable
from napari_medgs.cli.options import DebugOption, JsonOption, QuietOption, ResampleOption
from napari_medgs.cli.outputs import check_distinct, files_of
from napari_medgs.cli.report import Reporter, check_output, listed
from napari_medgs.cli.setting_options import takes_settings
from napari_medgs.learning.card import SUFFIX
from napari_medgs.learning.training.params import FEW_STEPS, LearnParams

NAMES = (
    "minutes",
    "steps",
    "folds",
    "patience",
    "held_out",
    "polish",
    "batch_size",
    "learning_rate",
    "ema",
    "encoder",
    "decoder",
    "supervision",
    "features",
    "width",
    "levels",
    "spacing",
    "logger",
    "log_dir",
    "resume",
    "precision",
    "accelerator",
    "workers",
    "seed",
    "threads",
)
"""The settings that are options, in the order of the help page."""

CASES = "Cases"

EXAMPLES = (
    "napari-medgs train-segmenter cases/ -o liver.safetensors --minutes 10",
    "napari-medgs train-segmenter images/ --mask '../labels/{name}.nii.gz' -o m.safetensors",
    "napari-medgs train-segmenter cases/ --continue liver.safetensors -o liver2.safetensors",
)
"""Shown at the end of the help page."""


OF_THE_MODEL = ("encoder", "decoder", "supervision", "width", "levels", "spacing")
"""Settings that a model which is continued has itself."""


@takes_settings(LearnParams, NAMES)
def train_segmenter(
    ctx: typer.Context,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder in nnU-Net's layout (imagesTr, labelsTr), which accepted cases have, "
            "too; a BIDS data set with masks in derivatives; a folder with images and labels; or "
            "a table (.csv) with the columns image and mask.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MODEL", help="The segmenter to write.")
    ],
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="An image's mask, relative to the image's folder: '../labels/{name}.nii.gz'. "
            "{name} is the image's file name without suffix, {file} the whole name.",
            rich_help_panel=CASES,
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            metavar="GLOB",
            help="Which images of a folder: '**/*_T1w.nii.gz'.",
            rich_help_panel=CASES,
        ),
    ] = None,
    label: Annotated[
        list[int] | None,
        typer.Option(
            metavar="V",
            min=1,
            help="A label value to learn; others count as background. Can be given several times.",
            show_default="all values",
            rich_help_panel=CASES,
        ),
    ] = None,
    continued: Annotated[
        Path | None,
        typer.Option(
            "--continue",
            metavar="MODEL",
            help="A segmenter of the same contrasts and classes to train further.",
            rich_help_panel=CASES,
        ),
    ] = None,
    licence: Annotated[
        str,
        typer.Option(
            "--license",
            metavar="TEXT",
            help="Under which the model may be used; kept in its card.",
            show_default=False,
        ),
    ] = "",
    *,
    params: LearnParams,
    resample: ResampleOption = False,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a segmenter on images with masks.

    Cases are checked first. One network learns from all of them; further ones each leave out a
    part, which measures the model and shows later where it is unsure. Ctrl-C keeps the best
    network so far. Research software: check every mask.
    """
    del debug  # read by the command class
    if continued is not None:
        _refuse_ignored(ctx)
    if params.log_dir is None and params.logger != "none":
        refuse_idle(("--logger",), "without --log-dir")
    check_output(output, (SUFFIX,))
    check_distinct([data, continued], {"-o": output, "--json": json_file})
    reporter = Reporter(quiet, json_file)

    from napari_medgs._optional import require
    from napari_medgs.learning import (
        find_training_cases,
        load_segmenter,
        save_segmenter,
    )
    from napari_medgs.learning import train_segmenter as run

    require("torch", "lightning", feature="train-segmenter")
    start = None if continued is None else load_segmenter(continued, params.features)
    with reporter.doing("looking for cases"):
        source = find_training_cases(data, mask=mask, pattern=pattern, resample=resample)
    check_distinct(files_of(source.cases), {"--json": json_file})
    with (
        stoppable("the best network so far") as should_stop,
        reporter.progress() as progress,
    ):
        result = run(
            source,
            params,
            values=tuple(label or ()),
            start=start,
            licence=licence,
            progress=progress,
            should_stop=should_stop,
        )
    save_segmenter(output, result.segmenter)
    card = result.segmenter.card
    for name, why in sorted(result.left_out.items()):
        print_error(f"{name} was left out: {why}")
    if lacking := source.without_mask:
        print_error(f"without a mask, and so not used: {listed(lacking)}.")
    reporter.finish(
        {
            "output": str(output),
            "cases": [entry.name for entry in card.cases],
            "left_out": result.left_out,
            "without_mask": list(source.without_mask),
            "classes": {str(v): n for v, n in card.names.items()},
            "dice": card.dice,
            "trust": card.trust,
            "history": result.history,
            "parameters": card.parameters,
            "spacing": card.spacing,
            "patch": card.patch,
            "training": card.training,
            "stopped_by": result.stopped_by,
            "seconds": result.seconds,
        }
    )
    title = f"{output}: {', '.join(card.class_names)} from {len(card.cases)} cases"
    reporter.pairs(title, _rows(card, result))
    if card.training["done_steps"].get("all", FEW_STEPS) < FEW_STEPS:
        reporter.note("These are few steps: expect poor masks. Give it more time (--minutes).")
    reporter.note(card.note)


def _refuse_ignored(ctx: typer.Context) -> None:
    """Refuse options that a model to continue has itself, if they were given.

    Raises
    ------
    typer.BadParameter
        Naming them.
    """
    given = [
        f"--{name}"
        for name in OF_THE_MODEL
        if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise typer.BadParameter(
            f"the model to --continue has its own {', '.join(given)}: leave that out."
        )


def _rows(card: Any, result: Any) -> list[tuple[str, str]]:
    """Return what is printed of a trained segmenter."""
    from napari_medgs.learning.components import describe_components
    from napari_medgs.learning.polishing import describe_polishing

    rows, polishing, single = [], describe_polishing(card), describe_components(card)
    for name, numbers in card.dice.items():
        title = "Dice, cross-validated" if name == "mean" else f"Dice of {name}"
        interval = f"{numbers['low']:.3f} to {numbers['high']:.3f}"
        text = f"{numbers['mean']:.3f} (95 %: {interval}; {numbers['cases']} cases)"
        rows.append((title, text))
    steps = ", ".join(f"{n:,} {name}" for name, n in card.training["done_steps"].items())
    size = " x ".join(f"{s:.3g}" for s in card.spacing)
    patch = " x ".join(map(str, card.patch))
    rows += [
        ("network", f"{card.parameters:,} parameters, patches of {patch} at {size} mm"),
        ("folds", f"{card.folds} further networks" if card.folds else "none"),
        *([("polishing", polishing)] if polishing else []),
        *([("largest component only", single)] if single else []),
        ("steps", steps),
        ("time", f"{result.seconds:.0f} s" + (", stopped early" if result.stopped_by else "")),
    ]
    return rows
