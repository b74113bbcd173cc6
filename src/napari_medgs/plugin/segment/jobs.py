"""What the Segment widget asks of the core, bound to arguments and ready for a thread. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.data.field import GaussianField

if TYPE_CHECKING:
    from napari_medgs.segmentation import InteractiveSegmenter, SegmentResult, Suggestion

Box = tuple[slice, ...]


@dataclass(frozen=True)
class PrepareSegmenter:
    """Fit a field, or read one from a file, or take the one given; then build the solver.

    Attributes
    ----------
    segmenter : InteractiveSegmenter
    field : GaussianField or None
    file : Path or None
        A field file, used where there is no ``field``.
    """

    segmenter: InteractiveSegmenter
    field: GaussianField | None
    file: Path | None

    def __call__(
        self, progress: ProgressCallback, should_stop: StopCallback
    ) -> InteractiveSegmenter:
        """Return the segmenter, prepared."""
        from napari_medgs.io.fields import load_field

        field = self.field
        if field is None and self.file is not None and self.file.is_file():
            field = load_field(self.file)
        if field is not None:
            self.segmenter.set_field(field)
        self.segmenter.prepare(progress=progress, should_stop=should_stop)
        return self.segmenter


@dataclass(frozen=True)
class ProvisionalMask:
    """A mask of one class whose background is inferred.

    Attributes
    ----------
    labels : (Z, Y, X) ndarray of int
    """

    labels: NDArray[Any]


@dataclass(frozen=True)
class SolveMask:
    """Compute the mask of all prompts so far; the segmenter's own mask is left as it is.

    Where they mark one class alone, it is provisional: the part of the image that they mean.

    Attributes
    ----------
    segmenter : InteractiveSegmenter
    incremental : bool
        Extend the last full solve by what is new, where that is possible.
    """

    segmenter: InteractiveSegmenter
    incremental: bool = False

    def __call__(
        self, progress: ProgressCallback, should_stop: StopCallback
    ) -> SegmentResult | ProvisionalMask:
        """Return the result."""
        labels = self.segmenter.parts.inferred(progress=progress, should_stop=should_stop)
        if labels is not None:
            return ProvisionalMask(labels)
        return self.segmenter.update(
            quick=self.incremental, progress=progress, should_stop=should_stop
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

    segmenter: InteractiveSegmenter
    axis: int
    index: int

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> LabelSlice | None:
        """Return the slice, or None where it would take as long as a solve."""
        labels = self.segmenter.preview_slice(self.axis, self.index)
        return None if labels is None else LabelSlice(self.axis, self.index, labels)


@dataclass(frozen=True)
class SuggestSlice:
    """Find where one more stroke helps most.

    Attributes
    ----------
    segmenter : InteractiveSegmenter
    axis : int or None
        Normal of the slices to choose from; all three axes by default.
    """

    segmenter: InteractiveSegmenter
    axis: int | None

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> Suggestion | None:
        """Return the best slice, or None where all is certain."""
        found = self.segmenter.suggest(1, self.axis, update=False)
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
