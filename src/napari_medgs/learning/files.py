"""Segmenter files: safetensors with a JSON card, so that opening one never runs code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_medgs._optional import require
from napari_medgs._util.records import parse_json
from napari_medgs.errors import FileError, ParameterError
from napari_medgs.io._safetensors import TensorFormat, check_weights
from napari_medgs.io.json_files import plain_json
from napari_medgs.learning.card import SUFFIX, SegmenterCard
from napari_medgs.learning.segmenter import Segmenter

FORMAT = TensorFormat("napari-medgs segmenter", 1, "segmenter", 16 * 2**20)
MAX_BYTES = 2**30


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
    from safetensors.torch import save

    path = Path(path)
    if not path.name.endswith(SUFFIX):
        raise FileError(f"{path}: the file of a segmenter must end in {SUFFIX}.")
    card = json.dumps(plain_json(segmenter.card.to_dict()), ensure_ascii=False)
    tensors = {
        _prefix(k) + name: value.detach().cpu().contiguous()
        for k, network in enumerate(segmenter.networks)
        for name, value in network.state_dict().items()
    }
    FORMAT.write(path, save(tensors, metadata=FORMAT.header(card=card)))
    return path


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
    header = FORMAT.read_header(path)
    try:
        return SegmenterCard.from_dict(parse_json(header["card"]))
    except FileError as error:
        raise FileError(f"{path}: {error}") from error
    except (ValueError, KeyError) as error:
        raise FileError(f"{path}: damaged, or no segmenter ({error}).") from error


def is_segmenter_file(path: str | Path) -> bool:
    """Tell whether a file is a segmenter of this version; does not need torch."""
    if not str(path).endswith(SUFFIX) or not Path(path).is_file():
        return False
    try:
        FORMAT.read_header(path)
    except FileError:
        return False
    return True


def load_segmenter(path: str | Path) -> Segmenter:
    """Read a segmenter that training wrote.

    Parameters
    ----------
    path : str or Path

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
    """
    path = Path(path)
    card = load_segmenter_card(path)
    require("torch", feature="A trained segmenter")
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from napari_medgs.learning.networks.segmenter import build_segmenter

    if path.stat().st_size > MAX_BYTES:
        raise FileError(f"{path}: too large for a segmenter of this package.")
    try:
        tensors = load_file(path)
        with torch.device("meta"):  # sizes only: a damaged card may ask for any amount of memory
            expected = {k: v.shape for k, v in build_segmenter(card.network).state_dict().items()}
        networks = []
        for number in range(1 + card.folds):
            state = _part(tensors, _prefix(number))
            check_weights(path, state, expected)
            network = build_segmenter(card.network)
            network.load_state_dict(state)
            networks.append(network)
    except ParameterError as error:
        raise FileError(f"{path}: damaged segmenter. {error}") from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise FileError(f"{path}: damaged or truncated segmenter ({error}).") from error
    return Segmenter(card, networks)


def _part(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
