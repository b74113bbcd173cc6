"""What ``napari-medgs segment`` does with one image, or a folder of images."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from napari_medgs._util.naming import naming
from napari_medgs._util.threads import limit_threads
from napari_medgs.cli.command import NOTHING, print_error, stoppable
from napari_medgs.cli.field_inputs import load_field_of
from napari_medgs.cli.options import Reading
from napari_medgs.cli.place_prompts import PlacePrompts
from napari_medgs.cli.report import Reporter, label_title, listed, rounded
from napari_medgs.cli.segment_options import MoreOutputs, Prompting
from napari_medgs.cli.segment_pairs import PromptedImage, image_files, pair_prompts
from napari_medgs.cli.segment_warnings import FILLED, common_names, warn_of_gaps
from napari_medgs.errors import Cancelled, FileError, LabelError, MedGSError, ParameterError
from napari_medgs.segmentation.params import SegmentParams

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medgs._util.progress import StopCallback
    from napari_medgs.cli.explain import Explain
    from napari_medgs.data.volume import Volume
    from napari_medgs.learning import Segmenter, SegmenterResult
    from napari_medgs.segmentation import SegmentResult

NO_PLACES = PlacePrompts()


@dataclass(frozen=True)
class SegmentJob:
    """Settings of a run and what is done with each image.

    Attributes
    ----------
    params : SegmentParams
    prompting : Prompting
    reading : Reading
    backend : str
        Rendering engine of fits.
    reporter : Reporter
    debug : bool
        Raise what fails of one image among many.
    resample : bool
        Bring masks of other grids onto the image's.
    segments : sequence of str, optional
        Names of the segments to read of masks.
    deshear : bool
        Write masks on perpendicular axes.
    """

    params: SegmentParams
    prompting: Prompting
    reading: Reading
    backend: str
    reporter: Reporter
    debug: bool
    resample: bool = False
    segments: Sequence[str] | None = None
    deshear: bool = False

    def read(self, images: list[str]) -> Volume:
        """Read contrasts."""
        from napari_medgs.io import read_volumes

        with self.reporter.doing("reading"), naming(image=images):
            return read_volumes(images, **self.reading.options, resample=self.resample)

    def segment_image(
        self,
        images: list[str],
        prompting: Prompting,
        places: PlacePrompts = NO_PLACES,
        explain: Explain | None = None,
        model: Segmenter | None = None,
        should_stop: StopCallback | None = None,
    ) -> tuple[SegmentResult, dict[str, Any], dict[int, str]]:
        """Segment one image from a scribble file, points and boxes.

        ``should_stop`` tells of a Ctrl-C where something else than this listens for it.
        """
        from napari_medgs.io import read_label_names, read_labels
        from napari_medgs.io.prior import read_prior
        from napari_medgs.io.segmented import segments_by_file
        from napari_medgs.segmentation import Prompts, explain_contrasts, segment
        from napari_medgs.segmentation.api import FIT_PARAMS, NO_BACKGROUND
        from napari_medgs.segmentation.prompts.drawn_slices import drawn_slices
        from napari_medgs.segmentation.prompts.label_check import check_label_image

        prompts, initial = prompting.prompts, prompting.initial
        field, initial_margin = prompting.field, prompting.initial_margin
        volume = self.read(images)
        if explain is not None:
            explain.check(images, volume.channel_names)
        points, boxes = places.on(volume.grid, images[0])
        onto: dict[str, Any] = {"like": volume.grid, "resample": self.resample}
        strokes = start = prior = None
        chosen = segments_by_file(self.segments, prompts, initial)
        with naming(image=images[0], prompts=prompts, initial=initial):
            if prompts is not None:
                strokes = read_labels(
                    prompts, **onto, segments=chosen[str(prompts)], outside=prompting.unlabeled
                )[0]
            if initial is not None and not self.segments:
                prior = read_prior(initial, volume.grid, resample=self.resample)
            if initial is not None and prior is None:
                start = read_labels(initial, **onto, segments=chosen[str(initial)])[0]
        for file, labels, unlabeled in (
            (prompts, strokes, prompting.unlabeled),
            (initial, start, 0),
        ):
            if labels is not None:
                with naming(mask=file):
                    check_label_image(labels, unlabeled)
        full: tuple[tuple[int, int], ...] = ()
        if strokes is not None and prompting.fully_labeled:
            with naming(mask=prompts):
                full = drawn_slices(strokes, prompting.unlabeled)
        named: dict[str, Mapping[int, str]] = {}  # by what names the classes, the last one counts
        if model is not None:
            prior, named["the model"] = self._prior_of_model(model, volume, images)
        for file in (initial, prompts):
            if file is not None and file.is_file():
                named[str(file)] = read_label_names(file)
        if prompts is not None and str(prompts) in named:
            of_strokes = named[str(prompts)]
            named[str(prompts)] = {
                v: name for v, name in of_strokes.items() if v != prompting.background_label
            }
        names = common_names(named)
        alone = strokes is None and not points and not boxes
        if alone and prior is None and initial_margin <= 1:
            raise ParameterError(
                f"{initial}: nothing would change this mask; give prompts (--point, --box, "
                "--prompts) or an --initial-margin above 1."
            )
        known = None
        if field is not None:
            known = load_field_of(volume, images[0], field, self.params.working_voxels)
        _import_in_background("sklearn.ensemble")
        files = {"image": images, "prompts": prompts, "initial": initial, "field": field}
        with (
            naming(**files),
            self._hinting(strokes is not None),
            stoppable(NOTHING) if should_stop is None else nullcontext(should_stop) as stop,
            self.reporter.progress() as progress,
        ):
            given = Prompts(
                labels=strokes,
                unlabeled=prompting.unlabeled,
                background=prompting.background_label,
                fully_labeled=full,
                points=points,
                boxes=boxes,
                initial=start,
                initial_margin=initial_margin,
                prior=prior,
            )
            if strokes is not None:
                warn_of_gaps(str(prompts), strokes, prompting.unlabeled, volume.grid, full)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=re.escape(NO_BACKGROUND))  # said below
                result = segment(
                    volume,
                    given,
                    self.params,
                    field=known,
                    fit_params=replace(
                        FIT_PARAMS,
                        backend=self.backend,
                        threads=self.params.threads,
                        seed=self.params.seed,
                    ),
                    progress=progress,
                    should_stop=stop,
                )
            metrics = self.metrics(result, self.params)
            if not result.has_background:
                print_error(f"warning: {images[0]}: {FILLED}")
            if explain is not None:
                found = explain_contrasts(
                    volume,
                    given,
                    result.field,
                    self.params,
                    full=result.labels,
                    progress=progress,
                    should_stop=stop,
                )
                metrics["contrasts"] = explain.numbers(found)
        return result, metrics, {k: name for k, name in names.items() if k in result.voxels}

    def _prior_of_model(
        self, segmenter: Segmenter, volume: Volume, images: list[str]
    ) -> tuple[NDArray[Any], dict[int, str]]:
        """Return probabilities by label value and the names of a trained segmenter."""
        with (
            naming(image=images),
            limit_threads(self.params.threads),
            stoppable(NOTHING) as should_stop,
            self.reporter.progress() as progress,
        ):
            found = segmenter.segment(
                volume, probabilities=True, progress=progress, should_stop=should_stop
            )
        return segmenter.by_value(found.probability()), segmenter.card.names

    @contextmanager
    def _hinting(self, has_strokes: bool) -> Iterator[None]:
        """Name the option where strokes lack a value that means background."""
        try:
            yield
        except LabelError as error:
            if (
                has_strokes
                and self.prompting.background_label is None
                and "background" in str(error)
            ):
                error.args = (
                    f"{error} --background-label V says which value of them does, or "
                    "--fully-labeled that the rest of the drawn slices is background.",
                )
            raise

    def metrics(self, result: SegmentResult, params: SegmentParams) -> dict[str, Any]:
        """Return what the JSON file says of a result that was made with some settings."""
        return {
            "seconds": result.seconds,
            "seconds_fit": result.seconds_fit,
            "seconds_solve": result.seconds_solve,
            "timings": result.timings,
            "voxels": {str(k): n for k, n in result.voxels.items()},
            "volume_ml": {str(k): v for k, v in result.volumes_ml.items()},
            "n_gaussians": len(result.field),
            "seed": params.seed,
            "threads": self.params.threads,
        }

    def write(
        self,
        result: SegmentResult | SegmenterResult,
        output: Path,
        names: dict[int, str],
        more: MoreOutputs | None = None,
        source: str | None = None,
    ) -> dict[str, Any]:
        """Write the mask and what else was asked for."""
        from napari_medgs.data.shear import deshear, deshear_labels
        from napari_medgs.data.volume import Volume
        from napari_medgs.io import write_image, write_labels

        labels, grid = result.labels, result.grid
        if self.deshear:
            labels, grid = deshear_labels(labels, grid)
        write_labels(output, labels, grid, names, source=source, **self.reading.chosen)
        written: dict[str, Any] = {"output": str(output)}

        def write(path: Path, data: NDArray[Any], outside: list[float]) -> None:
            volume = Volume(data, result.grid)
            volume = deshear(volume, outside) if self.deshear else volume
            try:
                write_image(path, volume.data, volume.grid)
            except FileError as error:
                done = " and ".join(written.values())
                raise FileError(f"{error} What was written before is complete: {done}.") from error

        if more is None:
            return written
        if more.probability is not None:
            every = result.probability()
            write(more.probability, every, [1.0] + [0.0] * (len(every) - 1))
            written["probability"] = str(more.probability)
        if more.uncertainty is not None:
            write(more.uncertainty, result.uncertainty()[None], [0.0])
            written["uncertainty"] = str(more.uncertainty)
        return written

    def segment_folder(self, images: list[Path], output: Path) -> dict[str, Any]:
        """Segment every image that has prompts of the same name."""
        from napari_medgs.batch.mask_outputs import check_folder_name, check_mask_outputs
        from napari_medgs.batch.segmenting import canceled
        from napari_medgs.io.folders import make_folder

        for place in images:
            if not place.is_dir():
                raise FileError(
                    f"{place}: with a folder of prompts the images must be a folder, too."
                )
        assert self.prompting.prompts is not None
        pairs = pair_prompts(self.prompting.prompts, images)
        read = [file for case in pairs for file in (case.prompts, *case.images)]
        check_mask_outputs([check_folder_name(output) / case.output for case in pairs], read)
        make_folder(output)
        cases: dict[str, Any] = {}
        with stoppable("what is finished") as should_stop:
            for number, case in enumerate(pairs):
                name = case.prompts.name
                self.reporter.note(f"{number + 1}/{len(pairs)}  {name}")
                written = sum("error" not in numbers for numbers in cases.values())
                try:
                    if should_stop():
                        raise Cancelled
                    cases[name] = self._segment_case(case, images, output, should_stop)
                except Cancelled:
                    raise Cancelled(canceled(written, len(pairs))) from None
                except MedGSError as error:
                    if self.debug:
                        raise
                    text = str(error)
                    print_error(text if name in text else f"{name}: {text}")
                    cases[name] = {"error": text}
        failed = sum("error" in numbers for numbers in cases.values())
        known = {image for case in pairs for image in case.images}
        unprompted = [file.name for file in image_files(images[0]) if file not in known]
        return {"cases": cases, "failed": failed, "without_prompts": unprompted}

    def _segment_case(
        self,
        case: PromptedImage,
        images: list[Path],
        output: Path,
        should_stop: StopCallback,
    ) -> dict[str, Any]:
        """Segment one of many images and write its mask."""
        lacking = [p for p in images if p not in {image.parent for image in case.images}]
        if lacking:
            raise FileError(f"{lacking[0]}: no image has the name of the prompts {case.prompts}.")
        result, metrics, names = self.segment_image(
            [str(image) for image in case.images],
            replace(self.prompting, prompts=case.prompts),
            should_stop=should_stop,
        )
        metrics.update(self.write(result, output / case.output, names))
        volumes = result.volumes_ml.items()
        text = ", ".join(f"{label_title(k, names)}: {rounded(ml)} ml" for k, ml in volumes)
        self.reporter.note(f"  {text}")
        return metrics


def folder_rows(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what is printed of a folder of masks."""
    rows: list[tuple[str, Any]] = [("masks", f"{len(metrics['cases']) - metrics['failed']:,}")]
    left = metrics["without_prompts"]
    if left:
        rows.append(("without prompts", listed(left)))
    return rows


def is_batch(prompts: Path) -> bool:
    """Tell a folder of scribble files from one scribble image, be that a file or frames."""
    return prompts.is_dir() and bool(image_files(prompts))


def _import_in_background(module: str) -> None:
    """Import a module in a thread, so that its import passes while the field is fitted."""

    def load() -> None:
        # The code that needs it says what to install. Modules also fail to load while the program
        # ends, as after an early failure.
        with suppress(Exception):
            import_module(module)

    Thread(target=load, name=f"import {module}").start()
