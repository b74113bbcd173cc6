"""Files of classifiers: safetensors with a JSON header, so that opening one never runs code."""

from __future__ import annotations

import json
import math
from pathlib import Path

from napari_medgs.classify.card import SUFFIX, ModelCard
from napari_medgs.classify.classifier import Classifier
from napari_medgs.errors import FileError, FormatVersionError
from napari_medgs.io.atomic import atomic_path
from napari_medgs.io.limits import check_file
from napari_medgs.io.records import plain_json

FORMAT = "napari-medgs classifier"
FORMAT_VERSION = 1
MAX_HEADER = 4 * 2**20
MAX_BYTES = 256 * 2**20


def save_classifier(path: str | Path, classifier: Classifier) -> Path:
    """Write a classifier to a ``.safetensors`` file.

    The file is complete or absent: it is written beside its place and renamed.

    Raises
    ------
    FileError
        When the name has another suffix or the folder cannot be written.
    """
    from safetensors.torch import save

    path = Path(path)
    if not path.name.endswith(SUFFIX):
        raise FileError(f"{path}: a classifier's file name must end in {SUFFIX}.")
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "card": json.dumps(plain_json(classifier.card.to_dict()), ensure_ascii=False),
    }
    state = classifier.network.state_dict()
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=header))
    return path


def load_card(path: str | Path) -> ModelCard:
    """Read only the card of a classifier's file; needs no torch.

    Raises
    ------
    FileError, FormatVersionError
        As :func:`load_classifier`.
    """
    path = check_file(path, "a classifier's file")
    try:
        with path.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > min(MAX_HEADER, path.stat().st_size):
                raise FileError(f"{path}: damaged, or no classifier's file.")
            metadata = json.loads(opened.read(length)).get("__metadata__", {})
            if metadata.get("format") != FORMAT:
                raise FileError(f"{path}: this file holds no classifier.")
            version = metadata.get("format_version", "")
            if version != str(FORMAT_VERSION):
                raise FormatVersionError(
                    f"{path}: classifier format version {version or 'unknown'}; this program "
                    f"reads version {FORMAT_VERSION}. Update napari-medgs to open it."
                )
            return ModelCard.from_dict(json.loads(metadata["card"]))
    except FormatVersionError:
        raise
    except FileError as error:
        raise FileError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(f"{path}: damaged or no classifier's file ({error}).") from error


def load_classifier(path: str | Path) -> Classifier:
    """Read a classifier's file.

    Parameters
    ----------
    path : str or Path
        One of :func:`~napari_medgs.classify.bundled_models`, or a file that training wrote.

    Raises
    ------
    FileError
        When the file is missing, damaged or no classifier.
    FormatVersionError
        When a newer version of the package wrote it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from napari_medgs.classify.networks import make_network

    path = check_file(path, "a classifier's file")
    card = load_card(path)
    if path.stat().st_size > MAX_BYTES:
        raise FileError(f"{path}: too large for a classifier of this package.")
    try:
        state = load_file(path)
        network = make_network(card)
        wanted = network.state_dict()
        if {k: v.shape for k, v in wanted.items()} != {k: v.shape for k, v in state.items()}:
            raise FileError(f"{path}: its weights do not fit the network that it describes.")
        if not all(math.isfinite(float(v.double().sum())) for v in state.values()):
            raise FileError(f"{path}: holds weights that are not finite.")
        network.load_state_dict(state)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise FileError(f"{path}: damaged or truncated classifier ({error}).") from error
    return Classifier(card, network)
