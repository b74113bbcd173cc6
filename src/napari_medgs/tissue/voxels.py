"""The mixture at the voxels: the field's responsibilities, blended, are the classes' priors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Doubles, Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.rendering.cpu.shares import ShareProjector
from napari_medgs.tissue.bias import LegendreBasis
from napari_medgs.tissue.mixture import LEAST_BIAS, LOG_2PI, Mixture, penalty

LEAST_PRIOR = 1e-12

_options: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}


@njit(**_options)
def _posterior(
    prior: Any, image: Any, bias: Any, region: Any, means: Any, root: Any, constant: float,
    posterior: Any, ratio: Any, sums: Any,
) -> float:  # fmt: skip
    """Fill posteriors and likelihood ratios of one slice; add sums; return the log-likelihood.

    ``sums`` (K, 2, C, C): of posterior x bias x bias, and posterior x bias x intensity.
    """
    classes, height, width = prior.shape
    channels = len(image)
    density = np.empty(classes)
    d = np.empty(channels)
    total = 0.0
    for y in range(height):
        for x in range(width):
            if not region[y, x]:
                for k in range(classes):
                    posterior[k, y, x] = 0
                    ratio[k, y, x] = 0
                continue
            best = -np.inf
            for k in range(classes):
                distance = 0.0
                for a in range(channels):
                    d[a] = image[a, y, x] - bias[a, y, x] * means[k, a]
                for a in range(channels):
                    projected = 0.0
                    for b in range(a + 1):
                        projected += root[a, b] * d[b]
                    distance += projected * projected
                density[k] = -0.5 * distance
                best = max(best, density[k])
            norm = 0.0
            for k in range(classes):
                density[k] = np.exp(density[k] - best)
                norm += max(prior[k, y, x], LEAST_PRIOR) * density[k]
            total += best + np.log(norm) - 0.5 * constant
            for k in range(classes):
                ratio[k, y, x] = density[k] / norm
                r = max(prior[k, y, x], LEAST_PRIOR) * density[k] / norm
                posterior[k, y, x] = r
                for a in range(channels):
                    pulled = r * bias[a, y, x]
                    for b in range(channels):
                        sums[k, 0, a, b] += pulled * bias[b, y, x]
                        sums[k, 1, a, b] += pulled * image[b, y, x]
    return total


@dataclass(frozen=True)
class VoxelMixture:
    """The two-level mixture: classes of Gaussians, and through them of voxels.

    Attributes
    ----------
    mixture : Mixture
    gamma : (N, K) ndarray of float64
        Class probabilities of every Gaussian of the field.
    outside : (K,) ndarray of float64
        Class probabilities where no Gaussian reaches.
    """

    mixture: Mixture
    gamma: Doubles
    outside: Doubles


class VoxelModel:
    """An image seen through the shares of its field.

    Parameters
    ----------
    shares : ShareProjector
    image : (C, Z, Y, X) ndarray of float32
        Slice-first, like everything here.
    region : (Z, Y, X) ndarray of bool
    basis : LegendreBasis
    floor : (C,) ndarray
        Variance of the noise.
    """

    def __init__(
        self,
        shares: ShareProjector,
        image: Floats,
        region: NDArray[np.bool_],
        basis: LegendreBasis,
        floor: Doubles,
    ) -> None:
        self._shares, self._image, self._region = shares, image, region
        self._basis, self._floor = basis, floor
        self._voxels = int(region.sum())
        inside = image[:, region].astype(np.float64)
        self._squares = inside @ inside.T

    def _slice(
        self, state: VoxelMixture, z: int, prior: Floats, empty: NDArray[np.bool_]
    ) -> tuple[Floats, Floats, Doubles, float]:
        """Return posterior, ratio, sums and log-likelihood of one slice."""
        mixture = state.mixture
        prior[:, empty] = state.outside[:, None]
        root = np.linalg.inv(np.linalg.cholesky(mixture.covariance))
        constant = np.linalg.slogdet(mixture.covariance)[1] + len(root) * LOG_2PI
        field = np.maximum(self._basis.field(mixture.bias, self._shares.shape, z), LEAST_BIAS)
        posterior, ratio = np.empty_like(prior), np.empty_like(prior)
        sums = np.zeros((len(mixture), 2, len(root), len(root)))
        value = _posterior(
            prior, np.ascontiguousarray(self._image[:, z]), field, self._region[z],
            mixture.means, root, constant, posterior, ratio, sums,
        )  # fmt: skip
        return posterior, ratio, sums, value

    def round(self, state: VoxelMixture) -> tuple[VoxelMixture, float]:
        """Do one round of expectation maximization at all voxels.

        Parameters
        ----------
        state : VoxelMixture

        Returns
        -------
        state : VoxelMixture
        objective : float
            Log-likelihood of the state that was given, plus log priors; it never falls.
        """
        classes, channels = state.mixture.means.shape
        depth = self._shares.shape[0]
        sums = np.zeros((depth, classes, 2, channels, channels))
        values, outside = np.zeros(depth), np.zeros((depth, classes))

        def task(z: int, prior: Floats, empty: NDArray[np.bool_]) -> Floats:
            posterior, ratio, sums[z], values[z] = self._slice(state, z, prior, empty)
            outside[z] = posterior[:, empty & self._region[z]].sum(axis=1)
            return ratio

        gamma = state.gamma
        ratios = self._shares.collect(gamma.astype(np.float32), classes, task, self._region)
        updated = gamma * ratios
        norm = updated.sum(axis=1, keepdims=True)
        updated = np.where(norm > 1e-9, updated / np.maximum(norm, 1e-300), gamma)
        lost = outside.sum(axis=0)
        objective = float(values.sum()) + self._log_prior(state.mixture)
        mixture = self._update(state.mixture, sums.sum(axis=0))
        if lost.sum() > 0:
            state = replace(state, outside=lost / lost.sum())
        return VoxelMixture(mixture, updated, state.outside), objective

    def objective(self, state: VoxelMixture) -> float:
        """Return the log-likelihood plus log priors of a state."""
        values = np.zeros(self._shares.shape[0])
        gamma = state.gamma.astype(np.float32)

        def task(z: int) -> None:
            if self._region[z].any():
                prior, empty = self._shares.render_slice(gamma, z)
                values[z] = self._slice(state, z, prior, empty)[3]

        run_chunks(task, len(values), self._shares.threads)
        return float(values.sum()) + self._log_prior(state.mixture)

    def _log_prior(self, mixture: Mixture) -> float:
        noise = np.diag(np.linalg.inv(mixture.covariance)) @ self._floor
        return penalty(mixture, self._voxels) - 0.5 * self._voxels * float(noise)

    def _update(self, mixture: Mixture, sums: Doubles) -> Mixture:
        """Maximize over the means, then over the covariance."""
        precision = np.linalg.inv(mixture.covariance)
        means = mixture.means.copy()
        total = self._squares + self._voxels * np.diag(self._floor)
        for k, (squares, cross) in enumerate(sums):
            if np.trace(squares) > 1e-6:
                right = (precision * cross).sum(axis=1)
                means[k] = np.linalg.solve(precision * squares, right)
            pulled = means[k][:, None] * cross
            total += np.outer(means[k], means[k]) * squares - pulled - pulled.T
        weights = np.einsum("kaa->k", sums[:, 0])
        return replace(
            mixture, means=means, covariance=total / self._voxels, weights=weights / weights.sum()
        )

    def probabilities(self, state: VoxelMixture, with_voxels: bool) -> Floats:
        """Return the class probabilities of every voxel, (K, Z, Y, X); 0 out of the region.

        Parameters
        ----------
        state : VoxelMixture
        with_voxels : bool
            Whether the voxel's own intensity counts, or its Gaussians alone.
        """
        classes = len(state.mixture)
        out = np.zeros((classes, *self._shares.shape), np.float32)
        gamma = state.gamma.astype(np.float32)

        def task(z: int) -> None:
            if not self._region[z].any():
                return
            prior, empty = self._shares.render_slice(gamma, z)
            posterior = self._slice(state, z, prior, empty)[0]
            out[:, z] = posterior if with_voxels else prior * self._region[z]

        run_chunks(task, self._shares.shape[0], self._shares.threads)
        return out
