"""Previews: fields of few Gaussians that a compressed file begins with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_medgs.compression.params import CompressParams
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.errors import ParameterError

FEWEST_PREVIEW = 50
PREVIEW_STEPS = 60


def make_preview(field: GaussianField, params: CompressParams) -> GaussianField | None:
    """Return a field of few Gaussians that looks like the field, if one is wanted.

    Parameters
    ----------
    field : GaussianField
    params : CompressParams

    Returns
    -------
    GaussianField or None

    Raises
    ------
    ParameterError
        When the field has no image.
    """
    if not params.preview:
        return None
    from napari_medgs.fitting import FitParams, fit
    from napari_medgs.rendering import render

    info = field.info
    if not info.image_channels:
        raise ParameterError("A field without an image has no preview: leave it out.")
    count = max(int(len(field) * params.preview), FEWEST_PREVIEW)
    volume = Volume(
        render(field, threads=params.threads), info.grid, channel_names=info.image_channels
    )
    labels = None
    if info.class_names:
        from napari_medgs.rendering import render_labels

        labels = render_labels(field, threads=params.threads)
        if not labels.any():
            labels = None
    wanted = FitParams(
        gaussians=count,
        iterations=PREVIEW_STEPS,
        slice_axis=info.slice_axis,
        blend=info.blend,
        fold=min(1, info.degree),
        cutoff=info.cutoff,
        interpolate=False,
        threads=params.threads,
        backend=params.backend,
    )
    small = fit(volume, wanted, labels).field
    return _on_scale(small, field)


def _on_scale(small: GaussianField, field: GaussianField) -> GaussianField:
    """Return a preview with the field's scale of intensities, and all of its classes."""
    info, own = field.info, small.info
    values = np.zeros((len(small), info.channels), np.float32)
    for c in range(len(info.image_channels)):
        gain = own.intensity_scale[c] / info.intensity_scale[c]
        shift = (own.intensity_offset[c] - info.intensity_offset[c]) / info.intensity_scale[c]
        values[:, c] = small.values[:, c] * gain + shift
    images = len(info.image_channels)
    for k, value in enumerate(info.label_values):
        if value in own.label_values:
            values[:, images + k] = small.values[:, images + own.label_values.index(value)]
        elif k:
            values[:, images + k] = values[:, images] - 20  # a class that is nowhere
    return GaussianField(
        centers=small.centers,
        log_precision=small.log_precision,
        shear=small.shear,
        fold=small.fold,
        log_weight=small.log_weight,
        values=values,
        background=field.background,
        info=replace(info, degree=own.degree),
    )
