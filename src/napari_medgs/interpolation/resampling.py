"""Whether the slices of a stack were resampled from those of a scan, and how.

A slice between two of the scan is a mean of several, so that its finest texture, noise included,
is weaker than that of a slice close to one of the scan, and two neighbors share more of it the
more slices of the scan they share. Where slices lie 0.8 times as far apart as those of the scan,
both change along the axis with a period of five slices. From them follow the interpolation that
was used, the distance and the phase.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.interpolation.baselines import interpolate_baseline
from napari_medgs.interpolation.sampling import fine_texture

# A quintic spline stands for wider kernels as well, windowed or not.
Kernel = Literal["linear", "cubic", "quintic"]
# Distances of slices, in slices of the scan, that are looked for, and phases. Along the stack no
# slice is off by more than a tenth of a slice.
STEPS = (0.55, 1.62)
DRIFT = 0.4
PHASES = 8
# Correlation of the texture of neighbors in the scan, and noise that came later.
NEIGHBORS = (0.0, 0.2)
NOISE = (0.0, 0.2)
# Places per slice of the scan in the table of covariances, and distances that are compared.
PLACES = 20
LAGS = 3
FAR = range(LAGS + 1, LAGS + 6)
MOST_COMMON = 0.9
MAX_SLICES = 40
# How large the misfit of a model may be, as a root mean square of correlations, and against that
# of slices that all have the same texture. At a distance of nearly one the phase does not come
# back within the stack, and the texture of some scans changes as slowly.
MOST_MISFIT = 0.13
MOST_TO_UNIFORM = 0.92
LEAST_SLICES = 10
MOST_TO_UNIFORM_NEARLY_ONE = 0.65
LEAST_SLICES_NEARLY_ONE = 20
# Slices with less than this of the usual power are empty.
LEAST_POWER = 1e-2


@dataclass(frozen=True)
class Resampling:
    """How slices were made from those of a scan.

    Attributes
    ----------
    kernel : {"linear", "cubic", "quintic"}
    step : float
        Distance of neighboring slices, in slices of the scan.
    phase : float
        Of the first slice, behind a slice of the scan, 0 to 1.
    """

    kernel: Kernel
    step: float
    phase: float

    def repeat(self, stack: Floats) -> Floats:
        """Resample slices as if they were those of the scan, with one more in every gap.

        Parameters
        ----------
        stack : (Z, Y, X) ndarray of float32

        Returns
        -------
        (W, Y, X) ndarray of float32
            Every second one lies as the slices that exist lie in the scan.
        """
        wanted = np.arange(self.phase, len(stack) - 1, self.step / 2)
        return interpolate_baseline(stack, np.arange(len(stack)), wanted, self.kernel)


@cache
def _covariances(kernel: Kernel) -> NDArray[np.float64]:
    """Return those (2, P, P) of places along the axis: of white slices, and of their neighbors."""
    margin = 10
    count = int(np.ceil(1 + LAGS * STEPS[1])) * PLACES + 1
    slices = 2 * margin + count // PLACES + 1
    places = margin + np.arange(count) / PLACES
    one = np.eye(slices, dtype=np.float32)[:, None]
    weights = interpolate_baseline(one, np.arange(slices), places, kernel)[:, 0]
    weights = weights.astype(np.float64)
    beside = weights[:, 1:] @ weights[:, :-1].T
    return np.stack([weights @ weights.T, beside + beside.T])


def _look(covariances: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return what is compared (..., F), of covariances (LAGS + 1, ..., Z) with later slices.

    Correlations, and the power of slices against that of their neighbors. The last slices have
    no later ones.
    """
    power, count = covariances[0], covariances.shape[-1]
    parts = [
        covariances[lag][..., : count - lag]
        / np.sqrt(power[..., : count - lag] * power[..., lag:])
        for lag in range(1, LAGS + 1)
    ]
    level = np.log(power)
    # Power varies with what is seen, too, and says less.
    parts.append(0.35 * (level[..., 1:-1] - 0.5 * (level[..., 2:] + level[..., :-2])))
    return np.concatenate(parts, axis=-1).astype(np.float32)


