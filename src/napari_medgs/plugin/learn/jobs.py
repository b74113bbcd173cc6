"""What the Learn widget asks of the core, and its results in words. No Qt."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.errors import FileError, GeometryError, ParameterError
from napari_medgs.learning.card import SUFFIX
from napari_medgs.learning.components import describe_components
from napari_medgs.learning.polishing import describe_polishing
from napari_medgs.learning.training.params import FEW_STEPS, LearnParams
from napari_medgs.plugin.next_cases import kept_files

if TYPE_CHECKING:
    from napari_medgs.learning import LearnResult
    from napari_medgs.learning.ranking import RankedCase

MODEL = f"segmenter{SUFFIX}"
FIRST = "train all"
IN_PYTHON = "resample=True (--resample) does that."
IN_THE_WIDGET = "Check 'bring images and mask onto one grid' for that."
SHOWN = 5
"""Images that are listed, least agreement first."""


@dataclass(frozen=True)
class CurvePoint:
    """One report of a training.

    Attributes
    ----------
    stage : str
    done : float
        Part of the stage, 0 to 1.
    loss, dice : float, optional
    """

    stage: str
    done: float
    loss: float | None
    dice: float | None


@dataclass(frozen=True)
class TrainRequest:
    """Everything that a training needs.

    Attributes
    ----------
    source : Path
        Of the cases.
    output : Path
        Of the segmenter.
    params : LearnParams
    start : Path, optional
        A segmenter to continue.
    resample : bool
        Bring the images and the mask of a case onto one grid.
    curve : list of CurvePoint
        Filled while the training runs.
    """

    source: Path
    output: Path
    params: LearnParams
    start: Path | None = None
    resample: bool = False
    curve: list[CurvePoint] = field(default_factory=list)

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> TrainOutcome:
        """Train, and write the segmenter."""
        from napari_medgs._optional import require
        from napari_medgs.io.folders import check_folder_of
        from napari_medgs.learning.data.sources import find_training_cases

        check_folder_of(self.output)

        def report(event: ProgressEvent) -> None:
            if event.loss is not None or event.dice is not None:
                part = event.done / max(1, event.total)
                self.curve.append(CurvePoint(event.stage, part, event.loss, event.dice))
            progress(event)

        report(ProgressEvent("look for cases", 0, 0, 0.0))
        # First, as to load the packages that train takes many seconds.
        source = find_training_cases(self.source, resample=self.resample)
        require("torch", "lightning", feature="Training")
        from napari_medgs.learning import load_segmenter, save_segmenter, train_segmenter

        start = None if self.start is None else load_segmenter(self.start)
        try:
            result = train_segmenter(
                source, self.params, start=start, progress=report, should_stop=should_stop
            )
        except GeometryError as error:
            raise GeometryError(str(error).replace(IN_PYTHON, IN_THE_WIDGET)) from error
        save_segmenter(self.output, result.segmenter)
        return TrainOutcome(self, result, source.without_mask)


@dataclass(frozen=True)
class TrainOutcome:
    """A trained segmenter, what made it, and the images that it did not use for want of a mask."""

    request: TrainRequest
    result: LearnResult
    without_mask: tuple[str, ...] = ()


def make_train_request(
    source: Path | None,
    output: Path | None,
    minutes: float,
    folds: bool,
    start: Path | None,
    *,
    polish: bool = False,
    resample: bool = False,
) -> TrainRequest:
    """Check what the user chose.

    Parameters
    ----------
    source, output : Path, optional
    minutes : float
    folds : bool
        Whether the model is measured.
    start : Path, optional
    polish : bool
        Whether the folds tell if polishing helps.
    resample : bool
        Whether the images and the mask of a case are brought onto one grid.

    Raises
    ------
    MedGSError
        When something is missing.
    """
    if source is None:
        raise ParameterError("Choose the cases to learn from: a folder, or a table.")
    if not source.exists():
        raise FileError(f"{source}: no such file or folder.")
    if output is None:
        raise ParameterError("Choose where the model is saved.")
    if not output.name.endswith(SUFFIX):
        raise FileError(f"{output}: the name of a model ends in {SUFFIX}.")
    # No processes for patches: they would be forked from a program with a window and threads.
    params = LearnParams(
        minutes=minutes, folds=None if folds else 0, workers=0, polish=polish and folds
    )
    return TrainRequest(source, output, params, start, resample)


@dataclass(frozen=True)
class OrderRequest:
    """Order unlabeled images by how little a model's folds agree on them.

    Attributes
    ----------
    model : Path
    source : Path
        Folder or table of images.
    cases : Path, optional
        Folder of the cases that are finished: their images are left out.
    resample : bool
        Bring further contrasts of an image onto the grid of the first.
    """

    model: Path
    source: Path
    cases: Path | None = None
    resample: bool = False

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> list[RankedCase]:
        """Return the images, least agreement first."""
        from napari_medgs.io.cases import find_cases
        from napari_medgs.io.formats import image_stem
        from napari_medgs.io.labels import is_mask_name
        from napari_medgs.learning.files import load_segmenter
        from napari_medgs.learning.ranking import rank_cases

        progress(ProgressEvent("load the model", 0, 0, 0.0))
        segmenter = load_segmenter(self.model)
        kept = kept_files(self.cases if self.cases and self.cases.is_dir() else None)
        coming = [
            case
            for case in find_cases(self.source)
            if not kept & set(case.images) and not is_mask_name(image_stem(Path(case.images[0])))
        ]
        if not coming:
            raise ParameterError(f"{self.source}: all of its images are finished cases.")
        return rank_cases(
            segmenter,
            coming,
            reading={"resample": self.resample},
            progress=progress,
            should_stop=should_stop,
        )


def make_order_request(
    model: Path | None, source: Path | None, cases: Path | None, *, resample: bool = False
) -> OrderRequest:
    """Check what the user chose.

    Parameters
    ----------
    model, source, cases : Path, optional
    resample : bool
        Whether further contrasts are brought onto the grid of the first.

    Raises
    ------
    MedGSError
        When something is missing.
    """
    if model is None:
        raise ParameterError("Train a model first, or choose one beside Pre-segment.")
    if source is None:
        raise ParameterError("Choose the folder or table of the images without masks.")
    if not source.exists():
        raise FileError(f"{source}: no such file or folder.")
    return OrderRequest(model, source.absolute(), cases, resample)


def suggested_images(cases: Path) -> Path | None:
    """Return the folder that the finished cases' images came from, if that is known."""
    if not cases.is_dir():
        return None
    folders = [Path(file).parent for file in sorted(kept_files(cases))]
    return next((folder for folder in folders if folder.is_dir()), None)


