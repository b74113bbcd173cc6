"""Negative log-likelihoods of Gaussian mixtures whose class probabilities a network gives.

Means and the common covariance are those that maximize the likelihood given the probabilities, so
that the network is all there is to train. A sample is a voxel, or a Gaussian: a bag of so many
voxels of one class, with a mean and a covariance.

References
----------
.. [1] M. Schwab, A. Mayr, M. Haltmeier, "Deep Gaussian mixture model for unsupervised image
   segmentation", arXiv:2404.12252 (2024): both losses, there with a diagonal covariance for every
   class and a U-Net on voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-4  # variance added to every contrast, in units of the image's


@dataclass(frozen=True)
class Samples:
    """Voxels or bags.

    Attributes
    ----------
    mass : (N,) tensor
        Voxels of a bag; 1 of a voxel, 0 where it does not count.
    mean : (N, C) tensor
    within : (N, C, C) tensor or None
        Covariance within bags.
    """

    mass: Tensor
    mean: Tensor
    within: Tensor | None = None


def class_scores(samples: Samples, probabilities: Tensor) -> Tensor:
    """Return the log-likelihood (N, K) of every sample under every class.

    Parameters
    ----------
    samples : Samples
    probabilities : (N, K) tensor
        From which means and covariance follow.

    Returns
    -------
    (N, K) tensor
    """
    share = probabilities * samples.mass[:, None]
    total = share.sum(dim=0)
    means = (share.T @ samples.mean) / total.clamp_min(1e-6)[:, None]
    d = samples.mean[:, None] - means
    covariance = torch.einsum("nk,nkc,nkd->cd", share, d, d)
    if samples.within is not None:
        covariance = covariance + torch.einsum("n,ncd->cd", samples.mass, samples.within)
    size = samples.mean.shape[1]
    covariance = covariance / samples.mass.sum() + RIDGE * torch.eye(size)
    precision = torch.linalg.inv(covariance)
    distance = torch.einsum("nkc,cd,nkd->nk", d, precision, d)
    constant = torch.logdet(2 * torch.pi * covariance)
    spread = torch.zeros(())
    if samples.within is not None:
        spread = torch.einsum("ncd,cd->n", samples.within, precision)[:, None]
    return -0.5 * samples.mass[:, None] * (constant + distance + spread)


def negative_log_likelihood(samples: Samples, logits: Tensor, loss: str) -> Tensor:
    """Return the loss per voxel.

    Parameters
    ----------
    samples : Samples
    logits : (N, K) tensor
    loss : {"global", "spatial"}
        Whether the classes' weights are the means of the probabilities, or the probabilities.

    Returns
    -------
    tensor
    """
    probabilities = torch.softmax(logits, dim=1)
    scores = class_scores(samples, probabilities)
    if loss == "global":
        share = samples.mass / samples.mass.sum()
        weights = torch.log((share @ probabilities).clamp_min(1e-9))
        found = torch.logsumexp(scores + weights, dim=1)
    else:
        found = torch.logsumexp(scores + torch.log_softmax(logits, dim=1), dim=1)
    counted = samples.mass > 0
    return -found[counted].sum() / samples.mass.sum()