@lru_cache(maxsize=4)
def _models(count: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the looks (M, F) of so many slices made in all ways, and step and phase (M, 2).

    A third of the models each are of the three kernels.
    """
    steps = np.arange(*STEPS, DRIFT / count)
    phases = np.arange(PHASES) / PHASES
    place = phases[:, None] + steps[:, None, None] * np.arange(count)
    first = np.rint((place % 1) * PLACES).astype(np.int64)
    looks = []
    for kernel in get_args(Kernel):
        white, beside = (
            np.stack(
                [
                    table[first, first + np.rint(lag * steps * PLACES).astype(int)[:, None, None]]
                    for lag in range(LAGS + 1)
                ]
            )
            for table in _covariances(kernel)
        )
        for shared in NEIGHBORS:
            total = white + shared * beside
            for noise in NOISE:
                noisy = total.copy()
                noisy[0] += noise * total[0].mean(axis=-1, keepdims=True)
                looks.append(_look(noisy).reshape(steps.size * PHASES, -1))
    grid = np.stack(np.broadcast_arrays(steps[:, None], phases), axis=-1).reshape(-1, 2)
    return np.concatenate(looks), np.tile(grid, (len(looks), 1))


def find_resampling(stack: Floats) -> Resampling | None:
    """Return how evenly spaced slices were resampled, where they show it.

    Parameters
    ----------
    stack : (Z, Y, X) ndarray of float32
        Of more than forty, those in the middle are looked at.

    Returns
    -------
    Resampling or None
        None where all slices look alike: where they were scanned one by one, at whole multiples
        of the distance of the scan's, and where what they share does not tell their phase.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.interpolation import interpolate_baseline
    >>> scan = np.random.default_rng(0).random((30, 32, 32)).astype(np.float32)
    >>> find_resampling(scan) is None
    True
    >>> more = interpolate_baseline(scan, np.arange(30), np.arange(0, 29, 0.8), "linear")
    >>> found = find_resampling(more)
    >>> found.kernel, round(found.step, 2)
    ('linear', 0.8)
    """
    begin = max(0, (len(stack) - MAX_SLICES) // 2)
    some = stack[begin : begin + MAX_SLICES]
    if min(some.shape[1:]) < 3 or len(some) < LEAST_SLICES:
        return None
    texture = fine_texture(some).reshape(len(some), -1)
    products = (texture @ texture.T).astype(np.float64)
    power = np.diag(products)
    there = np.flatnonzero(power > LEAST_POWER * np.median(power))
    if len(there) < LEAST_SLICES or there[-1] - there[0] >= len(there):
        return None
    products = products[there[0] : there[-1] + 1, there[0] : there[-1] + 1]
    count = len(products)
    later = [np.pad(np.diag(products, lag), (0, lag)) for lag in range(LAGS + 1)]
    seen = _look(np.stack(later))
    ends = np.cumsum([count - lag for lag in range(1, LAGS + 1)])
    # What slices have in common that are farther apart is anatomy, not how they were made.
    size = np.sqrt(np.diag(products))
    far = [np.diag(products / np.outer(size, size), lag) for lag in FAR]
    common = float(np.clip(np.concatenate(far).mean(), 0.0, MOST_COMMON))
    seen[: ends[-1]] = (seen[: ends[-1]] - common) / (1 - common)
    alike = [part - part.mean() for part in np.split(seen, ends)[:-1]] + [seen[ends[-1] :]]
    looks, grid = _models(count)
    misfits = ((looks - seen) ** 2).sum(axis=1)
    best = int(misfits.argmin())
    step, phase = grid[best]
    without = sum(float(part @ part) for part in alike)
    nearly = abs(step - 1) * count < 1
    if nearly and count < LEAST_SLICES_NEARLY_ONE:
        return None
    most = MOST_TO_UNIFORM_NEARLY_ONE if nearly else MOST_TO_UNIFORM
    if misfits[best] >= min(most**2 * without, MOST_MISFIT**2 * count):
        return None
    kernels = get_args(Kernel)
    kernel: Kernel = kernels[best * len(kernels) // len(looks)]
    phase = (phase - step * (begin + there[0])) % 1.0
    return Resampling(kernel, float(step), float(phase))


def best_shares(products: NDArray[Any], least: float) -> NDArray[np.float64]:
    """Return the shares (3,), none negative and of sum 1, of least squared error.

    Parameters
    ----------
    products : (3, 3) ndarray
        Mean products of the errors of three methods.
    least : float
        The first share is 0 or at least this.
    """
    parts = 20
    first, second = np.meshgrid(np.arange(parts + 1), np.arange(parts + 1), indexing="ij")
    shares = np.stack([first, second, parts - first - second], axis=-1).reshape(-1, 3) / parts
    shares = shares[(shares[:, 2] >= 0) & ((shares[:, 0] == 0) | (shares[:, 0] >= least))]
    errors = np.einsum("ij,jk,ik->i", shares, products, shares)
    best: NDArray[np.float64] = shares[errors.argmin()]
    return best
