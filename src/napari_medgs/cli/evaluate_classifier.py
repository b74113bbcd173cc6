"""``napari-medgs evaluate-classifier``: AUC and accuracy on a labeled set."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_medgs.classification.card import DISCLAIMER
from napari_medgs.cli.classify import find_model
from napari_medgs.cli.command import NOTHING, stoppable
from napari_medgs.cli.options import DebugOption, JsonOption, QuietOption, ThreadsOption
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter

EXAMPLES = ("napari-medgs evaluate-classifier breastmnist.npz --model breast.safetensors",)
"""Shown at the end of the help page."""


def evaluate_classifier(
    dataset: Annotated[
        str,
        typer.Argument(metavar="DATASET", help="As train: a name, an .npz file or a folder."),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="A classifier's file or name.")
    ],
    split: Annotated[
        str, typer.Option("--split", metavar="NAME", help="Images to score: train, val or test.")
    ] = "test",
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Score a classifier on a labeled set: AUC and accuracy with intervals.

    AUC and accuracy follow MedMNIST's definitions; the intervals are at 95 %.
    """
    del debug
    reporter = Reporter(quiet, json_file)
    path = find_model(model)
    check_distinct([dataset, path], {"--json": json_file})

    from napari_medgs.classification import evaluate_classifier as run
    from napari_medgs.classification import load_classifier, load_dataset

    classifier = load_classifier(path)
    if threads:
        import torch

        torch.set_num_threads(threads)
    data = load_dataset(dataset, size=classifier.card.shape[-1])
    with reporter.progress() as progress, stoppable(NOTHING) as should_stop:
        result = run(classifier, data, split, progress=progress, should_stop=should_stop)
    metrics = {**result.metrics, "model": classifier.card.model, "dataset": data.name,
               "split": split}  # fmt: skip
    reporter.finish(metrics)
    rows = []
    for name in ("auc", "acc"):
        low, high = metrics[f"{name}_ci"]
        rows.append((name, f"{metrics[name]:.4f}  ({low:.4f} to {high:.4f})"))
    rows += [("images", metrics["images"]), ("seconds", f"{metrics['seconds']:.1f}")]
    reporter.pairs(f"{path.name} on {data.name}, {split}", rows)
    reporter.note(DISCLAIMER)
