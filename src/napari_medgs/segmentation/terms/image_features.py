"""Image features of the solver: channels with equalized contrast at four scales, slice-first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs._util.trilinear import trilinear
from napari_medgs.data.equalization import KNOTS, intensity_curve
from napari_medgs.data.intensities import scale_to_unit, survives_rounding
from napari_medgs.segmentation.term_params import BiasParams, FeatureParams
from napari_medgs.segmentation.terms.alternating_slices import without_alternation
from napari_medgs.segmentation.terms.bias_field import without_bias
from napari_medgs.segmentation.terms.smooth_fill import fill_smoothly

DENSITY = 1  # which of a channel's features the densities are of
MIN_STEP = 1e-3  # differences of neighbors below this are empty space, not noise
FEW_SLICES = 64  # that steps between voxels are measured on
CHUNK = 16384
TRUNCATE = 3.0  # standard deviations of a smoothing kernel

_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz"}}


@njit(**_options)
def _gather(
    sharp: Any,
    smooth: Any,
    scales: Any,
    curves: Any,
    coarse: Any,
    factors: Any,
    points: Any,
    first: int,
    last: int,
    out: Any,
) -> None:
    channels, levels = len(sharp), coarse.shape[1]
    width = 2 + levels
    knots = curves.shape[1] - 1
    for i in range(first, last):
        z, y, x = points[i, 0], points[i, 1], points[i, 2]
        half = np.float32(0.5)
        cz = (z + half) / factors[0] - half
        cy = (y + half) / factors[1] - half
        cx = (x + half) / factors[2] - half
        for c in range(channels):
            row = out[i, c * width : (c + 1) * width]
            row[0] = trilinear(sharp[c], z, y, x) * np.float32(1 / 65535)
            place = trilinear(smooth[c], z, y, x) * scales[c] * knots
            place = min(max(place, np.float32(0)), np.float32(knots - 1e-3))
            k = int(place)
            f = place - k
            row[1] = (np.float32(1) - f) * curves[c, k] + f * curves[c, k + 1]
            for s in range(levels):
                row[2 + s] = trilinear(coarse[c, s], cz, cy, cx)


@dataclass(frozen=True)
class ImageFeatures:
    """Features of an image, all arrays slice-first.

    Attributes
    ----------
    guide : (C, Z, Y, X) ndarray of float32
        The guide image: smoothed channels over their mean difference between neighbors, whose
        gradient paths integrate.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.
    value_ranges : (F, 2) ndarray
        Range of every feature.
    sharp : (C, Z, Y, X) ndarray of uint16
        Channels without smoothing, with equalized contrast.
    noisy : tuple of bool
        For each channel whether noise changes it from voxel to voxel.
    strengths : (C,) ndarray of float32 or None
        Factors of the channels in ``edges``.
    missing : (C, Z, Y, X) ndarray of bool or None
        Where a channel has no value: it is continued smoothly, without a gradient that counts.
    slice_distance : float
        Paths count slices as at most this far apart, in finest voxels.
    even : ImageFeatures or None
        Of the image without a strong field of brightness, where there is one: features at points
        are theirs. Gradients stay those of the image, whose noise is as strong everywhere.
    """

    guide: Floats
    relative_spacing: NDArray[np.float64]
    value_ranges: Floats
    sharp: NDArray[np.uint16]
    noisy: tuple[bool, ...]
    _scales: Floats
    _curves: Floats
    _coarse: Floats
    _factors: Floats
    strengths: Floats | None = None
    missing: NDArray[np.bool_] | None = None
    slice_distance: float = np.inf
    even: ImageFeatures | None = None

    def weighed(self, strengths: Floats | None, slice_distance: float = np.inf) -> ImageFeatures:
        """Return features whose channels or slices count differently in paths and gradients.

        Parameters
        ----------
        strengths : (C,) ndarray of float32 or None
            Factors of the channels; all alike for None.
        slice_distance : float
            Most finest voxels between slices; as far as they are by default.
        """
        return replace(self, strengths=strengths, slice_distance=slice_distance)

    @property
    def path_spacing(self) -> NDArray[np.float64]:
        """Distances of voxels along paths over that of the finest ones, (3,)."""
        spacing = self.relative_spacing.copy()
        spacing[0] = min(spacing[0], self.slice_distance)
        return spacing

    @property
    def edges(self) -> Floats:
        """The guide image for gradients, (C, Z, Y, X): channels times their strengths."""
        return self._strengthened(self.guide)

    def _strengthened(self, image: Floats) -> Floats:
        if self.strengths is None or (self.strengths == 1).all():
            return image
        kept = self.strengths > 0
        return image[kept] * self.strengths[kept][:, None, None, None]

    @property
    def _per_channel(self) -> int:
        return 2 + self._coarse.shape[1]

    @property
    def count(self) -> int:
        """Number of features."""
        return self._per_channel * len(self.guide)

    @property
    def density_columns(self) -> tuple[int, ...]:
        """For each channel, the feature whose density is estimated."""
        return tuple(c * self._per_channel + DENSITY for c in range(len(self.guide)))

    def guide_at_scale(self, sigma: float, clean_sigma: float | None = None) -> Floats:
        """Return the guide image at another scale.

        Parameters
        ----------
        sigma : float
            Standard deviation of the smoothing, in voxels of the finest axis.
        clean_sigma : float, optional
            That of channels without noise from voxel to voxel; the same by default.

        Returns
        -------
        (C, Z, Y, X) ndarray of float32
            Over its mean difference between neighbors, like ``edges``; channels without strength
            are left out.
        """
        out = np.empty(self.guide.shape, np.float32)
        channels, depth = self.guide.shape[:2]
        knots = np.linspace(0, 1, KNOTS + 1, dtype=np.float32)

        def scale(k: int) -> None:
            c, z = divmod(k, depth)
            place = self.sharp[c, z].astype(np.float32) * np.float32(1 / 65535)
            out[c, z] = np.interp(place, self._curves[c], knots)

        run_chunks(scale, channels * depth)
        clean = sigma if clean_sigma is None else clean_sigma
        for c, channel in enumerate(out):
            _smooth_in_place(channel, sigma if self.noisy[c] else clean, self.relative_spacing)
            channel /= _mean_step(channel, None if self.missing is None else self.missing[c])
        return self._strengthened(out)

    def at(self, points: NDArray[Any]) -> Floats:
        """Return the features at points.

        Parameters
        ----------
        points : (P, 3) ndarray
            In slice-first voxels.

        Returns
        -------
        (P, F) ndarray of float32
            NaN for channels without a value there.
        """
        if self.even is not None:
            return self.even.at(points)
        points = np.ascontiguousarray(points, np.float32)
        out = np.empty((len(points), self.count), np.float32)

        def task(block: int) -> None:
            first = block * CHUNK
            last = min(len(points), first + CHUNK)
            _gather(
                self.sharp, self.guide, self._scales, self._curves, self._coarse, self._factors,
                points, first, last, out,
            )  # fmt: skip

        run_chunks(task, -(-len(points) // CHUNK))
        if self.missing is not None:
            last = np.asarray(self.guide.shape[1:]) - 1
            voxels = tuple(np.clip(np.rint(points).astype(np.int64), 0, last).T)
            for c, lacks in enumerate(self.missing):
                out[lacks[voxels], c * self._per_channel : (c + 1) * self._per_channel] = np.nan
        return out


def image_features(
    data: NDArray[Any],
    spacing: NDArray[np.float64],
    params: FeatureParams | None = None,
    missing: NDArray[np.bool_] | None = None,
    bias: BiasParams | None = None,
) -> ImageFeatures:
    """Compute the features of an image.

    Parameters
    ----------
    data : (C, Z, Y, X) ndarray
        Slice axis first.
    spacing : (3,) ndarray
        Voxel sizes in mm.
    params : FeatureParams, optional
    missing : (C, Z, Y, X) ndarray of bool, optional
        Where a channel has no value.
    bias : BiasParams, optional

    Returns
    -------
    ImageFeatures
    """
    if missing is not None:
        pairs = list(zip(data, missing, strict=True))
        data = np.stack([fill_smoothly(*pair) if pair[1].any() else pair[0] for pair in pairs])
    data = without_alternation(data)
    relative_spacing = np.asarray(spacing, float) / min(spacing)
    own = params or FeatureParams()
    found = _features(data, relative_spacing, own, missing)
    even = without_bias(data, relative_spacing, bias, missing)
    if even is data:
        return found
    return replace(found, even=_features(even, relative_spacing, own, missing))


def _features(
    data: NDArray[Any],
    relative_spacing: NDArray[np.float64],
    params: FeatureParams,
    missing: NDArray[np.bool_] | None,
) -> ImageFeatures:
    channels, depth = data.shape[:2]
    guide = np.empty(data.shape, np.float32)
    sharp = np.empty(data.shape, np.uint16)
    curves = np.empty((channels, KNOTS + 1), np.float32)
    ranges = []
    for c in range(channels):
        measured = data[c]
        if missing is not None and missing[c].any():
            measured = measured[~missing[c]]
        low, high, curves[c] = intensity_curve(measured, params.equalization)
        ranges.append((low, high))

    def scale(k: int) -> None:
        c, z = divmod(k, depth)
        low, high = ranges[c]
        if survives_rounding(data.dtype, low, high):
            with np.errstate(over="ignore"):
                linear = data[c, z].astype(np.float32) - np.float32(low)
                linear /= np.float32(high - low)
            np.clip(linear, 0, 1, out=linear)
        else:
            linear = np.empty(data[c, z].shape, np.float32)
            scale_to_unit(data[c, z], low, high, linear)
        guide[c, z] = linear
        place = (linear * KNOTS).astype(np.int32)
        sharp[c, z] = (curves[c][place] * 65535).astype(np.uint16)

    run_chunks(scale, channels * depth)
    factors = np.where((relative_spacing < 1.5) & (np.asarray(data.shape[1:]) >= 8), 2, 1)
    coarse = np.stack(
        [
            np.stack(_coarse_levels(sharp[c], relative_spacing, factors, params.coarse_sigmas))
            for c in range(channels)
        ]
    )
    noisy = tuple(_step_correlation(channel) < params.noise_correlation for channel in guide)
    scales = np.empty(channels, np.float32)
    for c in range(channels):
        _smooth_in_place(guide[c], params.guide_sigma, relative_spacing)
        scales[c] = _mean_step(guide[c], None if missing is None else missing[c])
    guide /= scales[:, None, None, None]
    return ImageFeatures(
        guide,
        relative_spacing,
        np.tile(np.array([[0, 1]], np.float32), ((2 + coarse.shape[1]) * channels, 1)),
        sharp,
        noisy,
        scales,
        curves,
        coarse,
        factors.astype(np.float32),
        missing=missing,
    )


def _smooth_in_place(volume: Floats, sigma: float, relative_spacing: NDArray[np.float64]) -> None:
    """Blur by ``sigma`` finest voxels, equally in mm, one axis at a time in slabs."""
    from scipy.ndimage import gaussian_filter1d

    slabs = 8
    for axis in range(3):
        width = sigma / relative_spacing[axis]
        if volume.shape[axis] < 3 or int(TRUNCATE * width + 0.5) == 0:
            continue  # a kernel of one voxel; the square of a tiny width may be zero
        across = 1 if axis == 0 else 0
        edges = np.linspace(0, volume.shape[across], slabs + 1).astype(int)

        def blur(
            k: int,
            axis: int = axis,
            across: int = across,
            edges: Any = edges,
            width: float = float(width),
        ) -> None:
            part = np.moveaxis(volume, across, 0)[edges[k] : edges[k + 1]]
            along = axis if across == 0 else 1  # axis 0 moved behind the slab axis
            if part.size:
                part[:] = gaussian_filter1d(part, width, axis=along, truncate=TRUNCATE)

        run_chunks(blur, slabs)


def _coarse_levels(
    sharp: NDArray[np.uint16],
    relative_spacing: NDArray[np.float64],
    factors: NDArray[Any],
    sigmas: tuple[float, ...],
) -> list[Floats]:
    """Return an image at coarse scales, on a grid of blocks of ``factors`` voxels."""
    shape = [-(-n // f) for n, f in zip(sharp.shape, factors, strict=True)]
    small = np.zeros(shape, np.float32)
    hits = np.zeros(shape, np.float32)
    for a in range(factors[0]):
        for b in range(factors[1]):
            for c in range(factors[2]):
                part = sharp[a :: factors[0], b :: factors[1], c :: factors[2]]
                box = tuple(slice(0, n) for n in part.shape)
                small[box] += part
                hits[box] += 1
    small /= hits * 65535
    levels, done = [], 0.0
    for sigma in sigmas:
        _smooth_in_place(small, float(np.sqrt(sigma**2 - done**2)), relative_spacing * factors)
        done = sigma
        levels.append(small.copy())
    return levels


def _mean_step(volume: Floats, missing: NDArray[np.bool_] | None = None) -> float:
    """Return the mean absolute difference between neighbors along the last axis, if not zero.

    Neighbors one of which is missing do not count.
    """
    axis = 2 if volume.shape[2] > 1 else 1
    stride = max(1, volume.shape[0] // 64)
    steps = np.abs(np.diff(volume[::stride], axis=axis))
    if missing is not None:
        lacks = np.moveaxis(missing[::stride], axis, -1)
        steps = np.moveaxis(steps, axis, -1)[~(lacks[..., 1:] | lacks[..., :-1])]
    moving = steps[steps > MIN_STEP]
    return float(moving.mean()) if moving.size else 1.0


def _step_correlation(volume: Floats) -> float:
    """Return how differences between neighbors correlate with the next ones in a row or column.

    -1/2 in white noise, about 0 at steps as sharp as voxels, and more the smoother an image is.
    """
    products, squares = 0.0, 0.0
    for plane in volume[:: max(1, len(volume) // FEW_SLICES)]:
        for rows in (plane, plane.T):
            steps = np.diff(rows, axis=0)
            first, second = steps[:-1].ravel(), steps[1:].ravel()
            products += float(first @ second)
            squares += (float(first @ first) + float(second @ second)) / 2
    return products / squares if squares else 0.0
