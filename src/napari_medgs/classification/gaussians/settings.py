"""Settings of batched fits of small images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from napari_medgs._util.settings import LARGEST_SEED, check, setting
from napari_medgs.errors import ParameterError


@dataclass(frozen=True)
class FitSettings:
    """How small images become Gaussians, many at a time.

    Attributes
    ----------
    gaussians : int
        Gaussians per image, a power of 2: levels merge neighbors four at a time, twice.
    iterations : int
        Steps of Adam for gray values and colors (shapes need none).
    points : int
        Random voxels per step in 3D; 2D steps see all pixels.
    shape : bool
        The image is a binary shape: its foreground voxels are clustered.
    neighbors : int
        Edges that leave each Gaussian of the graph.
    seed : int
        Of all random choices.
    """

    gaussians: int = setting(64, low=16, high=4096, help="Gaussians per image, a power of 2.")
    iterations: int = setting(60, low=1, high=10_000, help="Steps of Adam.")
    points: int = setting(1024, low=64, high=1_000_000, help="Random voxels per step in 3D.")
    shape: bool = setting(False, help="The image is a binary shape.")
    neighbors: int = setting(8, low=1, help="Edges that leave each Gaussian of the graph.")
    seed: int = setting(0, low=0, high=LARGEST_SEED, help="Seed of all random choices.")

    def __post_init__(self) -> None:
        check(self)
        if self.gaussians & (self.gaussians - 1):
            raise ParameterError(
                f"gaussians must be a power of 2 from 16 to 4096, not {self.gaussians}."
            )
        if self.neighbors >= self.gaussians:
            raise ParameterError(f"neighbors must be less than gaussians, not {self.neighbors}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return asdict(self)


@dataclass(frozen=True)
class FitConstants:
    """Hyper-parameters of batched fits that an ablation may vary.

    Attributes
    ----------
    smallest_sigma : float
        Lower bound of the standard deviations, in voxels.
    largest_sigma : float
        Upper bound of the standard deviations, as a fraction of the longest edge.
    start_sigma : float
        Initial standard deviation, in units of the mean spacing of Gaussians.
    gradient_sampling : float
        Probability with which an initial center is drawn by gradient magnitude instead of
        uniformly.
    ridge : float
        Regularization of the least squares for the values, relative to its mean diagonal.
    rates : mapping of str to float
        Learning rates of Adam by parameter: voxels for means, logarithms for the factors'
        diagonal and the weights.
    """

    smallest_sigma: float = 0.25
    largest_sigma: float = 0.35
    start_sigma: float = 0.6
    gradient_sampling: float = 0.7
    ridge: float = 1e-4
    rates: Mapping[str, float] = field(
        default_factory=lambda: {
            "means": 0.25, "diagonal": 0.1, "off": 0.05, "constant": 0.1, "values": 0.03,
        }
    )  # fmt: skip
