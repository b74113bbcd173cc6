"""Files of tissue networks: safetensors with a JSON card, so that opening one never runs code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from napari_medgs._optional import require
from napari_medgs._util.records import parse_json
from napari_medgs.errors import FileError, ParameterError
from napari_medgs.io._safetensors import TensorFormat, check_weights
from napari_medgs.tissue.deep.card import SUFFIX, TissueCard

if TYPE_CHECKING:
    from napari_medgs.tissue.deep.training import TissueNetwork

FORMAT = TensorFormat("napari-medgs tissue network", 1, "tissue network", 2**20)
MAX_BYTES = 2**28


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
    from safetensors.torch import save

    path = Path(path)
    if not path.name.endswith(SUFFIX):
        raise FileError(f"{path}: the file of a tissue network must end in {SUFFIX}.")
    tensors = {k: v.detach().cpu().contiguous() for k, v in trained.network.state_dict().items()}
    card = json.dumps(trained.card.to_dict())
    FORMAT.write(path, save(tensors, metadata=FORMAT.header(card=card)))
    return path


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
    path = Path(path)
    header = FORMAT.read_header(path)
    try:
        card = TissueCard.from_dict(parse_json(header["card"]))
    except (ValueError, KeyError, ParameterError) as error:
        raise FileError(f"{path}: damaged, or no tissue network ({error}).") from None
    require("torch", "torch_geometric", "lightning", feature="A tissue network")
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from napari_medgs.tissue.deep.networks import build
    from napari_medgs.tissue.deep.training import TissueNetwork

    if path.stat().st_size > MAX_BYTES:
        raise FileError(f"{path}: too large for a tissue network of this package.")
    try:
        tensors = load_file(path)
        with torch.device("meta"):  # sizes only: a damaged card may ask for any amount of memory
            expected = {k: v.shape for k, v in build(card).state_dict().items()}
        check_weights(path, tensors, expected)
        with torch.random.fork_rng(devices=[]):
            network = build(card)
        network.load_state_dict(tensors)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise FileError(f"{path}: damaged or truncated tissue network ({error}).") from error
    return TissueNetwork(card, network.eval())
