"""One call from an image to tissue classes; the field is fitted where none is given."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import (
    ProgressCallback,
    StageTimer,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs._util.threads import limit_threads
from napari_medgs.errors import Cancelled, ParameterError
from napari_medgs.tissue.bias import LegendreBasis
from napari_medgs.tissue.choice import choose_classes
from napari_medgs.tissue.mixture import LEAST_BIAS, Bags, Mixture, fit_mixture
from napari_medgs.tissue.params import TissueParams
from napari_medgs.tissue.prepare import Prepared, prepare
from napari_medgs.tissue.result import TissueResult, labels_of, table
from napari_medgs.tissue.statistics import FLOOR, make_bags, measure_bags
from napari_medgs.tissue.voxels import VoxelMixture, VoxelModel

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume

SOFT = 0.1  # of a Gaussian's responsibilities goes to all classes alike before the voxels


def tissues(
    image: Volume | GaussianField,
    classes: int | None = None,
    *,
    bias: bool = False,
    region: NDArray[np.bool_] | None = None,
    field: GaussianField | None = None,
    params: TissueParams | None = None,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> TissueResult:
    """Divide an image into classes of intensity, without training.

    Every Gaussian of the field is a bag of voxels of one class; the classes have a common
    covariance. Rounds of expectation maximization at the voxels, whose priors are the blended
    classes of the Gaussians, follow.

    Parameters
    ----------
    image : Volume or GaussianField
        One or more contrasts. Of a field alone, the image that it renders is divided.
    classes : int, optional
        2 to 12; chosen by the likelihood of held-out Gaussians by default.
    bias : bool
        Whether intensities vary smoothly over the image, as in MR.
    region : (Z, Y, X) ndarray of bool, optional
        Voxels to divide, on the canonical grid; all by default.
    field : GaussianField, optional
        Fitted to the image; fitted first otherwise.
    params : TissueParams, optional
        Further settings. ``classes`` and ``bias`` are taken from above where given there.
    progress, should_stop : callable, optional

    Returns
    -------
    TissueResult
        Classes are in the order of their mean in the first contrast.

    Raises
    ------
    ImageError
        When the image, or what is in the region, has one gray level only.
    GeometryError
        When the region or field belongs to another grid.
    ParameterError
        When the region is empty, has fewer Gaussians than classes, or a bias is asked for of an
        image with negative intensities.
    Cancelled
        When stopped.

    References
    ----------
    .. [1] G. J. McLachlan, D. Peel, "Finite Mixture Models", Wiley (2000).
    .. [2] K. Van Leemput, F. Maes, D. Vandermeulen, P. Suetens, "Automated model-based bias field
       correction of MR images of the brain", IEEE Transactions on Medical Imaging 18 (1999),
       885-896.

    Examples
    --------
    >>> import napari_medgs as mg
    >>> head = mg.make_phantom(spacing=8.0)
    >>> found = mg.tissues(mg.Volume(head.image[None], head.grid), classes=3)
    >>> sorted(set(found.labels.ravel().tolist()))
    [1, 2, 3]
    """
    params = params or TissueParams()
    params = replace(
        params,
        classes=params.classes if classes is None else classes,
        bias=bias or params.bias,
    )
    with limit_threads(params.threads):
        ready = prepare(image, region, field, params, progress=progress, should_stop=should_stop)
        return fit_tissues(ready, params, progress=progress, should_stop=should_stop)


def fit_tissues(
    ready: Prepared,
    params: TissueParams,
    *,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> TissueResult:
    """Fit the mixture of an image that is ready; see :func:`tissues`.

    Parameters
    ----------
    ready : Prepared
    params : TissueParams
    progress, should_stop : callable, optional

    Returns
    -------
    TissueResult
    """
    timer = StageTimer("division into tissues", progress, should_stop, 4)
    contrasts = len(ready.image)

    def step(done: int, value: float) -> None:
        del done, value
        if should_stop():
            raise Cancelled("The division into tissues was canceled.")

    timer.stage("measuring")
    floor = np.full(contrasts, FLOOR)
    basis = LegendreBasis.over(*ready.box, params.bias_degree if params.bias else 0)
    moments = measure_bags(ready.shares, ready.image, ready.region)
    bags, used = make_bags(ready.field, moments, basis, floor)
    timer.end()
    timer.stage("classes")
    held_out: dict[int, float] = {}
    classes = params.classes
    _check_gaussians(len(bags), classes or 2)
    if classes is None:
        places = ready.field.centers[used][:, [2, 1, 0]].astype(np.float64)
        unbiased = replace(bags, basis=bags.basis[:, :0])
        classes, held_out = choose_classes(unbiased, places, params.seed, step)
    timer.end()
    timer.stage("mixture")
    mixture, gamma, trace = fit_mixture(bags, classes, params.seed, step=step)
    timer.end()
    timer.stage("voxels")
    rounds = params.rounds_for(contrasts)
    state = _start(bags, used, mixture, gamma, rounds > 0)
    model = VoxelModel(ready.shares, ready.image, ready.region, basis, floor)
    voxel_trace = []
    for _ in range(rounds):
        state, value = model.round(state)
        voxel_trace.append(value)
        step(0, value)
    if rounds:
        voxel_trace.append(model.objective(state))
        state = _in_order(state)
    probabilities = ready.canonical(model.probabilities(state, rounds > 0))
    bias_field, mean = _bias_field(ready, basis, state.mixture)
    labels = labels_of(probabilities, ready.canonical_region)
    timer.end()
    return TissueResult(
        grid=ready.volume.grid,
        contrasts=ready.volume.channel_names,
        probabilities=probabilities,
        region=ready.canonical_region,
        means=state.mixture.means * mean * ready.scale,
        deviations=np.sqrt(np.diag(state.mixture.covariance)) * ready.scale,
        bias=bias_field,
        rows=table(labels, ready.volume, classes),
        log_likelihood=trace,
        voxel_log_likelihood=voxel_trace,
        held_out=held_out,
        seconds=timer.seconds,
        field=ready.field,
    )


def _check_gaussians(count: int, classes: int) -> None:
    if count < classes:
        raise ParameterError(
            f"The region has {count} Gaussians, fewer than the {classes} classes asked for; take "
            "a larger region, or fit with more Gaussians."
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
