"""What the Segment widget asks of the core, bound to arguments and ready for a thread. No Qt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.data.field import GaussianField
from napari_medgs.segmentation.params import SegmentParams

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume
    from napari_medgs.segmentation import SegmentModel, SegmentResult, Session, Suggestion


class TaskRunner(Protocol):
    """Runs one job at a time in a thread; see ``napari_medgs.plugin.worker.Runner``."""

    @property
    def busy(self) -> bool:
        """Whether a job is running."""

    def start(
        self,
        job: Any,
        *,
        returned: Callable[[Any], None],
        errored: Callable[[Exception], None],
        cancelled: Callable[[], None] | None = None,
        progressed: Callable[[ProgressEvent], None] | None = None,
        finished: Callable[[], None] | None = None,
    ) -> Any:
        """Start a job; the callbacks are called in the main thread."""

    def stop(self) -> None:
        """Ask the job to stop."""


@dataclass(frozen=True)
class Prepare:
    """Fit a field, or read one from a file, or take the one given; then build the model.

    Attributes
    ----------
    volume : Volume
    field : GaussianField or None
    file : Path or None
        A field file, used where there is no ``field``.
    params : SegmentParams
    """

    volume: Volume
    field: GaussianField | None
    file: Path | None
    params: SegmentParams

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> SegmentModel:
        """Return the model."""
        from napari_medgs.io.fields import load_field
        from napari_medgs.segmentation import SegmentModel
        from napari_medgs.segmentation.api import FIT_PARAMS, fit_for_segmentation

        field = self.field
        if field is None and self.file is not None and self.file.is_file():
            field = load_field(self.file)
        if field is None:
            field = fit_for_segmentation(
                self.volume,
                replace(FIT_PARAMS, threads=self.params.threads),
                progress=progress,
                should_stop=should_stop,
            )
        progress(ProgressEvent("Preparing the segmentation", 0, 0, 0.0))
        return SegmentModel(
            self.volume, field, self.params, progress=progress, should_stop=should_stop
        )


class Reader:
    """Keeps the session as it is while a thread reads it."""

    def __init__(self) -> None:
        self._lock = Lock()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold while reading or changing the session."""
        with self._lock:
            yield

    @contextmanager
    def until_read(self, progress: ProgressCallback) -> Iterator[ProgressCallback]:
        """Hold until the first report of another stage than "prompts", which read the session."""
        self._lock.acquire()
        held = [True]

        def release() -> None:
            if held:
                held.clear()
                self._lock.release()

        def report(event: ProgressEvent) -> None:
            if event.stage != "prompts":
                release()
            progress(event)

        try:
            yield report
        finally:
            release()


@dataclass(frozen=True)
class Solve:
    """Update the mask; ``quick`` follows only what is new."""

    model: SegmentModel
    session: Session
    reader: Reader
    quick: bool = False

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> SegmentResult:
        """Return the new result; the session is left alone."""
        with self.reader.until_read(progress) as report:
            self.model.params = self.session.settings.params
            return self.model.update(
                self.session.prompts(),
                quick=self.quick,
                progress=report,
                should_stop=should_stop,
            )


@dataclass(frozen=True)
class Plane:
    """The labels of one slice of the canonical grid."""

    axis: int
    index: int
    labels: NDArray[Any]

    @property
    def box(self) -> tuple[slice, ...]:
        """The slice as a box."""
        box = [slice(None)] * 3
        box[self.axis] = slice(self.index, self.index + 1)
        return tuple(box)


@dataclass(frozen=True)
class Preview:
    """Look at one slice at once, under what the last full solve learned."""

    model: SegmentModel
    session: Session
    reader: Reader
    axis: int
    index: int

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> Plane | None:
        """Return the slice, or None where it would take as long as a solve."""
        with self.reader.hold():
            prompts = self.session.prompts()
            last = self.model.last
            if last is None or self.model.snapshot(prompts).values != last.values:
                return None
            labels = self.model.preview_slice(self.axis, self.index, prompts)
            locked = sorted(prompts.locked)
            if locked and prompts.result is not None:
                frozen = np.take(prompts.result, self.index, axis=self.axis)
                labels = np.where(np.isin(labels, locked), 0, labels)
                labels = np.where(frozen > 0, frozen, labels)
        return Plane(self.axis, self.index, labels)


@dataclass(frozen=True)
class Suggest:
    """Find where one more stroke helps most."""

    model: SegmentModel
    axis: int | None

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> Suggestion | None:
        """Return the best slice, or None where all is certain."""
        found = self.model.suggest(1, self.axis)
        return found[0] if found else None


@dataclass(frozen=True)
class Maps:
    """Uncertainty and the probability of one class, as far as asked for."""

    result: SegmentResult
    uncertainty: bool
    label: int | None

    def __call__(
        self, progress: ProgressCallback, should_stop: StopCallback
    ) -> dict[str, NDArray[np.float32]]:
        """Return the maps on the canonical grid under their names."""
        maps: dict[str, NDArray[np.float32]] = {}
        if self.uncertainty:
            maps["uncertainty"] = self.result.uncertainty()
        if self.label is not None and self.label in self.result.values:
            k = self.result.values.index(self.label)
            maps["probability"] = self.result.probability()[k].copy()
        return maps
