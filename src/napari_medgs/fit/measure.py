"""How good a fitted field is, measured on the whole grid with the image it was fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.field import Floats, GaussianField
from napari_medgs.fit.heldout import heldout_metrics
from napari_medgs.fit.params import FitParams
from napari_medgs.parallel import run_chunks
from napari_medgs.volume import Volume


def measure_fit(
    volume: Volume,
    field: GaussianField,
    params: FitParams,
    mask: NDArray[Any] | None,
    kept: NDArray[np.int64],
) -> dict[str, Any]:
    """Return PSNR, SSIM, Dice and, with slices held out, their quality.

    Intensities are scaled as in the fit: the percentile span becomes [0, 1], the rest is
    clipped; the rendering is clipped alike. SSIM is the mean over slices of scikit-image's
    (7 x 7 uniform window).
    """
    from napari_medgs.metrics import dice, psnr
    from napari_medgs.render import render_stack

    info = field.info
    rendered = render_stack(field, threads=params.threads)
    images = len(info.image_channels)
    metrics: dict[str, Any] = {}
    picture = rendered[:images]
    np.clip(picture, 0, 1, out=picture)
    truth = np.empty_like(picture)
    for c in range(images):
        stack = np.moveaxis(volume.data[c], info.slice_axis, 0)
        np.subtract(stack, np.float32(info.intensity_offset[c]), out=truth[c], casting="unsafe")
        truth[c] /= np.float32(info.intensity_scale[c])
    np.clip(truth, 0, 1, out=truth)
    metrics["psnr"] = psnr(truth[:, kept], picture[:, kept], data_range=1.0)
    metrics["ssim"] = mean_ssim(truth[:, kept], picture[:, kept], params.threads)
    low, high = params.percentiles
    metrics["data_range"] = f"intensities clipped to the {low} to {high} percentile span, set to 1"
    if params.holdout is not None:
        wanted = np.setdiff1d(np.arange(kept[0], kept[-1]), kept)
        metrics.update(heldout_metrics(truth, picture[:, wanted], kept, wanted))
    if info.class_names and mask is not None:
        labels = np.moveaxis(np.asarray(mask), info.slice_axis, 0)
        guess = np.asarray(info.label_values)[rendered[images:].argmax(axis=0)]
        guess[labels == -1] = -1
        metrics["dice"] = {
            str(value): dice(guess == value, labels == value) for value in info.label_values[1:]
        }
        known = [v for v in metrics["dice"].values() if np.isfinite(v)]
        metrics["dice_mean"] = float(np.mean(known)) if known else None
    return metrics


def explain_shortfall(
    params: FitParams, stopped_by: str, psnr: float, gaussians: int
) -> str | None:
    """Say why a fit ended below the quality asked for; None where it did not."""
    if params.quality is None or psnr >= params.quality:
        return None
    reason = {
        "time": "the time limit came first",
        "cancelled": "it was cancelled before",
    }.get(stopped_by)
    if reason is None and params.lambda_img == 0:
        reason = "only the mask was fitted"
    elif reason is None and params.gaussians is not None:
        reason = f"{gaussians:,} Gaussians and {params.iterations} steps are too few"
    elif reason is None:
        reason = f"even {gaussians:,} Gaussians are too few"
    return f"The fit reached {psnr:.2f} dB, not {params.quality:g} dB: {reason}."


def mean_ssim(truth: Floats, guess: Floats, threads: int | None = None) -> float:
    """Return the mean slice-wise SSIM of stacks (C, Z, Y, X) in [0, 1].

    Slices smaller than the 7 x 7 window are left out; NaN when none is left.
    """
    from napari_medgs.metrics import ssim

    channels, depth, height, width = truth.shape
    if min(height, width) < 7:
        return float("nan")
    scores = np.zeros((channels, depth))

    def score(k: int) -> None:
        c, z = divmod(k, depth)
        scores[c, z] = ssim(truth[c, z], guess[c, z], data_range=1.0)

    run_chunks(score, channels * depth, threads)
    return float(scores.mean())
