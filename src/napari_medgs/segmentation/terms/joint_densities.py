"""Density of each class over all contrasts at once: mixtures of Gaussians.

Densities of single contrasts miss what only a combination of contrasts tells. Contrasts are
rotated and scaled so that they are uncorrelated with variance one, which a copy of a contrast does
not change, and directions in which nothing varies are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats

COMPONENTS, PER_COMPONENT = 5, 20  # most Gaussians of a class, and samples that each one needs
MAX_SAMPLES = 600  # of a class; more change a mixture of so few Gaussians little
LEAST_VARIANCE = 1e-4  # of a direction, over the largest: what is left of copies is rounding
FLOOR = 0.005  # share of an even density, which no class's falls below
SPREAD = 0.15  # least standard deviation of a Gaussian, in those of all samples


@dataclass(frozen=True)
class _Mixture:
    """Gaussians of one class: ``axes`` scale a sample, less ``shift``, to its distance in sd."""

    axes: Floats
    shift: Floats
    level: Floats


@dataclass(frozen=True)
class JointDensities:
    """Densities of the classes over several contrasts.

    Attributes
    ----------
    columns : (C,) ndarray of int64
        The features that they are of.
    """

    columns: NDArray[np.int64]
    _mean: Floats
    _whitening: Floats
    _mixtures: tuple[tuple[int, _Mixture], ...]

    def add_log_density(self, features: Floats, share: float, out: Floats) -> None:
        """Add a share of the classes' log-densities.

        Parameters
        ----------
        features : (N, F) ndarray of float32
        share : float
        out : (N, K) ndarray of float32
            Changed in place. Classes without samples have an even density.
        """
        white = (features[:, self.columns] - self._mean) @ self._whitening
        even = -0.5 * white.shape[1] * np.log(12.0)  # of values between 0 and 1, of variance 1
        floor, rest = np.float32(even + np.log(FLOOR)), np.float32(np.log(1 - FLOOR))
        joint = np.full(out.shape, even, np.float32)
        for k, mixture in self._mixtures:
            scaled = (white @ mixture.axes - mixture.shift).reshape(len(white), -1, white.shape[1])
            logs = mixture.level - np.float32(0.5) * np.einsum("ncd,ncd->nc", scaled, scaled)
            top = logs.max(axis=1)
            top += np.log(np.exp(logs - top[:, None]).sum(axis=1))
            joint[:, k] = np.logaddexp(top + rest, floor)
        out += np.float32(share) * joint


def learn_joint_densities(
    features: Floats,
    classes: NDArray[Any],
    columns: NDArray[np.int64],
    seed: int,
) -> JointDensities:
    """Learn densities from samples.

    Parameters
    ----------
    features : (P, F) ndarray of float32
    classes : (P,) ndarray of int
    columns : (C,) ndarray of int64
        The features whose density is estimated.
    seed : int
        Of the choice of samples and of the mixtures.

    Returns
    -------
    JointDensities
    """
    rng = np.random.default_rng([seed, 5])
    values = features[:, columns].astype(np.float64)
    weight = 1 / np.bincount(classes)[classes]  # classes count alike
    mean = np.average(values, axis=0, weights=weight)
    values -= mean
    variance, axes = np.linalg.eigh((values * weight[:, None]).T @ values / weight.sum())
    kept = variance > max(LEAST_VARIANCE * variance[-1], 1e-12)
    whitening = axes[:, kept] / np.sqrt(variance[kept])
    white = values @ whitening
    mixtures = []
    for k in np.unique(classes) if kept.any() else ():
        mine = white[classes == k]
        if len(mine) > MAX_SAMPLES:
            mine = rng.choice(mine, MAX_SAMPLES, replace=False)
        mixtures.append((int(k), _mixture(mine, seed)))
    return JointDensities(
        columns,
        mean.astype(np.float32),
        whitening.astype(np.float32),
        tuple(mixtures),
    )


def _mixture(samples: NDArray[np.float64], seed: int) -> _Mixture:
    """Fit Gaussians, wider ones to few samples."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    count, size = samples.shape
    components = int(np.clip(count // PER_COMPONENT, 1, COMPONENTS))
    spread = SPREAD * max(1.0, components * PER_COMPONENT / count) ** 0.2
    if count == 1:
        samples = np.repeat(samples, 2, axis=0)
    # Few steps: what is left to gain is less than what other samples would change. A k-means as
    # start would bring threads, whose sums differ in the last bits.
    fit = GaussianMixture(
        components,
        reg_covar=spread**2,
        max_iter=30,
        tol=1e-2,
        init_params="k-means++",
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit.fit(samples)
    axes = fit.precisions_cholesky_
    heights = np.log(np.diagonal(axes, axis1=1, axis2=2)).sum(axis=1)
    level = np.log(fit.weights_) + heights - 0.5 * size * np.log(2 * np.pi)
    return _Mixture(
        np.concatenate(axes, axis=1).astype(np.float32),
        np.einsum("cd,cde->ce", fit.means_, axes).reshape(-1).astype(np.float32),
        level.astype(np.float32),
    )
