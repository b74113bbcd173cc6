"""Tissue classes of an image: labels, probabilities, what every class looks like."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as entry
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Doubles, Floats

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.grid import Grid
    from napari_medgs.data.volume import Volume


class TissueRow(TypedDict):
    """One class in numbers; lists have an entry per contrast."""

    label: int
    voxels: int
    volume_ml: float
    fraction: float
    mean: list[float]
    sd: list[float]


@dataclass(frozen=True)
class TissueResult:
    """An image divided into classes of intensity.

    Attributes
    ----------
    grid : Grid
    contrasts : tuple of str
    probabilities : (K, Z, Y, X) ndarray of float32
        Of the classes; all 0 where a voxel was left out.
    region : (Z, Y, X) ndarray of bool
        Voxels that were divided.
    means : (K, C) ndarray of float64
        Intensity of every class, in the image's units and without bias.
    deviations : (C,) ndarray of float64
        Standard deviation within classes.
    bias : (C, Z, Y, X) ndarray of float32 or None
        Factor of the intensities, with mean 1 over the region; None where none was estimated.
    rows : list of TissueRow
        The table: volume, mean and standard deviation of the intensities per label.
    log_likelihood : list of float
        Of the Gaussians' mixture after every iteration, with the prior of the bias.
    voxel_log_likelihood : list of float
        Of the mixture at the voxels before every round, and at the end.
    held_out : dict of int to float
        Log-likelihood per held-out voxel by number of classes; empty where the number was given.
    seconds : dict of str to float
        By stage.
    model : str
        Name of the trained network, empty where the mixture was fitted.
    """

    grid: Grid
    contrasts: tuple[str, ...]
    probabilities: Floats
    region: NDArray[np.bool_]
    means: Doubles
    deviations: Doubles
    bias: Floats | None
    rows: list[TissueRow]
    log_likelihood: list[float] = entry(default_factory=list)
    voxel_log_likelihood: list[float] = entry(default_factory=list)
    held_out: dict[int, float] = entry(default_factory=dict)
    seconds: dict[str, float] = entry(default_factory=dict)
    model: str = ""
    field: GaussianField | None = entry(default=None, repr=False)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.probabilities)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The most probable class of every voxel, from 1, dark to bright; 0 where left out."""
        return labels_of(self.probabilities, self.region)

    @property
    def uncertainty(self) -> Floats:
        """Entropy of the probabilities over its largest value, (Z, Y, X), 0 to 1."""
        out = np.zeros(self.grid.shape, np.float32)
        for p in self.probabilities:
            out -= p * np.log(np.maximum(p, 1e-12))
        out /= np.float32(np.log(self.classes))
        return np.clip(out, 0, 1)

    def corrected(self, volume: Volume) -> Floats:
        """Return the image without its bias, (C, Z, Y, X).

        Parameters
        ----------
        volume : Volume
            The image that was divided.

        Returns
        -------
        (C, Z, Y, X) ndarray of float32
        """
        data = volume.data.astype(np.float32)
        return data if self.bias is None else data / self.bias

    def numbers(self) -> dict[str, Any]:
        """Return all numbers, as written to JSON."""
        return {
            "classes": self.classes,
            "contrasts": list(self.contrasts),
            "table": [dict(row) for row in self.rows],
            "means": self.means.tolist(),
            "deviations": self.deviations.tolist(),
            "bias_range": None if self.bias is None else _range(self.bias[:, self.region]),
            "log_likelihood": self.log_likelihood,
            "voxel_log_likelihood": self.voxel_log_likelihood,
            "held_out_log_likelihood": {str(k): v for k, v in self.held_out.items()},
            "seconds": self.seconds,
            "model": self.model,
        }


def _range(values: Floats) -> list[float]:
    return [float(values.min()), float(values.max())]


def labels_of(probabilities: Floats, region: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the most probable class of every voxel from 1, and 0 out of the region."""
    labels = probabilities.argmax(axis=0).astype(np.uint8) + np.uint8(1)
    return labels * region.astype(np.uint8)


def table(labels: NDArray[np.uint8], volume: Volume, classes: int) -> list[TissueRow]:
    """Return voxels, volume and intensities of every class.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray
    volume : Volume
    classes : int

    Returns
    -------
    list of TissueRow
    """
    flat = labels.reshape(-1)
    counts = np.bincount(flat, minlength=classes + 1)[1:]
    sums, squares = [], []
    for channel in volume.data:
        values = channel.reshape(-1).astype(np.float64)
        mean = np.bincount(flat, values, classes + 1)[1:] / np.maximum(counts, 1)
        deviation = values - np.concatenate([[0.0], mean])[flat]
        variance = np.bincount(flat, deviation**2, classes + 1)[1:] / np.maximum(counts, 1)
        sums.append(mean)
        squares.append(np.sqrt(variance))
    total = max(int(counts.sum()), 1)
    return [
        TissueRow(
            label=k + 1,
            voxels=int(counts[k]),
            volume_ml=float(counts[k] * volume.grid.voxel_volume / 1000),
            fraction=float(counts[k] / total),
            mean=[float(mean[k]) for mean in sums],
            sd=[float(deviation[k]) for deviation in squares],
        )
        for k in range(classes)
    ]
