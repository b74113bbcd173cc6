"""Segmentation of large images: solved on coarser voxels, with borders at full resolution."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import ProgressCallback, StopCallback, ignore_progress, never_stop
from napari_medgs._util.threads import limit_threads, run_chunks
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.segmentation.inner_scores import StretchedScores
from napari_medgs.segmentation.local import bounds, box_around
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.postprocess.class_edits import clear_outside_range
from napari_medgs.segmentation.postprocess.upsampling import upsample_labels
from napari_medgs.segmentation.prompts.prompts import Prompts, most_likely
from napari_medgs.segmentation.prompts.same_masks import SameMasks
from napari_medgs.segmentation.result.result import SegmentResult
from napari_medgs.segmentation.result.suggest import Suggestion
from napari_medgs.segmentation.snapshots import PromptSnapshot
from napari_medgs.segmentation.voxel_model import VoxelModel
from napari_medgs.segmentation.working_grid import WorkingGrid


@dataclass(frozen=True)
class LargeSnapshot:
    """Prompts as they were when :meth:`LargeSegmentModel.snapshot` was called.

    Attributes
    ----------
    coarse : PromptSnapshot
        On the working grid.
    flat, label : (P,) ndarray of int64
        What is drawn on the full grid: flat indices, and labels.
    initial : (Z, Y, X) ndarray, optional
        The mask to refine; not copied.
    coarse_initial : (z, y, x) ndarray, optional
        It on the working grid.
    locked : dict of int to (Z, Y, X) ndarray of bool
        Voxels of every locked class by its label.
    boxes : dict of int to list of (start, stop)
        By label.
    """

    coarse: PromptSnapshot
    flat: NDArray[np.int64]
    label: NDArray[np.int64]
    initial: NDArray[Any] | None
    coarse_initial: NDArray[Any] | None
    locked: dict[int, NDArray[np.bool_]]
    boxes: dict[int, list[tuple[tuple[int, int, int], tuple[int, int, int]]]]

    @property
    def values(self) -> tuple[int, ...]:
        """Label value of every class, background (0) first."""
        return self.coarse.values


class LargeSegmentModel:
    """A :class:`SegmentModel` for images with too many voxels to solve on all of them.

    The image's averages over blocks of voxels are segmented; the labels come back to full
    resolution by joint bilateral upsampling, so that borders follow the image's edges. What is
    drawn, locked classes, boxes, the range of intensities, and an initial mask where nothing
    changed count at full resolution.

    Parameters
    ----------
    volume : Volume
        Finite; see :meth:`~napari_medgs.data.volume.Volume.prepared`.
    field : GaussianField
        On the volume's grid.
    place : WorkingGrid
    params : SegmentParams, optional
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

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
        place: WorkingGrid,
        params: SegmentParams | None = None,
        *,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> None:
        field.check_grid(volume.grid)
        self.volume, self.field, self._place = volume, field, place
        self._params = params or SegmentParams()
        with limit_threads(self._params.threads):
            coarse = place.image(volume)
        self._coarse = VoxelModel(
            coarse,
            field.on_grid(coarse.grid),
            without_range(self._params),
            progress=progress,
            should_stop=should_stop,
        )
        self.last: SegmentResult | None = None
        self._masks = SameMasks()
        self._known: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
        self._spare: NDArray[np.uint8] | None = None

    @property
    def params(self) -> SegmentParams:
        """Settings; may be replaced, new ones count from the next call on."""
        return self._params

    @params.setter
    def params(self, params: SegmentParams) -> None:
        self._params, self._coarse.params = params, without_range(params)

    def snapshot(self, prompts: Prompts) -> LargeSnapshot:
        """Check prompts and copy them; see :meth:`SegmentModel.snapshot`."""
        prompts.check(self.volume.shape)
        place, masks = self._place, self._masks
        coarse, flat, label = place.prompts(replace(prompts, initial=None, prior=None))
        coarse = replace(
            coarse,
            initial=masks.of("initial", prompts.initial, place.sampled),
            prior=masks.of("prior", prompts.prior, place.sampled),
        )
        likely = masks.of("likely", prompts.prior, most_likely)
        initial = prompts.initial if likely is None else likely
        boxes: dict[int, list[Any]] = {}
        for box in prompts.boxes:
            boxes.setdefault(box.label, []).append((box.start, box.stop))
        locked = {}
        if prompts.result is not None:
            locked = {value: prompts.result == value for value in sorted(prompts.locked)}
        return LargeSnapshot(
            self._coarse.snapshot(coarse),
            flat,
            label,
            initial,
            masks.of("coarse", initial, place.sampled),
            locked,
            boxes,
        )

    def update(
        self,
        prompts: Prompts | LargeSnapshot,
        *,
        quick: bool = False,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> SegmentResult:
        """Compute the mask for prompts; see :meth:`SegmentModel.update`."""
        started = time.perf_counter()
        with limit_threads(self._params.threads):
            snapshot = prompts if isinstance(prompts, LargeSnapshot) else self.snapshot(prompts)
            coarse = self._coarse.update(
                snapshot.coarse, quick=quick, progress=progress, should_stop=should_stop
            )
            self.last = self._full(coarse, snapshot, started)
        return self.last

    def _full(
        self, coarse: SegmentResult, snapshot: LargeSnapshot, started: float
    ) -> SegmentResult:
        """Bring a result to full resolution."""
        place, axis = self._place, coarse.slice_axis
        values = np.asarray(coarse.values)
        blocks = np.ascontiguousarray(np.moveaxis(coarse._indices, 0, axis))
        means, image = self._coarse.volume.data, self.volume.data
        known, self._known = self._known, None  # nothing is known after an error
        upsampled = upsample_labels(blocks, means, image, place.factors, known=known)
        self._known = blocks.copy(), upsampled  # the solver may go on with its labels
        labels, self._spare = _copied(upsampled, self._spare), None
        if self.last is None:
            # The system hands out memory page by page at its first use, which takes longer than
            # copying. The first answer may wait for the next one's, a quick update must not.
            self._spare = _copied(upsampled)
        if snapshot.initial is not None and snapshot.coarse_initial is not None:
            self._keep_initial(labels, coarse.labels, snapshot, values)
        channel = self.volume.channel(0)
        clear_outside_range(labels, channel, self._params.lowest, self._params.highest)
        classes = np.searchsorted(values, snapshot.label)
        labels.reshape(-1)[snapshot.flat] = classes
        locked = {int(np.searchsorted(values, v)): m for v, m in snapshot.locked.items()}
        for value, boxes in snapshot.boxes.items():
            _hold(labels, int(np.searchsorted(values, value)), boxes)
        for k, mask in locked.items():
            labels[(labels == k) & ~mask] = 0
            labels[mask] = k
        stack = np.moveaxis(labels, axis, 0)
        return SegmentResult.of_classes(
            stack,
            coarse.values,
            self.volume.grid,
            self.field,
            StretchedScores(coarse, place, snapshot.flat, classes, locked),
            started,
            timings=coarse.timings,
            incremental=coarse.incremental,
            has_background=coarse.has_background,
        )

    def _keep_initial(
        self,
        labels: NDArray[np.uint8],
        solved: NDArray[Any],
        snapshot: LargeSnapshot,
        values: NDArray[Any],
    ) -> None:
        """Write an initial mask back where the solve left it as it was, in place."""
        initial, factors = snapshot.initial, self._place.factors
        assert initial is not None
        changed = _around(solved != snapshot.coarse_initial)
        _, height, width = initial.shape

        def keep(z: int) -> None:
            plane, block = initial[z], changed[z // factors[0]]
            place = np.minimum(np.searchsorted(values, plane), len(values) - 1)
            # Labels that the initial mask alone has have markers, and so a class.
            same = values[place] == plane
            if block.any():
                rows = np.repeat(block, factors[1], axis=0)[:height]
                same &= ~np.repeat(rows, factors[2], axis=1)[:, :width]
            np.copyto(labels[z], place, where=same, casting="unsafe")

        run_chunks(keep, len(initial))

    def contrast_weights(self, prompts: Prompts | LargeSnapshot) -> Floats | None:
        """Return how much every contrast counts; see :meth:`SegmentModel.contrast_weights`."""
        snapshot = prompts if isinstance(prompts, LargeSnapshot) else self.snapshot(prompts)
        return self._coarse.contrast_weights(snapshot.coarse)

    def preview_slice(
        self, axis: int, index: int, prompts: Prompts | LargeSnapshot
    ) -> NDArray[Any]:
        """Return the labels of one slice; see :meth:`SegmentModel.preview_slice`."""
        snapshot = prompts if isinstance(prompts, LargeSnapshot) else self.snapshot(prompts)
        place = self._place
        plane = self._coarse.preview_slice(axis, index // place.factors[axis], snapshot.coarse)
        rest = [a for a in range(3) if a != axis]
        for k, a in enumerate(rest):
            at = np.arange(place.full.shape[a]) // place.factors[a]
            plane = np.take(plane, at, axis=k)
        voxels = np.unravel_index(snapshot.flat, place.full.shape)
        here = voxels[axis] == index
        plane[tuple(voxels[a][here] for a in rest)] = snapshot.label[here]
        return plane

    def suggest(self, count: int = 1, axis: int | None = None) -> list[Suggestion]:
        """Return the slices to annotate next; see :meth:`SegmentModel.suggest`."""
        out = []
        for found in self._coarse.suggest(count, axis):
            z, y, x = (
                min(p * f + f // 2, n - 1)
                for p, f, n in zip(
                    found.position, self._place.factors, self._place.full.shape, strict=True
                )
            )
            out.append(replace(found, index=(z, y, x)[found.axis], position=(z, y, x)))
        return out


def _copied(labels: NDArray[np.uint8], into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Return a copy, made slice by slice in all threads; in a given array, if any."""
    out = np.empty_like(labels) if into is None else into

    def copy(z: int) -> None:
        out[z] = labels[z]

    run_chunks(copy, len(labels))
    return out


def _around(where: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return voxels and their neighbors, found in the smallest box that holds them."""
    from scipy.ndimage import binary_dilation

    box, out = bounds(where), np.zeros(where.shape, np.bool_)
    if box is not None:
        low = np.array([s.start for s in box])
        wide = box_around(low, np.array([s.stop for s in box]), np.ones(3), where.shape)
        out[wide] = binary_dilation(where[wide], np.ones((3, 3, 3), np.bool_))
    return out


def without_range(params: SegmentParams) -> SegmentParams:
    """Return settings without the range of intensities, which counts for single voxels."""
    return replace(params, lowest=None, highest=None)


def _hold(labels: NDArray[np.uint8], k: int, boxes: list[Any]) -> None:
    """Make a class background outside of its boxes, in place."""
    mine = labels == k
    for start, stop in boxes:
        mine[tuple(slice(max(a, 0), b) for a, b in zip(start, stop, strict=True))] = False
    labels[mine] = 0
