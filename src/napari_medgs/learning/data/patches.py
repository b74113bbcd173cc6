"""Training patches: where they are taken, and how they are changed at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_medgs.learning.data.prepare import PreparedCase
from napari_medgs.learning.networks.slots import IGNORED


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes of a patch.

    Attributes
    ----------
    mirror : bool
        Flip left and right; off where classes are lateral.
    degrees : float
        Largest rotation; about the axis of thick slices only.
    scale : float
        Largest relative change of size.
    elastic : float
        Largest displacement of a coarse grid of points, as a part of their distance.
    elastic_chance : float
        Part of the patches that are deformed.
    gain, bias : float
        Largest change of contrast (relative) and brightness (standard deviations).
    gamma : float
        Largest change of the logarithm of the exponent of the gray values.
    noise : float
        Largest standard deviation of added noise.
    blur : float
        Part of the patches that are smoothed.
    foreground : float
        Part of the patches that are centered at a voxel of a class, each class as often.
    """

    mirror: bool = True
    degrees: float = 15.0
    scale: float = 0.16
    elastic: float = 0.15
    elastic_chance: float = 0.3
    gain: float = 0.2
    bias: float = 0.2
    gamma: float = 0.2
    noise: float = 0.1
    blur: float = 0.1
    foreground: float = 0.67


def has_lateral_classes(names: Sequence[str]) -> bool:
    """Tell whether class names say left or right, so that a mirrored mask would be wrong.

    Examples
    --------
    >>> has_lateral_classes(["Kidney_L", "kidney right"]), has_lateral_classes(["copyright", "le"])
    (True, False)
    """
    words = {"left", "right", "l", "r", "lh", "rh", "links", "rechts", "lt", "rt"}
    for name in names:
        split = "".join(c if c.isalnum() else " " for c in name.casefold()).split()
        if words & set(split) or any(w.startswith(("left", "right")) for w in split):
            return True
    return False


