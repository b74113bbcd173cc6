"""Files of tissue networks: safetensors with a JSON card, so that opening one never runs code."""

from __future__ import annotations

from pathlib import Path

from napari_medgs._optional import require
from napari_medgs.io._networks import NetworkFormat
from napari_medgs.io._safetensors import TensorFormat
from napari_medgs.tissue.deep.card import SUFFIX, TissueCard, TissueNetwork

FORMAT = NetworkFormat(
    TensorFormat("napari-medgs tissue network", 1, "tissue network", 2**20), 2**28, SUFFIX
)


def save_tissue_network(path: str | Path, trained: TissueNetwork) -> Path:
    """Write a network to a ``.safetensors`` file, atomically.

    Parameters
    ----------
    path : str or Path
    trained : TissueNetwork

    Returns
    -------
    Path

    Raises
    ------
    FileError
        When the name has another suffix or the folder cannot be written.
    """
    return FORMAT.write(path, trained.card.to_dict(), trained.network.state_dict())


def load_tissue_card(path: str | Path) -> TissueCard:
    """Read only the card of a tissue network's file; does not need torch.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    TissueCard

    Raises
    ------
    FileError, FormatVersionError
        As :func:`load_tissue_network`.
    """
    return FORMAT.read_card(path, TissueCard.from_dict)


def load_tissue_network(path: str | Path) -> TissueNetwork:
    """Read a network that training wrote.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    TissueNetwork

    Raises
    ------
    FileError
        When the file is missing, damaged or no tissue network.
    FormatVersionError
        When a newer version of the package wrote it.
    MissingPackageError
        When torch is not installed.
    """
    card = load_tissue_card(path)
    require("torch", "torch_geometric", feature="A tissue network")
    from napari_medgs.tissue.deep.networks import build

    network = FORMAT.build(path, lambda: build(card), FORMAT.read_weights(path))
    return TissueNetwork(card, network.eval())
