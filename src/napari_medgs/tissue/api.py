"""One call from an image to tissue classes; the field is fitted where none is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
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
from napari_medgs.tissue.finish import finish
from napari_medgs.tissue.mixture import fit_mixture
from napari_medgs.tissue.params import TissueParams
from napari_medgs.tissue.prepare import Prepared, prepare
from napari_medgs.tissue.result import TissueResult
from napari_medgs.tissue.statistics import FLOOR, make_bags, measure_bags

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume
    from napari_medgs.tissue.deep.card import TissueNetwork


def tissues(
    image: Volume | GaussianField,
    classes: int | None = None,
    *,
    bias: bool = False,
    region: NDArray[np.bool_] | None = None,
    field: GaussianField | None = None,
    model: str | Path | TissueNetwork | None = None,
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
    model : path or TissueNetwork, optional
        A network of :func:`~napari_medgs.tissue.train_tissues`, which gives the classes in the
        place of the mixture; their numbers mean the same in all images of a kind.
    params : TissueParams, optional
        Further settings. ``classes`` and ``bias`` are taken from above where given there.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

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
        if model is not None:
            from napari_medgs.tissue.networks import divide_by_network

            return divide_by_network(
                image, model, params, region, field, progress=progress, should_stop=should_stop
            )
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
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

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
    basis = LegendreBasis.over(*ready.box, params.bias_degree if params.bias else 0)
    moments = measure_bags(ready.shares, ready.image, ready.region)
    bags, used = make_bags(ready.field, moments, basis, np.full(contrasts, FLOOR))
    timer.end()
    timer.stage("classes")
    held_out: dict[int, float] = {}
    classes = params.classes
    _check_counts(len(bags), int(ready.region.sum()), classes or 2)
    if classes is None:
        places = ready.field.centers[used][:, [2, 1, 0]].astype(np.float64)
        unbiased = replace(bags, basis=bags.basis[:, :0])
        classes, held_out = choose_classes(unbiased, places, params.seed, step)
    timer.end()
    timer.stage("mixture")
    mixture, gamma, trace = fit_mixture(bags, classes, params.seed, step=step)
    timer.end()
    timer.stage("voxels")
    result = finish(ready, params, (bags, used, basis), (mixture, gamma), step, ordered=True)
    timer.end()
    return replace(
        result, log_likelihood=trace, held_out=held_out, seconds=timer.seconds, field=ready.field
    )


def _check_counts(gaussians: int, voxels: int, classes: int) -> None:
    for count, what, more in (
        (voxels, "voxels", ""), (gaussians, "Gaussians", ", or fit with more Gaussians")
    ):  # fmt: skip
        if count < classes:
            raise ParameterError(
                f"The region has {count} {what}, fewer than the {classes} classes asked for; take "
                f"a larger region{more}."
            )
