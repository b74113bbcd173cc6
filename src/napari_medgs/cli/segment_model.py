"""What ``napari-medgs segment --model`` does without prompts: a trained segmenter alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medgs._util.naming import naming
from napari_medgs._util.threads import limit_threads
from napari_medgs.cli.command import NOTHING, print_error, stoppable
from napari_medgs.cli.explain import contrast_rows
from napari_medgs.cli.report import label_title, rounded

if TYPE_CHECKING:
    from napari_medgs._util.progress import ProgressCallback, StopCallback
    from napari_medgs.cli.explain import Explain
    from napari_medgs.cli.segment_job import SegmentJob
    from napari_medgs.cli.segment_options import Trained
    from napari_medgs.data.volume import Volume
    from napari_medgs.learning import Segmenter, SegmenterResult
    from napari_medgs.segmentation import ContrastExplanation


@dataclass(frozen=True)
class ModelJob:
    """A segmenter and what is done with each image.

    Attributes
    ----------
    job : SegmentJob
        Reads images and writes masks.
    segmenter : Segmenter
    options : Trained
        How it is used.
    """

    job: SegmentJob
    segmenter: Segmenter
    options: Trained

    def segment_image(
        self, images: list[str], *, probabilities: bool = False, explain: Explain | None = None
    ) -> tuple[SegmenterResult, dict[str, Any]]:
        """Segment one image; return the result and its numbers."""
        from napari_medgs.learning.polishing import is_polished, polish_result
        from napari_medgs.learning.summary import summarize

        volume = self.job.read(images)
        card = self.segmenter.card
        polish = is_polished(card) if self.options.polish is None else self.options.polish
        if explain is not None:
            explain.check(images, card.channel_names)
        with (
            naming(image=images),
            limit_threads(self.job.params.threads),
            stoppable(NOTHING) as should_stop,
            self.job.reporter.progress() as progress,
        ):
            result = self.segmenter.segment(
                volume,
                probabilities=probabilities or polish,
                folds=self.options.agreement is not False,
                forest=self.options.forest,
                largest=self.options.largest,
                progress=progress,
                should_stop=should_stop,
            )
            if polish:
                result = polish_result(
                    card,
                    volume,
                    result,
                    threads=self.job.params.threads,
                    progress=progress,
                    should_stop=should_stop,
                )
            explained = None
            if explain is not None:
                explained = explain.numbers(self._explain(volume, result, progress, should_stop))
        metrics = summarize(self.segmenter, volume, result)
        warn_of_doubts(images[0], metrics, len(card.cases))
        if explained is not None:
            metrics["contrasts"] = explained
        return result, metrics

    def _explain(
        self,
        volume: Volume,
        result: SegmenterResult,
        progress: ProgressCallback,
        should_stop: StopCallback,
    ) -> ContrastExplanation:
        """Return what every contrast contributes to the model's mask."""
        from napari_medgs.segmentation.explain import explain_answers

        card = self.segmenter.card

        def answer(subset: tuple[int, ...]) -> Any:
            absent = [c for c in range(len(card.channel_names)) if c not in subset]
            return self.segmenter.segment(
                volume,
                absent=absent,
                forest=self.options.forest,
                largest=self.options.largest,
                should_stop=should_stop,
            ).labels

        return explain_answers(
            answer,
            card.channel_names,
            card.class_values,
            result.labels,
            progress=progress,
            should_stop=should_stop,
        )


def segment_cases(
    job: SegmentJob,
    source: str,
    trained: Trained,
    output: Path,
) -> dict[str, Any]:
    """Segment every image of a folder or list into a folder of masks."""
    from napari_medgs.batch.segmenting import segment_many
    from napari_medgs.io.cases import find_cases
    from napari_medgs.learning.files import load_segmenter_card

    assert trained.model is not None
    known = len(load_segmenter_card(trained.model).cases)

    def done(name: str, numbers: dict[str, Any]) -> None:
        if "error" in numbers:
            print_error(f"{name}: {numbers['error']}")
        else:
            warn_of_doubts(name, numbers, known)

    with (
        stoppable("what is finished") as should_stop,
        job.reporter.progress() as progress,
    ):
        found = segment_many(
            find_cases(source),
            trained.model,
            output,
            agreement=trained.agreement is not False,
            forest=trained.forest,
            reading={**job.reading.options, "resample": job.resample},
            scheduler=trained.scheduler,
            workers=trained.workers or 1,
            threads=job.params.threads,
            features=trained.features,
            polish=trained.polish,
            largest=trained.largest,
            progress=progress,
            should_stop=should_stop,
            done=done,
        )
    failed = sum("error" in numbers for numbers in found.values())
    return {"cases": found, "failed": failed, "next": least_agreed(found)}


def warn_of_doubts(image: str, metrics: dict[str, Any], known: int) -> None:
    """Warn of a mask that is probably wrong, and of an image unlike those of the training.

    Parameters
    ----------
    image : str
        File or name.
    metrics : dict
        As :func:`~napari_medgs.learning.summary.summarize`.
    known : int
        Training cases of the model.
    """
    unlike = metrics.get("unlike_training")
    if unlike is not None and unlike > 1:
        print_error(
            f"warning: {image}: unlike the {known} cases that the model was trained on "
            f"({unlike:.1f} times as far from them as 19 of 20 of them)."
        )
    if metrics.get("trust") == "below":
        print_error(
            f"warning: {image}: the folds agree less ({metrics['agreement']:.3f}) than on any of "
            f"the {known} training cases: expect a wrong mask."
        )


def least_agreed(done: dict[str, Any]) -> str | None:
    """Return the case on which the folds agree least: the next one to correct by hand."""
    known = {
        name: numbers["agreement"] for name, numbers in done.items() if "agreement" in numbers
    }
    return min(known, key=lambda name: known[name]) if known else None


def model_rows(metrics: dict[str, Any], names: dict[int, str]) -> list[tuple[str, Any]]:
    """Return what is printed of a mask that a model made."""
    volumes = metrics["volume_ml"]
    rows: list[tuple[str, Any]] = [
        (label_title(value, names), f"{rounded(volumes.get(value, 0.0))} ml, {count:,} voxels")
        for value, count in metrics["voxels"].items()
    ]
    if "agreement" in metrics:
        text = f"{metrics['agreement']:.3f}, {metrics['trust']}. {metrics['calibration']}"
        rows.append(("agreement of the folds", text))
    rows += contrast_rows(metrics, names)
    rows.append(("time", f"{metrics['seconds']:.2f} s"))
    return rows


def case_rows(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what is printed of many masks."""
    rows: list[tuple[str, Any]] = [("masks", f"{len(metrics['cases']) - metrics['failed']:,}")]
    least = metrics["next"]
    if least is not None:
        agreement = metrics["cases"][least]["agreement"]
        rows.append(("to correct next", f"{least}: the folds agree least, {agreement:.3f}"))
    return rows


def is_case_list(images: Sequence[str]) -> bool:
    """Tell a folder or list of cases from an image."""
    if len(images) != 1:
        return False
    from napari_medgs.io.dicom.series import is_dicom_folder
    from napari_medgs.io.image_stack import find_frames
    from napari_medgs.io.ome_zarr.opening import is_ome_zarr

    place = Path(images[0])
    if place.is_dir():
        return not (is_dicom_folder(place) or is_ome_zarr(place) or find_frames(place))
    return place.suffix.lower() in (".csv", ".tsv", ".txt", ".lst")
