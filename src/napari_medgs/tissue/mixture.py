"""The mixture of tissues over Gaussians: every Gaussian is a bag of voxels of one class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Doubles

LEAST_BIAS = 0.2  # the bias field stays above at every Gaussian
STIFFNESS = 0.3  # of the bias: cost of a squared coefficient, per voxel
TOLERANCE = 1e-6  # of the log-likelihood per voxel
LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class Bags:
    """What a field's Gaussians know of the image: first two moments in their shares.

    Attributes
    ----------
    mass : (N,) ndarray of float64
        Voxels, as sum of shares; all above 0.
    mean : (N, C) ndarray of float64
    within : (N, C, C) ndarray of float64
        Covariance within the Gaussian's voxels, plus a small variance of the noise.
    basis : (N, T) ndarray of float64
        Terms of the bias field at the Gaussian; T is 0 without one.
    """

    mass: Doubles
    mean: Doubles
    within: Doubles
    basis: Doubles

    def __len__(self) -> int:
        return len(self.mass)

    def subset(self, which: NDArray[np.bool_]) -> Bags:
        """Return chosen Gaussians."""
        return Bags(self.mass[which], self.mean[which], self.within[which], self.basis[which])


@dataclass(frozen=True)
class Mixture:
    """Tissue classes: what every one looks like, and how often it is.

    Attributes
    ----------
    weights : (K,) ndarray of float64
    means : (K, C) ndarray of float64
        Intensities without bias.
    covariance : (C, C) ndarray of float64
        Common to all classes.
    bias : (C, T) ndarray of float64
        Coefficients: an intensity is the class's times 1 + the sum of coefficients and terms.
    """

    weights: Doubles
    means: Doubles
    covariance: Doubles
    bias: Doubles

    def __len__(self) -> int:
        return len(self.weights)

    def order(self) -> Mixture:
        """Return the classes sorted by their mean in the first contrast."""
        rank = np.lexsort(self.means.T[::-1])
        return replace(self, weights=self.weights[rank], means=self.means[rank])


def bias_at(basis: Doubles, bias: Doubles) -> Doubles:
    """Return the bias field (N, C) where the terms are ``basis`` (N, T)."""
    return 1 + basis @ bias.T


def bag_scores(bags: Bags, mixture: Mixture) -> Doubles:
    """Return log weight plus log-likelihood of every bag under every class, (N, K).

    A bag's voxels are taken to be independent samples: their log-likelihoods add up.
    """
    precision = np.linalg.inv(mixture.covariance)
    constant = np.linalg.slogdet(mixture.covariance)[1] + len(precision) * LOG_2PI
    spread = np.einsum("icd,cd->i", bags.within, precision)
    field = bias_at(bags.basis, mixture.bias)
    scores = np.empty((len(bags), len(mixture)))
    for k, mean in enumerate(mixture.means):
        d = bags.mean - field * mean
        distance = np.einsum("ic,cd,id->i", d, precision, d, optimize=True)
        scores[:, k] = -0.5 * bags.mass * (constant + distance + spread)
    with np.errstate(divide="ignore"):
        return scores + np.log(mixture.weights)


def responsibilities(scores: Doubles) -> tuple[Doubles, float]:
    """Return the classes' posterior probabilities (N, K), and the log-likelihood."""
    top = scores.max(axis=1, keepdims=True)
    gamma = np.exp(scores - top)
    total = gamma.sum(axis=1, keepdims=True)
    gamma /= total
    return gamma, float((top + np.log(total)).sum())


def penalty(mixture: Mixture, voxels: float) -> float:
    """Return the log prior of the bias coefficients, for an image of so many voxels."""
    return float(-0.5 * STIFFNESS * voxels * (mixture.bias**2).sum())