class PatchDataset(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Random patches; the same index gives the same patch, whatever process makes it.

    Parameters
    ----------
    cases : sequence of PreparedCase
    patch : (z, y, x)
    spacing : (z, y, x)
    classes : int
        With background.
    count : int
        Number of patches.
    augmentation : Augmentation
    seed : int
        Of all random choices.
    first : int
        The index that the first patch has, for a training that is continued.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        patch: tuple[int, int, int],
        spacing: tuple[float, float, float],
        classes: int,
        count: int,
        augmentation: Augmentation,
        seed: int = 0,
        first: int = 0,
    ) -> None:
        self.first = first
        self.cases, self.patch, self.spacing = tuple(cases), patch, np.array(spacing)
        self.classes, self.count, self.seed = classes, count, seed
        self.augmentation = augmentation
        self.flat = patch[0] == 1
        self.having = {
            k: [i for i, case in enumerate(self.cases) if k in case.points]
            for k in range(1, classes)
        }

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return an image (C, ...) and the classes (...) of a patch; without z in 2D."""
        index += self.first
        random = np.random.default_rng([self.seed, index])
        case, center = self._choose(random, index)
        image, labels = self._cut(case, center, random)
        image = self._intensities(image, random)
        return (image[:, 0], labels[0]) if self.flat else (image, labels)

    def _choose(
        self, random: np.random.Generator, index: int
    ) -> tuple[PreparedCase, NDArray[np.float64]]:
        """Return a case and the middle of a patch in it."""
        present = [k for k, having in self.having.items() if having]
        if present and random.random() < self.augmentation.foreground:
            k = present[index % len(present)]
            case = self.cases[self.having[k][random.integers(len(self.having[k]))]]
            points = case.points[k]
            center = points[random.integers(len(points))].astype(float)
            center += random.uniform(-0.25, 0.25, 3) * self.patch
        else:
            case = self.cases[random.integers(len(self.cases))]
            center = random.uniform(0, 1, 3) * (np.array(case.labels.shape) - 1)
        # Patches stay in the image, whose middle they share where it is smaller.
        size, half = np.array(case.labels.shape), np.array(self.patch) / 2
        low, high = half - 0.5, size - half - 0.5
        inside = np.clip(center, np.minimum(low, high), np.maximum(low, high))
        return case, np.where(low > high, (size - 1) / 2, inside)

    def _cut(
        self, case: PreparedCase, center: NDArray[np.float64], random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the patch around a place, rotated, scaled and deformed."""
        a = self.augmentation
        matrix = self._matrix(random)
        patch = np.array(self.patch)
        reach = np.abs(matrix) @ (patch / 2) + 1 + a.elastic * patch / 3
        size = np.array(case.labels.shape)
        low = np.maximum(np.floor(center - reach).astype(int), 0)
        high = np.minimum(np.ceil(center + reach).astype(int) + 1, size)
        high = np.maximum(high, low + 1)
        box = tuple(slice(int(i), int(j)) for i, j in zip(low, high, strict=True))
        image = torch.from_numpy(np.array(case.image[(slice(None), *box)]))[None]
        labels = torch.from_numpy(np.array(case.labels[box])).float()[None, None]
        offsets = torch.stack(
            torch.meshgrid(
                *[torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in self.patch],
                indexing="ij",
            ),
            -1,
        )
        if a.elastic and random.random() < a.elastic_chance:
            offsets = offsets + self._displacement(random)
        places = offsets @ torch.from_numpy(matrix.T.astype(np.float32))
        places = places + torch.from_numpy((center - low).astype(np.float32))
        extent = torch.tensor([float(n) for n in labels.shape[2:]])
        # grid_sample's coordinates: -1 to 1 over the edges, x first.
        grid = ((places + 0.5) / extent * 2 - 1).flip(-1)[None]
        sample = torch.nn.functional.grid_sample
        moved = sample(image, grid, padding_mode="border", align_corners=False)[0]
        classes = sample(labels, grid, mode="nearest", padding_mode="border", align_corners=False)[
            0, 0
        ]
        beyond = (places + torch.from_numpy(low.astype(np.float32)) < -0.5) | (
            places + torch.from_numpy(low.astype(np.float32))
            > torch.from_numpy(size.astype(np.float32)) - 0.5
        )
        target = classes.round().long()
        target[beyond.any(-1)] = IGNORED
        return moved, target

    def _matrix(self, random: np.random.Generator) -> NDArray[np.float64]:
        """Return the (3, 3) matrix from offsets in the patch to offsets in the image."""
        a = self.augmentation
        angle = np.deg2rad(a.degrees) * random.uniform(-1, 1, 3)
        # Rotations that mix axes of very different voxels are left out.
        spacing = self.spacing.copy()
        if self.flat:
            spacing[0] = np.inf
        rotation = np.eye(3)
        for axis in range(3):
            i, j = (k for k in range(3) if k != axis)
            if max(spacing[i], spacing[j]) > 2 * min(spacing[i], spacing[j]):
                continue
            turn = np.eye(3)
            c, s = np.cos(angle[axis]), np.sin(angle[axis])
            turn[i, i], turn[j, j], turn[i, j], turn[j, i] = c, c, -s, s
            rotation = rotation @ turn
        # In millimeters, so that shapes are kept where voxels are no cubes.
        real = np.where(np.isfinite(spacing), self.spacing, 1.0)
        matrix: NDArray[np.float64] = rotation * real[None, :] / real[:, None]
        matrix = matrix / (1 + a.scale * random.uniform(-1, 1))
        if self.flat:
            matrix[0, :], matrix[:, 0] = 0, 0
            matrix[0, 0] = 1
        if a.mirror and random.random() < 0.5:
            matrix[:, 2] *= -1
        return matrix

    def _displacement(self, random: np.random.Generator) -> Tensor:
        """Return (z, y, x, 3) displacements in voxels, of four points an axis."""
        a, points = self.augmentation, 4
        coarse = random.uniform(-1, 1, (1, 3, points, points, points)).astype(np.float32)
        if self.flat:
            coarse[:, 0] = 0
        field = torch.nn.functional.interpolate(
            torch.from_numpy(coarse), self.patch, mode="trilinear", align_corners=True
        )[0].movedim(0, -1)
        return field * torch.tensor([a.elastic * n / points for n in self.patch])

    def _intensities(self, image: Tensor, random: np.random.Generator) -> Tensor:
        """Return an image (C, Z, Y, X) with other contrast, brightness, noise and sharpness."""
        a = self.augmentation
        out = []
        for channel in image:
            values = channel * (1 + a.gain * random.uniform(-1, 1)) + a.bias * random.uniform(
                -1, 1
            )
            if random.random() < 0.3:
                low, high = values.min(), values.max()
                span = (high - low).clamp_min(1e-6)
                exponent = float(np.exp(a.gamma * random.uniform(-1, 1)))
                values = ((values - low) / span) ** exponent * span + low
            if random.random() < a.blur:
                kernel = tuple(3 if n >= 3 else 1 for n in values.shape)
                values = torch.nn.functional.avg_pool3d(
                    values[None, None], kernel, 1, tuple(k // 2 for k in kernel),
                    count_include_pad=False,
                )[0, 0]  # fmt: skip
            if random.random() < 0.3:
                noise = random.standard_normal(values.shape, np.float32)
                values = values + a.noise * random.random() * torch.from_numpy(noise)
            out.append(values)
        return torch.stack(out)
