"""What the Segment widget asks of the core, bound to arguments and ready for a thread. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.data.field import GaussianField
from napari_medgs.segmentation.params import SegmentParams

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume
    from napari_medgs.segmentation import SegmentModel, SegmentResult, Session, Suggestion

Box = tuple[slice, ...]


@dataclass(frozen=True)
class PrepareModel:
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


@dataclass(frozen=True)
class SolveMask:
    """Compute the mask of all prompts so far.

    Attributes
    ----------
    model : SegmentModel
    session : Session
        Left as it is.
    lock : threading.Lock
        Held while the session is read or changed. The solve itself does not need it.
    threads : int or None
    incremental : bool
        Extend the last full solve by what is new, where that is possible.
    """

    model: SegmentModel
    session: Session
    lock: Lock
    threads: int | None
    incremental: bool = False

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> SegmentResult:
        """Return the result."""
        with self.lock:
            params = replace(self.session.settings.params, threads=self.threads)
            self.model.params = params
            snapshot = self.model.snapshot(self.session.prompts())
        return self.model.update(
            snapshot, quick=self.incremental, progress=progress, should_stop=should_stop
        )


@dataclass(frozen=True)
class LabelSlice:
    """The labels of one slice of the canonical grid.

    Attributes
    ----------
    axis, index : int
    labels : 2D ndarray
    """

    axis: int
    index: int
    labels: NDArray[Any]

    @property
    def box(self) -> Box:
        """The slice as a box."""
        box = [slice(None)] * 3
        box[self.axis] = slice(self.index, self.index + 1)
        return tuple(box)


@dataclass(frozen=True)
class PreviewSlice:
    """Compute one slice ahead of the rest, with what the last full solve learned."""

    model: SegmentModel
    session: Session
    lock: Lock
    axis: int
    index: int

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> LabelSlice | None:
        """Return the slice, or None where it would take as long as a solve."""
        frozen = None
        with self.lock:
            prompts = self.session.prompts()
            last, snapshot = self.model.last, self.model.snapshot(prompts)
            if last is None or snapshot.values != last.values:
                return None
            locked = sorted(prompts.locked)
            if locked and prompts.result is not None:
                frozen = np.take(prompts.result, self.index, axis=self.axis)
        labels = self.model.preview_slice(self.axis, self.index, snapshot)
        if frozen is not None:
            labels = np.where(np.isin(labels, locked), 0, labels)
            labels = np.where(frozen > 0, frozen, labels)
        return LabelSlice(self.axis, self.index, labels)


@dataclass(frozen=True)
class SuggestSlice:
    """Find where one more stroke helps most.

    Attributes
    ----------
    model : SegmentModel
    axis : int or None
        Normal of the slices to choose from; all three axes by default.
    """

    model: SegmentModel
    axis: int | None

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> Suggestion | None:
        """Return the best slice, or None where all is certain."""
        found = self.model.suggest(1, self.axis)
        return found[0] if found else None


@dataclass(frozen=True)
class ComputeMaps:
    """Compute the uncertainty and the probability of one class, as far as asked for.

    Attributes
    ----------
    result : SegmentResult
    uncertainty : bool
    label : int or None
        Value of the class whose probability is wanted.
    """

    result: SegmentResult
    uncertainty: bool
    label: int | None

    def __call__(
        self, progress: ProgressCallback, should_stop: StopCallback
    ) -> dict[str, NDArray[np.float32]]:
        """Return the maps on the canonical grid, by name."""
        maps: dict[str, NDArray[np.float32]] = {}
        if self.uncertainty:
            maps["uncertainty"] = self.result.uncertainty()
        if self.label is not None and self.label in self.result.values:
            k = self.result.values.index(self.label)
            maps["probability"] = self.result.probability()[k].copy()
        return maps


@dataclass(frozen=True)
class FindEdits:
    """Find where two label arrays differ, slice by slice, so that the GUI thread need not.

    Painting may go on meanwhile: the box tells where to look, not what is there.

    Attributes
    ----------
    shown, known : (Z, Y, X) ndarray
    """

    shown: NDArray[Any]
    known: NDArray[Any]

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> Box | None:
        """Return the bounding box of all differences, or None where there are none."""
        low, high = np.array(self.shown.shape), np.zeros(3, np.int64)
        for z, (shown, known) in enumerate(zip(self.shown, self.known, strict=True)):
            if should_stop():
                return None
            rows, columns = np.nonzero(shown != known)
            if len(rows):
                low = np.minimum(low, (z, rows.min(), columns.min()))
                high = np.maximum(high, (z + 1, rows.max() + 1, columns.max() + 1))
        if not high.any():
            return None
        return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