def start(bags: Bags, classes: int, seed: int) -> Mixture:
    """Return the mixture of a mass-weighted k-means of the Gaussians' means.

    Parameters
    ----------
    bags : Bags
    classes : int
    seed : int
        Of all random choices.

    Returns
    -------
    Mixture
        Without bias.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    total = bags.mass.sum()
    center = bags.mass @ bags.mean / total
    spread = np.sqrt(bags.mass @ (bags.mean - center) ** 2 / total)
    scaled = (bags.mean - center) / np.where(spread > 0, spread, 1)
    with threadpool_limits(1):  # sums of several threads differ in the last bits
        found = KMeans(classes, n_init=3, random_state=seed).fit(scaled, sample_weight=bags.mass)
    gamma = np.eye(classes)[found.labels_]
    weights = gamma.mean(axis=0)
    means = (gamma * bags.mass[:, None]).T @ bags.mean
    means /= np.maximum(gamma.T @ bags.mass, 1e-12)[:, None]
    bias = np.zeros((bags.mean.shape[1], bags.basis.shape[1]))
    mixture = Mixture(weights, means, np.eye(len(center)), bias)
    return replace(mixture, covariance=_covariance(bags, mixture, gamma))


def _covariance(bags: Bags, mixture: Mixture, gamma: Doubles) -> Doubles:
    field = bias_at(bags.basis, mixture.bias)
    total: Doubles = np.einsum("i,icd->cd", bags.mass, bags.within)
    for k, mean in enumerate(mixture.means):
        d = bags.mean - field * mean
        total += (d * (bags.mass * gamma[:, k])[:, None]).T @ d
    return total / bags.mass.sum()


def _means(bags: Bags, mixture: Mixture, gamma: Doubles) -> Doubles:
    """Solve for the means given everything else."""
    precision = np.linalg.inv(mixture.covariance)
    field = bias_at(bags.basis, mixture.bias)
    out = mixture.means.copy()
    for k in range(len(mixture)):
        share = bags.mass * gamma[:, k]
        matrix = precision * ((field * share[:, None]).T @ field)
        right = (field * (share[:, None] * (bags.mean @ precision))).sum(axis=0)
        if share.sum() > 1e-9:
            out[k] = np.linalg.solve(matrix, right)
    return out


def _bias(bags: Bags, mixture: Mixture, gamma: Doubles) -> Doubles:
    """Solve for the bias coefficients given everything else: a linear problem, with a prior."""
    channels, terms = mixture.bias.shape
    precision = np.linalg.inv(mixture.covariance)
    share, means = bags.mass[:, None] * gamma, mixture.means
    matrix = np.empty((channels, terms, channels, terms))
    right = np.zeros((channels, terms))
    for a in range(channels):
        for b in range(channels):
            weight = precision[a, b] * (share @ (means[:, a] * means[:, b]))
            matrix[a, :, b] = (bags.basis * weight[:, None]).T @ bags.basis
            pull = (share @ means[:, a]) * bags.mean[:, b]
            right[a] += bags.basis.T @ (precision[a, b] * pull - weight)
    size = channels * terms
    system = matrix.reshape(size, size) + STIFFNESS * bags.mass.sum() * np.eye(size)
    wanted = np.linalg.solve(system, right.reshape(-1)).reshape(channels, terms)
    # Any step towards the solution raises the likelihood, so that a shorter one does, too.
    step = 1.0
    while step > 1e-3:
        new: Doubles = mixture.bias + step * (wanted - mixture.bias)
        if bias_at(bags.basis, new).min() >= LEAST_BIAS:
            return new
        step /= 2
    return mixture.bias


def mixture_of(bags: Bags, gamma: Doubles, rounds: int = 10) -> Mixture:
    """Return the mixture that fits given responsibilities best.

    Parameters
    ----------
    bags : Bags
    gamma : (N, K) ndarray
    rounds : int
        Of means, bias and covariance, which depend on each other.

    Returns
    -------
    Mixture
        With the classes in the order that they have.
    """
    share = gamma * bags.mass[:, None]
    means = share.T @ bags.mean / np.maximum(share.sum(axis=0), 1e-12)[:, None]
    bias = np.zeros((bags.mean.shape[1], bags.basis.shape[1]))
    mixture = Mixture(gamma.mean(axis=0), means, np.eye(means.shape[1]), bias)
    mixture = replace(mixture, covariance=_covariance(bags, mixture, gamma))
    for _ in range(rounds if bias.size else 1):
        mixture = replace(mixture, means=_means(bags, mixture, gamma))
        if bias.size:
            mixture = replace(mixture, bias=_bias(bags, mixture, gamma))
        mixture = replace(mixture, covariance=_covariance(bags, mixture, gamma))
    return mixture


def fit_mixture(
    bags: Bags,
    classes: int,
    seed: int = 0,
    iterations: int = 200,
    step: Callable[[int, float], None] = lambda done, value: None,
) -> tuple[Mixture, Doubles, list[float]]:
    """Fit a mixture to bags by expectation conditional maximization.

    Parameters
    ----------
    bags : Bags
    classes : int
    seed : int
        Of the k-means start.
    iterations : int
        At most.
    step : callable
        Called with the iteration and the objective; may raise.

    Returns
    -------
    mixture : Mixture
        With the classes in order.
    gamma : (N, K) ndarray
        Responsibilities.
    trace : list of float
        Log-likelihood plus log prior of the bias after every iteration; it never falls.
    """
    mixture = start(bags, classes, seed)
    trace: list[float] = []
    with_bias = False  # only once the classes stand: a bias of wrong classes takes their place
    total = bags.mass.sum()
    for iteration in range(iterations):
        gamma, likelihood = responsibilities(bag_scores(bags, mixture))
        trace.append(likelihood + penalty(mixture, total))
        step(iteration, trace[-1])
        if iteration and trace[-1] - trace[-2] <= TOLERANCE * total:
            if with_bias or not mixture.bias.size:
                break
            with_bias = True
        mixture = replace(mixture, weights=gamma.mean(axis=0))
        mixture = replace(mixture, means=_means(bags, mixture, gamma))
        if with_bias:
            mixture = replace(mixture, bias=_bias(bags, mixture, gamma))
        mixture = replace(mixture, covariance=_covariance(bags, mixture, gamma))
    mixture = mixture.order()
    gamma, _ = responsibilities(bag_scores(bags, mixture))
    return mixture, gamma, trace
