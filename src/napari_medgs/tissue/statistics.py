"""From an image and its field to bags: what every Gaussian holds of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Doubles, Floats
from napari_medgs.rendering.cpu.shares import ShareProjector
from napari_medgs.tissue.bias import LegendreBasis
from napari_medgs.tissue.mixture import Bags

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField

LEAST_MASS = 0.05  # voxels; Gaussians with less have no say
FLOOR = 1e-4  # variance of the noise, in units of the variance of the image


def measure_bags(
    shares: ShareProjector,
    image: Floats,
    region: NDArray[np.bool_],
) -> tuple[Doubles, Doubles, Doubles]:
    """Return mass (N,), mean (N, C) and covariance (N, C, C) of the image in every Gaussian.

    Parameters
    ----------
    shares : ShareProjector
    image : (C, Z, Y, X) ndarray of float32
        Slice-first.
    region : (Z, Y, X) ndarray of bool
        Voxels that count.
    """
    channels = len(image)
    shift = image[:, region].mean(axis=1, dtype=np.float64)
    pairs = [(a, b) for a in range(channels) for b in range(a, channels)]

    def planes(z: int, blended: Floats, empty: NDArray[np.bool_]) -> Floats:
        del blended, empty
        out = np.empty((1 + channels + len(pairs), *image.shape[2:]), np.float32)
        out[0] = 1
        for c in range(channels):
            out[1 + c] = image[c, z] - shift[c]
        for k, (a, b) in enumerate(pairs):
            out[1 + channels + k] = out[1 + a] * out[1 + b]
        return out

    nothing = np.zeros((shares.count, 1), np.float32)
    sums = shares.collect(nothing, 1 + channels + len(pairs), planes, region)
    mass = sums[:, 0]
    safe = np.maximum(mass, 1e-12)
    mean = sums[:, 1 : 1 + channels] / safe[:, None]
    within = np.empty((len(mass), channels, channels))
    for k, (a, b) in enumerate(pairs):
        moment = sums[:, 1 + channels + k] / safe - mean[:, a] * mean[:, b]
        within[:, a, b] = within[:, b, a] = np.maximum(moment, 0) if a == b else moment
    return mass, mean + shift, within


def make_bags(
    field: GaussianField,
    moments: tuple[Doubles, Doubles, Doubles],
    basis: LegendreBasis,
    floor: Doubles,
) -> tuple[Bags, NDArray[np.bool_]]:
    """Return the bags of the Gaussians that have voxels, and which these are.

    Parameters
    ----------
    field : GaussianField
    moments : mass, mean and covariance
        Of :func:`measure_bags`.
    basis : LegendreBasis
        In slice-first voxels.
    floor : (C,) ndarray
        Variance of the noise.
    """
    mass, mean, within = moments
    used = mass >= LEAST_MASS
    places = field.centers[used][:, [2, 1, 0]].astype(np.float64)
    noisy = within[used] + np.diag(floor)
    return Bags(mass[used], mean[used], noisy, basis.at(places)), used
