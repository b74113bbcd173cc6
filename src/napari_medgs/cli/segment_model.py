"""What ``napari-medgs segment --model`` does without prompts: a trained segmenter alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medgs._util.naming import naming
from napari_medgs.cli.command import print_error, stoppable
from napari_medgs.errors import Cancelled, MedGSError

if TYPE_CHECKING:
    from napari_medgs._util.progress import ProgressCallback, StopCallback
    from napari_medgs.cli.explain import Explain
    from napari_medgs.cli.segment_job import SegmentJob
    from napari_medgs.data.volume import Volume
    from napari_medgs.learning import Segmenter, SegmenterResult
    from napari_medgs.segmentation import ContrastExplanation

MASK_SUFFIX = ".nii.gz"


@dataclass(frozen=True)
class ModelJob:
    """A segmenter and what is done with each image.

    Attributes
    ----------
    job : SegmentJob
        Reads images and writes masks.
    segmenter : Segmenter
    agreement : bool
        Run the networks of the folds, too.
    forest : bool
        See the image at half of the resolution first, and again where that is unsure.
    """

    job: SegmentJob
    segmenter: Segmenter
    agreement: bool
    forest: bool = False

    def segment_image(
        self, images: list[str], *, probabilities: bool = False, explain: Explain | None = None
    ) -> tuple[SegmenterResult, dict[str, Any]]:
        """Segment one image; return the result and its numbers."""
        from napari_medgs.learning.training.measure import agreement_of
        from napari_medgs.learning.trust import badge_of, unlike_training
        from napari_medgs.metrics.volumes import volumes_ml, voxel_counts

        volume = self.job.read(images)
        card = self.segmenter.card
        if explain is not None:
            explain.check(images, card.channel_names)
        with (
            naming(image=images),
            stoppable("nothing") as should_stop,
            self.job.reporter.progress() as progress,
        ):
            result = self.segmenter.segment(
                volume,
                probabilities=probabilities,
                folds=self.agreement,
                forest=self.forest,
                progress=progress,
                should_stop=should_stop,
            )
            explained = None
            if explain is not None:
                explained = explain.numbers(self._explain(volume, result, progress, should_stop))
        unlike = None
        if card.trust.get("reference"):
            unlike = unlike_training(self.segmenter.inputs(volume.prepared()), card)
        counts = voxel_counts(result.labels)
        metrics: dict[str, Any] = {
            "voxels": {str(v): counts.get(v, 0) for v in card.class_values},
            "volume_ml": {str(v): n for v, n in volumes_ml(result.labels, result.grid).items()},
            "seconds": result.seconds,
        }
        if self.agreement and result.fold_labels:
            badge = badge_of(
                agreement_of(result.fold_labels, card.class_values),
                card.trust.get("agreement", {}),
            )
            metrics |= {
                "agreement": badge.agreement,
                "trust": badge.level,
                "calibration": badge.sentence,
            }
        if unlike is not None:
            metrics["unlike_training"] = unlike
            if unlike > 1:
                print_error(
                    f"warning: {images[0]}: unlike the {len(card.cases)} cases that the model was "
                    f"trained on ({unlike:.1f} times as far from them as 19 of 20 of them)."
                )
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
                volume, absent=absent, forest=self.forest, should_stop=should_stop
            ).labels

        return explain_answers(
            answer,
            card.channel_names,
            card.class_values,
            result.labels,
            progress=progress,
            should_stop=should_stop,
        )

    def segment_cases(self, source: str, output: Path) -> dict[str, Any]:
        """Segment every image of a folder or list into a folder of masks."""
        from napari_medgs.io.cases import find_cases
        from napari_medgs.io.folders import make_folder

        cases = find_cases(source)
        make_folder(output)
        done: dict[str, Any] = {}
        failed = 0
        for number, case in enumerate(cases):
            self.job.reporter.note(f"{number + 1}/{len(cases)}  {case.name}")
            target = output / f"{case.name}{MASK_SUFFIX}"
            try:
                make_folder(target.parent)
                result, metrics = self.segment_image(list(case.images))
                metrics.update(self.job.write(result, target, result.names))
                done[case.name] = metrics
            except MedGSError as error:
                if isinstance(error, Cancelled) or self.job.debug:
                    raise
                failed += 1
                print_error(f"{case.name}: {error}")
                done[case.name] = {"error": str(error)}
        return {"cases": done, "failed": failed, "next": least_agreed(done)}


def least_agreed(done: dict[str, Any]) -> str | None:
    """Return the case on which the folds agree least: the next one to correct by hand."""
    known = {
        name: numbers["agreement"] for name, numbers in done.items() if "agreement" in numbers
    }
    return min(known, key=lambda name: known[name]) if known else None


def is_case_list(images: Sequence[str]) -> bool:
    """Tell a folder or list of cases from an image."""
    if len(images) != 1:
        return False
    from napari_medgs.io.dicom.series import is_dicom_folder
    from napari_medgs.io.image_stack import find_frames
    from napari_medgs.io.ome_zarr import is_ome_zarr

    place = Path(images[0])
    if place.is_dir():
        return not (is_dicom_folder(place) or is_ome_zarr(place) or find_frames(place))
    return place.suffix.lower() in (".csv", ".tsv", ".txt", ".lst")
