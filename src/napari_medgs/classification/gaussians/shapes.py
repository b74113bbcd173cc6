"""Binary shapes as Gaussians: k-means clusters of foreground voxels, by their moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numba as nb
import numpy as np
import torch

from napari_medgs._util.threads import run_chunks
from napari_medgs.classification.gaussians.set import GaussianSet
from napari_medgs.classification.gaussians.settings import FitSettings
from napari_medgs.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LLOYD_ITERATIONS = 10
VOXEL_VARIANCE = 1 / 12  # of a voxel's own extent, which a point at its center lacks


def fit_shapes(
    images: NDArray[Any], settings: FitSettings, report: Callable[[int], None]
) -> GaussianSet:
    """Cluster the foreground (> 0.5) of every image by k-means from farthest points.

    Each cluster becomes one Gaussian with its number of voxels, mean and covariance. If a shape
    has fewer voxels than Gaussians, the others have weight 0, at the shape's center.

    Parameters
    ----------
    images : (B, 1, ...) ndarray
    settings : FitSettings
    report : callable
        Receives the number of images that are done.

    Returns
    -------
    GaussianSet

    Raises
    ------
    ImageError
        When a shape is empty.
    """
    inside = images[:, 0] > 0.5
    full = inside.reshape(len(inside), -1).any(1)
    if not full.all():
        raise ImageError(
            f"Image {int(np.flatnonzero(~full)[0])} contains no shape: no value is above "
            "half of the intensity range."
        )
    b, n, d = len(inside), settings.gaussians, inside.ndim - 1
    means, spread = np.zeros((b, n, d), np.float32), np.zeros((b, n, d, d), np.float32)
    occupancy, missed = np.zeros((b, n), np.float32), np.zeros((b, n), np.float32)
    slope = np.zeros((b, n), np.float32)
    step = 64
    for first in range(0, b, step):
        last = min(b, first + step)

        def one(k: int, first: int = first) -> None:
            points = np.argwhere(inside[first + k]).astype(np.float64)
            place = slice(first + k, first + k + 1)
            _cluster(
                points, LLOYD_ITERATIONS, means[place][0], spread[place][0],
                occupancy[place][0], missed[place][0], slope[place][0],
            )  # fmt: skip

        run_chunks(one, last - first)
        report(last)
    return GaussianSet(
        means=torch.from_numpy(means),
        covariances=torch.from_numpy(spread),
        values=torch.ones(b, n, 1),
        weights=torch.from_numpy(occupancy),
        residual=torch.from_numpy(missed),
        gradient=torch.from_numpy(slope),
        shape=tuple(inside.shape[1:]),
        occupancy=True,
    )


@nb.njit(cache=True, nogil=True)
def _squared_distance(points, p, places, k):  # type: ignore[no-untyped-def]
    away = 0.0
    for a in range(points.shape[1]):
        away += (points[p, a] - places[k, a]) ** 2
    return away


# Arrays are filled element by element: numba takes 5 s longer to compile whole assignments.
@nb.njit(cache=True, nogil=True)
def _cluster(points, rounds, means, spread, occupancy, missed, slope):  # type: ignore[no-untyped-def]
    count, d = points.shape
    n = len(means)
    used = min(n, count)
    center = np.zeros((1, d))
    for p in range(count):
        for a in range(d):
            center[0, a] += points[p, a] / count
    nearest = np.full(count, np.inf)
    owner = np.zeros(count, np.int64)
    places = np.zeros((n, d))
    for k in range(n):
        for a in range(d):
            places[k, a] = center[0, a]
    # Farthest points, from the voxel farthest from the center: no random choice.
    far, best = 0, -1.0
    for p in range(count):
        away = _squared_distance(points, p, center, 0)
        if away > best:
            far, best = p, away
    for k in range(used):
        for a in range(d):
            places[k, a] = points[far, a]
        best = -1.0
        for p in range(count):
            away = _squared_distance(points, p, places, k)
            if away < nearest[p]:
                nearest[p], owner[p] = away, k
            if nearest[p] > best:
                far, best = p, nearest[p]
    total = np.zeros(n)
    for _ in range(rounds):
        for p in range(count):
            best = np.inf
            for k in range(used):
                away = _squared_distance(points, p, places, k)
                if away < best:
                    best, owner[p] = away, k
        sums = np.zeros((n, d))
        total[:] = 0
        for p in range(count):
            total[owner[p]] += 1
            for a in range(d):
                sums[owner[p], a] += points[p, a]
        for k in range(used):
            if total[k] > 0:
                for a in range(d):
                    places[k, a] = sums[k, a] / total[k]
    moments = np.zeros((n, d, d))
    for p in range(count):
        k = owner[p]
        for a in range(d):
            for c in range(d):
                moments[k, a, c] += (points[p, a] - places[k, a]) * (points[p, c] - places[k, c])
    inverse = np.zeros((n, d, d))
    height = np.zeros(n)
    for k in range(n):
        occupancy[k] = total[k]
        for a in range(d):
            for c in range(d):
                if total[k] > 0:
                    moments[k, a, c] /= total[k]
                if a == c:
                    moments[k, a, c] += VOXEL_VARIANCE
                spread[k, a, c] = moments[k, a, c]
            means[k, a] = places[k, a]
        inverted = np.linalg.inv(moments[k])
        for a in range(d):
            for c in range(d):
                inverse[k, a, c] = inverted[a, c]
        height[k] = total[k] / np.sqrt((2 * np.pi) ** d * np.linalg.det(moments[k]))
    # How far the sum of the Gaussians is from 1 inside the shape.
    offset = np.zeros(d)
    for p in range(count):
        density = 0.0
        for k in range(used):
            q = 0.0
            for a in range(d):
                offset[a] = points[p, a] - places[k, a]
            for a in range(d):
                for c in range(d):
                    q += offset[a] * inverse[k, a, c] * offset[c]
            if q < 18:
                density += height[k] * np.exp(-0.5 * q)
        missed[owner[p]] += (density - 1) ** 2
    for k in range(used):
        if total[k] > 0:
            missed[k] = np.sqrt(missed[k] / total[k])
        pull = np.zeros(d)
        for j in range(used):
            q = 0.0
            for a in range(d):
                offset[a] = places[k, a] - places[j, a]
            for a in range(d):
                for c in range(d):
                    q += offset[a] * inverse[j, a, c] * offset[c]
            if q < 18:
                g = height[j] * np.exp(-0.5 * q)
                for a in range(d):
                    for c in range(d):
                        pull[a] -= g * inverse[j, a, c] * offset[c]
        squared = 0.0
        for a in range(d):
            squared += pull[a] ** 2
        slope[k] = np.sqrt(squared)
