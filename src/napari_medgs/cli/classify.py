"""``napari-medgs classify``: class probabilities of an image or a field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_medgs._util.naming import naming
from napari_medgs.classification.card import bundled_models
from napari_medgs.cli.command import refuse_idle
from napari_medgs.cli.options import (
    OF_IMAGES,
    DebugOption,
    FillNanOption,
    IdentityOption,
    JsonOption,
    QuietOption,
    ThreadsOption,
    VolumeOption,
    VoxelSizeOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter
from napari_medgs.errors import FileError
from napari_medgs.io.fields import is_field_file

EXAMPLES = (
    "napari-medgs classify image.nii.gz --model breastmnist",
    "napari-medgs classify image.nii.gz --model mine.safetensors --json result.json",
)
"""Shown at the end of the help page."""


UNLIKE = (
    "This image is unlike those of {dataset} that the classifier was trained on (at {times:.1f} "
    "times the distance that {share:.0f} % of them exceed): do not rely on the probabilities."
)


def find_model(name: str) -> Path:
    """Return a classifier's file: a path, or the name of one that comes with the package.

    Raises
    ------
    FileError
        When there is none.
    """
    bundled = bundled_models()
    if name in bundled and not Path(name).is_file():
        return bundled[name]
    if not Path(name).is_file():
        known = ", ".join(bundled) or "none"
        raise FileError(f"{name}: no such classifier; those of the package are {known}.")
    return Path(name)


def classify(
    image: Annotated[
        str,
        typer.Argument(metavar="FIELD_OR_IMAGE", help="A field, or any image that fit reads."),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="A classifier's file or name.")
    ],
    spacing: VoxelSizeOption = None,
    assume_identity: IdentityOption = False,
    chosen_volume: VolumeOption = None,
    fill_nan: FillNanOption = "background",
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Print class probabilities. Research software: they are no diagnosis."""
    del debug
    reporter = Reporter(quiet, json_file)
    path = find_model(model)
    if is_field_file(image):
        refuse_idle(OF_IMAGES, "on a field")
    check_distinct([image, path], {"--json": json_file})

    from napari_medgs.classification import load_classifier
    from napari_medgs.io import read_volume
    from napari_medgs.io.fields import load_field

    classifier = load_classifier(path)
    if threads:
        import torch

        torch.set_num_threads(threads)
    source = (
        load_field(image)
        if is_field_file(image)
        else read_volume(
            image,
            spacing=spacing,
            assume_identity=assume_identity,
            volume=chosen_volume,
            fill_nan=fill_nan,
        )
    )
    with reporter.doing("classifying"), naming(image=image, field=image):
        result = classifier.predict(source)
    card = classifier.card
    reporter.finish(
        {
            "probabilities": result.probabilities,
            "best": result.best,
            "novelty": result.novelty,
            "unlike_training_images": result.is_unlike if result.novelty is not None else None,
            "seconds": result.seconds,
            "threads": threads,
            "model": card.model,
            "dataset": card.dataset,
            "test_auc": card.metrics.get("test_auc"),
            "note": card.note,
        }
    )
    ranked = sorted(result.probabilities.items(), key=lambda item: -item[1])
    title = f"{image}: {card.model} trained on {card.dataset}"
    reporter.table(title, ("class", "probability"), [(n, f"{p:.3f}") for n, p in ranked])
    area = card.metrics.get("test_auc")
    tested = "" if area is None else f"Its test AUC was {area:.3f}. "
    if result.is_unlike and card.reference is not None:
        share = 100 * card.reference.false_alarms
        reporter.note(UNLIKE.format(dataset=card.dataset, times=result.novelty, share=share))
    if result.is_undecided and not card.multi_label:
        reporter.note("Undecided: no class is more probable than all others together.")
    reporter.note(f"{tested}{card.note}")
