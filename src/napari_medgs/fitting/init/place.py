"""Where the first Gaussians go: densely at edges, shaped by the local structure tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.arrays import sorted_unique
from napari_medgs._util.threads import run_chunks
from napari_medgs.fitting.advanced import InitializationParams
from napari_medgs.rendering.parameters import A1, B1, GEOMETRY, LOG_R1, LOG_R2, LOG_RT, SHEAR


def importance(
    images: Floats,
    labels: NDArray[np.uint8],
    background: Floats,
    settings: InitializationParams,
    threads: int | None = None,
) -> Floats:
    """Return how much detail each voxel holds, (Z, Y, X), not normalized.

    Smoothed gradient magnitude of all channels, plus a fraction of its foreground mean on all
    foreground voxels, plus the borders between labels.

    Parameters
    ----------
    images : (M, Z, Y, X) ndarray of float32
        Scaled to [0, 1].
    labels : (Z, Y, X) ndarray of uint8
        Class indices, 255 where unlabeled; empty without classes.
    background : (C,) ndarray
        Intensities that hold nothing.
    settings : InitializationParams
    threads : int, optional
        CPU threads; all by default.
    """
    from napari_medgs.fitting.init import voxels

    shape = images.shape[1:] if len(images) else labels.shape
    density = np.zeros(shape, np.float32)
    foreground = np.zeros(shape, np.bool_)
    sums = np.zeros((shape[0], 2))
    for channel, image in enumerate(images):
        smoothed, level = voxels.smooth(image, threads), np.float32(background[channel])

        def slopes(
            z: int, image: Floats = image, smoothed: Floats = smoothed, level: Any = level
        ) -> None:
            voxels.add_squared_slopes(smoothed, z, density[z])
            voxels.mark_apart(image[z], level, np.float32(0.02), foreground[z])

        run_chunks(slopes, shape[0], threads)

    def root(z: int) -> None:
        voxels.root_of_slice(density[z], sums[z])

    run_chunks(root, shape[0], threads)
    largest = np.float32(sums[:, 1].max())
    if labels.size:
        borders = np.empty(shape, np.float32)
        scale = np.float32(sums[:, 0].sum() / density.size * 4 + 1e-3)
        run_chunks(lambda z: voxels.count_borders(labels, z, borders[z]), shape[0], threads)
        borders = voxels.smooth(borders, threads)
        borders *= scale
        density += borders
        foreground |= (labels > 0) & (labels < 255)
        largest = density.max()

    def mark(z: int) -> None:
        voxels.mark_above(density[z], np.float32(0.05) * largest, foreground[z], sums[z])

    run_chunks(mark, shape[0], threads)
    total, count = sums.sum(axis=0)
    if count:
        extra = np.float32(settings.flat_fraction * total / count)

        def lift(z: int) -> None:
            density[z] += extra * foreground[z]

        run_chunks(lift, shape[0], threads)
    return density


def sample_voxels(
    density: Floats, count: int, rng: np.random.Generator, threads: int | None = None
) -> NDArray[np.int64]:
    """Draw flat voxel indices with probability ~ density, stratified and without doubles.

    Returns at most ``count`` increasing indices.
    """
    from napari_medgs.fitting.init.voxels import draw

    if not density.any():
        return np.sort(rng.choice(density.size, min(count, density.size), replace=False))
    marks = (np.arange(count) + rng.random(count)) / count
    return sorted_unique(draw(density, marks, threads))


def foreground_size(density: Floats) -> int:
    """Return the number of voxels that hold anything."""
    return int(np.count_nonzero(density > 0))


def automatic_number(
    images: Floats,
    density: Floats,
    settings: InitializationParams,
    finer: int = 1,
    *,
    by_detail: bool = True,
) -> int:
    """Return the number of Gaussians of an image when none is asked for.

    A fraction of its foreground voxels; in small images more, in proportion to their fine detail.

    Parameters
    ----------
    images : (M, Z, Y, X) ndarray
        Scaled to [0, 1].
    density : (Z, Y, X) ndarray
        Its :func:`importance`.
    settings : InitializationParams
    finer : int
        How many times as dense as the image's own the slices of the stack are.
    by_detail : bool
        Whether detail counts; not where a target quality decides.
    """
    number = foreground_size(density) * settings.gaussians_per_voxel / finer
    if by_detail and number < settings.detail_gaussians and len(images):
        more = min(
            max(fine_detail(images, density > 0) / settings.usual_detail, 1.0),
            settings.max_detail_factor,
        )
        number = min(number * more, settings.detail_gaussians)
    return min(max(int(number), settings.min_gaussians), settings.max_gaussians)


def fine_detail(images: Floats, foreground: NDArray[np.bool_]) -> float:
    """Return the mean squared change by smoothing (sigma one voxel) of the finest channel."""
    from napari_medgs.fitting.init.voxels import smooth

    if not foreground.any():
        return 0.0
    return max(float(np.mean(np.square(image - smooth(image))[foreground])) for image in images)


def place(
    indices: NDArray[np.int64],
    images: Floats,
    labels: NDArray[np.uint8],
    classes: int,
    rng: np.random.Generator,
    others: NDArray[Any] | None = None,
    largest: float = 6.0,
    settings: InitializationParams | None = None,
) -> Floats:
    """Return a parameter table of new Gaussians at voxels.

    Sizes come from the distance to the six nearest neighbors, shapes from the structure
    tensor scaled to determinant one, values from the voxels.

    Parameters
    ----------
    indices : (N,) ndarray of int
        Flat voxel indices.
    images : (M, Z, Y, X) ndarray
    labels : (Z, Y, X) ndarray of class indices
    classes : int
    others : (K, 3) ndarray, optional
        Centers (x, y, t) of Gaussians already there; they count as neighbors.
    largest : float
        Largest sigma, in voxels.
    settings : InitializationParams, optional
    """
    from scipy.spatial import cKDTree

    settings = settings or InitializationParams()
    shape = images.shape[1:] if len(images) else labels.shape
    z, y, x = np.unravel_index(indices, shape)
    count = len(indices)
    parameters = np.zeros((count, GEOMETRY + len(images) + classes), np.float32)
    points = np.stack([x, y, z], axis=1).astype(np.float32)
    jitter = rng.uniform(-0.5, 0.5, points.shape).astype(np.float32)
    jitter[:, [n == 1 for n in (shape[2], shape[1], shape[0])]] = 0
    points += jitter
    parameters[:, :3] = points
    known = points if others is None else np.concatenate([points, others])
    neighbors = min(7, len(known))
    if neighbors > 1:
        distance = np.asarray(cKDTree(known).query(points, k=neighbors, workers=-1)[0])
        sigma = 0.5 * distance[:, 1:].mean(axis=1)
    else:
        sigma = np.full(count, largest)
    sigma = np.clip(sigma, settings.smallest_sigma, largest).astype(np.float32)
    covariance = _local_shapes(images, np.stack([z, y, x], axis=1)) * (sigma**2)[:, None, None]
    _write_covariance(parameters, covariance, flat=shape[0] == 1)
    for channel, image in enumerate(images):
        parameters[:, GEOMETRY + channel] = image[z, y, x]
    if classes:
        here = labels[z, y, x]
        first = GEOMETRY + len(images)
        parameters[:, first:] = -settings.logit * 0.5
        sure = here != 255
        parameters[np.flatnonzero(sure), first + here[sure]] = settings.logit
        parameters[~sure, first:] = 0
    return parameters


def _local_shapes(images: Floats, points: NDArray[np.int64]) -> Floats:
    """Return covariances (N, 3, 3) in (z, y, x) of determinant one, flat across gradients."""
    from napari_medgs.fitting.init.structure import structure_tensors

    count = len(points)
    tensor = np.zeros((count, 3, 3), np.float32)
    chunk = 2048

    for image in images:

        def add(k: int, image: Floats = image) -> None:
            some = slice(k * chunk, (k + 1) * chunk)
            structure_tensors(image, points[some], tensor[some])

        run_chunks(add, -(-count // chunk))
    trace = np.trace(tensor, axis1=1, axis2=2)
    floor = 0.05 * trace + 1e-6 * float(trace.max(initial=0)) + 1e-12
    tensor += floor[:, None, None] * np.eye(3, dtype=np.float32)
    covariance = np.empty_like(tensor)

    def shape(k: int) -> None:
        some = slice(k * chunk, (k + 1) * chunk)
        # Sigma across edges ~ eigenvalue^-1/4, that is gradient^-1/2: a moderate elongation.
        values, vectors = np.linalg.eigh(tensor[some])
        lengths = values ** np.float32(-0.25)
        lengths /= np.exp(np.log(lengths).mean(axis=1, keepdims=True))
        scaled = vectors * np.clip(lengths, 0.4, 2.5)[:, None, :]
        covariance[some] = scaled @ np.swapaxes(scaled, 1, 2)

    run_chunks(shape, -(-count // chunk))
    return covariance


def _write_covariance(parameters: Floats, covariance: Floats, *, flat: bool) -> None:
    """Factor covariances (N, 3, 3) in (z, y, x) into precision factors and the linear fold."""
    if flat:
        covariance[:, 0, 1:] = covariance[:, 1:, 0] = 0
        covariance[:, 0, 0] = 1
    precision = np.linalg.inv(covariance.astype(np.float64))
    # P = R^T R with R upper triangular in the order (x, y, z): eliminate x, then y.
    p = precision[:, ::-1, ::-1]
    r1 = np.sqrt(p[:, 0, 0])
    lx_y, lx_z = p[:, 0, 1] / r1, p[:, 0, 2] / r1
    r2 = np.sqrt(p[:, 1, 1] - lx_y**2)
    ly_z = (p[:, 1, 2] - lx_y * lx_z) / r2
    rt = np.sqrt(p[:, 2, 2] - lx_z**2 - ly_z**2)
    shear = -lx_y / r1
    b = -ly_z / r2
    a = -lx_z / r1 + shear * b
    parameters[:, LOG_R1], parameters[:, LOG_R2], parameters[:, LOG_RT] = (
        np.log(r1),
        np.log(r2),
        np.log(rt),
    )
    parameters[:, SHEAR] = shear * r1 / r2
    parameters[:, A1], parameters[:, B1] = a, b
