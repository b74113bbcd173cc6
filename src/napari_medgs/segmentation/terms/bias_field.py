"""Smooth fields of brightness, as the coils of MR leave them: found in the image, divided out.

Where tissue is smooth, the logarithm of its intensity has the gradient of the field's logarithm;
borders are outliers. A polynomial is fitted to differences of neighbors by robust regression. It
counts only where the field is strong, where intensities agree clearly better without it, and
where most differences are borders all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Doubles, Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.segmentation.term_params import BiasParams
from napari_medgs.tissue.bias import LegendreBasis

WIDTH = 2  # of the blocks that an image is averaged over, in finest voxels
BLOCKS = 400_000  # at most
SHORTEST = 8  # blocks along an axis that has so many voxels, at least
FOREGROUND = 0.03  # of the 99th percentile: darker blocks are mostly noise
MOST_NEGATIVE = 0.05  # 1st percentile over the 99th: resampling and noise leave such values in air
SMOOTHEST = 0.5  # of the steps between blocks: averages of folded or thin tissue have a gradient
STEPS = 5_000  # along every axis, at most
FEWEST = 500
ROUNDS = 15  # of reweighting
FIRST_ROUNDS = 6  # with absolute residuals, whose sum has one minimum
NARROW = 0.5  # standard deviations at which a residual counts a quarter
RIDGE = 1e-6  # of the mean square of the terms: an image may show one side only
PERCENTILES = 95, 5  # of the field's logarithm, between which its range is measured
BIN, BANDWIDTH = 0.01, 3.0  # of histograms of the logarithm, and of their smoothing in bins

_Pair = tuple[tuple[slice, ...], tuple[slice, ...]]


@dataclass(frozen=True)
class BrightnessField:
    """The logarithm of a smooth factor of an image's intensities.

    Attributes
    ----------
    basis : LegendreBasis
        Over the image's voxels.
    coefficients : (T,) ndarray of float64
    low, high : float
        Of the foreground; beyond it a polynomial may go anywhere, and is cut at these.
    """

    basis: LegendreBasis
    coefficients: Doubles
    low: float
    high: float

    def slice(self, shape: tuple[int, int, int], index: int) -> Doubles:
        """Return the logarithm in slice ``index`` of an image, (Y, X)."""
        found = self.basis.field(self.coefficients[None], shape, index)[0] - 1
        return np.clip(found, self.low, self.high)


def brightness_field(
    channel: NDArray[Any],
    spacing: NDArray[np.float64],
    params: BiasParams | None = None,
    missing: NDArray[np.bool_] | None = None,
) -> BrightnessField | None:
    """Return the field of brightness of a channel where it is strong and clear.

    Parameters
    ----------
    channel : (Z, Y, X) ndarray
        Finite.
    spacing : (3,) ndarray
        Voxel sizes.
    params : BiasParams, optional
    missing : (Z, Y, X) ndarray of bool, optional
        Where the channel has no value.

    Returns
    -------
    BrightnessField or None
        None for images with negative intensities as well.

    References
    ----------
    Hui, Zhou and Narayana 2010, *A fast algorithm for calculation of inhomogeneity gradient in
    magnetic resonance imaging data*, Journal of Magnetic Resonance Imaging 32(5).
    """
    params = params or BiasParams()
    size = _block_size(channel.shape, spacing)
    means = _block_means(channel, size)
    bottom, top = np.percentile(means, (1, 99))
    if not top > 0 or bottom < -MOST_NEGATIVE * top:
        return None
    shown = means > FOREGROUND * top
    if missing is not None:
        shown &= _block_means(missing, size) == 0
    logarithm = np.log(np.maximum(means, FOREGROUND * top))
    last = np.array(means.shape) - 1
    basis = LegendreBasis.over(np.zeros(3), last, params.degree)
    coefficients = _fit(*_smooth_steps(logarithm, shown, basis))
    if coefficients is None:
        return None
    field = np.stack(
        [basis.field(coefficients[None], means.shape, k)[0] - 1 for k in range(len(means))]
    )
    inside, before = field[shown], logarithm[shown]
    span = float(np.subtract(*np.percentile(inside, PERCENTILES)))
    if span < np.log(params.least_range):
        return None
    if _entropy(before) - _entropy(before - inside) < params.least_gain * span:
        return None
    if _explained(logarithm, field, shown) > params.most_explained:
        return None
    half = (size - 1) / 2  # block b holds the voxels from b * size to (b + 1) * size - 1
    fine = LegendreBasis(half, last * size + half, basis.powers)
    return BrightnessField(fine, coefficients, float(inside.min()), float(inside.max()))


def without_bias(
    data: NDArray[Any],
    spacing: NDArray[np.float64],
    params: BiasParams | None = None,
    missing: NDArray[np.bool_] | None = None,
) -> NDArray[Any]:
    """Return channels without strong fields of brightness.

    Parameters
    ----------
    data : (C, Z, Y, X) ndarray
        Finite.
    spacing : (3,) ndarray
        Voxel sizes.
    params : BiasParams, optional
    missing : (C, Z, Y, X) ndarray of bool, optional
        Where a channel has no value.

    Returns
    -------
    (C, Z, Y, X) ndarray
        The same array where no channel has such a field; see :func:`brightness_field`.
    """
    fields = [
        brightness_field(channel, spacing, params, None if missing is None else missing[c])
        for c, channel in enumerate(data)
    ]
    if not any(fields):
        return data
    depth, shape = data.shape[1], data.shape[1:]
    even = data.astype(np.result_type(data, np.float32))

    def divide(k: int) -> None:
        c, z = divmod(k, depth)
        field = fields[c]
        if field is not None:
            even[c, z] *= np.exp(-field.slice(shape, z)).astype(even.dtype)

    run_chunks(divide, len(data) * depth)
    return even


def _block_size(shape: tuple[int, ...], spacing: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return voxels of a block along every axis, for blocks that are about as long as wide."""
    most = np.maximum(np.array(shape) // SHORTEST, 1)
    width = WIDTH * float(spacing.min())
    while True:
        size = np.clip(np.rint(width / spacing).astype(np.int64), 1, most)
        if np.prod(np.array(shape) // size) <= BLOCKS or (size == most).all():
            return size
        width *= 1.25


def _block_means(channel: NDArray[Any], size: NDArray[np.int64]) -> Doubles:
    """Return means over whole blocks, which hold any finite intensity."""
    counts = np.array(channel.shape) // size
    whole = channel[tuple(slice(0, n) for n in counts * size)]
    means: Doubles = np.empty(counts)

    def average(k: int) -> None:
        part = whole[k * size[0] : (k + 1) * size[0]].mean(axis=0, dtype=np.float64)
        means[k] = part.reshape(counts[1], size[1], counts[2], size[2]).mean(axis=(1, 3))

    run_chunks(average, int(counts[0]))
    return means


def _pairs() -> list[_Pair]:
    """Return slices of both blocks of all neighbors along every axis."""
    every = slice(None)
    before = [
        tuple(slice(None, -1) if a == axis else every for a in range(3)) for axis in range(3)
    ]
    after = [tuple(slice(1, None) if a == axis else every for a in range(3)) for axis in range(3)]
    return list(zip(before, after, strict=True))


def _smooth_steps(
    logarithm: Floats, shown: NDArray[np.bool_], basis: LegendreBasis
) -> tuple[Doubles, Doubles]:
    """Return differences of the terms (N, T) and of the logarithm (N,) between neighbors.

    Of those of them, in the foreground, whose largest steps to any neighbor are smallest.
    """
    steps = [logarithm[second] - logarithm[first] for first, second in _pairs()]
    rough = np.zeros(logarithm.shape, np.float32)
    for pair, step in zip(_pairs(), steps, strict=True):
        for side in pair:
            np.maximum(rough[side], np.abs(step), out=rough[side])
    both = [shown[first] & shown[second] for first, second in _pairs()]
    roughness = [np.maximum(rough[first], rough[second]) for first, second in _pairs()]
    known = np.concatenate([r[on] for r, on in zip(roughness, both, strict=True)])
    limit = np.quantile(known, SMOOTHEST) if known.size else 0.0
    rng = np.random.default_rng(0)
    terms, chosen = [], []
    for axis, step in enumerate(steps):
        places = np.flatnonzero(both[axis] & (roughness[axis] <= limit))
        if len(places) > STEPS:
            places = rng.choice(places, STEPS, replace=False)
        low = np.stack(np.unravel_index(places, step.shape), axis=1)
        terms.append(basis.at(low + np.eye(3)[axis]) - basis.at(low))
        chosen.append(step.reshape(-1)[places])
    return np.concatenate(terms), np.concatenate(chosen).astype(np.float64)


def _fit(terms: Doubles, steps: Doubles) -> Doubles | None:
    """Return coefficients of the terms that explain most steps; None for too few."""
    if len(steps) < FEWEST:
        return None
    ridge = RIDGE * len(steps) * float((terms**2).mean()) * np.eye(terms.shape[1])
    coefficients = np.zeros(terms.shape[1])
    for turn in range(ROUNDS):
        residual = np.abs(steps - terms @ coefficients)
        spread = 1.4826 * float(np.median(residual))  # the factor is that of normal residuals
        if not spread > 0:
            return None  # most of the image is constant
        if turn < FIRST_ROUNDS:
            weight = 1 / np.maximum(residual / spread, 0.1)
        else:
            weight = 1 / (1 + (residual / (NARROW * spread)) ** 2) ** 2
        weighed = terms * weight[:, None]
        normal = weighed.T @ terms + weight.mean() * ridge
        coefficients = np.linalg.solve(normal, weighed.T @ steps)
    return coefficients


def _entropy(values: NDArray[Any]) -> float:
    """Return the entropy of smoothed values in nats, up to a constant."""
    from scipy.ndimage import gaussian_filter1d

    low, high = np.percentile(values, (0.2, 99.8))
    bins = max(int((high - low) / BIN), 1)
    counts, _ = np.histogram(values, bins, range=(low, low + bins * BIN))
    smooth = gaussian_filter1d(counts.astype(np.float64), BANDWIDTH, mode="constant")
    share = smooth[smooth > 0] / smooth.sum()
    return float(-(share * np.log(share)).sum())


def _explained(logarithm: Floats, field: Doubles, shown: NDArray[np.bool_]) -> float:
    """Return the part of the squared steps in the foreground that a field explains."""
    left, total = 0.0, 0.0
    for first, second in _pairs():
        both = shown[first] & shown[second]
        step = (logarithm[second] - logarithm[first])[both]
        total += float((step**2).sum())
        left += float(((step - (field[second] - field[first])[both]) ** 2).sum())
    return 1 - left / total if total else 0.0
