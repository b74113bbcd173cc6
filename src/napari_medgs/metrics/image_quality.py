"""Image quality: peak signal-to-noise ratio and structural similarity.

By default images are compared in units of the reference's *intensity span*: its 0.5 to 99.5
percentile range becomes [0, 1] and both images are clipped to it, so that a few bright voxels do
not decide the score. A given ``data_range`` switches this off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import GeometryError, ImageError, ParameterError
from napari_medgs.metrics.volumes import check_same_shape

PERCENTILES = (0.5, 99.5)
_SLAB = 16  # slices per 3D window pass


def intensity_span(
    image: NDArray[Any], percentiles: tuple[float, float] = PERCENTILES
) -> tuple[float, float]:
    """Return the intensities at two percentiles of an image.

    Images of more than four million voxels are sampled evenly. Where the percentiles coincide (a
    small shape in much background) the whole range is returned.

    Parameters
    ----------
    image : (...) ndarray
        Any shape.
    percentiles : (float, float)
        From 0 to 100.

    Returns
    -------
    low, high : float

    Raises
    ------
    ImageError
        When the image is constant.

    Examples
    --------
    >>> import numpy as np
    >>> intensity_span(np.arange(101.0), (10, 90))
    (10.0, 90.0)
    """
    sample = image if image.size <= 4_000_000 else image.reshape(-1)[:: image.size // 2_000_000]
    low, high = (float(v) for v in np.percentile(sample, percentiles))
    if not high > low:
        low, high = float(image.min()), float(image.max())
    if not high > low:
        raise ImageError("The image is constant: it has no intensity range to compare within.")
    return low, high


def psnr(truth: NDArray[Any], prediction: NDArray[Any], data_range: float | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB, of the mean squared error over all voxels.

    Parameters
    ----------
    truth, prediction : (Y, X), (Z, Y, X) or (C, Z, Y, X) ndarray
    data_range : float, optional
        The peak, in the images' units. By default both are scaled and clipped to the truth's
        percentile span (each channel to its own), and the peak is 1.

    Returns
    -------
    float
        Infinite for equal images.

    Raises
    ------
    GeometryError
        When the shapes differ.
    ImageError
        When the truth is constant and no ``data_range`` is given.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.linspace(0, 100, 64).reshape(1, 8, 8)
    >>> round(psnr(truth, truth + 1, data_range=100), 2)
    40.0
    """
    truth, prediction = check_same_shape(truth, prediction)
    mean = sum(_squares(*pair) for pair in _channels(truth, prediction, data_range)) / truth.size
    return float("inf") if mean == 0 else float(-10 * np.log10(mean))


def ssim(
    truth: NDArray[Any],
    prediction: NDArray[Any],
    data_range: float | None = None,
    *,
    slice_axis: int | None = None,
) -> float:
    """Return the mean structural similarity.

    Parameters
    ----------
    truth, prediction : (Y, X), (Z, Y, X) or (C, Z, Y, X) ndarray
        The score of several channels is their mean.
    data_range : float, optional
        The range of values; by default the truth's percentile span, both images clipped to it.
    slice_axis : int, optional
        Axis (of z, y, x) across which a volume is cut into slices, each with 2D windows; the
        mean over slices is returned (what papers on slices quote). By default the windows of a
        volume are 3D. A single slice is always compared in 2D.

    Returns
    -------
    float
        1 for equal images.

    Raises
    ------
    GeometryError, ParameterError
        When the shapes differ, or the image is smaller than the 7-wide window.

    Notes
    -----
    The definition of [1]_ with scikit-image's defaults: a 7-wide uniform window, sample
    covariances, K1 = 0.01, K2 = 0.03, half a window left out at the border. 3D windows are
    computed in float32, a slab of slices at a time: beyond its input a 256^3 volume needs about
    100 MB. Slabs overlap, so the result is that of the whole volume at once.

    References
    ----------
    .. [1] Wang et al., "Image quality assessment: from error visibility to structural
       similarity", IEEE Trans. Image Process. 13, 2004.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.random.default_rng(0).random((1, 16, 16))
    >>> ssim(image, image, slice_axis=0)
    1.0
    """
    truth, prediction = check_same_shape(truth, prediction)
    scores = []
    for t, g, scale in _channels(truth, prediction, data_range):
        if t.ndim == 3 and slice_axis is None and 1 in t.shape:
            axis: int | None = t.shape.index(1)
        else:
            axis = slice_axis
        if t.ndim == 2:
            scores.append(_ssim_plain(t, g, scale))
        elif axis is None:
            scores.append(_ssim_3d(t, g, scale))
        else:
            slices = zip(np.moveaxis(t, axis, 0), np.moveaxis(g, axis, 0))
            scores.append(float(np.mean([_ssim_plain(a, b, scale) for a, b in slices])))
    return float(np.mean(scores))


# What makes a pair of images comparable: (low, high), clipped to, or a range.
_Scale = tuple[float, float] | float


def _channels(
    truth: NDArray[Any], prediction: NDArray[Any], data_range: float | None
) -> Iterator[tuple[NDArray[Any], NDArray[Any], _Scale]]:
    if data_range is not None and not data_range > 0:
        raise ParameterError(f"The data range must be positive, not {data_range}.")
    if not 2 <= truth.ndim <= 4:
        raise GeometryError(f"Images have 2 to 4 axes (c, z, y, x), not {truth.ndim}.")
    for t, g in zip(truth, prediction) if truth.ndim == 4 else ((truth, prediction),):
        yield t, g, float(data_range) if data_range is not None else intensity_span(t)


def _planes(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Cut arrays of one shape into the same planes, in the order of memory for speed."""
    order = np.argsort(arrays[0].strides)[::-1]
    arrays = tuple(a.transpose(order) for a in arrays)
    for index in np.ndindex(arrays[0].shape[:-2]):
        yield tuple(a[index] for a in arrays)


def _scaled(image: NDArray[Any], scale: _Scale) -> NDArray[np.float32]:
    if isinstance(scale, float):
        return np.multiply(image, 1 / scale, dtype=np.float32, casting="unsafe")
    low, high = scale
    result = np.subtract(image, low, dtype=np.float32, casting="unsafe")
    result *= np.float32(1 / (high - low))
    return np.clip(result, 0, 1, out=result)


def _squares(truth: NDArray[Any], prediction: NDArray[Any], scale: _Scale) -> float:
    total = 0.0
    for t, g in _planes(truth, prediction):
        error = _scaled(t, scale)
        error -= _scaled(g, scale)
        total += float(np.vdot(error, error))
    return total


def _ssim_3d(truth: NDArray[Any], prediction: NDArray[Any], scale: _Scale) -> float:
    """Mean over slabs that overlap by a window, so that each voxel counts once."""
    from napari_medgs.metrics.structural_similarity import WINDOW

    pad = WINDOW // 2
    depth = len(truth) - 2 * pad
    total = 0.0
    for start in range(0, max(depth, 1), _SLAB):
        stop = min(start + _SLAB, depth)
        slab = slice(start, stop + 2 * pad)
        total += (stop - start) * _ssim_plain(truth[slab], prediction[slab], scale)
    return total / depth


def _ssim_plain(truth: NDArray[Any], prediction: NDArray[Any], scale: _Scale) -> float:
    from napari_medgs.metrics.structural_similarity import mean_ssim

    return mean_ssim(_scaled(truth, scale), _scaled(prediction, scale))
