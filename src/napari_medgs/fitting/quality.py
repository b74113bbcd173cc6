"""How good a fitted field is, measured on the whole grid with the image it was fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.threads import run_chunks
from napari_medgs.data.field import GaussianField
from napari_medgs.data.intensities import is_single, scale_to_unit
from napari_medgs.data.volume import Volume
from napari_medgs.fitting.heldout import heldout_metrics, slice_scores
from napari_medgs.fitting.params import FitParams


def measure_fit(
    volume: Volume,
    field: GaussianField,
    params: FitParams,
    mask: NDArray[Any] | None,
    training_slices: NDArray[np.int64],
) -> dict[str, Any]:
    """Return PSNR, SSIM, Dice and, with slices held out, their quality.

    Intensities are scaled as in the fit: the percentile span becomes [0, 1], the rest is
    clipped; the rendering is clipped alike. SSIM is the mean over slices of scikit-image's
    (7 x 7 uniform window).
    """
    from napari_medgs.rendering import render_labels, render_stack
    from napari_medgs.rendering.api import MANY_CLASSES, only_head

    info = field.info
    images = len(info.image_channels)
    many = len(info.class_names) > MANY_CLASSES
    rendered = render_stack(only_head(field, "image") if many else field, threads=params.threads)
    rendered_images = rendered[:images]
    truth = np.empty_like(rendered_images)
    stacks = np.moveaxis(volume.data, info.slice_axis + 1, 1)
    depth = rendered_images.shape[1]

    def scale(k: int) -> None:
        c, z = divmod(k, depth)
        here = truth[c, z]
        low = info.intensity_offset[c]
        if is_single(low, low + info.intensity_scale[c]):
            with np.errstate(over="ignore"):  # an outlier, clipped below
                np.subtract(stacks[c, z], np.float32(low), out=here, casting="unsafe")
                here /= np.float32(info.intensity_scale[c])
            np.clip(here, 0, 1, out=here)
        else:
            scale_to_unit(stacks[c, z], low, low + info.intensity_scale[c], here)
        np.clip(rendered_images[c, z], 0, 1, out=rendered_images[c, z])

    run_chunks(scale, images * depth, params.threads)
    metrics: dict[str, Any] = {}
    metrics["psnr"], metrics["ssim"] = slice_scores(
        truth, rendered_images, training_slices, params.threads
    )
    low, high = params.percentiles
    metrics["data_range"] = f"intensities clipped to the {low} to {high} percentile span, set to 1"
    if params.holdout is not None:
        wanted = np.setdiff1d(np.arange(training_slices[0], training_slices[-1]), training_slices)
        metrics.update(
            heldout_metrics(
                truth, rendered_images[:, wanted], training_slices, wanted, params.threads
            )
        )
    if info.class_names and mask is not None:
        labels = np.moveaxis(np.asarray(mask), info.slice_axis, 0)
        values = np.asarray(info.label_values)
        if many:
            found = np.moveaxis(render_labels(field, threads=params.threads), info.slice_axis, 0)
        else:
            found = values[rendered[images:].argmax(axis=0)]
        scores = _dice_of_labels(found, labels, values)
        metrics["dice"] = dict(zip(map(str, info.label_values[1:]), scores[1:], strict=True))
        known = [v for v in metrics["dice"].values() if np.isfinite(v)]
        metrics["dice_mean"] = float(np.mean(known)) if known else None
    return metrics


def _dice_of_labels(found: NDArray[Any], truth: NDArray[Any], values: NDArray[Any]) -> list[float]:
    """Return the Dice of every value (increasing) where the truth (Z, Y, X) is not -1."""
    size = len(values)
    counts = np.zeros((3, size), np.int64)
    for one, other in zip(found, truth, strict=True):
        known = other != -1
        a, b = np.searchsorted(values, one[known]), np.searchsorted(values, other[known])
        for row, indices in zip(counts, (a, b, a[a == b]), strict=True):
            row += np.bincount(indices, minlength=size)
    total = counts[0] + counts[1]
    return [
        2 * int(both) / int(all_) if all_ else float("nan")
        for both, all_ in zip(counts[2], total, strict=True)
    ]


def explain_shortfall(
    params: FitParams, stopped_by: str, psnr: float, gaussians: int
) -> str | None:
    """Say why a fit ended below the quality asked for; None where it did not."""
    if params.quality is None or psnr >= params.quality:
        return None
    reason = {
        "time": "the time limit came first",
        "cancelled": "it was canceled before",
    }.get(stopped_by)
    if reason is None and params.lambda_img == 0:
        reason = "only the mask was fitted"
    elif reason is None and params.gaussians is not None:
        reason = f"{gaussians:,} Gaussians and {params.iterations} steps are too few"
    elif reason is None:
        reason = f"even {gaussians:,} Gaussians are too few"
    return f"The fit reached {psnr:.2f} dB, not {params.quality:g} dB: {reason}."
