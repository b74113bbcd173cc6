"""Fits made for learning: one start and one order for all images of a cohort."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled, GeometryError, ParameterError
from napari_medgs.fitting import FitParams, fit


def mean_field(
    volumes: Sequence[Volume],
    gaussians: int = 32,
    iterations: int = 60,
    *,
    seed: int = 0,
    threads: int | None = None,
) -> GaussianField:
    """Return a field of the mean of images, to start from.

    Parameters
    ----------
    volumes : sequence of Volume
        Of one shape.
    gaussians, iterations : int
    seed : int
        Of all random choices.
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    GaussianField
        With its Gaussians in Morton order.

    Raises
    ------
    GeometryError
        When the images differ in shape.

    Examples
    --------
    >>> import napari_medgs as mg
    >>> volumes = [mg.Volume.from_array(np.eye(16, dtype=np.float32)[None]) for _ in range(2)]
    >>> start = mean_field(volumes, 16, 5)
    >>> [len(field) for field in fit_alike(volumes, start, 5)]
    [16, 16]
    """
    if not len(volumes):
        raise ParameterError("Give at least one image.")
    first = volumes[0]
    for volume in volumes:
        if volume.data.shape != first.data.shape:
            raise GeometryError(
                f"Images of {volume.data.shape} and {first.data.shape} (channels, z, y, x) have "
                "no mean; give images of one shape."
            )
    mean = np.mean([v.data for v in volumes], axis=0, dtype=np.float64).astype(np.float32)
    volume = Volume.from_array(mean, first.grid.spacing, channel_names=first.channel_names)
    settings = FitParams(
        gaussians=gaussians, iterations=iterations, percentiles=(0, 100), seed=seed,
        threads=threads,
    )  # fmt: skip
    field = fit(volume, settings).field
    order = field.morton_order()
    arrays = {n: getattr(field, n) for n in field.tensor_names()}
    ordered = {n: a if n == "background" else a[order] for n, a in arrays.items()}
    # A fit keeps the scale of its start, and clips what lies outside: it must hold all images.
    axes = (0, 2, 3, 4)
    stack = np.stack([v.data for v in volumes])
    low = stack.min(axis=axes).astype(np.float32)
    span = np.maximum(stack.max(axis=axes).astype(np.float32) - low, np.float32(1e-6))
    scale, offset = (
        np.asarray(x, np.float32)
        for x in (field.info.intensity_scale, field.info.intensity_offset)
    )
    for name in ("values", "background"):
        ordered[name] = (ordered[name] * scale + offset - low) / span
    info = replace(
        field.info,
        intensity_scale=tuple(map(float, span)),
        intensity_offset=tuple(map(float, low)),
    )
    return GaussianField(**ordered, info=info)


def fit_alike(
    volumes: Sequence[Volume],
    start: GaussianField,
    iterations: int = 60,
    *,
    threads: int | None = None,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> list[GaussianField]:
    """Fit all images from one field: Gaussian k of one is Gaussian k of all.

    Parameters
    ----------
    volumes : sequence of Volume
    start : GaussianField
        Of :func:`mean_field`.
    iterations : int
    threads : int, optional
        CPU threads; all by default.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    list of GaussianField
        With as many Gaussians as the start, in its order.

    Raises
    ------
    MedGSError
        When an image is not of the start's shape or cannot be fitted.
    Cancelled
        When canceled.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.compression.learned import fit_alike, mean_field
    >>> volumes = [mg.Volume.from_array(np.eye(16, dtype=np.float32)[None]) for _ in range(2)]
    >>> start = mean_field(volumes, gaussians=16, iterations=5)
    >>> [len(field) for field in fit_alike(volumes, start, iterations=5)]
    [16, 16]
    """
    settings = FitParams(
        gaussians=len(start), iterations=iterations, percentiles=(0, 100), threads=threads
    )
    fields: list[GaussianField] = []
    started = time.perf_counter()
    for k, volume in enumerate(volumes):
        if should_stop():
            raise Cancelled("The fits were canceled; nothing was written.")
        progress(ProgressEvent("fits", k, len(volumes), time.perf_counter() - started))
        if volume.grid.shape != start.info.grid.shape:
            raise GeometryError(
                f"Image {k + 1} has {volume.grid.shape} voxels, the start "
                f"{start.info.grid.shape}; give images of one shape."
            )
        arrays = {name: getattr(start, name) for name in start.tensor_names()}
        here = GaussianField(**arrays, info=replace(start.info, grid=volume.grid))
        fields.append(fit(volume, settings, initial=here).field)
    return fields