def describe_order(ranked: Sequence[RankedCase]) -> str:
    """Return which images to annotate next, as HTML."""
    known = [one for one in ranked if one.agreement is not None]
    lines = ["<b>Annotate next</b>, least agreement of the folds first:"]
    lines += [f"{html.escape(one.case.name)} {one.agreement:.2f}" for one in known[:SHOWN]]
    if len(known) > SHOWN:
        lines.append(f"and {len(known) - SHOWN} more")
    lines += [html.escape(one.error) for one in ranked if one.agreement is None][:SHOWN]
    if known:
        lines.append("Open the first one; Next case in Segment then goes in this order.")
    return "<br>".join(lines)


def suggested_output(source: Path) -> Path:
    """Return where the model of a data set is saved, unless the user says otherwise.

    A name that is free: earlier models stay.
    """
    folder = source if source.is_dir() else source.parent
    path, k = folder / MODEL, 1
    while path.exists():
        k += 1
        path = folder / MODEL.replace(SUFFIX, f"-{k}{SUFFIX}")
    return path


def last_model(source: Path | None) -> Path | None:
    """Return the newest model beside the cases that has the name of a suggested one, if any."""
    if source is None or not source.exists():
        return None
    folder = source if source.is_dir() else source.parent
    found = [p for p in folder.glob(MODEL.replace(SUFFIX, f"*{SUFFIX}")) if p.is_file()]
    return max(found, key=lambda p: p.stat().st_mtime, default=None)


def describe_outcome(outcome: TrainOutcome) -> str:
    """Return a training's result as HTML."""
    card, result = outcome.result.segmenter.card, outcome.result
    lines = [f"<b>{html.escape(', '.join(card.class_names))}</b> from {len(card.cases)} cases"]
    if card.dice:
        mean = card.dice["mean"]
        lines.append(
            f"Dice on cases that were left out: <b>{mean['mean']:.2f}</b> "
            f"({mean['low']:.2f} to {mean['high']:.2f})"
        )
        if len(card.class_names) > 1:
            each = (f"{n} {card.dice[n]['mean']:.2f}" for n in card.class_names if n in card.dice)
            lines.append(html.escape(", ".join(each)))
        if polishing := describe_polishing(card):
            lines.append(html.escape(f"Polishing: {polishing}"))
        if single := describe_components(card):
            lines.append(html.escape(f"Largest component only: {single}"))
    else:
        lines.append("Not measured: no cases were left out.")
    steps = card.training["done_steps"].get("all", 0)
    early = " Stopped early; the best so far was kept." if result.stopped_by else ""
    lines.append(f"{steps:,} steps, {result.seconds / 60:.1f} min.{early}")
    if steps < FEW_STEPS:
        lines.append("These are few steps: expect poor masks. Give it more time.")
    if result.left_out:
        names = ", ".join(list(result.left_out)[:3])
        why = next(iter(result.left_out.values()))
        lines.append(html.escape(f"Left out: {names} ({why})"))
    if lacking := outcome.without_mask:
        more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        lines.append(
            html.escape(f"Not used, as without a mask: {', '.join(lacking[:SHOWN])}{more}")
        )
    lines.append(html.escape(f"Saved as {outcome.request.output.name}."))
    return "<br>".join(lines)
