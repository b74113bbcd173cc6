"""From a mixture at the Gaussians to the classes of voxels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from napari_medgs.tissue.bias import LegendreBasis
from napari_medgs.tissue.mixture import LEAST_BIAS, Bags, Mixture
from napari_medgs.tissue.params import TissueParams
from napari_medgs.tissue.prepare import Prepared
from napari_medgs.tissue.result import TissueResult, labels_of, table
from napari_medgs.tissue.statistics import FLOOR
from napari_medgs.tissue.voxels import VoxelMixture, VoxelModel

SOFT = 0.1  # of a Gaussian's responsibilities goes to all classes alike before the voxels


def finish(
    ready: Prepared,
    params: TissueParams,
    measured: tuple[Bags, NDArray[np.bool_], LegendreBasis],
    found: tuple[Mixture, NDArray[np.float64]],
    step: Callable[[int, float], None],
    *,
    ordered: bool,
) -> TissueResult:
    """Do the rounds at the voxels, and make the result.

    Parameters
    ----------
    ready : Prepared
    params : TissueParams
    measured : (Bags, ndarray of bool, LegendreBasis)
        Bags, which Gaussians they are, and the terms of the bias.
    found : (Mixture, (N, K) ndarray)
        Mixture and responsibilities of the bags.
    step : callable
        Called after every round; may raise.
    ordered : bool
        Whether classes are numbered by their mean afterwards.

    Returns
    -------
    TissueResult
    """
    bags, used, basis = measured
    mixture, gamma = found
    contrasts = len(ready.image)
    rounds = params.rounds_for(contrasts)
    state = _start(bags, used, mixture, gamma, rounds > 0)
    model = VoxelModel(ready.shares, ready.image, ready.region, basis, np.full(contrasts, FLOOR))
    trace = []
    for number in range(rounds):
        state, value = model.round(state)
        trace.append(value)
        step(number, value)
    if rounds:
        trace.append(model.objective(state))
        state = _in_order(state) if ordered else state
    probabilities = ready.canonical(model.probabilities(state, rounds > 0))
    bias_field, mean = _bias_field(ready, basis, state.mixture)
    labels = labels_of(probabilities, ready.canonical_region)
    return TissueResult(
        grid=ready.volume.grid,
        contrasts=ready.volume.channel_names,
        probabilities=probabilities,
        region=ready.canonical_region,
        means=state.mixture.means * mean * ready.scale,
        deviations=np.sqrt(np.diag(state.mixture.covariance)) * ready.scale,
        bias=bias_field,
        rows=table(labels, ready.volume, len(mixture)),
        voxel_log_likelihood=trace,
    )


def _start(
    bags: Bags, used: NDArray[np.bool_], mixture: Mixture, gamma: NDArray[np.float64], soft: bool
) -> VoxelMixture:
    """Return the state before the voxels: no responsibility is 0, where it would remain."""
    classes = len(mixture)
    frequency = bags.mass @ gamma / bags.mass.sum()
    everywhere = np.tile(frequency, (len(used), 1))
    everywhere[used] = (1 - SOFT) * gamma + SOFT / classes if soft else gamma
    return VoxelMixture(mixture, everywhere, frequency)


def _in_order(state: VoxelMixture) -> VoxelMixture:
    rank = np.lexsort(state.mixture.means.T[::-1])
    return VoxelMixture(state.mixture.order(), state.gamma[:, rank], state.outside[rank])


def _bias_field(
    ready: Prepared, basis: LegendreBasis, mixture: Mixture
) -> tuple[NDArray[np.float32] | None, NDArray[np.float64]]:
    """Return the bias on the canonical grid with mean 1, and the means that it had."""
    if not len(basis):
        return None, np.ones(len(ready.image))
    out = np.empty(ready.image.shape, np.float32)
    for z in range(len(ready.region)):
        field = basis.field(mixture.bias, ready.shares.shape, z)
        out[:, z] = np.maximum(field, LEAST_BIAS)
    mean = out[:, ready.region].mean(axis=1, dtype=np.float64)
    out /= mean[:, None, None, None].astype(np.float32)
    return ready.canonical(out), mean
