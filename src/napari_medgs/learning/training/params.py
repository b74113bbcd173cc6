"""Settings of training a segmenter, for API, command line and viewer alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from napari_medgs._util import training_settings as shared
from napari_medgs._util.settings import check, setting
from napari_medgs._util.training_settings import LIGHTNING, LOGS, TRAINING
from napari_medgs.errors import ParameterError
from napari_medgs.learning.networks.slots import DecoderKind, EncoderKind, SupervisionKind

NETWORK = "Network"
FEW_STEPS = 200
"""Steps below which poor masks are to be expected."""


@dataclass(frozen=True)
class LearnParams:
    """How to train a segmenter.

    Attributes
    ----------
    minutes : float, optional
        Time for everything, folds included; by default as long as the steps take.
    steps : int, optional
        Steps of the network that learns from all cases; by default 1,000, or as many as the
        minutes allow. The networks of the folds get half as many.
    folds : int, optional
        Further networks, each trained without a part of the cases: their Dice on it is the
        model's expected one, their agreement on new images tells where it fails. By default 4
        from four cases on.
    patience : int, optional
        Stop a network when so many checks bring no better Dice on the cases it was not shown.
    held_out : float
        Part of the cases that the first network is not shown, to measure it while it trains.
    polish : bool
        Measure on the folds' cases whether polishing helps; the model does it where it does.
    encoder, decoder, supervision
        What fills the slots of the network.
    features : str, optional
        Import path ``package.module:factory`` of a torch module whose features are further
        channels of the image.
    width : int
        Channels of its finest level; they double from level to level.
    levels : int, optional
        Levels of the network; by default 3, on CUDA 4.
    spacing : (z, y, x), optional
        Voxel size in mm to work at.
    batch_size : int
        Patches per step.
    learning_rate, weight_decay : float
        Of AdamW.
    ema : float
        Decay of the moving average of the weights, which is what is kept.
    precision : {"auto", "32", "bf16"}
        "auto" measures which is faster.
    workers : int, optional
        Processes that make patches; by default half of the threads, at most 4.
    accelerator : str
        Passed to Lightning.
    logger : {"csv", "tensorboard", "none"}
        Curves in ``log_dir``, if that is given.
    log_dir : str, optional
        Folder of the curves and of what ``resume`` continues from.
    resume : bool
        Continue the interrupted run in ``log_dir``.
    seed : int
        Of all random choices.
    threads : int, optional
        CPU threads; all by default.
    """

    minutes: float | None = setting(
        None,
        above=0,
        high=100_000,
        none="as long as the steps take",
        label="Minutes",
        unit="min",
        group=TRAINING,
        help="Time for the whole training, folds included.",
    )
    steps: int | None = setting(
        None,
        low=1,
        high=10_000_000,
        none="1,000, or what the minutes allow",
        label="Steps",
        group=TRAINING,
        help="Steps of the network that learns from all cases; folds get half as many.",
    )
    folds: int | None = setting(
        None,
        low=0,
        high=20,
        none="4 from four cases on",
        label="Folds",
        group=TRAINING,
        help="Further networks, each without a part of the cases: they measure the model and "
        "show where it is unsure. 0 for none.",
    )
    patience: int | None = setting(
        None,
        low=1,
        none="train to the end",
        label="Patience",
        group=TRAINING,
        help="Stop a network after so many checks without a better Dice on cases that it was not "
        "shown.",
    )
    held_out: float = setting(
        0.0,
        low=0,
        high=0.5,
        label="Held out",
        group=TRAINING,
        help="Part of the cases that the first network is not shown, to measure it meanwhile.",
    )
    polish: bool = setting(
        False,
        label="Polish",
        group=TRAINING,
        help="Measure on cases left out whether the solver of segment improves the masks; where "
        "it does, the model's masks are polished from then on.",
    )
    batch_size: int = setting(
        2, low=1, high=256, label="Batch size", group=TRAINING, help="Patches per step."
    )
    learning_rate: float = shared.learning_rate(3e-3)
    weight_decay: float = shared.weight_decay(0.01)
    ema: float = shared.ema(0.99)
    encoder: EncoderKind = setting(
        EncoderKind.UNET, label="Encoder", group=NETWORK, help="What makes features of the image."
    )
    decoder: DecoderKind = setting(
        DecoderKind.TRILINEAR,
        label="Decoder",
        group=NETWORK,
        help="What makes logits of the features.",
    )
    supervision: SupervisionKind = setting(
        SupervisionKind.LAST,
        label="Supervision",
        group=NETWORK,
        help="Which logits are compared with the mask.",
    )
    features: str | None = setting(
        None,
        none="none",
        label="Features",
        group=NETWORK,
        metavar="MODULE:FACTORY",
        help="Import path of a pre-trained torch module, whose features are further channels of "
        "the image. Its code is run.",
    )
    width: int = setting(
        16,
        low=4,
        high=256,
        label="Width",
        group=NETWORK,
        help="Channels of the finest level; they double from level to level.",
    )
    levels: int | None = setting(
        None,
        low=1,
        high=7,
        none="3; 4 on CUDA",
        label="Levels",
        group=NETWORK,
        help="Levels of resolution.",
    )
    spacing: tuple[float, float, float] | None = setting(
        None,
        above=0,
        high=1000,
        none="the median, larger for large objects",
        label="Voxel size",
        unit="mm",
        group=NETWORK,
        help="Voxel size (z y x) to work at.",
    )
    precision: Literal["auto", "32", "bf16"] = setting(
        "auto",
        label="Precision",
        group=LIGHTNING,
        help="Numbers to calculate with; auto measures which are faster.",
    )
    accelerator: str = shared.accelerator()
    workers: int | None = setting(
        None,
        low=0,
        high=64,
        none="half of the threads, at most 4",
        label="Workers",
        group=LIGHTNING,
        help="Processes that make patches.",
    )
    logger: Literal["csv", "tensorboard", "none"] = setting(
        "csv", label="Logger", group=LOGS, help="How curves are written to --log-dir."
    )
    log_dir: str | None = shared.log_dir()
    resume: bool = shared.resume()
    seed: int = shared.seed()
    threads: int | None = shared.threads()

    def __post_init__(self) -> None:
        for name, kind in (
            ("encoder", EncoderKind),
            ("decoder", DecoderKind),
            ("supervision", SupervisionKind),
        ):
            value = getattr(self, name)
            if value in tuple(kind):
                object.__setattr__(self, name, kind(value))
        check(self)
        if self.folds == 1:
            raise ParameterError("folds must be 0 or at least 2: one fold is no cross-validation.")
        if self.polish and self.folds == 0:
            raise ParameterError(
                "Whether polishing helps is measured by folds: leave out folds=0."
            )
        if self.resume and not self.log_dir:
            raise ParameterError("Resuming needs the folder of the run: set log_dir as well.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        kinds = {n: str(getattr(self, n)) for n in ("encoder", "decoder", "supervision")}
        return {**asdict(self), **kinds}
