"""The card of a tissue network: everything about it except its weights; and both together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from napari_medgs._util.records import checked_record
from napari_medgs._util.settings import check, setting
from napari_medgs.errors import ImageError

SUFFIX = ".safetensors"
Architecture = Literal["graph", "unet"]
Loss = Literal["global", "spatial"]


@dataclass(frozen=True)
class TissueCard:
    """Description of a tissue network, stored with its weights.

    Attributes
    ----------
    architecture : {"graph", "unet"}
        On the Gaussians of a field, or on slices.
    loss : {"global", "spatial"}
        One mixture for all of the image, whose posterior the network gives; or class
        probabilities that vary from place to place.
    classes : int
    contrasts : int
    width : int
        Channels of the first layer.
    neighbors : int
        Of every Gaussian in the graph.
    channel_names : tuple of str
    cases : tuple of str
        What it was trained on.
    steps : int
    seconds : float
    loss_value : float
        Mean over the last tenth of the steps: negative log-likelihood per voxel.
    """

    architecture: Architecture = setting("graph")
    loss: Loss = setting("spatial")
    classes: int = setting(3, low=2, high=12)
    contrasts: int = setting(1, low=1, high=64)
    width: int = setting(16, low=4, high=256)
    neighbors: int = setting(8, low=1, high=64)
    channel_names: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    steps: int = setting(0, low=0)
    seconds: float = setting(0.0, low=0)
    loss_value: float = 0.0

    def __post_init__(self) -> None:
        check(self)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Any) -> TissueCard:
        """Read a card.

        Raises
        ------
        ParameterError
            When an entry is missing or out of its range.
        """
        return checked_record(cls, record)

    def check_image(self, contrasts: int) -> None:
        """Refuse an image with another number of contrasts.

        Raises
        ------
        ImageError
        """
        if contrasts != self.contrasts:
            names = ", ".join(self.channel_names)
            raise ImageError(
                f"The image has {contrasts} contrast{'s' * (contrasts > 1)}; the network was "
                f"trained on {self.contrasts} ({names}). Give these, in this order."
            )


@dataclass(frozen=True)
class TissueNetwork:
    """A trained network with its card.

    Attributes
    ----------
    card : TissueCard
    network : torch.nn.Module
    """

    card: TissueCard
    network: Any
