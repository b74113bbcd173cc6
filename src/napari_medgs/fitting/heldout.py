"""PSNR and SSIM of slices, held-out ones beside interpolation of the training slices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks


def interpolate_linear(stack: Floats, training: NDArray[np.int64], wanted: NDArray[Any]) -> Floats:
    """Interpolate slices (C, Z, Y, X) at ``wanted`` linearly from the ``training`` ones."""
    right = np.clip(np.searchsorted(training, wanted), 1, len(training) - 1)
    low, high = training[right - 1], training[right]
    fraction = ((wanted - low) / (high - low)).astype(np.float32)[None, :, None, None]
    result: Floats = stack[:, low] * (1 - fraction) + stack[:, high] * fraction
    return result


def interpolate_cubic(stack: Floats, training: NDArray[np.int64], wanted: NDArray[Any]) -> Floats:
    """Interpolate slices by a Catmull-Rom spline through evenly spaced ``training`` slices."""
    last = len(training) - 1
    right = np.clip(np.searchsorted(training, wanted), 1, last)
    left = right - 1
    u = ((wanted - training[left]) / (training[right] - training[left])).astype(np.float32)
    weights = (
        (-0.5 * u + u**2 - 0.5 * u**3, np.maximum(left - 1, 0)),
        (1 - 2.5 * u**2 + 1.5 * u**3, left),
        (0.5 * u + 2 * u**2 - 1.5 * u**3, right),
        (-0.5 * u**2 + 0.5 * u**3, np.minimum(right + 1, last)),
    )
    total = np.zeros((stack.shape[0], len(wanted), *stack.shape[2:]), np.float32)
    for weight, index in weights:
        total += weight[None, :, None, None] * stack[:, training[index]]
    return total


def heldout_metrics(
    images: Floats,
    rendered: Floats,
    training: NDArray[np.int64],
    wanted: NDArray[np.int64],
    threads: int | None = None,
) -> dict[str, Any]:
    """Compare a fit and plain interpolation with the slices left out.

    Parameters
    ----------
    images : (C, Z, Y, X) ndarray
        All slices, scaled to [0, 1].
    rendered : (C, W, Y, X) ndarray
        The fit at the ``wanted`` slices.

    Returns
    -------
    dict
        Pooled PSNR in dB and mean slice-wise SSIM of the fit, pooled PSNR and SSIM of linear
        and cubic (Catmull-Rom) interpolation; predictions are clipped to [0, 1].
    """
    truth = images[:, wanted]
    candidates = {
        "": rendered,
        "_linear": interpolate_linear(images, training, wanted),
        "_cubic": interpolate_cubic(images, training, wanted),
    }
    report: dict[str, Any] = {"slices_heldout": len(wanted)}
    for name, prediction in candidates.items():
        scores = slice_scores(truth, np.clip(prediction, 0, 1), np.arange(len(wanted)), threads)
        report[f"psnr_heldout{name}"], report[f"ssim_heldout{name}"] = scores
    return report


def slice_scores(
    truth: Floats, prediction: Floats, slices: NDArray[Any], threads: int | None = None
) -> tuple[float, float]:
    """Return pooled PSNR (dB) and mean slice-wise SSIM of some slices of stacks in [0, 1].

    Parameters
    ----------
    truth, prediction : (C, Z, Y, X) ndarray of float32
        Every slice is contiguous.
    slices : ndarray of int
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    psnr, ssim : float
        The SSIM is NaN where slices are smaller than its 7 x 7 window.
    """
    from napari_medgs.metrics.structural_similarity import WINDOW, mean_ssim_2d

    channels, _, height, width = truth.shape
    count = len(slices)
    large = min(height, width) >= WINDOW
    scores = np.full((channels * count, 2), np.nan)

    def score(k: int) -> None:
        c, z = k // count, int(slices[k % count])
        error = truth[c, z] - prediction[c, z]
        scores[k, 0] = np.vdot(error, error)
        if large:
            scores[k, 1] = mean_ssim_2d(truth[c, z], prediction[c, z])

    run_chunks(score, len(scores), threads)
    squares = scores[:, 0].sum() / (len(scores) * height * width)
    psnr = float("inf") if squares == 0 else float(-10 * np.log10(squares))
    return psnr, float(scores[:, 1].mean())
