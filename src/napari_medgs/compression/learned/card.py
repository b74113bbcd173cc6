"""The card of a learned codec: everything but its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from napari_medgs._util.records import checked_record
from napari_medgs._util.settings import check, setting
from napari_medgs.compression.learned.params import TOKEN, Architecture, TrainLoss
from napari_medgs.data.field import FieldInfo
from napari_medgs.errors import ParameterError
from napari_medgs.rendering.parameters import GEOMETRY

LEVELS = 64
"""Whole numbers that a latent can be."""
NOTE = "Lossy, for research: how well it codes other fields than those like its own is not known."


@dataclass(frozen=True)
class CodecCard:
    """Description of a learned codec.

    Attributes
    ----------
    network, loss : str
    published : bool
        See :class:`~napari_medgs.compression.learned.CodecParams`.
    channels : int
        Image channels and classes of its fields.
    block, latents : int
    columns : tuple of int
        Of the parameter table, those that vary; the others are constants.
    slots : int
        Gaussians of every field where they all have one order, 0 otherwise.
    local : bool
        Positions count from the middle of each block, which is coded too.
    info : dict
        Grid and settings of the common start of fits made for learning; empty otherwise.
    step : float
        Of latents, in standard deviations (published form); 0 where training has set it.
    weights : int
        Number of trained weights.
    training, metrics : dict
        Settings; explained variance per attribute, PSNR to the fields and bytes, on fields that
        were kept out.
    note : str

    Raises
    ------
    ParameterError
        When the values describe no codec.
    """

    network: Architecture
    loss: TrainLoss
    published: bool
    channels: int = setting(1, low=1, high=64)
    block: int = setting(32, low=8, high=256)
    latents: int = setting(32, low=1, high=1024)
    columns: tuple[int, ...] = setting((), low=0, high=GEOMETRY + 64)
    slots: int = setting(0, low=0, high=256)
    local: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    step: float = setting(0.0, low=0, high=10)
    weights: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    note: str = NOTE

    def __post_init__(self) -> None:
        check(self)
        good = (
            0 < len(self.columns) == len(set(self.columns))
            and max(self.columns) < GEOMETRY + self.channels
            and self.block % 8 == 0
            and self.slots <= self.block
            and (self.network != "tokens" or self.latents % (self.block // TOKEN) == 0)
        )
        if not good:
            raise ParameterError("The codec's card contradicts itself.")
        if self.info:
            FieldInfo.from_dict(self.info)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Any) -> CodecCard:
        """Return the card that :meth:`to_dict` described; unknown keys are ignored.

        Raises
        ------
        ParameterError, GeometryError
            When the values describe no codec.
        """
        card: CodecCard = checked_record(cls, record)
        return card
