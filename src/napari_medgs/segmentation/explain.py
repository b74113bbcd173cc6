"""Which contrast drives which class of a segmentation from prompts; no truth is needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled, ParameterError
from napari_medgs.metrics.contrasts import contrast_subsets, label_agreement, shapley_values
from napari_medgs.segmentation.content import find_content, without_copies
from napari_medgs.segmentation.large_model import without_range
from napari_medgs.segmentation.memory import check_memory
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.snapshots import PromptSnapshot
from napari_medgs.segmentation.voxel_model import VoxelModel
from napari_medgs.segmentation.working_grid import working_grid


@dataclass(frozen=True)
class ContrastExplanation:
    """What every contrast contributes to every class.

    Attributes
    ----------
    contrasts : tuple of str
        Names, in the image's order.
    classes : tuple of int
        Label values, the background left out.
    shapley : (contrasts, classes) ndarray of float64
        Shapley values of the Dice between the answer from some contrasts and that from all.
    alone : (contrasts, classes) ndarray of float64
        This Dice for every contrast alone.
    without_image : (classes,) ndarray of float64
        This Dice for no contrast at all.
    weights : (contrasts, classes) ndarray of float32, optional
        How much every contrast counted for every class, as learned from the prompts; the mean
        over the contrasts is 1. None where all counted alike.
    """

    contrasts: tuple[str, ...]
    classes: tuple[int, ...]
    shapley: NDArray[np.float64]
    alone: NDArray[np.float64]
    without_image: NDArray[np.float64]
    weights: Floats | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON-able values, by class and contrast."""

        def by_contrast(values: NDArray[Any]) -> dict[str, float]:
            return dict(zip(self.contrasts, values.tolist(), strict=True))

        numbers: dict[str, Any] = {}
        for k, value in enumerate(self.classes):
            numbers[str(value)] = {
                "shapley": by_contrast(self.shapley[:, k]),
                "alone": by_contrast(self.alone[:, k]),
                "without_image": float(self.without_image[k]),
            }
            if self.weights is not None:
                numbers[str(value)]["weights"] = by_contrast(self.weights[:, k])
        return numbers


def check_explainable(count: int) -> list[tuple[int, ...]]:
    """Return the subsets of so many contrasts.

    Raises
    ------
    ParameterError
        When there are fewer than two contrasts, or more than ten.
    """
    if count < 2:
        raise ParameterError(
            "The image has one contrast: contributions are those of several contrasts of a case."
        )
    return contrast_subsets(count)


