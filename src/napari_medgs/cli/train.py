"""``napari-medgs train``: a classifier of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_medgs._util.settings import settings_of
from napari_medgs.classification.card import DISCLAIMER, SUFFIX
from napari_medgs.classification.training.params import TrainParams
from napari_medgs.cli.command import NOTHING, refuse_idle, stoppable
from napari_medgs.cli.options import DebugOption, JsonOption, QuietOption
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output
from napari_medgs.cli.setting_options import option_for, takes_settings

NAMES = (
    "model",
    "epochs",
    "batch_size",
    "learning_rate",
    "gaussians",
    "patience",
    "logger",
    "log_dir",
    "resume",
    "accelerator",
    "devices",
    "strategy",
    "precision",
    "seed",
    "threads",
)
"""The settings that are options, in the order of the help page."""

NetworkOption = option_for(settings_of(TrainParams)["model"], name="--network")

EXAMPLES = (
    "napari-medgs train breastmnist -o breast.safetensors",
    "napari-medgs train my-folder/ -o mine.safetensors --network edge --batch-size 16",
)
"""Shown at the end of the help page."""
WITHOUT_GAUSSIANS = ("resnet8", "inr2vec")
"""Networks that read pixels, or the weights of a network of each image."""


@takes_settings(TrainParams, NAMES, {"model": NetworkOption})
def train(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="A MedMNIST name, an .npz file of its layout, or a folder with labels.csv "
            "(path, label, split).",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MODEL", help="The classifier to write.")
    ],
    *,
    params: TrainParams,
    size: Annotated[
        int,
        typer.Option(
            "--size", metavar="N", min=28, help="Image size of a set that is downloaded."
        ),
    ] = 28,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a classifier and score it once on the test split.

    AUC and accuracy are computed as MedMNIST's evaluator does. Research software: no diagnosis.
    """
    del debug
    if params.model in WITHOUT_GAUSSIANS:
        refuse_idle(("--gaussians",), f"with --network {params.model}")
    check_output(output, (SUFFIX,))
    check_distinct([dataset], {"-o": output, "--json": json_file})
    reporter = Reporter(quiet, json_file)

    from napari_medgs._optional import require
    from napari_medgs.classification import load_dataset, save_classifier
    from napari_medgs.classification import train as run

    require("torch", "lightning", feature="train")  # before anything is downloaded
    if Path(dataset).exists():
        refuse_idle(("--size",), "on files")
    data = load_dataset(dataset, size=size)
    with reporter.progress() as progress, stoppable(NOTHING) as should_stop:
        result = run(data, params, progress=progress, should_stop=should_stop)
    save_classifier(output, result.classifier)
    metrics = {**result.metrics, "output": output}
    reporter.finish(metrics)
    shown = ("test_auc", "test_auc_ci", "test_acc", "test_acc_ci", "val_auc", "parameters",
             "bytes_per_input", "seconds_fit", "seconds_epoch", "seconds")  # fmt: skip
    rows = [(name, _text(metrics[name])) for name in shown if name in metrics]
    reporter.pairs(f"{output}: {params.model} on {data.name}", rows)
    reporter.note(DISCLAIMER)


def _text(value: object) -> str:
    if isinstance(value, list):
        return " to ".join(_text(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
