"""Settings of classification: one frozen dataclass a stage, for API and command line alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from napari_medgs.classification.card import MODELS
from napari_medgs.errors import ParameterError


def _check(good: bool, name: str, wanted: str, value: object) -> None:
    if not good:
        raise ParameterError(f"{name} must be {wanted}, not {value!r}.")


@dataclass(frozen=True)
class FitSettings:
    """How small images become Gaussians, many at a time.

    Attributes
    ----------
    gaussians : int
        Gaussians an image, a power of 2: levels merge neighbours four at a time, twice.
    iterations : int
        Steps of Adam for grey values and colours (shapes need none).
    points : int
        Random voxels a step in 3D; 2D steps see all pixels.
    shape : bool
        The image is a binary shape: its foreground voxels are clustered.
    neighbours : int
        Edges that leave each Gaussian of the graph.
    seed : int
    """

    gaussians: int = 64
    iterations: int = 60
    points: int = 1024
    shape: bool = False
    neighbours: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        n = self.gaussians
        power = n >= 16 and n & (n - 1) == 0
        _check(power and n <= 4096, "gaussians", "a power of 2 from 16 to 4096", n)
        _check(1 <= self.iterations <= 10_000, "iterations", "from 1 to 10000", self.iterations)
        _check(64 <= self.points <= 1_000_000, "points", "64 or more", self.points)
        _check(1 <= self.neighbours < n, "neighbours", "1 to gaussians - 1", self.neighbours)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return asdict(self)


@dataclass(frozen=True)
class TrainParams:
    """How to train a classifier.

    Attributes
    ----------
    model : {"hybrid", "edge", "gnn", "resnet8", "inr2vec"}
        Kind of network; "hybrid" renders Gaussians to a coarse grid inside the network.
    epochs : int, optional
        Passes over the training images; by default by model and data.
    batch : int
        Images a step.
    rate : float
        Highest learning rate of AdamW.
    weight_decay : float
    ema : float
        Decay of the moving average of the weights that is kept in the end; 0 keeps the last.
    smoothing : float
        Label smoothing of single-label tasks.
    patience : int, optional
        Stop after so many epochs without a better validation AUC. By default all epochs are run
        and the last average is kept: small validation sets mislead.
    tta : bool
        Average predictions over flips of the image.
    gaussians : int, optional
        Gaussians an image; by default 64 for 2D and shapes, 128 for 3D grey values.
    seed : int
    accelerator, devices, strategy, precision : str
        Passed to Lightning; precision "auto" is mixed on CUDA and 32 bit elsewhere.
    logger : {"none", "csv", "tensorboard"}
    log_dir : str, optional
        Folder of logs and of the checkpoint that ``resume`` continues.
    resume : bool
        Continue the interrupted run in ``log_dir``.
    threads : int, optional
        CPU threads; all by default.
    cache_dir : str, optional
        Where fits are kept; "" keeps none, by default the user's cache folder.
    """

    model: str = "hybrid"
    epochs: int | None = None
    batch: int = 32
    rate: float = 2e-3
    weight_decay: float = 0.05
    ema: float = 0.99
    smoothing: float = 0.05
    patience: int | None = None
    tta: bool = True
    gaussians: int | None = None
    seed: int = 0
    accelerator: str = "auto"
    devices: str = "auto"
    strategy: str = "auto"
    precision: str = "auto"
    logger: Literal["none", "csv", "tensorboard"] = "none"
    log_dir: str | None = None
    resume: bool = False
    threads: int | None = None
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        _check(self.model in MODELS, "model", " or ".join(MODELS), self.model)
        _check(self.epochs is None or 1 <= self.epochs <= 10_000, "epochs", "1 to 10000",
               self.epochs)  # fmt: skip
        _check(2 <= self.batch <= 4096, "batch", "2 to 4096", self.batch)
        _check(0 < self.rate <= 1, "rate", "above 0 and at most 1", self.rate)
        _check(self.weight_decay >= 0, "weight_decay", "0 or more", self.weight_decay)
        _check(0 <= self.ema < 1, "ema", "0 to below 1", self.ema)
        _check(0 <= self.smoothing < 0.5, "smoothing", "0 to below 0.5", self.smoothing)
        _check(self.patience is None or self.patience >= 1, "patience", "1 or more", self.patience)
        _check(self.logger in ("none", "csv", "tensorboard"), "logger",
               "none, csv or tensorboard", self.logger)  # fmt: skip
        _check(self.threads is None or self.threads >= 1, "threads", "1 or more", self.threads)
        if (self.resume or self.logger != "none") and not self.log_dir:
            raise ParameterError("Logs and resuming need a folder: set log_dir as well.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return asdict(self)
