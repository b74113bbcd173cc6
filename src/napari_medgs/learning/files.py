"""Segmenter files: safetensors with a JSON card, so that opening one never runs code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_medgs._optional import require
from napari_medgs.errors import ParameterError
from napari_medgs.io._networks import NetworkFormat
from napari_medgs.io._safetensors import TensorFormat
from napari_medgs.learning.card import SUFFIX, SegmenterCard
from napari_medgs.learning.segmenter import Segmenter

FORMAT = NetworkFormat(
    TensorFormat("napari-medgs segmenter", 1, "segmenter", 2**24), 2**30, SUFFIX
)


def _prefix(number: int) -> str:
    """Return what stands before the weights' names of a network: the first, or a fold's."""
    return "model." if number == 0 else f"fold{number}."


def save_segmenter(path: str | Path, segmenter: Segmenter) -> Path:
    """Write a segmenter to a ``.safetensors`` file, atomically.

    Parameters
    ----------
    path : str or Path
        Its name must end in ``.safetensors``.
    segmenter : Segmenter

    Returns
    -------
    Path

    Raises
    ------
    FileError
        When the name has another suffix or the folder cannot be written.
    """
    weights = {
        _prefix(k) + name: value
        for k, network in enumerate(segmenter.networks)
        for name, value in network.state_dict().items()
    }
    return FORMAT.write(path, segmenter.card.to_dict(), weights)


def load_segmenter_card(path: str | Path) -> SegmenterCard:
    """Read only the card of a segmenter's file; does not need torch.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    SegmenterCard

    Raises
    ------
    FileError, FormatVersionError
        As :func:`load_segmenter`.
    """
    return FORMAT.read_card(path, SegmenterCard.from_dict)


def load_segmenter(path: str | Path, features: str | None = None) -> Segmenter:
    """Read a segmenter that training wrote.

    Parameters
    ----------
    path : str or Path
    features : str, optional
        ``package.module:factory`` of the pre-trained features of a model that was trained with
        some. Its code is run; a file alone never makes that happen.

    Returns
    -------
    Segmenter
        On the CPU.

    Raises
    ------
    FileError
        When the file is missing, damaged or no segmenter.
    FormatVersionError
        When a newer version of the package wrote it.
    MissingPackageError
        When torch is not installed.
    ParameterError
        When the model's pre-trained features are not named, or are not those of its training.
    """
    card = load_segmenter_card(path)
    check_features_named(path, card, features)
    require("torch", feature="A trained segmenter")
    from napari_medgs.learning.networks.segmenter import build_segmenter

    frozen = None
    if features is not None and card.network.features is not None:
        from napari_medgs.learning.networks.features import check_same_features, load_features

        frozen, found = load_features(features, card.network.ndim, card.network.channels)
        check_same_features(found, card.network.features)
    weights = FORMAT.read_weights(path)
    networks = [
        FORMAT.build(
            path,
            lambda: build_segmenter(card.network, frozen=frozen),
            _part(weights, _prefix(number)),
        )
        for number in range(1 + card.folds)
    ]
    return Segmenter(card, networks)


def check_features_named(path: str | Path, card: SegmenterCard, features: str | None) -> None:
    """Refuse a model whose pre-trained features the user does not name: files start no code.

    Raises
    ------
    ParameterError
        When they are not named, or there are none.
    """
    own = card.network.features
    if own is not None and features is None:
        raise ParameterError(
            f"{path}: the model uses features of {own.place}, which is code that no file may "
            f"start; name it (--features {own.place}) if you trust it."
        )
    if own is None and features is not None:
        raise ParameterError(f"{path}: the model uses no pre-trained features.")


def _part(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
