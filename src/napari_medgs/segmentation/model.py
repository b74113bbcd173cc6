"""The interactive model of an image: on what it holds, on all voxels or on blocks of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import ProgressCallback, StopCallback, ignore_progress, never_stop
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.segmentation.content import Content, find_content
from napari_medgs.segmentation.contracts import Model, Snapshot
from napari_medgs.segmentation.inner_scores import Place, SpreadScores
from napari_medgs.segmentation.large_model import LargeSegmentModel
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.prompts.same_masks import SameMasks
from napari_medgs.segmentation.result.result import SegmentResult
from napari_medgs.segmentation.result.suggest import Suggestion
from napari_medgs.segmentation.voxel_model import VoxelModel
from napari_medgs.segmentation.working_grid import working_grid


@dataclass(frozen=True)
class ModelSnapshot:
    """Prompts as they were when :meth:`SegmentModel.snapshot` was called.

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


class SegmentModel:
    """Computes masks from prompts on one image with one field, again and again.

    The box without constant margins is solved on, with one of several contrasts that are copies
    of each other; constants in it that lie far from all other intensities are brought near, and
    parts that were set to one value to the low end. Outside of the box all is background, but for
    what is drawn there. Prompts that mean the margin or such a constant (a class that is drawn
    there, no background drawn elsewhere, a mask to refine that reaches into it) are solved on the
    whole image as it is. After an update, only what it was solved on stays set up. Images with
    more voxels than ``working_voxels`` are solved on averages over blocks.

    Use it from one thread at a time. A full result depends on the prompts and settings alone,
    not on earlier updates.

    Parameters
    ----------
    volume : Volume
        One or more image channels.
    field : GaussianField
        Fitted to the volume; the geometry of its Gaussians is used, not their values.
    params : SegmentParams, optional
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Attributes
    ----------
    volume : Volume
    field : GaussianField
    last : SegmentResult or None
        Of the last update.

    Raises
    ------
    MedGSError
        For an unusable image, or a field of another grid; ``Cancelled``.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.volume import Volume
    >>> from napari_medgs.fitting import FitParams
    >>> from napari_medgs.segmentation import Prompts, SegmentModel, fit_for_segmentation
    >>> image = np.zeros((4, 12, 12), np.float32)
    >>> image[:, 3:9, 3:9] = 100
    >>> volume = Volume.from_array(image)
    >>> field = fit_for_segmentation(volume, FitParams(gaussians=60, iterations=5))
    >>> strokes = np.zeros(image.shape, int)
    >>> strokes[1, 6, 4:8], strokes[1, 1, 1:11], strokes[1, 10, 1:11] = 1, 2, 2
    >>> model = SegmentModel(volume, field)
    >>> result = model.update(Prompts(labels=strokes, background=2))
    >>> result.values, result.incremental, int(result.labels[2, 6, 6])
    ((0, 1), False, 1)
    """

    def __init__(
        self,
        volume: Volume,
        field: GaussianField,
        params: SegmentParams | None = None,
        *,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> None:
        volume = volume.prepared()
        field.check_grid(volume.grid)
        self.volume, self.field = volume, field
        self._content = find_content(volume) or Content.all_of(volume)
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
        volume, field = content.volume(self.volume), content.field(self.field)
        place = working_grid(volume.grid, self._params.working_voxels)
        if place is None:
            return VoxelModel(
                volume, field, self._params, progress=progress, should_stop=should_stop
            )
        return LargeSegmentModel(
            volume, field, place, self._params, progress=progress, should_stop=should_stop
        )

    def _model(self, whole: bool) -> Model:
        """Return the model of the box or of the whole image, set up where it is not there."""
        if whole not in self._models:
            self._models[whole] = self._made(whole)
        return self._models[whole]

    @property
    def params(self) -> SegmentParams:
        """Settings; may be replaced, new ones count from the next call on."""
        return self._params

    @params.setter
    def params(self, params: SegmentParams) -> None:
        self._params = params
        for model in self._models.values():
            model.params = params

    def snapshot(self, prompts: Prompts) -> ModelSnapshot:
        """Check prompts and rasterize them into a copy that no longer depends on them.

        Call it under the lock that guards the prompts' arrays, and :meth:`update` without it.

        Parameters
        ----------
        prompts : Prompts

        Returns
        -------
        ModelSnapshot

        Raises
        ------
        MedGSError
            When the prompts do not fit the image, or mark fewer than two classes.
        """
        prompts.check(self.volume.shape)
        content = self._content
        limits = self._params.lowest, self._params.highest
        whole = content.is_between(*limits) or not content.is_enough(prompts, self.volume)
        model = self._model(whole)
        if whole or not content.is_cropped:
            none = np.zeros(0, np.int64)
            return ModelSnapshot(model.snapshot(prompts), whole, none, none)
        flat, label = content.outside(prompts)
        inner = self._masks.in_place(prompts, content.prompts(prompts))
        return ModelSnapshot(model.snapshot(inner), whole, flat, label)

    def update(
        self,
        prompts: Prompts | ModelSnapshot,
        *,
        quick: bool = False,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> SegmentResult:
        """Compute the mask for prompts.

        Parameters
        ----------
        prompts : Prompts or ModelSnapshot
        quick : bool
            Only propagate the markers that are new since the last full update, with the terms
            fitted then: a fast result while drawing goes on, to be followed by a full update.
            Where markers were removed, or classes are new, this is a full update;
            ``incremental`` of the result tells which it was.
        progress, should_stop : callable, optional
            ``stage`` of the reports is a :class:`SegmentStage`.

        Returns
        -------
        SegmentResult
            Also kept as ``last``.

        Raises
        ------
        MedGSError
            When the prompts cannot be used, before work starts; ``Cancelled`` between stages
            once ``should_stop`` returns True, ``last`` stays.
        """
        started = time.perf_counter()
        snapshot = prompts if isinstance(prompts, ModelSnapshot) else self.snapshot(prompts)
        # What the other model knew of an earlier update is not what a quick one extends.
        quick = quick and snapshot.whole == self._whole
        model = self._model(snapshot.whole)
        found = model.update(
            snapshot.inner, quick=quick, progress=progress, should_stop=should_stop
        )
        self._whole = snapshot.whole
        self._models = {snapshot.whole: model}  # the estimate of memory is for one
        self.last = self._full(found, snapshot, started)
        return self.last

    @property
    def _place(self) -> Place:
        """The box, slice-first."""
        return tuple(self._content.box[a] for a in self.field.info.stack_axes)

    def _full(
        self, found: SegmentResult, snapshot: ModelSnapshot, started: float
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

    def contrast_weights(self, prompts: Prompts | ModelSnapshot) -> Floats | None:
        """Return how much every contrast counts for every class, as learned from prompts.

        Parameters
        ----------
        prompts : Prompts or ModelSnapshot

        Returns
        -------
        (C, K) ndarray of float32 or None
            Background first; the mean over the contrasts is 1, and a copy of another contrast,
            which is left out, has 0. None where all count alike.

        Raises
        ------
        MedGSError
            When the prompts cannot be used.
        """
        snapshot = prompts if isinstance(prompts, ModelSnapshot) else self.snapshot(prompts)
        found = self._model(snapshot.whole).contrast_weights(snapshot.inner)
        if found is None:
            return None
        weights = np.zeros((self.volume.channels, found.shape[1]), found.dtype)
        weights[list(self._content.channels)] = found
        return weights

    def preview_slice(
        self, axis: int, index: int, prompts: Prompts | ModelSnapshot
    ) -> NDArray[Any]:
        """Return the labels of one slice of the canonical grid, from the graph alone.

        Markers that are new since the last :meth:`update` are propagated with the terms fitted
        then. Without an earlier update of the same classes the whole graph is solved.

        Parameters
        ----------
        axis, index : int
            The slice.
        prompts : Prompts or ModelSnapshot

        Returns
        -------
        (rows, columns) ndarray of integers

        Raises
        ------
        MedGSError
            When the prompts cannot be used.
        """
        snapshot = prompts if isinstance(prompts, ModelSnapshot) else self.snapshot(prompts)
        if snapshot.whole or not self._content.is_cropped:
            return self._model(snapshot.whole).preview_slice(axis, index, snapshot.inner)
        box, shape = self._content.box, self.volume.shape
        rest = [a for a in range(3) if a != axis]
        most = np.min_scalar_type(max(snapshot.values))
        plane = np.zeros([shape[a] for a in rest], most)
        if box[axis].start <= index < box[axis].stop:
            model = self._model(False)
            inner = model.preview_slice(axis, index - box[axis].start, snapshot.inner)
            plane[tuple(box[a] for a in rest)] = inner
        voxels = np.unravel_index(snapshot.flat, shape)
        here = voxels[axis] == index
        plane[tuple(voxels[a][here] for a in rest)] = snapshot.label[here]
        return plane

    def suggest(self, count: int = 1, axis: int | None = None) -> list[Suggestion]:
        """Return the slices to annotate next after the last update, best first.

        Parameters
        ----------
        count : int
        axis : int, optional
            Orientation of the slices on the canonical grid; that of the markers by default.

        Returns
        -------
        list of Suggestion

        Raises
        ------
        ParameterError
            Before the first update.
        """
        found = self._models[self._whole].suggest(count, axis)
        if self._whole:
            return found
        low = [s.start for s in self._content.box]
        out = []
        for one in found:
            z, y, x = (p + s for p, s in zip(one.position, low, strict=True))
            out.append(replace(one, index=one.index + low[one.axis], position=(z, y, x)))
        return out
