"""Many small images as Gaussians: dense tensors that move, merge and become fields."""

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
        Weight in the normalized blend; occupancy in voxels for shapes. 0 for no Gaussian.
    residual : (B, N) float32 tensor
        Root mean square of what the fit misses under the Gaussian.
    gradient : (B, N) float32 tensor
        Length of the rendered image's gradient at the center, per voxel.
    shape : tuple of int
        Pixels or voxels of the images.
    occupancy : bool
        The Gaussians of a shape: they add up to its occupancy, where others are blended.
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
            raise ParameterError(f"Gaussians of {d} axes do not fit an image of {self.shape}.")
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
        """Return some of the images; the index must keep the first axis."""
        return self._map(lambda t: t[index])

    @property
    def count(self) -> int:
        """Gaussians an image."""
        return int(self.means.shape[1])

    @property
    def ndim(self) -> int:
        """Axes of the images."""
        return len(self.shape)

    def to(self, device: Any) -> GaussianSet:
        """Return the set on a device."""
        return self._map(lambda t: t.to(device, non_blocking=True))

    def center(self) -> Tensor:
        """Middle of the grid in voxels, (D,)."""
        return torch.tensor([(n - 1) / 2 for n in self.shape], device=self.means.device)

    def transform(self, matrix: Tensor, shift: Tensor | None = None) -> GaussianSet:
        """Move the images by x -> A (x - c) + c + shift about the grid's middle c.

        Exact: means move, covariances become A Sigma A^T, masses of shapes grow with |det A|.

        Parameters
        ----------
        matrix : (D, D) or (B, D, D) tensor
        shift : (D,) or (B, D) tensor, optional
            In voxels.
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
        # A length in the image, and so its slope, changes with the mean scale.
        slope = self.gradient / grown ** (1 / self.ndim)
        return replace(self, means=means, covariances=spread, weights=weights, gradient=slope)

    def centered(self) -> GaussianSet:
        """Move every image's center of occupancy to the middle of the grid."""
        share = self.weights / self.weights.sum(1, keepdim=True).clamp_min(1e-12)
        center = (share[..., None] * self.means).sum(1, keepdim=True)
        return replace(self, means=self.means - center + self.center())

    def size_weights(self) -> Tensor:
        """Return (B, N) what each Gaussian counts in a mean: its occupancy, or its volume."""
        if self.occupancy:
            return self.weights
        volume = torch.linalg.det(self.covariances).clamp_min(1e-12).sqrt()
        return volume * (self.weights > 0)

    def merged(self, group: int = 4) -> GaussianSet:
        """Merge neighbours, ``group`` at a time, into Gaussians of the same moments.

        Neighbours in number are neighbours in space, as :meth:`in_kd_tree_order` puts them.

        Raises
        ------
        ParameterError
            When there are too few Gaussians.
        """
        b, n = self.means.shape[:2]
        if n < group or n % group:
            raise ParameterError(
                f"{n} Gaussians are too few, or no multiple of {group}, to merge."
            )

        def parts(t: Tensor) -> Tensor:
            return t.reshape(b, n // group, group, *t.shape[2:])

        raw = parts(self.size_weights())
        total = raw.sum(2, keepdim=True)
        share = torch.where(
            total > 0, raw / total.clamp_min(1e-12), torch.full_like(raw, 1 / group)
        )
        means = (share[..., None] * parts(self.means)).sum(2)
        offset = parts(self.means) - means[:, :, None]
        spread = parts(self.covariances) + offset[..., :, None] * offset[..., None, :]
        weights = parts(self.weights).sum(2)
        return replace(
            self,
            means=means,
            covariances=(share[..., None, None] * spread).sum(2),
            values=(share[..., None] * parts(self.values)).sum(2),
            weights=weights if self.occupancy else weights / group,
            residual=(share * parts(self.residual).square()).sum(2).sqrt(),
            gradient=(share * parts(self.gradient)).sum(2),
        )

    def in_kd_tree_order(self) -> GaussianSet:
        """Sort the Gaussians of each image so that runs of 2^k are compact in space."""
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
    """Join sets of equal settings, image after image."""
    first = sets[0]
    names = GaussianSet.tensor_names()
    joined: dict[str, Any] = {n: torch.cat([getattr(s, n) for s in sets]) for n in names}
    return replace(first, **joined)


def grid_points(
    shape: tuple[int, ...], counts: tuple[int, ...] | None = None, device: Any = None
) -> Tensor:
    """Return (P, D) points in voxels: all centers, or ``counts`` of cells over the same box."""
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
