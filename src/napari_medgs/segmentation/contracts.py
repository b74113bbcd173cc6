"""What a model of one image offers that turns prompts into masks."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.result.result import SegmentResult
from napari_medgs.segmentation.result.suggest import Suggestion


class Snapshot(Protocol):
    """Prompts as they were at one time."""

    @property
    def values(self) -> tuple[int, ...]:
        """Label value of every class, background (0) first."""
        ...


class Model(Protocol):
    """A model that computes masks from prompts on one image, again and again.

    :class:`~napari_medgs.segmentation.model.SegmentModel` says what the methods do.
    """

    field: GaussianField
    last: SegmentResult | None

    @property
    def volume(self) -> Volume:
        """The image."""
        ...

    @property
    def params(self) -> SegmentParams:
        """Settings; may be replaced."""
        ...

    @params.setter
    def params(self, params: SegmentParams) -> None: ...

    def snapshot(self, prompts: Prompts) -> Snapshot:
        """Check prompts and copy them."""
        ...

    def update(
        self,
        prompts: Any,
        *,
        quick: bool = False,
        progress: ProgressCallback = ...,
        should_stop: StopCallback = ...,
    ) -> SegmentResult:
        """Compute the mask for prompts, or for a snapshot of the same model."""
        ...

    def contrast_weights(self, prompts: Any) -> Floats | None:
        """Return how much every contrast counts for every class, as learned from prompts."""
        ...

    def preview_slice(self, axis: int, index: int, prompts: Any) -> NDArray[Any]:
        """Return the labels of one slice from the graph alone."""
        ...

    def suggest(self, count: int = 1, axis: int | None = None) -> list[Suggestion]:
        """Return the slices to annotate next, best first."""
        ...
