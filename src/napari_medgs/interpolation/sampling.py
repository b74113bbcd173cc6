"""How densely a stack is sampled along its slice axis, as its own slices show it.

In-plane, the finest texture of slices that are scanned one by one has nothing in common with that
of the next slice. Along the axis, aliasing keeps the spectrum of such slices high up to the
Nyquist frequency, where that of resampled and of interpolated slices falls.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats

# What is looked at of larger stacks: so many runs of so many slices, and of rows and columns.
RUNS = 4
RUN_LENGTH = 12
MAX_SIDE = 256
MAX_SMOOTHING = 4.0
# Slices are not points: the profile of one that is as thick as it is far from the next.
PROFILE_VARIANCE = 1 / 12
# Frequencies in cycles per slice between which the edge of the spectrum is measured, with so many
# tapers.
EDGE = (0.375, 0.5)
TAPERS = 3


def middle(stack: Floats, side: int) -> Floats:
    """Return at most so many rows and columns in the middle."""
    box = (slice(max(0, (n - side) // 2), (n + side) // 2) for n in stack.shape[1:])
    return stack[(slice(None), *box)]


def spread_runs(stack: Floats, positions: NDArray[Any]) -> list[tuple[Floats, NDArray[Any]]]:
    """Return runs of neighboring slices and their positions, spread over the stack.

    They lie symmetrically, so that a stack turned upside down gives the same.
    """
    some = middle(stack, MAX_SIDE)
    between = len(stack) - RUNS * RUN_LENGTH
    if between <= 0:
        starts, length = [0], len(stack)
    else:
        length = RUN_LENGTH
        ahead = [(2 * k + 1) * between // (2 * RUNS) + k * length for k in range(RUNS // 2)]
        starts = ahead + [len(stack) - length - start for start in reversed(ahead)]
    return [
        (np.array(some[k : k + length], np.float32, order="C"), positions[k : k + length])
        for k in starts
    ]


def fine_texture(stack: Floats) -> Floats:
    """Second differences along rows and columns of (Z, Y, X), without outliers."""
    rows = stack[:, 2:] - 2 * stack[:, 1:-1] + stack[:, :-2]
    fine: Floats = rows[..., 2:] - 2 * rows[..., 1:-1] + rows[..., :-2]
    size = np.abs(fine[fine != 0])
    limit = 3 * float(np.median(size)) / 0.6745 if size.size else 0.0
    return np.clip(fine, -limit, limit)


def texture_correlation(stacks: list[Floats]) -> float:
    """Return how much the finest in-plane texture of slices is like that of the next ones.

    Parameters
    ----------
    stacks : list of (Z, Y, X) ndarray of float32
        Of one shape.

    Returns
    -------
    float
        Mean product of the texture of neighbors over its mean square: near 0 where slices are
        scanned one by one, 0.2 and more where they were resampled or interpolated.
    """
    if len(stacks[0]) < 2 or min(stacks[0].shape[1:]) < 3:
        return 0.0
    near = power = 0.0
    for stack in stacks:
        fine = fine_texture(stack)
        near += float(np.mean(fine[1:] * fine[:-1]))
        power += float(np.mean(fine * fine))
    return near / power if power > 0 else 0.0


def spectral_edge(stack: Floats) -> float:
    """Return how steeply the power spectrum along the slice axis ends, in dB.

    Parameters
    ----------
    stack : (Z, Y, X) ndarray of float32

    Returns
    -------
    float
        Level at the Nyquist frequency against three quarters of it, -40 to 0: about -1 where
        slices are scanned one by one. By three sine tapers (Riedel and Sidorenko 1995, IEEE
        Transactions on Signal Processing 43:188) of the differences of neighboring slices.
    """
    steps = np.diff(stack.reshape(len(stack), -1).astype(np.float32), axis=0)
    count = len(steps)
    if count < TAPERS:
        return 0.0
    place = np.arange(count)
    tapers = np.sin(np.pi * np.outer(np.arange(1, TAPERS + 1), place + 1) / (count + 1))
    level = []
    for frequency in EDGE:
        wave = np.exp(-2j * np.pi * frequency * place)
        lines = (tapers * wave).astype(np.complex64) @ steps
        # The differences pass high frequencies more than the slices hold them.
        level.append(float(np.mean(np.abs(lines) ** 2)) / (2 * np.sin(np.pi * frequency)) ** 2)
    if not min(level) > 0:
        return 0.0
    return float(np.clip(10 * np.log10(level[1] / level[0]), -40.0, 0.0))


def _growth(products: NDArray[np.float64], distance: int) -> float:
    """Mean squared difference of slices at twice this distance over that at this distance.

    ``products`` (Z, Z) are the inner products of all pairs of slices.
    """
    power = np.diag(products)
    near, far = (
        float(np.mean(power[d:] + power[:-d] - 2 * np.diag(products, d)))
        for d in (distance, 2 * distance)
    )
    return far / near if near > 0 else 0.0


def matching_smoothing(stacks: list[Floats]) -> float:
    """Return the smoothing that makes stacks at twice the distance like they are now.

    Parameters
    ----------
    stacks : list of (Z, Y, X) ndarray of float32
        Of one shape.

    Returns
    -------
    float
        Standard deviation in slices, 0 to 4. Of the finest in-plane texture, noise included, the
        mean squared difference between slices grows from twice the distance to four times as it
        grows from once to twice without smoothing; less the profile of a slice.
    """
    from scipy.ndimage import gaussian_filter1d

    count = len(stacks[0])
    if min(stacks[0].shape[1:]) < 3:
        return 0.0
    products = np.zeros((count, count))
    for stack in stacks:
        fine = fine_texture(stack).reshape(count, -1)
        products += fine @ fine.T
    wanted = _growth(products, 1)

    def enough(sigma: float) -> bool:
        smooth = gaussian_filter1d(np.eye(count), sigma, axis=0, mode="nearest")
        return _growth(smooth @ products @ smooth.T, 2) >= wanted

    if _growth(products, 2) >= wanted:
        return 0.0
    low, high = 0.0, MAX_SMOOTHING
    for _ in range(12):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return float(np.sqrt(max(0.0, high**2 - PROFILE_VARIANCE)))
