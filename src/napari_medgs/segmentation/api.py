"""One call from an image and prompts to a mask; the field is fitted where none is given."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace

from napari_medgs._util.progress import ProgressCallback, StopCallback, ignore_progress, never_stop
from napari_medgs._util.threads import limit_threads
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled
from napari_medgs.fitting import FitParams, StopReason, fit
from napari_medgs.fitting.problem import choose_slice_axis
from napari_medgs.segmentation.content import find_content
from napari_medgs.segmentation.memory import check_memory
from napari_medgs.segmentation.model import SegmentModel
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.prompts.kinds import check_kind
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.result.result import SegmentResult
from napari_medgs.segmentation.working_grid import working_grid

NO_BACKGROUND = (
    "The classes divide the whole image, as no background is marked. Unless this is meant, say "
    "which value of the strokes is background (Prompts(background=...)), mark some (a point of "
    "label 0), or give a box around each class."
)

# Half the default number of iterations: masks gain nothing from more.
FIT_PARAMS = FitParams(iterations=40)
# Averages over blocks have little noise left: half of these again reach the same masks.
LARGE_ITERATIONS = 20


def fit_for_segmentation(
    volume: Volume,
    params: FitParams | None = None,
    *,
    working_voxels: int = SegmentParams().working_voxels,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> GaussianField:
    """Fit the field that :func:`segment` fits when it is given none.

    Parameters
    ----------
    volume : Volume
    params : FitParams, optional
        ``FIT_PARAMS`` by default.
    working_voxels : int
        Larger images are fitted on averages over blocks of voxels (see
        :class:`~napari_medgs.segmentation.SegmentParams`), along the image's own slice axis,
        without targets between the slices unless ``interpolate`` is True, and in 20 iterations
        where the settings have the 40 of ``FIT_PARAMS``.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    GaussianField

    Raises
    ------
    Cancelled
        When stopped; a partly fitted field is not returned.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.volume import Volume
    >>> from napari_medgs.fitting import FitParams
    >>> image = np.random.default_rng(0).normal(size=(4, 12, 12)).astype(np.float32)
    >>> params = FitParams(gaussians=40, iterations=2)
    >>> field = fit_for_segmentation(Volume.from_array(image), params)
    >>> 0 < len(field) <= 40
    True
    """
    volume = volume.prepared()
    content = find_content(volume)
    if content is not None and content.fitted.is_part:
        part = content.fitted.volume(volume, every_channel=True)
        field = _fit(part, params, working_voxels, progress, should_stop)
        return content.spread(field, volume)
    return _fit(volume, params, working_voxels, progress, should_stop)


def _fit(
    volume: Volume,
    params: FitParams | None,
    working_voxels: int,
    progress: ProgressCallback,
    should_stop: StopCallback,
) -> GaussianField:
    """Fit a field to an image, or to averages over blocks of its voxels."""
    place = working_grid(volume.grid, working_voxels)
    params = params or FIT_PARAMS
    if place is not None:
        # Blocks are coarser along other axes than the image's voxels: these axes are not slices.
        params = replace(
            params,
            slice_axis=choose_slice_axis(volume, params.slice_axis),
            interpolate=bool(params.interpolate),
            iterations=LARGE_ITERATIONS
            if params.iterations == FIT_PARAMS.iterations
            else params.iterations,
        )
        volume = place.image(volume)
    result = fit(volume, params, progress=progress, should_stop=should_stop)
    if result.stopped_by == StopReason.CANCELLED:
        raise Cancelled("The fit before the segmentation was canceled.")
    return result.field if place is None else result.field.on_grid(place.full)


def segment(
    volume: Volume,
    prompts: Prompts,
    params: SegmentParams | None = None,
    *,
    field: GaussianField | None = None,
    fit_params: FitParams | None = None,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> SegmentResult:
    """Segment an image from prompts.

    It warns of marks outside of the boxes of their classes, which become background, and where
    no background is marked, so that the classes divide the whole image.

    Parameters
    ----------
    volume : Volume
        One or more image channels; a single slice is a 2D image.
    prompts : Prompts
    params : SegmentParams, optional
    field : GaussianField, optional
        Fitted to the volume; fitted here otherwise.
    fit_params : FitParams, optional
        How to fit it; ``FIT_PARAMS`` by default.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    SegmentResult

    Raises
    ------
    MedGSError
        For unusable images, prompts or settings, before the fit starts; ``Cancelled``.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.volume import Volume
    >>> from napari_medgs.fitting import FitParams
    >>> from napari_medgs.segmentation import Prompts, segment
    >>> image = np.zeros((4, 12, 12), np.float32)
    >>> image[:, 3:9, 3:9] = 100
    >>> strokes = np.zeros(image.shape, int)
    >>> strokes[1, 6, 4:8], strokes[1, 1, 1:11], strokes[1, 10, 1:11] = 1, 2, 2
    >>> fast = FitParams(gaussians=60, iterations=5)
    >>> result = segment(
    ...     Volume.from_array(image), Prompts(labels=strokes, background=2), fit_params=fast
    ... )
    >>> int(result.labels[2, 6, 6]), int(result.labels[2, 0, 0])
    (1, 0)
    """
    from napari_medgs.segmentation.prompts.outside_boxes import (
        describe_outside_boxes,
        find_outside_boxes,
    )
    from napari_medgs.segmentation.prompts.rasterize import check_background, check_prompts

    started = time.perf_counter()
    check_kind(
        volume, Volume, "The image is", "make it a Volume by Volume.from_array or read_volume"
    )
    check_kind(prompts, Prompts, "The prompts are", "give Prompts(labels=..., points=...)")
    for value, kind, name in (
        (params, SegmentParams, "params"), (field, GaussianField, "field"),
        (fit_params, FitParams, "fit_params"),
    ):  # fmt: skip
        if value is not None:
            check_kind(value, kind, f"'{name}' is", f"give one of type {kind.__name__}")
    volume = volume.prepared()
    markers = check_prompts(prompts, volume)
    check_background(prompts, markers)
    outside = find_outside_boxes(prompts, volume.shape)
    if outside:
        warnings.warn(describe_outside_boxes(outside), stacklevel=2)
    gaussians = (fit_params or FIT_PARAMS).gaussians
    check_memory(volume, params, classes=markers.count, field=field, gaussians=gaussians)
    seconds_fit = 0.0
    if field is None:
        with limit_threads(params.threads if params else None):
            field = fit_for_segmentation(
                volume,
                fit_params,
                working_voxels=(params or SegmentParams()).working_voxels,
                progress=progress,
                should_stop=should_stop,
            )
        seconds_fit = time.perf_counter() - started
    model = SegmentModel(volume, field, params, progress=progress, should_stop=should_stop)
    result = model.update(prompts, progress=progress, should_stop=should_stop)
    if not result.has_background:
        warnings.warn(NO_BACKGROUND, stacklevel=2)
    return replace(result, seconds=time.perf_counter() - started, seconds_fit=seconds_fit)
