"""Batched fits: thousands of small images become Gaussians at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.classification.gaussians.set import (
    GaussianSet,
    concatenate,
    grid_points,
    log_terms,
    monomials,
)
from napari_medgs.classification.gaussians.settings import FitConstants, FitSettings
from napari_medgs.classification.gaussians.shapes import fit_shapes
from napari_medgs.errors import Cancelled, ImageError, ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

CHUNK_BYTES = 24 * 2**20  # per tensor of a step: stays near the caches


def fit_images(
    images: NDArray[Any],
    settings: FitSettings,
    *,
    constants: FitConstants = FitConstants(),  # noqa: B008 (frozen)
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> GaussianSet:
    """Fit Gaussians to every image of a batch.

    Gray values and colors: Adam on means, precision factors and weights of a normalized blend,
    then least squares for the values. Binary shapes: k-means of the foreground.

    Parameters
    ----------
    images : (B, C, Y, X) or (B, C, Z, Y, X) float32 ndarray
        Scaled to [0, 1].
    settings : FitSettings
    constants : FitConstants, optional
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    GaussianSet
        In k-d tree order.

    Raises
    ------
    ImageError
        When a shape is empty, or values are not finite.
    Cancelled
        When ``should_stop`` returned True.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.classification.gaussians.settings import FitSettings
    >>> square = np.zeros((1, 1, 16, 16), np.float32)
    >>> square[..., 4:12, 4:12] = 1
    >>> fitted = fit_images(square, FitSettings(gaussians=16, iterations=20))
    >>> fitted.means.shape, bool(psnr(square, fitted)[0] > 20)
    (torch.Size([1, 16, 2]), True)
    """
    images = np.ascontiguousarray(images, dtype=np.float32)
    if not np.isfinite(images).all():
        raise ImageError("The images contain values that are not finite (NaN or infinite).")
    started = time.perf_counter()

    def check() -> None:
        if should_stop():
            raise Cancelled("The fit of Gaussians was canceled.")

    def report(done: int) -> None:
        check()
        spent = time.perf_counter() - started
        left = spent / done * (len(images) - done) if done else None
        progress(ProgressEvent("fit Gaussians", done, len(images), spent, remaining=left))

    report(0)
    if settings.shape:
        return fit_shapes(images, settings, report).in_kd_tree_order()
    voxels = int(np.prod(images.shape[2:]))
    points = voxels if images.ndim == 4 else min(voxels, settings.points)
    chunk = max(1, min(64, CHUNK_BYTES // (4 * points * settings.gaussians)))
    parts: list[GaussianSet] = []
    for first in range(0, len(images), chunk):
        # The same seed for every chunk, so that fits do not depend on the number of images.
        some = torch.from_numpy(images[first : first + chunk])
        parts.append(_fit_chunk(some, settings, constants, check))
        report(min(len(images), first + chunk))
    return concatenate(parts).in_kd_tree_order()


def blend(points: Tensor, gaussians: GaussianSet, precisions: Tensor | None = None) -> Tensor:
    """Return (B, P, C): the normalized blend of Gaussians at points (P, D)."""
    terms = _terms(gaussians, precisions)
    blend_weights = torch.softmax(monomials(points - gaussians.center()) @ terms, -1)
    return blend_weights @ gaussians.values


def _terms(gaussians: GaussianSet, precisions: Tensor | None) -> Tensor:
    if precisions is None:
        precisions = torch.linalg.inv(gaussians.covariances)
    constant = gaussians.weights.clamp_min(1e-20).log()
    return log_terms(gaussians.means - gaussians.center(), precisions, constant)


def _fit_chunk(
    images: Tensor, settings: FitSettings, constants: FitConstants, check: Callable[[], None]
) -> GaussianSet:
    """Fit some images: Adam on means, precision factors and weights; values by least squares.

    ``check`` is called before every step and raises when the fit is canceled.
    """
    b, c = images.shape[:2]
    shape = tuple(images.shape[2:])
    d, n = len(shape), settings.gaussians
    flat = images.reshape(b, c, -1).mT.contiguous()
    everywhere = grid_points(shape)
    middle = torch.tensor([(s - 1) / 2 for s in shape])
    random = torch.Generator().manual_seed(settings.seed)
    start = _sample_start_voxels(images, n, random, constants.gradient_sampling)
    means = (everywhere[start] - middle).requires_grad_()
    sigma = constants.start_sigma * (everywhere.shape[0] / n) ** (1 / d)
    # Precision P = R^T R with R upper triangular: its diagonal as logarithms.
    diagonal = torch.full((b, n, d), -float(np.log(sigma))).requires_grad_()
    off = torch.zeros(b, n, d * (d - 1) // 2).requires_grad_()
    constant = torch.zeros(b, n).requires_grad_()
    values = torch.gather(flat, 1, start[..., None].expand(-1, -1, c)).requires_grad_()
    low = -np.log(constants.largest_sigma * max(shape))
    high = -np.log(constants.smallest_sigma)
    leaves = {
        "means": means, "diagonal": diagonal, "off": off, "constant": constant, "values": values,
    }  # fmt: skip
    groups = [{"params": [leaf], "lr": constants.rates[name]} for name, leaf in leaves.items()]
    optimizer = torch.optim.Adam(groups, betas=(0.8, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.iterations, 0.01)
    basis = monomials(everywhere - middle)
    for _ in range(settings.iterations):
        check()
        points, target = basis, flat
        if d == 3 and settings.points < len(basis):
            sample = torch.randint(0, len(basis), (settings.points,), generator=random)
            points, target = basis[sample], flat[:, sample]
        root = _precision_factor(diagonal, off)
        blend_weights = torch.softmax(points @ log_terms(means, root.mT @ root, constant), -1)
        loss = (blend_weights @ values - target).square().sum() / (len(points) * c)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            diagonal.clamp_(low, high)
            constant.clamp_(-6, 6)
            means.clamp_(-middle - 1, middle + 1)
    with torch.no_grad():
        return _solve_values(
            flat, shape, middle, means, _precision_factor(diagonal, off), constant, values,
            constants.ridge,
        )  # fmt: skip


def _precision_factor(diagonal: Tensor, off: Tensor) -> Tensor:
    """Return R (B, N, D, D), upper triangular, of the precision R^T R."""
    d = diagonal.shape[-1]
    rows, columns = torch.triu_indices(d, d, 1)
    root = torch.diag_embed(diagonal.exp())
    filler = torch.zeros_like(root)
    filler[..., rows, columns] = off
    return root + filler


def _sample_start_voxels(
    images: Tensor, n: int, random: torch.Generator, by_gradient: float
) -> Tensor:
    """Draw (B, N) initial centers, more of them where the gradient is large."""
    pixels = math.prod(images.shape[2:])
    if n > pixels:
        raise ParameterError(f"The images have {pixels:,} pixels, fewer than {n:,} Gaussians.")
    slopes = torch.gradient(images, dim=list(range(2, images.ndim)))
    size = torch.stack([s.square().sum(1) for s in slopes]).sum(0).sqrt().flatten(1)
    chance = by_gradient * size / size.sum(1, keepdim=True).clamp_min(1e-9)
    chance = chance + (1 - by_gradient) / size.shape[1]
    return torch.multinomial(chance, n, generator=random)


def _solve_values(
    flat: Tensor,
    shape: tuple[int, ...],
    middle: Tensor,
    means: Tensor,
    root: Tensor,
    constant: Tensor,
    values: Tensor,
    regularization: float,
) -> GaussianSet:
    """Solve the values by least squares; measure residuals and gradients."""
    precisions = root.mT @ root
    basis = monomials(grid_points(shape) - middle)
    terms = log_terms(means, precisions, constant)
    b, n = means.shape[:2]
    left = torch.zeros(b, n, n)
    right = torch.zeros(b, n, values.shape[-1])
    pieces = torch.split(torch.arange(len(basis)), 4096)
    for piece in pieces:
        blend_weights = torch.softmax(basis[piece] @ terms, -1)
        left += blend_weights.mT @ blend_weights
        right += blend_weights.mT @ flat[:, piece]
    ridge = regularization * left.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    eye = torch.eye(n)
    solved = torch.linalg.solve(left + ridge * eye, right + ridge * values)
    solved = solved.clamp(-0.25, 1.25)
    squared_error, total_weight = torch.zeros(b, n), torch.zeros(b, n)
    for piece in pieces:
        blend_weights = torch.softmax(basis[piece] @ terms, -1)
        error = (blend_weights @ solved - flat[:, piece]).square().mean(-1, keepdim=True)
        squared_error += (blend_weights * error).sum(1)
        total_weight += blend_weights.sum(1)
    covariances = torch.cholesky_inverse(root.mT.contiguous(), upper=False)
    result = GaussianSet(
        means=means + middle,
        covariances=0.5 * (covariances + covariances.mT),
        values=solved,
        weights=constant.exp(),
        residual=(squared_error / total_weight.clamp_min(1e-6)).sqrt(),
        gradient=torch.zeros(b, n),
        shape=shape,
    )
    return replace(result, gradient=_gradient_norms(means, terms, solved))


def _gradient_norms(points: Tensor, terms: Tensor, values: Tensor) -> Tensor:
    """Return (B, N): gradient magnitude of the blend at each image's own points (B, N, D)."""
    total: Any = 0.0
    for axis in range(points.shape[-1]):
        step = torch.zeros(points.shape[-1])
        step[axis] = 0.5
        ahead = torch.softmax(monomials(points + step) @ terms, -1) @ values
        behind = torch.softmax(monomials(points - step) @ terms, -1) @ values
        total = total + (ahead - behind).square().sum(-1)
    return total.sqrt()


def psnr(images: NDArray[Any], gaussians: GaussianSet) -> NDArray[np.float64]:
    """Return (B,) peak signal-to-noise ratios in dB (peak 1) of blended images."""
    points = grid_points(gaussians.shape)
    scores = []
    for k in range(len(gaussians)):
        prediction = blend(points, gaussians[k : k + 1])[0].mT.numpy()
        error = np.square(prediction - images[k].reshape(prediction.shape)).mean()
        scores.append(-10 * np.log10(max(float(error), 1e-12)))
    return np.asarray(scores)
