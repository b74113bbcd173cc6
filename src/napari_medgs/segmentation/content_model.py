"""Segmentation of what an image holds: constants outside of it and copies do not count."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, StopCallback, ignore_progress, never_stop
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.segmentation.content import Content
from napari_medgs.segmentation.contracts import Model, Snapshot
from napari_medgs.segmentation.inner_scores import Place, SpreadScores
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.prompts.same_masks import SameMasks
from napari_medgs.segmentation.result.result import SegmentResult
from napari_medgs.segmentation.result.suggest import Suggestion

MakeModel = Callable[..., Model]


@dataclass(frozen=True)
class ContentSnapshot:
    """Prompts as they were when :meth:`ContentModel.snapshot` was called.

    Attributes
    ----------
    inner : Snapshot
        On the grid that is solved on.
    whole : bool
        Whether that is the image's own.
    flat, label : (P,) ndarray of int64
        What is drawn outside of the box: flat indices, and labels.
    """

    inner: Snapshot
    whole: bool
    flat: NDArray[np.int64]
    label: NDArray[np.int64]

    @property
    def values(self) -> tuple[int, ...]:
        """Label value of every class, background (0) first."""
        return self.inner.values


class ContentModel:
    """A :class:`SegmentModel` of what an image holds, with results on all of it.

    The box without constant margins is solved on, with one of several contrasts that are copies
    of each other; constants in it that lie far from all other intensities are brought near.
    Outside of it all is background, but for what is drawn there. Prompts that mean the margin or
    such a constant (a class that is drawn there, no background drawn elsewhere, a mask to refine
    that reaches into it) are solved on the whole image as it is.

    Parameters
    ----------
    volume : Volume
        Finite.
    field : GaussianField
        On the volume's grid.
    content : Content
    make : callable
        (volume, field, params, *, progress, should_stop) -> Model.
    params : SegmentParams, optional
    progress, should_stop : callable, optional

    Attributes
    ----------
    volume : Volume
    field : GaussianField
    last : SegmentResult or None
    """

    def __init__(
        self,
        volume: Volume,
        field: GaussianField,
        content: Content,
        make: MakeModel,
        params: SegmentParams | None = None,
        *,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> None:
        field.check_grid(volume.grid)
        self.volume, self.field, self._content, self._make = volume, field, content, make
        self._params = params or SegmentParams()
        self._models = {False: self._made(False, progress, should_stop)}
        self._whole = False  # the last update
        self.last: SegmentResult | None = None
        self._masks = SameMasks()

    def _made(
        self,
        whole: bool,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> Model:
        content = self._content.whole if whole else self._content
        return self._make(
            content.volume(self.volume),
            content.field(self.field),
            self._params,
            progress=progress,
            should_stop=should_stop,
        )

    @property
    def params(self) -> SegmentParams:
        """Settings; may be replaced, new ones count from the next call on."""
        return self._params

    @params.setter
    def params(self, params: SegmentParams) -> None:
        self._params = params
        for model in self._models.values():
            model.params = params

    def snapshot(self, prompts: Prompts) -> ContentSnapshot:
        """Check prompts and copy them; see :meth:`SegmentModel.snapshot`."""
        prompts.check(self.volume.shape)
        content = self._content
        whole = content.clips[0].between(
            self._params.lowest, self._params.highest
        ) or not content.is_enough(prompts, self.volume)
        if whole not in self._models:
            self._models[whole] = self._made(whole)
        model = self._models[whole]
        if whole or not content.is_cropped:
            none = np.zeros(0, np.int64)
            return ContentSnapshot(model.snapshot(prompts), whole, none, none)
        flat, label = content.outside(prompts)
        inner = self._masks.in_place(prompts, content.prompts(prompts))
        return ContentSnapshot(model.snapshot(inner), whole, flat, label)

    def update(
        self,
        prompts: Prompts | ContentSnapshot,
        *,
        quick: bool = False,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> SegmentResult:
        """Compute the mask for prompts; see :meth:`SegmentModel.update`."""
        started = time.perf_counter()
        snapshot = prompts if isinstance(prompts, ContentSnapshot) else self.snapshot(prompts)
        # What the other model knew of an earlier update is not what a quick one extends.
        quick = quick and snapshot.whole == self._whole
        found = self._models[snapshot.whole].update(
            snapshot.inner, quick=quick, progress=progress, should_stop=should_stop
        )
        self._whole = snapshot.whole
        self.last = self._full(found, snapshot, started)
        return self.last

    @property
    def _place(self) -> Place:
        """The box, slice-first."""
        return tuple(self._content.box[a] for a in self.field.info.stack_axes)

    def _full(
        self, found: SegmentResult, snapshot: ContentSnapshot, started: float
    ) -> SegmentResult:
        """Return a result of the box as one of the whole image."""
        if snapshot.whole or not self._content.is_cropped:
            return replace(found, field=self.field)
        axis, place = found.slice_axis, self._place
        labels = np.zeros(self.field.info.stack_shape, np.uint8)
        labels[place] = found._indices
        drawn = list(np.unravel_index(snapshot.flat, self.volume.shape))
        drawn.insert(0, drawn.pop(axis))
        labels[tuple(drawn)] = np.searchsorted(found.values, snapshot.label)
        return SegmentResult.of_classes(
            labels,
            found.values,
            self.volume.grid,
            self.field,
            SpreadScores(found, place),
            started,
            timings=found.timings,
            incremental=found.incremental,
            has_background=found.has_background,
        )

    def preview_slice(
        self, axis: int, index: int, prompts: Prompts | ContentSnapshot
    ) -> NDArray[Any]:
        """Return the labels of one slice; see :meth:`SegmentModel.preview_slice`."""
        snapshot = prompts if isinstance(prompts, ContentSnapshot) else self.snapshot(prompts)
        if snapshot.whole or not self._content.is_cropped:
            return self._models[snapshot.whole].preview_slice(axis, index, snapshot.inner)
        box, shape = self._content.box, self.volume.shape
        rest = [a for a in range(3) if a != axis]
        most = np.min_scalar_type(max(snapshot.values))
        plane = np.zeros([shape[a] for a in rest], most)
        if box[axis].start <= index < box[axis].stop:
            model = self._models[False]
            inner = model.preview_slice(axis, index - box[axis].start, snapshot.inner)
            plane[tuple(box[a] for a in rest)] = inner
        voxels = np.unravel_index(snapshot.flat, shape)
        here = voxels[axis] == index
        plane[tuple(voxels[a][here] for a in rest)] = snapshot.label[here]
        return plane

    def suggest(self, count: int = 1, axis: int | None = None) -> list[Suggestion]:
        """Return the slices to annotate next; see :meth:`SegmentModel.suggest`."""
        found = self._models[self._whole].suggest(count, axis)
        if self._whole:
            return found
        low = [s.start for s in self._content.box]
        out = []
        for one in found:
            z, y, x = (p + s for p, s in zip(one.position, low, strict=True))
            out.append(replace(one, index=one.index + low[one.axis], position=(z, y, x)))
        return out
