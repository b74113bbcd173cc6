"""Settings of the training of tissue networks."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medgs._util.settings import LARGEST_SEED, check, setting
from napari_medgs.tissue.deep.card import Architecture, Loss

GROUP = "Training"


@dataclass(frozen=True)
class TissueTrainParams:
    """How a tissue network is trained.

    Attributes
    ----------
    classes : int
    architecture : {"graph", "unet"}
        Graph convolutions on the Gaussians, or a U-Net on slices.
    loss : {"global", "spatial"}
        One mixture per image whose posterior the network gives, or probabilities that vary in
        space.
    steps : int
        Each on one image; the first quarter learns the classes of k-means.
    learning_rate : float
    width : int
        Channels of the first layer.
    padding : bool
        See :class:`~napari_medgs.tissue.TissueParams`.
    seed : int
        Of all random choices.
    threads : int or None
        CPU threads; None for all.

    Raises
    ------
    ParameterError
        When a value is out of its range.
    """

    classes: int = setting(3, low=2, high=12, help="Number of classes.", group=GROUP, metavar="K")
    architecture: Architecture = setting(
        "graph",
        help="Graph: convolutions on the Gaussians; unet: a U-Net on slices.",
        group=GROUP,
    )
    loss: Loss = setting(
        "spatial",
        help="Global: one mixture an image; spatial: class probabilities that vary in space.",
        group=GROUP,
    )
    steps: int = setting(200, low=4, help="Steps, each on one image.", group=GROUP)
    learning_rate: float = setting(1e-2, above=0, high=1, help="Of Adam.", group=GROUP)
    width: int = setting(16, low=4, high=256, help="Channels of the first layer.", group=GROUP)
    padding: bool = setting(
        True,
        help="Leave out voxels with exactly the lowest value in all contrasts, if there are many.",
        group=GROUP,
    )
    seed: int = setting(
        0,
        low=0,
        high=LARGEST_SEED,
        help="Seed of all random choices.",
        group="Common options",
    )
    threads: int | None = setting(
        None, low=1, none="all CPUs", help="CPU threads to use.", group="Common options"
    )

    def __post_init__(self) -> None:
        check(self)
