"""Gaussians of many small images as dense tensors, with affine transforms and merging."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch

from napari_medgs.errors import ParameterError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GaussianSet:
    """B images of N plain Gaussians each, in D axes.

    Attributes
    ----------
    means : (B, N, D) float32 tensor
        Centers in voxels, axes (y, x) or (z, y, x).
    covariances : (B, N, D, D) float32 tensor
        In voxels squared.
    values : (B, N, C) float32 tensor
        Intensities, scaled to about [0, 1].
    weights : (B, N) float32 tensor
        Weight in the normalized blend; mass in voxels for shapes. 0 for an absent Gaussian.
    residual : (B, N) float32 tensor
        Root mean squared error of the fit, weighted by the Gaussian.
    gradient : (B, N) float32 tensor
        Gradient magnitude of the rendered image at the center, per voxel.
    shape : tuple of int
        Pixels or voxels of the images.
    occupancy : bool
        The Gaussians of a binary shape: they add up to its occupancy. Others are blended.
    """

    means: Tensor
    covariances: Tensor
    values: Tensor
    weights: Tensor
    residual: Tensor
    gradient: Tensor
    shape: tuple[int, ...]
    occupancy: bool = False

    def __post_init__(self) -> None:
        b, n, d = self.means.shape
        if len(self.shape) != d or d not in (2, 3):
            raise ParameterError(
                f"Gaussians of {d} dimensions do not fit an image of shape {self.shape}."
            )
        wanted = {"covariances": (b, n, d, d), "weights": (b, n), "residual": (b, n),
                  "gradient": (b, n), "values": (b, n, self.values.shape[-1])}  # fmt: skip
        for name, size in wanted.items():
            if tuple(getattr(self, name).shape) != size:
                raise ParameterError(
                    f"The Gaussians' {name} have shape {tuple(getattr(self, name).shape)}, "
                    f"expected {size}."
                )

    @staticmethod
    def tensor_names() -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(f.name for f in fields(GaussianSet) if f.name not in ("shape", "occupancy"))

    def _map(self, function: Any) -> GaussianSet:
        return replace(self, **{n: function(getattr(self, n)) for n in self.tensor_names()})

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, index: Any) -> GaussianSet:
        """Return a subset of the images; the index must keep the first axis."""
        return self._map(lambda t: t[index])

    @property
    def count(self) -> int:
        """Gaussians per image."""
        return int(self.means.shape[1])

    @property
    def ndim(self) -> int:
        """Dimensions of the images."""
        return len(self.shape)

    def to(self, device: Any) -> GaussianSet:
        """Return the set on a device."""
        return self._map(lambda t: t.to(device, non_blocking=True))

    def center(self) -> Tensor:
        """Middle of the grid in voxels, (D,)."""
        return torch.tensor([(n - 1) / 2 for n in self.shape], device=self.means.device)

    def transform(self, matrix: Tensor, shift: Tensor | None = None) -> GaussianSet:
        """Transform the images by x -> A (x - c) + c + shift about the grid's center c.

        Exact: means move, covariances become A Sigma A^T, masses of shapes scale with |det A|.

        Parameters
        ----------
        matrix : (D, D) or (B, D, D) tensor
        shift : (D,) or (B, D) tensor, optional
            In voxels.

        Returns
        -------
        GaussianSet
        """
        matrix = matrix.to(self.means)
        if matrix.ndim == 2:
            matrix = matrix.expand(len(self), -1, -1)
        middle = self.center()
        means = (self.means - middle) @ matrix.mT + middle
        if shift is not None:
            means = means + shift.to(means).reshape(-1, 1, self.ndim)
        spread = matrix[:, None] @ self.covariances @ matrix[:, None].mT
        grown = torch.linalg.det(matrix).abs()[:, None]
        weights = self.weights * grown if self.occupancy else self.weights
        # Lengths, and with them the gradient, change with the mean scale.
        slope = self.gradient / grown ** (1 / self.ndim)
        return replace(self, means=means, covariances=spread, weights=weights, gradient=slope)

    def centered(self) -> GaussianSet:
        """Move every image's center of mass to the center of the grid."""
        fraction = self.weights / self.weights.sum(1, keepdim=True).clamp_min(1e-12)
        center = (fraction[..., None] * self.means).sum(1, keepdim=True)
        return replace(self, means=self.means - center + self.center())

    def size_weights(self) -> Tensor:
        """Return (B, N) weights of the Gaussians in a mean: their mass, or their volume."""
        if self.occupancy:
            return self.weights
        volume = torch.linalg.det(self.covariances).clamp_min(1e-12).sqrt()
        return volume * (self.weights > 0)

    def merged(self, group: int = 4) -> GaussianSet:
        """Merge neighbors, ``group`` at a time, into Gaussians of the same moments.

        Consecutive Gaussians must be neighbors in space, as after :meth:`in_kd_tree_order`.

        Raises
        ------
        ParameterError
            When there are too few Gaussians.
        """
        b, n = self.means.shape[:2]
        if n < group or n % group:
            raise ParameterError(
                f"{n} Gaussians cannot be merged {group} at a time: use a multiple of {group}."
            )

        def parts(t: Tensor) -> Tensor:
            return t.reshape(b, n // group, group, *t.shape[2:])

        raw = parts(self.size_weights())
        total = raw.sum(2, keepdim=True)
        fraction = torch.where(
            total > 0, raw / total.clamp_min(1e-12), torch.full_like(raw, 1 / group)
        )
        means = (fraction[..., None] * parts(self.means)).sum(2)
        offset = parts(self.means) - means[:, :, None]
        spread = parts(self.covariances) + offset[..., :, None] * offset[..., None, :]
        weights = parts(self.weights).sum(2)
        return replace(
            self,
            means=means,
            covariances=(fraction[..., None, None] * spread).sum(2),
            values=(fraction[..., None] * parts(self.values)).sum(2),
            weights=weights if self.occupancy else weights / group,
            residual=(fraction * parts(self.residual).square()).sum(2).sqrt(),
            gradient=(fraction * parts(self.gradient)).sum(2),
        )

    def in_kd_tree_order(self) -> GaussianSet:
        """Sort the Gaussians of each image as leaves of a k-d tree: runs of 2^k are compact."""
        b, n, d = self.means.shape
        order = torch.arange(n, device=self.means.device).expand(b, n)
        size = n
        while size > 2:
            groups = order.reshape(b, n // size, size)
            means = torch.gather(
                self.means[:, None].expand(b, n // size, n, d), 2,
                groups[..., None].expand(-1, -1, -1, d),
            )  # fmt: skip
            axis = means.var(dim=2).argmax(-1)[:, :, None, None].expand(-1, -1, size, 1)
            along = torch.gather(means, 3, axis)[..., 0]
            order = torch.gather(groups, 2, along.argsort(dim=2, stable=True)).reshape(b, n)
            size //= 2

        def sort(t: Tensor) -> Tensor:
            index = order.reshape(b, n, *[1] * (t.ndim - 2)).expand_as(t)
            return torch.gather(t, 1, index)

        return self._map(sort)

    def nbytes(self) -> int:
        """Bytes of one image: means, covariances (symmetric), values and weight as float32."""
        d = self.ndim
        numbers = d + d * (d + 1) // 2 + int(self.values.shape[-1]) + 1
        return 4 * self.count * (numbers - (1 if self.occupancy else 0))


def concatenate(sets: list[GaussianSet]) -> GaussianSet:
    """Concatenate sets of equal settings along the image axis."""
    first = sets[0]
    names = GaussianSet.tensor_names()
    joined: dict[str, Any] = {n: torch.cat([getattr(s, n) for s in sets]) for n in names}
    return replace(first, **joined)


def grid_points(
    shape: tuple[int, ...], counts: tuple[int, ...] | None = None, device: Any = None
) -> Tensor:
    """Return (P, D) points in voxels: all voxel centers, or the centers of ``counts`` cells
    over the same extent.
    """
    axes = []
    for n, m in zip(shape, counts or shape, strict=True):
        step = n / m
        axes.append((torch.arange(m, device=device) + 0.5) * step - 0.5)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))


def monomials(points: Tensor) -> Tensor:
    """Return (..., P, 1 + D + D (D + 1) / 2): 1, x_a, x_a x_b with a <= b."""
    d = points.shape[-1]
    rows, columns = torch.triu_indices(d, d)
    products = points[..., rows] * points[..., columns]
    return torch.cat([torch.ones_like(points[..., :1]), points, products], -1)


def log_terms(means: Tensor, precisions: Tensor, constant: Tensor) -> Tensor:
    """Return (B, 1 + D + .., N) coefficients of constant - (x - mu)^T P (x - mu) / 2.

    With :func:`monomials` one matrix product then evaluates all Gaussians at all points.
    """
    d = means.shape[-1]
    rows, columns = torch.triu_indices(d, d)
    pulled = (precisions @ means[..., None])[..., 0]
    zero = constant - 0.5 * (means * pulled).sum(-1)
    factor = torch.where(rows == columns, -0.5, -1.0).to(means)
    squares = precisions[..., rows, columns] * factor
    return torch.cat([zero[..., None], pulled, squares], -1).mT
