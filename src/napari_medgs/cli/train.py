"""``napari-medgs train``: a classifier of images."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_medgs.classification.card import DISCLAIMER, SUFFIX
from napari_medgs.classification.training.params import TrainParams
from napari_medgs.cli.command import stoppable
from napari_medgs.cli.options import (
    DebugOption,
    JsonOption,
    QuietOption,
    SeedOption,
    ThreadsOption,
)
from napari_medgs.cli.report import Reporter, check_output

DEFAULTS = TrainParams()


class ModelKind(StrEnum):
    """Kinds of networks."""

    hybrid = "hybrid"
    edge = "edge"
    gnn = "gnn"
    resnet8 = "resnet8"
    inr2vec = "inr2vec"


class Logger(StrEnum):
    """Where the course of training is written."""

    none = "none"
    csv = "csv"
    tensorboard = "tensorboard"


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
    model: Annotated[ModelKind, typer.Option("--model", help="Network.")] = ModelKind.hybrid,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, show_default="by model and data")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=2, help="Images a step.")] = DEFAULTS.batch,
    rate: Annotated[float, typer.Option("--rate", help="Learning rate.")] = DEFAULTS.rate,
    gaussians: Annotated[
        int | None,
        typer.Option("--gaussians", help="A power of 2.", show_default="64; 128 for 3D grey"),
    ] = None,
    size: Annotated[int, typer.Option("--size", help="Image size to download.")] = 28,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            min=1,
            help="Epochs without a better validation AUC until it stops.",
            show_default="all epochs",
        ),
    ] = None,
    logger: Annotated[Logger, typer.Option("--logger", help="Kind of logs.")] = Logger.none,
    log_dir: Annotated[
        Path | None, typer.Option("--log-dir", help="Folder of logs and checkpoints.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --log-dir.")
    ] = False,
    accelerator: Annotated[str, typer.Option("--accelerator", help="Lightning's.")] = "auto",
    devices: Annotated[str, typer.Option("--devices", help="Lightning's: a number.")] = "auto",
    strategy: Annotated[str, typer.Option("--strategy", help="Lightning's: ddp, ..")] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="Lightning's.")] = "auto",
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a classifier and score it once on the test split.

    AUC and accuracy are computed as MedMNIST's evaluator does. Research software: no diagnosis.
    """  # fmt: skip
    del debug
    params = TrainParams(
        model=str(model), epochs=epochs, batch=batch, rate=rate, gaussians=gaussians,
        patience=patience, seed=seed, accelerator=accelerator, devices=devices,
        strategy=strategy, precision=precision, logger=str(logger),  # type: ignore[arg-type]
        log_dir=str(log_dir) if log_dir else None, resume=resume, threads=threads,
    )  # fmt: skip
    check_output(output, (SUFFIX,))
    reporter = Reporter(quiet, json_file)

    from napari_medgs.classification import load_dataset, save_classifier
    from napari_medgs.classification import train as run

    data = load_dataset(dataset, size=size)
    with reporter.progress() as progress, stoppable("nothing") as should_stop:
        result = run(data, params, progress=progress, should_stop=should_stop)
    save_classifier(output, result.classifier)
    numbers = {**result.numbers, "output": output}
    reporter.finish(numbers)
    shown = ("test_auc", "test_auc_ci", "test_acc", "test_acc_ci", "val_auc", "parameters",
             "bytes_per_input", "seconds_fit", "seconds_epoch", "seconds")  # fmt: skip
    rows = [(name, _text(numbers[name])) for name in shown if name in numbers]
    reporter.pairs(f"{output}: {model} on {data.name}", rows)
    reporter.note(DISCLAIMER)


def _text(value: object) -> str:
    if isinstance(value, list):
        return " to ".join(_text(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