def explain_answers(
    answer: Callable[[tuple[int, ...]], NDArray[Any]],
    contrasts: tuple[str, ...],
    classes: tuple[int, ...],
    full: NDArray[Any] | None = None,
    *,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> ContrastExplanation:
    """Explain any method that gives a mask from some of the contrasts.

    Parameters
    ----------
    answer : callable
        Takes increasing indices of the contrasts that may be used (none of them, too) and returns
        a label image.
    contrasts : tuple of str
    classes : tuple of int
        Label values, the background left out.
    full : integer ndarray, optional
        The answer from all contrasts, where it is known already.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    ContrastExplanation

    Raises
    ------
    ParameterError
        When there are fewer than two contrasts, or more than ten.
    Cancelled

    Examples
    --------
    >>> import numpy as np
    >>> def answer(subset):  # only the first contrast shows the lesion
    ...     return np.array([0, 1, 1, 0]) * (0 in subset)
    >>> explain_answers(answer, ("flair", "t1"), (1,)).shapley.tolist()
    [[1.0], [0.0]]
    """
    count = len(contrasts)
    subsets = check_explainable(count)
    everything = subsets[-1]
    started = time.perf_counter()
    reference = answer(everything) if full is None else full
    agreement: dict[tuple[int, ...], NDArray[np.float64]] = {}

    def value(subset: tuple[int, ...]) -> NDArray[np.float64]:
        if should_stop():
            raise Cancelled("The contributions of the contrasts were canceled.")
        seconds = time.perf_counter() - started
        progress(ProgressEvent("contrasts", len(agreement), len(subsets), seconds))
        labels = reference if subset == everything else answer(subset)
        agreement[subset] = label_agreement(labels, reference, classes)
        return agreement[subset]

    shapley = shapley_values(value, count)
    alone = np.stack([agreement[(contrast,)] for contrast in range(count)])
    return ContrastExplanation(contrasts, classes, shapley, alone, agreement[()])


def explain_contrasts(
    volume: Volume,
    prompts: Prompts,
    field: GaussianField,
    params: SegmentParams | None = None,
    *,
    full: NDArray[Any] | None = None,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> ContrastExplanation:
    """Return what every contrast contributes to a segmentation from prompts.

    The segmentation is solved for every subset of the contrasts, on the same Gaussians; without
    any contrast a voxel has the class of the nearest prompt. The value of a subset is the Dice of
    its answer with the answer from all contrasts, per class. Constant margins are left out,
    constants that lie far from all other intensities brought near, and large images solved on
    blocks of voxels, as in :func:`segment`. A range of intensities that the settings give is
    left out: it says nothing of the other contrasts.

    Parameters
    ----------
    volume : Volume
        Two to ten channels.
    prompts : Prompts
    field : GaussianField
        Fitted to the volume.
    params : SegmentParams, optional
    full : (Z, Y, X) integer ndarray, optional
        The labels from all contrasts, where they are known already.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    ContrastExplanation

    Raises
    ------
    MedGSError
        For unusable images and prompts, and other numbers of contrasts; ``Cancelled``.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.volume import Volume
    >>> from napari_medgs.fitting import FitParams
    >>> from napari_medgs.segmentation import Prompts, explain_contrasts, fit_for_segmentation
    >>> image = np.random.default_rng(0).normal(size=(2, 4, 12, 12)).astype(np.float32)
    >>> image[0, :, 3:9, 3:9] += 100  # the other contrast is noise
    >>> volume = Volume.from_array(image)
    >>> field = fit_for_segmentation(volume, FitParams(gaussians=60, iterations=5))
    >>> strokes = np.zeros(image.shape[1:], int)
    >>> strokes[1, 6, 4:8], strokes[1, 1, 1:11], strokes[1, 10, 1:11] = 1, 2, 2
    >>> found = explain_contrasts(volume, Prompts(labels=strokes, background=2), field)
    >>> found.shapley.shape, bool(found.shapley[0, 0] > found.shapley[1, 0])
    ((2, 1), True)
    """
    check_explainable(volume.channels)
    volume = volume.prepared()
    prompts.check(volume.shape)
    params = params or SegmentParams()
    solver_params = without_range(params)
    if solver_params != params:
        full = None
    content = find_content(volume)
    if content is not None and content.is_enough(prompts, volume):
        full = None if full is None else full[content.box]
        field, prompts = content.field(field), content.prompts(prompts)
        volume = content.volume(volume, every_channel=True)
    check_memory(volume, params, field=field)
    place = working_grid(volume.grid, params.working_voxels)
    if place is not None:
        full = None  # its borders follow all contrasts
        field, prompts = field.on_grid(place.grid), place.prompts(prompts)[0]
        volume = place.image(volume)

    def model_of(subset: Sequence[int]) -> VoxelModel:
        # A segmentation from copies of a contrast is that from one of them.
        kept = volume.subset(without_copies(volume.data, subset))
        return VoxelModel(kept, field, solver_params, should_stop=should_stop)

    model = model_of(range(volume.channels))
    snapshot = model.snapshot(prompts)
    weights = model.contrast_weights(snapshot)
    if weights is not None:
        own, weights = weights, np.zeros((volume.channels, weights.shape[1]), weights.dtype)
        weights[list(without_copies(volume.data, range(volume.channels)))] = own
    if full is None:
        full = model.update(snapshot, should_stop=should_stop).labels
    nearest = _nearest_prompts(snapshot, volume, field)
    del model  # one at a time, for the memory

    def answer(subset: tuple[int, ...]) -> NDArray[Any]:
        if not subset:
            return nearest
        return model_of(subset).update(snapshot, should_stop=should_stop).labels

    found = explain_answers(
        answer,
        volume.channel_names,
        snapshot.values[1:],
        full,
        progress=progress,
        should_stop=should_stop,
    )
    return replace(found, weights=None if weights is None else weights[:, 1:])


def _nearest_prompts(
    snapshot: PromptSnapshot, volume: Volume, field: GaussianField
) -> NDArray[Any]:
    """Return the answer that uses no image: every voxel has the class of the nearest marker."""
    from scipy.ndimage import distance_transform_edt

    markers, info = snapshot.markers, field.info
    spacing = np.asarray(volume.spacing)[list(info.stack_axes)]
    classes = np.full(info.stack_shape, -1, np.int64)
    classes[tuple(markers.voxels.T)] = markers.classes
    nearest = distance_transform_edt(
        classes < 0, sampling=spacing, return_distances=False, return_indices=True
    )
    indices = classes[tuple(nearest)].astype(np.uint8)
    if markers.kept is not None:
        markers.kept.enforce(indices)
    labels = np.asarray(markers.values)[indices]
    return np.moveaxis(labels, 0, info.slice_axis)
