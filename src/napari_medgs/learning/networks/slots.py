"""The three slots of a segmenter: what fills them, and what they promise each other.

An *encoder* turns an image into features of several resolutions. A *decoder* turns them into one
logit per class and voxel. A *supervision* turns logits and a target into the loss; it is gone when
training is over. Each can be exchanged without the others.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from napari_medgs._util.records import checked_record
from napari_medgs._util.settings import check, setting
from napari_medgs.errors import ParameterError

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -1
"""Value of the target where no loss is taken: voxels beyond the image's border."""
MOST_LEVELS = 7


class EncoderKind(StrEnum):
    """Kinds of encoders: a U-Net at half the resolution; a forest of patches of adaptive size."""

    UNET = "unet"
    FOREST = "forest"


class DecoderKind(StrEnum):
    """Kinds of decoders.

    ``trilinear`` enlarges logits, ``gaussian`` blends Gaussians placed by the features,
    ``gaussian-energy`` by features and by the energy of contours, ``field`` blends the Gaussians
    that the image itself was fitted with.
    """

    TRILINEAR = "trilinear"
    GAUSSIAN = "gaussian"
    GUIDED = "gaussian-energy"
    FIELD = "field"


class SupervisionKind(StrEnum):
    """Kinds of supervision: the last logits, those of all levels, learned mixtures of levels."""

    LAST = "last"
    DEEP = "deep"
    LOMIX = "lomix"

    @property
    def multi_scale(self) -> bool:
        """Whether it needs logits of all levels."""
        return self is not SupervisionKind.LAST


class Encoder(Protocol):
    """Features of several resolutions of an image.

    Attributes
    ----------
    widths : tuple of int
        Channels of its features, coarse to fine.
    multiple : tuple of int
        Sizes that it takes are multiples of these, one an axis; the segmenter pads.
    """

    widths: tuple[int, ...]
    multiple: tuple[int, ...]

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Return features (B, W, ...) coarse to fine of an image (B, C, ...)."""


class Decoder(Protocol):
    """Logits of features. Its constructor takes a config and the widths of the features."""

    def __call__(self, features: list[Tensor], size: tuple[int, ...], image: Tensor) -> Tensor:
        """Return logits (B, K, *size).

        ``features`` are (B, W, ...), coarse to fine, and cover the image from edge to edge. The
        image (B, C, ...) is the encoder's; only decoders that look at it need it. ``size`` may
        differ from the image's, for an output of another resolution.
        """


class Supervision(Protocol):
    """The loss of logits. Its constructor takes a config; it may have weights that are learned."""

    def __call__(self, logits: list[Tensor], target: Tensor) -> Tensor:
        """Return the loss, a scalar.

        ``logits`` are (B, K, ...), coarse to fine, the last of the target's size; kinds without
        ``multi_scale`` get that one alone. ``target`` is (B, ...) int64, ``IGNORED`` where no
        loss is taken.
        """


_PLACE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True)
class FeatureSource:
    """A pre-trained module whose features are further channels of the image.

    Attributes
    ----------
    place : str
        ``package.module:factory``, to be imported when the user says so.
    channels : int
        Its features.
    digest : str
        Of its weights.

    Raises
    ------
    ParameterError
        When the place is no import path.
    """

    place: str
    channels: int = setting(1, low=1, high=16_384)
    digest: str = ""

    def __post_init__(self) -> None:
        check(self)
        if len(self.place) > 500 or not _PLACE.fullmatch(self.place):
            raise ParameterError(
                f"features must be an import path such as package.module:factory, not "
                f"{self.place[:60]!r}."
            )


@dataclass(frozen=True)
class SegmenterConfig:
    """What fills the slots, and the sizes of a segmenter.

    Attributes
    ----------
    ndim : {2, 3}
        Axes of the images.
    channels : int
        Contrasts.
    classes : int
        Classes, background included.
    encoder, decoder, supervision
        Kinds; their names as text will do.
    widths : tuple of int
        Channels of the levels, fine to coarse.
    strides : tuple of tuple of int
        By level, fine to coarse, the factor along each axis by which its resolution is below
        that of the level before; the first is that of the stem, which moves voxels to channels.
    kernels : tuple of tuple of int
        By level the size of the convolutions along each axis, 1 or 3: 1 along axes whose voxels
        are much longer than along the others.
    features : FeatureSource, optional
        A pre-trained module that adds channels to the image.

    Raises
    ------
    ParameterError
        When the sizes do not fit together.

    Examples
    --------
    >>> SegmenterConfig(ndim=3, channels=1, classes=3).factors
    ((2, 2, 2), (4, 4, 4), (8, 8, 8))
    """

    ndim: int = setting(3, low=2, high=3)
    channels: int = setting(1, low=1, high=64)
    classes: int = setting(2, low=2, high=250)
    encoder: EncoderKind = EncoderKind.UNET
    decoder: DecoderKind = DecoderKind.TRILINEAR
    supervision: SupervisionKind = SupervisionKind.LAST
    widths: tuple[int, ...] = (16, 32, 64)
    strides: tuple[tuple[int, ...], ...] = ()
    kernels: tuple[tuple[int, ...], ...] = ()
    features: FeatureSource | None = None

    def __post_init__(self) -> None:
        check(self)
        for name, kind in (
            ("encoder", EncoderKind),
            ("decoder", DecoderKind),
            ("supervision", SupervisionKind),
        ):
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, kind(value))
            except ValueError:
                raise ParameterError(
                    f"{name} must be {' or '.join(kind)}, not {value!r}."
                ) from None
        levels = len(self.widths)
        if not 1 <= levels <= MOST_LEVELS or not all(4 <= w <= 1024 for w in self.widths):
            raise ParameterError("widths must be 1 to 7 numbers from 4 to 1024.")
        for name, standard, allowed in (("strides", 2, (1, 2)), ("kernels", 3, (1, 3))):
            rows = getattr(self, name) or ((standard,) * self.ndim,) * levels
            rows = tuple(tuple(int(n) for n in row) for row in rows)
            good = len(rows) == levels and all(
                len(row) == self.ndim and set(row) <= set(allowed) for row in rows
            )
            if not good:
                raise ParameterError(
                    f"{name} must be one row of {self.ndim} numbers a level, each "
                    f"{' or '.join(map(str, allowed))}."
                )
            object.__setattr__(self, name, rows)

    @property
    def factors(self) -> tuple[tuple[int, ...], ...]:
        """By level, fine to coarse, how far its resolution is below the image's, by axis."""
        rows, now = [], (1,) * self.ndim
        for row in self.strides:
            now = tuple(a * b for a, b in zip(now, row, strict=True))
            rows.append(now)
        return tuple(rows)

    @property
    def multiple(self) -> tuple[int, ...]:
        """Sizes that fit all levels are multiples of these, one an axis."""
        return self.factors[-1]

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON-able values."""
        kinds = {n: str(getattr(self, n)) for n in ("encoder", "decoder", "supervision")}
        return {**asdict(self), **kinds}

    @classmethod
    def from_dict(cls, record: Any) -> SegmenterConfig:
        """Return the configuration that :meth:`to_dict` described.

        Raises
        ------
        ParameterError
            When an entry is missing or wrong.
        """
        made: SegmenterConfig = checked_record(cls, record, "network")
        return made
