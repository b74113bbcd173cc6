"""Settings of classification: one frozen dataclass per stage, for API and command line alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from napari_medgs._util import training_settings as shared
from napari_medgs._util.settings import check, setting
from napari_medgs._util.training_settings import LIGHTNING, LOGS, TRAINING
from napari_medgs.classification.card import MODELS
from napari_medgs.errors import ParameterError


@dataclass(frozen=True)
class TrainParams:
    """How to train a classifier.

    Attributes
    ----------
    model : {"hybrid", "edge", "gnn", "resnet8", "inr2vec"}
        Kind of network; "hybrid" renders Gaussians to a coarse grid inside the network.
    epochs : int, optional
        Passes over the training images; by default by model and data.
    batch_size : int
        Images per step.
    learning_rate : float
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
        Gaussians per image; by default 64 for 2D and shapes, 128 for 3D gray values.
    seed : int
        Of all random choices.
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

    model: str = setting(
        "hybrid",
        choices=MODELS,
        label="Network",
        group=TRAINING,
        help="Kind of network; hybrid renders Gaussians to a coarse grid inside the network.",
    )
    epochs: int | None = setting(
        None,
        low=1,
        high=10_000,
        none="by network and data",
        label="Epochs",
        group=TRAINING,
        help="Passes over the training images.",
    )
    batch_size: int = setting(
        32, low=2, high=4096, label="Batch size", group=TRAINING, help="Images per step."
    )
    learning_rate: float = shared.learning_rate(2e-3)
    weight_decay: float = shared.weight_decay(0.05)
    ema: float = shared.ema(0.99)
    smoothing: float = setting(
        0.05,
        low=0,
        below=0.5,
        label="Label smoothing",
        group=TRAINING,
        help="Label smoothing of single-label tasks.",
    )
    patience: int | None = setting(
        None,
        low=1,
        none="run all epochs",
        label="Patience",
        group=TRAINING,
        help="Stop after this many epochs without a better validation AUC.",
    )
    tta: bool = setting(
        True,
        label="Test-time augmentation",
        group=TRAINING,
        help="Average predictions over flips of the image.",
    )
    gaussians: int | None = setting(
        None,
        low=16,
        high=4096,
        none="64; 128 for 3D gray values",
        label="Gaussians",
        group=TRAINING,
        help="Gaussians per image, a power of 2.",
    )
    seed: int = shared.seed()
    accelerator: str = shared.accelerator()
    devices: str = setting("auto", group=LIGHTNING, help="Number of devices, or auto.")
    strategy: str = setting(
        "auto", group=LIGHTNING, help="Strategy of distributed training, such as ddp."
    )
    precision: str = setting(
        "auto", group=LIGHTNING, help="Precision; auto is mixed on CUDA and 32 bit elsewhere."
    )
    logger: Literal["none", "csv", "tensorboard"] = setting(
        "none", label="Logger", group=LOGS, help="Where training curves are written."
    )
    log_dir: str | None = shared.log_dir()
    resume: bool = shared.resume()
    threads: int | None = shared.threads()
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        check(self)
        if self.gaussians is not None and self.gaussians & (self.gaussians - 1):
            raise ParameterError(
                f"gaussians must be a power of 2 from 16 to 4096, not {self.gaussians}."
            )
        if self.model == "edge" and self.gaussians is not None and self.gaussians < 32:
            raise ParameterError(
                f"The network edge needs at least 32 Gaussians, not {self.gaussians}: it merges "
                "four into one, twice, and looks at neighbors."
            )
        if (self.resume or self.logger != "none") and not self.log_dir:
            raise ParameterError("Logs and resuming need a folder: set log_dir as well.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return asdict(self)
