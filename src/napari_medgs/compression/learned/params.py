"""Settings of a learned codec and of its training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_medgs._util.settings import LARGEST_SEED, check, setting
from napari_medgs.errors import ParameterError

Architecture = Literal["tokens", "conv1d", "resnet"]
TrainLoss = Literal["render", "parameters"]

TOKEN = 4
"""Gaussians of a token."""


@dataclass(frozen=True)
class CodecParams:
    """How a learned codec is made.

    Attributes
    ----------
    network : {"tokens", "conv1d", "resnet"}
        Transformer on tokens of 4 Gaussians, or the published convolutional (1.6 M weights) and
        residual (16 M) networks along the Morton order.
    published : bool
        As published: widths and angle of the ellipses, a variational loss on the parameters,
        latents rounded after training. Otherwise the factors that fields store, and latents that
        are rounded in training under a learned distribution.
    loss : {"render", "parameters"}
        What the repaired form learns: the rendering and a tenth of the parameters, or these
        alone.
    block : int
        Gaussians that are coded together, a multiple of 8.
    latents : int
        Numbers that a block becomes.
    steps, batch : int
        Steps of Adam, and fields of one.
    learning_rate : float
    rate : float
        Loss per bit and latent (repaired), or weight of the Kullback-Leibler divergence
        (published).
    seed : int
        Of all random choices.
    threads : int, optional
        CPU threads; all by default.

    Examples
    --------
    >>> from napari_medgs.compression.learned import CodecParams
    >>> CodecParams(network="conv1d", published=True).loss
    'parameters'
    """

    network: Architecture = setting(
        "tokens",
        help="Of tokens, a transformer on groups of 4 Gaussians; conv1d and resnet are the "
        "published networks along the Morton order, of 1.6 and 16 million weights.",
    )
    published: bool = setting(
        False,
        help="As published: widths and angles, a variational loss on parameters. Learns where "
        "Gaussians lie and little else.",
    )
    loss: TrainLoss | None = setting(
        None,
        none="render; parameters as published",
        help="What is learned: the rendering and a tenth of the parameters, or these alone.",
    )
    block: int = setting(
        32, low=8, high=256, metavar="N", help="Gaussians that are coded together."
    )
    latents: int = setting(
        32, low=1, high=1024, metavar="N", help="Numbers that a block of Gaussians becomes."
    )
    steps: int = setting(600, low=1, high=10**7, metavar="N", help="Steps of training.")
    batch: int = setting(16, low=1, high=4096, metavar="N", help="Fields of a step.")
    learning_rate: float = setting(1e-3, above=0.0, high=1.0, help="Of Adam.")
    rate: float | None = setting(
        None,
        low=0.0,
        high=100.0,
        none="0.01; 0.1 as published",
        help="Loss for each bit of a latent; as published, for the divergence.",
    )
    seed: int = setting(
        0,
        low=0,
        high=LARGEST_SEED,
        help="Seed of all random choices.",
        group="Common options",
    )
    threads: int | None = setting(
        None, low=1, high=4096, none="all CPUs", help="CPU threads to use.", group="Common options"
    )

    def __post_init__(self) -> None:
        check(self)
        if self.block % 8:
            raise ParameterError(f"block must be a multiple of 8, not {self.block}.")
        if self.loss is None:
            object.__setattr__(self, "loss", "parameters" if self.published else "render")
        if self.rate is None:
            object.__setattr__(self, "rate", 0.1 if self.published else 0.01)
        if self.published and self.network == "tokens":
            raise ParameterError("Published are the networks conv1d and resnet; name one of them.")
        if self.published and self.loss == "render":
            raise ParameterError("The published form learns parameters; leave out the loss.")
        if self.network == "tokens" and self.latents % (self.block // TOKEN):
            raise ParameterError(
                f"latents must be a multiple of {self.block // TOKEN}, the tokens of a block, "
                f"not {self.latents}."
            )
