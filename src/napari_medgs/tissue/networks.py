"""Tissue classes from networks: training on images without labels, and one pass afterwards.

The front of :mod:`napari_medgs.tissue.deep`, which needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_medgs._optional import require
from napari_medgs._util.progress import (
    ProgressCallback,
    StageTimer,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs._util.threads import limit_torch_threads
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled, ImageError, ParameterError
from napari_medgs.tissue.bias import LegendreBasis
from napari_medgs.tissue.deep.params import TissueTrainParams
from napari_medgs.tissue.finish import finish
from napari_medgs.tissue.mixture import mixture_of
from napari_medgs.tissue.params import TissueParams
from napari_medgs.tissue.prepare import (
    Layout,
    Prepared,
    image_of_field,
    lay_out,
    prepare,
    region_of,
)
from napari_medgs.tissue.result import TissueResult, labels_of, table

if TYPE_CHECKING:
    from napari_medgs.tissue.deep.card import TissueNetwork

PACKAGES = ("torch", "torch_geometric")


def train_tissues(
    images: Sequence[Volume],
    params: TissueTrainParams | None = None,
    *,
    names: Sequence[str] = (),
    regions: Sequence[NDArray[np.bool_] | None] = (),
    fields: Sequence[GaussianField | None] = (),
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> TissueNetwork:
    """Train a network that gives tissue classes, on images without labels.

    Parameters
    ----------
    images : sequence of Volume
        One, or several with the same contrasts.
    params : TissueTrainParams, optional
    names : sequence of str, optional
        One an image, for messages and the network's card.
    regions : sequence of (Z, Y, X) ndarray of bool or None, optional
        Voxels to learn from, one an image; all by default.
    fields : sequence of GaussianField or None, optional
        Of the images, for a graph network; fitted otherwise.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    TissueNetwork
        For ``model`` of :func:`napari_medgs.tissues`, and for
        :func:`~napari_medgs.tissue.save_tissue_network`.

    Raises
    ------
    MedGSError
        For images that cannot be used or have different contrasts; ``Cancelled``.
    MissingPackageError
        When torch, torch-geometric or Lightning are not installed.

    References
    ----------
    .. [1] M. Schwab, A. Mayr, M. Haltmeier, "Deep Gaussian mixture model for unsupervised image
       segmentation", arXiv:2404.12252 (2024).
    """
    require(*PACKAGES, "lightning", feature="Training a tissue network")
    from napari_medgs.tissue.deep.training import train_network

    params = params or TissueTrainParams()
    if not len(images):
        raise ParameterError("Give at least one image to train on.")
    called = list(names) or [f"image {k + 1}" for k in range(len(images))]
    settings = TissueParams(padding=params.padding, threads=params.threads)
    ready: list[Layout | Prepared] = []
    with limit_torch_threads(params.threads):
        for k, image in enumerate(images):
            if image.channels != images[0].channels:
                raise ImageError(
                    f"{called[k]}: the image has {image.channels} contrasts, {called[0]} has "
                    f"{images[0].channels}; all need the same."
                )
            region = regions[k] if len(regions) else None
            field = fields[k] if len(fields) else None
            ready.append(
                _ready(image, region, field, params.architecture, settings, progress, should_stop)
            )
        return train_network(ready, called, params, progress=progress, should_stop=should_stop)


def _ready(
    image: Volume | GaussianField,
    region: NDArray[np.bool_] | None,
    field: GaussianField | None,
    architecture: str,
    settings: TissueParams,
    progress: ProgressCallback,
    should_stop: StopCallback,
) -> Layout | Prepared:
    """Lay an image out for a network; fit a field only where the network needs one."""
    if architecture == "graph":
        return prepare(image, region, field, settings, progress=progress, should_stop=should_stop)
    volume = image_of_field(image) if isinstance(image, GaussianField) else image.prepared()
    return lay_out(volume, region_of(volume, region, settings), volume.grid.coarsest_axis())


def divide_by_network(
    image: Volume | GaussianField,
    model: str | Path | TissueNetwork,
    params: TissueParams,
    region: NDArray[np.bool_] | None,
    field: GaussianField | None,
    *,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> TissueResult:
    """Divide an image by a trained network; see :func:`napari_medgs.tissues`.

    Parameters
    ----------
    image : Volume or GaussianField
    model : path or TissueNetwork
    params : TissueParams
    region : (Z, Y, X) ndarray of bool, optional
    field : GaussianField, optional
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    TissueResult
        Classes have the network's numbers.
    """
    require(*PACKAGES, feature="A tissue network")
    from napari_medgs.tissue.deep.files import load_tissue_network

    trained = load_tissue_network(model) if isinstance(model, (str, Path)) else model
    name = Path(model).name if isinstance(model, (str, Path)) else "network"
    card = trained.card
    if params.classes not in (None, card.classes):
        raise ParameterError(
            f"The network gives {card.classes} classes, not {params.classes}; leave the number "
            "out."
        )
    channels = image.channels if isinstance(image, Volume) else len(image.info.image_channels)
    card.check_image(channels)
    if params.bias and card.architecture != "graph":
        raise ParameterError("A bias is not estimated with a network on slices; leave it out.")
    ready = _ready(image, region, field, card.architecture, params, progress, should_stop)
    timer = StageTimer("division into tissues", progress, should_stop, 3)

    def step(done: int, value: float) -> None:
        del done, value
        if should_stop():
            raise Cancelled("The division into tissues was canceled.")

    if isinstance(ready, Prepared):
        result = _by_graph(ready, trained, params, timer, step)
    else:
        result = _by_slices(ready, trained, timer, step)
    return replace(result, seconds=timer.seconds, model=name)


def _by_graph(
    ready: Prepared,
    trained: TissueNetwork,
    params: TissueParams,
    timer: StageTimer,
    step: Callable[[int, float], None],
) -> TissueResult:
    import torch

    from napari_medgs.tissue.deep.inputs import graph_input

    timer.stage("measuring")
    graph = graph_input(ready, trained.card.neighbors)
    timer.end()
    timer.stage("network")
    with torch.inference_mode():
        logits = trained.network(graph.features, graph.edges)
        gamma = torch.softmax(logits, dim=1).double().numpy()
    timer.end()
    timer.stage("voxels")
    basis = LegendreBasis.over(*ready.box, params.bias_degree if params.bias else 0)
    places = ready.field.centers[graph.used][:, [2, 1, 0]].astype(np.float64)
    bags = replace(graph.bags, basis=basis.at(places))
    found = mixture_of(bags, gamma), gamma
    result = finish(ready, params, (bags, graph.used, basis), found, step, ordered=False)
    timer.end()
    return replace(result, field=ready.field)


def _by_slices(
    ready: Layout,
    trained: TissueNetwork,
    timer: StageTimer,
    step: Callable[[int, float], None],
) -> TissueResult:
    import torch

    from napari_medgs.tissue.deep.inputs import centered_image

    timer.stage("measuring")
    image = centered_image(ready)
    timer.end()
    timer.stage("network")
    stack = np.zeros((trained.card.classes, *ready.region.shape), np.float32)
    with torch.inference_mode():
        for z in np.flatnonzero(ready.region.any(axis=(1, 2))):
            logits = trained.network(image[z : z + 1])[0]
            stack[:, z] = torch.softmax(logits, dim=0).numpy() * ready.region[z]
            step(int(z), 0.0)
    timer.end()
    timer.stage("table")
    share = stack[:, ready.region].astype(np.float64)
    values = ready.image[:, ready.region].astype(np.float64)
    means = share @ values.T / np.maximum(share.sum(axis=1), 1e-9)[:, None]
    spread = np.stack([(share * (v - m[:, None]) ** 2).sum() for v, m in zip(values, means.T)])
    probabilities = ready.canonical(stack)
    labels = labels_of(probabilities, ready.canonical_region)
    timer.end()
    return TissueResult(
        grid=ready.volume.grid,
        contrasts=ready.volume.channel_names,
        probabilities=probabilities,
        region=ready.canonical_region,
        means=means * ready.scale,
        deviations=np.sqrt(spread / values.shape[1]) * ready.scale,
        bias=None,
        rows=table(labels, ready.volume, len(means)),
    )
