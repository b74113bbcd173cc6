"""Cards of segmenters that are to be trained, and whether an old one can be continued."""

from __future__ import annotations

from napari_medgs.errors import GeometryError, ImageError, LabelError
from napari_medgs.learning.card import SegmenterCard
from napari_medgs.learning.data.checks import CheckedCases
from napari_medgs.learning.data.prepare import Sizes, channel_scales
from napari_medgs.learning.networks.slots import FeatureSource, SegmenterConfig
from napari_medgs.learning.training.params import LearnParams


def make_card(
    checked: CheckedCases,
    params: LearnParams,
    sizes: Sizes,
    licence: str = "",
    features: FeatureSource | None = None,
) -> SegmenterCard:
    """Return the card of an untrained segmenter for cases.

    Parameters
    ----------
    checked : CheckedCases
    params : LearnParams
    sizes : Sizes
    licence : str
    features : FeatureSource, optional
    """
    levels = len(sizes.strides)
    config = SegmenterConfig(
        ndim=len(sizes.strides[0]),
        channels=len(checked.channels),
        classes=1 + len(checked.classes),
        encoder=params.encoder,
        decoder=params.decoder,
        supervision=params.supervision,
        widths=tuple(min(1024, params.width * 2**k) for k in range(levels)),
        strides=sizes.strides,
        kernels=sizes.kernels,
        features=features,
    )
    return SegmenterCard(
        network=config,
        class_values=tuple(checked.classes),
        class_names=tuple(checked.classes.values()),
        channel_names=checked.channels,
        scales=channel_scales(checked.facts),
        spacing=sizes.spacing,
        patch=sizes.patch,
        licence=licence,
    )


def check_continued(card: SegmenterCard, checked: CheckedCases) -> None:
    """Refuse to continue a model on cases of another kind.

    Raises
    ------
    ImageError, LabelError, GeometryError
        When contrasts, classes or dimensions differ.
    """
    if len(card.channel_names) != len(checked.channels):
        raise ImageError(
            f"The model to continue reads {len(card.channel_names)} contrast(s) "
            f"({', '.join(card.channel_names)}), the cases have {len(checked.channels)}."
        )
    if card.class_values != tuple(checked.classes):
        mine = ", ".join(f"{v} {n}" for v, n in card.names.items())
        theirs = ", ".join(f"{v} {n}" for v, n in checked.classes.items())
        raise LabelError(
            f"The model to continue has the classes {mine}, the cases {theirs}; train a new one."
        )
    flat = checked.facts[0].shape[0] == 1
    if (card.network.ndim == 2) != flat:
        kinds = ("slices", "volumes") if card.network.ndim == 2 else ("volumes", "slices")
        raise GeometryError(
            f"The model to continue reads {kinds[0]}, the cases are {kinds[1]}; train a new one."
        )
